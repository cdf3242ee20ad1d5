"""What mcap's writer does for a log, and why its readers do not read one."""

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mcap.exceptions import EndOfFile, McapError
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Header, McapRecord, Message
from mcap.stream_reader import StreamReader

from robots.log.container import MAGIC, PROFILE, add_message, open_channel, start_writer


def test_a_block_ends_when_told_to_and_what_precedes_it_is_whole() -> None:
    file = io.BytesIO()
    writer = start_writer(file, "test")
    channel = open_channel(writer, "step", b"{}")
    for number in range(3):
        add_message(writer, channel, number, 10 + number, b"[%d]" % number)
        writer.flush()
        assert messages(file.getvalue()) == [b"[%d]" % each for each in range(number + 1)]


def messages(unfinished: bytes) -> list[bytes]:
    found = []
    with pytest.raises(EndOfFile):
        found += (each.data for each in records(unfinished) if isinstance(each, Message))
    return found


def records(content: bytes) -> Iterator[McapRecord]:
    return StreamReader(io.BytesIO(content), validate_crcs=True).records


def test_mcaps_reader_refuses_a_log_without_a_footer(written: Callable[..., Path]) -> None:
    path = written(10)
    path.write_bytes(path.read_bytes()[:-8])
    with open(path, "rb") as file, pytest.raises(McapError):
        list(make_reader(file).iter_messages())


def test_mcaps_stream_reader_follows_a_size_beyond_its_record() -> None:
    text = PROFILE.encode()
    body = struct.pack("<I", len(text) + 13) + text  # the profile claims the head and the length of what follows
    head = struct.pack("<BQ", Opcode.HEADER, len(body))
    following = struct.pack("<BQ", Opcode.DATA_END, 4) + struct.pack("<I", 0) + struct.pack("<I", 0)
    record = next(records(MAGIC + head + body + following))
    assert isinstance(record, Header)
    assert record.profile != PROFILE
