"""A folder on this host or on a volume claim."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fourways_runtime.folder_writer import FolderWriter

from .folder import FolderErrors


class LocalFolder(FolderWriter):
    """A folder beneath ``root``, with the errors of an output folder."""

    def __init__(
        self,
        shown: str,
        backend: Any,
        path: str,
        root: Path,
        components: tuple[str, ...],
        errors: FolderErrors,
        *,
        public: bool = False,
    ) -> None:
        """``public``: other users can read the files written here, whatever the umask."""
        super().__init__(root, components, access="public" if public else "umask")
        self.shown = shown
        self.backend = backend
        self.path = path
        self._errors = errors

    def translated(self) -> AbstractContextManager[None]:
        """Translate errors of reads and writes into the folder's errors."""
        return self._errors.translated(self.shown)
