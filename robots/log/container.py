"""MCAP framing: what the writer of a log and its reader agree on. The writer is mcap's own, the reader is `Scanner`.

`mcap.reader` refuses a file without a footer, and its stream reader takes the sizes within a record on trust; a test
fails once that has changed. A block of messages, compressed together, is what MCAP calls a chunk.
"""

import struct
from typing import BinaryIO

from mcap.writer import CompressionType, IndexType, Writer

MAGIC = b"\x89MCAP0\r\n"
PROFILE = "gipo"
MAX_RECORD = 64 << 20  # bytes of one record, compressed or not
MESSAGE = struct.Struct("<BQHIQQ")  # opcode, length, channel, sequence, log time, publish time
BLOCK = struct.Struct("<QQQII")  # start, end, uncompressed size, CRC, length of the compression's name
BLOCK_TARGET = 256 << 10  # uncompressed; a block also ends whenever the log is flushed
COMPRESSION = b"zstd"


def start_writer(file: BinaryIO, library: str) -> Writer:
    """A writer that has begun a log: every byte is under a CRC, and a block ends by size or with `flush`.

    Args:
        file: buffered binary file, at its start.
        library: what wrote it.
    """
    indexes = IndexType.CHUNK | IndexType.MESSAGE | IndexType.METADATA
    writer = Writer(file, BLOCK_TARGET, CompressionType.ZSTD, indexes, enable_data_crcs=True)
    writer.start(PROFILE, library)
    return writer


def open_channel(writer: Writer, topic: str, schema: bytes) -> int:
    """Open a channel of JSON messages described by a JSON Schema; its number."""
    described = writer.register_schema(f"{PROFILE}.{topic}", "jsonschema", schema)
    return writer.register_channel(f"/{topic}", "json", described)


def add_message(writer: Writer, channel: int, number: int, time_ns: int, data: bytes) -> None:
    """Add the message of this number, from 0 on over all channels, at `time_ns` since the epoch."""
    writer.add_message(channel, time_ns, data, publish_time=time_ns, sequence=number & 0xFFFFFFFF)
