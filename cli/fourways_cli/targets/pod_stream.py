"""Data to and from a command that runs in a pod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .base import TargetError


def run_in_pod(stream: Any, parts: Iterable[bytes], seconds: float) -> tuple[int, str]:
    """Send data to a command of a pod; return its exit code and what it says on standard error.

    Raises:
        TargetError: the connection broke, or the command did not end in time.

    """
    from websocket import WebSocketException

    try:
        for part in parts:
            if not stream.is_open():
                break
            stream.write_stdin(part)
        stream.run_forever(timeout=seconds)
        if stream.is_open():
            raise TargetError(f"the command did not end within {seconds:g} s")
        said = stream.read_stderr() if stream.peek_stderr() else ""
        return int(stream.returncode), str(said)
    # The client reads its own error channel without checks.
    except (WebSocketException, OSError, TypeError, LookupError, ValueError) as error:
        raise TargetError(f"the connection to the pod broke: {error}") from None
    finally:
        stream.close()
