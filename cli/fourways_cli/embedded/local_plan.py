"""What the operator plans, as it runs here: the workloads of each deployment, each gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from fourways_api import ModelDeployment
from fourways_api.callers import CallerPolicy
from fourways_operator import planning
from fourways_operator.facts import OperatorSettings
from fourways_operator.plan.routes import Observed

from . import workloads
from .clock import Clock
from .localised import localised
from .managed import Json, Key, Managed
from .ports import GatewayPorts, free_port
from .servers import RunningServer
from .state import local_paths
from .uids import DeploymentUids

SETTINGS = OperatorSettings(runtime_image="fourways-runtime")


class LocalPlan:
    """Plans deployments and gateways for one state folder. It starts nothing."""

    def __init__(
        self,
        state: Path,
        uids: DeploymentUids,
        clock: Clock,
        *,
        nats: str | None,
        login: str | None,
        port: int,
        grpc_port: int | None,
        origins: Sequence[str],
    ) -> None:
        """``nats`` is the address of a NATS server to use, ``login`` the Secret of its login.

        ``port``, ``grpc_port`` and ``origins`` are the gateways', as in ``Host``.
        """
        self._state = state
        self._uids = uids
        self._clock = clock
        self._nats = nats
        self._login = login
        self._ports = GatewayPorts(port)
        self._grpc_ports = GatewayPorts(grpc_port, "--grpc-port") if grpc_port else None
        self._origins = tuple(origins)

    def assign_ports(self, namespaces: Sequence[str]) -> None:
        """Give the gateways of these namespaces ports. Raises PortUnavailable."""
        for ports in (self._ports, self._grpc_ports):
            if ports is not None:
                ports.assign(namespaces)

    def here(self, deployment: ModelDeployment) -> ModelDeployment:
        """Return a deployment as it runs here."""
        return localised(self._uids.given(deployment), self._nats, self._login)

    def manage(self, deployment: ModelDeployment, changed: Callable[[Key], None]) -> Managed:
        """Plan a deployment. ``changed`` is called when one of its servers has changed."""
        here = self.here(deployment)
        objects, paths = planning.plan(here, SETTINGS), local_paths(self._state)
        crons = workloads.cron_jobs(objects)
        server_changed = partial(changed, deployment.key)
        return Managed(
            here,
            deployment.to_json(),
            objects,
            crons[0] if crons else None,
            workloads.jobs(objects, paths),
            [
                RunningServer(server, self._state, self._clock, server_changed)
                for server in workloads.servers(objects, paths, free_port)
            ],
        )

    def gateway(
        self,
        namespace: str,
        managed: Iterable[Managed],
        callers: CallerPolicy | None,
        changed: Callable[[str], None],
    ) -> RunningServer:
        """Plan the gateway of a namespace, for the deployments that are managed in it.

        ``callers`` says who may ask it; ``changed`` is called with the namespace when it changes.
        """
        ours = list(managed)
        addresses = {m.deployment.metadata.name: m.url for m in ours if m.url}
        owners: list[Json] = [m.deployment.to_json() for m in ours]
        server = workloads.gateway(
            planning.plan_gateway(namespace, owners, SETTINGS, Observed(addresses)),
            local_paths(self._state),
            self._ports[namespace],
            callers,
            self._grpc_ports[namespace] if self._grpc_ports else None,
            self._origins,
        )
        return RunningServer(server, self._state, self._clock, partial(changed, namespace))
