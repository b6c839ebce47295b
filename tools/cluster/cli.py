"""The commands that `python -m tools.cluster` accepts, and the kind of cluster that executes them.

Results go to stdout, progress to stderr. Exit codes: 0 success, 1 an error the user can act on, 2
an invalid command line, 3 no cluster is possible here.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.cluster import (
    cnpg,
    debian,
    flux,
    gobuild,
    imagebuild,
    keda,
    kind,
    kserve,
    kuberay,
    local,
)
from tools.cluster.config import Checkout, this_checkout
from tools.cluster.detect import Kind, detect, given_kubeconfig
from tools.cluster.errors import ClusterError
from tools.cluster.shell import step

_OWN = {
    "keda": gobuild.KEDA,
    "flux": gobuild.FLUX,
    "cnpg": gobuild.CNPG,
    "helm4": gobuild.HELM4,
}
"""What --with builds from a module of its own."""

_INSTALLERS = {"kserve": kserve, "kuberay": kuberay, "keda": keda, "flux": flux, "cnpg": cnpg}
"""The commands that install an operator, with the module that does it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        return _run(parsed, this_checkout())
    except ClusterError as error:
        print(f"tools.cluster: {error}", file=sys.stderr)
        return error.exit_code


def _run(parsed: argparse.Namespace, checkout: Checkout) -> int:
    command: str = parsed.command
    if command == "images":
        for reference in imagebuild.provide(checkout, detect(checkout), parsed.images):
            print(reference)
        return 0
    if command == "build":
        _build(detect(checkout), tuple(parsed.extras))
        return 0
    if command in _INSTALLERS:
        which = detect(checkout)
        _INSTALLERS[command].install(checkout, which, _kubeconfig(checkout, which))
        return 0
    if command == "can":
        print(detect(checkout))
        return 0
    return {"up": _up, "down": _down, "status": _status}[command](checkout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="Go programs, Debian packages, base image; cached")
    build.add_argument(
        "--with",
        dest="extras",
        action="append",
        default=[],
        metavar="NAME",
        help=f"also build one of: {', '.join((*gobuild.EXTRAS, *_OWN))}",
    )
    commands.add_parser("up", help="start a cluster and print the export line for its kubeconfig")
    image = commands.add_parser("images", help="build images and load them onto the cluster's node")
    image.add_argument(
        "images", nargs="+", metavar="NAME=DOCKERFILE[:TARGET]@CONTEXT", type=imagebuild.parse
    )
    commands.add_parser("kserve", help="install KServe's controller")
    commands.add_parser("kuberay", help="install KubeRay's operator")
    commands.add_parser("keda", help="install KEDA; the first build takes a quarter of an hour")
    commands.add_parser("flux", help="install Flux's kustomize-controller")
    commands.add_parser("cnpg", help="install CloudNativePG's operator")
    commands.add_parser("down", help="remove the cluster and everything except the cache")
    commands.add_parser("status", help="show the kind, whether it runs, and the kubeconfig's path")
    commands.add_parser("can", help="exit with 0 if a cluster is possible, else with 3 and why")
    return parser


def _build(which: Kind, extras: tuple[str, ...]) -> None:
    if which is not Kind.LOCAL:
        print(f"nothing to build: the cluster is {which}", file=sys.stderr)
        return
    with step("build, all of it"):
        debian.install_packages()
        for name in (each for each in extras if each in _OWN):
            gobuild.build_own(_OWN[name])
        print(gobuild.build(tuple(each for each in extras if each not in _OWN)).directory)
        debian.base_root_archive()


def _up(checkout: Checkout) -> int:
    which = detect(checkout)
    if which is Kind.KIND:
        kind.up(checkout)
    elif which is Kind.LOCAL:
        with step("up, all of it"):
            local.up(checkout)
    print(f"export KUBECONFIG={_kubeconfig(checkout, which)}")
    return 0


def _down(checkout: Checkout) -> int:
    which = detect(checkout)
    if which is Kind.GIVEN:
        raise ClusterError("this cluster comes from the environment and is not removed")
    if which is Kind.KIND:
        kind.down(checkout)
    else:
        local.down(checkout)
    return 0


def _status(checkout: Checkout) -> int:
    which = detect(checkout)
    if which is Kind.GIVEN:
        running = True
    else:
        running = kind.running(checkout) if which is Kind.KIND else local.running(checkout)
    print(f"kind: {which}")
    print(f"running: {'yes' if running else 'no'}")
    print(f"kubeconfig: {_kubeconfig(checkout, which)}")
    return 0


def _kubeconfig(checkout: Checkout, which: Kind) -> Path:
    given = given_kubeconfig(checkout)
    if given is not None:
        return given
    return checkout.kind_kubeconfig if which is Kind.KIND else checkout.kubeconfig
