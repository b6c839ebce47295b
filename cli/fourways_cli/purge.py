"""``fourways purge``: remove the data of deployments that are gone from the prediction store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .tables import stored_table
from .target_command import (
    TableOutput,
    TableOutputOption,
    given,
    invalid,
    open_target,
    or_exit,
    print_result,
    wait_option,
)
from .targets import Json, PurgeRequest, Target
from .terminal import say

if TYPE_CHECKING:
    from rich.table import Table


@given(open_target)
def purge(
    target: Target,
    deployment: Annotated[
        str,
        typer.Argument(metavar="NAMESPACE/NAME", help="A deployment, which may no longer exist."),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; otherwise only list it.")] = False,
    uid: Annotated[
        list[str] | None,
        typer.Option(help="Only the data of this uid; may be repeated.", metavar="UID"),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Runtime image of the Job; default: that of the namespace's gateway. On a cluster."
        ),
    ] = None,
    store_secret: Annotated[
        str | None,
        typer.Option(
            help="Secret with the store's address; default: that of the namespace's gateway. On a "
            "cluster.",
            metavar="NAME",
        ),
    ] = None,
    wait: Annotated[float, wait_option("Seconds to wait for the Job.")] = 120.0,
    output: TableOutputOption = TableOutput.TABLE,
) -> None:
    """List what the store holds of deleted deployments of a name; with --yes, remove it.

    What belongs to the deployment that exists now is never listed or removed. On a cluster this
    creates a Job, so it needs the right to create Jobs in the namespace.
    """
    namespace, slash, name = deployment.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise invalid(f"{deployment!r} is not NAMESPACE/NAME, such as shop/churn")
    request = PurgeRequest(namespace, name, (), image, store_secret, wait)
    kept = or_exit(lambda: target.data_uid(namespace, name))
    found = or_exit(lambda: target.purge(request))
    doomed = [d for d in found if d["uid"] != kept and (not uid or d["uid"] in uid)]
    if doomed and yes:
        uids = tuple(str(data["uid"]) for data in doomed)
        or_exit(lambda: target.purge(request.removing(uids)))
    print_result(doomed, output, lambda: _shown(doomed, deployment))
    if output is TableOutput.TABLE and doomed:
        say("removed" if yes else "nothing was removed: repeat with --yes to remove this")


def _shown(doomed: list[Json], deployment: str) -> Table | str:
    if doomed:
        return stored_table(doomed)
    return f"the store holds nothing of deleted deployments of {deployment}"
