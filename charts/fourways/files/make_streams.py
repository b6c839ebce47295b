"""Create the streams of STREAMS (JSON) on the trial NATS server; add subjects that one lacks."""

import asyncio
import json
import os

import nats
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError


async def main() -> None:
    """Connect to NATS_URL with USER and PASSWORD, and create or widen each stream."""
    client = await nats.connect(
        os.environ["NATS_URL"],
        user=os.environ["NATS_USER"],
        password=os.environ["NATS_PASSWORD"],
        max_reconnect_attempts=60,
        reconnect_time_wait=1,
    )
    jetstream = client.jetstream()
    for stream in json.loads(os.environ["STREAMS"]):
        name, subjects = stream["name"], set(stream["subjects"])
        try:
            config = (await jetstream.stream_info(name)).config
        except NotFoundError:
            await jetstream.add_stream(StreamConfig(name=name, subjects=sorted(subjects)))
            continue
        if lacking := subjects - set(config.subjects or ()):
            widened = sorted({*(config.subjects or ()), *lacking})
            await jetstream.update_stream(config.evolve(subjects=widened))
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
