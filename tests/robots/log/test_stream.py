"""Episodes one by one are what the whole log reads as, in memory that does not grow with the log."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.log import DAMAGED, TORN, Episode, LogStream, LogWriter, Session, append_label, read_log, verify
from tests.robots.builders import EPISODE, step_row
from tests.runs import within

Write = Callable[..., Path]


def assert_same(streamed: Episode, whole: Episode) -> None:
    assert streamed.number == whole.number
    assert set(streamed.columns) == set(whole.columns)
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(streamed[name], values, err_msg=name, strict=True)
    assert (streamed.gate, streamed.events, streamed.label) == (whole.gate, whole.events, whole.label)


def test_a_stream_gives_what_the_whole_log_gives(written: Write) -> None:
    path = written(7 * EPISODE + 3)
    append_label(path, read_log(path).header.session, 2, success=True, reward=1.5)
    log, stream = read_log(path), LogStream(path)
    episodes = list(stream)
    assert (stream.header, stream.integrity) == (log.header, log.integrity)
    assert len(episodes) == len(log.episodes) == 8
    for streamed, whole in zip(episodes, log.episodes, strict=True):
        assert_same(streamed, whole)


def test_a_session_of_the_loop_streams_as_it_reads(session: Path) -> None:
    for streamed, whole in zip(LogStream(session), read_log(session).episodes, strict=True):
        assert_same(streamed, whole)


def test_memory_does_not_grow_with_the_log(written: Write) -> None:
    peaks = []
    for count in (40 * EPISODE, 160 * EPISODE):
        path = written(count, f"{count}.mcap")
        tracemalloc.start()
        assert sum(map(len, LogStream(path))) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@pytest.mark.parametrize("cut", [100, -300])
def test_a_torn_log_streams_its_prefix(written: Write, cut: int) -> None:
    path = written(3 * EPISODE)
    path.write_bytes(path.read_bytes()[:cut])
    stream = LogStream(path)
    episodes = list(stream)
    assert stream.integrity is not None
    assert stream.integrity == verify(path)
    assert stream.integrity.status == TORN
    if cut < 0:
        assert [len(each) for each in episodes] == [len(each) for each in read_log(path).episodes]
    else:
        assert (episodes, stream.header) == ([], None)


def test_damage_ends_the_stream_with_its_byte(written: Write) -> None:
    path = written(40 * EPISODE)
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    stream = LogStream(path)
    with pytest.raises(UserError, match=r"damaged from byte \d+ of"):
        list(stream)
    assert stream.integrity is not None
    assert stream.integrity.status == DAMAGED


def test_an_episode_that_comes_back_is_refused(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), flush_seconds=0.1)
    for index in (0, EPISODE, 2 * EPISODE):
        writer.step(step_row(index))
    assert within(20, lambda: writer._flushed == 3)  # so that what follows stands in another block
    writer.step(step_row(1))
    writer.close()
    with pytest.raises(UserError, match="episode 0 goes on after a later one began"):
        list(LogStream(writer.path))


def test_steps_dropped_before_the_end_leave_no_final_observation(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    for index in range(3):
        writer.step(step_row(index))
    final = step_row(9).observation.tolist()
    writer.event("episode_end", "steps", 0, 5, {"final_observation": final})  # after step 4
    writer.close()
    (episode,) = LogStream(writer.path)
    assert episode.final_observation is None
    rows = episode.transitions()
    assert rows["step"].tolist() == [0, 1]
    assert rows["next_truncated"].tolist() == [False, True]
