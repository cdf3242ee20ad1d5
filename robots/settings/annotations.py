"""A text of the command line, or plain data of a file, as what an annotation says: never as what it looks like."""

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from gipo.common.errors import UserError
from robots.settings.scalars import SCALARS, describe, is_class

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_UNKNOWN = (Any, object, inspect.Parameter.empty)
_SEQUENCES = (list, tuple, set, frozenset, Sequence, Iterable)
Chosen = TypeVar("Chosen")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")  # as JSON has it: 012 is a name, not twelve


def arguments(
    make: Callable[..., Any], texts: Mapping[str, Any], where: str, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`texts` as arguments of a function or class: each as its annotation says, or as its default where that is bare.

    Args:
        make: to be called with them.
        texts: name → text or plain data.
        where: stands before a name in messages.
        given: further arguments, which are taken as they are.

    Raises:
        UserError: for a name that it does not take, one that it needs, or a value that is no such thing.
    """
    known = parameters(make)
    kinds = _kinds(make, known)
    further = [name for name, each in known.items() if each.kind is inspect.Parameter.VAR_KEYWORD]
    named = [name for name, each in known.items() if each.kind not in _VARIADIC]
    options = f"its settings are: {', '.join(name for name in named if name not in (given or ())) or 'none'}"
    found = dict(given or {})
    for name, value in texts.items():
        if name not in named and not further:
            raise UserError(f"{where}{name} is no setting of {_name(make)}; {options}")
        found[name] = convert(value, kinds[name if name in named else further[0]], f"{where}{name}")
    try:
        inspect.signature(make).bind(**found)
    except TypeError as error:
        raise UserError(f"{_name(make)}: {error}; {options}") from error
    return found


def chosen(kind: type[Chosen], given: Mapping[str, Any], whose: str, besides: Sequence[str] = ()) -> Chosen:
    """The options that a person set by `--set`, as their class, for `whose` robot, such as `the toy robot`.

    Options that this robot has `besides`, and reads itself, are named where there is none such as was given.

    Raises:
        UserError: naming the options that there are, or as `arguments`.
    """
    known = parameters(kind)
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"{whose} has no option {unknown[0]!r}; there are {', '.join(sorted([*known, *besides]))}")
    return kind(**arguments(kind, given, "--set "))


def parameters(make: Any) -> Mapping[str, inspect.Parameter]:
    """What a function or class takes.

    Raises:
        UserError: when it is nothing that can be called.
    """
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError) as error:
        raise UserError(f"{make!r:.80} is nothing that can be called") from error


def build(kind: Any, data: Mapping[str, Any], where: str) -> Any:
    """An instance of a class from its fields, as `arguments` reads them; `type` chooses among registered subclasses.

    Raises:
        UserError: as `arguments`; what the class itself raises comes through.
    """
    fields = dict(data)
    if hasattr(kind, "get_known_choices"):
        kind = _choice(fields, kind, where)
    return kind(**arguments(kind, fields, where))


def convert(value: Any, kind: Any, where: str) -> Any:
    """`value` as a `kind`; as it is where nobody says what kind it is.

    Args:
        value: text, or plain data as JSON has it.
        kind: an annotation: a plain type, Path, Enum, dataclass, Literal, a container, or a union of them.
        where: what it is called in messages.

    Raises:
        UserError: naming where, the value and what it must be.
    """
    kind = getattr(kind, "__supertype__", kind)  # of a NewType
    origin, inner = get_origin(kind), get_args(kind)
    if kind in _UNKNOWN or isinstance(kind, TypeVar) or (is_class(kind) and _is_made(value, kind)):
        return value
    if origin is Annotated:
        return convert(value, inner[0], where)
    if origin in (Union, UnionType):
        return _one_of(value, inner, where)
    try:
        for is_for, read in SCALARS:
            if is_for(origin or kind):
                return read(value, kind)
        data = _data(value, dict) if is_dataclass(kind) else None
        if (origin or kind) in (dict, Mapping):
            return _dict(value, kind, where)
        if (origin or kind) in _SEQUENCES:
            return _sequence(value, kind, where)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"{where} is {value!r:.80}; it must be {describe(kind)}") from error
    if data is not None:
        return build(kind, data, f"{where}.")
    raise UserError(f"{where} must be a {describe(kind)}, which no text can say")


def _kinds(make: Callable[..., Any], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The annotation of each parameter; the type of its default where it has none."""
    owner = make.__init__ if inspect.isclass(make) and not is_dataclass(make) else make
    kinds = {}
    try:
        kinds = get_type_hints(owner)
    except Exception:  # one of them is known to type checkers alone; the others still hold
        scope = getattr(sys.modules.get(getattr(make, "__module__", "")), "__dict__", {})
        for name in (name for name, each in known.items() if each.annotation is not inspect.Parameter.empty):
            with contextlib.suppress(Exception):
                kinds |= get_type_hints(SimpleNamespace(__annotations__={name: known[name].annotation}), scope)
    return {name: kinds.get(name, _kind_of(each.default)) for name, each in known.items()}


def _kind_of(default: Any) -> Any:
    kind = type(default)
    if kind is int:
        return int | float
    return kind if kind in (bool, float, str) or isinstance(default, Enum | Path) else Any


def _name(make: Any) -> str:
    return getattr(make, "__name__", repr(make))


def _is_made(value: Any, kind: type) -> bool:
    """Whether `value` is a `kind` already, which a text or plain data is for the plain types alone."""
    try:
        return isinstance(value, kind) and not isinstance(value, bool | int | float | str | list | dict)
    except TypeError:  # a TypedDict or Protocol, of which nothing can be said to be one
        return False


def _one_of(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """The first kind of a union that takes it; where it may be text, another only if it is written as JSON has that."""
    if NoneType in kinds and value in (None, "null"):
        return None
    kinds = [kind for kind in kinds if kind is not NoneType]
    if len(kinds) == 1:
        return convert(value, kinds[0], where)
    kinds.sort(key=_rank)
    may_be_text = isinstance(value, str) and any(map(_is_text, kinds))
    for kind in kinds:
        with contextlib.suppress(UserError):
            if not may_be_text or _is_text(kind) or _is_written_as(value, kind):
                return convert(value, kind, where)
    raise UserError(f"{where} is {value!r:.80}; it must be {' or '.join(map(describe, kinds))}")


def _rank(kind: Any) -> tuple[bool, ...]:
    """Sorts the kinds of a union: 1 is true only if it is no number, and a text only if it is nothing else."""
    return kind is str, _is_text(kind), not _is_plain(kind), kind is bool


def _is_text(kind: Any) -> bool:
    return is_class(kind) and issubclass(kind, str | os.PathLike) and not issubclass(kind, Enum)


def _is_plain(kind: Any) -> bool:
    return any(is_for(get_origin(kind) or kind) for is_for, _ in SCALARS)


def _is_written_as(text: str, kind: Any) -> bool:
    """Whether a text that might as well be a name is, in JSON, a number, a truth or a container of this kind."""
    if kind in (int, float):
        return _NUMBER.fullmatch(text) is not None
    if kind is bool:
        return text in ("true", "false")
    return _is_plain(kind) or text.lstrip()[:1] in ("[", "{")  # an Enum and a Literal list their words


def _data(value: Any, expected: type) -> Any:
    """What JSON text holds, or what is data already."""
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, expected):
        raise ValueError
    return found


def _dict(value: Any, kind: Any, where: str) -> dict[Any, Any]:
    keys, values = get_args(kind) or (Any, Any)
    items = _data(value, dict).items()
    return {convert(key, keys, f"{where}, key {key}"): convert(each, values, f"{where}.{key}") for key, each in items}


def _sequence(value: Any, kind: Any, where: str) -> Any:
    commas = isinstance(value, str) and not value.lstrip().startswith("[")
    items = [part.strip() for part in value.split(",")] if commas else _data(value, list)
    origin, inner = get_origin(kind) or kind, get_args(kind)
    fixed = origin is tuple and inner[1:] != (...,) and inner
    if fixed and len(items) != len(inner):
        raise ValueError
    kinds = inner if fixed else (inner[:1] or (Any,)) * len(items)
    found = [convert(each, kind, f"{where}[{i}]") for i, (each, kind) in enumerate(zip(items, kinds, strict=True))]
    return origin(found) if origin in (tuple, set, frozenset) else found


def _choice(data: dict[str, Any], kind: Any, where: str) -> Any:
    """The class that the `type` in the data names, of those that registered as kinds of this one, as LeRobot's do."""
    name = data.pop("type", None)
    if name is None and kind in kind.get_known_choices().values():
        return kind
    if name not in kind.get_known_choices():
        _register(kind)
    found = kind.get_known_choices().get(name)
    if not inspect.isclass(found) or not issubclass(found, kind):
        known = ", ".join(kind.get_known_choices()) or "none that can be imported"
        raise UserError(f"{where}type is {name!r}; it must be one of: {known}")
    return found


def _register(kind: Any) -> None:
    """Import what lies beside a class: its subclasses register when they are imported."""
    package = sys.modules.get(kind.__module__.rpartition(".")[0])
    for _, module, _ in pkgutil.iter_modules(getattr(package, "__path__", ())):
        with contextlib.suppress(Exception):  # most of them need the library of some device
            importlib.import_module(f"{package.__name__}.{module}")  # type: ignore[union-attr]
