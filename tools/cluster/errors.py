"""The errors this package raises.

ClusterError            anything the user can act on: one line that says what to do (exit 1)
  CannotHaveCluster     no kind of cluster is possible on this machine (exit 3)
  CommandFailed         a program we ran ended with an error; carries the end of what it said
"""


class ClusterError(Exception):
    """Something the user can act on; the message is one line that says what to do."""

    exit_code = 1


class CannotHaveCluster(ClusterError):
    """No kind of cluster can be had on this machine, and why."""

    exit_code = 3


class CommandFailed(ClusterError):
    """A program we ran ended with an error."""
