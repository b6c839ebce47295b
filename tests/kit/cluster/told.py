"""Figures and timelines of the tests, told at the end of the suite's output."""

LINES: list[str] = []


def tell(line: str) -> None:
    """Have a line printed when all tests are done."""
    LINES.append(line)
