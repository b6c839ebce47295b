"""The stream worker: scores events as they arrive, each exactly once as far as the store shows.

Run by ``python -m fourways_runtime stream``. The gateway publishes events through it. The brokers'
clients are imported where they are used, so that none pays for another's library.
"""

from fourways_runtime.io.brokers.publisher import Publisher
from fourways_runtime.io.brokers.registry import open_publisher

__all__ = ["Publisher", "main", "open_publisher"]


def main() -> int:
    """Work until told to stop; return the exit code of ``fourways_runtime.errors``."""
    from .shell import main as work

    return work()
