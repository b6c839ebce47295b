"""Getting files from where their URI says they are: one fetcher for every mode.

Owns the schemes (file, pvc, http, https, s3, gs, az, oci), the policy that guards them, and the
private, content-addressed folder downloads end in. Everything here treats the other side as
hostile: it may lie about sizes, redirect, drip, change its mind or point back into the cluster.
Nothing here looks inside a file; that is the business of ``model`` and ``sources``.

* :func:`fetch` downloads one file and vouches for its digest.
* :func:`filesystem` reads tables in place, under the same policy.
* :func:`resolve` names the local file behind a ``file`` or ``pvc`` URI.
"""

from .filesystems import filesystem
from .local import resolve
from .transfer import Fetched, fetch

__all__ = ["Fetched", "fetch", "filesystem", "resolve"]
