"""Labels by index from a text file, for a contract whose manifest does not list them."""

from __future__ import annotations

from pathlib import Path

from fourways_api import Contract
from fourways_api.fields import MAX_LABEL_CHARACTERS, MAX_LABELS
from fourways_runtime.errors import ContractMismatch

MAX_BYTES = 4 * MAX_LABELS * (MAX_LABEL_CHARACTERS + 1)


def read_labels(file: Path) -> tuple[str, ...]:
    """Read labels, one per line in UTF-8. Two indices may have the same label.

    Raises:
        ContractMismatch: naming the line.

    """
    try:
        lines = file.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ContractMismatch(f"contract.labels: byte {error.start} is not UTF-8") from None
    labels = tuple(line.removesuffix("\r") for line in lines)
    if len(labels) > MAX_LABELS:
        raise ContractMismatch(f"contract.labels: more than {MAX_LABELS:,} lines")
    for number, label in enumerate(labels, 1):
        if not label.strip():
            raise ContractMismatch(
                f"contract.labels: line {number} is empty; write one label per line"
            )
        if len(label) > MAX_LABEL_CHARACTERS:
            raise ContractMismatch(
                f"contract.labels: line {number} is longer than {MAX_LABEL_CHARACTERS} characters"
            )
        if "\0" in label:
            raise ContractMismatch(f"contract.labels: line {number} contains a NUL character")
    return labels


def with_labels(contract: Contract, labels: tuple[str, ...]) -> Contract:
    """Return the contract with these labels as the categories of the outputs without any."""
    outputs = tuple(
        field.model_copy(update={"categories": labels})
        if field.type == "string" and field.categories is None
        else field
        for field in contract.outputs
    )
    return contract.model_copy(update={"outputs": outputs, "labels": None})
