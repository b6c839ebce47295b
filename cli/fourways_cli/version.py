"""``fourways version``: of this program, and of the operators of a cluster."""

from __future__ import annotations

import platform
from typing import Any

from .own_version import own_version
from .target_command import (
    ClusterOption,
    ContextOption,
    KubeconfigOption,
    TableOutput,
    TableOutputOption,
    failed,
    or_exit,
    print_result,
)
from .targets import ClusterChoice
from .terminal import Heading, table

OPERATORS = "app.kubernetes.io/name=fourways,app.kubernetes.io/component=operator"


def version(
    cluster: ClusterOption = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """Show the version of this program; with --cluster, also the images of the operators there."""
    found: dict[str, Any] = {"fourways": own_version(), "python": platform.python_version()}
    choice = ClusterChoice(cluster, kubeconfig, context)
    if choice.explicit:
        from .targets import ClusterTarget  # the client takes longer to import than all the rest

        pods = or_exit(lambda: ClusterTarget(choice).pods(OPERATORS))
        found["operators"] = [
            {"namespace": pod["metadata"]["namespace"], "image": each["image"]}
            for pod in pods
            for each in pod["spec"]["containers"]
        ]
    rows = [("fourways", found["fourways"]), ("Python", found["python"])]
    rows += [(f"operator in {o['namespace']}", o["image"]) for o in found.get("operators", ())]
    print_result(found, output, lambda: table(("", Heading("Version", copied=True)), rows))
    if choice.explicit and not found["operators"]:
        raise failed("no operator runs on this cluster: helm install fourways charts/fourways")
