"""Texts become tokens from a file: in a bundle that is really measured, on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fourways_agent import Device
from fourways_agent.update import update
from tests.kit import texts
from tests.kit.edge_plane import ROOMY, built_and_signed, edge_config
from tests.kit.edge_rig import Publisher, device, gateway_of
from tests.kit.texts import TEXTS, expected

pytestmark = pytest.mark.embedded


def test_a_device_answers_texts_as_the_model_does(tmp_path: Path) -> None:
    config = edge_config(
        tmp_path,
        texts.classifier(),
        texts.contract(padToMultipleOf=4),
        texts.golden(),
        tolerance=1e-5,
        budget=ROOMY | {"minAgreement": 1},
    )
    texts.written(tmp_path / "volumes" / "data")
    bundle = built_and_signed(config).bundles[0]
    assert bundle.agreement == 1.0
    with gateway_of(Publisher(tmp_path)) as gateway:
        store, settings = device(tmp_path, gateway)
        assert update(store, settings).changed
    ours = Device(store.folder)
    found = [ours.predict({"review": text})["scores"] for text in TEXTS]
    np.testing.assert_allclose(found, expected(TEXTS), atol=1e-5)
