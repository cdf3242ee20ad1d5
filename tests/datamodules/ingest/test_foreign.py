"""Datasets that are not ours: taken for what they say, and no more."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.review.export import export
from tests.datamodules.ingest.builders import store_of, write_log, write_persons

RATE, LENGTHS = 80, (5, 7, 4)


def write_lerobot(folder: Path, files: int = 2, **extra: Any) -> dict[str, np.ndarray]:
    """States and actions of three episodes over some files, and extra columns; what was written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = sum(LENGTHS)
    rng = np.random.default_rng(0)
    columns: dict[str, np.ndarray] = {
        "observation.state": rng.standard_normal((total, 5)).astype(np.float32),
        "action": rng.uniform(0, 1, (total, 3)).astype(np.float32),
        "frame_index": np.concatenate([np.arange(n) for n in LENGTHS]),
        "timestamp": np.concatenate([np.arange(n) for n in LENGTHS]).astype(np.float32) / RATE,
        "episode_index": np.repeat(np.arange(3), LENGTHS),
        **{name.replace("__", "."): np.array(values) for name, values in extra.items()},
    }
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    (folder / "data" / "chunk-000").mkdir(parents=True)
    cuts = np.linspace(0, total, files + 1).astype(int).tolist()
    for index in range(files):  # an episode goes on in the next file
        pq.write_table(
            table.slice(cuts[index], cuts[index + 1] - cuts[index]),
            folder / "data" / "chunk-000" / f"file-{index:03d}.parquet",
        )
    features: dict[str, Any] = {
        "observation.state": {
            "dtype": "float32",
            "shape": [5],
            "names": [f"s{i}" for i in range(5)],
        },
        "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "grip"]}},
    }
    info = {"codebase_version": "v3.0", "fps": RATE, "total_frames": total, "total_episodes": 3, "features": features}
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return columns


@pytest.mark.parametrize("files", [1, 3])
def test_lerobot_states_and_actions(files: int, tmp_path: Path) -> None:
    columns = write_lerobot(tmp_path / "d", files=files)
    store = store_of(tmp_path / "d", cache=tmp_path / "cache")
    frames, facts = store.frames, store.facts
    # The last step of an episode has no next observation.
    kept = np.concatenate([np.arange(n) < n - 1 for n in LENGTHS])
    np.testing.assert_array_equal(frames["observation"], columns["observation.state"][kept])
    np.testing.assert_array_equal(frames["next", "observation"], columns["observation.state"][np.flatnonzero(kept) + 1])
    np.testing.assert_array_equal(frames["action"], columns["action"][kept])
    np.testing.assert_array_equal(frames["sent_action"], columns["action"][kept])
    assert frames["step"].tolist() == [*range(4), *range(6), *range(3)]
    assert frames["next", "truncated"].nonzero().flatten().tolist() == [3, 9, 12]
    assert not frames["next", "terminated"].any()
    assert frames["valid"].all()
    for name in ("policy", "policy_version", "success", "source"):
        assert (frames[name] == -1).all()
    assert (facts.has_log_prob, "log_prob" in frames.keys(), facts.judged) == (False, False, 0)
    assert any("no log-probs of behaviour policies" in note for note in facts.notes)
    assert any("no next observation" in note for note in facts.notes)
    assert facts.interface.action_names == ("x", "y", "grip")
    assert (facts.interface.control_rate_hz, facts.interface.action_low) == (80.0, None)


def test_lerobot_ends_and_rewards(tmp_path: Path) -> None:
    ends = [n - 1 + sum(LENGTHS[:i]) for i, n in enumerate(LENGTHS)]
    done, success = np.zeros(16, bool), np.zeros(16, bool)
    done[ends[0]] = success[ends[2]] = True
    write_lerobot(tmp_path / "d", next__done=done, next__success=success, next__reward=np.arange(16.0))
    frames = store_of(tmp_path / "d", cache=tmp_path / "cache").frames
    assert frames["next", "reward"].tolist() == [*range(5), *range(5, 11), *range(12, 16)]
    assert frames["next", "terminated"].nonzero().flatten().tolist() == [4, 14]
    assert frames["next", "truncated"].nonzero().flatten().tolist() == [10]
    assert frames["success"].tolist() == [0] * 11 + [1] * 4


@pytest.mark.parametrize(("lacking", "has"), [(0, "a"), (1, "no")])
def test_lerobot_files_that_differ_in_their_columns(lacking: int, has: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_lerobot(tmp_path / "d", next__reward=[1.0] * sum(LENGTHS))
    path = tmp_path / "d" / "data" / "chunk-000" / f"file-{lacking:03d}.parquet"
    pq.write_table(pq.read_table(path).drop_columns("next.reward"), path)
    with pytest.raises(
        UserError, match=rf"file-001\.parquet has {has} column next\.reward, unlike the files before it"
    ):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


def test_a_copy_with_other_metadata_is_the_same_data(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "one", 1)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    path = tmp_path / "other" / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "robot_type": "so101"}))
    with pytest.raises(UserError, match=r"one and .*other hold the same data; name one of them"):
        store_of(tmp_path / "one", tmp_path / "other", cache=tmp_path / "cache")


def test_lerobot_that_goes_on_after_its_end(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "d", next__done=np.arange(16) == 6)
    with pytest.raises(UserError, match="episode 1, step 1: the episode is done and yet goes on"):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


def test_lerobot_log_probs_need_trust(tmp_path: Path) -> None:
    policy = {
        "latent": np.zeros((16, 3), np.int64),
        "log_prob": np.full((16, 3), -1.0),
        "policy_version": np.arange(16),
    }
    write_lerobot(tmp_path / "d", **policy)
    with pytest.raises(
        UserError, match=r"names no policy that they could be checked with; data\.ingest\.audit=0 trusts them$"
    ):
        store_of(tmp_path / "d", cache=tmp_path / "cache")
    store = store_of(tmp_path / "d", cache=tmp_path / "cache", audit=0.0)
    assert store.facts.has_log_prob
    write_lerobot(tmp_path / "summed", **policy | {"log_prob": np.full(16, -3.0, np.float32)})
    with pytest.raises(UserError, match=r"log_prob has shape \[4, 1\], it must be \[4, 3\]$"):  # as all episodes
        store_of(tmp_path / "summed", cache=tmp_path / "cache", audit=0.0)
    assert (store.frames["log_prob"] == -1).all()
    assert store.frames["policy_version"].tolist() == [*range(4), *range(5, 11), *range(12, 15)]
    assert store.facts.policies == ()


def write_minari(folder: Path, monkeypatch: pytest.MonkeyPatch, terminated: bool) -> list[np.ndarray]:
    minari = pytest.importorskip("minari")
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    rng = np.random.default_rng(0)
    seen = [rng.standard_normal((n + 1, 5)) for n in LENGTHS]
    buffers = [
        EpisodeBuffer(
            id=index,
            observations=seen[index],
            actions=rng.uniform(0, 1, (n, 3)).astype(np.float32),
            rewards=np.arange(n, dtype=float),
            terminations=np.arange(n) == (n - 1 if terminated else -1),
            truncations=np.zeros(n, bool),
            infos={},
        )
        for index, n in enumerate(LENGTHS)
    ]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    minari.create_dataset_from_buffers(
        "theirs/set-v0",
        buffers,
        observation_space=Box(-np.inf, np.inf, (5,), np.float64),
        action_space=Box(np.array([-1, -1, 0.0]), np.ones(3), (3,), np.float64),
        algorithm_name="a",
        author="a",
        author_email="a",
        code_permalink="a",
        description="a",
    )
    return seen


@pytest.mark.parametrize("terminated", [False, True])
def test_minari_of_others(terminated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = write_minari(tmp_path / "root", monkeypatch, terminated)
    store = store_of(tmp_path / "root", cache=tmp_path / "cache")
    frames = store.frames
    np.testing.assert_array_equal(frames["observation"], np.concatenate([s[:-1] for s in seen]).astype(np.float32))
    following = np.concatenate([s[1:] for s in seen]).astype(np.float32)
    np.testing.assert_array_equal(frames["next", "observation"], following)
    assert frames["next", "reward"].tolist() == [*range(5), *range(7), *range(4)]
    ends = [4, 11, 15]
    assert frames["next", "terminated" if terminated else "truncated"].nonzero().flatten().tolist() == ends
    assert frames["next", "done"].nonzero().flatten().tolist() == ends
    assert not store.facts.has_log_prob
    interface = store.facts.interface
    assert (interface.action_low, interface.action_high, interface.control_rate_hz) == ((-1, -1, 0), (1, 1, 1), None)


@pytest.mark.parametrize("place", ["episode_1", "episode_1/rewards", "stored", "virtual"])
def test_minari_whose_data_stand_in_another_file_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store is known by what is in its sources: what changes beside them would not be seen."""
    write_minari(tmp_path / "root", monkeypatch, terminated=False)
    import h5py

    (data,) = (tmp_path / "root").rglob("main_data.hdf5")
    shutil.copy(data, tmp_path / "other.h5")
    with h5py.File(data, "a") as file:
        rewards = file["episode_1/rewards"][:]
        if place.startswith("episode"):
            del file[place]
            file[place] = h5py.ExternalLink(str(tmp_path / "other.h5"), place)
        else:
            del file["episode_1/rewards"]
            kind = rewards.dtype
            if place == "stored":
                (tmp_path / "raw").write_bytes(rewards.tobytes())
                file["episode_1"].create_dataset(
                    "rewards", rewards.shape, kind, external=[(str(tmp_path / "raw"), 0, rewards.nbytes)]
                )
            else:
                layout = h5py.VirtualLayout(rewards.shape, kind)
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "episode_1/rewards", rewards.shape)
                file["episode_1"].create_virtual_dataset("rewards", layout)
    with pytest.raises(UserError, match=r"main_data\.hdf5: .*another file; copy"):
        store_of(tmp_path / "root", cache=tmp_path / "cache")


def test_a_type_with_a_name_is_no_data_of_a_minari_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_minari(tmp_path / "root", monkeypatch, terminated=False)
    import h5py

    (data,) = (tmp_path / "root").rglob("main_data.hdf5")
    with h5py.File(data, "a") as file:
        file["types/position"] = np.dtype("f4")
    assert store_of(tmp_path / "root", cache=tmp_path / "cache").facts.steps == 16


@pytest.mark.parametrize("mutations", [20, pytest.param(600, marks=pytest.mark.campaign)])
def test_a_damaged_minari_file_is_one_line_where_it_is_the_only_source(
    mutations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_minari(tmp_path / "root", monkeypatch, terminated=False)
    (data,) = (tmp_path / "root").rglob("main_data.hdf5")
    whole, rng = data.read_bytes(), np.random.default_rng(0)
    refused: list[str] = []
    for _ in range(mutations):
        spoilt = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 5)):
            spoilt[place] = rng.integers(0, 256)
        data.write_bytes(bytes(spoilt))
        try:
            store = store_of(tmp_path / "root", cache=tmp_path / "cache", workers=1)
        except UserError as error:
            refused.append(str(error))
        else:  # what was changed is a number, or what HDF5 does not use
            assert store.facts.steps == len(store.frames["action"]) == 16
    assert 0 < len(refused) < mutations
    assert all("set-v0" in said and "\n" not in said for said in refused)


def test_a_mix_with_sources_that_say_less(
    token: OnnxPolicy, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lerobot(tmp_path / "theirs")
    log = write_log(tmp_path / "a.mcap", [token])
    store = store_of(log, tmp_path / "theirs", cache=tmp_path / "cache", policies=folder)
    assert not store.facts.has_log_prob
    assert "latent" not in store.frames.keys()
    assert store.facts.notes[0].endswith("theirs has none, and so those of the others are left out")
    assert store.facts.audit.steps == 30
    assert store.facts.interface.observation_units == ("m",) * 5
    assert sorted(set(store.frames["policy"].tolist())) == [-1, 0]
    write_minari(tmp_path / "root", monkeypatch, terminated=False)
    assert store_of(log, tmp_path / "root", cache=tmp_path / "cache", policies=folder).facts.steps == 36 + 16


def test_a_log_of_a_person_alone_leaves_the_others_their_log_probs(
    token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    log, person = write_log(tmp_path / "a.mcap", [token]), write_persons(tmp_path / "person.mcap")
    alone = store_of(log, cache=tmp_path / "cache", policies=folder)
    for sources in ((log, person), (person, log)):
        store = store_of(*sources, cache=tmp_path / "cache", policies=folder)
        assert store.facts.has_log_prob
        assert not any("log-probs" in note for note in store.facts.notes)
        theirs = torch.zeros(51, dtype=torch.bool)
        theirs[:15] = sources[0] is person
        theirs[-15:] = sources[1] is person
        for name in ("latent", "log_prob"):
            assert torch.equal(store.frames[name][~theirs], alone.frames[name])
            assert not store.frames[name][theirs].any()
        assert not store.frames["valid"][theirs].any()
    assert not store_of(person, cache=tmp_path / "cache", policies=folder).facts.has_log_prob


def test_an_export_without_its_provenance_names_no_policy(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    export([write_log(tmp_path / "a.mcap", [token])], "minari", tmp_path / "m")
    (tmp_path / "m" / "gipo" / "fake-v0" / "data" / "gipo.json").unlink()
    with pytest.raises(UserError, match="names no policy"):
        store_of(tmp_path / "m", cache=tmp_path / "cache", policies=folder)


@pytest.mark.parametrize(
    ("feature", "shape", "reason"),
    [("observation.state", [5, 2], "must be one vector"), ("action", [4], "action has shape .*3.* must be .*4")],
)
def test_lerobot_of_other_shapes(feature: str, shape: list[int], reason: str, tmp_path: Path) -> None:
    write_lerobot(tmp_path / "d")
    path = tmp_path / "d" / "meta" / "info.json"
    info = json.loads(path.read_text())
    info["features"][feature] = {"dtype": "float32", "shape": shape, "names": None}
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=reason):
        store_of(tmp_path / "d", cache=tmp_path / "cache")


def test_datasets_of_a_clone_without_git_lfs(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    write_lerobot(tmp_path / "d", files=1)
    (tmp_path / "d" / "data" / "chunk-000" / "file-000.parquet").write_text(pointer)
    with pytest.raises(UserError, match=r"file-000\.parquet is no Parquet file: it is a pointer of Git LFS"):
        store_of(tmp_path / "d", cache=tmp_path / "cache")
    spaces = {f"{name}_space": json.dumps({"type": "Box", "shape": [2]}) for name in ("observation", "action")}
    (tmp_path / "m" / "data").mkdir(parents=True)
    (tmp_path / "m" / "data" / "metadata.json").write_text(json.dumps({**spaces, "total_episodes": 1}))
    (tmp_path / "m" / "data" / "main_data.hdf5").write_text(pointer)
    with pytest.raises(UserError, match=r"main_data\.hdf5 is no HDF5 file: it is a pointer of Git LFS"):
        store_of(tmp_path / "m", cache=tmp_path / "cache")
