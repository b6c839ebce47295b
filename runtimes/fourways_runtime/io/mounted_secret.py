"""A mounted Secret, used only for the deployments and hosts that it lists.

Every Secret that a manifest names is opened here. The two keys of the audience are read again with
each use, as the others are: the kubelet replaces the files when the Secret changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fourways_api import Paths, SecretReference
from fourways_api.audience import (
    AUDIENCE_KEYS,
    DEPLOYMENTS_KEY,
    HOSTS_KEY,
    host_is_listed,
    listed,
    lists_deployment,
)
from fourways_runtime.errors import SecretRefused, Unavailable

_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class MountedSecret:
    """The folder of a Secret, and the deployment on whose behalf it is opened."""

    folder: Path
    deployment: str

    @classmethod
    def of(cls, reference: SecretReference, paths: Paths) -> MountedSecret:
        """Return the Secret that a manifest names. Nothing is read yet."""
        return cls(Path(paths.secrets_root) / reference.secret_name, paths.deployment)

    @property
    def name(self) -> str:
        """Name of the Secret."""
        return self.folder.name

    def for_deployment(self) -> Path:
        """Return the folder, if the Secret lists the deployment.

        Raises:
            SecretRefused: it does not.
            Unavailable: the Secret is not mounted, or cannot be read.

        """
        names = self._list(DEPLOYMENTS_KEY)
        if not lists_deployment(names, self.deployment):
            raise SecretRefused(
                f"the Secret {self.name} is not for the deployment {self.deployment or '(none)'}: "
                f"its key {DEPLOYMENTS_KEY} lists {', '.join(names) or 'none'}; its owner adds "
                f"the name there (fourways secret create writes it)"
            )
        return self.folder

    def for_host(self, host: str, port: int | None = None) -> Path:
        """Return the folder, if the Secret lists the deployment and the host.

        Raises:
            SecretRefused: it does not list one of them.
            Unavailable: the Secret is not mounted, or cannot be read.

        """
        folder = self.for_deployment()
        hosts = self._list(HOSTS_KEY)
        if not host_is_listed(host, port, hosts):
            shown = host if port is None else f"{host}:{port}"
            raise SecretRefused(
                f"the Secret {self.name} is not sent to {shown}: its key {HOSTS_KEY} lists "
                f"{', '.join(hosts) or 'none'}; its owner adds the host there "
                "(fourways secret create writes it)"
            )
        return folder

    def names(self) -> list[str]:
        """Return its keys without those of the audience, in order. Raises OSError."""
        # The kubelet keeps the files of a Secret in ..data, with links to them.
        return sorted(
            file.name
            for file in self.folder.iterdir()
            if not file.name.startswith(".") and file.name not in AUDIENCE_KEYS and file.is_file()
        )

    def _list(self, key: str) -> tuple[str, ...]:
        try:
            if not self.folder.is_dir():
                raise Unavailable(f"the Secret {self.name} cannot be read: it is not there")
            with (self.folder / key).open("rb") as file:
                return listed(file.read(_MAX_BYTES).decode())
        except FileNotFoundError:
            return ()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            raise Unavailable(f"the Secret {self.name}, key {key}, cannot be read: {why}") from None
