"""Broken and hostile sources are refused with their place, or left out and named; nothing is altered."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.ingest import IngestOptions, pipeline
from datamodules.ingest.audit import chosen
from datamodules.ingest.checks import Behaviour, checked
from datamodules.ingest.interface import Interface
from datamodules.ingest.sources.base import Trajectory
from deploy.export.checkpoint_policy import CheckpointPolicy
from deploy.runtime.acting import ActingPolicy
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import LogWriter, Session, Step, labels_path
from robots.review.export import export
from tests.datamodules.ingest.builders import BINS, assert_equal_frames, drop, rows_of, store_of, write_log
from tests.robots.builders import make_spec
from tests.robots.strangers import write_of_schema, write_rosbag

# Of episode 1, whose row 5 is spoilt.
Spoil = Callable[[Step], None]


def setting(**values: object) -> Spoil:
    def spoil(row: Step) -> None:
        for name, value in values.items():
            setattr(row, name, value)

    return spoil


def element(name: str, value: float) -> Spoil:
    def spoil(row: Step) -> None:
        values = np.array(getattr(row, name))
        values[1] = value
        setattr(row, name, values)

    return spoil


SPOILT: dict[str, tuple[Spoil, str]] = {
    "NaN observed": (element("observation", np.nan), "step [45]: (its )?(next_)?observation is not finite"),
    "NaN asked": (element("action", np.nan), "step 5: action is not finite"),
    "infinity sent": (element("sent_action", np.inf), "step 5: sent_action is not finite"),
    "reward too large": (setting(reward=1e39), "step 5: reward is not finite"),
    "NaN log-prob": (element("log_prob", np.nan), "step 5: log_prob is not finite"),
    "positive log-prob": (element("log_prob", 0.1), "step 5: log_prob of a token is above 0"),
    "other log-prob": (element("log_prob", -9.0), r"step 5: log_prob is off by .* nats"),
    "token too large": (element("latent", BINS), rf"step 5: latent is no token from 0 to {BINS - 1}"),
    "token below 0": (element("latent", -1), "step 5: latent is no token"),
    "action too large": (element("action", 1.001), "step 5: action is outside of its bounds"),
    "other version": (setting(policy_version=6), "step 5: policy_version is not 7"),
    "later version": (setting(policy_version=8), "step 5: policy_version is not 7"),
    "done too early": (setting(terminated=True), "step 5: the episode is done and yet goes on"),
    "valid and a person's": (setting(source="person"), "step 5: valid, yet the policy did not choose"),
    "step repeated": (setting(step=4), "step 4 is out of order"),
}


def spoilt(path: Path, policy: ActingPolicy, spoil: Spoil, seed: int = 0) -> Path:
    def change(episode: int, rows: list[Step]) -> None:
        if episode == 1:
            spoil(rows[5])

    return write_log(path, [policy], (8, 9, 10), seed, change=change)


@pytest.mark.parametrize("name", SPOILT)
def test_a_bad_episode_is_refused_or_left_out_by_name(
    name: str, token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    spoil, reason = SPOILT[name]
    path = spoilt(tmp_path / "a.mcap", token, spoil)
    before = path.read_bytes()
    way_out = r"; data\.ingest\.bad_episodes=skip leaves such episodes out$"
    with pytest.raises(UserError, match=rf"a\.mcap, episode 1[:,] {reason}.*{way_out}"):
        store_of(path, cache=tmp_path / "cache", policies=folder)
    assert not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]
    store = store_of(path, cache=tmp_path / "cache", policies=folder, bad_episodes="skip")
    assert [where for where, _ in store.facts.skipped] == [f"{path}, episode 1"]
    assert (store.facts.episodes, store.facts.steps) == (2, 18)
    good = store_of(write_log(tmp_path / "b.mcap", [token], (8, 9, 10)), cache=tmp_path / "cache", policies=folder)
    kept = good.frames[good.frames["episode"] != 1]
    np.testing.assert_array_equal(store.frames["observation"], kept["observation"])
    np.testing.assert_array_equal(store.frames["next", "reward"], kept["next", "reward"])
    assert store.frames["episode"].tolist() == [0] * 8 + [1] * 10
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["NaN observed", "other log-prob", "other version", "token too large"])
@pytest.mark.parametrize("kind", ["lerobot", "minari"])
def test_exports_are_checked_alike(name: str, kind: str, token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    spoil, reason = SPOILT[name]
    log = spoilt(tmp_path / "a.mcap", token, spoil)
    if name == "NaN observed":
        with pytest.raises(UserError, match=rf"a\.mcap, episode 1, {reason}"):
            export([log], kind, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        return
    export([log], kind, tmp_path / "out")
    with pytest.raises(UserError, match=rf"episode 1[:,] {reason}"):
        store_of(tmp_path / "out", cache=tmp_path / "cache", policies=folder)


def test_a_share_of_the_audit_finds_a_share_of_the_lies(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    path = spoilt(tmp_path / "a.mcap", token, element("log_prob", -9.0))
    assert store_of(path, cache=tmp_path, policies=folder, audit=0.2).facts.audit.share == 0.2
    trusted = store_of(path, cache=tmp_path, policies=folder, audit=0.0)
    assert (trusted.facts.audit.steps, dict(trusted.facts.audit.largest)) == (0, {})
    assert "not audited" in trusted.facts.notes[0]


def test_logs_of_a_served_checkpoint_are_audited_with_it(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "policies" / "served.ckpt"
    file.parent.mkdir()
    shutil.copy(folder / "token.ckpt", file)
    policy = CheckpointPolicy(file)
    honest = write_log(tmp_path / "a.mcap", [policy])
    audited = store_of(honest, cache=tmp_path, policies=file.parent).facts.audit
    assert audited.largest.keys() == {policy.policy_id}
    assert audited.steps > 0
    with pytest.raises(UserError, match="or that of the checkpoint that was served"):
        store_of(honest, cache=tmp_path)  # checkpoints are used where they are asked for
    with pytest.raises(UserError, match="log_prob is off by"):
        store_of(spoilt(tmp_path / "b.mcap", policy, element("log_prob", -9.0)), cache=tmp_path, policies=file.parent)


def test_a_served_checkpoint_is_loaded_by_one_process(
    folder: Path, token: OnnxPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be of a model that no machine, nor its GPU, holds as often as there are cores."""
    file, asked = tmp_path / "policies" / "served.ckpt", []
    file.parent.mkdir()
    shutil.copy(folder / "token.ckpt", file)
    run_jobs = pipeline.run_jobs
    monkeypatch.setattr(
        pipeline, "run_jobs", lambda jobs, workers, tick: asked.append(workers) or run_jobs(jobs, 1, tick)
    )
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 4}, raising=False)  # of however many
    for name, policy, policies in (("a", token, folder), ("b", CheckpointPolicy(file), file.parent)):
        logs = [write_log(tmp_path / f"{name}{seed}.mcap", [policy], seed=seed) for seed in range(2)]
        store_of(*logs, cache=tmp_path, policies=policies, workers=None)
    assert asked == [3, 1]


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.01, 1))
def test_audited_steps_are_evenly_spaced_over_the_valid_ones(valid: list[bool], share: float) -> None:
    rows = chosen(np.array(valid), share)
    known = np.flatnonzero(valid)
    assert len(rows) == len(set(rows.tolist())) == int(np.ceil(share * len(known)))
    assert set(rows.tolist()) <= set(known.tolist())
    if len(rows) > 1:
        places = np.searchsorted(known, rows)
        assert (places[0], places[-1]) == (0, len(known) - 1)
        assert np.ptp(np.diff(places)) <= 1


def test_gaps_must_be_declared(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    store = store_of(drop(tmp_path / "a.mcap", token, declared=True), cache=tmp_path, policies=folder)
    assert store.frames["step"].tolist() == [0, 1, 2, 7, 8, 9, 10, 11]
    assert store.frames["next", "truncated"].tolist() == [False, False, True, False, False, False, False, True]
    assert store.facts.episodes == 1
    with pytest.raises(UserError, match="episode 0: steps 4 to 6 are missing, and the log does not say"):
        store_of(drop(tmp_path / "b.mcap", token, declared=False), cache=tmp_path, policies=folder)


def test_unknown_policies(token: OnnxPolicy, newer: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    unnamed = write_log(tmp_path / "a.mcap", [token], named=[newer])
    with pytest.raises(UserError, match=f"episode 0: policy {token.policy_id} is unknown"):
        store_of(unnamed, cache=tmp_path, policies=folder)
    with pytest.raises(UserError, match="is unknown"):
        store_of(unnamed, cache=tmp_path, policies=folder, audit=0.0)
    (tmp_path / "empty").mkdir()
    log = write_log(tmp_path / "b.mcap", [token])
    with pytest.raises(UserError, match=rf"no artifact of policy {token.policy_id} is.* data\.ingest\.policies"):
        store_of(log, cache=tmp_path, policies=tmp_path / "empty")
    assert store_of(log, cache=tmp_path, policies=tmp_path / "empty", audit=0.0).facts.steps == 36
    with pytest.raises(UserError, match="is no folder"):
        store_of(log, cache=tmp_path, policies=tmp_path / "none")


def test_artifacts_beside_the_logs_are_found(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "policy.onnx").write_bytes((folder / "token.onnx").read_bytes())
    log = write_log(tmp_path / "run" / "logs" / "a.mcap", [token])
    assert store_of(log, cache=tmp_path).facts.audit.steps == 30


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_beside_the_logs_that_may_not_be_read_is_none_of_them(
    token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.onnx").touch(mode=0)
    log = write_log(tmp_path / "a.mcap", [token])
    with pytest.raises(UserError, match=rf"no artifact of policy {token.policy_id}"):
        store_of(log, cache=tmp_path / "cache")
    (tmp_path / "policy.onnx").write_bytes((folder / "token.onnx").read_bytes())
    assert store_of(log, cache=tmp_path / "cache").facts.audit.steps == 30
    with pytest.raises(UserError, match=r"other\.onnx"):
        store_of(log, cache=tmp_path / "cache", policies=tmp_path)


def test_steps_that_no_policy_chose_need_none(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    def by_hand(episode: int, rows: list[Step]) -> None:
        for row in rows:
            row.valid, row.log_prob = False, np.full(3, np.nan, np.float32)

    log = write_log(tmp_path / "a.mcap", [token], (6,), change=by_hand, policy_id="f" * 64)
    store = store_of(log, cache=tmp_path, policies=folder)
    assert store.frames["policy"].tolist() == [-1] * 6
    assert not store.frames["valid"].any()
    assert not store.frames["log_prob"].any()
    assert store.facts.policies == ()


def test_a_damaged_log_is_refused_at_its_byte_whatever_is_skipped(
    token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    path = write_log(tmp_path / "a.mcap", [token], (300, 300))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for bad_episodes in ("refuse", "skip"):
        with pytest.raises(UserError, match=r"damaged from byte \d+ of \d+: .*verify --quarantine"):
            store_of(path, cache=tmp_path, policies=folder, bad_episodes=bad_episodes)


@pytest.mark.parametrize("size", [0, 5, 60])
def test_a_log_killed_at_its_start_holds_nothing(size: int, token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    good = write_log(tmp_path / "logs" / "a.mcap", [token])
    (tmp_path / "logs" / "b.mcap").write_bytes(good.read_bytes()[:size])
    store = store_of(tmp_path / "logs", cache=tmp_path, policies=folder)
    assert [each.steps for each in store.facts.sources] == [36, 0]
    assert any("b.mcap ends before it says whose log it is" in note for note in store.facts.notes)
    with pytest.raises(UserError, match=r"b\.mcap ends before it says"):
        store_of(tmp_path / "logs" / "b.mcap", cache=tmp_path, policies=folder)


def test_what_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=r"no source: .*MCAP.*LeRobot v3.*info\.json.*Minari.*main_data\.hdf5"):
            store_of(path, cache=tmp_path / "cache")
    with pytest.raises(UserError, match="does not exist"):
        store_of(tmp_path / "none", cache=tmp_path / "cache")
    with pytest.raises(UserError, match="no source is named"):
        store_of(cache=tmp_path / "cache")


def test_a_log_of_no_robot(tmp_path: Path) -> None:
    LogWriter(tmp_path / "a.mcap", Session('{"name": "x"}')).close()
    with pytest.raises(UserError, match=r"spec\.\w+ is missing"):
        store_of(tmp_path / "a.mcap", cache=tmp_path / "cache")


def test_labels_of_another_log_are_refused(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    from robots.log import append_label

    path = write_log(tmp_path / "a.mcap", [token])
    append_label(path, "0" * 32, 0, success=True, reward=None)
    with pytest.raises(UserError, match="belongs to another log"):
        store_of(path, cache=tmp_path, policies=folder)
    labels_path(path).unlink()
    assert store_of(path, cache=tmp_path, policies=folder).facts.judged == 2


@pytest.fixture
def lerobot(token: OnnxPolicy, tmp_path: Path) -> Path:
    export([write_log(tmp_path / "a.mcap", [token])], "lerobot", tmp_path / "lerobot")
    return tmp_path / "lerobot"


@pytest.fixture
def minari(token: OnnxPolicy, tmp_path: Path) -> Path:
    export([write_log(tmp_path / "a.mcap", [token])], "minari", tmp_path / "minari")
    return tmp_path / "minari" / "gipo" / "fake-v0"


DATA = "data/chunk-000/file-000.parquet"


def test_a_lerobot_file_that_is_cut_short(lerobot: Path, folder: Path, tmp_path: Path) -> None:
    path = lerobot / DATA
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"file-000\.parquet is damaged or cut short"):
        store_of(lerobot, cache=tmp_path, policies=folder)
    path.unlink()
    with pytest.raises(UserError, match=r"holds 0 frames of 0 episodes, its meta/info\.json says 36 of 3"):
        store_of(lerobot, cache=tmp_path, policies=folder)


@pytest.mark.parametrize("column", ["policy.log_prob", "observation.state", "next.reward", "policy.step"])
def test_a_lerobot_column_that_is_missing(column: str, lerobot: Path, folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(lerobot / DATA).drop_columns([column]), lerobot / DATA)
    with pytest.raises(UserError, match=rf"file-000\.parquet has no column {column}"):
        store_of(lerobot, cache=tmp_path, policies=folder)


@pytest.mark.parametrize(
    ("column", "row", "value", "reason"),
    [
        ("frame_index", 14, 9, "episode 1: frame_index 9 where 2 must be"),
        ("timestamp", 14, 9.0, "episode 1, step 2 comes .* rates are mixed"),
        ("next.reward", 14, None, "episode 1, step 2: reward is not finite"),
        ("policy.valid", 14, None, "the column policy.valid holds"),
        ("episode_index", 35, 0, "episode 0: goes on after a later one began"),
    ],
)
def test_lerobot_rows_that_are_spoilt(
    column: str, row: int, value: object, reason: str, lerobot: Path, folder: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(lerobot / DATA)
    values = table[column].to_pylist()
    values[row] = value
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, table[column].type)), lerobot / DATA)
    with pytest.raises(UserError, match=reason):
        store_of(lerobot, cache=tmp_path, policies=folder)


@pytest.mark.parametrize("key", ["format", "robot", "manifests", "episodes"])
def test_a_provenance_that_is_spoilt(key: str, lerobot: Path, folder: Path, tmp_path: Path) -> None:
    path = lerobot / "meta" / "gipo.json"
    whole = json.loads(path.read_text())
    for spoilt in ({**whole, key: None}, {name: value for name, value in whole.items() if name != key}):
        path.write_text(json.dumps(spoilt))
        with pytest.raises(UserError, match=r"gipo\.json .*export it again"):
            store_of(lerobot, cache=tmp_path, policies=folder)
    beyond = [{**each, "final_observation": [10**400]} for each in whole["episodes"]]
    path.write_text(json.dumps({**whole, "episodes": beyond}))
    with pytest.raises(UserError, match=r"gipo\.json is damaged \(OverflowError"):
        store_of(lerobot, cache=tmp_path, policies=folder)
    path.write_text(json.dumps({**whole, "episodes": whole["episodes"][:-1]}))
    with pytest.raises(UserError, match="tells of 2 episodes, the dataset has 3"):
        store_of(lerobot, cache=tmp_path, policies=folder)


def test_lerobot_of_another_format(lerobot: Path, folder: Path, tmp_path: Path) -> None:
    info = json.loads((lerobot / "meta" / "info.json").read_text())
    cases = [({**info, "codebase_version": "v2.1"}, "must be v3"), ({"fps": 3}, "no description of a LeRobot dataset")]
    features = {name: value for name, value in info["features"].items() if name != "action"}
    cases.append(({**info, "features": features}, "has no feature action"))
    for changed, reason in cases:
        (lerobot / "meta" / "info.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=reason):
            store_of(lerobot, cache=tmp_path, policies=folder)


def test_minari_files_that_are_spoilt(minari: Path, folder: Path, tmp_path: Path) -> None:
    import h5py

    path = minari / "data" / "main_data.hdf5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"main_data\.hdf5 is damaged or cut short"):
        store_of(minari, cache=tmp_path, policies=folder)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["episode_1/infos/log_prob"]
    with pytest.raises(UserError, match="episode 1: its infos/log_prob are missing"):
        store_of(minari, cache=tmp_path, policies=folder)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file["episode_1/actions"].resize(5, 0)
    with pytest.raises(UserError, match="episode 1: its actions have 5 rows, 9 must be there"):
        store_of(minari, cache=tmp_path, policies=folder)
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        del file["episode_2"]
    with pytest.raises(UserError, match="holds 2 episodes, its metadata say 3"):
        store_of(minari, cache=tmp_path, policies=folder)
    path.write_bytes(whole)
    write = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", write, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match=r"main_data\.hdf5 cannot be locked: close what writes to it; where"):
            store_of(minari, cache=tmp_path, policies=folder)
        other.kill()
    path.write_bytes(whole)
    with h5py.File(path, "a") as file:
        file.move("episode_1", "episode_7")
    with pytest.raises(UserError, match="3 episodes, and none is called episode_1, but one episode_7; rename them"):
        store_of(minari, cache=tmp_path, policies=folder)


INTERFACE = Interface(5, 3, action_low=(-1.0, -1.0, 0.0), action_high=(1.0, 1.0, 1.0))
BEHAVIOUR = Behaviour("0" * 64, 7, Interface(5, 3, family="token", parameters_per_dimension=BINS))
VALUES = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 1e30, -1e30])
WHOLE = st.sampled_from([-1, 0, 1, 7, BINS])
NAMES = ["observation", "next_observation", "action", "sent_action", "log_prob", "reward", "latent", "step"]


@pytest.fixture(scope="module")
def rows(token: OnnxPolicy) -> dict[str, np.ndarray]:
    steps = rows_of(token, 1, 12)
    found = {name: np.array([getattr(row, name) for row in steps]) for name in NAMES if name != "next_observation"}
    found |= {name: np.array([getattr(row, name) for row in steps]) for name in ("policy_version", "valid")}
    ends = {name: np.array([getattr(row, name) for row in steps]) for name in ("terminated", "truncated")}
    source = np.where(found["valid"], 0, 2)
    return {**found, **ends, "source": source, "next_observation": found["observation"][::-1].copy()}


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_columns_are_refused_or_keep_every_promise(rows: dict[str, np.ndarray], data: st.DataObject) -> None:
    columns = {name: values.copy() for name, values in rows.items()}
    for _ in range(data.draw(st.integers(0, 3))):
        name = data.draw(st.sampled_from(sorted(columns)))
        values = columns[name]
        kind = data.draw(st.sampled_from(["set", "cut", "type", "remove", "widen"]))
        if kind == "set" and values.size:
            flat = values.reshape(-1)
            flat[data.draw(st.integers(0, flat.size - 1))] = data.draw(VALUES if values.dtype.kind == "f" else WHOLE)
        elif kind == "cut":
            columns[name] = values[: data.draw(st.integers(1, 11))]
        elif kind == "type":
            columns[name] = values.astype(data.draw(st.sampled_from([np.float64, np.int32, np.bool_, np.float32])))
        elif kind == "widen":
            columns[name] = values[:, None]
        else:
            del columns[name]
            break
    given_ = {name: values.copy() for name, values in columns.items()}
    try:
        found = checked(Trajectory(columns, "0" * 64, None, native=True), INTERFACE, BEHAVIOUR)
    except UserError:
        return
    finally:
        for name, values in given_.items():
            np.testing.assert_array_equal(columns[name], values)
    assert all(np.isfinite(found[name]).all() for name in found if found[name].dtype.kind == "f")
    assert all(values.dtype in (np.float32, np.int64, np.int8, np.bool_) for values in found.values())
    assert all(len(values) == len(found["step"]) for values in found.values())
    assert (np.diff(found["step"]) > 0).all()
    assert found["terminated"][-1] or found["truncated"][-1]
    valid = found["valid"]
    assert (found["policy_version"][valid] == 7).all()
    assert (found["source"][valid] <= 0).all()
    assert np.isin(found["source"], (-1, 0, 1, 2)).all()
    assert (np.abs(found["action"][valid]) <= 1 + 1e-5).all()
    if "log_prob" in found:
        assert (found["log_prob"][valid] <= 1e-6).all()
        assert not found["log_prob"][~valid].any()
        assert ((found["latent"][valid] >= 0) & (found["latent"][valid] < BINS)).all()


def test_spec_of_the_fixture_is_the_interface() -> None:
    assert (INTERFACE.action_low, INTERFACE.action_high) == (make_spec().action_low, make_spec().action_high)


def test_strangers_in_a_folder_are_left_out_and_told(
    token: OnnxPolicy, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datamodules.replay.logs import Logs

    log = write_log(tmp_path / "logs" / "ours.mcap", [token])
    alone = store_of(tmp_path / "logs", cache=tmp_path / "cache", policies=folder)
    bag, later = write_rosbag(tmp_path / "logs" / "bag.mcap"), write_of_schema(tmp_path / "logs" / "newer.mcap")
    (tmp_path / "logs" / "zeros.mcap").write_bytes(bytes(4096))
    store = store_of(tmp_path / "logs", cache=tmp_path / "cache", policies=folder)
    assert_equal_frames(store, alone)
    assert [Path(each.path).name for each in store.facts.sources] == ["ours.mcap", "zeros.mcap"]
    assert store.left_out[0] == f"{bag} is no log of gipo-robot: an MCAP file of profile 'ros2'"
    assert store.left_out[1].startswith(f"{later}: the log has schema 2")
    for path, reason in ((bag, "no log of gipo-robot"), (later, "schema 2")):
        with pytest.raises(UserError, match=reason):
            store_of(log, path, cache=tmp_path / "cache", policies=folder)
    capsys.readouterr()
    options = IngestOptions(cache=tmp_path / "cache", policies=folder, audit=1.0)
    assert Logs(str(tmp_path / "logs"), options, None, 0).store.path == store.path
    told = capsys.readouterr().err
    assert f"gipo: note: left out: {bag} is no log of gipo-robot" in told
    assert "zeros.mcap ends before it says whose log it is" in told
    for number in range(20):  # of which the store, made without them, holds no word
        shutil.copy(bag, tmp_path / "logs" / f"bag{number}.mcap")
    assert Logs(str(tmp_path / "logs"), options, None, 0).store.path == store.path
    told = capsys.readouterr().err
    assert "left out: 10 more of the folders; `gipo-robot verify` names every file" in told
    assert "zeros.mcap ends before it says whose log it is" in told
    assert "more in" not in told


def test_a_log_of_zeros_behind_a_cut_is_the_log_cut_there(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.mcap", [token], (300, 300))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9000])
    cut = store_of(path, cache=tmp_path / "cache", policies=folder)
    path.write_bytes(whole[:-9000] + bytes(9000))
    zeros = store_of(path, cache=tmp_path / "cache", policies=folder)
    assert zeros.path != cut.path
    assert_equal_frames(zeros, cut)
    assert any("zeros from byte" in note for note in zeros.facts.notes)


def test_labels_that_say_nothing_are_noted(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.mcap", [token])
    with open(labels_path(path), "ab") as file:
        file.write(b"episode 0 went well\n")
    store = store_of(path, cache=tmp_path / "cache", policies=folder)
    assert f"{labels_path(path)}: line 1 is not readable" in store.facts.notes
