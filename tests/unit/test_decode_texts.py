"""A device decodes texts without pandas, whether few or many of them come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fourways_api import Contract
from fourways_api.base import SKIP_RULES
from fourways_runtime.scoring.decode import Decoder


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("categories", [None, ["a", "é"]])
def test_few_texts_and_many_are_judged_alike(nullable: bool, categories: list[str] | None) -> None:
    field = {"name": "t", "type": "string", "nullable": nullable}
    if categories is not None:
        field["categories"] = categories
    contract = Contract.model_validate(
        {
            "entityKey": {"name": "id", "type": "int64"},
            "inputs": [field],
            "outputs": [{"name": "y", "type": "float32"}],
        },
        context=SKIP_RULES,
    )
    texts = ["a", "é", "", None, "\0", "x" * 100, "\ud800", np.str_("a"), b"a", 7, float("nan")]
    decoder = Decoder(contract)

    def judged(values: list[Any]) -> list[tuple[int, str]]:
        cells = np.empty(len(values), object)
        cells[:] = values
        keys = np.arange(len(values))
        records, rejects = decoder.check(keys, {"t": cells}, keys)
        found = {
            int(row): repr(text)
            for row, text in zip(records.rows, records.columns["t"], strict=True)
        }
        return sorted((found | {it.row: it.reason for it in rejects}).items())

    # A text at a time, and all of them among a hundred.
    alone = [judged([text])[0][1] for text in texts]
    among = [said for _, said in judged([*texts, *["a"] * 100])][: len(texts)]
    assert alone == among
