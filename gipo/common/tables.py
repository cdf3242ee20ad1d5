"""Tables: aligned for a terminal, in Markdown for a page, and as CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gipo.common.files import whole_file
from gipo.common.terminal import one_line


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The table for a terminal: columns as wide as their widest cell, what looks like a number to the right."""
    cells = [tuple(head), *(tuple(one_line(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(row[i][:1].isdigit() or row[i][:1] in "-–" for row in cells[1:]) for i in range(len(head))]
    lines = [
        "  ".join(f"{cell:>{w}}" if r else f"{cell:<{w}}" for cell, w, r in zip(row, widths, right, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """The table in Markdown, one row a line."""
    lines = [head, *rows]
    shown = [f"| {' | '.join(map(str, cells))} |" for cells in lines]
    return "\n".join([shown[0], "|" + "---|" * len(head), *shown[1:]])


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """One name and its value a line, the values below each other."""
    known = list(rows)
    width = max((len(name) for name, _ in known), default=0)
    return "\n".join(f"{name:<{width}}  {one_line(str(value))}" for name, value in known)


def counted(count: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {what}{'s' * (count != 1)}"


def outcome(success: bool | None) -> str:
    """A word for success, failure, or nobody knows."""
    return {True: "success", False: "failure", None: "–"}[success]


def write_table(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """Rows as CSV, one column per key, empty where a row has none; floats in full precision."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with whole_file(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
