"""The fetcher: it gets files from their URIs, for every mode.

The package contains the schemes (file, pvc, http, https, s3, gs, az, oci), the policy that guards
them, and the private, content-addressed folder for downloads. All code here treats the remote side
as hostile: it may report false sizes, redirect, send slowly, change the file or point back into the
cluster. Nothing here parses a file; that belongs to ``model`` and ``sources``.

* :func:`fetch` downloads one file and verifies its digest.
* :func:`.filesystems.filesystem` reads tables in place, under the same policy. It is imported from
  its module, because it loads fsspec, which a process that fetches a model may do without.
* :func:`resolve` returns the local path of a ``file`` or ``pvc`` URI.
"""

from .local import resolve
from .transfer import Fetched, fetch

__all__ = ["Fetched", "fetch", "resolve"]
