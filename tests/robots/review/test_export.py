"""Exports read back with the libraries they are for, value for value."""

import errno
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.cli import main
from robots.log import LogWriter, Session, append_label, labels_path, read_log
from robots.log.images import Image
from robots.review.export import export, segments
from tests.needs import needs_export
from tests.robots.builders import make_spec, step_row

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gappy(tmp_path: Path) -> Path:
    """Two episodes, the first with a gap, the second without an end; the first labelled later."""
    writer = LogWriter(tmp_path / "gappy.mcap", Session(make_spec().to_json(), settings={"task": "put it there"}))
    for index in (0, 1, 2, 3, 6, 7, 8, 50, 51, 52):
        writer.step(step_row(index, 5, 3))
    final = step_row(9, 5, 3).observation.tolist()
    writer.event("episode_end", "steps", 0, 9, {"final_observation": final, "success": None})
    writer.close()
    append_label(writer.path, writer.session.identity, 0, success=True, reward=2.0)
    return writer.path


def test_segments_have_no_gaps(gappy: Path) -> None:
    _, found, _ = segments([gappy])
    assert [each.columns["step"].tolist() for each in found] == [[0, 1, 2], [6, 7, 8], [0, 1]]
    assert [each.columns["done"].tolist() for each in found] == [
        [False, False, True],
        [False, False, True],
        [False, True],
    ]
    assert [each.success for each in found] == [True, True, None]
    assert found[1].columns["next_reward"][-1] == np.float32(step_row(8, 5, 3).reward) + np.float32(2.0)


def test_what_a_dataset_does_not_say_is_said(gappy: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    with open(labels_path(gappy), "ab") as labels:
        labels.write(b"cut in two\n")
    gappy.write_bytes(gappy.read_bytes()[:-40])  # of what closes the file; every row is there
    said, *notes = export([gappy], "lerobot", tmp_path / "set").splitlines()
    assert said.endswith("set: 2 episodes in 3 pieces, as steps between them were not logged, 8 steps")
    assert [re.sub(r"\d[\d,]*", "N", note.removeprefix(f"{gappy}: ").partition(": ")[0]) for note in notes] == [
        "labels", "N bytes behind byte N are left out", "what is privileged stays in the log"
    ]  # fmt: skip
    assert "line 2 is not readable" in notes[0]
    table = pq.read_table(next((tmp_path / "set" / "data").rglob("*.parquet")))
    judged = dict(zip(table["episode_index"].to_pylist(), table["episode.success"].to_pylist(), strict=True))
    assert judged == {0: -1, 1: 1, 2: -1}, "the first piece of the successful episode is not a second one"


def test_lerobot_round_trip(session: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "lerobot\udcff"  # a byte that is no UTF-8
    assert main(["export", str(session), "--format", "lerobot", "--out", str(out)]) == 0
    out = out.rename(tmp_path / "lerobot")  # for pyarrow, which reads below
    info = json.loads((out / "meta" / "info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_episodes"], info["total_frames"]) == (80, 3, 180)
    where = info["data_path"].format(chunk_index=0, file_index=0)
    table = pq.read_table(out / where)
    assert set(table.column_names) == set(info["features"])
    _, expected, _ = segments([session])
    pairs = {"observation.state": "observation", "policy.log_prob": "log_prob", "policy.latent": "latent"}
    pairs |= {"policy.action": "action", "policy.version": "policy_version", "policy.valid": "valid"}
    pairs |= {"next.reward": "next_reward", "next.done": "done", "next.truncated": "next_truncated"}
    for theirs, ours in pairs.items():
        wanted = np.concatenate([each.columns[ours] for each in expected])
        read = np.array(table[theirs].to_pylist(), wanted.dtype)
        np.testing.assert_array_equal(read, wanted, err_msg=theirs)
        assert info["features"][theirs]["shape"] == (list(wanted.shape[1:]) or [1])
    sent = np.concatenate([each.columns["sent_action"] for each in expected]).astype(np.float32)
    np.testing.assert_array_equal(np.array(table["action"].to_pylist(), np.float32), sent)
    np.testing.assert_allclose(np.array(table["timestamp"]), np.array(table["frame_index"]) / 80, rtol=1e-6)
    episodes = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["length"] for row in episodes] == [60, 60, 60]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in episodes] == [
        (0, 60),
        (60, 120),
        (120, 180),
    ]
    tasks = pq.read_table(out / "meta" / "tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "reach-v3"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    statistics = json.loads((out / "meta" / "stats.json").read_text())
    observations = np.concatenate([each.columns["observation"] for each in expected])
    np.testing.assert_allclose(statistics["observation.state"]["mean"], observations.mean(0, dtype=float), atol=1e-6)


def test_the_task_is_a_pandas_index(gappy: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    out = tmp_path / "lerobot"
    assert main(["export", str(gappy), "--format", "lerobot", "--out", str(out)]) == 0
    assert pandas.read_parquet(out / "meta" / "tasks.parquet").loc["put it there"].task_index == 0


def test_minari_round_trip(session: Path, gappy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    pytest.importorskip("PIL")
    for log, name in ((session, "sim"), (gappy, "fake")):
        out = tmp_path / name
        assert main(["export", str(log), "--format", "minari", "--out", str(out)]) == 0
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(out))
        dataset = minari.load_dataset(f"gipo/{name}-v0")
        _, expected, _ = segments([log])
        assert dataset.total_episodes == len(expected)
        for episode, wanted in zip(dataset.iterate_episodes(), expected, strict=True):
            rows: dict[str, Any] = wanted.columns
            np.testing.assert_array_equal(episode.observations[:-1], rows["observation"])
            np.testing.assert_array_equal(episode.observations[1:], rows["next_observation"])
            np.testing.assert_array_equal(episode.actions, rows["sent_action"].astype(np.float32))
            np.testing.assert_array_equal(episode.rewards, rows["next_reward"])
            np.testing.assert_array_equal(episode.terminations, rows["next_terminated"])
            np.testing.assert_array_equal(episode.truncations, rows["next_truncated"])
            np.testing.assert_array_equal(episode.infos["log_prob"][1:], rows["log_prob"])
            np.testing.assert_array_equal(episode.infos["latent"][1:], rows["latent"])
            np.testing.assert_array_equal(episode.infos["valid"][1:, 0], rows["valid"])
            np.testing.assert_array_equal(episode.infos["policy_version"][1:, 0], rows["policy_version"])


def test_refusals(gappy: Path, session: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another robot"):
        segments([gappy, session])
    (tmp_path / "full").mkdir()
    shutil.copy(gappy, tmp_path / "full" / "x")
    assert main(["export", str(gappy), "--format", "lerobot", "--out", str(tmp_path / "full")]) == 2
    writer = LogWriter(tmp_path / "none.mcap", Session(make_spec().to_json()))
    writer.step(step_row(0, 5, 3))  # of which nobody knows what came next
    writer.close()
    with pytest.raises(UserError, match=r"there is nothing to export$"):
        segments([writer.path])
    assert read_log(gappy).episodes[0].label is not None


def say(path: Path, task: str, *instructions: str, **spec: Any) -> Path:
    """A log of one episode of three steps for each instruction that its policy acted on; none where it is empty."""
    writer = LogWriter(path, Session(make_spec(**spec).to_json(), settings={"task": task} if task else {}))
    for episode, instruction in enumerate(instructions):
        writer.event("episode_start", "", episode, 0, {"policy_id": "a" * 64, "instruction": instruction})
        for index in range(3):
            row = step_row(index, 5, 3)
            row.episode = episode
            writer.step(row)
        writer.event("episode_end", "steps", episode, 3, {"final_observation": [0.0] * 5})
    writer.close()
    return path


def test_every_episode_has_its_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    minari = pytest.importorskip("minari")
    logs = [
        say(tmp_path / "reach.mcap", "reach-v3", ""),
        say(tmp_path / "push.mcap", "push-v3", "", ""),
        say(tmp_path / "vision.mcap", "table-v0", "push the red block", "reach-v3"),
        say(tmp_path / "none.mcap", "", ""),
    ]
    wanted = ["reach-v3", "push-v3", "push-v3", "push the red block", "reach-v3", "robot session"]
    known = ["reach-v3", "push-v3", "push the red block", "robot session"]
    out = tmp_path / "lerobot"
    assert main(["export", *map(str, logs), "--format", "lerobot", "--out", str(out)]) == 0
    assert json.loads((out / "meta" / "info.json").read_text())["total_tasks"] == 4
    tasks = pq.read_table(out / "meta" / "tasks.parquet").to_pylist()
    assert tasks == [{"task_index": index, "task": task} for index, task in enumerate(known)]
    episodes = pq.read_table(out / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in episodes] == [[task] for task in wanted]
    frames = pq.read_table(out / "data/chunk-000/file-000.parquet")
    assert [known[index] for index in frames["task_index"].to_pylist()] == [each for each in wanted for _ in range(3)]
    assert [row["stats/task_index/max"] for row in episodes] == [[float(known.index(task))] for task in wanted]
    provenance = json.loads((out / "meta" / "gipo.json").read_text())
    assert [each["task"] for each in provenance["episodes"]] == wanted
    assert main(["export", *map(str, logs), "--format", "minari", "--out", str(tmp_path / "minari")]) == 0
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    dataset = minari.load_dataset("gipo/fake-v0")
    assert [each["task"] for each in dataset.storage.get_episode_metadata(range(6))] == wanted
    assert "push the red block" in dataset.storage.metadata["description"]


def test_an_episode_without_a_complete_step_leaves_none(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for index, episode in enumerate((0, 1, 1)):  # the first was stopped at its first command
        row = step_row(index, 5, 3)
        row.episode, row.step = episode, index - episode
        writer.step(row)
    writer.event("episode_end", "steps", 1, 2, {"final_observation": [0.0] * 5})
    writer.close()
    append_label(writer.path, writer.session.identity, 0, success=False, reward=-10.0)
    _, found, _ = segments([writer.path])
    assert [(each.episode, len(each.columns["step"])) for each in found] == [(1, 2)]
    assert found[0].columns["next_reward"].min() >= 0


def test_images_that_no_policy_saw_stay_in_the_log_and_it_is_said(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for index in range(3):
        writer.step(step_row(index, 5, 3))
        writer.image(Image("wrist", 1, 2, np.zeros((4, 4, 3), np.uint8), episode=0, step=index))
    writer.close()
    assert f"{writer.path}: camera images stay in the log" in segments([writer.path])[2]


def test_logs_that_do_not_go_together_are_refused_by_what_differs(tmp_path: Path) -> None:
    first = say(tmp_path / "a.mcap", "t", "")
    slower = say(tmp_path / "b.mcap", "t", "", control_rate_hz=40.0)
    wider = say(tmp_path / "c.mcap", "t", "", action_high=(2.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"b\.mcap is of another robot .*: its control_rate_hz is 40\.0 against 80\.0"):
        segments([first, slower])
    with pytest.raises(UserError, match=r"c\.mcap is of another robot .*: its action_high is \[2\.0"):
        segments([first, wider])


@pytest.mark.parametrize("copied", [False, True])
def test_one_session_by_two_paths_is_refused(copied: bool, gappy: Path, tmp_path: Path) -> None:
    from robots.review.report import write_report

    other = Path(shutil.copy(gappy, tmp_path / "copy.mcap")) if copied else gappy
    again: list[Callable[[], object]] = [
        lambda: segments([gappy, other]),
        lambda: write_report([gappy, other], tmp_path / "r.html"),
    ]
    for command in again:
        with pytest.raises(UserError, match=r"gappy\.mcap and .* are the same session; name one of them"):
            command()
    assert not (tmp_path / "r.html").exists()


def test_a_vector_of_one_number_is_stored_as_lerobot_stores_it(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    one: dict[str, Any] = {key: getattr(make_spec(), key)[:1] for key in make_spec().__dataclass_fields__
                           if key.startswith(("action_", "observation_"))}  # fmt: skip
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec(**one).to_json()))
    for index in range(3):
        writer.step(step_row(index, 1, 1))
    writer.close()
    assert main(["export", str(writer.path), "--format", "lerobot", "--out", str(tmp_path / "out")]) == 0
    table = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    assert str(table.schema.field("action").type) == "float"
    assert table["observation.state"].to_pylist() == [float(step_row(i, 1, 1).observation[0]) for i in range(2)]
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["features"]["action"]["shape"] == [1]


def test_a_reward_that_is_no_number_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(make_spec().to_json()))
    for index in range(4):
        row = step_row(index, 5, 3)
        row.reward = float("nan") if index == 2 else row.reward
        row.log_prob = np.full(3, np.nan, np.float32)  # of a step that no policy chose: nothing to refuse
        writer.step(row)
    writer.close()
    with pytest.raises(UserError, match=r"a\.mcap, episode 0, step 2: its next_reward is not finite"):
        segments([writer.path])
    assert main(["export", str(writer.path), "--format", "lerobot", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@needs_export
def test_a_file_in_the_place_of_the_folder_stays(session: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("somebody's")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        assert main(["export", str(session), "--format", "lerobot", "--out", str(out)]) == 2
        said = f"gipo-robot: error: cannot write {out}: {tmp_path / 'file'} is a file; name a folder\n"
        assert capsys.readouterr().err.endswith(said)
    assert (tmp_path / "file").read_text() == "somebody's"


def test_hdf5_without_room_is_one_line_and_leaves_nothing(session: Path, tmp_path: Path) -> None:
    """Where it finds out itself it ends the process."""
    pytest.importorskip("minari")
    out = tmp_path / "minari"
    code = (
        f"import resource, sys; from robots.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, "
        f"(1 << 16,) * 2); sys.exit(main(['export', {str(session)!r}, '--format', 'minari', '--out', "
        f"{str(out)!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    said = f"gipo-robot: error: cannot write {out}: File too large"
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, said)
    assert list(tmp_path.iterdir()) == []


@needs_export
@pytest.mark.parametrize("kind", ["lerobot", "minari"])
@pytest.mark.parametrize("exists", [False, True])
def test_an_export_that_fails_leaves_nothing_that_looks_like_one_and_may_be_tried_again(
    kind: str, exists: bool, gappy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    module = importlib.import_module(f"robots.review.export_{kind}")
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    arguments = ["export", str(gappy), "--format", kind, "--out", str(out)]
    with monkeypatch.context() as full:
        full.setattr(module, "_parquet" if kind == "lerobot" else "write_provenance", _full)
        assert main(arguments) == 2
    assert f"cannot write {out}: No space left on device" in capsys.readouterr().err
    assert [each.name for each in tmp_path.rglob("*") if not each.name.startswith("gappy")] == ["out"] * exists
    assert main(arguments) == 0
    (found,) = out.rglob("gipo.json")
    assert found.relative_to(out) == Path("meta/gipo.json" if kind == "lerobot" else "gipo/fake-v0/data/gipo.json")


def _full(path: Path, *content: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


@needs_export
@pytest.mark.parametrize("spec", ["{}", '{"name": "fake"}', "[]", "5", "null"])
def test_a_log_whose_robot_says_too_little_is_refused_in_one_line(spec: str, tmp_path: Path, capsys: Capture) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session(spec))
    writer.step(step_row(0, 5, 3))
    writer.step(step_row(1, 5, 3))
    writer.close()
    out = ["--out", str(tmp_path / "out")]
    for command in (["report"], ["export", "--format", "lerobot"], ["export", "--format", "minari"]):
        assert main([command[0], str(writer.path), *command[1:], *out]) == 2
        said = capsys.readouterr().err
        assert "the log's robot spec has no " in said or "miss JSON objects for robot and settings" in said
