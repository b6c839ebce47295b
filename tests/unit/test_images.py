"""Images as inputs: decoded, resized and normalised alike in every mode, and bounded."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from onnx import helper
from PIL import Image
from pydantic import ValidationError

from fourways_api import Contract
from fourways_runtime.errors import ContractMismatch
from fourways_runtime.scoring.images import MAX_PIXELS
from fourways_runtime.scoring.model.base import Tensor
from fourways_runtime.scoring.pipeline import Pipeline
from fourways_runtime.scoring.single import RecordRefused, RecordScorer
from fourways_runtime.scoring.table_pipeline import TablePipeline
from tests.kit.models import Function
from tests.kit.serving_plane import configure, serving, tensor
from tools.kit.models import FLOAT, onnx_bytes

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PLAIN: dict[str, Any] = {"width": 4, "height": 2}


def contract(image: dict[str, Any] = PLAIN, **more: Any) -> Contract:
    return Contract.model_validate(
        {
            "entityKey": {"name": "id"},
            "inputs": [{"name": "photo", "type": "bytes", "image": image}],
            "outputs": [{"name": "y", "type": "float32", "shape": [3], **more}],
        }
    )


def picture(size: tuple[int, int] = (8, 4), kind: str = "PNG", mode: str = "RGB") -> bytes:
    chance = np.random.default_rng(5)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    made = BytesIO()
    Image.fromarray(chance.integers(0, 256, shape, np.uint8), mode).save(made, kind)
    return made.getvalue()


def model(kind: str = "float32", shape: Any = (None, 3, 2, 4)) -> Function:
    """Answers the mean of each channel."""
    return Function(
        (Tensor("photo", kind, shape),),
        (Tensor("y", "float32", (None, 3)),),
        lambda given: {"y": given["photo"].reshape(len(given["photo"]), 3, -1).mean(axis=2)},
    )


def given(image: dict[str, Any], raw: bytes, kind: str = "float32", shape: Any = None) -> Any:
    """Return the tensor that a model is given."""
    asked = model(kind, shape or (None, 3, 2, 4))
    RecordScorer(contract(image), asked).ask({"photo": base64.b64encode(raw).decode()})
    return asked.asked["photo"]


@pytest.mark.parametrize("filter", ["Nearest", "Bilinear", "Bicubic", "Lanczos"])
def test_pixels_are_pillows_own_resized_and_normalised(filter: str) -> None:
    raw = picture()
    settings = {**PLAIN, "filter": filter, "mean": MEAN, "std": STD}
    resized = Image.open(BytesIO(raw)).resize((4, 2), Image.Resampling[filter.upper()])
    wanted = (np.asarray(resized, np.float32) / 255 - MEAN) / STD
    found = given(settings, raw)
    assert (found.dtype, found.shape) == (np.float32, (1, 3, 2, 4))
    np.testing.assert_allclose(found[0], wanted.transpose(2, 0, 1), rtol=1e-5, atol=1e-5)


def test_layout_mode_crop_and_whole_numbers() -> None:
    raw = picture((4, 2))
    pixels = np.asarray(Image.open(BytesIO(raw)))
    last = given({**PLAIN, "layout": "HWC", "scale": 1}, raw, shape=(None, 2, 4, 3))
    np.testing.assert_array_equal(last[0], pixels)
    whole = given(PLAIN, raw, "uint8")
    np.testing.assert_array_equal(whole[0], pixels.transpose(2, 0, 1))
    grey = Tensor("photo", "uint8", (None, 1, 2, 4))
    asked = Function((grey,), (), lambda _: {"y": np.ones((1, 3))})
    RecordScorer(contract({**PLAIN, "mode": "L"}), asked).ask({"photo": raw})
    np.testing.assert_array_equal(
        asked.asked["photo"][0, 0], np.asarray(Image.open(BytesIO(raw)).convert("L"))
    )
    square = {"width": 2, "height": 2, "fit": "Crop", "filter": "Nearest"}
    found = given(square, raw, "uint8", (None, 3, 2, 2))
    np.testing.assert_array_equal(found[0], pixels[:, 1:3].transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
async def test_a_request_a_table_and_a_device_get_the_same_answer(
    kind: str, tmp_path: Path
) -> None:
    onnx = onnx_bytes(
        [helper.make_node("ReduceMean", ["photo"], ["y"], axes=[2, 3], keepdims=0)],
        [("photo", FLOAT, ["N", 3, 2, 4])],
        [("y", FLOAT, ["N", 3])],
    )
    raw = picture(kind=kind)
    coded = base64.b64encode(raw).decode()
    schema = contract().to_json()
    async with serving(configure(tmp_path, onnx, schema)) as plane:
        answer = await plane.infer(tensor("photo", "BYTES", [coded, coded]))
        old = await plane.client.post(
            "/v1/models/churn:predict", json={"instances": [{"photo": {"b64": coded}}]}
        )
        broken = await plane.infer(tensor("photo", "BYTES", [coded, "QUJD"]))
    data = answer.json()["outputs"][0]["data"]
    record = RecordScorer(contract(), model()).ask({"photo": raw})
    np.testing.assert_allclose(data[:3], record["y"], rtol=1e-5)
    np.testing.assert_allclose(data[3:], data[:3])
    np.testing.assert_allclose(old.json()["predictions"][0], record["y"], rtol=1e-5)
    batch = pa.RecordBatch.from_pydict({"id": ["u", "v"], "photo": [raw, b"none"]})
    found = TablePipeline(Pipeline(contract(), model())).score(batch)
    np.testing.assert_allclose(found.predictions.columns["y"][0], record["y"])
    assert [str(each) for each in found.rejects] == [
        "photo: is no image in JPEG, PNG, WEBP, BMP, GIF"
    ]
    assert broken.status_code == 400
    assert broken.json()["error"] == "photo: is no image in JPEG, PNG, WEBP, BMP, GIF (row 1)"


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        pytest.param(b"", "missing", id="empty"),
        pytest.param(b"GIF89a", "image", id="head"),
        pytest.param(picture(kind="JPEG")[:300], "is a damaged image", id="truncated"),
        pytest.param(bomb(30_000, 30_000), f"more than {MAX_PIXELS:,} pixels", id="bomb"),
        pytest.param(bomb(8_000, 8_000), "8000 x 8000 pixels, at most", id="large"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", "is no image in", id="EPS"),
    ],
)
def test_what_is_no_image_of_a_sane_size_is_the_callers_fault(raw: bytes, told: str) -> None:
    with pytest.raises(RecordRefused, match=told):
        RecordScorer(contract(), model()).ask({"photo": raw})


def test_damaged_bytes_are_refused_or_read_and_nothing_else() -> None:
    chance = random.Random(11)
    scorer = RecordScorer(contract(), model())
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        raw = picture((16, 16), kind)
        for _ in range(60):
            damaged = bytearray(raw)
            for _ in range(chance.choice([1, 3, 9])):
                damaged[chance.randrange(len(raw))] = chance.randrange(256)
            try:
                scorer.ask({"photo": bytes(damaged)})
            except RecordRefused as refused:
                assert refused.field == "photo"  # noqa: PT017


@pytest.mark.parametrize(
    ("tensor_", "told"),
    [
        (("float32", (None, 4, 2, 3)), r"have the shape \[3, 2, 4\]"),
        (("string", (None,)), "remove image if the model decodes them"),
        (("int8", (None, 3, 2, 4)), "of int8 cannot hold"),
    ],
)
def test_a_model_that_reads_something_else_is_refused(tensor_: Any, told: str) -> None:
    with pytest.raises(ContractMismatch, match=told):
        Pipeline(contract(), model(*tensor_))


@pytest.mark.parametrize(
    "image",
    [
        {"width": 4},
        {**PLAIN, "mean": [0.1, 0.2]},
        {**PLAIN, "mode": "L", "mean": [0.1, 0.2, 0.3]},
        {**PLAIN, "std": [0.0]},
        {**PLAIN, "scale": 0},
    ],
)
def test_settings_that_contradict_each_other_are_refused(image: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        contract(image)


def test_only_bytes_are_images() -> None:
    field = {"name": "photo", "type": "string", "image": PLAIN}
    with pytest.raises(ValidationError):
        Contract.model_validate({**contract().to_json(), "inputs": [field]})
