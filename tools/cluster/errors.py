"""The errors this package raises.

ClusterError            anything the user can act on: one line that says what to do (exit 1)
  CannotHaveCluster     no kind of cluster is possible on this machine (exit 3)
  CommandFailed         a program we ran failed; carries the end of its output
"""


class ClusterError(Exception):
    """An error that the user can act on; the message is one line that says what to do."""

    exit_code = 1


class CannotHaveCluster(ClusterError):
    """No kind of cluster is possible on this machine; the message says why."""

    exit_code = 3


class CommandFailed(ClusterError):
    """A program that we ran failed."""
