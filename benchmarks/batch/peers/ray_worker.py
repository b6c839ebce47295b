"""Ray Data, ``map_batches`` with an actor that holds the model, to Parquet."""

import logging
import sys
from typing import Any

import ray
from common import NAMES, measured, scored, session

ray.init(
    address="local",
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=logging.ERROR,
    object_store_memory=2 * 2**30,
    runtime_env={"env_vars": {"PYTHONPATH": sys.path[0]}},
)
ray.data.DataContext.get_current().enable_progress_bars = False


class Score:
    """The model, loaded once."""

    def __init__(self, path: str) -> None:
        self.model = session(path)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score a batch."""
        return {"id": batch["id"], "score": scored(self.model, [batch[n] for n in NAMES])}


def work() -> None:
    """Score a Parquet table into Parquet."""
    rows = ray.data.read_parquet(sys.argv[2], columns=["id", *NAMES])
    scores = rows.map_batches(
        Score,
        fn_constructor_args=(sys.argv[1],),
        batch_size=65_536,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    scores.write_parquet(sys.argv[3], compression="zstd")


measured(work)
