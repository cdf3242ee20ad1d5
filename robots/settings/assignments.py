"""`--set key=value` and `--set outer.inner=value`: texts by their names, which annotations then read."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gipo.common.errors import UserError


def parse_settings(texts: Iterable[str], option: str = "--set") -> dict[str, Any]:
    """`key=value` texts as a map from key to text; dotted keys as maps within, a later text in place of an earlier.

    `option` is what gave them, for messages.

    Raises:
        UserError: when a text is no `key=value`, or a key has both a value and keys below it.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        parts = key.split(".")
        if not separator or not parts[0].isidentifier() or not all(parts):  # names within, of cameras, may be any
            raise UserError(f"{option} {text!r} must be key=value")
        made: Any = value
        for part in reversed(parts):
            made = {part: made}
        found = merged(found, made, f"{option} ")
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any], where: str = "--set ") -> dict[str, Any]:
    """Two maps as one: maps within are merged, of two values the one `above` counts.

    Raises:
        UserError: when one has a value where the other has a map.
    """
    found = dict(below)
    for key, value in above.items():
        before = found.get(key)
        if isinstance(value, Mapping) and before is not None:
            found[key] = merged(_map(before, f"{where}{key}"), value, f"{where}{key}.")
        elif isinstance(before, Mapping):
            found[key] = merged(before, _map(value, f"{where}{key}"), f"{where}{key}.")
        else:
            found[key] = value
    return found


def _map(value: Any, where: str) -> Mapping[str, Any]:
    """A map that may be written as JSON."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise UserError(f"{where} is {value!r:.80}, and settings below it are given too; it must be one or the other")
    return found
