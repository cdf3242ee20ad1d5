"""A pickle read as plain data by an interpreter that can make nothing else: no name in it is imported, none is called.

Only the opcodes that `torch.save` writes are known, and only names of torch's own tensors, and of what else torch reads
as plain data, are let through.
"""

import pickletools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ORDERED = "collections OrderedDict"
_MODULES = ("torch", "torch._utils")
_DATA = {_ORDERED, "collections Counter", "_codecs encode"}  # the last is of bytes
_DATA |= {f"__builtin__ {kind}" for kind in ("set", "complex", "bytearray")}


@dataclass(frozen=True)
class Named:
    """What a pickle names: module and name, with a space between them."""

    name: str


@dataclass(frozen=True)
class Made:
    """What a call in a pickle would have made, had anything been called.

    Args:
        function: module and name; `storage` for the bytes of a tensor.
        arguments: of the call.
    """

    function: str
    arguments: tuple[Any, ...]


def load(data: bytes) -> Any:
    """The object in `data`: dicts, lists, tuples, texts and numbers; tensors, sets and whatever else is called, `Made`.

    Raises:
        ValueError: when the pickle is cut short, or holds what no checkpoint of plain tensors does.
    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(data):
            machine.step(operation.name, argument)
    except (IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"its pickle makes no sense: {type(error).__name__} {error}") from error
    if len(machine.stack) != 1:
        raise ValueError(f"its pickle makes no sense: it leaves {len(machine.stack)} objects")
    return machine.stack[0]


class _Machine:
    """The stack of a pickle, the beginnings of what is being collected on it, and what can be pushed again."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode of the pickle says to the stack."""
        if name in _CONSTANTS or name in _LITERALS:
            self.stack.append(_CONSTANTS.get(name, argument))
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(self.stack))
        elif name == "TUPLE" or name in _TUPLES:
            self.stack.append(tuple(self._taken(_TUPLES.get(name))))
        elif name in ("APPEND", "APPENDS"):
            items = self._taken(1 if name == "APPEND" else None)
            _of(list, self.stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._taken(2 if name == "SETITEM" else None))
        elif name in ("GLOBAL", "REDUCE", "BUILD", "BINPERSID"):
            self._make(name, argument)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"its pickle uses {name}, which no checkpoint does")

    def _taken(self, count: int | None) -> list[Any]:
        """The last `count` objects off the stack; those since the last mark when None."""
        start = self._marks.pop() if count is None else len(self.stack) - count
        if start < 0:
            raise IndexError("nothing is left")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _set(self, items: list[Any]) -> None:
        target = _of(dict, self.stack[-1])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _make(self, name: str, argument: Any) -> None:
        if name == "GLOBAL":
            if argument not in _DATA and argument.partition(" ")[0] not in _MODULES:
                raise ValueError(f"its pickle names {argument!r:.80}, which no checkpoint does")
            self.stack.append(Named(argument))
        elif name == "REDUCE":
            function, arguments = self._taken(2)
            called = _of(Named, function).name
            self.stack.append({} if called == _ORDERED and arguments == () else Made(called, _of(tuple, arguments)))
        elif name == "BUILD":  # attributes of a state dict, which are no part of what it holds
            self._taken(1)
        else:
            self.stack.append(Made("storage", _of(tuple, self._taken(1)[0])))


def _of(kind: type, found: Any) -> Any:
    if type(found) is not kind:
        raise TypeError(f"{type(found).__name__} in place of {kind.__name__}")
    return found


def _key(key: Any) -> Hashable:
    """A key of a dict; what is nested without end would take the process down when it is hashed."""
    for part in key if type(key) is tuple else (key,):
        if type(part) not in (str, int, float, bool, type(None)):
            raise TypeError(f"a {type(part).__name__} in the key of a dict")
    return key
