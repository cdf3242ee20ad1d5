"""What is written is read back to the last bit; a kill costs at most a second; damage is found and never believed."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from mcap.reader import make_reader

from gipo.common.errors import UserError
from robots.log import (
    DAMAGED,
    SEALED,
    TORN,
    Image,
    LogStream,
    LogWriter,
    Session,
    Shadow,
    append_label,
    labels_path,
    read_header,
    read_log,
    verify,
)
from robots.log.container import BLOCK_TARGET, MAX_RECORD, add_message, start_writer
from robots.log.header import SESSION
from robots.log.images import png
from tests.robots.builders import EPISODE, assert_prefix, make_spec, step_row
from tests.unwoken import unwoken

Write = Callable[..., Path]
ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("logging_process.py")


def test_round_trip_is_exact(written: Write) -> None:
    log = read_log(written(3 * EPISODE))
    assert log.integrity.status == SEALED
    assert log.integrity.tail == 0
    assert assert_prefix(log) == 3 * EPISODE
    first = log.episodes[0]
    assert first["observation"].dtype == first["log_prob"].dtype == np.float32
    assert first["latent"].dtype == np.int64
    assert first["sent_action"].dtype == np.float64
    assert first.policy_id == "0" * 64
    assert first.complete
    np.testing.assert_array_equal(first.final_observation, step_row(EPISODE).observation)
    assert first.gate[0] == ["rate"]
    assert 1 not in first.gate


def test_every_float32_survives_its_decimal_form(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 40_000, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    rows = values[np.isfinite(values)][:39_000].reshape(1000, 39)
    rows[0, :4] = [0.0, -0.0, np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal]
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    for index, observation in enumerate(rows):
        row = step_row(index)
        row.observation = observation
        writer.step(row)
    writer.close()
    read = np.concatenate([episode["observation"] for episode in read_log(tmp_path / "a.mcap").episodes])
    np.testing.assert_array_equal(read.view(np.uint32), rows.view(np.uint32))


def test_other_tools_open_it(written: Write) -> None:
    with open(written(2 * EPISODE), "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert {channel.topic for channel in summary.channels.values()} == {
            "/step",
            "/event",
            "/shadow",
            "/camera",
            "/video",
        }
        messages = list(reader.iter_messages(topics=["/step"]))
        assert len(messages) == 2 * EPISODE
        schema, channel, message = messages[0]
        assert schema is not None
        assert (schema.encoding, channel.message_encoding) == ("jsonschema", "json")
        described, row = orjson.loads(schema.data), orjson.loads(message.data)
        assert set(row) == set(described["properties"])
        times = [message.log_time for _, _, message in messages]
        assert times == sorted(times)
        assert abs(times[0] - time.time_ns()) < 600e9


def test_the_time_of_a_message_is_that_of_its_row(tmp_path: Path) -> None:
    """Of an image when it was taken, of a step when its tick began, and not when they were written."""
    writer, now = LogWriter(tmp_path / "a.mcap", Session("{}")), time.monotonic_ns()
    epoch, row = time.time_ns() - now, step_row(0)
    row.monotonic_ns = now - 100 * 10**9
    writer.image(Image("wrist", 0, now - 200 * 10**9, np.zeros((4, 5, 3), np.uint8)))
    writer.step(row)
    writer.event("reset")
    writer.close()
    with open(writer.path, "rb") as file:
        times = {channel.topic: message.log_time - epoch for _, channel, message in make_reader(file).iter_messages()}
    assert abs(times["/camera"] - now + 200 * 10**9) < 10**9
    assert abs(times["/step"] - now + 100 * 10**9) < 10**9


def test_transitions_never_cross_what_is_missing(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    for index in (0, 1, 2, 5, 6, 7):
        writer.step(step_row(index))
    writer.close()
    (episode,) = read_log(tmp_path / "a.mcap").episodes
    rows = episode.transitions()
    assert rows["step"].tolist() == [0, 1, 5, 6]
    assert rows["next_truncated"].tolist() == [False, True, False, True]
    for position, index in enumerate((0, 1, 5, 6)):
        np.testing.assert_array_equal(rows["next_observation"][position], step_row(index + 1).observation)
    assert not episode.complete


def test_transitions_of_a_complete_episode(written: Write) -> None:
    rows = read_log(written(EPISODE)).episodes[0].transitions()
    assert len(rows["step"]) == EPISODE
    np.testing.assert_array_equal(rows["next_observation"][-1], step_row(EPISODE).observation)
    assert rows["next_truncated"].tolist() == [False] * (EPISODE - 1) + [True]


def test_labels_are_appended_and_the_log_is_not_touched(written: Write) -> None:
    path = written(2 * EPISODE)
    before = path.read_bytes()
    session = read_log(path).header.session
    append_label(path, session, 1, success=False, reward=None)
    append_label(path, session, 1, success=True, reward=2.5)
    with open(labels_path(path), "ab") as file:
        file.write(b'{"crc":12,"lab')  # a kill while labelling
    append_label(path, session, 0, success=None, reward=-1.0)
    log = read_log(path)
    assert path.read_bytes() == before
    assert log.unused_labels == "line 3 is not readable"
    assert log.episodes[1].success is True
    assert log.episodes[0].success is None
    assert log.episodes[0].label is not None
    assert log.episodes[0].label.reward == -1.0
    raw = log.episodes[1]["reward"]
    shaped = log.episodes[1].transitions()["next_reward"]
    np.testing.assert_allclose(shaped - raw, [0.0] * (EPISODE - 1) + [2.5], atol=1e-6)
    other = written(1, "b.mcap")
    labels_path(other).write_bytes(labels_path(path).read_bytes())
    with pytest.raises(UserError, match="another log"):
        read_log(other)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), 1e38])
def test_labels_refuse_what_is_no_number(written: Write, reward: float) -> None:
    with pytest.raises(UserError, match=r"it must be a number up to 1e\+30"):
        append_label(written(1), "x", 0, None, reward)


def test_images_and_shadows(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    writer.step(step_row(0))
    writer.image(Image("wrist", 1, 2, np.zeros((4, 5, 3), np.uint8)))
    writer.shadow(Shadow(0, 0, "f" * 64, 3, np.zeros(4, np.float32), np.ones(4, np.float32)))
    writer.close()
    log = read_log(tmp_path / "a.mcap")
    assert log.episodes[0].shadows[0]["policy_version"] == 3
    with open(tmp_path / "a.mcap", "rb") as file:
        ((schema, _, message),) = make_reader(file).iter_messages(topics=["/camera"])
    assert schema is not None
    assert orjson.loads(message.data)["format"] == "png"
    assert png(np.zeros((2, 2), np.uint8)).startswith(b"\x89PNG")


def test_a_full_queue_drops_and_counts_every_step(tmp_path: Path) -> None:
    gate = threading.Event()

    def stalled(descriptor: int) -> None:
        if threading.current_thread().name == "log":
            gate.wait()

    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), capacity=20, flush_seconds=0.1, sync=stalled)
    accepted = []
    for index in range(60):
        accepted.append(writer.step(step_row(index)))
        time.sleep(0.005)
    gate.set()
    time.sleep(0.3)
    accepted.append(writer.step(step_row(60)))
    statistics = writer.close()
    log = read_log(tmp_path / "a.mcap")
    logged = [
        n * EPISODE + step for e in log.episodes for n, step in zip([e.number] * 99, e["step"].tolist(), strict=False)
    ]
    assert logged == [index for index, ok in enumerate(accepted) if ok]
    assert statistics.dropped == log.dropped == accepted.count(False) > 20
    assert [event["data"]["dropped"] for event in log.events if event["kind"] == "session_end"] == [statistics.dropped]


def test_a_failing_disk_is_reported_and_every_row_counted(tmp_path: Path) -> None:
    def full(descriptor: int) -> None:
        if threading.current_thread().name == "log":
            raise OSError(28, "No space left on device")

    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), flush_seconds=0.1, sync=full)
    for index in range(10):
        writer.step(step_row(index))
    deadline = time.monotonic() + 10
    while writer.error is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert writer.error is not None
    assert "No space left" in writer.error
    with pytest.raises(UserError, match="11 rows are lost"):
        writer.close()
    assert writer.statistics == (0, 0, 11)


def test_a_power_cut_takes_nothing_of_a_log_that_is_sealed(
    tmp_path: Path, synced: list[tuple[Path, int | list[str]]]
) -> None:
    path = tmp_path / "a.mcap"
    writer = LogWriter(path, Session("{}"), sync=os.fsync)
    assert [each for each, _ in synced] == [path, tmp_path], "its beginning, and then its name in the folder"
    assert synced[-1][1] == ["a.mcap"]
    writer.step(step_row(0))
    writer.close()
    assert synced[-1] == (path, path.stat().st_size)


def test_a_row_that_no_log_takes_is_lost_and_counted(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    writer.event("said", data={"words": "x" * (MAX_RECORD // 2)})
    writer.step(step_row(0))
    with pytest.raises(UserError, match=r"incomplete, 3 rows are lost: UserError: a event of \d+ bytes is too large"):
        writer.close()
    assert writer.statistics == (0, 0, 3)


def test_a_signal_that_wakes_nobody_is_heard_while_a_log_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    with unwoken() as deliver:
        monkeypatch.setattr(LogWriter, "_run", lambda self: heard.append(deliver()))
        LogWriter(tmp_path / "a.mcap", Session("{}")).close(20)
    assert heard == [None]


def test_a_log_is_never_overwritten(written: Write) -> None:
    path = written(1)
    with pytest.raises(UserError, match="exists"):
        LogWriter(path, Session("{}"))


@pytest.mark.parametrize("cut", [0, 5, 8, 100, -1, -8, -40])
def test_a_torn_file_gives_its_prefix(written: Write, cut: int) -> None:
    path = written(2 * EPISODE)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    integrity = verify(path)
    assert integrity.status == TORN
    assert integrity.size == len(whole[:cut])
    if cut < 0:
        assert assert_prefix(read_log(path)) == 2 * EPISODE
    else:
        with pytest.raises(UserError, match="ends before it says whose log it is"):
            read_log(path)


def test_a_log_damaged_in_its_session_is_called_damaged_also_where_damage_is_borne(written: Write) -> None:
    path = written(EPISODE)
    content = bytearray(path.read_bytes())
    content[content.index(b"gipo.session") + 40] ^= 1
    path.write_bytes(content)
    for salvage in (False, True):
        with pytest.raises(UserError, match=r"is damaged from byte .*: the session's metadata do not match"):
            read_log(path, salvage=salvage)


def test_metadata_behind_that_of_the_session_do_not_change_whose_log_it_is(tmp_path: Path) -> None:
    mine, other = Session('{"name": "mine"}'), Session('{"name": "other"}')
    with open(tmp_path / "a.mcap", "wb") as file:
        writer = start_writer(file, "test")
        for name, values in ((SESSION, mine.metadata()), ("note", {"by": "a person"}), (SESSION, other.metadata())):
            writer.add_metadata(name, values)
        writer.finish()
    log = read_log(tmp_path / "a.mcap")
    assert (log.integrity.status, log.header.robot) == (SEALED, {"name": "mine"})


def test_every_cut_gives_a_prefix(written: Write) -> None:
    path = written(EPISODE, observations=3, actions=2)
    whole = path.read_bytes()
    generator = random.Random(0)
    for cut in generator.sample(range(len(whole)), 150):
        path.write_bytes(whole[:cut])
        integrity = verify(path)
        assert (integrity.status, integrity.size) == (TORN, cut)
        if read_header(path) is not None:
            log = read_log(path)
            assert assert_prefix(log) == sum(map(len, log.episodes))


def test_a_tail_of_zeros_is_torn(written: Write) -> None:
    path = written(EPISODE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes(5000))
    assert verify(path).status in (TORN, DAMAGED)
    path.write_bytes(_data_section(whole) + bytes(5000))
    integrity = verify(path)
    assert (integrity.status, integrity.tail) == (TORN, 5000)


def _data_section(whole: bytes) -> bytes:
    """The file up to where DataEnd begins."""
    end = int.from_bytes(whole[-8 - 20 : -8 - 12], "little")  # summary_start in the footer
    return whole[: end - 13]


def _blocks(whole: bytes) -> list[tuple[int, int]]:
    """Start and end of every block record."""
    position, found = 8, []
    while position < len(whole) - 9:
        stop = position + 9 + int.from_bytes(whole[position + 1 : position + 9], "little")
        if whole[position] == 6:
            found.append((position, stop))
        position = stop
    return found


def test_a_block_that_is_missing_or_repeated_is_found_without_a_footer(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"), flush_seconds=0.1)
    for index in range(30):
        writer.step(step_row(index))
        time.sleep(0.02)
    writer.close()
    torn = _data_section(writer.path.read_bytes())
    blocks = _blocks(torn)
    assert len(blocks) >= 4
    (start, stop), (_, after) = blocks[2], blocks[3]
    for spoilt in (torn[:start] + torn[stop:], torn[:after] + torn[start:stop] + torn[after:]):
        writer.path.write_bytes(spoilt)
        integrity = verify(writer.path)
        assert integrity.status == DAMAGED
        assert "missing or repeated" in integrity.reason
        assert 0 < assert_prefix(read_log(writer.path, salvage=True)) < 30


def test_a_finished_file_with_a_wrong_length_inside_is_damaged_not_torn(written: Write) -> None:
    path = written(EPISODE)
    data = bytearray(path.read_bytes())
    start, _ = _blocks(bytes(data))[-1]
    data[start + 1 : start + 9] = (len(data)).to_bytes(8, "little")
    path.write_bytes(data)
    assert verify(path).status == DAMAGED
    path.write_bytes(data[:-8])
    assert verify(path).status == TORN


def kill_once(path: Path, generator: random.Random) -> float:
    """Log at 400 Hz, kill after a random time; seconds of rows that were lost."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, path, "400"], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(generator.uniform(0.0, 2.5))
    killed = time.monotonic_ns()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    log = read_log(path)
    count = assert_prefix(log)
    integrity = log.integrity
    assert integrity.status == TORN
    assert integrity.valid + integrity.tail == path.stat().st_size
    last = log.episodes[-1]["monotonic_ns"][-1] if count else killed - 10**9
    return (killed - last) / 1e9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sigkill_costs_at_most_a_second(tmp_path: Path, seed: int) -> None:
    assert kill_once(tmp_path / "a.mcap", random.Random(seed)) <= 1.0


@pytest.mark.campaign
def test_sigkill_at_100_moments(tmp_path: Path) -> None:
    lost = [kill_once(tmp_path / f"{seed}.mcap", random.Random(seed)) for seed in range(100)]
    assert max(lost) <= 1.0


def mutate(whole: bytes, generator: random.Random) -> bytes:
    """One of: flipped bits, bytes set, a piece removed, repeated, swapped, inserted, a cut, sizes made huge."""
    data = bytearray(whole)
    for _ in range(generator.choice((1, 1, 1, 3))):
        if not data:
            break
        at = generator.randrange(len(data))
        size = generator.choice((1, 2, 8, 60, 700))
        piece = bytes(data[at : at + size])
        kind = generator.randrange(8)
        if kind == 0:
            data[at] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[at : at + 8] = generator.choice((b"\xff" * 8, bytes(8), b"\xff" * 4 + bytes(4)))
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = piece
        elif kind == 4:
            other = generator.randrange(len(data))
            data[other : other + len(piece)] = piece
        elif kind == 5:
            data[at:at] = generator.randbytes(size)
        elif kind == 6:
            del data[at:]
        else:
            data[at] = generator.randrange(256)
    return bytes(data)


def fuzz(path: Path, count: int) -> dict[str, int]:
    """Read `count` mutated logs: whatever comes back is a prefix of the truth, and the file is as it was."""
    whole = path.read_bytes()
    outcomes = {SEALED: 0, TORN: 0, DAMAGED: 0, "refused": 0}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(count):
        data = mutate(whole, random.Random(seed))
        path.write_bytes(data)
        start = time.process_time()
        try:
            log = read_log(path, salvage=True)
        except UserError:
            outcomes["refused"] += 1
        else:
            outcomes[log.integrity.status] += 1
            assert_prefix(log)
            assert log.integrity.status != SEALED or data == whole, f"mutation {seed} was believed"
        assert time.process_time() - start < 5
        assert path.read_bytes() == data
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 300 * 1024, f"{grown} KiB more memory"
    return outcomes


def test_mutated_logs(written: Write) -> None:
    outcomes = fuzz(written(2 * EPISODE, observations=3, actions=2), 300)
    assert outcomes[DAMAGED] > 50
    assert outcomes[TORN] > 10


@pytest.mark.campaign
def test_5000_mutated_logs(written: Write) -> None:
    path = written(1000, observations=12, actions=2)
    assert path.stat().st_size > BLOCK_TARGET // 4
    fuzz(path, 5000)


def test_a_damaged_log_is_refused_at_its_byte(written: Write) -> None:
    path = written(2 * EPISODE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    integrity = verify(path)
    assert integrity.status == DAMAGED
    assert read_header(path) is not None
    with pytest.raises(UserError, match=f"damaged from byte {integrity.valid} of {len(data)}"):
        read_log(path)


@pytest.mark.parametrize(
    "row",
    [
        b"[]",
        b"{}",
        b"null",
        b'{"episode": 0}',
        b'{"episode": "x", "kind": 3, "data": []}',
        b'{"episode": 0, "step": 0, "kind": "dropped", "reason": "", "data": {"count": "x"}}',
        b"[" * 2000,
        b"\xff",
    ],
)
@pytest.mark.parametrize("topic", ["step", "event", "shadow"])
def test_rows_that_no_log_holds_are_refused(tmp_path: Path, topic: str, row: bytes) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    add_message(writer._mcap, writer._channels[topic], 0, time.time_ns(), row)
    writer._written += 1
    writer.close()
    with pytest.raises(UserError, match=r"a\.mcap"):
        read_log(tmp_path / "a.mcap")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("policy_version", [1]),
        ("truncated", []),
        ("sent_action", np.zeros(2)),
        ("timing_us", (1,)),
        ("gate", 5),
        ("gate", (1,)),
    ],
)
def test_a_step_of_another_form_is_refused(tmp_path: Path, name: str, value: object) -> None:
    writer, row = LogWriter(tmp_path / "a.mcap", Session("{}")), step_row(0)
    setattr(row, name, value)
    writer.step(row)
    writer.close()
    with pytest.raises(UserError, match="episode 0, from step 0: a row that no log of gipo-robot holds"):
        read_log(writer.path)


@pytest.mark.parametrize(
    ("observation", "action", "said"),
    [
        (5, 4, r"an action has shape \[4\], and .* has 3 of actions"),
        (6, 3, r"an observation has shape \[6\], and .* 5"),
    ],
)
def test_steps_of_another_robot_than_the_logs_are_refused(
    tmp_path: Path, observation: int, action: int, said: str
) -> None:
    for number, spec in enumerate((make_spec().to_json(), json.dumps({"name": "theirs"}))):
        writer = LogWriter(tmp_path / f"{number}.mcap", Session(spec))
        writer.step(step_row(0, observation, action))
        writer.close()
    for read in (read_log, lambda path: list(LogStream(path))):
        with pytest.raises(UserError, match=rf"0\.mcap: episode 0: {said}"):
            read(tmp_path / "0.mcap")
        assert read(tmp_path / "1.mcap")


@pytest.mark.parametrize("final", ["x", [1.0], [[1.0] * 39], [None] * 39, {}])
def test_a_final_observation_of_another_form(tmp_path: Path, final: object) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    writer.step(step_row(0))
    writer.event("episode_end", episode=0, data={"final_observation": final})
    writer.close()
    with pytest.raises(UserError, match="another form"):
        read_log(writer.path).episodes[0].transitions()


def test_images_wait_in_small_numbers_only(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    for index in range(100):
        writer.image(Image("wrist", index, index, np.zeros((480, 640, 3), np.uint8)))
    writer.step(step_row(0))
    statistics = writer.close()
    assert statistics.dropped >= 50
    assert len(read_log(writer.path).episodes[0]) == 1


@pytest.mark.parametrize(("count", "side"), [(40, 16), (12, 1400)])  # more than 16, or than 16 MiB, but not both
def test_images_that_were_written_take_no_place_from_others(tmp_path: Path, count: int, side: int) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    for index in range(18):  # 18 MiB
        writer.image(Image("wrist", index, index, np.zeros((1024, 1024), np.uint8)))
        while writer.waiting:
            time.sleep(0.001)
    for index in range(count):
        writer.image(Image("wrist", index, index, np.zeros((side, side), np.uint8)))
    assert writer.close().dropped == 0


def test_no_such_log(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.mcap", "no log at"), (tmp_path, "is a folder; name one log")):
        with pytest.raises(UserError, match=words):
            read_log(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no log"):
        verify(tmp_path / "pipe")


def test_a_log_that_cannot_be_opened_is_told_by_its_name_and_the_reason_alone(written: Write) -> None:
    log, limits = written(EPISODE), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(UserError) as caught:
            read_header(log)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(caught.value) == f"cannot read {log}: Too many open files"
