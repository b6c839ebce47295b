"""Converts models to ONNX, in a process of its own, and proves the result on a sample.

The converters and the libraries of the source formats are loaded by the worker only
(:mod:`.worker`): a damaged file ends that process, not the command.
"""

from __future__ import annotations
