"""What a function computes by, as text: another text wherever it may act otherwise, the same in every process."""

import functools
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from gipo.common.errors import UserError

OURS = {"gipo", "datamodules", "deploy", "robots"}  # what changes here raises the format of a store
INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
PLAIN = (type(None), bool, int, float, complex, str, bytes, Path)
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def function_identity(function: Any) -> list[str]:
    """Name, source text and bound values of a function or callable object, and of what it names of the user's own code.

    Raises:
        UserError: when it has no source text, or a value no text, so that a change of it would go unnoticed.
    """
    return _identity(function, set())


def _identity(function: Any, seen: set[int]) -> list[str]:
    seen.add(id(function))
    if isinstance(function, functools.partial):
        given = _text(function.args, seen), _text(sorted(function.keywords.items()), seen)
        return [*_identity(function.func, seen), *given]
    body = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    try:
        source = inspect.getsource(body)
    except (OSError, TypeError) as error:
        raise UserError(
            f"reward {function!r} has no source text to tell a change of it by; write it in a file"
        ) from error
    bound = [] if body is function else [_text(sorted(vars(function).items()), seen)]
    if inspect.ismethod(function):
        bound.append(_text(sorted(vars(function.__self__).items()), seen))
    inner = inspect.unwrap(function.__func__ if inspect.ismethod(function) else function)
    if inspect.isfunction(inner):
        closed = inspect.getclosurevars(inner).nonlocals
        bound.append(_text((sorted(closed.items()), inner.__defaults__, inner.__kwdefaults__), seen))
    named = [part for code in _functions(inner) for part in _named(code, seen)]
    return [f"{body.__module__}.{body.__qualname__}", source, *bound, *named]


def _functions(inner: Any) -> list[Any]:
    """The functions that are run where `inner` is called: itself, or those of its class."""
    if inspect.isfunction(inner):
        return [inner]
    body = inner if inspect.isclass(inner) else type(inner)
    return [each for each in vars(body).values() if inspect.isfunction(each)]


def _named(function: Any, seen: set[int]) -> Iterator[str]:
    """Identities of the globals that a function names: values, and what is neither installed nor a part of this."""
    known = function.__globals__
    for name in sorted(_names(function.__code__) & known.keys()):
        value = known[name]
        if id(value) in seen:
            continue
        if isinstance(value, ModuleType):
            seen.add(id(value))
            if _is_of_the_user(value):
                yield from (name, inspect.getsource(value))
        elif inspect.isroutine(value) or inspect.isclass(value):
            if _is_of_the_user(sys.modules.get(value.__module__ or "")):
                yield from _identity(value, seen)
        else:
            yield f"{name} = {_text(value, seen)}"


def _names(code: CodeType) -> set[str]:
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _is_of_the_user(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    ours = module is not None and module.__name__.partition(".")[0] in OURS
    return file is not None and not ours and not file.startswith(INSTALLED)


def _text(value: Any, seen: set[int]) -> str:
    """A value as text: arrays by their bytes, what only has an address by what it consists of."""
    if _is_plain(value):
        return repr(value)
    if hasattr(value, "__array__") and not inspect.isclass(value):  # numpy's, and tensors or tables of others
        array = np.asarray(value)
        if array.dtype.hasobject:  # whose bytes are addresses
            return _text(array.tolist(), seen)
        return f"{array.dtype} {array.shape} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(_text(each, seen) for each in value)})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_text(key, seen)}: {_text(each, seen)}' for key, each in value.items())})"
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({', '.join(sorted(_text(each, seen) for each in value))})"
    if isinstance(value, functools.partial):
        return repr(_identity(value, seen))
    if inspect.isroutine(value) or inspect.isclass(value):
        mine = _is_of_the_user(sys.modules.get(value.__module__ or ""))
        return repr(_identity(value, seen)) if mine else f"{value.__module__}.{value.__qualname__}"
    if not ADDRESS.search(repr(value)):
        return repr(value)
    if id(value) in seen:
        return type(value).__qualname__
    if not hasattr(value, "__dict__"):
        raise UserError(f"a reward holds {value!r}, of which a change cannot be told; give it plain values or arrays")
    seen.add(id(value))
    return f"{type(value).__module__}.{type(value).__qualname__}({_text(vars(value), seen)})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return isinstance(value, PLAIN)
