"""The embedded host: the operator's plan, run as local processes. No cluster, no account.

``workloads`` translates planned objects to processes (pure); ``processes`` keeps one going;
``runs`` is a Job's life; ``host`` holds them together; ``control`` answers `fourways run|status`.
"""
