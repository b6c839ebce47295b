"""``fourways doctor``: what is missing or wrong on this machine and on a cluster, and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fourways_api.installing import install_command

from .diagnosis.findings import Diagnosis
from .diagnosis.machine import look_at_machine
from .embedded.control import STATE
from .output import FAILED
from .target_command import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    TableOutput,
    TableOutputOption,
    failed,
)
from .targets import TargetError
from .terminal import print_json, print_yaml, say

_SIGNS = {"ok": ("ok    ", "green"), "note": ("note  ", "yellow"), "fault": ("fault ", "red")}


def doctor(
    cluster: Annotated[
        bool | None,
        typer.Option(
            "--cluster/--machine",
            help="Look at the cluster, or at this machine, only. By default at both, if there is a "
            "kubeconfig.",
        ),
    ] = None,
    state: Annotated[Path, typer.Option(help="State folder of `fourways up`.")] = STATE,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """Check this machine and the cluster: name what is missing or wrong, and the fix.

    It changes nothing, and reads no Secret's value. Exits with 1 if there is a fault.
    """
    findings: list[Diagnosis] = []
    if cluster is not True:
        findings += look_at_machine(state)
    if cluster is not False:
        asked = cluster is True or kubeconfig is not None or context is not None
        findings += _cluster(kubeconfig, context, namespace, asked)
    match output:
        case TableOutput.JSON:
            print_json([finding.to_json() for finding in findings])
        case TableOutput.YAML:
            print_yaml([finding.to_json() for finding in findings])
        case _:
            for finding in findings:
                _show(finding)
    if any(finding.level == "fault" for finding in findings):
        raise typer.Exit(FAILED)


def _show(finding: Diagnosis) -> None:
    say(_SIGNS[finding.level], (finding.about, "bold"), f": {finding.says}")
    if finding.fix:
        say("       → ", finding.fix)


def _cluster(
    kubeconfig: Path | None, context: str | None, namespace: str | None, asked: bool
) -> list[Diagnosis]:
    """Return the findings about a cluster; none if nobody asked for one and there is none."""
    try:
        # The Kubernetes client is optional.
        from .kubeconfig import ApiException, NoCluster, Unreachable, log_in
    except ImportError:
        if asked:
            raise failed(
                f"the Kubernetes client is missing: {install_command('operator')}"
            ) from None
        return []
    from .diagnosis.cluster import look_at_cluster
    from .diagnosis.reading import ApiReader, read_facts

    try:
        login = log_in(kubeconfig, context)
        where = namespace or login.namespace
        facts = read_facts(ApiReader(login, ApiException, Unreachable), where)
    except (NoCluster, TargetError) as error:
        if asked:
            raise failed(f"no cluster can be reached: {error}") from None
        return []
    return list(look_at_cluster(facts, where))
