"""A prefix in a bucket: a put replaces an object atomically; a rename copies the objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .folder import FolderErrors


class BucketFolder:
    """A prefix that is written through fsspec."""

    def __init__(
        self,
        shown: str,
        backend: Any,
        path: str,
        errors: FolderErrors,
        renewed: Callable[[], Any] = lambda: None,
        secret: str = "",
    ) -> None:
        """``renewed`` returns another filesystem if the credentials have changed, or None."""
        self.shown = shown
        self._backend = backend
        self._renewed = renewed
        self._secret = secret
        self.path = path.rstrip("/")
        self._errors = errors

    @property
    def backend(self) -> Any:
        """The filesystem, with the present credentials."""
        if (backend := self._renewed()) is not None:
            self._backend = backend
        return self._backend

    def translated(self) -> AbstractContextManager[None]:
        """Translate errors of reads and writes into the folder's errors."""
        return self._errors.translated(self.shown, self._secret)

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write an object, in parts if it is large; it exists only after the last part."""
        with self.translated():
            file = self.backend.open(self._at(name), "wb")
            try:
                yield file
            except BaseException:
                with suppress(Exception):
                    file.discard()
                file.closed = True
                raise
            file.close()

    def put(self, name: str, data: bytes, *, new: bool = False) -> bool:
        """Write a small object."""
        with self.translated():
            if not new:
                self.backend.pipe_file(self._at(name), data)
                return True
            try:
                if self.shown.startswith("az:"):
                    self.backend.pipe_file(self._at(name), data, overwrite=False)
                else:
                    self.backend.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                # s3fs has no separate error for a failed precondition.
                if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                    return False
                raise
        return True

    def put_file(self, name: str, file: Path) -> None:
        """Upload a local file."""
        with self.translated():
            self.backend.put_file(str(file), self._at(name))

    def get(self, name: str, most: int | None = None) -> bytes | None:
        """Return an object's content."""
        if most is not None:
            size = self.size(name)
            if size is None or size > most:
                return None
        with self.translated():
            try:
                return bytes(self.backend.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

    def part(self, name: str, start: int, end: int) -> bytes:
        """Return a byte range of an object."""
        with self.translated():
            return bytes(self.backend.cat_file(self._at(name), start=start, end=end))

    def size(self, name: str) -> int | None:
        """Return an object's size."""
        with self.translated():
            try:
                found: dict[str, Any] = self.backend.info(self._at(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found.get("type") == "file" else None

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects under a prefix."""
        with self.translated():
            try:
                found = self.backend.ls(self._at(folder), detail=True)
            except FileNotFoundError:
                return []
            return sorted(
                str(entry["name"]).rpartition("/")[2] for entry in found if entry["type"] == "file"
            )

    def move(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Copy objects within the store in parallel. Removing the folder deletes the originals."""
        there = {
            folder: set(self.names(folder))
            for folder in {source.rpartition("/")[0] for source, _ in pairs}
        }
        copied = []
        with self.translated():
            for source, target in pairs:
                folder, _, name = source.rpartition("/")
                if name in there[folder]:
                    copied.append((self._at(source), self._at(target)))
                else:
                    self.backend.info(self._at(target))
            if copied:
                sources, targets = (list(side) for side in zip(*copied, strict=True))
                self.backend.copy(sources, targets)

    def rename(self, folder: str, to: str) -> None:
        """Copy a folder's objects; names with a leading ``_`` mark it complete and come last."""
        names = self.names(folder)
        for some in ([n for n in names if n[0] != "_"], [n for n in names if n[0] == "_"]):
            self.move([(f"{folder}/{name}", f"{to}/{name}") for name in some])

    def remove(self, folder: str) -> None:
        """Delete all objects under a prefix."""
        with self.translated(), suppress(FileNotFoundError):
            self.backend.rm(self._at(folder), recursive=True)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with self.translated(), suppress(FileNotFoundError):
            self.backend.rm_file(self._at(name))
