"""``fourways-agent``: the commands of a device."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from fourways_api.addresses import SUBDOMAIN
from fourways_api.display import displayed
from fourways_api.log_text import log_as_text
from fourways_runtime.errors import WorkloadError

from . import files
from .errors import AgentConfigError, AgentError, ModelUnusable
from .features import seconds_of
from .model_calls import ended
from .remote import check_address, opener
from .state import DeviceSettings, Store

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see :mod:`fourways_agent.errors`)."""
    args = _parser().parse_args(arguments)
    log_as_text(logging.WARNING, "%(message)s")
    store = Store(Path(args.state))
    try:
        code = int(args.command(store, args))
    except (AgentError, WorkloadError) as error:
        reason = f"{error.reason}: " if isinstance(error, WorkloadError) else ""
        print(f"fourways-agent: {reason}{displayed(error)}", file=sys.stderr)
        code = error.exit_code
    return ended(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fourways-agent",
        description="Fetch signed model bundles and serve predictions from them, also offline.",
        epilog="Exit codes: 0 done, 1 a record was rejected (predict), 2 wrong usage, 3 the"
        " bundle was refused or does not work on this device, 4 no model answers, 75 try again.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, help_text in (
        ("run", _run, "serve on the loopback address and stay up to date"),
        ("update", _update, "fetch the published bundle once"),
        ("status", _status, "show which model is served, as JSON"),
        ("predict", _predict, "score records from a file or stdin, one JSON object per line"),
        ("retry", _retry, "allow bundles that failed on this device to be tried again"),
        ("forget", _forget, "delete models, settings and the memory of releases"),
    ):
        it = commands.add_parser(name, help=help_text, description=help_text.capitalize() + ".")
        it.set_defaults(command=command)
        it.add_argument("--state", required=True, help="state folder of this device")
        if name in ("run", "update"):
            it.add_argument("--gateway", help="URL of the gateway")
            it.add_argument("--deployment", help="name of the ModelDeployment")
            it.add_argument("--namespace", help="its namespace; default: that of the first bundle")
            it.add_argument("--cluster", help="its cluster; default: the first that a bundle names")
            it.add_argument("--target", help="name of this device's target")
            it.add_argument("--key", help="PEM file with the public keys that verify bundles")
            it.add_argument("--api-key-file", help="file with this device's API key, if it has one")
            it.add_argument("--ca-file", help="PEM file: the gateway's certificate must be from it")
            it.add_argument("--insecure", action="store_true", help="allow a gateway without TLS")
            it.add_argument(
                "--report-drift",
                choices=("yes", "no"),
                help="whether this device may tell the gateway how its records are distributed:"
                " counts by bin of the training profile, no values; default: no",
            )
            it.add_argument(
                "--features-max-age",
                help="age from which inputs that the gateway returned are not used; default: 24h",
            )
        if name == "run":
            it.add_argument("--port", type=int, default=8090, help="port to serve on")
            it.add_argument(
                "--grpc-port", type=int, help="port to serve gRPC on; by default it is not served"
            )
            it.add_argument("--every", default="60s", help="time between updates: 60s, 5m, 1h")
        if name == "predict":
            it.add_argument("file", help="file with records, - for stdin")
    return parser


def _settings(store: Store, args: argparse.Namespace) -> DeviceSettings:
    """Return the command-line options, completed from the remembered settings."""
    before = store.settings()
    given: dict[str, Any] = {
        name: getattr(args, name) or (getattr(before, name) if before else None)
        for name in ("gateway", "deployment", "target", "key")
    }
    missing = [f"--{name}" for name, value in given.items() if not value]
    if missing:
        raise AgentConfigError(
            f"{', '.join(missing)} must be given: this device does not know them yet"
        )
    api_key_file = args.api_key_file or (before.api_key_file if before else "")
    given["api_key_file"] = os.path.abspath(api_key_file) if api_key_file else ""
    given["namespace"] = args.namespace or (before.namespace if before else "")
    given["cluster"] = args.cluster or (before.cluster if before else "")
    for name in ("deployment", "target", "namespace"):
        if given[name] and not _NAME.fullmatch(given[name]):
            raise AgentConfigError(
                f"--{name} must be a name as in the manifest: a-z, 0-9 and hyphens"
            )
    if given["cluster"] and not re.fullmatch(SUBDOMAIN, given["cluster"]):
        raise AgentConfigError(
            "--cluster must be the chart's clusterName: a-z, 0-9, hyphens and dots"
        )
    given["key"] = os.path.abspath(given["key"])
    ca_file = args.ca_file or (before.ca_file if before else "")
    given["ca_file"] = os.path.abspath(ca_file) if ca_file else ""
    given["insecure"] = "yes" if args.insecure else (before.insecure if before else "")
    if args.features_max_age:
        _seconds(args.features_max_age, "--features-max-age")
        given["features_max_age"] = args.features_max_age
    elif before:
        given["features_max_age"] = before.features_max_age
    allowed = before.report_drift if before else ""
    given["report_drift"] = {"yes": "yes", "no": ""}.get(args.report_drift or "", allowed)
    settings = DeviceSettings(**given)
    if args.api_key_file and not settings.credentials():
        raise AgentConfigError("--api-key-file: the file cannot be read")
    if args.key is None and before is not None:
        settings = replace(settings, key_pem=before.key_pem)
    _, pem = settings.read_keys()
    # An address that an earlier version of the agent remembered is still used.
    if before is None or given["gateway"] != before.gateway:
        check_address(given["gateway"], insecure=bool(given["insecure"]))
    opener(given["ca_file"])
    store.prepare()
    settings = replace(settings, key_pem=pem)
    store.remember(settings)
    return settings


def _run(store: Store, args: argparse.Namespace) -> int:
    every = _seconds(args.every, "--every")
    settings = _settings(store, args)
    from fourways_runtime.logs import log_as_json

    from .serve import run

    log_as_json()
    run(store, settings, args.port, every, args.grpc_port)
    return 0


def _seconds(text: str, option: str) -> float:
    found = seconds_of(text)
    if not found:
        raise AgentConfigError(f"{option} must be a time such as 60s, 5m or 1h")
    return found


def _update(store: Store, args: argparse.Namespace) -> int:
    from . import check
    from .records import tell
    from .update import update

    settings = _settings(store, args)
    try:
        result = update(store, settings)
    finally:
        tell(store, settings)
    if result.changed:
        started = check.boot(store.folder)
        if started["digest"] != result.digest:
            raise ModelUnusable("the new model does not start; the previous model is still served")
    print(json.dumps({"updated": result.changed, "digest": result.digest}))
    return 0


def _status(store: Store, args: argparse.Namespace) -> int:
    from .status import status_of

    shown, code = status_of(store)
    print(json.dumps(shown, indent=2))
    return code


def _predict(store: Store, args: argparse.Namespace) -> int:
    from fourways_runtime.scoring.literals import json_object
    from fourways_runtime.scoring.single import RecordRefused

    from .device import Device

    device = Device(store.folder)
    refused = 0
    with _records(args.file) as lines:
        for line in lines:
            if not line.strip():
                continue
            record, fault = json_object(line)
            try:
                if record is None:
                    raise RecordRefused("record", str(fault))
                print(json.dumps(device.predict(record)))
            except RecordRefused as error:
                refused += 1
                print(json.dumps({"error": str(error), "field": error.field}))
    return 1 if refused else 0


def _retry(store: Store, args: argparse.Namespace) -> int:
    """Forget which bundles were rejected; start one of them that is on this disk."""
    from . import check
    from .recovery import restored

    if not store.folder.is_dir():
        raise AgentConfigError(f"--state: {store.folder} does not exist")
    again = [it.digest for it in store.read().bad]
    store.change(lambda state: replace(state, bad=(), crashes=0, boots=0, boot_id="", pid=0))
    state = restored(store)
    print(json.dumps({"retrying": again}))
    if state.slot is not None and not state.confirmed:
        check.boot(store.folder)
    return 0


def _forget(store: Store, args: argparse.Namespace) -> int:
    """Reset this device; it accepts releases again that are older than its last one."""
    if not store.folder.is_dir():
        raise AgentConfigError(f"--state: {store.folder} does not exist")
    with files.disk(), files.locked(store.folder / "update.lock", wait=False):
        store.forget()
    print(json.dumps({"forgotten": True}))
    return 0


def _records(name: str) -> IO[bytes]:
    if name == "-":
        return open(0, "rb", closefd=False)
    try:
        return open(name, "rb")
    except OSError as error:
        raise AgentConfigError(f"{name}: {error.strerror}") from None
