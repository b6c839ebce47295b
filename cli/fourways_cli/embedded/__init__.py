"""The embedded host: runs the operator's plan as local processes. No cluster, no account.

``workloads`` translates planned objects to processes (pure); ``processes`` starts and ends a
process; ``runs`` is a Job and ``servers`` a long-running worker, both described as in Kubernetes;
``ports`` finds out whether a worker listens; ``broker`` runs NATS; ``given`` provides Secrets and
claims; ``state`` is the folder of all files; ``host`` combines all of these; ``manifest_watch``
detects edits; ``control`` answers `fourways start-run|status`.
"""
