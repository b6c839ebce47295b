"""The files of a table, local or remote: how they are opened, and whether they have changed.

This module detects whether a file has changed, and translates the errors of reading. Access to the
bytes belongs to the fetcher; ``listing`` finds the files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from io import BufferedReader
from pathlib import PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from fourways_runtime.errors import SourceError, WorkloadError
from fourways_runtime.scoring.splits import Split

from ..fetch.location import Location
from ..fetch.objects import open_known, translated
from .partitions import TableFile

T = TypeVar("T")

_TAGGED = ("s3", "gs", "az")
"""Schemes whose mark identifies a file's content, rather than only a time. Reads can be made
conditional on it."""

FILES_AT_ONCE = 16
"""Files inspected in parallel when each needs a round trip."""

_MAGIC: dict[bytes, Any] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
}
"""The first bytes of compressed files (RFC 1952, RFC 8878, bzip2, LZ4 frames)."""

_MAGIC_BYTES = 4
_PIECE = 4 * 2**20
"""Bytes per read while hashing."""

_MARKS = ("generation", "ETag", "etag", "mtime", "LastModified", "last_modified")
"""Names in fsspec backends for the mark that changes with a file's content, best first."""


_FSSpecHandler: Any = pafs.FSSpecHandler  # The type stub calls it abstract.


class _Handler(_FSSpecHandler):  # type: ignore[misc]
    """Opens files without first checking that they exist.

    fsspec reports "not found" whenever that check fails, so an unreachable server would look like a
    missing file, and the run would not be retried.

    An object with a known size and tag is read without requesting them first, and only while it has
    that tag.
    """

    def __init__(self, backend: Any, scheme: str, known: Mapping[str, tuple[int, str]]) -> None:
        super().__init__(backend)
        self._scheme = scheme
        self._known = known
        self._small: tuple[str, tuple[int, str], Any] | None = None
        """The most recent small object: its footer is read first, and then its rows."""

    def open_input_file(self, path: str) -> Any:
        if path in self._known:
            mark, last = self._known[path], self._small
            if last is not None and last[:2] == (path, mark):
                return pa.BufferReader(last[2])
            found = open_known(self.fs, self._scheme, path, *mark)
            if isinstance(found, bytes):
                self._small = path, mark, found
                return pa.BufferReader(found)
            return pa.PythonFile(found, mode="r")
        file = self.fs.open(path, mode="rb")
        if isinstance(file, BufferedReader) and sys.platform == "linux":
            # A local file: once it is open, Arrow reads it without going through the interpreter.
            with file:
                return pa.OSFile(f"/proc/self/fd/{file.fileno()}", "r")
        return pa.PythonFile(file, mode="r")

    open_input_stream = open_input_file


class Files:
    """The files of one table, in the order they are read."""

    def __init__(
        self,
        location: Location,
        backend: Any,
        find: Callable[[], tuple[TableFile, ...]],
        renewed: Callable[[], Any] = lambda: None,
        secret: str = "",
    ) -> None:
        """Read from an fsspec filesystem; ``find`` lists the files on demand.

        ``renewed`` returns another filesystem if the credentials have changed, or None; ``secret``
        is the name of their Secret.
        """
        self._secret = secret
        self.location = location
        self.backend = backend
        self._known: dict[str, tuple[int, str]] = {}
        """Size and tag of the objects that are read only while they have that tag."""

        self._handler = _Handler(backend, location.scheme, self._known)
        self.filesystem: Any = pafs.PyFileSystem(self._handler)
        self._renewed = renewed
        self._find = find
        self.compressed: set[str] = set()
        """Text files that turned out to be compressed."""

    @cached_property
    def parts(self) -> tuple[TableFile, ...]:
        """All files. Raises SourceError, FetchFailed."""
        with translated(self.location, self._secret):
            return self._find()

    @property
    def local(self) -> bool:
        """Tell whether a file can be opened without contacting a server."""
        return self.location.scheme in ("file", "pvc")

    def display_name(self, path: str) -> str:
        """Return the name of a file for messages."""
        return self.location.shown if len(self.parts) == 1 else PurePosixPath(path).name

    def mark(self, part: TableFile) -> str:
        """Return the mark that identifies the state of a file, as the listing reports it."""
        if part.info is None or self.location.scheme in ("http", "https"):
            mark = self.fingerprint(part.path)
        else:
            mark = _fingerprint(part.info)
        self._expect(part.path, mark)
        return mark

    def fingerprint(self, path: str) -> str:
        """Request the mark that identifies the state of a file: its size, and its tag or time."""
        with translated(self.location, self._secret):
            return _fingerprint(self.backend.info(path))

    def _expect(self, path: str, mark: str) -> bool:
        """Make reads of a file conditional on its mark; False if the backend cannot do that."""
        size, _, tag = mark.partition("-")
        if self.location.scheme not in _TAGGED or not tag or not size.isdigit():
            return False
        self._known[path] = int(size), tag
        return True

    def open_text(self, path: str) -> Any:
        """Open a text file from its start; a compressed one is decompressed.

        The first bytes decide, not the name: an object with ``Content-Encoding: gzip`` arrives as
        it is stored, but some servers have already decompressed it.
        """
        file = self.filesystem.open_input_file(path)
        first = file.read(_MAGIC_BYTES)
        file.seek(0)
        kinds = (kind for magic, kind in _MAGIC.items() if first.startswith(magic))
        kind: Any = "brotli" if path.endswith(".br") else next(kinds, None)
        if kind is None:
            return file
        self.compressed.add(path)
        return pa.CompressedInputStream(file, kind)

    def each(self, look: Callable[[TableFile], T]) -> list[T]:
        """Inspect every file, in order; several in parallel if each needs a round trip."""
        if self.local or len(self.parts) == 1:
            return [look(part) for part in self.parts]
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            return list(pool.map(look, self.parts))

    def content(self, path: str, split: Split, ranges: Sequence[tuple[int, int]]) -> str | None:
        """Return a digest of some ranges of bytes, (start, end) each; None if there is none.

        It can be compared from one run to the next. For a local file it is a hash of the bytes. For
        an object store it is the tag of the whole object, which needs no reading.

        Raises:
            SourceError: the file is gone, or has changed since the run began.

        """
        if not self.local:
            size, _, tag = split.fingerprint.partition("-")
            return f"{path}:{size}:{tag}" if self.location.scheme in _TAGGED and tag else None
        from blake3 import blake3

        hashed = blake3()
        with self.reading(split.file), self.backend.open(path, "rb") as file:
            for start, end in ranges:
                file.seek(start)
                while piece := file.read(min(_PIECE, end - start)):
                    hashed.update(piece)
                    start += len(piece)
        self._check(path, split)
        return hashed.hexdigest()

    @staticmethod
    def size(mark: str) -> int | None:
        """Return the number of bytes of a file with this fingerprint, if the backend reports it."""
        size, _, _ = mark.partition("-")
        return int(size) if size.isdigit() else None

    def steady(self, path: str, split: Split, read: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Read a file, and check before and after that it is as it was when the run began.

        Raises:
            SourceError: the file is gone or has changed.

        """
        if (backend := self._renewed()) is not None:
            self.backend = self._handler.fs = backend
        conditional = self._expect(path, split.fingerprint)
        if not conditional:
            self._check(path, split)
        try:
            yield from read()
        except SourceError:
            # A mix of an old and a new state looks like damage: report the change instead.
            self._check(path, split)
            raise
        if not conditional:
            self._check(path, split)

    def _check(self, path: str, split: Split) -> None:
        try:
            found = self.fingerprint(path)
        except SourceError as error:
            if "access denied" in str(error):
                raise
            raise SourceError(
                f"{split.file}: no longer exists; it existed when the run started"
            ) from None
        if found != split.fingerprint:
            raise SourceError(f"{split.file}: changed while it was read")

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Translate the errors of reading into our own, with the name of the file."""
        with translated(self.location, self._secret):
            try:
                yield
            except WorkloadError:
                raise
            except pa.ArrowException as error:
                raise SourceError(f"{name}: {_line(error)}") from None
            except OSError as error:
                # Arrow's own errors, for damaged files, have no number; the operating system's do.
                if type(error) is OSError and error.errno is None:
                    raise SourceError(f"{name}: {_line(error)}") from None
                raise


_QUOTED = re.compile(r"(Expected \d+ columns, got \d+|invalid value): .*|(?<=invalid value) '.*")
"""A row or a cell in an error of Arrow."""


def _fingerprint(info: Mapping[str, Any]) -> str:
    mark = next((info[name] for name in _MARKS if info.get(name) is not None), "")
    return f"{info.get('size')}-{str(mark).strip(chr(34))}"


def _line(error: Exception) -> str:
    """Return the first line of an Arrow error without the data that it quotes."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return _QUOTED.sub(r"\1", line)[:200]
