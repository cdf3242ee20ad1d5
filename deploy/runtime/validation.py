"""Checks of single values of a manifest or a robot's spec: each names the key, what was found and what is allowed."""

import json
import math
import sys
from collections.abc import Collection, Iterable
from typing import Any

from gipo.common.errors import UserError

MAX_TEXT = 4 << 20  # characters of JSON; the manifest of a thousand-dimensional observation is a tenth of it
MAX_DEPTH = 64  # of objects and lists in each other; Python's own recursion ends at some hundreds


def parse_object(text: str, what: str = "the manifest", fix: str = "; export the policy again") -> dict[str, Any]:
    """The JSON object in `text`: no key twice, no NaN or infinity, no runaway nesting.

    Args:
        text: of a manifest or a robot's spec.
        what: it is called in messages.
        fix: that messages end with.

    Raises:
        UserError: when it is none.
    """
    if len(text) > MAX_TEXT:
        raise UserError(f"{what} has {len(text)} characters, more than the {MAX_TEXT} allowed")
    try:
        raw = _loaded(text, what, fix)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not JSON: {error}{fix}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{what} is a JSON {type(raw).__name__}, it must be an object")
    inside: list[Any] = [raw]
    for _ in range(MAX_DEPTH):
        inside = [part for each in inside if isinstance(each, dict | list) for part in _parts(each)]
    if inside:
        raise UserError(f"{what} nests values more than {MAX_DEPTH} deep{fix}")
    return raw


def _loaded(text: str, what: str, fix: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            keys = [key for key, _ in pairs]
            raise UserError(f"{what} names {short(next(key for key in keys if keys.count(key) > 1))} twice{fix}")
        return found

    def no_constant(name: str) -> float:
        raise UserError(f"{what} holds {name}, which is no number a robot can use{fix}")

    def finite(digits: str) -> float:
        return found if math.isfinite(found := float(digits)) else no_constant(digits[:20])

    return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant, parse_float=finite)


def _parts(value: "dict[str, Any] | list[Any]") -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def tuples(value: Any) -> Any:
    """A JSON list and the lists within as tuples, which a frozen dataclass may hold; anything else unchanged."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def check_keys(raw: Any, known: Collection[str], where: str) -> None:
    """Refuse what is no object of exactly the `known` keys."""
    if not isinstance(raw, dict):
        raise UserError(f"{where} is {short(raw)}; it must be an object")
    if missing := sorted(set(known) - set(raw)):
        raise UserError(f"{where}.{missing[0]} is missing; export the policy again")
    if unknown := sorted(set(raw) - set(known)):
        raise UserError(f"{where}.{short(unknown[0])} is not a known key; export the policy again")


def short(value: Any) -> str:
    """`value` as text that fits a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def require(met: bool, key: str, value: Any, allowed: str, of: str = "manifest") -> None:
    """Refuse the `value` of a key `of` something that is not what is `allowed`, unless the condition is `met`."""
    if not met:
        raise UserError(f"{of}.{key} is {short(value)}; it must be {allowed}")


def is_finite(value: Any) -> bool:
    """Whether `value` is a finite int or float, and not a bool."""
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def is_number(value: Any) -> bool:
    """Whether `value` is a finite int or float that float32 can hold, and not a bool."""
    return is_finite(value) and abs(value) < 3.4e38


def is_printable(value: Any) -> bool:
    """Whether `value` is a text that cannot drive the terminal of whoever reads it."""
    return isinstance(value, str) and value.isprintable()


def is_text(value: Any) -> bool:
    """Whether `value` is a printable text of 1 to 128 characters."""
    return is_printable(value) and 0 < len(value) <= 128


def is_file_name(value: Any) -> bool:
    """Whether `value` is a text of letters, digits, - and _, which may be part of a file's name anywhere."""
    return isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum()


def check_one_of(key: str, value: Any, known: Collection[str]) -> None:
    """Refuse what is none of the `known` words."""
    require(isinstance(value, str) and value in known, key, value, f"one of {', '.join(known)}")


def check_whole(key: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least `least`."""
    require(type(value) is int and least <= value < 2**63, key, value, f"a whole number, at least {least}")


def check_sha256(key: str, value: Any) -> None:
    """Refuse what is no SHA-256 in lower-case hexadecimal."""
    met = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    require(met, key, value, "a SHA-256: 64 lower-case hexadecimal digits")


def check_numbers(key: str, values: Any, size: int, of: str = "manifest") -> None:
    """Refuse what is no tuple of `size` finite numbers; those of a manifest have to fit float32."""
    require(isinstance(values, tuple) and len(values) == size, key, values, f"a list of {size} numbers", of)
    fits, allowed = (is_number, "finite numbers that float32 can hold") if of == "manifest" else (is_finite, "finite")
    for value in values:
        require(fits(value), key, value, allowed, of)


def check_names(kind: str, names: Any, units: Any, of: str = "manifest") -> None:
    """Refuse names of observations or actions that are no tuple of different texts, or have not as many units.

    Those of a manifest have 1 to 128 characters.
    """
    fits = is_text if of == "manifest" else is_printable
    for key, values in ((f"{kind}_names", names), (f"{kind}_units", units)):
        met = isinstance(values, tuple) and bool(values) and all(map(fits, values))
        require(met, key, values, f"a list of printable texts{' of 1 to 128 characters' * (fits is is_text)}", of)
    require(len(set(names)) == len(names), f"{kind}_names", names, "names that differ from each other", of)
    require(len(units) == len(names), f"{kind}_units", units, f"a list of {len(names)} texts", of)


def check_bounds(kind: str, names: tuple[str, ...], low: Any, high: Any, of: str = "manifest") -> None:
    """Refuse what are no lower and upper bounds of what is named."""
    check_numbers(f"{kind}_low", low, len(names), of)
    check_numbers(f"{kind}_high", high, len(names), of)
    for name, least, most in zip(names, low, high, strict=True):
        require(least < most, f"{kind}_low of {name!r}", least, f"below {kind}_high, {most}", of)
