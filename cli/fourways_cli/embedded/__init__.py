"""The embedded host: the operator's plan, run as local processes. No cluster, no account.

``workloads`` translates planned objects to processes (pure); ``processes`` starts and ends one;
``runs`` is a Job and ``servers`` a long-running worker, both described as Kubernetes describes
them; ``ports`` finds out whether a worker listens; ``broker`` runs NATS; ``given`` provides Secrets
and claims; ``state`` is the folder of all files; ``host`` holds them together; ``manifest_watch``
notices edits; ``control`` answers `fourways run|status`.
"""
