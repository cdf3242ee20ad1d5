"""A Gymnasium environment that says when its task is done: training counts it, evaluation too."""

import math
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from datamodules.envs.gymnasium import GymnasiumTask
from gipo.common.errors import UserError
from tests.shell import type_line

BOX = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Telling(gymnasium.Env):
    """What its `info` says is what is asked for: a value for every step, the last one for those after it."""

    observation_space = action_space = BOX

    def __init__(self, *told: dict[str, Any]):
        self.told = told

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return BOX.low.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return BOX.low.copy(), 0.0, False, False, self.told[min(self.steps, len(self.told)) - 1]


def task(*told: dict[str, Any]) -> GymnasiumTask:
    gymnasium.registry.pop("Telling-v0", None)
    gymnasium.register("Telling-v0", lambda: Telling(*told), max_episode_steps=6)
    return GymnasiumTask("Telling-v0")


@pytest.mark.parametrize(
    "told",
    [
        ({"success": False}, {"success": True}, {"success": False}),
        ({"is_success": 0.0}, {"is_success": np.float32(1.0)}, {"is_success": 0.0}),
        ({"success": None, "is_success": np.array([0])}, {"is_success": np.array([1])}, {}),
    ],
)
def test_what_a_step_says_is_its_success(told: tuple[dict[str, Any], ...]) -> None:
    env = task(*told).make(num_envs=2, seed=0)
    check_env_specs(env)
    assert not env.reset()["success"].any()
    steps = env.rollout(4)["next", "success"]
    assert steps.dtype == torch.bool
    assert steps.shape == (2, 4, 1)
    assert steps[..., 0].tolist() == [[False, True, False, False]] * 2
    env.close()


@pytest.mark.parametrize("told", [{}, {"success": None}, {"success": "no"}, {"success": {"grasp": True}}])
def test_one_that_does_not_say_has_none(told: dict[str, Any]) -> None:
    env = task(told).make(num_envs=1, seed=0)
    assert "success" not in env.observation_spec.keys()
    assert "success" not in env.rollout(2)["next"].keys()
    env.close()


def test_one_that_says_it_only_when_it_is_done_is_told_that_nobody_counts(capfd: pytest.CaptureFixture[str]) -> None:
    env = task({}, {}, {"is_success": True}).make(num_envs=2, seed=0)
    env.rollout(2)
    assert "no success is counted" not in capfd.readouterr().err
    assert "success" not in env.rollout(5)["next"].keys()
    assert capfd.readouterr().err.count("Telling-v0 says whether it is done in some steps' `info`, and not in") == 1
    env.close()


@pytest.mark.parametrize(
    ("before", "said"),
    [([{"success": False}], "no"), ([{"success": 0.0}], 0.5), ([], math.nan), ([], np.float32(0.25)), ([], -1)],
)
def test_what_is_no_truth_is_refused(before: list[dict[str, Any]], said: Any) -> None:
    env = task(*before, {"success": said}).make(num_envs=1, seed=0)
    words = re.escape(f"task 'Telling-v0': the success of `info` is true or false, got {said!r}")
    with pytest.raises(UserError, match=words):
        env.rollout(3)
    env.close()


def test_a_run_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "telling.py").write_text(
        "import gymnasium\n"
        "from tests.datamodules.envs.test_gymnasium_success import Telling\n"
        "told = {'is_success': 0.0}, {'is_success': 1.0}, {}\n"
        "gymnasium.register('Later-v0', lambda: Telling(*told), max_episode_steps=6)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    said = type_line(
        "gipo fit --data.task=telling:Later-v0 --data.total_frames=96 --data.frames_per_iteration=48 "
        "--data.collector.num_envs=4 --data.collector.workers=0 --data.batch=8 --trainer.check_val_every_n_epoch=1"
    )
    assert "val/success 1.00" in said + "".join(capfd.readouterr())
