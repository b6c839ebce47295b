"""The embedded host: the operator's plan, run as local processes. No cluster, no account.

``workloads`` translates planned objects to processes (pure); ``processes`` keeps one going;
``runs`` is a Job's life and ``servers`` a long-running worker's, both told as Kubernetes tells it;
``broker`` brings NATS, ``given`` what a cluster would have as Secrets and claims, ``state`` is the
folder all of it is in; ``host`` holds them together; ``control`` answers `fourways run|status`.
"""
