"""Environments that do not keep to what they say: refused by name, where they would be taken for data or a riddle."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from datamodules.envs.interface import gymnasium_interface
from datamodules.envs.tasks import simulation
from gipo.common.errors import UserError


class Wild(gymnasium.Env):
    """Answers as it is told to."""

    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)

    def __init__(self, begin: Any, answer: Any):
        self._begin, self._answer = begin, answer

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._begin

    def step(self, action: np.ndarray) -> Any:
        return self._answer


class Old(Wild):
    """Of the library that Gymnasium came after."""

    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32)


SEEN = np.zeros(2, np.float32)
BEGIN = (SEEN, {})
REFUSED = {
    "observation": ((np.zeros(3, np.float32), {}), (), "its observation space has the shape (2,), an observation (3,)"),
    "next observation": (BEGIN, (np.zeros(3, np.float32), 1.0, False, False, {}), "an observation (3,)"),
    "no reward": (BEGIN, (SEEN, None, False, False, {}), "a reward is one number, got None"),
    "rewards": (BEGIN, (SEEN, np.ones(2), False, False, {}), "a reward is one number, got array([1., 1.])"),
    "reward in words": (BEGIN, (SEEN, "much", False, False, {}), "a reward is one number, got 'much'"),
    "no end": (BEGIN, (SEEN, 1.0, None, False, {}), "terminated is true or false, got None"),
    "four answers": (BEGIN, (SEEN, 1.0, False, {}), "does not keep to Gymnasium's interface: not enough values"),
}
ACCEPTED = {
    "a whole number": (SEEN, 1, False, False, {}),
    "numbers and flags of numpy": (SEEN, np.float64(1), np.bool_(False), np.bool_(False), {}),
    "an array of one": (SEEN, np.array([1.0]), False, False, {}),
}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(gymnasium, "registry", dict(gymnasium.registry))
    monkeypatch.setattr("gymnasium.envs.registration.registry", gymnasium.registry)


def run(kind: type[Wild], begin: Any, answer: Any) -> float:
    """The reward of a step."""
    gymnasium.register("Wild-v0", kind, max_episode_steps=9, disable_env_checker=True,
                       kwargs={"begin": begin, "answer": answer})  # fmt: skip
    env = simulation("Wild-v0").make(1, 0)
    return float(env.rand_step(env.reset())["next", "reward"])


@pytest.mark.parametrize("what", REFUSED)
def test_an_answer_that_is_none_is_refused(what: str) -> None:
    begin, answer, words = REFUSED[what]
    with pytest.raises(UserError, match="task 'Wild-v0'") as refusal:
        run(Wild, begin, answer)
    assert words in str(refusal.value)


def test_what_gymnasiums_own_checker_asserts_is_refused() -> None:
    """It is on unless a registration turns it off, and asserts what it asks for."""
    gymnasium.register("Wild-v0", lambda: Wild(BEGIN, (SEEN, 1.0, False, False, None)), max_episode_steps=9)
    words = "task 'Wild-v0' does not keep to Gymnasium's interface: The `info` returned by"
    with pytest.raises(UserError, match=words):
        simulation("Wild-v0").make(1, 0).rollout(2)


def test_a_reset_without_a_seed_is_refused() -> None:
    with pytest.raises(UserError, match=r"task 'Wild-v0' does not keep to Gymnasium's interface: .*reset\(\) got an"):
        run(Old, BEGIN, ())


class Scaling(Wild):
    """Scales its action in place, as many do."""

    def step(self, action: np.ndarray) -> Any:
        action *= 3
        return np.repeat(action, 2), 1.0, False, False, {}


def test_what_an_environment_writes_into_its_action_is_not_what_was_sampled() -> None:
    gymnasium.register("Scaling-v0", Scaling, max_episode_steps=9, kwargs={"begin": BEGIN, "answer": ()})
    env = simulation("Scaling-v0").make(2, 0)
    stepped = env.step(env.reset().set("action", torch.full((2, 1), 0.25)))
    assert stepped["action"].flatten().tolist() == [0.25, 0.25]
    assert stepped["next", "observation"].flatten().tolist() == [0.75] * 4


@pytest.mark.parametrize("what", ACCEPTED)
def test_an_answer_of_numpys_is_one(what: str) -> None:
    assert run(Wild, BEGIN, ACCEPTED[what]) == 1.0


class Growing(gymnasium.Env):
    """Every one that is made after the second has other spaces, as where a constructor draws what there is."""

    made: list["Growing"] = []  # noqa: RUF012

    def __init__(self, size: int, bound: float, limit: float):
        late = len(self.made) > 1
        self.made.append(self)
        self.observation_space = Box(-limit if late else -9, 9, (size if late else 2,), np.float32)
        self.action_space = Box(-1, bound if late else 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.observation_space.low, {}

    def step(self, action: np.ndarray) -> Any:
        return self.observation_space.low, 0.0, False, False, {}


@pytest.mark.parametrize(
    ("spaces", "words"),
    [((3, 1, 9), r"observes \(3,\) numbers"), ((2, 4, 9), r"has the action space Box\(-1.0, 4.0"), ((2, 1, 8), None)],
)
def test_simulators_of_one_task_have_the_same_spaces(
    spaces: tuple[int, float, float], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Growing, "made", [])
    gymnasium.register("Growing-v0", lambda: Growing(*spaces), max_episode_steps=9)
    if words is None:  # bounds of what is observed may be anything
        simulation("Growing-v0").make(3, 0).rollout(2)
    else:
        with pytest.raises(UserError, match=f"a simulator of task 'Growing-v0' {words}.*, the first"):
            simulation("Growing-v0").make(3, 0).rollout(2)


class Viewed(Wild):
    """Cannot be closed: it never opened what it wants to close."""

    def close(self) -> None:
        self.viewer.close()


def test_one_that_cannot_be_closed_costs_no_run(capfd: pytest.CaptureFixture[str]) -> None:
    """No checkpoint could be written, as a control rate is asked of one more simulator, which is closed."""
    answer = (SEEN, 1.0, False, False, {})
    gymnasium.register("Viewed-v0", lambda: Viewed(BEGIN, answer), max_episode_steps=9)
    assert gymnasium_interface("Viewed-v0", 2, 1)["action_names"] == ["action_0"]
    env = simulation("Viewed-v0").make(2, 0)
    env.rollout(2)
    env.close()
    said = capfd.readouterr().err
    assert said.count("task 'Viewed-v0' could not be closed: AttributeError in close (") == 1
