"""What a function computes by, as text: another text wherever it may act otherwise, the same in every process."""

import dis
import functools
import hashlib
import importlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
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
    bound = [] if body is function else [_text(sorted(_state(function).items()), seen)]
    if inspect.ismethod(function):
        bound.append(_text(sorted(_state(function.__self__).items()), seen))
    inner = inspect.unwrap(function.__func__ if inspect.ismethod(function) else function)
    if inspect.isfunction(inner):
        closed = inspect.getclosurevars(inner).nonlocals
        bound.append(_text((sorted(closed.items()), inner.__defaults__, inner.__kwdefaults__), seen))
    named = [part for code in _functions(inner) for part in (*_named(code, seen), *_imported(code, seen))]
    classes = [part for each in _classes(function, body) if id(each) not in seen for part in _identity(each, seen)]
    return [f"{body.__module__}.{body.__qualname__}", source, *bound, *named, *classes]


def _functions(inner: Any) -> list[Any]:
    """The functions that are run where `inner` is called: itself, or those of its class."""
    if inspect.isfunction(inner):
        return [inner]
    body = inner if inspect.isclass(inner) else type(inner)
    return [each for each in map(_undecorated, vars(body).values()) if inspect.isfunction(each)]


def _undecorated(attribute: Any) -> Any:
    """The function in a property, a cached one, a partial, static or class method; anything else as it is."""
    wraps = ("fget", "func", "__func__")
    return next((getattr(attribute, name) for name in wraps if getattr(attribute, name, None) is not None), attribute)


def _classes(function: Any, body: Any) -> list[type]:
    """The user's classes whose code may run besides: that of a method's object, and those a class is made of."""
    if inspect.ismethod(function):
        owner = function.__self__ if inspect.isclass(function.__self__) else type(function.__self__)
        found: tuple[type, ...] = owner.__mro__
    else:
        found = body.__mro__[1:] if inspect.isclass(body) else ()
    return [each for each in found if _is_of_the_user(sys.modules.get(each.__module__))]


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, of which those in slots are in no `__dict__`."""
    slots = [name for each in type(value).__mro__ for name in _several(vars(each).get("__slots__", ()))]
    private = (name for name in slots if hasattr(value, name))
    return {name: getattr(value, name) for name in private} | getattr(value, "__dict__", {})


def _several(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _named(function: Any, seen: set[int]) -> Iterator[str]:
    """Identities of the globals that a function names: values, and what is neither installed nor a part of this."""
    known = function.__globals__
    for name in sorted(_names(function.__code__) & known.keys()):
        value = known[name]
        if id(value) in seen:
            continue
        if isinstance(value, ModuleType):
            yield from _module(value, seen)
        elif inspect.isroutine(value) or inspect.isclass(value):
            if _is_of_the_user(sys.modules.get(value.__module__ or "")):
                yield from _identity(value, seen)
        else:
            yield f"{name} = {_text(value, seen)}"


def _imported(function: Any, seen: set[int]) -> Iterator[str]:
    """Source texts of the user's modules that a function imports itself."""
    package = function.__globals__.get("__package__") or None
    for code in _codes(function.__code__):
        level = 0
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT") and isinstance(step.argval, int):
                level = step.argval  # of dots before the name; what follows is the names that are taken from it
            if step.opname == "IMPORT_NAME":
                module = None
                with suppress(Exception):  # else it fails where it is called, and says so
                    module = importlib.import_module("." * level + step.argval, package)
                if module is not None:
                    yield from _module(module, seen)


def _module(module: ModuleType, seen: set[int]) -> Iterator[str]:
    """Source texts of a module of the user's, and of those of the user's that it imports."""
    if id(module) in seen or not _is_of_the_user(module):
        return
    seen.add(id(module))
    try:
        yield from (module.__name__, inspect.getsource(module))
    except (OSError, TypeError) as error:
        raise UserError(
            f"the module {module.__name__}, which a reward imports, has no source text to tell a change of it by"
        ) from error
    for _, value in sorted(vars(module).items()):
        other = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
        if other is not None:
            yield from _module(other, seen)


def _names(code: CodeType) -> set[str]:
    return {name for each in _codes(code) for name in each.co_names}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions within it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


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
    if not hasattr(value, "__dict__") and not hasattr(value, "__slots__"):
        raise UserError(f"a reward holds {value!r}, of which a change cannot be told; give it plain values or arrays")
    seen.add(id(value))
    return f"{type(value).__module__}.{type(value).__qualname__}({_text(_state(value), seen)})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    return isinstance(value, PLAIN)
