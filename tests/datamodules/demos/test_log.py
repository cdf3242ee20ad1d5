"""Demonstrations of a task that is seen: a log as of a robot that a person drove, cloned like any other."""

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from datamodules.advantages import GAE
from datamodules.demos.attempts import Attempts
from datamodules.demos.dataset import refuse_taken, write
from datamodules.demos.demonstration import Demonstration
from datamodules.demos.log import write_log
from datamodules.envs.metaworld_camera import MetaWorldVLA
from datamodules.ingest import IngestOptions
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from datamodules.vla import ToyVLA
from gipo.common.errors import UserError
from gipo.common.transition import SOURCES
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLAGaussianPolicy, VLATokenPolicy
from robots.log import SEALED, pixels_of, read_images, read_log, verify
from tests.needs import needs_camera

TASK = MetaWorldVLA("camera:drawer-close-v3", chunk=4, size=16, max_steps=12)
STEPS = 7


@pytest.fixture
def made() -> list[Demonstration]:
    """Two episodes with an image before every second step, whose pixels all are 10 × its step."""
    rng, low, high = np.random.default_rng(0), -np.ones(4, np.float32), np.ones(4, np.float32)
    images = {step: [np.full((16, 16, 3), 10 * step, np.uint8)] for step in range(0, STEPS + 1, 2)}
    return [
        Demonstration(
            rng.normal(size=(STEPS + 1, 4)).astype(np.float32), rng.uniform(-1, 1, (STEPS, 4)).astype(np.float32),
            rng.normal(size=STEPS).astype(np.float32), low, high, False, np.arange(STEPS) == success, images,
            "drawer close",
        )
        for success in (5, 99)
    ]  # fmt: skip


def logs_of(path: Path, tmp_path: Path, chunk: int = 4) -> Logs:
    options = IngestOptions(cache=tmp_path / "cache", workers=1)
    return Logs(str(path), options, None, 0, chunk=chunk)


def test_the_log_holds_what_was_seen_and_done_as_a_persons(made: list[Demonstration], tmp_path: Path) -> None:
    path = write(tmp_path, TASK, made, "by a test")
    assert path == tmp_path / "gipo" / "camera-drawer-close-v3.mcap"
    assert verify(path).status == SEALED
    found = read_log(path)
    assert found.header is not None
    assert found.header.settings == {"task": TASK.name, "description": "by a test", "image": [3, 16, 16]}
    for episode, each in zip(found.episodes, made, strict=True):
        np.testing.assert_array_equal(episode["action"], each.actions)
        np.testing.assert_array_equal(episode["observation"], each.observations[:-1])
        assert (episode.success, episode.instruction) == (each.succeeded, "drawer close")
    seen = {row["step"]: pixels_of(row) for row in read_images(path) if row["episode"] == 1}
    assert sorted(seen) == [0, 2, 4, 6]
    assert (seen[6] == 60).all()
    with pytest.raises(UserError, match="exists; name another --out"):
        write(tmp_path, TASK, made, "again")


def test_what_several_cameras_saw_is_logged_by_their_names(made: list[Demonstration], tmp_path: Path) -> None:
    task = MetaWorldVLA("camera:topview+gripperPOV:drawer-close-v3", chunk=4, size=16, max_steps=12)
    both = [each._replace(images={step: [seen, seen + 1] for step, (seen,) in each.images.items()}) for each in made]
    path = write(tmp_path, task, both, "by a test")
    found = {(row["frame_id"], row["step"]): pixels_of(row) for row in read_images(path) if row["episode"] == 0}
    assert sorted(found) == [(camera, step) for camera in ("gripperPOV", "topview") for step in (0, 2, 4, 6)]
    assert (found["topview", 4] == 40).all()
    assert (found["gripperPOV", 4] == 41).all()
    logs = logs_of(path, tmp_path)
    interface = logs.store.facts.interface
    assert (interface.image, interface.cameras) == ((6, 16, 16), ("topview", "gripperPOV"))
    spaces = VLASpaces((6, 16, 16), 4, (-1.0,) * 4, (1.0,) * 4, 4, cameras=("topview", "gripperPOV"))
    logs.refuse_unlike(spaces)
    with pytest.raises(UserError, match="cameras"):
        logs.refuse_unlike(replace(spaces, cameras=("gripperPOV", "topview")))


def test_cameras_of_different_sizes_are_logged_each_at_its_own(made: list[Demonstration], tmp_path: Path) -> None:
    task = MetaWorldVLA("camera:topview+gripperPOV:drawer-close-v3", chunk=4, size=(16, 8), max_steps=12)
    both = [
        each._replace(images={step: [seen, seen[:8, :8] + 1] for step, (seen,) in each.images.items()}) for each in made
    ]
    logs = logs_of(write(tmp_path, task, both, "by a test"), tmp_path)
    spaces = logs.spaces
    assert isinstance(spaces, VLASpaces)
    assert (spaces.image, spaces.cameras) == (((3, 16, 16), (3, 8, 8)), ("topview", "gripperPOV"))
    frames = logs.frames(VLAGaussianPolicy(spaces), needs_behaviour=False)
    top, gripper = spaces.apart(logs.seen(frames["observation"])["image"])
    assert (top[2] == 40).all()
    assert (gripper[2] == 41).all()


def long(steps: int, pixels: tuple[int, int], *seen: int) -> Demonstration:
    """One episode with images before the steps `seen`."""
    low, high = -np.ones(4, np.float32), np.ones(4, np.float32)
    images = {step: [np.full((*pixels, 3), step % 256, np.uint8)] for step in seen}
    return Demonstration(
        np.zeros((steps + 1, 4), np.float32), np.zeros((steps, 4), np.float32), np.zeros(steps, np.float32), low, high,
        False, np.arange(steps) == 5, images, "drawer close",
    )  # fmt: skip


@pytest.mark.parametrize(
    "made", [long(6000, (16, 16), 0), long(30, (480, 640), *range(30))], ids=["many steps", "large images"]
)
def test_a_long_episode_waits_for_the_disk_and_lacks_nothing(made: Demonstration, tmp_path: Path) -> None:
    path = write(tmp_path, TASK, [made], "by a test")
    (episode,) = read_log(path).episodes
    assert episode["step"].tolist() == list(range(len(made.actions)))
    assert [row["step"] for row in read_images(path)] == list(made.images)


def test_a_log_that_cannot_be_finished_leaves_none_behind(
    made: list[Demonstration], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count()
    odd = made[1]._replace(rewards=np.array(["much"] * STEPS))
    with pytest.raises(ValueError, match="much"):
        write(tmp_path, TASK, [made[0], odd], "")
    assert threading.active_count() == before
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _refused)
        with pytest.raises(UserError, match=r"cannot write .*gipo/camera-drawer-close-v3\.mcap: No space left"):
            write(tmp_path, TASK, made, "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert verify(write(tmp_path, TASK, made, "")).status == SEALED


def _refused(source: object, target: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", [VLATokenPolicy, VLAGaussianPolicy])
def test_a_policy_of_either_kind_learns_what_was_done_behind_every_image(
    kind: type, made: list[Demonstration], tmp_path: Path
) -> None:
    logs = logs_of(write(tmp_path, TASK, made, ""), tmp_path)
    policy = kind(logs.spaces)
    frames = logs.frames(policy, needs_behaviour=False)
    # Behind step 4 the last image is that of step 6, and behind that none.
    assert frames["executed"].sum(1).tolist() == [4, 4, 2] * 2
    assert (frames["source"][frames["executed"]] == SOURCES.index("person")).all()
    assert not frames["valid"].any()
    for row, (episode, step, length) in enumerate((e, s, n) for e in (0, 1) for s, n in ((0, 4), (2, 4), (4, 2))):
        done = made[episode].actions[step : step + length]
        latent = frames["latent"][row, :length]
        width = 2 / policy.parameters_per_dimension if kind is VLATokenPolicy else 1e-4
        np.testing.assert_allclose(policy.to_env(latent).numpy(), done, atol=width)
    seen = logs.seen(frames["observation"])
    assert (seen["image"][2] == 40).all()


@pytest.mark.parametrize("seen", [(0, 2, 4), (4,)], ids=["after others", "alone"])
def test_an_episode_that_terminates_between_two_images_is_valued(
    seen: tuple[int, ...], made: list[Demonstration], tmp_path: Path
) -> None:
    early = {step: image for step, image in made[0].images.items() if step in seen}
    over = [each._replace(terminated=True, images=early) for each in made]
    logs = logs_of(write(tmp_path, TASK, over, ""), tmp_path)
    policy = VLATokenPolicy(logs.spaces)
    replay = LogReplay(logs.frames(policy, needs_behaviour=False), GAE(), seen=logs.seen)
    replay.refresh(policy)
    assert replay.sample(1, 8, 0)["value_target"].isfinite().all()


def test_a_limit_of_ones_own_is_none_beyond_the_tasks() -> None:
    step = TensorDict({"done": torch.tensor([[False]])}, [1])
    for limit, most in ((None, 12), (5, 5), (400, 12)):
        attempts = Attempts(TASK, max_steps=limit)
        assert [attempts._is_over([step] * count) for count in (most - 1, most)] == [False, True]


@needs_camera
def test_a_script_that_sees_more_than_the_policy_is_recorded_with_what_the_policy_sees(tmp_path: Path) -> None:
    attempts = Attempts(TASK, noise=0.1, seed=1)
    env, maker = attempts.make()
    made = attempts.run(env, maker, 0)
    env.close()
    assert made.observations.shape == (TASK.max_steps + 1, 4)
    assert sorted(made.images) == [0, 2, 4, 6, 8, 10, 12]
    assert len({each.tobytes() for (each,) in made.images.values()}) > 3
    assert made.instruction == "drawer close"
    assert np.abs(made.actions[:, :3]).max() > 0.5  # it knows where to go


def test_a_task_that_states_no_rate_has_no_log(made: list[Demonstration], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ToyVLA says no names, units and rate, which a robot's log has"):
        write_log(tmp_path / "a.mcap", ToyVLA(), made, "")
    with pytest.raises(UserError, match="ToyVLA says no names"):  # before any attempt
        refuse_taken(tmp_path, ToyVLA())
    assert not (tmp_path / "a.mcap").exists()
