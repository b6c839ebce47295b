"""``fourways serve``: a model file answers on this machine, without a manifest of one's own."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from .embedded.control import STATE
from .embedded.manifest_watch import edits
from .embedded.ports import MAX_PORT
from .hosting import check_runtime, run_host
from .init import ModelArgument, NameOption, SampleOption, drafted
from .manifests import read_deployments
from .output import FAILED
from .terminal import say, warn

if TYPE_CHECKING:
    from .first_manifest.draft import Draft

_INLINE = 1_500
"""Maximum number of characters of a request that is printed within the command."""


def serve(
    model: ModelArgument,
    sample: SampleOption = None,
    name: NameOption = None,
    port: Annotated[int, typer.Option(help="Port on loopback.", min=1, max=MAX_PORT)] = 8080,
    state: Annotated[Path, typer.Option(help="Folder for the manifest, caches and logs.")] = STATE,
) -> None:
    """Serve a model file here, in real-time mode: `fourways init` and `fourways up` in one.

    Prints the commands that ask it once it answers. Takes up a changed model file, and edits of the
    manifest that it prints the path of; the manifest is written anew at every start. Ctrl-C ends
    everything.
    """
    served = _Served(model, sample, name, state, port)
    served.write()
    check_runtime()
    run_host(
        [served.manifest],
        read_deployments([served.manifest]),
        state,
        port=port,
        on_status=served.introduce,
        beside=served.follow,
    )


@dataclass(slots=True)
class _Served:
    model: Path
    sample: Path | None
    name: str | None
    state: Path
    port: int
    draft: Draft = field(init=False)
    introduced: bool = False

    @property
    def manifest(self) -> Path:
        return self.draft.manifest

    @property
    def request(self) -> Path:
        return self.manifest.with_suffix(".request.json")

    def make(self) -> Draft:
        from .first_manifest.model_source import deployment_name

        name = self.name or deployment_name(self.model)
        manifest = self.state / "serve" / f"{name}.yaml"
        return drafted(self.model, sample=self.sample, name=name, manifest=manifest)

    def write(self) -> None:
        """Write manifest, golden vectors and a request into the state folder."""
        self.draft = self.make()
        try:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.draft.write()
            self.request.write_bytes(orjson.dumps(self.draft.request))
        except OSError as error:
            warn(f"cannot write {self.manifest}: {error.strerror or error}")
            raise typer.Exit(FAILED) from None
        for note in self.draft.notes:
            warn(f"note: {note}")

    def introduce(self, status: dict[str, Any]) -> None:
        """Print how to ask the model, once it answers."""
        conditions = {each["type"]: each for each in status.get("conditions", ())}
        if self.introduced or conditions.get("Ready", {}).get("status") != "True":
            return
        self.introduced = True
        gateway = f"http://127.0.0.1:{self.port}"
        address = f"{gateway}/v2/models/{self.draft.name}"
        body = orjson.dumps(self.draft.request).decode()
        data = body if len(body) <= _INLINE else f"@{self.request}"
        file = orjson.dumps(str(self.request)).decode()
        python = (
            "import urllib.request as web; "
            f'print(web.urlopen("{address}/infer", open({file}, "rb").read()).read().decode())'
        )
        say(("manifest", "bold"), f"  {self.manifest}")
        say(("address", "bold"), f"   {address}")
        say(("page", "bold"), f"      {gateway}/deployments/{self.draft.name}")
        say(("openapi", "bold"), f"   {address}/openapi.json")
        say(("curl", "bold"), f"      curl -s {address}/infer -d {shlex.quote(data)}")
        say(("python", "bold"), f"    python3 -c {shlex.quote(python)}")

    async def follow(self) -> None:
        """Write the manifest anew after each change of the model or the sample."""
        async for _ in edits(self.draft.watched):
            if self.manifest.read_text(encoding="utf-8") != self.draft.text:
                warn(
                    f"the model changed, and {self.manifest} was edited: it is not written anew;"
                    " set digest and golden vectors in it, or start again"
                )
                continue
            try:
                await asyncio.to_thread(self.write)
            except typer.Exit:
                warn("the model changed and cannot be served: what runs is unchanged")
            else:
                warn("the model changed: its manifest is written anew")
