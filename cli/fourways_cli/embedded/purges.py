"""Removal of the data of uids from the host's store, by the Job that the operator would start."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from fourways_api import PurgeConfig
from fourways_operator.plan import purge

from . import workloads
from .clock import Clock
from .control import RequestRefused
from .local_plan import SETTINGS
from .managed import Json, Key
from .runs import LocalRun
from .state import local_paths
from .uids import DeploymentUids


class Purges:
    """Starts these Jobs under one state folder."""

    def __init__(self, state: Path, uids: DeploymentUids, clock: Clock) -> None:
        self._state = state
        self._uids = uids
        self._clock = clock
        self._numbers = count(1)

    async def run(self, key: Key, uids: Sequence[str]) -> list[Json]:
        """Remove the data of these uids of a name; return it. Without uids, list what there is.

        Raises:
            RequestRefused: the store failed.

        """
        current = self._uids.of(key)
        config = PurgeConfig(namespace=key[0], name=key[1], uids=tuple(uids))
        planned = purge.job(config, SETTINGS.runtime_image, SETTINGS)
        name = f"{key[1]}-purge-{next(self._numbers)}"
        job = workloads.purge_job(planned, name, local_paths(self._state))
        run = LocalRun(job, self._state, self._clock)
        await run.run()
        report = run.report
        if report is None or report.outcome != "Succeeded":
            why = report.message if report else f"see {run.log}"
            raise RequestRefused(f"the data of {key[1]} was not read or removed: {why}")
        if current in uids:
            self._uids.renew(key)
        return [data.to_json() for data in report.stored]
