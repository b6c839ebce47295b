"""The bundle build: optimise a model, measure it, check it against a budget; then sign and publish.

Run by ``python -m fourways_runtime edge-build``, and after it by ``edge-sign``. The published
format, which devices read too, is in :mod:`fourways_runtime.bundle_layout`. This package imports
nothing until ``main`` is called.
"""

from __future__ import annotations


def main() -> int:
    """Build the bundles of one deployment; return the exit code."""
    from .shell import main as run

    return run()
