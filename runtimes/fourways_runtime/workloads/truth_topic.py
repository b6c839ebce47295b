"""Labels that come as events: each page of a topic becomes a batch like one of a table.

The topic is read from its events of the window on, an hour more for clocks that differ: a label
cannot be published long before the time that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa

from fourways_api import Contract
from fourways_api.runtime_config import StreamConfig
from fourways_runtime.io.brokers.registry import read_topic
from fourways_runtime.io.brokers.topic import TopicEvent
from fourways_runtime.scoring.columns import Array, Reject
from fourways_runtime.scoring.event_keys import put_broker_key
from fourways_runtime.scoring.json_cells import json_column
from fourways_runtime.scoring.literals import json_object

_EARLIER_SECONDS = 3600.0


def label_chunks(
    config: StreamConfig, contract: Contract, since: int
) -> Iterator[tuple[pa.RecordBatch, Array, list[Reject]]]:
    """Yield the labels published since a time (microseconds since 1970), until now.

    ``contract`` describes the labels. Each chunk is a batch, the number of each row in the topic,
    and events that are no objects. Raises WorkloadError.
    """
    assert config.quality is not None, "there is something to compare"  # noqa: S101
    assert config.quality.topic is not None, "labels come from a topic"  # noqa: S101
    label = config.quality.label
    numbers = count()
    columns = [(contract.entity_key.name, contract.entity_key.type), *_inputs(contract)]
    begin = max(0.0, since / 1e6 - _EARLIER_SECONDS)
    for page in read_topic(config, config.quality.topic, begin):
        documents, rejects = [], []
        for event, number in zip(page, numbers, strict=False):
            document, fault = _label(event, contract, label)
            if document is None:
                rejects.append(Reject(number, None, "event", fault))
            else:
                documents.append((number, document))
        batch = {
            name: json_column(kind, 0, [document.get(name) for _, document in documents])
            for name, kind in columns
        }
        rows = np.fromiter((number for number, _ in documents), np.int64, len(documents))
        yield pa.RecordBatch.from_pydict(batch), rows, rejects


def _inputs(contract: Contract) -> list[tuple[str, str]]:
    return [(field.name, field.type) for field in contract.flat_inputs]


def _label(event: TopicEvent, contract: Contract, label: str) -> tuple[dict[str, Any] | None, str]:
    if event.value is None:
        return None, "no value"
    document, fault = json_object(event.value)
    if document is None:
        return None, str(fault)
    put_broker_key(document, contract.entity_key, event.key)
    if isinstance(document.get(label), bool):
        document[label] = int(document[label])
    return document, ""
