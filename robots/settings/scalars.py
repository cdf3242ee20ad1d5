"""Single values of the command line or of a file as what they must be; each reader refuses by a ValueError."""

import math
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

Reader = Callable[[Any, Any], Any]  # value and kind
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def is_class(kind: Any) -> bool:
    """Whether an annotation is a class; a generic of one is none, which Python 3.10 says of `list[int]`."""
    return isinstance(kind, type) and get_origin(kind) is None


def describe(kind: Any) -> str:
    """What a value must be, in words."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(describe, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if is_class(kind) and issubclass(kind, Enum):
        return f"one of {', '.join(str(member.value) for member in kind)} ({kind.__name__})"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text (in quotes, in a file)",
        NoneType: "null",
    }
    return words.get(kind) or (kind.__name__ if is_class(kind) else str(kind))


def _bool(value: Any, kind: Any) -> bool:
    return _BOOLS[str(value).lower()]


def _int(value: Any, kind: Any) -> int:
    if isinstance(value, bool | float):
        raise ValueError
    return int(value)


def _float(value: Any, kind: Any) -> float:
    number = math.nan if isinstance(value, bool) else float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _str(value: Any, kind: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # 012 in a file is a number, and its zero is gone
    return value


def _path(value: Any, kind: Any) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # nobody of that name has a home here
        raise ValueError from error


def _enum(value: Any, kind: Any) -> Any:
    by_name: dict[str, Any] = dict(kind.__members__)
    return by_name[str(value)] if str(value) in by_name else {str(each.value): each for each in kind}[str(value)]


def _literal(value: Any, kind: Any) -> Any:
    return {str(each): each for each in get_args(kind)}[str(value)]


def _is(kind: Any) -> Callable[[Any], bool]:
    return lambda given: given is kind


def _is_sub(base: type) -> Callable[[Any], bool]:
    return lambda given: is_class(given) and issubclass(given, base)


# Whether a reader is for a kind, without its arguments, and the reader.
SCALARS: tuple[tuple[Callable[[Any], bool], Reader], ...] = (
    (_is_sub(Enum), _enum),  # before the plain types, which an Enum may also be
    (_is(bool), _bool),
    (_is(int), _int),
    (_is(float), _float),
    (_is(str), _str),
    (_is_sub(os.PathLike), _path),
    (_is(Literal), _literal),
)
