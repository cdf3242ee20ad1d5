"""Files as a small tree."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def tree(root: str, notes: Mapping[str, str]) -> str:
    """A folder and what lies in it, a line each; folders that hold one thing only share its line.

    Args:
        root: shown at the top.
        notes: path in the root → what it is. Paths keep their order.
    """
    nested: dict[str, Any] = {}
    for path, note in notes.items():
        *folders, name = PurePath(path).parts
        place = nested
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = note
    rows = list(_rows(nested, ""))
    width = max((len(name) for name, note in rows if note), default=0)
    return "\n".join([root, *(f"{name:<{width}}  {note}".rstrip() for name, note in rows)])


def _rows(place: Mapping[str, Any], indent: str) -> "list[tuple[str, str]]":
    rows = []
    for index, (name, inside) in enumerate(place.items()):
        last = index == len(place) - 1
        while isinstance(inside, dict) and len(inside) == 1:
            ((inner, inside),) = inside.items()
            name = f"{name}/{inner}"
        rows.append((f"{indent}{'└─' if last else '├─'} {name}", inside if isinstance(inside, str) else ""))
        if not isinstance(inside, str):
            rows += _rows(inside, indent + ("   " if last else "│  "))
    return rows
