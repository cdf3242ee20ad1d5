"""Plain tables for a terminal."""

from collections.abc import Iterable, Sequence

from gipo.common.terminal import one_line


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; what looks like a number goes to the right."""
    cells = [tuple(head), *(tuple(one_line(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [all(row[i][:1].isdigit() or row[i][:1] in "-–" for row in cells[1:]) for i in range(len(head))]
    lines = [
        "  ".join(f"{cell:>{w}}" if r else f"{cell:<{w}}" for cell, w, r in zip(row, widths, right, strict=True))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """Name and value, aligned."""
    known = list(rows)
    width = max((len(name) for name, _ in known), default=0)
    return "\n".join(f"{name:<{width}}  {one_line(str(value))}" for name, value in known)


def outcome(success: bool | None) -> str:
    """A word for success, failure, or nobody knows."""
    return {True: "success", False: "failure", None: "–"}[success]
