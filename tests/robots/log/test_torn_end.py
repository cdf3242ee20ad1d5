"""A power cut leaves zeros or old blocks where records were to come: that is a torn log, unless more of it follows."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robots.log import DAMAGED, TORN, LogWriter, Session, read_header, read_log, verify
from robots.log.container import MAGIC
from robots.log.torn_end import PIECE, block_behind, ends_whole, zeros_from
from tests.robots.builders import EPISODE, assert_prefix, step_row

Write = Callable[..., Path]


@pytest.fixture
def many_blocks(tmp_path: Path) -> Path:
    """A sealed log whose rows stand in more than three blocks."""
    writer = LogWriter(tmp_path / "a.mcap", Session('{"name": "fake"}'), capacity=3000)
    for index in range(18 * EPISODE):
        writer.step(step_row(index, 39, 4))
    writer.close()
    return writer.path


def rows_when_cut(path: Path, whole: bytes, cut: int) -> int:
    path.write_bytes(whole[:cut])
    if read_header(path) is None:
        return -1
    return assert_prefix(read_log(path))


def starts(whole: bytes) -> list[int]:
    """Where every record begins, and where the last one ends."""
    position, found = len(MAGIC), [len(MAGIC)]
    while position < len(whole) - len(MAGIC):
        position += 9 + int.from_bytes(whole[position + 1 : position + 9], "little")
        found.append(position)
    return found


def test_zeros_from_anywhere_on_are_a_cut_there(many_blocks: Path) -> None:
    whole = many_blocks.read_bytes()
    records = starts(whole)
    cuts = [*random.Random(0).sample(range(1, len(whole) - 200), 20), *records[:12], *(at + 4 for at in records[:12])]
    for turn, cut in enumerate(cuts):
        zeros = (len(whole) - cut, len(whole) - cut + 4096, 4096)[turn % 3]  # as long as it was, a page longer, a page
        wanted = rows_when_cut(many_blocks, whole, cut)
        many_blocks.write_bytes(whole[:cut] + bytes(zeros))
        found = verify(many_blocks)
        assert (found.status, read_header(many_blocks) is not None) == (TORN, wanted >= 0), (cut, found)
        if wanted >= 0:
            assert assert_prefix(read_log(many_blocks)) == wanted, cut


def test_a_length_that_reaches_beyond_the_end_is_damage_where_the_log_goes_on(many_blocks: Path) -> None:
    """One wrong bit in it would hide everything behind it; in the last record it is what a kill leaves."""
    whole = many_blocks.read_bytes()
    blocks = [at for at in starts(whole)[:-1] if whole[at] == 6]
    torn = whole[: blocks[-1] + 300]
    for block in blocks[1:]:
        spoilt = bytearray(torn)
        spoilt[block + 4] ^= 1  # 16 MiB more
        many_blocks.write_bytes(spoilt)
        found = verify(many_blocks)
        last = block == blocks[-1]
        assert (found.status, found.valid) == (TORN if last else DAMAGED, block)
        assert found.reason.endswith("the log goes on behind it") != last
    many_blocks.write_bytes(torn)
    assert verify(many_blocks).status == TORN


def test_zeros_in_the_middle_are_damage(many_blocks: Path) -> None:
    whole = many_blocks.read_bytes()
    blocks = [at for at in starts(whole)[:-1] if whole[at] == 6]
    torn = whole[: blocks[-1]]  # without a summary, so that nothing but its records says what follows
    assert len(blocks) > 3
    for whole_or_torn in (whole, torn):
        for start in (blocks[2], blocks[2] + 300):
            spoilt = whole_or_torn[:start] + bytes(64) + whole_or_torn[start + 64 :]
            many_blocks.write_bytes(spoilt)
            found = verify(many_blocks)
            assert found.status == DAMAGED, start
            salvaged = assert_prefix(read_log(many_blocks, salvage=True))
            assert 0 < salvaged < 18 * EPISODE


def test_old_contents_behind_the_last_record_are_a_cut_there(many_blocks: Path) -> None:
    whole = many_blocks.read_bytes()
    rubbish = random.Random(1).randbytes(5000)
    for cut in [at for at in starts(whole)[:-1] if whole[at] == 6][2:]:
        wanted = rows_when_cut(many_blocks, whole, cut)
        many_blocks.write_bytes(whole[:cut] + b"\xee" + rubbish)
        found = verify(many_blocks)
        assert (found.status, found.valid) == (TORN, cut)
        assert assert_prefix(read_log(many_blocks)) == wanted > 0
        many_blocks.write_bytes(whole[:cut] + b"\xee" + rubbish + whole[cut:])  # the log goes on behind them
        assert verify(many_blocks).status == DAMAGED


@pytest.mark.parametrize("tail", [bytes(1), bytes(4096), b"\xee" * 700])
def test_what_stands_behind_a_sealed_log_costs_no_row(written: Write, tail: bytes) -> None:
    path = written(2 * EPISODE)
    path.write_bytes(path.read_bytes() + tail)
    assert verify(path).status == TORN
    assert assert_prefix(read_log(path)) == 2 * EPISODE


def test_a_file_of_zeros_alone_is_torn(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(bytes(4096))
    found = verify(tmp_path / "a.mcap")
    assert (found.status, found.valid, read_header(tmp_path / "a.mcap")) == (TORN, 0, None)


@given(st.binary(max_size=40), st.integers(0, 3), st.integers(-2, 2))
def test_zeros_are_counted_over_the_borders_of_blocks(head: bytes, blocks: int, more: int) -> None:
    zeros = max(0, blocks * PIECE + more)
    kept = len(head.rstrip(b"\0"))
    whole = head + bytes(zeros)
    assert zeros_from(io.BytesIO(whole), len(whole)) == (kept if kept < len(whole) else len(whole))


@pytest.mark.parametrize("before", [0, 1, PIECE - 4, PIECE, 2 * PIECE - 1])
def test_a_block_is_found_over_the_borders_of_blocks(before: int) -> None:
    marker = b"\x04\x00\x00\x00zstd"
    assert block_behind(io.BytesIO(b"x" * before + marker), 0)
    assert not block_behind(io.BytesIO(b"x" * before + marker), before + 1)
    assert not block_behind(io.BytesIO(b"x" * before + marker[:-1]), 0)


def test_a_magic_alone_is_no_whole_file() -> None:
    assert not ends_whole(io.BytesIO(MAGIC), len(MAGIC))
    assert ends_whole(io.BytesIO(MAGIC * 2), 2 * len(MAGIC))
