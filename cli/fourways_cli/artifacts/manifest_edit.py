"""Writes a model's place into a manifest, and keeps the rest of its text with its comments."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from fourways_api import InvalidSpec, read_documents

from .errors import NotEdited


def set_model(manifest: Path, uri: str, digest: str) -> None:
    """Set ``spec.model.uri`` and ``spec.model.digest`` of the only ModelDeployment of a file.

    Raises:
        NotEdited: the file cannot be read or written, or has not one such deployment.

    """
    try:
        text = manifest.read_text("utf-8")
        edited = with_model(text, uri, digest)
        unfinished = manifest.with_name(f".{manifest.name}.{os.getpid()}")
        unfinished.write_text(edited, "utf-8")
        unfinished.chmod(manifest.stat().st_mode & 0o777)
        unfinished.replace(manifest)
    except (OSError, UnicodeDecodeError) as error:
        raise NotEdited(f"{manifest}: {error}") from None
    except (NotEdited, InvalidSpec) as error:
        raise NotEdited(f"{manifest}: {error}") from None


def with_model(text: str, uri: str, digest: str) -> str:
    """Return the text with these values. Raises NotEdited or InvalidSpec."""
    ours = [document for document in read_documents(text) if document.is_ours]
    if len(ours) != 1:
        raise NotEdited(f"it has {len(ours)} ModelDeployments; set spec.model by hand")
    model = _child(_child(ours[0].node, "spec"), "model")
    if not isinstance(model, yaml.MappingNode) or model.flow_style:
        raise NotEdited("spec.model is not a block of fields; set uri and digest by hand")
    address, old = _child(model, "uri"), _child(model, "digest")
    if address is None:
        raise NotEdited("spec.model has no uri; set uri and digest by hand")
    edits = [(address.start_mark.index, address.end_mark.index, uri)]
    if old is not None:
        edits.append((old.start_mark.index, old.end_mark.index, digest))
    else:
        indent = " " * model.start_mark.column
        end = text.find("\n", address.end_mark.index)
        end = len(text) if end < 0 else end
        edits.append((end, end, f"\n{indent}digest: {digest}"))
    # From the end, so that the places of the others stay.
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)
