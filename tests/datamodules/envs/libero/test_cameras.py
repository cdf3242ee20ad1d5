"""Cameras: one simulator a process, images that move and stand upright, initial states in order."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from torchrl.envs import SerialEnv
from torchrl.envs.custom import ToyVLAEnv

from datamodules.envs.action_chunks import ChunkEnv
from datamodules.envs.libero import cameras
from datamodules.envs.libero.cameras import Cameras, LiberoCameraEnv, make
from datamodules.envs.libero.tasks import find
from datamodules.envs.seeding import episode_seed, seed_env
from gipo.common.errors import UserError


@pytest.mark.campaign
@pytest.mark.timeout(1200)  # every process compiles its task and renders, without a GPU
def test_frames_change_also_after_another_environment_was_closed() -> None:
    env, other = make("libero_goal/7", 1, size=32), make("libero_goal/8", 1, size=32)
    assert other.reset()["language_instruction"] == ["put the bowl on the plate"]
    other.close()
    env.set_seed(0)
    state = env.reset()
    assert state["language_instruction"] == ["turn on the stove"]
    frames = [state["observation"]]
    for _ in range(2):
        state = env.step(state.set("action", torch.ones(1, 7)))["next"]
        frames.append(state["observation"])
    env.close()
    for name in ("image", "wrist_image"):
        assert frames[0][name].shape == (1, 3, 32, 32)
        assert frames[0][name].dtype == torch.uint8
        assert all((before[name] != after[name]).any() for before, after in pairwise(frames))
    assert frames[0]["state"].shape == (1, 9)
    # right side up: the grey wall is above, the brown table below
    colour = frames[0]["image"][0].float()
    assert (colour[0] - colour[2])[-8:].mean() > (colour[0] - colour[2])[:8].mean() + 10


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_an_evaluation_begins_alike_on_one_simulator_and_on_two() -> None:
    found = []
    for width in (1, 2):
        env = make("libero_goal/7", width, size=32, evaluating=True)
        env.reset()
        for first in range(0, 2, width):
            env.begin_with(range(first, first + width), 7)
            state = env.reset()
            found += list(zip(state["observation", "state"], state["observation", "image"], strict=True))
            env.reset(state.set("_reset", torch.ones(width, 1, dtype=torch.bool)))  # as where an episode has ended
        env.close()
    for one, other in zip(found[:2], found[2:], strict=True):
        assert torch.allclose(one[0], other[0], atol=1e-4)
        assert torch.equal(one[1], other[1])
    assert not torch.equal(found[0][1], found[1][1])


class Wrist(ToyVLAEnv):
    """Has a camera at its wrist, which shows the negative of what the other does."""

    def __init__(self) -> None:
        super().__init__(2, 4, success_steps=2)
        self.observation_spec["observation", "wrist_image"] = self.observation_spec["observation", "image"].clone()

    def _reset(self, tensordict: TensorDictBase | None = None, **options: Any) -> TensorDictBase:
        return self._with_both(super()._reset(tensordict, **options))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        return self._with_both(super()._step(tensordict))

    def _with_both(self, found: TensorDictBase) -> TensorDictBase:
        found["observation", "wrist_image"] = 255 - found["observation", "image"]
        return found


def test_images_of_both_cameras_are_one_also_where_one_episode_of_two_ends_first() -> None:
    def negatives(state: TensorDictBase) -> bool:
        first, second = state["observation", "image"].int().chunk(2, 1)
        return bool((first + second == 255).all())

    env = ChunkEnv(SerialEnv(2, lambda: cameras.with_both(Wrist())), 4, 12)
    seed_env(env, 0)
    state = env.reset()
    assert state["observation", "image"].shape[:2] == (2, 6)
    for _ in range(4):
        target, errors = state["observation", "state"][:, None, 2:4], torch.tensor([[0.0] * 4, [0.4] * 4])
        following = env.step(state.set("action", (target + errors.unsqueeze(-1)).clamp(-1, 1)))["next"]
        assert following["executed"].tolist() == [[True, True, False, False], [True] * 4]
        assert negatives(following)
        state = env.reset(following.exclude("reward").set("_reset", following["done"]))
        assert negatives(state)


def test_a_second_one_in_a_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "_open", [object()])
    with pytest.raises(UserError, match="already has a LIBERO camera environment"):
        LiberoCameraEnv(find("libero_goal/7")[0])


@pytest.mark.parametrize(
    ("name", "num_envs", "words"), [("libero_goal", 1, "has 10 tasks"), ("libero_goal/7", 0, "at least 1")]
)
def test_what_no_camera_environment_can_be_is_refused(name: str, num_envs: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(name, num_envs)


class Chooser:
    """What chooses the initial state of an evaluating environment, without its simulator."""

    init_state_mode, init_states = "cycle", np.arange(5)
    begin_episode, choose = LiberoCameraEnv.begin_episode, LiberoCameraEnv._select_init_state

    def __init__(self, place: int, places: int = 2):
        self._place, self._places, self._episode_count = place, places, 0
        self._number: int | None = None
        self.seeds: list[int] = []

    def set_seed(self, seed: int) -> None:
        self.seeds.append(seed)


def test_evaluating_environments_share_the_initial_states() -> None:
    taken = []
    choosers = [Chooser(place) for place in range(2)]
    for count in range(3):
        for chooser in choosers:
            chooser._episode_count = count
            taken.append(chooser.choose())
    assert taken == [0, 1, 2, 3, 4, 0]


def test_an_episode_of_an_evaluation_is_that_of_its_number() -> None:
    """However many processes there are, and however often they were reset since the last full reset."""
    for places in (2, 3):
        choosers, taken, seeds = [Chooser(place, places) for place in range(places)], [], []
        for first in range(0, 6, places):
            for chooser in choosers:
                chooser.begin_episode(range(first, first + places), 7)
                taken.append(chooser.choose())
                chooser._episode_count += 1 + first  # those that a simulator begins while others go on
                chooser.choose()
            seeds += [chooser.seeds[-1] for chooser in choosers]
        assert taken == [0, 1, 2, 3, 4, 0]
        assert seeds == [episode_seed(7, number) for number in range(6)]


def test_every_process_is_told_the_numbers() -> None:
    told: list[tuple[list[int], int]] = []
    started = SimpleNamespace(is_closed=True, start=lambda: None, begin_episode=lambda *given: told.append(given))
    Cameras.begin_with(started, range(4, 6), 7)
    assert told == [([4, 5], 7)]
