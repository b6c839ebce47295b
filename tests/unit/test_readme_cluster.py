"""The README's way from a build of one's own to an answer on a cluster: few commands, which fit."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.kit.walkthrough import blocks
from tools.install_yaml import images_of, rendered
from tools.installation import ROOT
from tools.push_images import DEFAULT, commands, helm_install, version

README = ROOT / "README.md"


def way() -> list[list[str]]:
    """Return the words of the commands from `make images` to the answer."""
    texts = [block.text for block in blocks(README) if block.language == "sh"]
    first = next(n for n, text in enumerate(texts) if text.startswith("make images"))
    lines = "".join(texts[first : first + 2]).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def test_five_commands_lead_from_a_build_to_an_answer() -> None:
    assert [words[:2] for words in way()] == [
        ["make", "images"],
        ["helm", "install"],
        ["helm", "test"],
        ["fourways", "push"],
        ["fourways", "apply"],
    ]


def test_they_name_one_registry_one_namespace_and_one_manifest() -> None:
    images, install, tested, pushed, applied = way()
    registry = images[2].removeprefix("REGISTRY=")
    assert f"imageRegistry={registry}" in install
    assert pushed[3].startswith(f"oci://{registry}/")
    assert pushed[pushed.index("--manifest") + 1] == applied[2]
    spaces = [words[words.index("-n") + 1] for words in (install, tested, applied)]
    assert len(set(spaces)) == 1
    printed = shlex.split(helm_install(registry, version(), list(DEFAULT)))
    expected = [spaces[0] if word == "NAMESPACE" else word for word in printed]
    assert [word for word in expected if word not in install] == [], "make images prints it"


@pytest.mark.thorough
def test_the_chart_pulls_what_was_pushed(helm: str) -> None:
    images, install, *_ = way()
    registry = images[2].removeprefix("REGISTRY=")
    values = [word for word in install if re.match(r"[a-zA-Z.]+=", word)]
    found = images_of(rendered(helm, *(part for value in values for part in ("--set", value))))
    pushed = {
        words[-1]
        for words in commands("docker", registry, version(), list(DEFAULT), {})
        if words[1] == "push"
    }
    assert len(pushed) == len(DEFAULT)
    assert pushed <= set(found)
