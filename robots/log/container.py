"""MCAP framing: a writer whose chunks end when told to, and a reader that believes nothing it has not checked.

`mcap.writer.Writer` ends a chunk by size alone, so a slow channel would keep minutes in memory; `mcap.reader` refuses
files without a footer, and its stream reader takes sizes from the file on trust. The record classes are mcap's own.
"""

import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import BinaryIO

import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

MAGIC = b"\x89MCAP0\r\n"
PROFILE = "gipo"
MAX_RECORD = 64 << 20  # bytes of one record, compressed or not
MESSAGE = struct.Struct("<BQHIQQ")  # opcode, length, channel, sequence, log time, publish time
CHUNK = struct.Struct("<QQQII")  # start, end, uncompressed size, CRC, length of the compression's name
CHUNK_TARGET = 256 << 10  # uncompressed; a chunk also ends whenever the log is flushed
COMPRESSION = b"zstd"


class ContainerWriter:
    """One MCAP file, readable up to its last flushed chunk at any moment.

    Args:
        file: buffered binary file, at its start.
        library: what wrote it.
    """

    def __init__(self, file: BinaryIO, library: str):
        self._file = file
        self._builder = RecordBuilder()
        self._crc = 0
        self._offset = 0
        self._sequence = 0
        self._compress: Callable[[bytes], bytes] = zstandard.ZstdCompressor(level=1).compress
        self._schemas: list[Schema] = []
        self._channels: list[Channel] = []
        self._chunks: list[ChunkIndex] = []
        self._metadata: list[MetadataIndex] = []
        self._counts: dict[int, int] = defaultdict(int)
        self._times: list[int] = []  # first and last log time of the file
        self._body: list[bytes] = []
        self._size = 0
        self._index: dict[int, list[tuple[int, int]]] = {}
        self._write(MAGIC)
        self._record(Header(PROFILE, library))

    def metadata(self, name: str, values: Mapping[str, str]) -> None:
        """A map of texts that travels with the file."""
        length = self._record(Metadata(name, dict(values)))
        self._metadata.append(MetadataIndex(self._offset - length, length, name))

    def channel(self, topic: str, schema: bytes) -> int:
        """Open a channel of JSON messages described by a JSON Schema; its number."""
        number = len(self._channels) + 1
        self._schemas.append(Schema(id=number, data=schema, encoding="jsonschema", name=f"{PROFILE}.{topic}"))
        self._channels.append(
            Channel(id=number, topic=f"/{topic}", message_encoding="json", metadata={}, schema_id=number)
        )
        for record in (self._schemas[-1], self._channels[-1]):
            record.write(self._builder)
            self._append(self._builder.end())
        return number

    def message(self, channel: int, time_ns: int, data: bytes) -> None:
        """Add one message at `time_ns` since the epoch; it reaches the file with its chunk."""
        self._index.setdefault(channel, []).append((time_ns, self._size))
        head = MESSAGE.pack(Opcode.MESSAGE, len(data) + 22, channel, self._sequence & 0xFFFFFFFF, time_ns, time_ns)
        self._append(head + data)
        self._sequence += 1
        self._counts[channel] += 1
        if self._size >= CHUNK_TARGET:
            self.end_chunk()

    def end_chunk(self) -> None:
        """Compress and write what was added since the last chunk."""
        if not self._size:
            return
        body = b"".join(self._body)
        times = [time for entries in self._index.values() for time, _ in entries] or [0]
        start, end = min(times), max(times)
        data = self._compress(body)
        head = CHUNK.pack(start, end, len(body), zlib.crc32(body), len(COMPRESSION)) + COMPRESSION
        chunk_offset = self._offset
        self._write(struct.pack("<BQ", Opcode.CHUNK, len(head) + 8 + len(data)))
        self._write(head + struct.pack("<Q", len(data)))
        self._write(data)
        chunk_length = self._offset - chunk_offset
        offsets = {}
        for channel, entries in self._index.items():
            offsets[channel] = self._offset
            self._record(MessageIndex(channel, entries))
        self._chunks.append(
            ChunkIndex(
                chunk_length=chunk_length,
                chunk_start_offset=chunk_offset,
                compression=COMPRESSION.decode(),
                compressed_size=len(data),
                message_end_time=end,
                message_index_length=self._offset - chunk_offset - chunk_length,
                message_index_offsets=offsets,
                message_start_time=start,
                uncompressed_size=len(body),
            )
        )
        if self._index:
            self._times = [min([start, *self._times]), max([end, *self._times])]
        self._body, self._size, self._index = [], 0, {}

    def finish(self) -> None:
        """End the data with its CRC, then write the summary that lets other tools seek."""
        self.end_chunk()
        self._record(DataEnd(self._crc))
        start = self._offset
        groups: list[tuple[Opcode, list[McapRecord]]] = [
            (Opcode.SCHEMA, [*self._schemas]),
            (Opcode.CHANNEL, [*self._channels]),
            (Opcode.STATISTICS, [self._statistics()]),
            (Opcode.CHUNK_INDEX, [*self._chunks]),
            (Opcode.METADATA_INDEX, [*self._metadata]),
        ]
        summary = RecordBuilder()
        offsets = []
        for opcode, records in groups:
            before = summary.count
            for record in records:
                record.write(summary)
            offsets.append(SummaryOffset(opcode, start + before, summary.count - before))
        offset_start = start + summary.count
        for offset in offsets:
            offset.write(summary)
        data = summary.end()
        crc = zlib.crc32(data + struct.pack("<BQQQ", Opcode.FOOTER, 20, start, offset_start))
        self._write(data)
        self._record(Footer(start, offset_start, crc))
        self._write(MAGIC)

    @property
    def messages(self) -> int:
        """Messages added so far."""
        return self._sequence

    def _statistics(self) -> Statistics:
        first, last = self._times or (0, 0)
        return Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=dict(self._counts),
            chunk_count=len(self._chunks),
            message_count=self._sequence,
            metadata_count=len(self._metadata),
            message_start_time=first,
            message_end_time=last,
            schema_count=len(self._schemas),
        )

    def _append(self, record: bytes) -> None:
        self._body.append(record)
        self._size += len(record)

    def _record(self, record: McapRecord) -> int:
        record.write(self._builder)
        data = self._builder.end()
        self._write(data)
        return len(data)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._crc = zlib.crc32(data, self._crc)
        self._offset += len(data)
