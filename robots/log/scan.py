"""The tolerant reader of the container: front to back, everything checked, nothing altered.

A file is *sealed* when its footer and every CRC are right, *torn* when it simply stops (a kill, a power cut, whether or
not the disk has zeros or old contents behind the last record), and *damaged* when a byte is not what was written.
What was read before the fault is good in all three. Files that are not to be judged by these rules are *foreign* (no
log of this writer) or *newer* (of a schema that this version does not read).
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Metadata
from mcap.records import Header as FileHeader

from gipo.common.errors import UserError
from gipo.common.reading import stand_in
from robots.log.container import BLOCK, COMPRESSION, MAGIC, MAX_RECORD, MESSAGE, PROFILE
from robots.log.header import SESSION, Header, NewerSchema, parse_header
from robots.log.torn_end import block_behind, ends_whole, zeros_from

SEALED, TORN, DAMAGED, FOREIGN, NEWER = "sealed", "torn", "damaged", "foreign", "newer"
Message = tuple[str, bytes]  # topic and JSON of one message of a checked block
_DATA_SECTION = {Opcode.HEADER, Opcode.METADATA, Opcode.CHUNK, Opcode.MESSAGE_INDEX, Opcode.DATA_END}
_Record = TypeVar("_Record", FileHeader, Metadata, Channel)
_HEAD = struct.Struct("<BQ")
_BEGINNING = 4096  # bytes among which a log of ours names its session, whatever else is wrong with them


@dataclass(frozen=True)
class Integrity:
    """What a file turned out to be: a sealed, torn or damaged log, or none.

    Args:
        status: `sealed`, `torn`, `damaged`, `foreign` or `newer`.
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
        """How many bytes stand behind the valid ones."""
        return self.size - self.valid


class StrangeLog(UserError):
    """A file that is not a damaged log but none that this version reads: another writer's, or of a later schema."""


class _Fault(Exception):
    """What ends the reading; `frame`: no record begins where one must, so nothing says how far the fault reaches."""

    def __init__(self, status: str, reason: str, frame: bool = False):
        super().__init__(reason)
        self.status, self.frame = status, frame


class Scanner:
    """Reads one log front to back, checking everything.

    `header` is known with the first of `blocks`, and `integrity` once they are exhausted.

    Args:
        file: opened for reading; neither written nor closed here.
    """

    integrity: Integrity

    def __init__(self, file: BinaryIO):
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._offset = 0  # behind the last good record
        self._end = len(MAGIC)  # of the record that is being read
        self._crc = 0
        self._messages = 0
        self._channels: dict[int, str] = {}
        self.header: Header | None = None

    def blocks(self) -> Iterator[list[Message]]:
        """The messages of one block after the other, in file order; none for metadata, the session's among them."""
        status, reason = SEALED, ""
        try:
            yield from self._data_section()
            self._summary()
        except _Fault as fault:
            status, reason = self._judged(fault)
        self.integrity = Integrity(status, self._size, self._offset, self._messages, reason)

    def _judged(self, fault: _Fault) -> tuple[str, str]:
        """What a fault makes of the file, and why: the same bytes are a torn end or damage by what stands behind."""
        whole = ends_whole(self._file, self._size)
        if fault.status == TORN and whole:
            return DAMAGED, str(fault)  # nothing was cut off, something inside is wrong
        if fault.status == TORN and fault.frame and block_behind(self._file, self._offset + _HEAD.size, record=True):
            return DAMAGED, f"{fault}; and the log goes on behind it"
        if fault.status != DAMAGED:
            return fault.status, str(fault)
        if (zeros := zeros_from(self._file, self._size)) < self._end:
            return TORN, f"zeros from byte {max(zeros, self._offset)} on: the file system never wrote what follows"
        if self._offset <= len(MAGIC) and not self._names_session():
            return FOREIGN, str(fault)
        if fault.frame and not whole and not block_behind(self._file, self._offset):
            return TORN, f"no record begins at byte {self._offset} or behind it: what follows was never written"
        return DAMAGED, str(fault)

    def _names_session(self) -> bool:
        """Whether the beginning of the file is that of a log of ours with something wrong in it."""
        self._file.seek(0)
        return SESSION.encode() in self._file.read(_BEGINNING)

    def _data_section(self) -> Iterator[list[Message]]:
        if (magic := self._file.read(len(MAGIC))) != MAGIC:
            if MAGIC.startswith(magic):
                raise _Fault(TORN, f"the file stops after byte {len(magic)}")
            raise _Fault(DAMAGED, stand_in(magic + self._file.read(64)) or "it does not begin as an MCAP file")
        self._accept(MAGIC)
        expected: set[Opcode] = {Opcode.HEADER}
        while True:
            opcode, body, raw = self._record()
            if opcode not in expected:
                zeros = not any(raw)  # which something follows, or the file would be torn
                raise _Fault(DAMAGED, f"a record of kind {opcode} where none may be", frame=not zeros)
            if opcode == Opcode.HEADER and (profile := _parse(FileHeader, body).profile) != PROFILE:
                raise _Fault(DAMAGED, f"an MCAP file of profile {profile[:40]!r}")
            if opcode == Opcode.DATA_END:
                if len(body) != 4 or struct.unpack("<I", body)[0] != self._crc:
                    raise _Fault(DAMAGED, "the CRC of the data section is wrong")
                self._offset += len(raw)
                return
            found = self._block(body) if opcode == Opcode.CHUNK else []
            if opcode == Opcode.METADATA and self.header is None:  # later metadata are not the session's
                self.header = _header(body)
            self._accept(raw)
            if opcode in (Opcode.METADATA, Opcode.CHUNK):
                yield found
            expected = _DATA_SECTION - {Opcode.HEADER}

    def _accept(self, raw: bytes) -> None:
        self._offset += len(raw)
        self._crc = zlib.crc32(raw, self._crc)

    def _record(self) -> tuple[int, memoryview, bytes]:
        """Opcode, content and bytes of the next record."""
        left, self._end = self._size - self._offset, self._offset + _HEAD.size
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise _Fault(TORN, f"the file stops after byte {self._offset}")
        opcode, length = _HEAD.unpack(head)
        if length > left - _HEAD.size or length > MAX_RECORD:
            raise _cut(opcode, length, left)
        raw = head + self._file.read(length)
        if len(raw) < len(head) + length:
            raise _Fault(TORN, f"the file shrank to {self._offset + len(raw)} bytes while it was read")
        self._end = self._offset + len(raw)
        return opcode, memoryview(raw)[_HEAD.size :], raw

    def _block(self, body: memoryview) -> list[Message]:
        head = BLOCK.size + len(COMPRESSION)
        if len(body) < head + 8 or body[BLOCK.size : head] != COMPRESSION:
            raise _Fault(DAMAGED, "a block that this log's writer does not write")
        _, _, size, crc, name_length = BLOCK.unpack_from(body)
        data = body[head + 8 :]
        if name_length != len(COMPRESSION) or struct.unpack_from("<Q", body, head)[0] != len(data):
            raise _Fault(DAMAGED, "a block whose sizes do not fit")
        content = _decompress(data, size)
        if zlib.crc32(content) != crc:
            raise _Fault(DAMAGED, "the CRC of a block is wrong")
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
                    raise _Fault(DAMAGED, f"message {number} where {sequence} must be: a block is missing or repeated")
                found.append((channels[channel], content[position + MESSAGE.size : stop]))
                sequence += 1
            elif opcode == Opcode.CHANNEL:
                opened = _parse(Channel, memoryview(content)[position + _HEAD.size : stop])
                channels[opened.id] = opened.topic.removeprefix("/")
            elif opcode != Opcode.SCHEMA:
                raise _Fault(DAMAGED, f"a record of kind {opcode} inside a block")
            position = stop
        if position != end:
            raise _Fault(DAMAGED, "a block that ends inside a record")
        self._messages = sequence
        return found

    def _summary(self) -> None:
        """The summary repeats what the data says; it must be whole, or the file is torn or damaged behind its data."""
        rest = self._file.read(min(self._size - self._offset, 2 * MAX_RECORD))
        footer = _HEAD.size + 20
        if not rest.endswith(MAGIC) or len(rest) < footer + len(MAGIC):
            if rest.rstrip(b"\0").endswith(MAGIC):
                raise _Fault(TORN, "zeros behind the end of the log; no message is lost")
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
        return _Fault(DAMAGED, f"a record of kind {opcode} claims {length} bytes, {left} are left", frame=True)
    return _Fault(TORN, f"the last record needs {length + _HEAD.size} bytes, {left} are there", frame=True)


def _decompress(data: memoryview, size: int) -> bytes:
    """Exactly `size` bytes; the frame's own claim is checked first, because the library allocates what it claims."""
    try:
        if size > MAX_RECORD or zstandard.frame_content_size(data) != size:
            raise _Fault(DAMAGED, f"a block claims {size} bytes, its compression another number")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise _Fault(DAMAGED, f"a block cannot be decompressed: {error}") from error


def _header(body: memoryview) -> Header:
    try:
        return parse_header(_parse(Metadata, body))
    except UserError as error:
        raise _Fault(NEWER if isinstance(error, NewerSchema) else DAMAGED, str(error)) from error


def _parse(kind: type[_Record], body: memoryview) -> _Record:
    try:
        return kind.read(ReadDataStream(io.BytesIO(body)))
    except (McapError, struct.error, UnicodeDecodeError) as error:
        raise _Fault(DAMAGED, f"a {kind.__name__.lower()} record that cannot be read: {error}") from error


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a log for reading.

    Raises:
        UserError: when it is missing or no regular file.
    """
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; name one log")
    if not os.path.isfile(path):
        raise UserError(f"no log at {path}")
    try:
        return io.BufferedReader(_Readable(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


class _Readable(io.FileIO):
    """A file that says its name where the disk under it fails, as `open` does."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise UserError(f"cannot read {self.name!s}: {error.strerror or error}") from error
