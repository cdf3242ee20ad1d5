"""Conventions of other tools' datasets: which row belongs to which step, in which order, and what is not said."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from datamodules.ingest import IngestOptions
from gipo.common.errors import UserError
from gipo.common.reading import MAX_TEXT
from tests.datamodules.ingest.builders import store_of
from tests.datamodules.ingest.foreign import buffer, write_collected, write_frames
from tests.robots.strangers import write_rosbag

pytest.importorskip("minari")


class Reach(gymnasium.Env):  # type: ignore[type-arg]
    """Counts to a length; succeeds at the last step, and its reset says what the last episode's end said."""

    observation_space, action_space = Box(-9.0, 9.0, (5,)), Box(-1.0, 1.0, (3,))

    def __init__(self) -> None:
        self.lengths, self.success = [3, 4, 5, 6], False

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.time, self.length = 0, self.lengths.pop(0)
        return np.full(5, 0, np.float32), {"success": self.success, "time": 0}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.success = self.time == self.length and self.length != 5  # the third fails
        info = {"success": self.success, "time": self.time}
        return np.full(5, self.time, np.float32), float(self.time), self.success, self.time == self.length, info


def tree_map(function: Any, tree: Any, *rest: Any) -> Any:
    if isinstance(tree, dict):
        return {key: tree_map(function, tree[key], *(each[key] for each in rest)) for key in tree}
    return function(tree, *rest)


def collect(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four episodes by Minari's own collector, which wants one function of jax."""
    jax, tree_util = ModuleType("jax"), ModuleType("jax.tree_util")
    tree_util.tree_map = tree_map  # type: ignore[attr-defined]
    jax.tree_util = tree_util  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setitem(sys.modules, "jax.tree_util", tree_util)
    from minari import DataCollector

    folder.mkdir()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    env = DataCollector(Reach(), record_infos=True)
    for _ in range(4):
        env.reset()
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(np.zeros(3, np.float32))
            over = terminated or truncated
    env.create_dataset("theirs/reach-v0", algorithm_name="a", author="a", author_email="a", code_permalink="a",
                       description="a")  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_infos_of_minaris_collector_belong_to_the_step_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py

    collect(tmp_path / "root", monkeypatch)
    with h5py.File(tmp_path / "root" / "theirs" / "reach-v0" / "data" / "main_data.hdf5") as file:
        rows = [file[f"episode_{index}/infos/success"][()].tolist() for index in range(4)]
    assert [len(each) for each in rows] == [4, 5, 6, 7]
    assert [any(each[:-1]) for each in rows] == [False, True, True, False]  # what the resets say
    store = store_of(tmp_path / "root", cache=tmp_path / "cache")
    assert (store.facts.judged, store.facts.successes) == (4, 3)
    assert store.frames["success"].tolist() == [1] * 3 + [1] * 4 + [0] * 5 + [1] * 6
    assert store.frames["next", "reward"].tolist() == [*range(1, 4), *range(1, 5), *range(1, 6), *range(1, 7)]
    assert store.frames["next", "observation"][:, 0].tolist() == store.frames["next", "reward"].tolist()
    assert store.frames["next", "terminated"].nonzero().flatten().tolist() == [2, 6, 17]
    assert store.frames["next", "truncated"].nonzero().flatten().tolist() == [11]


@pytest.mark.parametrize("rows", ["of the steps", "and the reset's"])
def test_infos_of_as_many_rows_as_steps_are_theirs(rows: str, tmp_path: Path) -> None:
    version = np.arange(4)[:, None]
    log_prob, latent = -np.arange(1.0, 13).reshape(4, 3), np.arange(12).reshape(4, 3)
    infos = {"policy_version": version, "log_prob": log_prob, "latent": latent, "step": version * 100}
    if rows == "and the reset's":
        infos = {name: np.concatenate([values[-1:] + 90, values]) for name, values in infos.items()}
    write_collected(tmp_path / "root", [buffer(4, infos=infos)])
    frames = store_of(tmp_path / "root", cache=tmp_path / "cache", audit=0.0).frames
    assert frames["policy_version"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(frames["log_prob"], log_prob)
    np.testing.assert_array_equal(frames["latent"], latent)
    assert frames["step"].tolist() == [0, 1, 2, 3]  # theirs may count anything


@pytest.mark.parametrize("name", ["success", "is_success"])
def test_success_by_either_name_at_any_step(name: str, tmp_path: Path) -> None:
    said = [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]  # at a step, at the reset, at the end
    buffers = [buffer(4, index, infos={name: np.array(each, float)}) for index, each in enumerate(said)]
    store = store_of(write_collected(tmp_path / "root", buffers), cache=tmp_path / "cache")
    assert store.frames["success"].tolist() == [1] * 4 + [0] * 4 + [1] * 4


def test_what_minari_says_by_a_name_of_ones_own_is_told_as_not_read(tmp_path: Path) -> None:
    infos = {"succeeded": np.ones(4), "valid": np.ones(4), "terms": {"reach": np.zeros(4)}}
    nothing = buffer(3, 2, infos={"success": np.zeros(4)})
    write_collected(tmp_path / "root", [buffer(3, infos=infos), buffer(3, 1), nothing])
    facts = store_of(tmp_path / "root", cache=tmp_path / "cache").facts
    assert [note.split(": ")[1:] for note in facts.notes if "not read" in note] == [
        ["not read", "infos/succeeded, infos/terms"]
    ]
    assert (facts.judged, facts.successes) == (1, 0)


def test_a_column_that_float32_rounds_to_more_than_whole_numbers_is_told(tmp_path: Path) -> None:
    seen = np.zeros((4, 5))
    seen[:, 1] = 1.75e9 + np.arange(4)  # seconds since 1970
    seen[:, 3] = -np.array([0, 2**24, 1, 1])  # the last whole number before which none is left out
    write_collected(tmp_path / "root", [buffer(3, observations=seen), buffer(3, 1)])
    facts = store_of(tmp_path / "root", cache=tmp_path / "cache").facts
    assert [note.split(": ")[1] for note in facts.notes if "float32 has" in note] == [
        "observation 1 comes to 1.75e+09, where float32 has steps of 128; a constant subtracted where it is recorded "
        "keeps what is between"
    ]


def test_a_success_that_is_no_yes_or_no_is_refused(tmp_path: Path) -> None:
    write_collected(tmp_path / "root", [buffer(3, infos={"success": np.array([0, 0, np.nan, 0])})])
    with pytest.raises(UserError, match="episode 0, step 1: success is nan; it must be 0 or 1"):
        store_of(tmp_path / "root", cache=tmp_path / "cache")


def test_terminated_and_truncated_at_once_is_terminated(tmp_path: Path) -> None:
    last = np.arange(4) == 3
    write_collected(tmp_path / "root", [buffer(4, terminations=last, truncations=last)])
    frames = store_of(tmp_path / "root", cache=tmp_path / "cache").frames
    assert (int(frames["next", "terminated"].sum()), int(frames["next", "truncated"].sum())) == (1, 0)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int64])
def test_numbers_of_any_type_are_the_same_numbers(kind: type, tmp_path: Path) -> None:
    actions = np.array([[0, 1, -1], [1, 0, 0]], kind)
    write_collected(tmp_path / "root", [buffer(2, actions=actions)], action_space=Box(-1, 1, (3,), kind))
    store = store_of(tmp_path / "root", cache=tmp_path / "cache")
    np.testing.assert_array_equal(store.frames["action"], actions.astype(np.float32))
    assert store.facts.interface.action_low == (-1.0, -1.0, -1.0)


@pytest.mark.parametrize(
    ("spaces", "columns", "reason"),
    [
        ({"action_space": Discrete(4)}, {"actions": np.zeros(3, int)}, "its actions are a space 'Discrete'"),
        (
            {"observation_space": Dict({"b": Box(0, 1, (2,)), "a": Box(0, 1, (3,))})},
            {"observations": {"b": np.zeros((4, 2)), "a": np.zeros((4, 3))}},
            "its observations are a space 'Dict'; they must be one vector",
        ),
        (
            {"observation_space": Box(0, 1, (2, 2))},
            {"observations": np.zeros((4, 2, 2))},
            r"its observations are a Box of shape \[2, 2\]",
        ),
    ],
)
def test_what_is_no_vector_is_refused(
    spaces: dict[str, Any], columns: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    write_collected(tmp_path / "root", [buffer(3, **columns)], **spaces)
    with pytest.raises(UserError, match=reason):
        store_of(tmp_path / "root", cache=tmp_path / "cache")


def test_datasets_of_other_forms_name_the_way_out(tmp_path: Path) -> None:
    path = write_collected(tmp_path / "root", [buffer(3)])
    (path / "data" / "metadata.json").rename(path / "metadata.old")
    with pytest.raises(UserError, match=r"metadata\.json is missing: Minari before 0\.5 wrote the dataset"):
        store_of(path, cache=tmp_path / "cache")
    (path / "metadata.old").rename(path / "data" / "metadata.json")
    (path / "data" / "main_data.hdf5").unlink()
    with pytest.raises(UserError, match="is a Minari dataset whose data are not in HDF5"):
        store_of(path, cache=tmp_path / "cache")
    for version, way in (("v2.1", "convert_dataset_v21_to_v30"), ("v4.0", "upgrade gipo")):
        write_frames(tmp_path / version, (3,), {}, codebase_version=version)
        with pytest.raises(UserError, match=f"says format '{version}'; it must be v3, .*{way}"):
            store_of(tmp_path / version, cache=tmp_path / "cache")
    write_frames(tmp_path / "still", (3,), {}, fps=0)
    with pytest.raises(UserError, match="says fps 0; it must be above 0"):
        store_of(tmp_path / "still", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (["x", "y", "grip"], ("x", "y", "grip")),
        ({"motors": ["x", "y", "grip"]}, ("x", "y", "grip")),
        ({"grip": 2, "x": 0, "y": 1}, ("x", "y", "grip")),
        ({"grip": 2, "x": 0, "y": 0}, None),
        (["x", "y"], None),
        (None, None),
    ],
)
def test_names_are_in_the_order_of_the_vector(names: Any, known: tuple[str, ...] | None, tmp_path: Path) -> None:
    write_frames(tmp_path / "d", (3, 3), {})
    path = tmp_path / "d" / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["action"]["names"] = names
    path.write_text(json.dumps(info))
    assert store_of(tmp_path / "d", cache=tmp_path / "cache").facts.interface.action_names == known


def test_what_is_not_read_or_not_said_is_told(tmp_path: Path) -> None:
    write_frames(tmp_path / "d", (3, 3), {"task_index": [0, 0, 0, 1, 1, 1]}, total_tasks=2)
    path = tmp_path / "d" / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"]["observation.images.top"] = {"dtype": "video", "shape": [480, 640, 3], "names": None}
    info["features"]["is_last"] = {"dtype": "bool", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    notes = "\n".join(store_of(tmp_path / "d", cache=tmp_path / "cache").facts.notes)
    assert "not read: is_last, observation.images.top" in notes
    assert "it has no next.reward; every reward is 0" in notes
    info["features"]["reward"] = {"dtype": "float32", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    renamed = "\n".join(store_of(tmp_path / "d", cache=tmp_path / "other").facts.notes)
    assert "it has no next.reward (reward is no name that LeRobot gives); every reward is 0" in renamed
    assert "it holds 2 tasks; a policy of states alone is not told which" in notes
    assert "next.done" not in notes


def test_episodes_of_one_step_do_not_hide_what_holds_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many episodes that nothing is learned from, one note."""
    from datamodules.replay.logs import Logs

    write_frames(tmp_path / "d", (1,) * 20 + (3,), {})
    options = IngestOptions(cache=tmp_path / "cache")
    assert Logs(str(tmp_path / "d"), options, None, 0).store.facts.episodes == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / 'd'}, episode 0 holds no complete step; so it is with 19 more of its episodes\n" in told
    assert "it has no next.reward; every reward is 0" in told
    assert "no log-probs of behaviour policies" in told
    assert told.count("gipo: note: ") == 4


def test_vectors_of_one_number_stand_as_numbers(tmp_path: Path) -> None:
    columns = {"observation.state": np.arange(6.0), "action": np.arange(6.0) / 10}
    write_frames(tmp_path / "d", (3, 3), columns)
    path = tmp_path / "d" / "meta" / "info.json"
    info = json.loads(path.read_text())
    for name in columns:
        info["features"][name]["shape"] = [1]
    path.write_text(json.dumps(info))
    frames = store_of(tmp_path / "d", cache=tmp_path / "cache").frames
    assert frames["observation"].tolist() == [[0.0], [1.0], [3.0], [4.0]]
    assert frames["next", "observation"].tolist() == [[1.0], [2.0], [4.0], [5.0]]


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    columns = write_frames(tmp_path / "d", (3, 3, 3), {})
    file = tmp_path / "d" / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(file)
    file.unlink()
    for name, start in (("file-999", 0), ("file-1000", 4)):  # the second episode goes on in the next file
        pq.write_table(table.slice(start, 4 if start == 0 else 5), file.with_name(f"{name}.parquet"))
    frames = store_of(tmp_path / "d", cache=tmp_path / "cache").frames
    np.testing.assert_array_equal(frames["observation"], columns["observation.state"][[0, 1, 3, 4, 6, 7]])


@pytest.mark.parametrize("scale", [1e3, 1e9, 0.5, -1.0])
def test_times_of_another_unit_or_rate_are_refused(scale: float, tmp_path: Path) -> None:
    write_frames(tmp_path / "d", (3, 3), {"timestamp": np.tile(np.arange(3) / 80, 2) * scale})
    with pytest.raises(
        UserError, match=r"episode 0, step 1 comes .* s after the one before; at 80 Hz it must be 0\.0125"
    ):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("episode_index", [[0, 0]] * 6, "the column episode_index holds 2 numbers a row; it must hold one"),
        ("episode_index", [0.0, 0.0, 0.0, float("nan"), 1.0, 1.0], "the column episode_index holds float64; it must"),
        ("timestamp", [[0.0, 0.0]] * 6, "the column timestamp holds 2 numbers a row"),
        ("next.reward", [[0.0, 1.0]] * 6, "the column next.reward holds 2 numbers a row"),
        ("next.done", ["no"] * 6, "the column next.done holds string"),
        ("next.truncated", [None] * 6, "the column next.truncated holds null"),
    ],
)
def test_columns_of_another_form_are_refused(column: str, values: list[Any], reason: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_frames(tmp_path / "d", (3, 3), {"next.reward": np.zeros(6)})
    file = tmp_path / "d" / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(file)
    if column in table.column_names:
        table = table.drop_columns([column])
    pq.write_table(table.append_column(column, pa.array(values)), file)
    with pytest.raises(UserError, match=reason):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("total_frames", float("inf"), "is no description of a LeRobot dataset: OverflowError"),
        ("fps", "fast", "is no description of a LeRobot dataset: ValueError"),
        ("total_tasks", [2], "is no description of a LeRobot dataset: TypeError"),
        ("features", {"action": {}, "observation.images.top": 3}, "the feature observation.images.top is no object"),
        pytest.param("robot_type", " " * MAX_TEXT, r"info\.json' has \d+ bytes, more than the 4194304", id="no end"),
    ],
)
def test_a_description_of_another_form_is_refused(key: str, value: Any, reason: str, tmp_path: Path) -> None:
    write_frames(tmp_path / "d", (3,), {}, **{key: value})
    with pytest.raises(UserError, match=reason):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("episode_0/rewards", "all good", "episode 0: its rewards are no numbers for every step"),
        ("episode_0", [1.0], "episode 0: it is no group of observations, actions and rewards"),
        ("total_episodes", 10**30, "holds 1 episodes, its metadata say 10{30}"),
        ("action_space", '{"type": "Box", "shape": [3], "low": "x"}', "describes no flat Box .* ValueError"),
    ],
)
def test_minari_data_of_another_form_are_refused(place: str, value: Any, reason: str, tmp_path: Path) -> None:
    import h5py

    path = write_collected(tmp_path / "root", [buffer(3)])
    metadata = path / "data" / "metadata.json"
    if place.startswith("episode"):
        with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
            del file[place]
            file[place] = value
    else:
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), place: value}))
    with pytest.raises(UserError, match=reason):
        store_of(path, cache=tmp_path / "cache")


def test_a_dataset_says_what_reading_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_frames(tmp_path / "d", (3,), {})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UserError, match=r"/d: reading it needs pyarrow: pip install '\.\[export\]' in a clone of gipo$"
    ):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


def test_a_bag_beside_a_dataset_does_not_hide_it(tmp_path: Path) -> None:
    bag = write_rosbag(tmp_path / "bag.mcap")
    with pytest.raises(UserError, match="profile 'ros2'"):
        store_of(tmp_path, cache=tmp_path / "cache")
    write_frames(tmp_path / "set", (3, 3), {})
    store = store_of(tmp_path, cache=tmp_path / "cache")
    assert store.facts.steps == 4
    assert store.left_out == (f"{bag} is no log of gipo-robot: an MCAP file of profile 'ros2'",)
