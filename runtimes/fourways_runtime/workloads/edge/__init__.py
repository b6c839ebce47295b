"""The build of what devices run: a model optimised, measured, held to a budget, signed, published.

Run by ``python -m fourways_runtime edge-build``. ``layout`` is the published format, which devices
read too; it imports nothing, so nothing is imported here either.
"""

from __future__ import annotations


def main() -> int:
    """Build and publish the bundles of one deployment; return the exit code."""
    from .shell import main as run

    return run()
