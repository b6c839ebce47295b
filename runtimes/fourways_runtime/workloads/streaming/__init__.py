"""The stream worker: scores events as they arrive, with exactly-once effects in the store.

Run by ``python -m fourways_runtime stream``. The gateway publishes events through this package. The
brokers' clients are imported where they are used, so that no process loads another broker's
library.
"""

from fourways_runtime.io.brokers.publisher import Publisher
from fourways_runtime.io.brokers.registry import open_publisher

__all__ = ["Publisher", "main", "open_publisher"]


def main() -> int:
    """Work until stopped; return an exit code from ``fourways_runtime.errors``."""
    from .shell import main as work

    return work()
