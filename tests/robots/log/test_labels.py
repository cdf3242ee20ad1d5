"""Labels of one episode are merged field by field, and their reward reaches the data however the episode ended."""

import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gipo.common.errors import UserError
from robots.cli import main
from robots.log import Label, LogStream, LogWriter, Session, append_label, labels_path, read_labels, read_log
from robots.log.labels import _line
from robots.review.export import segments
from tests.robots.builders import EPISODE, make_spec, step_row

Write = Callable[..., Path]
FIELDS = st.tuples(st.sampled_from([None, True, False]), st.sampled_from([None, 0.0, -10.0, 5.0]))


def label(path: Path, *said: str) -> None:
    assert main(["label", str(path), "--episode", "1", *said]) == 0


def test_what_was_said_before_still_holds(written: Write) -> None:
    path = written(2 * EPISODE)
    label(path, "--success")
    label(path, "--reward", "5")
    episode = read_log(path).episodes[1]
    assert (episode.success, episode.label and episode.label.reward) == (True, 5.0)
    label(path, "--failure")
    label(path, "--reward", "-2")
    for episodes in (read_log(path).episodes, list(LogStream(path))):
        found = episodes[1]
        assert (found.success, found.label and found.label.reward) == (False, -2.0)
        added = found.transitions()["next_reward"][-1] - found["reward"][-1]
        assert added == pytest.approx(-2, abs=1e-6)  # the later reward stands in place of the earlier one
        assert found.total == pytest.approx(found["reward"].sum() - 2, abs=1e-4)


def test_a_power_cut_takes_no_label(written: Write, synced: list[tuple[Path, int | list[str]]]) -> None:
    path = written(2 * EPISODE)
    file = labels_path(path)
    synced.clear()
    label(path, "--success")
    assert synced == [(file, file.stat().st_size), (path.parent, sorted([path.name, file.name]))]
    synced.clear()
    label(path, "--failure")
    assert synced[0] == (file, file.stat().st_size)


def test_a_reward_that_is_null_is_no_word_of_a_person(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    writer.event("said", "by a person", 0, 0, {"reward": float("nan")})  # JSON has null for it
    writer.close()
    with pytest.raises(UserError, match="what a person said, of unknown form"):
        read_log(writer.path)


@given(st.lists(FIELDS, min_size=1, max_size=6))
def test_of_each_field_the_last_that_says_something_counts(said: list[tuple[bool | None, float | None]]) -> None:
    labels = [Label("s", 0, success, reward, wall_ns) for wall_ns, (success, reward) in enumerate(said)]
    merged = labels[0]
    for each in labels[1:]:
        merged = merged.merged(each)
    assert merged.success == next((success for success, _ in reversed(said) if success is not None), None)
    assert merged.reward == next((reward for _, reward in reversed(said) if reward is not None), None)
    assert merged.wall_ns == len(said) - 1


def test_lines_that_are_no_labels_are_counted_and_cost_no_label(written: Write) -> None:
    path = written(2 * EPISODE)
    session = read_log(path).header.session
    append_label(path, session, 1, True, None)
    foreign = [b'{"episode": 1, "success": false}', b"1,failure", b"\xff\x00", b"[]"]
    forged = [
        Label(session, 1, "no", None, 0),  # type: ignore[arg-type]
        Label(session, 1, None, "x", 0),  # type: ignore[arg-type]
        Label(session, 1, None, 1e31, 0),
        Label(session, 1, None, True, 0),
        Label(5, 1, True, None, 0),  # type: ignore[arg-type]
    ]
    with open(labels_path(path), "ab") as file:
        file.write(b"\n".join(foreign) + b"\n" + b"".join(map(_line, forged)) + b'{"crc":12,"lab')
    found, unreadable = read_labels(path, session)
    assert (found[1].success, found[1].reward, unreadable) == (True, None, [*range(2, 12)])
    append_label(path, session, 1, None, 2.0)  # behind the torn line
    assert read_log(path).unused_labels == "10 lines (2, 3, 4, 5, 6, …) are not readable"
    assert read_log(path).episodes[1].label == Label(session, 1, True, 2.0, read_labels(path, session)[0][1].wall_ns)


def test_a_label_of_an_episode_that_is_not_there_is_told(written: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(EPISODE)
    append_label(path, read_log(path).header.session, 7, True, None)
    stream = LogStream(path)
    assert len(list(stream)) == 1
    assert stream.unused_labels == read_log(path).unused_labels == "episode 7 is labelled and not in the log"
    assert main(["info", str(path)]) == 0
    assert "episode 7 is labelled and not in the log" in capsys.readouterr().out


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("room", [0, 20])
def test_a_label_that_no_disk_has_room_for_leaves_what_was_there(written: Write, before: int, room: int) -> None:
    path = written(EPISODE)
    session = read_log(path).header.session
    for _ in range(before):
        append_label(path, session, 0, True, None)
    there = labels_path(path).read_bytes() if before else None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(there or b"") + room, hard))
    try:
        with pytest.raises(UserError, match=r"^cannot write .*labels\.jsonl: File too large$"):
            append_label(path, session, 0, False, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (labels_path(path).read_bytes() if labels_path(path).exists() else None) == there


def broken_off(path: Path, how: str) -> tuple[Path, list[int]]:
    """A log of one episode of six steps that ends in some way, labelled with −10; the steps that are kept of it."""
    writer = LogWriter(path, Session(make_spec().to_json()), flush_seconds=0.05)
    indices = [0, 1, 2, 3, 4, 5] if how != "gap" else [0, 1, 4, 5]
    for index in indices:
        row = step_row(index, 5, 3)
        row.truncated = how == "stopped" and index == 5
        writer.step(row)
    final = step_row(6, 5, 3).observation.tolist()
    if how == "ended":
        writer.event("episode_end", "steps", 0, 6, {"final_observation": final})
    elif how == "stopped":  # the last command still waits for its observation
        writer.event("stop", "deadman", 0, 5)
        writer.event("episode_end", "stop: deadman", 0, 6, {"final_observation": None})
    elif how == "dropped":
        writer.event("episode_end", "steps", 0, 9, {"final_observation": final})
    writer.close()
    if how == "torn":
        path.write_bytes(path.read_bytes()[:-40])
    append_label(path, writer.session.identity, 0, success=False, reward=-10.0)
    return path, {"ended": [0, 1, 2, 3, 4, 5], "gap": [0, 4]}.get(how, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("how", ["ended", "stopped", "torn", "dropped", "gap"])
def test_the_reward_is_on_the_last_step_that_is_kept(how: str, tmp_path: Path) -> None:
    path, kept = broken_off(tmp_path / "a.mcap", how)
    wanted = np.array([step_row(index, 5, 3).reward for index in kept], np.float32)
    wanted[-1] -= 10
    (episode,) = read_log(path).episodes
    rows = episode.transitions()
    assert rows["step"].tolist() == kept
    np.testing.assert_array_equal(rows["next_reward"], wanted)
    _, pieces, _ = segments([path])
    np.testing.assert_array_equal(np.concatenate([piece.columns["next_reward"] for piece in pieces]), wanted)
    assert [piece.success for piece in pieces] == [False] * len(pieces)


def test_persons_who_label_at_once_leave_no_line_that_is_not_readable(written: Write) -> None:
    path = written(EPISODE)
    session = read_log(path).header.session
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_label(path, session, 0, True, float(number)), range(400)))
    labels, unreadable = read_labels(path, session)
    assert (list(labels), unreadable) == ([0], [])
    assert labels_path(path).read_bytes().count(b'"crc"') == 400


def test_a_label_stays_one_line_of_json(written: Write) -> None:
    path = written(EPISODE)
    label_ = append_label(path, read_log(path).header.session, 0, None, 1.5)
    (line,) = labels_path(path).read_bytes().splitlines()
    said = orjson.loads(line)["label"]
    assert said | {"discard": None} == vars(label_)
    assert "discard" not in said, "older versions read it too"


def test_a_log_without_episodes_has_none_to_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    LogWriter(tmp_path / "a.mcap", Session("{}")).close()
    assert main(["label", str(tmp_path / "a.mcap"), "--episode", "0", "--success"]) == 2
    assert capsys.readouterr().err.endswith("a.mcap has no episode 0; it has none\n")
