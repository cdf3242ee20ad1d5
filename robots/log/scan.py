"""The tolerant reader of the container: front to back, everything checked, nothing altered.

A file is *sealed* when its footer and every CRC are right, *torn* when it simply stops (a kill, a power cut), and
*damaged* when a byte is not what was written. What was read before the fault is good in all three.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Header, Metadata

from robots.errors import LogError
from robots.log.container import CHUNK, COMPRESSION, MAGIC, MAX_RECORD, MESSAGE, PROFILE

SEALED, TORN, DAMAGED = "sealed", "torn", "damaged"
Message = tuple[str, bytes]  # topic and JSON of one message of a checked chunk
_DATA_SECTION = {Opcode.HEADER, Opcode.METADATA, Opcode.CHUNK, Opcode.MESSAGE_INDEX, Opcode.DATA_END}
_Record = TypeVar("_Record", Header, Metadata, Channel)
_HEAD = struct.Struct("<BQ")


@dataclass(frozen=True)
class Integrity:
    """What a file turned out to be.

    Args:
        status: `sealed`, `torn` or `damaged`.
        size: of the file, bytes.
        valid: bytes from the start that are good; a fault begins there.
        messages: read from those bytes.
        reason: what is wrong; empty when sealed.
    """

    status: str
    size: int
    valid: int
    messages: int
    reason: str = ""

    @property
    def tail(self) -> int:
        """Bytes behind the valid ones."""
        return self.size - self.valid


class _Fault(Exception):
    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status = status


class Scanner:
    """Reads one file; `integrity` is known once `items` is exhausted.

    Args:
        file: opened for reading; neither written nor closed here.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._offset = 0
        self._crc = 0
        self._messages = 0
        self._channels: dict[int, str] = {}
        self.integrity: Integrity | None = None

    def items(self) -> Iterator[Metadata | list[Message]]:
        """Metadata, and the messages of one chunk after the other, in file order."""
        status, reason = SEALED, ""
        try:
            yield from self._data_section()
            self._summary()
        except _Fault as fault:
            status, reason = fault.status, str(fault)
            if status == TORN and self._ends_whole():
                status = DAMAGED
        self.integrity = Integrity(status, self._size, self._offset, self._messages, reason)

    def _data_section(self) -> Iterator[Metadata | list[Message]]:
        if self._file.read(len(MAGIC)) != MAGIC:
            raise _Fault(TORN if self._size < len(MAGIC) else DAMAGED, "the file does not begin as an MCAP log")
        self._accept(MAGIC)
        expected: set[Opcode] = {Opcode.HEADER}
        while True:
            opcode, body, raw = self._record()
            if opcode not in expected:
                raise _Fault(DAMAGED, f"a record of kind {opcode} where none may be")
            if opcode == Opcode.HEADER and _parse(Header, body).profile != PROFILE:
                raise _Fault(DAMAGED, "the MCAP file is no log of gipo-robot")
            if opcode == Opcode.DATA_END:
                if len(body) != 4 or struct.unpack("<I", body)[0] != self._crc:
                    raise _Fault(DAMAGED, "the CRC of the data section is wrong")
                self._offset += len(raw)
                return
            found: Metadata | list[Message] | None = None
            if opcode == Opcode.METADATA:
                found = _parse(Metadata, body)
            elif opcode == Opcode.CHUNK:
                found = self._chunk(body)
            self._accept(raw)
            if found is not None:
                yield found
            expected = _DATA_SECTION - {Opcode.HEADER}

    def _accept(self, raw: bytes) -> None:
        self._offset += len(raw)
        self._crc = zlib.crc32(raw, self._crc)

    def _record(self) -> tuple[int, memoryview, bytes]:
        """Opcode, content and bytes of the next record."""
        left = self._size - self._offset
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise _Fault(TORN, f"the file stops after byte {self._offset}")
        opcode, length = _HEAD.unpack(head)
        if length > left - _HEAD.size or length > MAX_RECORD:
            raise _cut(opcode, length, left)
        raw = head + self._file.read(length)
        if len(raw) < len(head) + length:
            raise _Fault(TORN, f"the file shrank to {self._offset + len(raw)} bytes while it was read")
        if opcode == 0 and not any(raw):
            raise _Fault(TORN, f"zeros from byte {self._offset}: the file system never wrote what follows")
        return opcode, memoryview(raw)[_HEAD.size :], raw

    def _ends_whole(self) -> bool:
        """Whether the file ends as a finished one: then nothing was cut off, something inside is wrong."""
        self._file.seek(max(0, self._size - len(MAGIC)))
        return self._size > len(MAGIC) and self._file.read() == MAGIC

    def _chunk(self, body: memoryview) -> list[Message]:
        head = CHUNK.size + len(COMPRESSION)
        if len(body) < head + 8 or body[CHUNK.size : head] != COMPRESSION:
            raise _Fault(DAMAGED, "a chunk that this log's writer does not write")
        _, _, size, crc, name_length = CHUNK.unpack_from(body)
        data = body[head + 8 :]
        if name_length != len(COMPRESSION) or struct.unpack_from("<Q", body, head)[0] != len(data):
            raise _Fault(DAMAGED, "a chunk whose sizes do not fit")
        content = _decompress(data, size)
        if zlib.crc32(content) != crc:
            raise _Fault(DAMAGED, "the CRC of a chunk is wrong")
        return self._split(content)

    def _split(self, content: bytes) -> list[Message]:
        found: list[Message] = []
        position, end, sequence = 0, len(content), self._messages
        channels, unpack = self._channels, MESSAGE.unpack_from
        while position + MESSAGE.size <= end:
            opcode, length, channel, number, _, _ = unpack(content, position)
            stop = position + _HEAD.size + length
            if stop > end:
                break
            if opcode == Opcode.MESSAGE and length >= MESSAGE.size - _HEAD.size:
                if number != sequence & 0xFFFFFFFF or channel not in channels:
                    raise _Fault(DAMAGED, f"message {number} where {sequence} must be: a chunk is missing or repeated")
                found.append((channels[channel], content[position + MESSAGE.size : stop]))
                sequence += 1
            elif opcode == Opcode.CHANNEL:
                opened = _parse(Channel, memoryview(content)[position + _HEAD.size : stop])
                channels[opened.id] = opened.topic.removeprefix("/")
            elif opcode != Opcode.SCHEMA:
                raise _Fault(DAMAGED, f"a record of kind {opcode} inside a chunk")
            position = stop
        if position != end:
            raise _Fault(DAMAGED, "a chunk that ends inside a record")
        self._messages = sequence
        return found

    def _summary(self) -> None:
        """The summary repeats what the data says; it must be whole, or the file is torn or damaged behind its data."""
        rest = self._file.read(min(self._size - self._offset, 2 * MAX_RECORD))
        footer = _HEAD.size + 20
        if not rest.endswith(MAGIC) or len(rest) < footer + len(MAGIC):
            raise _Fault(TORN, "the summary behind the data is cut short; no message is lost")
        end = len(rest) - len(MAGIC) - footer
        opcode, length, start, _, crc = struct.unpack_from("<BQQQI", rest, end)
        checked = zlib.crc32(rest[: end + footer - 4])
        if (opcode, length, start, crc) != (Opcode.FOOTER, 20, self._offset, checked):
            raise _Fault(DAMAGED, "the summary behind the data is damaged")
        self._offset = self._size


def _cut(opcode: int, length: int, left: int) -> _Fault:
    """A record that reaches beyond the file: cut by a kill, unless that cannot be."""
    if length > MAX_RECORD or opcode not in _DATA_SECTION:
        return _Fault(DAMAGED, f"a record of kind {opcode} claims {length} bytes, {left} are left")
    return _Fault(TORN, f"the last record needs {length + _HEAD.size} bytes, {left} are there")


def _decompress(data: memoryview, size: int) -> bytes:
    """Exactly `size` bytes; the frame's own claim is checked first, because the library allocates what it claims."""
    try:
        if size > MAX_RECORD or zstandard.frame_content_size(data) != size:
            raise _Fault(DAMAGED, f"a chunk claims {size} bytes, its compression another number")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise _Fault(DAMAGED, f"a chunk cannot be decompressed: {error}") from error


def _parse(kind: type[_Record], body: memoryview) -> _Record:
    try:
        return kind.read(ReadDataStream(io.BytesIO(body)))
    except (McapError, struct.error, UnicodeDecodeError) as error:
        raise _Fault(DAMAGED, f"a {kind.__name__.lower()} record that cannot be read: {error}") from error


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a log for reading.

    Raises:
        LogError: when it is missing or no regular file.
    """
    try:
        if not os.path.isfile(path):
            raise LogError(f"no log at {path}")
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise error if isinstance(error, LogError) else LogError(f"cannot read {path}: {error}") from error
