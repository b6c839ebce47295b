"""``fourways pause|resume``: stop and go on with the scheduled runs of a batch deployment."""

from __future__ import annotations

from .applying import GROUP_KIND, path_of
from .inspecting import DeploymentArgument, deployment_of
from .target_command import Scope, failed, given, open_scope, or_exit
from .terminal import say

_INSTEAD = {
    "realtime": "set realtime.minReplicas: 0, and it sleeps while nobody asks",
    "streaming": "delete it and apply it again later: its events wait in the broker",
    "edge": "it runs only while it builds bundles",
}
"""What other modes have instead."""


@given(open_scope)
def pause(scope: Scope, name: DeploymentArgument) -> None:
    """Stop starting runs of a batch deployment (`batch.suspend`).

    Its predictions are still served, a run in progress ends, and `fourways start-run` still works.
    """
    _suspend(scope, name, True)


@given(open_scope)
def resume(scope: Scope, name: DeploymentArgument) -> None:
    """Resume the scheduled runs of a paused batch deployment."""
    _suspend(scope, name, False)


def _suspend(scope: Scope, name: str, wanted: bool) -> None:
    cluster = scope.cluster("pause or resume deployments")
    document = deployment_of(scope, name)
    spec = document.get("spec") or {}
    mode = (document.get("status") or {}).get("mode") or spec.get("mode")
    if mode != "batch" or not spec.get("batch"):
        instead = _INSTEAD.get(str(mode))
        raise failed(
            f"{name} is a {mode} deployment: only batch deployments are paused"
            + (f"; {instead}" if instead else "")
        )
    word = "paused" if wanted else "resumed"
    if bool(spec["batch"].get("suspend")) == wanted:
        say(f"{GROUP_KIND}/{name} is {word} already ({scope.where})")
        return
    changes = {"spec": {"batch": {"suspend": wanted}}}
    or_exit(lambda: cluster.objects.merge(path_of(scope.namespace, document), changes))
    say(f"{GROUP_KIND}/{name} {word} ({scope.where})")
