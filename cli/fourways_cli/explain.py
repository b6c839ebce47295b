"""``fourways explain``: the path through the decision tree, and what would make it another mode."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from fourways_api import KIND, Choice, Document, Requirements, choose, review

from .output import INVALID, Finding, Output, OutputOption, findings_of, print_json, read_file


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one deployment has its mode."""

    title: str
    mode: str | None
    reason: str
    explicit: bool
    by_needs: Choice | None
    """What the tree makes of the requirements; None where there are none, or none that agree."""
    findings: tuple[Finding, ...]

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
    output: OutputOption = Output.TEXT,
) -> None:
    """Draw the decision tree's path to the mode, and what would make it another.

    Exits with 2 when a ModelDeployment is invalid; what its requirements lead to is drawn all
    the same where they agree.
    """
    documents, unread = read_file(file)
    explanations = [_explanation(file, d) for d in documents if d.is_ours]
    if output is Output.JSON:
        print_json([e.to_json() for e in explanations])
    else:
        console = Console(highlight=False)
        for explanation in explanations:
            console.print(_drawn(explanation))
    for finding in (*unread, *(f for e in explanations for f in e.findings)):
        typer.echo(str(finding), err=True)
    if not explanations and not unread:
        typer.echo(f"no {KIND} in {file}", err=True)
    if not explanations or any(e.findings for e in explanations):
        raise typer.Exit(INVALID)


def _explanation(path: Path, document: Document) -> Explanation:
    verdict = review(document)
    findings = tuple(findings_of(path, document, verdict.problems))
    needs = _needs(document)
    by_needs = choose(needs) if needs else None
    if verdict.deployment:
        choice = verdict.deployment.spec.choice()
        explicit = verdict.deployment.spec.mode != "auto"
        return Explanation(document.title, choice.mode, choice.reason, explicit, by_needs, findings)
    return Explanation(document.title, None, "it is not valid", False, by_needs, findings)


def _needs(document: Document) -> Requirements | None:
    """Read the requirements by themselves: they explain even where the rest is wrong."""
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


def _drawn(explanation: Explanation) -> Tree:
    tree = Tree(f"[bold]{escape(explanation.title)}[/]", guide_style="dim")
    choice = explanation.by_needs
    if explanation.explicit:
        tree.add(f"[bold green]{explanation.mode}[/] because {escape(explanation.reason)}")
        if choice:
            agrees = "the same" if choice.mode == explanation.mode else f"[bold]{choice.mode}[/]"
            _draw_path(tree.add(f"mode auto would choose {agrees}:"), choice)
        else:
            tree.add("mode auto would need requirements to decide by")
    elif choice:
        _draw_path(tree, choice)
    for finding in explanation.findings:
        tree.add(f"[red]{escape(str(finding.problem))}[/]")
    return tree


def _draw_path(branch: Tree, choice: Choice) -> None:
    for step in choice.path:
        answer = "[green]yes[/]" if step.answer else "no"
        asked = branch.add(f"{escape(step.question)} {answer}: {escape(step.because)}")
        other = "another mode" if step.answer else step.mode
        asked.add(f"[dim]for {other}: {escape(step.otherwise)}[/]")
    zero = ", scaled to zero" if choice.scale_to_zero else ""
    branch.add(f"[bold green]{choice.mode}{zero}[/] because {escape(choice.reason)}")
