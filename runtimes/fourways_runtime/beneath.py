"""Opens files relative to a folder's descriptor, without following links.

A folder may be shared with others who write to it, so a name that is checked and then opened again
may refer to another file by then. Each component is opened from its parent's descriptor, so the
file that is checked is the file that is read. Links are rejected, not resolved: the message asks
for the real path.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from .errors import FetchRefused, SourceError, WorkloadError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_beneath(root: Path, components: tuple[str, ...], shown: str) -> int:
    """Open a file or folder beneath ``root`` for reading; the caller closes the descriptor.

    ``root`` itself is trusted. Raises FetchRefused at a link, and SourceError for a path that is
    missing or not readable.
    """
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise os_failure(error, shown, root.name) from None
    for position, component in enumerate(components):
        flags = _FILE if position == len(components) - 1 else _FOLDER
        try:
            child = os.open(component, flags, dir_fd=handle)
        except OSError as error:
            raise _explain(error, handle, component, shown) from None
        finally:
            os.close(handle)
        handle = child
    return handle


def _explain(error: OSError, folder: int, component: str, shown: str) -> WorkloadError:
    # Opening a link fails with ENOTDIR as a folder and ELOOP as a file: check what it is.
    try:
        is_link = stat.S_ISLNK(os.lstat(component, dir_fd=folder).st_mode)
    except OSError:
        is_link = False
    if is_link or error.errno == errno.ELOOP:
        return FetchRefused(f"{shown}: {component!r} is a link; write the real path")
    return os_failure(error, shown, component)


def os_failure(error: OSError, shown: str, name: str) -> SourceError:
    """Convert an operating system error to one whose message names the file."""
    said = os.strerror(error.errno).lower() if error.errno else "unreadable"
    return SourceError(f"{shown}: {name!r}: {said}")


def check_regular(
    handle: int, shown: str, *, single_link: bool, own: bool = False
) -> os.stat_result:
    """Reject anything but a regular file; with ``single_link`` also a file with several names.

    With ``own``, several names are no fault of a file that belongs to the user of this process:
    installers such as uv make hard links of the files in their cache.
    """
    status = os.fstat(handle)
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{shown}: is a folder; name the file")
    if not stat.S_ISREG(status.st_mode):
        raise FetchRefused(f"{shown}: is no regular file")
    if single_link and status.st_nlink != 1 and not (own and status.st_uid == os.geteuid()):
        raise FetchRefused(f"{shown}: the file has {status.st_nlink} hard links; copy it instead")
    return status


def open_model_file(
    root: Path, components: tuple[str, ...], shown: str, *, own: bool = False
) -> int:
    """Open a regular file with a single name beneath ``root``; the caller closes it.

    With ``own``, a file of the user of this process may have several names.
    """
    handle = open_beneath(root, components, shown)
    try:
        check_regular(handle, shown, single_link=True, own=own)
    except BaseException:
        os.close(handle)
        raise
    return handle
