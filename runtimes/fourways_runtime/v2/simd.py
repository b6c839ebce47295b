"""Keeps numpy's AVX loops from slowing onnxruntime down.

numpy's AVX loops leave the upper halves of the vector registers in use. onnxruntime's SSE code for
tree models then runs about 17 % slower on Intel servers until something clears them, and nothing
here does. On a server's small batches the narrower loops are as fast. See
docs/decisions/2026-11-21-serving-hot-path.md.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, distribution

VARIABLE = "NPY_DISABLE_CPU_FEATURES"
"""numpy's own variable. A value that is already set when the process starts is kept."""

_WIDE = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
_TESTED = "2.4."
"""numpy's versions name these features differently, and a build that requires one of them does not
start without it. So this is limited to the tested versions, as published on PyPI."""


def prefer_narrow_loops() -> bool:
    """Disable numpy's AVX loops before it is imported; return whether that was done."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if "numpy" in sys.modules or VARIABLE in os.environ:
        return False
    try:
        numpy = distribution("numpy")
    except PackageNotFoundError:
        return False
    published = numpy.locate_file("numpy.libs")
    if not numpy.version.startswith(_TESTED) or not os.path.isdir(str(published)):
        return False
    os.environ[VARIABLE] = _WIDE
    return True
