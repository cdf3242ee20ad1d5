"""Marks in a spec for what a person must still decide; a spec that has one drives nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

MARK = "DECIDE"


def mark(question: str) -> str:
    """What stands in the place of a value until somebody decides it."""
    return f"{MARK}: {question}"


def is_marked(value: Any) -> bool:
    """Whether a value is still to be decided."""
    return isinstance(value, str) and value.startswith(MARK)


def undecided(raw: Mapping[str, Any]) -> list[str]:
    """Every key of a spec that has marks, with the names of the values that are marked."""
    return [f"spec.{key} is to be decided{f' for {names}' if names else ''}" for key, names in _marked(raw)]


def _marked(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in raw.items():
        if is_marked(value):
            yield key, ""
        elif isinstance(value, list) and any(map(is_marked, value)):
            names = raw.get(f"{key.partition('_')[0]}_names")
            known = names if isinstance(names, list) and len(names) == len(value) else range(len(value))
            yield key, ", ".join(str(name) for name, each in zip(known, value, strict=True) if is_marked(each))
