"""The uids of the deployments on this host.

The API server gives a deployment made anew another uid. Here a manifest is what identifies a
deployment: it may be moved away for a moment, or the host may be stopped. So a name keeps its uid
until its data is purged. The first uid follows from the name, so a lost file loses no answers.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path

from fourways_api import ModelDeployment

Key = tuple[str, str]
_SPACE = uuid.UUID("6f1d1f1c-6b0e-5d7e-9a54-0f0c6a1c7a11")


class DeploymentUids:
    """Uids by namespace and name; those made after a purge are in a file of the state folder."""

    def __init__(self, state: Path) -> None:
        self._file = state / "uids.json"
        self._later: dict[str, str] = {}
        with suppress(OSError, ValueError, TypeError):
            self._later = dict(json.loads(self._file.read_text()))

    def of(self, key: Key) -> str:
        """Return the uid of a name."""
        name = "/".join(key)
        return self._later.get(name) or str(uuid.uuid5(_SPACE, name))

    def renew(self, key: Key) -> None:
        """Let the next deployment of this name be another one."""
        self._later["/".join(key)] = str(uuid.uuid4())
        made = self._file.with_suffix(".new")
        made.write_text(json.dumps(self._later, indent=1, sort_keys=True))
        made.replace(self._file)

    def given(self, deployment: ModelDeployment) -> ModelDeployment:
        """Return the deployment with its uid."""
        metadata = deployment.metadata.model_copy(update={"uid": self.of(deployment.key)})
        return deployment.model_copy(update={"metadata": metadata})
