"""Native simulators: the contract of all simulations, episodes by their number, true last observations, bad input."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from tensordict import TensorDict, TensorDictBase
from torchrl.envs.utils import check_env_specs

from datamodules.envs.choice import chosen, simulated_by, who_simulates
from datamodules.envs.envpool import NativeEnv, NativeMetaWorldTask, NativeTask, on_threads
from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.seeding import begin_episodes, seed_env
from datamodules.envs.simulation import Shortened, spaces_of
from datamodules.envs.tasks import find, simulation
from gipo.common.errors import UserError
from gipo.common.simulators import equality, native
from tests.needs import needs_envpool

pytestmark = needs_envpool

REACH = NativeMetaWorldTask("reach-v3")


@pytest.fixture
def reach() -> Iterator[NativeEnv]:
    env = REACH.make(num_envs=3, seed=0)
    assert isinstance(env, NativeEnv)
    yield env
    env.close()


def act(env: NativeEnv, seed: int = 0) -> TensorDictBase:
    """What the environment answers to random actions [N, D]."""
    action = np.random.default_rng(seed).uniform(-1, 1, env.action_spec.shape).astype(np.float32)
    return env.step(TensorDict({"action": torch.from_numpy(action)}, batch_size=env.batch_size))["next"]


@pytest.mark.parametrize("task", [REACH, NativeTask("envpool:HalfCheetah-v5"), NativeTask("envpool:Pendulum-v1")])
def test_specs_hold(task: NativeTask) -> None:
    env = task.make(num_envs=2, seed=0)
    check_env_specs(env)
    env.close()


def test_a_metaworld_task_has_the_spaces_keys_and_limit_of_its_own_python(reach: NativeEnv) -> None:
    python = MetaWorldTask("reach-v3")
    own = python.make(3, seed=0)
    assert spaces_of(reach) == spaces_of(own)
    assert set(reach.rand_step(reach.reset()).keys(True, True)) == set(own.rand_step(own.reset()).keys(True, True))
    assert (REACH.horizon, REACH.interface, REACH.name) == (python.horizon, python.interface, python.name)
    own.close()


def test_all_fifty_have_an_id_and_no_other() -> None:
    ids = {native.metaworld_id(task) for task in ALL_V3_ENVIRONMENTS}
    known = native.envpool().list_all_envs()
    assert ids == {task for task in known if task.startswith(native.METAWORLD)}


def test_an_episode_depends_on_its_number_and_the_seed_alone() -> None:
    def first(width: int, numbers: list[int], seed: int = 5) -> torch.Tensor:
        env = REACH.make_evaluation(width, seed=0)
        env.reset()
        begin_episodes(env, numbers, seed)
        begun = env.reset()["observation"]
        after = act(env)["observation"] if width == 3 else begun
        env.close()
        return torch.stack((begun, after))

    three = first(3, [7, 8, 9])
    assert torch.equal(first(3, [7, 8, 9]), three)
    assert torch.equal(first(1, [8])[0], three[0, 1:2])
    assert not torch.equal(first(3, [7, 8, 9], seed=6)[0], three[0])
    assert len(torch.unique(three[0], dim=0)) == 3


def test_seeding_decides_all_later_episodes(reach: NativeEnv) -> None:
    def episodes(seed: int) -> list[torch.Tensor]:
        seed_env(reach, seed)
        return [reach.reset()["observation"] for _ in range(2)]

    expected = episodes(1)
    assert not torch.equal(expected[0], expected[1])
    episodes(2)
    assert all(torch.equal(*pair) for pair in zip(episodes(1), expected, strict=True))


def test_a_truncated_episode_ends_with_its_own_last_observation() -> None:
    env = REACH.make(num_envs=2, seed=0)
    goals = env.reset()["observation"][:, -3:]
    for _ in range(500):
        last = act(env)
    assert last["truncated"].all()
    assert not last["terminated"].any()
    assert last["step"].tolist() == [[500], [500]]
    assert torch.equal(last["observation"][:, -3:], goals)
    assert not torch.equal(last["observation"][:, :18], last["observation"][:, 18:36])  # previous frame, not a first
    begun = env.reset(last.clone().set("_reset", torch.tensor([[False], [True]])))
    assert torch.equal(begun["observation"][0], last["observation"][0])
    assert not torch.equal(begun["observation"][1, -3:], goals[1])
    assert begun["step"].tolist() == [[500], [0]]
    env.close()


def test_what_terminates_is_not_truncated() -> None:
    env = NativeTask("envpool:Hopper-v5").make(num_envs=1, seed=0)
    env.reset()
    for seed in range(1000):
        answer = act(env, seed)
        if answer["done"]:
            break
    assert answer["terminated"].all()
    assert not answer["truncated"].any()
    assert "success" not in answer.keys()
    env.close()


def test_a_part_begins_anew_while_the_others_go_on(reach: NativeEnv) -> None:
    reach.reset()
    before = act(reach)
    begun = reach.reset(before.clone().set("_reset", torch.tensor([[True], [False], [False]])))
    assert begun["step"].tolist() == [[0], [1], [1]]
    assert torch.equal(begun["observation"][1:], before["observation"][1:])
    assert not torch.equal(begun["observation"][0, -3:], before["observation"][0, -3:])
    assert act(reach)["step"].tolist() == [[1], [2], [2]]


def test_threads_change_nothing_but_time() -> None:
    def steps(threads: int) -> torch.Tensor:
        env = on_threads(REACH, threads).make(num_envs=3, seed=0)
        first = env.reset()["observation"]
        found = torch.stack([first, *(act(env, seed)["observation"] for seed in range(20))])
        env.close()
        return found

    assert torch.equal(steps(2), steps(1))


def test_a_shortened_task_is_truncated_earlier_and_goes_on() -> None:
    env = Shortened(REACH, 3).make(num_envs=2, seed=0)
    ends = env.rollout(8, break_when_any_done=False)["next", "truncated"].squeeze(-1)
    assert ends[0].nonzero().flatten().tolist() == [2, 5]
    env.close()


def test_starts_are_drawn_from_metaworlds_ranges() -> None:
    simulator = MetaWorldTask("reach-v3").make(1, 0).simulators[0]
    space = simulator._random_reset_space
    env = REACH.make(num_envs=20, seed=0)
    first = torch.cat([env.reset()["observation"] for _ in range(10)]).numpy()
    drawn = np.concatenate((first[:, 4:6], first[:, 36:]), 1)  # the object's x and y, the goal
    low, high = (np.concatenate((bound[:2], bound[3:])) for bound in (space.low, space.high))
    assert (drawn >= low - 1e-3).all()
    assert (drawn <= high + 1e-3).all()
    # of 200 uniform draws the outermost are within a twentieth of the range of its ends
    np.testing.assert_allclose(drawn.min(0), low, atol=0.05 * (high - low).max())
    np.testing.assert_allclose(drawn.max(0), high, atol=0.05 * (high - low).max())
    env.close()


# The choice


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks of which one is the same in EnvPool, compared with what is installed."""
    versions = {package: metadata.version(package) for package in equality.COMPARED}
    tasks = {"reach-v3": {"differs": None}, "hammer-v3": {"differs": "start by 0.8"}}
    found = {"versions": versions, "tasks": tasks}
    monkeypatch.setattr(equality, "measured", lambda: found)


@pytest.mark.usefixtures("compared")
def test_auto_takes_the_native_one_where_it_is_the_same() -> None:
    assert chosen("reach-v3", "auto") == REACH
    assert chosen("hammer-v3", "auto") == MetaWorldTask("hammer-v3")
    assert chosen("hammer-v3", "envpool") == NativeMetaWorldTask("hammer-v3")
    assert chosen("reach-v3", "python") == MetaWorldTask("reach-v3")
    assert chosen("Pendulum-v1", "auto") == simulation("Pendulum-v1")
    assert chosen(replace(REACH, threads=2), "auto") == replace(REACH, threads=2)
    assert chosen(None, "auto") is None


@pytest.mark.usefixtures("compared")
def test_what_simulates_is_said_in_a_sentence() -> None:
    assert who_simulates(REACH) == "envpool simulates reach-v3"
    assert who_simulates(NativeMetaWorldTask("hammer-v3")) == "envpool simulates hammer-v3, although start by 0.8"
    assert who_simulates(MetaWorldTask("hammer-v3")) == "MetaWorld's Python simulates hammer-v3: start by 0.8"
    assert who_simulates(MetaWorldTask("reach-v3")) == "MetaWorld's Python simulates reach-v3, as data.simulator says"
    assert who_simulates(simulation("Pendulum-v1")) is None


@pytest.mark.usefixtures("compared")
def test_auto_stays_with_python_where_other_versions_were_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = equality.measured()["versions"]["envpool"]
    monkeypatch.setitem(equality.measured()["versions"], "envpool", "0.1")
    assert equality.why_not_native("reach-v3") == f"envpool is {installed}, and it was compared with 0.1"
    assert chosen("reach-v3", "auto") == MetaWorldTask("reach-v3")


def test_without_envpool_it_is_python_and_asking_for_it_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    monkeypatch.setattr(equality, "available", lambda: False)
    assert chosen("reach-v3", "auto") == MetaWorldTask("reach-v3")
    assert "envpool is not installed (pip install '.[fast]'" in str(who_simulates(MetaWorldTask("reach-v3")))
    with pytest.raises(UserError, match=r"native simulators need envpool, .* pip install '\.\[fast\]'"):
        simulated_by(MetaWorldTask("reach-v3"), "envpool")


@pytest.mark.parametrize(
    ("task", "simulator", "message"),
    [
        ("envpool:HalfChetah-v5", "auto", r"envpool has no task 'HalfChetah-v5'. Nearest: HalfCheetah-v5"),
        ("envpool:CartPole-v1", "auto", r"task envpool:CartPole-v1 has the action space Discrete\(2\)"),
        ("envpool:PointMaze_UMaze-v3", "auto", "flat gymnasium.spaces.Box"),
        ("envpool:Hopper-v5", "python", "envpool:Hopper-v5 is simulated by envpool alone"),
        ("Pendulum-v1", "envpool", r"is data.task=envpool:ID, not Pendulum-v1"),
        (REACH, "python", "data.simulator=python chooses for a task by its name; reach-v3 is a class of its own"),
    ],
)
def test_what_cannot_be_had_is_told(task: str, simulator: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen(task, simulator)


def test_threads_are_of_native_simulators() -> None:
    with pytest.raises(UserError, match=r"data.collector.threads=2 needs native simulators, and reach-v3 is in Python"):
        on_threads(MetaWorldTask("reach-v3"), 2)


def test_a_native_task_is_found_by_its_prefix() -> None:
    assert find("envpool:Ant-v5") == NativeTask("envpool:Ant-v5")
    assert find("envpool:Ant-v5").horizon == 1000
