"""Our HTTP stack with an empty handler: the upper limit for any handler. Argument: PORT."""

from __future__ import annotations

import asyncio
import sys

from fourways_http import Response, Router, Server, run_until_signal
from fourways_runtime.process import loop_factory


async def main() -> None:
    """Serve until terminated."""
    router = Router()
    answer = Response(b'{"outputs":[]}')
    router.add("GET", "/v2/health/ready", lambda request: answer)
    router.add("POST", "/v2/models/{model}/infer", lambda request: answer)
    server = Server(router)
    await server.start("127.0.0.1", int(sys.argv[1]))
    await run_until_signal(server, 0, 0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
