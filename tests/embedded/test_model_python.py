"""Models that are the user's own code: duck-typed, and real subclasses of kserve.Model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import kserve
import numpy as np
import pytest

from fourways_api.model import ModelReference
from fourways_runtime.errors import ConfigError, ModelError, ModelNotLoadable
from fourways_runtime.scoring import model as models
from fourways_runtime.scoring.model import Tensor
from tests.kit.waiting import turns

ROWS = {"x": np.arange(6, dtype=np.float32).reshape(3, 2)}

pytestmark = pytest.mark.embedded


def load(found: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> models.Model:
    module = ModuleType("users_code")
    module.Predictor = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "users_code", module)
    return _load("users_code:Predictor", path)


def _load(python_class: str, path: Path) -> models.Model:
    reference = ModelReference(
        uri="file:///m", version="1", format="python", python_class=python_class
    )
    return models.load(path, reference, threads=1)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_text("10")
    return tmp_path / "weights"


class Plain:
    """The smallest class that will do."""

    model_path: str

    def load(self) -> bool:
        self.factor = float(Path(self.model_path).read_text())
        return True

    def predict(self, payload: Any, headers: Any = None) -> Any:
        return {"y": payload["x"].sum(axis=1) * self.factor, "words": ["a", "b", "c"]}


class Kserve(kserve.Model):  # type: ignore[misc]
    """As KServe's documentation writes them."""

    model_path: str

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = False

    def load(self) -> bool:
        self.factor = float(Path(self.model_path).read_text())
        self.ready = True
        return self.ready

    async def preprocess(self, payload: Any, headers: Any = None) -> Any:
        await turns()
        return {"x": payload["x"] + 1}

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        return {"y": payload["x"].sum(axis=1) * self.factor}

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": "y", "datatype": "FP32", "shape": [-1]}]


class Answers(kserve.Model):  # type: ignore[misc]
    """Answers with an InferResponse, asynchronously."""

    async def predict(self, payload: Any, headers: Any = None) -> kserve.InferResponse:
        output = kserve.InferOutput("y", [3], "FP32")
        output.set_data_from_numpy(payload["x"].sum(axis=1), binary_data=False)
        return kserve.InferResponse("id", self.name, [output])


def test_a_plain_class_will_do(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(Plain, weights, monkeypatch)
    assert (model.inputs, model.outputs) == ((), ())
    answer = model.predict(ROWS)
    np.testing.assert_array_equal(answer["y"], [10, 50, 90])
    assert answer["words"].dtype == object


def test_a_kserve_model_works(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(Kserve, weights, monkeypatch)
    assert model.inputs == (Tensor("x", "float32", (None, 2)),)
    assert model.outputs == (Tensor("y", "float32", (None,)),)
    np.testing.assert_array_equal(model.predict(ROWS)["y"], [30, 70, 110])


def test_a_kserve_response_is_understood(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = load(Answers, weights, monkeypatch).predict(ROWS)
    np.testing.assert_array_equal(answer["y"], [1, 5, 9])


def test_asynchronous_methods_answer_several_threads(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(Answers, weights, monkeypatch)
    answers: list[Mapping[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(model.predict(ROWS))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["y"].tolist() for answer in answers] == [[1, 5, 9]] * 8


def test_synchronous_methods_are_called_one_at_a_time(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[int] = []
    most: list[int] = []
    entered = threading.Event()

    class Busy:
        def predict(self, payload: Any, headers: Any = None) -> Any:
            inside.append(1)
            most.append(len(inside))
            entered.wait(0.02)
            inside.pop()
            return payload

    model = load(Busy, weights, monkeypatch)
    threads = [threading.Thread(target=model.predict, args=(ROWS,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def _raising(error: BaseException) -> Any:
    def method(self: Any, *_: Any, **__: Any) -> Any:
        raise error

    return method


def _with(**methods: Any) -> Any:
    return type("Users", (), {"predict": lambda self, payload, headers=None: payload} | methods)


@pytest.mark.parametrize(
    ("found", "error", "said"),
    [
        (_with(load=_raising(KeyError("secret"))), ModelNotLoadable, r"load\(\) failed: KeyError"),
        (_with(load=lambda self: False), ModelNotLoadable, "returned False"),
        (
            _with(__init__=_raising(OSError("secret"))),
            ModelNotLoadable,
            "creating an instance failed",
        ),
        (_with(load=_raising(SystemExit(0))), ModelNotLoadable, r"load\(\) failed: SystemExit"),
        (_with(__init__=_raising(SystemExit())), ModelNotLoadable, "instance failed: SystemExit"),
        (_with(get_output_types=_raising(SystemExit(2))), ModelNotLoadable, "SystemExit"),
        (type("No", (), {}), ConfigError, "not a class with a predict"),
        (len, ConfigError, "not a class with a predict"),
        (_with(get_input_types=lambda self: [{"name": 1}]), ModelNotLoadable, "get_input_types"),
    ],
)
def test_a_class_that_cannot_serve_is_said(
    found: Any, error: Any, said: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error, match=said) as caught:
        load(found, weights, monkeypatch)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module_here:Model", "pathlib:NoSuchClass"])
def test_a_class_that_is_not_there_is_said(name: str, weights: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        _load(name, weights)


async def _leaving(self: Any, payload: Any, headers: Any = None) -> Any:
    sys.exit(0)


def _answering(value: Any) -> Any:
    return lambda self, payload, headers=None: {"y": value}


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (_raising(ValueError("secret")), "its code failed: ValueError"),
        (_raising(SystemExit(0)), "its code failed: SystemExit"),
        (_leaving, "its code failed: ProgramEnded"),
        (_answering(np.ones(3, complex)), "not an array of numbers"),
        (_answering(np.array(["2026-12-01"] * 3, "M8[D]")), "not an array of numbers"),
        (_answering([1.0, None, 3.0]), "return NaN where a number is missing"),
        (_answering([Decimal(1)] * 3), "not an array of numbers"),
        (_answering(["a", 1.0, None]), "not an array of numbers"),
        (_answering([2**70, 1, 2]), "not an array of numbers"),
        (lambda self, payload, headers=None: [1, 2], "returned list, not a dict"),
        (lambda self, payload, headers=None: {"y": [[1], [2, 3]]}, "not an array"),
    ],
)
def test_an_answer_that_is_none_is_said(
    predict: Any, said: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(_with(predict=predict), weights, monkeypatch)
    with pytest.raises(ModelError, match=said) as caught:
        model.predict(ROWS)
    assert "secret" not in str(caught.value)


def test_a_module_that_ends_the_program_is_said(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_script.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelNotLoadable, match="importing it failed: SystemExit"):
        _load("users_script:Predictor", weights)


def test_a_coroutine_that_ends_the_program_leaves_the_loop_to_others(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaves:
        calls = 0

        async def predict(self, payload: Any, headers: Any = None) -> Any:
            self.calls += 1
            if self.calls == 1:
                sys.exit(0)
            return payload

    model = load(Leaves, weights, monkeypatch)
    with pytest.raises(ModelError):
        model.predict(ROWS)
    np.testing.assert_array_equal(model.predict(ROWS)["x"], ROWS["x"])


def test_the_code_may_change_its_arrays(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(self: Any, payload: Any, headers: Any = None) -> Any:
        payload["x"] *= 2
        return payload

    given = np.frombuffer(ROWS["x"].tobytes(), np.float32).reshape(3, 2)  # not writable
    model = load(_with(predict=predict), weights, monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(model.predict({"x": given})["x"], 2 * ROWS["x"])
    np.testing.assert_array_equal(given, ROWS["x"])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (np.ma.masked_array([1, 2, 3], [False, True, False]), [1.0, np.nan, 3.0]),
        (np.ma.masked_array([1, 2, 3]), [1, 2, 3]),
        (np.array([1, 2.5, True], object), [1.0, 2.5, 1.0]),
        (["a\0", "b", "c"], ["a\0", "b", "c"]),
        (np.array(["a", b"b", "c"], object), ["a", b"b", "c"]),
    ],
)
def test_an_answer_is_taken_as_it_was_meant(
    value: Any, wanted: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = load(_with(predict=_answering(value)), weights, monkeypatch).predict(ROWS)["y"]
    np.testing.assert_equal(answer.tolist(), wanted)
