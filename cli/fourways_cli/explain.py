"""``fourways explain``: the path through the decision tree, and how to get another mode."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from fourways_api import KIND, Choice, Document, Requirements, choose
from fourways_operator.scaling import may_sleep

from .manifests import read_manifest
from .output import (
    INVALID,
    Finding,
    TextOutput,
    TextOutputOption,
    print_as,
    print_findings,
    read_file,
)
from .terminal import Branch, Part, print_tree, warn


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reasons for a deployment's mode."""

    title: str
    mode: str | None
    reason: str
    explicit: bool
    by_needs: Choice | None
    """The tree's choice for the requirements; None if they are missing or contradictory."""
    findings: tuple[Finding, ...]
    sleeps: bool = False
    """Whether the manifest lets it scale to zero."""

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        tree = self.by_needs
        return {
            "document": self.title,
            "mode": self.mode,
            "reason": self.reason,
            "explicit": self.explicit,
            "autoWouldChoose": tree.mode if tree else None,
            "scaleToZero": tree.scale_to_zero if tree else None,
            "path": [asdict(step) for step in tree.path] if tree else [],
            "problems": [f.to_json() for f in self.findings],
        }


def explain(
    file: Annotated[Path, typer.Argument(help="A YAML or JSON file; - is standard input.")],
    output: TextOutputOption = TextOutput.TEXT,
) -> None:
    """Show how the decision tree chose the mode, and which changes would choose another.

    Exits with 2 when a ModelDeployment is invalid; the path of its requirements is shown
    nevertheless, as long as they do not contradict each other.
    """
    documents, unread = read_file(file)
    explanations = [_explanation(file, d) for d in documents if d.is_ours]
    if output is TextOutput.TEXT:
        for explanation in explanations:
            print_tree(_tree(explanation))
    else:
        print_as(output, [e.to_json() for e in explanations])
    print_findings((*unread, *(f for e in explanations for f in e.findings)))
    if not explanations and not unread:
        warn(f"no {KIND} in {file}")
    if not explanations or any(e.findings for e in explanations):
        raise typer.Exit(INVALID)


def _explanation(path: Path, document: Document) -> Explanation:
    manifest = read_manifest(path, document)
    findings = manifest.findings
    needs = _needs(document)
    by_needs = choose(needs) if needs else None
    if manifest.deployment:
        choice = manifest.deployment.spec.choice()
        explicit = manifest.deployment.spec.mode != "auto"
        sleeps = may_sleep(manifest.deployment)
        return Explanation(
            document.title, choice.mode, choice.reason, explicit, by_needs, findings, sleeps
        )
    return Explanation(document.title, None, "it is not valid", False, by_needs, findings)


def _needs(document: Document) -> Requirements | None:
    """Read only the requirements, to explain them even if the rest is invalid."""
    spec = document.data.get("spec")
    needs = spec.get("requirements") if isinstance(spec, dict) else None
    if not isinstance(needs, dict):
        return None
    try:
        return Requirements.model_validate(
            {k: v for k, v in needs.items() if v is not None}, by_alias=True, by_name=False
        )
    except ValidationError:
        return None


def _tree(explanation: Explanation) -> Branch:
    tree = Branch(((explanation.title, "bold"),))
    choice = explanation.by_needs
    if explanation.explicit:
        tree.add((str(explanation.mode), "bold green"), f" because {explanation.reason}")
        if choice:
            same = choice.mode == explanation.mode
            other: Part = "the same" if same else (choice.mode, "bold")
            under = tree.add("mode auto would choose ", other, ":")
            _add_path(under, choice, explanation.sleeps)
        else:
            tree.add("mode auto would need spec.requirements")
    elif choice:
        _add_path(tree, choice, explanation.sleeps)
    for finding in explanation.findings:
        tree.add((str(finding.problem), "red"))
    return tree


def _add_path(branch: Branch, choice: Choice, sleeps: bool) -> None:
    for step in choice.path:
        answer: Part = ("yes", "green") if step.answer else "no"
        question = branch.add(f"{step.question} ", answer, f": {step.because}")
        other = "another mode" if step.answer else step.mode
        question.add((f"for {other}: {step.otherwise}", "dim"))
    zero = ""
    if choice.scale_to_zero:
        zero = ", scaled to zero" if sleeps else ", to scale to zero with realtime.minReplicas: 0,"
    branch.add((f"{choice.mode}{zero}", "bold green"), f" because {choice.reason}")
