"""A strict, bounded reader of the protobuf wire format: what it does not expect, it refuses.

Strict, because two readers that disagree on a file are how a checked model becomes another model when it runs: a
field that appears twice where one is expected, or that this format does not use, is an error and never a guess.
"""

from collections.abc import Mapping
from typing import NamedTuple

from gipo.common.errors import UserError

MAX_FIELDS = 200_000  # in one file; an exported policy has some two thousand

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Span(NamedTuple):
    """A piece of the file: bytes `start` to `stop`."""

    start: int
    stop: int


class Field(NamedTuple):
    """What a message may hold under a field number.

    Args:
        name: key of the decoded values.
        wire: expected wire type; None takes any.
        repeated: may appear more than once.
    """

    name: str
    wire: int | None = _BYTES
    repeated: bool = False


def number(name: str, repeated: bool = False) -> Field:
    """A varint field."""
    return Field(name, _VARINT, repeated)


def many(name: str) -> Field:
    """A repeated message or text field."""
    return Field(name, _BYTES, True)


def anything(name: str) -> Field:
    """A field of which only the presence matters."""
    return Field(name, None, True)


class Reader:
    """Decodes messages of one file.

    Args:
        data: the whole file.
    """

    def __init__(self, data: bytes):
        self.data = data
        self._fields = 0

    def message(self, span: Span, schema: Mapping[int, Field], where: str) -> dict[str, list[int | Span]]:
        """The values of every field of a message, by name, in file order.

        Raises:
            UserError: when the bytes are cut short, malformed, or hold what `schema` does not list.
        """
        found: dict[str, list[int | Span]] = {field.name: [] for field in schema.values()}
        position = span.start
        while position < span.stop:
            self._fields += 1
            if self._fields > MAX_FIELDS:
                raise UserError(f"the file has more than {MAX_FIELDS} protobuf fields; it is no exported policy")
            key, position = self._varint(position, span.stop)
            wire = key & 7
            field = schema.get(key >> 3)
            if field is None:
                raise UserError(f"{where} holds field {key >> 3} at byte {position}, which no exported policy uses")
            if field.wire is not None and wire != field.wire:
                raise UserError(f"{where}.{field.name} at byte {position} has wire type {wire}; the file is damaged")
            if found[field.name] and not field.repeated:
                raise UserError(f"{where}.{field.name} appears twice; the file is damaged or forged")
            value, position = self._value(wire, position, span.stop)
            found[field.name].append(value)
        return found

    def text(self, value: int | Span, where: str) -> str:
        """UTF-8 text of a field.

        Raises:
            UserError: when the bytes are not UTF-8.
        """
        assert isinstance(value, Span)
        try:
            return self.data[value.start : value.stop].decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{where} at byte {value.start} is not UTF-8; the file is damaged") from error

    def _value(self, wire: int, position: int, stop: int) -> tuple[int | Span, int]:
        if wire == _VARINT:
            return self._varint(position, stop)
        if wire == _BYTES:
            size, position = self._varint(position, stop)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise UserError(f"wire type {wire} at byte {position}; the file is damaged or not an ONNX model")
        if size > stop - position:
            raise UserError(f"a field at byte {position} claims {size} bytes, {stop - position} are left; truncated?")
        return Span(position, position + size), position + size

    def _varint(self, position: int, stop: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= stop:
                raise UserError(f"the file ends inside a number at byte {position}; truncated?")
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), position
        raise UserError(f"a number at byte {position} has no end; the file is damaged or not an ONNX model")
