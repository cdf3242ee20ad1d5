"""A strict, bounded reader of the protobuf wire format: what it does not expect, it refuses.

Strict, because two readers that disagree on a file are how a checked model becomes another model when it runs: a
field that appears twice where one is expected, or that this format does not use, is an error and never a guess.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from gipo.common.errors import UserError

MAX_FIELDS = 200_000  # in one file; an exported policy has some two thousand

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class FieldDescriptor(NamedTuple):
    """What a message may hold under a field's number.

    Args:
        name: key of the decoded values.
        wire: expected wire type; None takes any.
        repeated: may appear more than once.
    """

    name: str
    wire: int | None = _BYTES
    repeated: bool = False


# Kinds of fields: a number; one message, text or bytes; any number of them; any number of fields of any wire type.
number = partial(FieldDescriptor, wire=_VARINT)
one = FieldDescriptor
many = partial(FieldDescriptor, repeated=True)
anything = partial(FieldDescriptor, wire=None, repeated=True)


@dataclass(frozen=True)
class Message:
    """A decoded message of a protobuf file.

    Args:
        reader: of the file that holds it.
        values: by the name of their field, in file order: numbers, or where in the file the bytes are.
        where: what it is, for messages to a user.
    """

    reader: "Reader"
    values: dict[str, list[int | slice]]
    where: str

    def holds(self, name: str) -> bool:
        """Whether the field is there."""
        return bool(self.values[name])

    def number(self, name: str) -> int:
        """The number in a field; 0 where it is not there, as protobuf has it."""
        value = self.values[name][0] if self.holds(name) else 0
        return value if isinstance(value, int) else 0

    def span(self, name: str) -> slice:
        """Where in the file the bytes of a field are; nowhere when the field is not there."""
        value = self.values[name][0] if self.holds(name) else slice(0, 0)
        assert isinstance(value, slice)
        return value

    def text(self, name: str) -> str:
        """The UTF-8 text of a field; empty where it is not there.

        Raises:
            UserError: when the bytes are not UTF-8.
        """
        return next(self.texts(name), "")

    def texts(self, name: str) -> Iterator[str]:
        """The UTF-8 texts of a repeated field, which may raise as `text` does."""
        for span in self.values[name]:
            assert isinstance(span, slice)
            try:
                yield self.reader.data[span].decode()
            except UnicodeDecodeError as error:
                raise UserError(f"{self.where} at byte {span.start} is not UTF-8; the file is damaged") from error

    def each(self, name: str, schema: Mapping[int, FieldDescriptor], where: str) -> Iterator["Message"]:
        """The messages in a field, each checked when it is asked for; `{}` in `where` stands for its number.

        Raises:
            UserError: when one is cut short, malformed, or holds what `schema` does not list.
        """
        for i, span in enumerate(self.values[name]):
            assert isinstance(span, slice)
            yield self.reader.message(span, schema, where.format(i))


class Reader:
    """Decodes messages of one file, whose bytes it holds."""

    def __init__(self, data: bytes):
        self.data = data
        self._fields = 0

    def message(self, span: slice, schema: Mapping[int, FieldDescriptor], where: str) -> Message:
        """Decode bytes `span` of the file.

        Raises:
            UserError: when the bytes are cut short, malformed, or hold what `schema` does not list.
        """
        found: dict[str, list[int | slice]] = {field.name: [] for field in schema.values()}
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
        return Message(self, found, where)

    def _value(self, wire: int, position: int, stop: int) -> tuple[int | slice, int]:
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
        return slice(position, position + size), position + size

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
