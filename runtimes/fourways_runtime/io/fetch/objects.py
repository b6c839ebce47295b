"""Object stores (s3, gs, az) through fsspec: explicit credentials, or none at all.

Nothing is taken from the environment: no profile, no proxy, no metadata service. Without a Secret a
bucket is read anonymously. The libraries are large and optional, so they are imported only here,
and only when a URI needs one.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from fourways_api.installing import install_command
from fourways_api.runtime_config import FetchPolicy
from fourways_runtime.errors import (
    ConfigError,
    FetchFailed,
    FetchRefused,
    SourceError,
    WorkloadError,
)

from .credentials import Credentials
from .location import Location, check_host
from .source import Body, Deadline, Interrupted

CHUNK = 8 << 20
_STALL_SECONDS = 60.0
_UNCACHED = {"skip_instance_cache": True, "use_listings_cache": False}
# SSL_CERT_FILE is the only variable read from the environment: a cluster's own CA.
_CA_VARIABLE = "SSL_CERT_FILE"


def object_filesystem(
    location: Location, credentials: Credentials, policy: FetchPolicy
) -> tuple[Any, str]:
    """Return the fsspec filesystem for a URI and the path in it.

    Raises ConfigError for a missing extra or half a Secret, FetchRefused for a forbidden host.
    """
    if not location.authority:
        raise FetchRefused(f"{location.shown}: names no bucket")
    make = {"s3": _s3, "gs": _gs, "az": _az}[location.scheme]
    path = f"{location.authority}/{location.path}"
    return make(credentials, policy), path


def _load(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"{extra}:// needs a package that is not installed: {install_command(extra)}"
        ) from None


def _check_endpoint(url: str, policy: FetchPolicy) -> None:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError("the endpoint of the object store is not an http or https URL")
    check_host(host, policy)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return
    from .network import check_address

    check_address(host, host)


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make the socket for one resolved address, after checking the address."""
    from .network import check_address

    family, kind, protocol, _, address = info
    check_address(str(address[0]), "the object store")
    return socket.socket(family, kind, protocol)


def _s3(credentials: Credentials, policy: FetchPolicy) -> Any:
    module = _load("s3fs", "s3")
    credentials.require_any("access-key-id", "secret-access-key", "endpoint-url", "region")
    keys = credentials.pair("access-key-id", "secret-access-key")
    region = credentials.get("region")
    endpoint = credentials.get("endpoint-url")
    _check_endpoint(endpoint or f"https://s3.{region or 'us-east-1'}.amazonaws.com", policy)
    client: dict[str, Any] = {"region_name": region} if region else {}
    if bundle := os.environ.get(_CA_VARIABLE):
        client["verify"] = bundle
    module.core.set_custom_error_handler(_is_transient)
    return module.S3FileSystem(
        anon=keys is None,
        key=keys[0] if keys else None,
        secret=keys[1] if keys else None,
        token=credentials.get("session-token"),
        endpoint_url=endpoint,
        client_kwargs=client,
        config_kwargs={
            "proxies": {},
            "ignore_configured_endpoint_urls": True,
            "connector_args": {"socket_factory": _guarded_socket},
            # s3fs also retries; the two numbers would multiply.
            "retries": {"total_max_attempts": 1},
        },
        **_UNCACHED,
    )


def _gs(credentials: Credentials, policy: FetchPolicy) -> Any:
    # Not the class that the package exports: it asks another server, with whatever credentials the
    # environment has, what kind of bucket each one is.
    module = _load("gcsfs", "gs").core
    credentials.require_any("key.json")
    token: Any = "anon"  # noqa: S105  (the name in gcsfs for no credentials)
    if key := credentials.get("key.json"):
        try:
            token = json.loads(key)
        except ValueError:
            raise ConfigError("the credentials key key.json is not JSON") from None
    endpoint = "https://storage.googleapis.com"
    _check_endpoint(endpoint, policy)
    return module.GCSFileSystem(token=token, endpoint_url=endpoint, **_UNCACHED)


def _az(credentials: Credentials, policy: FetchPolicy) -> Any:
    module = _load("adlfs", "az")
    account = credentials.get("account-name")
    if connection := credentials.get("connection-string"):
        fields = dict(part.partition("=")[::2] for part in connection.split(";"))
        suffix = fields.get("EndpointSuffix", "core.windows.net")
        default = f"https://{fields.get('AccountName', '')}.blob.{suffix}"
        _check_endpoint(fields.get("BlobEndpoint") or default, policy)
        return module.AzureBlobFileSystem(connection_string=connection, **_UNCACHED)
    if account is None:
        raise ConfigError("az:// needs a Secret with connection-string, or account-name")
    _check_endpoint(f"https://{account}.blob.core.windows.net", policy)
    key = credentials.get("account-key")
    return module.AzureBlobFileSystem(
        account_name=account, account_key=key, anon=key is None, **_UNCACHED
    )


_TRANSIENT = frozenset(
    {
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
_ELSEWHERE = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})


def _is_transient(error: BaseException) -> bool:
    """Tell s3fs which responses of the store to retry: it already knows the network errors."""
    code, status = _answer(error)
    return code in _TRANSIENT or status == 429 or (status is not None and status >= 500)


def _answer(error: BaseException | None) -> tuple[str, int | None]:
    """Return the code and the HTTP status of the response that caused an S3 error."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            details = response.get("Error", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return str(details.get("Code", "")), status
        error = error.__cause__ or error.__context__
    return "", None


SMALL_BYTES = 4 << 20
"""Objects up to this size are read in one request."""


def open_known(filesystem: Any, scheme: str, path: str, size: int, tag: str) -> Any:
    """Open an object with a known size and tag, without requesting them.

    It is read only while it has that tag: an ETag, or the generation in ``gs``. Returns the bytes
    of a small object, or a file.
    """
    if scheme == "s3":
        file = filesystem.open(path, mode="rb", size=size)
        file.details = {"name": path, "size": size, "ETag": f'"{tag}"', "type": "file"}
        file.read_kw = {**file.read_kw, "IfMatch": f'"{tag}"'}
    else:
        from .pinned_object import PinnedObject

        file = PinnedObject(filesystem, scheme, path, size, tag)
    return file._fetch_range(0, size) if size <= SMALL_BYTES else file


_LOGIN_REFUSED = frozenset({"InvalidAccessKeyId", "InvalidSecurity", "SignatureDoesNotMatch"})


def login_fault(error: BaseException, secret: str) -> str | None:
    """Say that the store refuses a login, which a retry may read anew; None for other errors.

    ``secret`` is the name of the Secret with the credentials; empty without one.
    """
    code, whose = _answer(error)[0], f" in the Secret {secret}" if secret else ""
    if code in _EXPIRED or code == "InvalidToken":
        return f"the session token{whose} has expired"
    return f"the object store refuses the login{whose}" if code in _LOGIN_REFUSED else None


@contextmanager
def translated(location: Location, secret: str = "") -> Iterator[None]:
    """Translate the backends' errors into ours, without their texts, which quote bodies.

    ``secret`` is the name of the Secret with the credentials.
    """
    try:
        yield
    except WorkloadError:
        raise
    except FileNotFoundError:
        raise SourceError(f"{location.shown}: there is no such object") from None
    except PermissionError as error:
        if (fault := login_fault(error, secret)) is not None:
            raise FetchFailed(f"{location.shown}: {fault}") from None
        if _answer(error)[0] == "InvalidObjectState":
            raise SourceError(f"{location.shown}: the object is archived; restore it") from None
        whose = f" in the Secret {secret}" if secret else ""
        text = f"{location.shown}: access denied; check the credentials{whose}"
        raise SourceError(text) from None
    except TimeoutError:
        raise Interrupted(f"{location.shown}: the object store did not respond in time") from None
    except (ArithmeticError, AssertionError, AttributeError, NameError, TypeError, UnicodeError):
        raise  # A bug of ours or invalid bytes: a store's error never has this type.
    except Exception as error:  # noqa: BLE001  (each backend has its own error classes)
        if (refusal := _refusal(error)) is not None:
            raise FetchRefused(str(refusal)) from None
        if (fault := login_fault(error, secret)) is not None:
            raise FetchFailed(f"{location.shown}: {fault}") from None
        code, status = _answer(error)
        if code in _ELSEWHERE or status == 301:
            raise ConfigError(
                f"{location.shown}: the bucket is in another region; set region in its Secret"
            ) from None
        status = getattr(error, "status_code", status)  # azure-core's
        if type(error).__name__ == "FileExpired" or status == 412:
            raise SourceError(f"{location.shown}: changed while it was read") from None
        kind = type(error).__name__
        raise Interrupted(f"{location.shown}: the object store failed ({kind})") from None


def _refusal(error: BaseException) -> FetchRefused | None:
    """Find our own refusal of an address in the error that the backend wrapped around it."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, FetchRefused):
        seen = seen.__cause__ or seen.__context__
    return seen


class ObjectSource:
    """An object in a bucket, read in ranges."""

    def __init__(self, location: Location, filesystem: Any, path: str) -> None:
        self._location = location
        self._filesystem = filesystem
        self._path = path

    @contextmanager
    def open(self, offset: int, validator: str | None, deadline: Deadline) -> Iterator[Body]:
        """Open the object, at ``offset`` if it is still the version of ``validator``."""
        size, tag = self._stat(deadline)
        start = offset if tag is not None and tag == validator and offset <= size else 0
        yield Body(start, size, tag, self._chunks(start, size, tag, deadline))

    def _stat(self, deadline: Deadline) -> tuple[int, str | None]:
        info = self._call(self._filesystem.info, deadline)
        if info.get("type") == "directory" or info.get("size") is None:
            raise SourceError(f"{self._location.shown}: is a folder; name the object")
        tag = info.get("ETag") or info.get("etag")
        return int(info["size"]), None if tag is None else str(tag)

    def _call(self, method: Callable[..., Any], deadline: Deadline, **arguments: Any) -> Any:
        timeout = min(_STALL_SECONDS, deadline.remaining())
        with translated(self._location):
            return method(self._path, timeout=timeout, **arguments)

    def _chunks(
        self, start: int, size: int, tag: str | None, deadline: Deadline
    ) -> Iterator[bytes]:
        while start < size:
            end = min(start + CHUNK, size)
            chunk = self._call(self._filesystem.cat_file, deadline, start=start, end=end)
            if len(chunk) != end - start:
                raise Interrupted(
                    f"{self._location.shown}: the response is shorter than the requested range"
                )
            yield chunk
            start = end
        # Ranges of two versions would make a file that never existed.
        if self._stat(deadline) != (size, tag):
            raise Interrupted(f"{self._location.shown}: changed while it was read")
