"""Damaged gRPC messages for the torture of requests, and the calls that send them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from fourways_runtime.grpc_v2.messages import SERVICE, message

from .request_material import ODD, TYPED_FIELDS, Target, odd_bytes, valid

METHOD = f"/{SERVICE}/ModelInfer"
CLIENT_FAULTS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""The statuses of the 4xx that a damaged request may get."""

_SIZES = (-1, 0, 1, 3, 2**31, 2**62, 2**63 - 1, -(2**63))
_DATATYPES = ("", "BYTES", "BOOL", "FP16", "BF16", "fp32", "INT8", "UINT64", "FP64", "x" * 300)
_UNKNOWN_FIELDS = (
    b"\xa0\x06\x01",  # field 100, a varint
    b"\xa2\x06\x03abc",  # field 100, bytes
    b"\xa5\x06\x00\x00\x80\x3f",  # field 100, four bytes
    b"\x3a\x00",  # one more of raw_input_contents
    b"\x2a\x00",  # one more of inputs
)


class Caller:
    """Calls ModelInfer with messages as bytes."""

    def __init__(self, stubs: dict[int, Any], seconds: float) -> None:
        self._stubs = stubs
        self._seconds = seconds

    async def call(self, target: Target, sent: bytes) -> tuple[grpc.StatusCode, str]:
        """Return the status of an answer, and its details."""
        try:
            await self._stubs[target.grpc_port](sent, timeout=self._seconds)
        except aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


@asynccontextmanager
async def calling(targets: list[Target], seconds: float) -> AsyncIterator[Caller]:
    """Yield a caller with a connection to each of the targets' ports."""
    async with AsyncExitStack() as stack:
        stubs = {}
        for port in {target.grpc_port for target in targets}:
            address = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(aio.insecure_channel(address))
            stubs[port] = channel.unary_unary(METHOD)
        yield Caller(stubs, seconds)


def damaged_message(target: Target, chance: random.Random) -> bytes:
    """Return a ModelInferRequest that is damaged in its fields, as bytes, or in both ways."""
    made = _message(target.model, chance)
    if chance.random() < 0.75:
        for _ in range(chance.randint(1, 2)):
            chance.choice(_DAMAGES)(made, chance)
    sent: bytes = made.SerializeToString()
    if chance.random() < 0.4:
        sent = bytes(odd_bytes(bytearray(sent), chance))
    if chance.random() < 0.2:
        sent += chance.choice(_UNKNOWN_FIELDS)
    return sent


def _message(model: str, chance: random.Random) -> Any:
    """Return a valid request, with typed or raw contents."""
    raw = chance.random() < 0.5
    document, data = valid(model, chance, binary=raw)
    made = message("ModelInferRequest")(model_name=model, id=document.get("id", ""))
    for tensor in document["inputs"]:
        one = made.inputs.add(
            name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
        )
        if raw:
            size = tensor["parameters"]["binary_data_size"]
            made.raw_input_contents.append(data[:size])
            data = data[size:]
            continue
        values = tensor["data"]
        if tensor["datatype"] == "BYTES":
            values = [value.encode() for value in values]
        getattr(one.contents, TYPED_FIELDS[tensor["datatype"]]).extend(values)
    for output in document.get("outputs", ()):
        made.outputs.add(name=output["name"])
    return made


# ---- damage: each changes a message in place


def _raw_count(made: Any, chance: random.Random) -> None:
    raw = made.raw_input_contents
    if raw and chance.random() < 0.5:
        del raw[chance.randrange(len(raw))]
    else:
        raw.append(bytes(chance.choices(range(256), k=chance.randint(0, 9))))


def _raw_length(made: Any, chance: random.Random) -> None:
    raw = made.raw_input_contents
    if raw:
        at = chance.randrange(len(raw))
        raw[at] = raw[at] + b"\xff" if chance.random() < 0.5 else raw[at][:-1]


def _typed_contents(made: Any, chance: random.Random) -> None:
    if made.inputs:
        contents = chance.choice(made.inputs).contents
        field = chance.choice([*TYPED_FIELDS.values(), "uint_contents", "int64_contents"])
        value: Any = b"\xff\xfe" if field == "bytes_contents" else 1
        getattr(contents, field).extend([value] * chance.randint(1, 3))


def _datatype(made: Any, chance: random.Random) -> None:
    if made.inputs:
        chance.choice(made.inputs).datatype = chance.choice(_DATATYPES)


def _shape(made: Any, chance: random.Random) -> None:
    if made.inputs:
        shape = chance.choice(made.inputs).shape
        if shape and chance.random() < 0.5:
            shape[chance.randrange(len(shape))] = chance.choice(_SIZES)
        elif shape and chance.random() < 0.3:
            del shape[:]
        else:
            shape.extend([chance.choice(_SIZES)] * chance.choice([1, 1, 2, 40]))


def _names(made: Any, chance: random.Random) -> None:
    text = chance.choice(["", "x", "\u202e", "a/../b", "a" * 300, "\0"])
    at = chance.randrange(5)
    if at < 3:
        setattr(made, ("id", "model_version", "model_name")[at], text)
    elif at == 3 and made.inputs:
        chance.choice(made.inputs).name = text
    else:
        made.outputs.add(name=text)


def _inputs(made: Any, chance: random.Random) -> None:
    if made.inputs and chance.random() < 0.5:
        del made.inputs[chance.randrange(len(made.inputs))]
    elif made.inputs:
        made.inputs.add().CopyFrom(chance.choice(made.inputs))


def _parameter(made: Any, chance: random.Random) -> None:
    holders = [made, *made.inputs, *made.outputs]
    name = chance.choice(["binary_data_size", "binary_data_output", "partial", "allow_missing", ""])
    parameter = chance.choice(holders).parameters[name]
    match chance.randrange(5):
        case 0:
            parameter.int64_param = chance.choice(_SIZES)
        case 1:
            parameter.bool_param = True
        case 2:
            parameter.double_param = chance.choice([float("nan"), float("inf"), -0.5])
        case 3:
            parameter.uint64_param = 2**64 - 1
        case _:
            parameter.string_param = str(chance.choice(ODD))


_DAMAGES: tuple[Callable[[Any, random.Random], None], ...] = (
    _raw_count,
    _raw_length,
    _typed_contents,
    _datatype,
    _shape,
    _names,
    _inputs,
    _parameter,
)
