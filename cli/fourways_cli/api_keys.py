"""``fourways key``: the API keys of callers, in a Secret of the cluster or in a folder."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Protocol

import typer
from pydantic import TypeAdapter, ValidationError

from fourways_api.callers import CALLER_NAME, ApiKeyRecord, GatewayAccess, Scope
from fourways_api.display import displayed
from fourways_runtime.callers.api_keys import new_key

from .target_command import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    failed,
    given,
    invalid,
    or_exit,
)
from .targets import ClusterChoice, ClusterTarget
from .terminal import say, warn

key = typer.Typer(
    name="key",
    help="Create, list and revoke the API keys of callers.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SECRET = GatewayAccess().keys_secret
MAX_DAYS = 3650

FolderOption = Annotated[
    Path | None,
    typer.Option(help="A folder instead of a Secret: that of `fourways up --keys`."),
]
SecretOption = Annotated[
    str, typer.Option(help="Name of the Secret, as in the chart's gateway.auth.keysSecret.")
]


class KeyStore(Protocol):
    """Where the records of callers are kept."""

    def read(self) -> dict[str, str]:
        """Return the records by caller, each as JSON."""
        ...

    def write(self, caller: str, record: str | None) -> None:
        """Replace a caller's record; None removes it."""
        ...


class KeyFolder:
    """Records in files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> dict[str, str]:
        """Return the records by caller."""
        try:
            files = [f for f in self._folder.iterdir() if CALLER_NAME.fullmatch(f.name)]
            return {file.name: file.read_text() for file in files}
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise failed(f"the folder {self._folder} cannot be read: {error}") from None

    def write(self, caller: str, record: str | None) -> None:
        """Replace or remove a record, so that a reader sees the old one or the new one."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if record is None:
                (self._folder / caller).unlink(missing_ok=True)
                return
            part = self._folder / f".{caller}.part"
            part.write_text(record)
            part.chmod(0o600)
            os.replace(part, self._folder / caller)
        except OSError as error:
            raise failed(f"the folder {self._folder} cannot be written: {error}") from None


class KeySecret:
    """Records in a Secret of a namespace."""

    def __init__(self, target: ClusterTarget, namespace: str, name: str) -> None:
        self._target = target
        self._namespace = namespace
        self._name = name

    def read(self) -> dict[str, str]:
        """Return the records by caller."""
        data = or_exit(lambda: self._target.secret(self._namespace, self._name)) or {}
        return {k: base64.b64decode(v).decode("utf-8", "replace") for k, v in data.items()}

    def write(self, caller: str, record: str | None) -> None:
        """Replace or remove a record; the Secret is created if there is none."""
        or_exit(lambda: self._target.write_secret(self._namespace, self._name, {caller: record}))


def open_keys(
    folder: FolderOption = None,
    secret: SecretOption = SECRET,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> KeyStore:
    """Return the records that the options name; end the command on failure."""
    if folder is not None:
        return KeyFolder(folder)
    choice = ClusterChoice(cluster=True, kubeconfig=kubeconfig, context=context)
    target = or_exit(lambda: ClusterTarget(choice))
    return KeySecret(target, namespace or or_exit(target.default_namespace), secret)


@key.command()
@given(open_keys)
def create(
    store: KeyStore,
    caller: Annotated[str, typer.Argument(help="Name of the caller, such as shop-backend.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="VERB:DEPLOYMENT, such as predict:churn or read:*. Repeatable. Verbs: predict, "
            "read, rejects, features, bundles, metrics, or * for all."
        ),
    ],
    rate: Annotated[
        float | None, typer.Option(help="Maximum requests per second.", min=0.001, max=1e6)
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(help="Days until the key expires.", min=1, max=MAX_DAYS),
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the caller's earlier keys, to replace one.")
    ] = False,
) -> None:
    """Create an API key and print it. Only its digest is stored."""
    if not CALLER_NAME.fullmatch(caller):
        raise invalid(f"{displayed(caller)}: a caller's name has lower-case letters, digits and -")
    for one in scope:
        _check_scope(one)
    before = store.read().get(caller)
    if before is not None and not add:
        raise failed(
            f"{caller} has a key already: --add creates a second one, `fourways key revoke "
            f"{caller}` ends all"
        )
    made, digest = new_key(caller)
    record = ApiKeyRecord(
        sha256=(digest, *(_parsed(caller, before).sha256 if before else ())),
        scopes=tuple(scope),
        requests_per_second=rate,
        expires=None if days is None else datetime.now(UTC) + timedelta(days=days),
    )
    store.write(caller, record.model_dump_json(by_alias=True, exclude_none=True))
    warn(f"Send it as `Authorization: Bearer KEY`; it cannot be shown again. Key of {caller}:")
    say(made)


@key.command(name="list")
@given(open_keys)
def list_keys(
    store: KeyStore,
) -> None:
    """List callers, their number of keys, scopes, rate and expiry. Keys are not stored."""
    found = store.read()
    for caller, text in sorted(found.items()):
        try:
            record = ApiKeyRecord.model_validate_json(text)
        except ValidationError:
            say(f"{displayed(caller)}  not a valid record: its keys are refused")
            continue
        rate = f"  {record.requests_per_second:g}/s" if record.requests_per_second else ""
        until = f"  expires {record.expires:%Y-%m-%d}" if record.expires else ""
        many = f"  {len(record.sha256)} keys" if len(record.sha256) > 1 else ""
        say(f"{displayed(caller)}  {' '.join(record.scopes)}{rate}{until}{many}")


@key.command()
@given(open_keys)
def revoke(
    store: KeyStore,
    caller: Annotated[str, typer.Argument(help="Name of the caller.")],
) -> None:
    """Revoke all keys of a caller. Gateways refuse them once the kubelet has updated the Secret."""
    if caller not in store.read():
        raise failed(f"there is no caller {displayed(caller)}")
    store.write(caller, None)


def _check_scope(text: str) -> None:
    try:
        TypeAdapter(Scope).validate_python(text)
    except ValidationError:
        raise invalid(
            f"--scope {displayed(text)}: write VERB:DEPLOYMENT, such as predict:churn"
        ) from None


def _parsed(caller: str, text: str) -> ApiKeyRecord:
    try:
        return ApiKeyRecord.model_validate_json(text)
    except ValidationError:
        raise failed(
            f"the stored record of {caller} is not valid: revoke it, then create a key"
        ) from None
