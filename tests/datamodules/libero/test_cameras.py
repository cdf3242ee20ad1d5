"""Cameras: one simulator a process, images that move and stand upright, initial states in order."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.libero import cameras
from datamodules.libero.cameras import LiberoCameraEnv, make
from datamodules.libero.tasks import find
from gipo.errors import GipoError


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


def test_a_second_one_in_a_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "_open", [object()])
    with pytest.raises(GipoError, match="already has a LIBERO camera environment"):
        LiberoCameraEnv(find("libero_goal/7")[0])


@pytest.mark.parametrize(
    ("name", "num_envs", "words"), [("libero_goal", 1, "has 10 tasks"), ("libero_goal/7", 0, "at least 1")]
)
def test_what_no_camera_environment_can_be_is_refused(name: str, num_envs: int, words: str) -> None:
    with pytest.raises(GipoError, match=words):
        make(name, num_envs)


def test_evaluating_environments_share_the_initial_states() -> None:
    states = np.arange(5)
    taken = [
        LiberoCameraEnv._select_init_state(
            SimpleNamespace(init_state_mode="cycle", _place=place, _places=2, _episode_count=count, init_states=states)
        )
        for count in range(3)
        for place in range(2)
    ]
    assert taken == [0, 1, 2, 3, 4, 0]
