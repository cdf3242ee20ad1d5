"""Tasks whose training episodes are truncated earlier."""

from contextlib import closing
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Categorical, Composite, TensorSpec, Unbounded
from torchrl.envs import EnvBase, StepCounter, TransformedEnv

from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import INTERFACE, Shortened, Simulation, refuse_bad_environment, spaces_of
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions
from datamodules.vla import ToyVLA
from deploy.export.description import interface_of
from gipo.common.checkpoint_head import CheckpointHead
from gipo.common.errors import UserError
from gipo.policies import Spaces, TokenPolicy

TASK = simulation("reach-v3")
ENVS, STEPS, LIMIT = 3, 20, 7


def collected(task: Simulation) -> TensorDict:
    """Frames [N, T] of a random policy."""
    with closing(TASK.make(1, 0)) as env:
        torch.manual_seed(0)
        policy = TokenPolicy(spaces_of(env), bins=8)
    with closing(InProcessRollouts(Collection(task, ENVS, ENVS * STEPS, policy, seed=4))) as rollouts:
        return rollouts.collect().reshape(ENVS, STEPS)


def test_episodes_are_truncated_after_so_many_steps_and_go_on_with_others() -> None:
    frames = collected(Shortened(TASK, LIMIT))
    expected = torch.arange(STEPS) % LIMIT
    assert torch.equal(frames["step"], expected.expand(ENVS, -1))
    last = (expected == LIMIT - 1).expand(ENVS, -1)
    assert torch.equal(frames["next", "truncated"], last)
    assert torch.equal(frames["next", "done"], last)
    assert not frames["next", "terminated"].any()
    assert frames["episode"].unique().tolist() == list(range(3 * ENVS))
    # What follows the last step is the observation that it led to, not the next episode's first.
    ends = frames["next", "observation"][:, LIMIT - 1]
    assert not torch.equal(ends, frames["observation"][:, LIMIT])


def test_until_then_they_are_the_tasks_own() -> None:
    own, shortened = collected(TASK), collected(Shortened(TASK, LIMIT))
    for key in ("observation", "action", "log_prob", ("next", "observation"), ("next", "reward")):
        assert torch.equal(own[key][:, :LIMIT], shortened[key][:, :LIMIT]), key
    assert not own["next", "done"].any()


def test_evaluation_is_the_tasks_own() -> None:
    task = Shortened(TASK, LIMIT)
    with closing(task.make_evaluation(2, 0)) as env:
        assert not env.rollout(LIMIT + 3)["next", "done"].any()
        assert task.spaces(env) == TASK.spaces(env)
    assert (task.name, task.parts, task.interface) == (TASK.name, TASK.parts, TASK.interface)


@pytest.mark.parametrize(
    ("task", "steps", "horizon"),
    [(TASK, 7, 7), (TASK, 900, 500), (ToyVLA(chunk=4, max_steps=40), 3, 3), (ToyVLA(chunk=4, max_steps=40), 12, 10)],
)
def test_the_earlier_limit_holds(task: Simulation, steps: int, horizon: int) -> None:
    assert Shortened(task, steps).horizon == horizon
    assert CollectorOptions(max_steps=steps).simulated(task) == Shortened(task, steps)
    assert CollectorOptions().simulated(task) is task


def test_chunks_count_as_one_step() -> None:
    with closing(Shortened(ToyVLA(chunk=4), 3).make(2, 0)) as env:
        rollout = env.rollout(10, break_when_any_done=False)
    assert rollout["next", "truncated"][0, :, 0].nonzero().flatten().tolist() == [2, 5, 8]


class Still(EnvBase):
    """N numbers that stay what they are."""

    def __init__(
        self,
        kind: torch.dtype = torch.float32,
        reward: torch.dtype = torch.float32,
        shape: list[int] = [2],  # noqa: B006
        action: TensorSpec | None = None,
    ):
        super().__init__(batch_size=shape)
        self.observation_spec = Composite(observation=Unbounded((*shape, 1), dtype=kind), shape=shape)
        self.action_spec = Bounded(-1.0, 1.0, (*shape, 1)) if action is None else action
        self.reward_spec = Unbounded((*shape, 1), dtype=reward)

    def _reset(self, tensordict: TensorDict | None) -> TensorDict:
        raise NotImplementedError

    _step = _set_seed = _reset  # type: ignore[assignment]


class Flat(Still):
    """One of its keys is [N], as a vectorised simulator answers."""

    def __init__(self, key: str) -> None:
        super().__init__()
        if key == "reward":
            self.reward_spec = Unbounded((2,))
        else:
            self.observation_spec[key] = Unbounded((2,))


def counted(env: EnvBase) -> EnvBase:
    return TransformedEnv(env, StepCounter(max_steps=3, step_count_key="step"))


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Still(), r"of mine has no step, \[N, 1\] int64.*has observation"),
        (counted(Still(torch.float64)), "has observation of torch.float64"),
        (counted(Still(reward=torch.float64)), "has reward of torch.fl"),
        (counted(Still(action=Unbounded((2, 1)))), "has actions of Unbounded.*; they must be numbers within bounds"),
        (counted(Still(action=Bounded(-1.0, 1.0, (2,)))), r"has actions of the shape \[2\]; it must be \[N, D\]"),
        (counted(Still(action=Categorical(3, (2,)))), "has actions of Categorical; they must be numbers within bounds"),
        (TransformedEnv(Still(), StepCounter(step_count_key="step", update_done=False)), "has no truncated, "),
        (counted(Flat("reward")), r"has reward of the shape \[2\]; it must be \[N, 1\], \[N, H\] of a chunk"),
        (counted(Flat("observation")), r"has observation of the shape \[2\]; it must be \[N, O\]"),
        (TransformedEnv(Flat("step"), StepCounter(max_steps=3)), r"has step of the shape \[2\]; it must be \[N, 1\]"),
        (counted(Flat("success")), r"has success of the shape \[2\]; it must be \[N, 1\]"),
        (Still(shape=[]), r"has the batch size \[\]; it must be \[N\]"),
    ],
)
def test_an_environment_that_is_not_what_one_has_to_be_is_refused_by_what_it_lacks(env: EnvBase, words: str) -> None:
    with pytest.raises(UserError, match=words):
        refuse_bad_environment(env, Mine())


class Mine(Simulation):
    """A task of a user's own, whose interface is to be looked at."""

    name, horizon = "mine", 3

    def __init__(self, interface: Any = None):
        self._interface = interface

    @property
    def interface(self) -> Any:
        return self._interface

    def make(self, num_envs: int, seed: int) -> EnvBase:
        raise NotImplementedError

    def spaces(self, env: EnvBase) -> Spaces:
        return spaces_of(env)


NAMED = {"observation_names": ["x"], "observation_units": ["m"], "action_names": ("v",), "action_units": ["m/s"]}


@pytest.mark.parametrize("said", [None, {}, {"control_rate_hz": 20}, NAMED, NAMED | {"control_rate_hz": 0.5}])
def test_an_interface_may_leave_out_what_an_export_fills_in(said: Any) -> None:
    env, rate = counted(Still()), (said or {}).get("control_rate_hz")
    refuse_bad_environment(env, Mine(said))
    asked = 20.0 if rate is None else None
    made = interface_of(CheckpointHead(policy={}, interface=said), TokenPolicy(spaces_of(env)), asked)
    assert made["control_rate_hz"] == (asked or rate)
    assert [len(made[key]) for key in INTERFACE[:4]] == [1] * 4
    assert made["action_names"] == (("v",) if said and "action_names" in said else ("action.0",))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"names": ["x"], "rate": 50}, "the interface of mine has names, rate; it is None, or a dict of observation_"),
        ("x", "the interface of mine is 'x'; it is None, or a dict of"),
        (
            {"control_rate_hz": "fast"},
            "says control_rate_hz='fast'; it must be a plain float above 0, at most",
        ),
        ({"control_rate_hz": 0}, "says control_rate_hz=0; it must"),
        ({"control_rate_hz": 2e5}, "says control_rate_hz=200000.0; it must"),
        ({"observation_names": 3}, "says observation_names=3; it must be a list of 1 texts, one for each number"),
        ({"observation_names": "x"}, "says observation_names='x'; it must be a list of 1 texts"),
        ({"action_units": ["m", "m"]}, r"says action_units=\['m', 'm'\]; it must be a list of 1 texts"),
        ({"action_units": [""]}, r"says action_units=\[''\]; it must be .*, each of 1 to 128 .*\(\"1\" is"),
        ({"observation_names": ["x\n"]}, "each of 1 to 128 printable characters"),
        ({"observation_names": ["x" * 129]}, "each of 1 to 128 printable characters"),
    ],
)
def test_an_interface_that_no_artifact_could_state_is_refused_before_the_training(said: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        refuse_bad_environment(counted(Still()), Mine(said))


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.collector.max_steps must be positive, got 0"):
        CollectorOptions(max_steps=0)


def test_what_a_checkpoint_does_to_episodes_is_told_where_it_does_it() -> None:
    """Workers that never wait go on with theirs: only a resume begins new ones."""
    told = [
        CollectorOptions(workers=workers, asynchronous=asynchronous).notes(100, 400, 1)
        for workers, asynchronous in ((0, False), (2, False), (2, True))
    ]
    assert [len(notes) for notes in told] == [1, 1, 0]
    assert "steps of a simulator, inside an episode's 100" in told[0][0]
