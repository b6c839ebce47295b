"""Give an image build this machine's access to package indexes, without storing it in the image.

The machine's mirrors, proxies and certificate authorities may contain credentials, and an image
that names them works nowhere else. So they are mounted read-only while a RUN step runs, as the
configuration files that pip and uv read by default, and they are not in the image.
"""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP_FILES = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_OTHER_SETTINGS = (
    *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    *("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
)
# Settings for package sources. Local folders (find-links) do not exist during a build.
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "timeout")


def write(folder: Path) -> dict[Path, str]:
    """Write the configuration files into `folder`; return the mounts."""
    settings = _pip_settings(os.environ)
    pip, uv = folder / "pip.conf", folder / "uv.toml"
    pip.write_text(_pip_conf(settings), encoding="utf-8")
    uv.write_text(_uv_toml(settings, os.environ), encoding="utf-8")
    wanted = {pip: "/etc/pip.conf", uv: "/etc/uv/uv.toml", _CERTIFICATES: str(_CERTIFICATES)}
    return {source: target for source, target in wanted.items() if source.exists()}


def secrets(folder: Path) -> dict[str, Path]:
    """Return the same files by the names of the Dockerfile's secrets.

    Empty where this machine names no index and no authorities of its own.
    """
    if not _pip_settings(os.environ) and not any(map(os.environ.get, _OTHER_SETTINGS)):
        return {}
    names = {"pip.conf": "pip", "uv.toml": "uv", _CERTIFICATES.name: "authorities"}
    return {names[source.name]: source for source in write(folder)}


def _pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's own order: its files, then its environment variables."""
    parser = configparser.RawConfigParser()
    parser.read([Path(name).expanduser() for name in _PIP_FILES])
    settings = dict(parser["global"]) if parser.has_section("global") else {}
    for key in _PIP_KEYS:
        if value := environment.get(f"PIP_{key.upper().replace('-', '_')}"):
            settings[key] = value
    return {key: settings[key] for key in _PIP_KEYS if key in settings}


def _pip_conf(settings: Mapping[str, str]) -> str:
    lines = [f"{key} = {' '.join(value.split())}" for key, value in settings.items()]
    return "\n".join(["[global]", f"cert = {_CERTIFICATES}", *lines, ""])


def _uv_toml(settings: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """uv reads its own variables first, and falls back to pip's index."""
    index = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    index = index or settings.get("index-url")
    extra = environment.get("UV_EXTRA_INDEX_URL") or settings.get("extra-index-url", "")
    # The machine's certificate authorities, not those included in uv.
    lines = ["native-tls = true"]
    if index:
        lines.append(f'index-url = "{index}"')
    if extra:
        quoted = ", ".join(f'"{url}"' for url in extra.split())
        lines.append(f"extra-index-url = [{quoted}]")
    return "\n".join([*lines, ""])
