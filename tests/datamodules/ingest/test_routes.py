"""The same data through a log, a LeRobot export and a Minari export gives the same frames, bit for bit."""

import json
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.ingest import Facts, Interface
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.common.transition import EXPORTED, STORE
from robots.log import LogWriter, Session, Step, append_label, read_log
from robots.review.export import export
from tests.datamodules.ingest.builders import BINS, assert_equal_frames, drop, rows_of, store_of, write_log
from tests.robots.builders import make_spec


def routes(logs: list[Path], folder: Path) -> list[Path]:
    for kind in ("lerobot", "minari"):
        export(logs, kind, folder / kind)
    return [folder / "lerobot", folder / "minari"]


@pytest.fixture
def logs(tmp_path: Path, token: OnnxPolicy, newer: OnnxPolicy) -> list[Path]:
    """Two sessions of two policies, one gap, labels, every kind of outcome, an episode cut by a kill."""
    (tmp_path / "logs").mkdir()
    first = write_log(tmp_path / "logs" / "a.mcap", [token, newer], (12, 9, 15, 2, 40))
    second = drop(tmp_path / "logs" / "b.mcap", token, declared=True)
    third = write_log(tmp_path / "logs" / "c.mcap", [newer], (30, 1, 60), seed=3)
    third.write_bytes(third.read_bytes()[:-1800])
    append_label(first, read_log(first).header.session, 0, success=True, reward=2.5)
    append_label(first, read_log(first).header.session, 2, success=False, reward=None)
    return [first, second, third]


def test_three_routes_give_equal_frames(
    logs: list[Path], folder: Path, token: OnnxPolicy, newer: OnnxPolicy, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    direct = store_of(*logs, cache=cache, policies=folder)
    for path in routes(logs, tmp_path):
        other = store_of(path, cache=cache, policies=folder)
        assert_equal_frames(direct, other)
        for name in ("policies", "interface", "has_log_prob", "steps", "episodes", "judged", "successes", "audit"):
            assert getattr(other.facts, name) == getattr(direct.facts, name)
        assert {session for each in other.facts.sources for session in each.sessions} == {
            read_log(log).header.session for log in logs
        }
    assert direct.facts.policies == (token.policy_id, newer.policy_id)
    assert store_of(tmp_path / "logs", cache=cache, policies=folder).path == direct.path  # the folder is its logs


def test_an_export_of_the_first_format_is_read_by_its_own_rows(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (4, 6))
    direct = store_of(log, cache=tmp_path / "cache", policies=folder)
    export([log], "minari", tmp_path / "minari")
    data = tmp_path / "minari" / "gipo" / "fake-v0" / "data"
    with h5py.File(data / "main_data.hdf5", "a") as file:  # there the info of step t was row t, and the last repeated
        for episode in file.values():
            for info in episode["infos"].values():
                info[...] = np.concatenate([info[1:], info[-1:]])
    said = json.loads((data / "gipo.json").read_text())
    assert said["format"] == 2
    (data / "gipo.json").write_text(json.dumps({**said, "format": 1}))
    assert_equal_frames(direct, store_of(tmp_path / "minari", cache=tmp_path / "cache", policies=folder))
    (data / "gipo.json").write_text(json.dumps({**said, "format": 3}))
    with pytest.raises(UserError, match="has format 3, this gipo reads 1, 2; export it again"):
        store_of(tmp_path / "minari", cache=tmp_path / "cache", policies=folder)


def test_an_export_whose_sidecar_is_gone_says_all_but_what_followed_the_last_step(
    token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    """LeRobot's edit commands write data sets of their own, without it."""
    log = write_log(tmp_path / "a.mcap", [token], (4, 6))
    export([log], "lerobot", tmp_path / "d")
    whole = store_of(tmp_path / "d", cache=tmp_path / "cache", policies=folder).frames
    (tmp_path / "d" / "meta" / "gipo.json").unlink()
    found = store_of(tmp_path / "d", cache=tmp_path / "cache", audit=0.0).frames
    rest = whole[~whole["next", "truncated"].flatten()]  # nothing follows a termination
    assert len(found) == len(rest) > 4
    for key in ("action", "sent_action", "latent", "log_prob", "policy_version", "valid", "source", "success"):
        assert found[key].numpy().tobytes() == rest[key].numpy().tobytes(), key


@pytest.mark.parametrize("kind", ["lerobot", "minari"])
def test_an_export_older_than_a_field_has_its_default(
    kind: str, token: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "a.mcap", [token], (4, 6))
    direct = store_of(log, cache=tmp_path / "cache", policies=folder)
    export([log], kind, tmp_path / kind)
    later = [field for field in EXPORTED if field.later]
    if kind == "lerobot":
        file = next((tmp_path / kind / "data").rglob("*.parquet"))
        pq.write_table(pq.read_table(file).drop_columns([field.lerobot for field in later]), file)
    else:
        with h5py.File(next((tmp_path / kind).rglob("*.hdf5")), "a") as data:
            for episode in data.values():
                for field in later:
                    del episode[field.minari]
    older = store_of(tmp_path / kind, cache=tmp_path / "cache", policies=folder).frames
    columns = {name: older[name].numpy() for name in ("valid", "policy_version")}
    for name in direct.frames.keys():
        if name not in {field.name for field in later}:
            assert (older[name] == direct.frames[name]).all(), name
    for field in (field for field in later if STORE in field.places):
        np.testing.assert_array_equal(older[field.name].numpy(), field.default_of(columns), strict=True)


def test_frames_are_what_the_logs_hold(logs: list[Path], folder: Path, tmp_path: Path) -> None:
    store = store_of(*logs, cache=tmp_path / "cache", policies=folder)
    frames, start = store.frames, 0
    episodes = [episode for log in logs for episode in read_log(log).episodes]
    assert store.facts.episodes == len(episodes)
    for number, episode in enumerate(episodes):
        rows = episode.transitions()
        part = frames[start : start + len(rows["step"])]
        start += len(part)
        for name in ("observation", "action", "latent", "step", "policy_version", "valid", "chunk_step", "source"):
            np.testing.assert_array_equal(part[name].numpy(), rows[name], err_msg=name, strict=True)
        np.testing.assert_array_equal(part["sent_action"].numpy(), rows["sent_action"].astype(np.float32), strict=True)
        for name in ("observation", "reward", "terminated", "truncated"):
            np.testing.assert_array_equal(part["next", name].numpy(), rows[f"next_{name}"], err_msg=name, strict=True)
        np.testing.assert_array_equal(part["next", "done"].numpy(), rows["done"])
        valid = rows["valid"][:, None]
        np.testing.assert_array_equal(part["log_prob"].numpy(), np.where(valid, rows["log_prob"], 0), strict=True)
        assert (part["episode"] == number).all()
        assert (part["success"] == (-1 if episode.success is None else int(episode.success))).all()
        assert {store.facts.policies[int(index)] for index in part["policy"]} == {episode.policy_id}
    assert start == len(frames) == store.facts.steps == sum(each.steps for each in store.facts.sources)
    assert store.facts.judged == sum(episode.success is not None for episode in episodes)
    assert store.facts.successes == sum(episode.success is True for episode in episodes)
    assert store.facts.audit.steps == int(frames["valid"].sum())
    assert "c.mcap is torn" in store.facts.notes[0]
    assert Facts.from_json(store.facts.to_json()) == store.facts


def test_the_interface_is_the_robots(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    found = store_of(write_log(tmp_path / "a.mcap", [token]), cache=tmp_path, policies=folder).facts.interface
    spec = make_spec()
    assert found.observation_names == spec.observation_names
    assert found.action_low == spec.action_low
    assert (found.control_rate_hz, found.family, found.parameters_per_dimension) == (80.0, "token", BINS)


def test_gaussian_latents_keep_their_type(gaussian: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [gaussian])
    direct = store_of(log, cache=tmp_path / "cache", policies=folder)
    assert direct.frames["latent"].dtype == direct.frames["log_prob"].dtype
    for path in routes([log], tmp_path):
        assert_equal_frames(direct, store_of(path, cache=tmp_path / "cache", policies=folder))


def test_a_mix_of_kinds_is_one_store(token: OnnxPolicy, newer: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    logs = [write_log(tmp_path / f"{seed}.mcap", [token, newer], seed=seed) for seed in range(3)]
    export(logs[1:2], "lerobot", tmp_path / "one")
    export(logs[2:], "minari", tmp_path / "two")
    mixed = store_of(logs[0], tmp_path / "one", tmp_path / "two", cache=tmp_path / "cache", policies=folder)
    assert [each.kind for each in mixed.facts.sources] == ["mcap", "lerobot", "minari"]
    assert_equal_frames(mixed, store_of(*logs, cache=tmp_path / "cache", policies=folder))
    parallel = store_of(*reversed(logs), cache=tmp_path / "cache", policies=folder, workers=2)
    whole = mixed.frames
    first = 2 * len(whole) // 3  # three logs of as many steps: the last one is first here
    np.testing.assert_array_equal(parallel.frames["observation"][: len(whole) - first], whole["observation"][first:])


def test_the_same_data_twice_is_refused(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token])
    export([log], "lerobot", tmp_path / "lerobot")
    for twice in ([log, log], [log, tmp_path / "lerobot"]):
        with pytest.raises(UserError, match=r"a\.mcap and .* hold the same data"):
            store_of(*twice, cache=tmp_path / "cache", policies=folder)


def test_other_robots_are_refused(token: OnnxPolicy, folder: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.mcap", [token])
    slower = make_spec(control_rate_hz=40.0)
    other = write_log(tmp_path / "b.mcap", [token], spec=slower, seed=1)
    with pytest.raises(UserError, match=r"a\.mcap and .*b\.mcap do not fit.*control_rate_hz is 80\.0 against 40\.0"):
        store_of(log, other, cache=tmp_path / "cache", policies=folder)
    with pytest.raises(UserError, match=r"b\.mcap, episode 0: policy .* another robot: control_rate_hz is 40\.0"):
        store_of(other, cache=tmp_path / "cache", policies=folder)


def test_policies_of_two_families_are_refused(
    token: OnnxPolicy, gaussian: OnnxPolicy, folder: Path, tmp_path: Path
) -> None:
    logs = [write_log(tmp_path / "a.mcap", [token]), write_log(tmp_path / "b.mcap", [gaussian])]
    with pytest.raises(UserError, match=r"a\.mcap and .*b\.mcap do not fit together: family"):
        store_of(*logs, cache=tmp_path / "cache", policies=folder)
    mixed = write_log(tmp_path / "c.mcap", [token, gaussian])
    with pytest.raises(UserError, match=r"c\.mcap, episode 1: policy .* differs from the policies before it: family"):
        store_of(mixed, cache=tmp_path / "cache", policies=folder)


def test_interfaces_that_say_nothing_differ_from_nothing() -> None:
    bare, full = Interface(5, 3), Interface.of_spec(vars(make_spec()))
    assert bare.difference(full) == full.difference(bare) == ""
    assert bare.merged(full) == full
    assert "observation_size is 4 against 5" in Interface(4, 3).difference(full)


def test_bounds_are_compared_as_policies_hold_them() -> None:
    stated, held = 0.35, float(np.float32(0.35))
    assert stated != held
    dataset, artifact = (Interface(5, 1, action_low=(-each,), action_high=(each,)) for each in (stated, held))
    assert dataset.difference(artifact) == artifact.difference(dataset) == ""
    assert "action_high is (0.35,) against (0.3501,)" in dataset.difference(Interface(5, 1, action_high=(0.3501,)))
    assert "action_low" in dataset.difference(Interface(5, 1, action_low=(-0.35, 0.0)))


EPISODE = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 6),
        "dropped": st.sets(st.integers(1, 3), max_size=1),
        "end": st.sampled_from(["seen", "waiting", "unsaid"]),
        "terminated": st.booleans(),
        "labels": st.lists(st.tuples(st.sampled_from([None, True, False]), st.sampled_from([0.5, -10.0])), max_size=2),
    }
)


def write_any(path: Path, policy: OnnxPolicy, episodes: list[dict[str, Any]], torn: bool) -> Path:
    """A log of these episodes; a step that was dropped is declared."""
    session = Session(make_spec().to_json(), {policy.policy_id: policy.manifest.to_json()}, {"task": "any"})
    writer = LogWriter(path, session)
    for number, said in enumerate(episodes):
        writer.event("episode_start", "", number, 0, {"policy_id": policy.policy_id})
        for row in rows_of(policy, number, said["steps"]):
            last = row.step == said["steps"] - 1
            row.terminated = last and said["terminated"]
            row.truncated = last and not said["terminated"]
            if row.step in said["dropped"] and not last:
                place = (number, row.step)
                writer.event("dropped", "", number, row.step, {"count": 1, "first": place, "last": place})
            else:
                writer.step(row)
        if said["end"] != "unsaid":
            final = [0.25] * 5 if said["end"] == "seen" else None
            writer.event("episode_end", "", number, said["steps"], {"final_observation": final})
    writer.close()
    if torn:
        path.write_bytes(path.read_bytes()[:-40])
    for number, said in enumerate(episodes):
        for success, reward in said["labels"]:
            append_label(path, session.identity, number, success, reward)
    return path


@given(st.lists(EPISODE, min_size=1, max_size=3), st.booleans())
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exports_of_any_log_read_back_as_the_log(
    token: OnnxPolicy, folder: Path, episodes: list[dict[str, Any]], torn: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        log = write_any(root / "a.mcap", token, episodes, torn)
        kept = [each.transitions() for each in read_log(log).episodes]
        if not any(len(rows["step"]) for rows in kept):
            return
        direct = store_of(log, cache=root / "cache", policies=folder, audit=0.0)
        assert direct.facts.steps == sum(len(rows["step"]) for rows in kept)
        rewards = np.concatenate([rows["next_reward"] for rows in kept])
        np.testing.assert_array_equal(direct.frames["next", "reward"], rewards)
        for path in routes([log], root):
            other = store_of(path, cache=root / "cache", policies=folder, audit=0.0)
            assert_equal_frames(direct, other)
            assert (other.facts.judged, other.facts.successes) == (direct.facts.judged, direct.facts.successes)
        # Without the file that marks them as ours they are anybody's, and their rows still belong together.
        for mark in (root / "lerobot/meta/gipo.json", root / "minari/gipo/fake-v0/data/gipo.json"):
            mark.unlink()
        anybodys = store_of(root / "minari", cache=root / "cache", audit=0.0).frames
        for key in ("observation", "latent", "policy_version"):
            np.testing.assert_array_equal(anybodys[key], direct.frames[key], err_msg=key)
        for key in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(anybodys["next", key], direct.frames["next", key], err_msg=key)


@pytest.mark.parametrize("kind", ["lerobot", "minari"])
def test_an_export_says_of_which_episodes_the_log_had_only_parts(
    token: OnnxPolicy, folder: Path, tmp_path: Path, kind: str
) -> None:
    def cut(episode: int, rows: list[Step]) -> None:
        if episode == 1:
            del rows[-3:]

    log = write_log(tmp_path / "a.mcap", [token], (8, 8, 8), change=cut)
    export([log], kind, tmp_path / kind)
    for source in (log, tmp_path / kind):
        assert store_of(source, cache=tmp_path / "cache", policies=folder).facts.parts == (1,)
