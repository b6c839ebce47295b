"""The command line and the embedded host: the same plan, without a cluster."""
