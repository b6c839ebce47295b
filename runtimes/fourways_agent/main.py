"""``fourways-agent``: the commands of a device."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fourways_api.display import displayed
from fourways_api.log_text import log_as_text

from .errors import AgentError, ConfigError, Failed
from .state import Settings, Store

_UNITS = {"s": 1, "m": 60, "h": 3600}
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see :mod:`fourways_agent.errors`)."""
    asked = _parser().parse_args(arguments)
    log_as_text(logging.WARNING, "%(message)s")
    store = Store(Path(asked.state))
    try:
        return int(asked.command(store, asked))
    except AgentError as error:
        print(f"fourways-agent: {displayed(error)}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fourways-agent", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, command, told in (
        ("run", _run, "answer on the loopback address, and stay up to date"),
        ("update", _update, "fetch what is published now, once"),
        ("status", _status, "say which model answers, as JSON"),
        ("predict", _predict, "answer records from a file or stdin, a JSON object a line"),
    ):
        it = commands.add_parser(name, help=told, description=told)
        it.set_defaults(command=command)
        it.add_argument("--state", required=True, help="folder of this device")
        if name in ("run", "update"):
            it.add_argument("--gateway", help="URL of the gateway")
            it.add_argument("--deployment", help="name of the ModelDeployment")
            it.add_argument("--target", help="kind of this device")
            it.add_argument("--key", help="public key bundles are signed with, PEM")
        if name == "run":
            it.add_argument("--port", type=int, default=8090)
            it.add_argument("--every", default="60s", help="time between updates")
        if name == "predict":
            it.add_argument("file", help="file with records, - for stdin")
    return parser


def _settings(store: Store, asked: argparse.Namespace) -> Settings:
    """Return what the command line says, and what it said before where it is silent."""
    before = store.settings()
    told: dict[str, Any] = {
        name: getattr(asked, name) or (getattr(before, name) if before else None)
        for name in ("gateway", "deployment", "target", "key")
    }
    missing = [f"--{name}" for name, value in told.items() if not value]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given, the first time at least")
    for name in ("deployment", "target"):
        if not _NAME.fullmatch(told[name]):
            raise ConfigError(f"--{name} must be a name such as the manifest has")
    told["key"] = os.path.abspath(told["key"])
    if not os.path.isfile(told["key"]):
        raise ConfigError("--key names no file")
    store.prepare()
    settings = Settings(**told)
    store.remember(settings)
    return settings


def _run(store: Store, asked: argparse.Namespace) -> int:
    every = re.fullmatch(r"(\d{1,6})([smh])", asked.every)
    if every is None or not int(every[1]):
        raise ConfigError("--every must be a time such as 60s, 5m or 1h")
    settings = _settings(store, asked)
    from fourways_runtime.errors import WorkloadError
    from fourways_runtime.logs import log_as_json

    from .serve import run

    log_as_json()
    try:
        run(store, settings, asked.port, float(every[1]) * _UNITS[every[2]])
    except WorkloadError as error:
        print(f"fourways-agent: {displayed(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def _update(store: Store, asked: argparse.Namespace) -> int:
    from . import check
    from .update import update

    outcome = update(store, _settings(store, asked))
    if outcome.changed:
        started = check.boot(store.folder)
        if started["digest"] != outcome.digest:
            raise Failed("the new model does not start; the one before goes on")
    print(json.dumps({"updated": outcome.changed, "digest": outcome.digest}))
    return 0


def _status(store: Store, asked: argparse.Namespace) -> int:
    from .slot import open_bundle

    state, settings = store.read(), store.settings()
    told: dict[str, Any] = {
        "slot": state.slot,
        "digest": state.digest,
        "confirmed": state.confirmed,
        "boots": state.boots,
        "sequence": state.sequence if state.sequence >= 0 else None,
        "fallback": state.previous_digest,
        "givenUp": list(state.bad),
    }
    if state.slot is not None and state.digest is not None:
        bundle = open_bundle(store.slot(state.slot), state.digest)
        told |= {"version": bundle.version, "variant": bundle.variant}
    if settings is not None:
        told |= {
            "deployment": settings.deployment,
            "target": settings.target,
            "gateway": settings.gateway,
        }
    print(json.dumps(told, indent=2))
    return 0


def _predict(store: Store, asked: argparse.Namespace) -> int:
    from fourways_runtime.scoring.single import RecordRefused, leave_out_pandas

    leave_out_pandas()
    from .device import Device

    device = Device(store.folder)
    refused = 0
    with _records(asked.file) as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                print(json.dumps(device.predict(_record(line))))
            except RecordRefused as error:
                refused += 1
                print(json.dumps({"error": str(error), "field": error.field}))
    return 1 if refused else 0


def _records(name: str) -> IO[str]:
    if name == "-":
        return open(0, encoding="utf-8", closefd=False)
    try:
        return open(name, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None


def _record(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        raise ConfigError("a line is not JSON") from None
    if not isinstance(found, dict):
        raise ConfigError("a line is not a JSON object of inputs by name")
    return found
