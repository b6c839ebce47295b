"""``python -m fourways_cli.kserve_server``: the container of the chart's ClusterServingRuntime.

KServe puts the model of a hand-written InferenceService into a folder and starts this with the
service's name. The contract that a ModelDeployment would give is read from the model, as by
``fourways init``. Then the Fourways model server takes the process over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from fourways_api import FetchPolicy, Paths, RunReport
from fourways_api.reasons import Reason
from fourways_api.runtime_config import CONFIG_VARIABLE, TERMINAL_EXIT_CODES, ServerConfig
from fourways_runtime.logs import log_as_json
from fourways_runtime.termination_message import write_report

from .first_manifest.draft import make_draft
from .first_manifest.errors import NoManifest
from .manifests import read_deployments

logger = logging.getLogger("fourways.kserve")

MODEL_DIR = "/mnt/models"
WORK_DIR = "/tmp/fourways"  # noqa: S108  (the pod's own)


def config_of(args: argparse.Namespace) -> ServerConfig:
    """Return the server's configuration for the only model of a folder. Raises NoManifest."""
    work = Path(args.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    draft = make_draft(Path(args.model_dir), manifest=work / "model.yaml", name="model")
    draft.write()
    (deployment,) = read_deployments([draft.manifest])
    for note in draft.notes:
        logger.warning(note)
    spec = deployment.spec
    return ServerConfig(
        namespace=os.environ.get("POD_NAMESPACE", "default"),
        name=args.model_name,
        model=spec.model,
        digest=spec.model.digest,
        contract=spec.contract,
        threads=args.threads,
        memory_bytes=args.memory_bytes,
        fetch=FetchPolicy(schemes=("file",)),
        paths=Paths(cache_dir=str(work / "cache"), termination_log=args.termination_log),
        port=args.http_port,
        grpc_port=args.grpc_port,
        timeout_seconds=args.timeout_seconds,
    )


def main() -> int:
    """Start the model server in this process; return an exit code if the model cannot be served."""
    args = _arguments()
    log_as_json()
    try:
        config = config_of(args)
    except NoManifest as error:
        report = RunReport(outcome="Failed", reason=Reason.ModelNotLoadable, message=str(error))
        logger.error(report.message)
        write_report(report, args.termination_log)
        return TERMINAL_EXIT_CODES[0]
    return _become_server(config)


def _become_server(config: ServerConfig) -> NoReturn:
    environment = {**os.environ, CONFIG_VARIABLE: json.dumps(config.to_json())}
    command = [sys.executable, "-P", "-m", "fourways_runtime", "serve"]
    os.execve(sys.executable, command, environment)  # noqa: S606


def _arguments() -> argparse.Namespace:
    """Read the arguments; the names are those of KServe's own servers where these have them."""
    parser = argparse.ArgumentParser(prog="fourways_cli.kserve_server", description=__doc__)

    def option(name: str, default: Any, text: str, kind: Any = str) -> None:
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)

    parser.add_argument("--model_name", required=True, help="name of the model in the paths")
    option("model_dir", MODEL_DIR, "folder with one model file, or an MLflow model")
    option("http_port", 8080, "port of versions 1 and 2 of the protocol", int)
    option("grpc_port", None, "port of version 2 over gRPC; by default it is not served", int)
    option("timeout_seconds", 30.0, "a request that takes longer is refused", float)
    option("threads", int(os.environ.get("CPU_LIMIT", "1")), "threads of the model", int)
    memory = int(os.environ.get("MEMORY_LIMIT", str(2**30)))
    option("memory_bytes", memory, "memory that the process may take", int)
    option("work_dir", WORK_DIR, "folder for the manifest and the cache")
    option("termination_log", Paths().termination_log, "file for the reason of a failure")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
