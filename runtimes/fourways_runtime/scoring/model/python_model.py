"""A model that is the user's code, from the user's image: a class with kserve.Model's methods.

The class is recognised by its methods, so kserve itself is not required; a subclass of
``kserve.Model`` works too. KServe passes ``predict`` a dict of JSON (V1) or an InferRequest (V2);
here it receives a dict of numpy arrays by input name, in every mode, and returns a dict of arrays
by output name. An InferResponse is accepted too.

``load()`` finds the model file's path in ``self.model_path``. As under KServe, synchronous methods
are called one at a time, and asynchronous ones share one event loop. Code that ends the program
(``sys.exit``) has failed, like code that raises. The arrays are the code's own: it may change them.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fourways_runtime.errors import ConfigError, ModelError, ModelNotLoadable

from ..columns import Array
from .base import Tensor

_FAILURES = (Exception, SystemExit)
"""What the user's code may raise. SystemExit would end a thread without a word, or a run as if it
had succeeded."""

_V2_TYPES = {"BOOL": "bool", "BYTES": "object"} | {
    f"{prefix}{bits}": f"{name}{bits}"
    for prefix, name, sizes in (
        ("INT", "int", (8, 16, 32, 64)),
        ("UINT", "uint", (8, 16, 32, 64)),
        ("FP", "float", (16, 32, 64)),
    )
    for bits in sizes
}


class PythonModel:
    """A model whose methods are the user's code.

    ``inputs`` and ``outputs`` are the results of its ``get_input_types`` and ``get_output_types``,
    in KServe's form ({"name", "datatype", "shape"}); without these methods they are empty.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="python-model", daemon=True).start()
        self.inputs = _described(instance, "get_input_types")
        self.outputs = _described(instance, "get_output_types")

    def load(self) -> None:
        """Call the user's ``load``. Raises ModelNotLoadable when it fails or returns False."""
        method = getattr(self._instance, "load", None)
        if method is None:
            return
        try:
            answer = self._call(method)
        except _FAILURES as error:
            raise ModelNotLoadable(f"its load() failed: {type(error).__name__}") from error
        if answer is False:
            raise ModelNotLoadable("its load() returned False")

    def predict(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Score a batch; see :class:`fourways_runtime.scoring.model.base.Model`."""
        value: Any = {name: values.copy() for name, values in tensors.items()}
        try:
            for step in ("preprocess", "predict", "postprocess"):
                method = getattr(self._instance, step, None)
                if method is not None:
                    value = self._call(method, value, None)
        except _FAILURES as error:
            raise ModelError(f"its code failed: {type(error).__name__}") from error
        return _arrays(value)

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if inspect.iscoroutinefunction(method):
            coroutine = _without_exit(method(*arguments))
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        with self._lock:
            return method(*arguments)


class ProgramEnded(Exception):
    """The code of a coroutine called ``sys.exit``, which would end the loop that all share."""


async def _without_exit(coroutine: Awaitable[Any]) -> Any:
    try:
        return await coroutine
    except SystemExit as error:
        raise ProgramEnded from error


def load_python(path: Path, python_class: str) -> PythonModel:
    """Import MODULE:CLASS, create an instance, and load it.

    Raises ConfigError if there is no such class with a predict method, ModelNotLoadable if it
    cannot be instantiated or loaded.
    """
    module, _, name = python_class.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{python_class}: the image has no module {error.name}") from error
    except AttributeError as error:
        raise ConfigError(f"{python_class}: the module has no such class") from error
    except _FAILURES as error:
        raise ModelNotLoadable(
            f"{python_class}: importing it failed: {type(error).__name__}"
        ) from error
    if not isinstance(found, type) or not callable(getattr(found, "predict", None)):
        raise ConfigError(f"{python_class}: is not a class with a predict method")
    try:
        instance = _made(found, name)
        instance.model_path = str(path)
    except _FAILURES as error:
        raise ModelNotLoadable(
            f"{python_class}: creating an instance failed: {type(error).__name__}"
        ) from error
    model = PythonModel(instance)
    model.load()
    return model


def _made(found: type[Any], name: str) -> Any:
    """Create an instance, with the model's name if its constructor takes one, as kserve's does."""
    try:
        inspect.signature(found).bind(name)
    except TypeError:
        return found()
    return found(name)


def _arrays(value: Any) -> dict[str, Array]:
    if isinstance(value, tuple) and len(value) == 2:
        # kserve allows a method to return its response headers too.
        value = value[0]
    outputs = getattr(value, "outputs", None)
    if isinstance(outputs, list):
        value = {output.name: output.as_numpy() for output in outputs}
    if not isinstance(value, Mapping):
        raise ModelError(
            f"its predict returned {type(value).__name__}, not a dict of arrays by output name"
        )
    try:
        return {str(name): _array(array) for name, array in value.items()}
    except (ValueError, TypeError):
        raise ModelError(
            "its predict returned something that is not an array of numbers, truths or texts;"
            " return NaN where a number is missing"
        ) from None


def _array(value: Any) -> Array:
    """Return an array of numbers or truths, or of objects that are texts. Raises TypeError."""
    array = np.asarray(value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        array = np.ma.filled(value.astype(np.float64), np.nan)  # masked is missing
    if array.dtype.kind == "U":
        # From a list, because numpy's own texts lose NULs at their ends.
        return array.astype(object) if isinstance(value, np.ndarray) else np.array(value, object)
    if array.dtype.kind == "O":
        array = _uniform(array)
    if array.dtype.kind not in "biufSO":
        raise TypeError  # a complex number or a time would be cut down to a number
    return array


def _uniform(objects: Array) -> Array:
    """Return an array of objects as one of numbers if they all are. Raises TypeError."""
    listed = objects.reshape(-1).tolist()
    if all(isinstance(each, str | bytes) for each in listed):
        return objects
    if not all(isinstance(each, int | float | np.number | np.bool_) for each in listed):
        raise TypeError
    numbers = np.array(listed)
    if numbers.dtype.kind == "O":
        raise TypeError  # one of them fits no type
    return numbers.reshape(objects.shape)


def _described(instance: Any, method: str) -> tuple[Tensor, ...]:
    describe = getattr(instance, method, None)
    if describe is None:
        return ()
    try:
        return tuple(
            Tensor(
                str(entry["name"]),
                _V2_TYPES[entry["datatype"]],
                tuple(None if size < 0 else int(size) for size in entry["shape"]),
            )
            for entry in describe()
        )
    except _FAILURES as error:
        raise ModelNotLoadable(f"its {method}() failed: {type(error).__name__}") from error
