"""The common part of the Kafka source and publisher: settings, error messages, the topic.

The files of a Secret are named after librdkafka's properties. Only those for authentication and TLS
are accepted: others would let a Secret load a library or read a file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from confluent_kafka import KafkaError, KafkaException

from fourways_api import Paths
from fourways_api.modes import KafkaSource
from fourways_runtime.errors import BrokerUnavailable, ConfigError, TopicNotFound

from ..mounted_secret import MountedSecret
from .login import check_listed

PROPERTIES = frozenset(
    {
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "ssl.ca.pem",
        "ssl.certificate.pem",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
    }
)
"""Properties allowed in a Secret."""

_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_REFUSED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
)

_REPEAT_SECONDS = 10.0
"""librdkafka logs each failed attempt to connect; the same failure is logged this often."""

_log = logging.getLogger("fourways.kafka")


class _Repeats(logging.Filter):
    """Drops messages that were logged a moment ago, but for their figures in parentheses."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log a message."""
        text, now = record.getMessage().partition("(after")[0], monotonic()
        if now - self._logged.get(text, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return False
        if len(self._logged) > 100:
            self._logged.clear()
        self._logged[text] = now
        return True


_log.addFilter(_Repeats())


class BrokerFailure:
    """The last failure of its connections that librdkafka reported, for error messages."""

    def __init__(self) -> None:
        self._text = ""
        self.since: float | None = None
        """When all brokers became unavailable; None while at least one is available."""

        self.login_refused = False

    def heard(self, error: KafkaError) -> None:
        """Record an error; librdkafka calls this from within a poll."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            if self.since is None:
                self.since = monotonic()
        else:
            self._text = error.str()
            self.login_refused = error.code() in _REFUSED

    def ended(self) -> None:
        """Record that a broker responds."""
        self.since = None
        self.login_refused = False

    def described(self, error: KafkaError) -> str:
        """Return the most specific text available."""
        return (self._text or error.str())[:300]


def settings(source: KafkaSource, paths: Paths, failure: BrokerFailure) -> dict[str, Any]:
    """Return the common settings of all clients of this broker.

    Raises:
        ConfigError: the Secret is missing, or contains a property that is not allowed.

    """
    found: dict[str, Any] = {
        "bootstrap.servers": source.bootstrap_servers,
        "client.id": "fourways",
        "error_cb": failure.heard,
        "logger": _log,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "allow.auto.create.topics": False,
    }
    if source.credentials is not None:
        found |= read_secret(MountedSecret.of(source.credentials, paths), source)
    return found


def read_secret(secret: MountedSecret, source: KafkaSource) -> dict[str, str]:
    """Return the properties in a mounted Secret for the brokers of a source.

    Raises:
        ConfigError: it cannot be read, or contains a property that is not allowed.
        SecretRefused: it does not list the deployment, or one of the brokers.

    """
    try:
        found = {key: (secret.folder / key).read_text("utf-8").strip() for key in secret.names()}
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"the broker's Secret {secret.name} cannot be read: {why}") from None
    check_listed(secret, source.bootstrap_servers)
    unknown = [name for name in found if name not in PROPERTIES]
    if unknown:
        raise ConfigError(
            f"the broker's Secret {secret.name} holds {', '.join(unknown)}; it may hold "
            f"{', '.join(sorted(PROPERTIES))}"
        )
    return found


def member_id(folder: Path, name: str) -> str:
    """Return the id of a worker as a member of its consumer group, kept in a file of ``folder``.

    The folder lasts as long as the pod: a restarted container is the same member. A host name would
    not do, since two machines can have the same one.
    """
    file = folder / name
    with suppress(OSError, UnicodeDecodeError):
        if found := file.read_text("utf-8").strip():
            return found
    made = f"fourways-{uuid4().hex}"
    with suppress(OSError):  # Without the file, a restarted worker waits for its old session.
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(made, "utf-8")
    return made


def look_up(client: Any, source: KafkaSource, failure: BrokerFailure, seconds: float) -> Any:
    """Return the topic's metadata, and the cluster's id (blocking).

    Raises:
        BrokerUnavailable: no broker responds, or it refuses the login.
        TopicNotFound: the topic does not exist.

    """
    try:
        # For all topics: a request for a single one makes some brokers create it.
        metadata = client.list_topics(timeout=seconds)
    except KafkaException as error:
        raise unavailable(error, source, failure) from None
    failure.ended()
    topic = metadata.topics.get(source.topic)
    if topic is None or (topic.error is not None and topic.error.code() in _ABSENT):
        raise missing(source)
    return topic, metadata.cluster_id


def missing(source: KafkaSource) -> TopicNotFound:
    """Return the error for a topic that does not exist."""
    return TopicNotFound(
        f"Kafka at {source.bootstrap_servers} has no topic {source.topic}, or this login may not "
        "see it; create it"
    )


def unavailable(
    error: KafkaException, source: KafkaSource, failure: BrokerFailure
) -> BrokerUnavailable | TopicNotFound:
    """Translate an error of librdkafka."""
    code = error.args[0]
    if code.code() in _ABSENT:
        return missing(source)
    refused = code.code() in _REFUSED or failure.login_refused
    if refused and source.credentials is not None:
        verb = f"refuses the login in the Secret {source.credentials.secret_name}"
    else:
        verb = "refuses us" if refused else "does not answer"
    found = BrokerUnavailable(
        f"Kafka at {source.bootstrap_servers} {verb}: {failure.described(code)}"
    )
    found.login_refused = refused
    return found


def is_absent(error: KafkaError) -> bool:
    """Tell whether an error means that the topic does not exist."""
    return error.code() in _ABSENT


def headers_of(found: Any) -> tuple[tuple[str, bytes], ...]:
    """Return a message's headers as a tuple of pairs."""
    given = found.items() if isinstance(found, Mapping) else found or ()
    return tuple((str(name), value) for name, value in given)
