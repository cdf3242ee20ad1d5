"""Batched environments: specs, goals that differ and come back by seed, ends of episodes, partial resets, bad input."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.utils import check_env_specs

from datamodules.envs.gymnasium import GymnasiumTask
from datamodules.envs.metaworld import MetaWorldEnv, MetaWorldTask
from datamodules.envs.seeding import seed_env
from datamodules.envs.simulation import Simulation, spaces_of
from datamodules.envs.tasks import find, simulation
from datamodules.vla import ToyVLA
from gipo.common.errors import UserError

torch.set_num_threads(1)

# Tasks that move bodies of the model, tools, doors and objects; all 50 are the campaign.
SAMPLE = ["reach-v3", "drawer-close-v3", "hammer-v3", "stick-pull-v3", "door-lock-v3", "coffee-pull-v3"]
every_task = pytest.mark.parametrize(
    "task", [task if task in SAMPLE else pytest.param(task, marks=pytest.mark.campaign) for task in ALL_V3_ENVIRONMENTS]
)


@pytest.fixture
def reach() -> Iterator[MetaWorldEnv]:
    env = simulation("reach-v3").make(num_envs=3, seed=0)
    assert isinstance(env, MetaWorldEnv)
    yield env
    env.close()


def act(env: EnvBase, action: np.ndarray, state: TensorDictBase | None = None) -> TensorDictBase:
    """What the environment answers to `action` [N, D]; Gymnasium tasks count steps in `state`."""
    state = TensorDict({}, batch_size=env.batch_size) if state is None else state.clone()
    return env.step(state.set("action", torch.from_numpy(action.astype(np.float32))))["next"]


def random_actions(env: EnvBase, steps: int, seed: int) -> np.ndarray:
    """The same for equal seeds: [steps, N, D] in [−1, 1]."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_spec.shape))


def fingerprint(env: EnvBase, seed: int, steps: int = 20) -> list[bytes]:
    """Every bit of two episodes that begin with seeding: observations, rewards, ends."""
    seed_env(env, seed)
    bits = []
    for episode in range(2):
        state = env.reset()
        bits.append(state["observation"].numpy().tobytes())
        for action in random_actions(env, steps, seed=episode):
            state = act(env, action, state)
            bits += [state[key].numpy().tobytes() for key in ("observation", "reward", "terminated", "truncated")]
    return bits


def wear(env: MetaWorldEnv) -> None:
    """Use the environment as its task is meant to be used, and leave it in the middle of an episode."""
    seed_env(env, 99)
    for steps in (60, 30):
        observation = env.reset()["observation"]
        experts = [ENV_POLICY_MAP[env.task]() for _ in env.simulators]
        for noise in random_actions(env, steps, seed=5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # experts ask for more than ±1
                wanted = [e.get_action(o) for e, o in zip(experts, observation.double().numpy(), strict=True)]
            observation = act(env, np.clip(np.stack(wanted) + 0.3 * noise, -1, 1))["observation"]


# Specs


@pytest.mark.parametrize("task", ["reach-v3", "Pendulum-v1"])
def test_specs_hold(task: str) -> None:
    env = simulation(task).make(num_envs=2, seed=0)
    check_env_specs(env)
    env.close()


def test_metaworld_sizes_and_bounds(reach: MetaWorldEnv) -> None:
    spaces = spaces_of(reach)
    assert spaces.observation_size == 39
    assert spaces.action_low == (-1.0,) * 4
    assert spaces.action_high == (1.0,) * 4
    first = reach.reset()
    assert first["observation"].dtype == torch.float32
    assert first["success"].dtype == torch.bool
    assert first["step"].tolist() == [[0], [0], [0]]


def test_gymnasium_id_has_the_same_keys() -> None:
    env = simulation("Pendulum-v1").make(num_envs=2, seed=0)
    answer = env.rand_step(env.reset())["next"]
    assert env.batch_size == (2,)
    assert spaces_of(env).action_high == (2.0,)
    assert answer["observation"].shape == (2, 3)
    assert answer["observation"].dtype == answer["reward"].dtype == torch.float32
    assert answer["step"].tolist() == [[1], [1]]
    assert {"terminated", "truncated", "done"} <= set(answer.keys())
    env.close()


# Goals and seeds


@every_task
def test_episodes_and_simulators_differ(task: str) -> None:
    env = MetaWorldEnv(task, 2)
    seed_env(env, 0)
    first = torch.cat([env.reset()["observation"] for _ in range(3)])
    assert len(torch.unique(first, dim=0)) == 6
    env.close()


def test_goals_are_visible_and_spread(reach: MetaWorldEnv) -> None:
    goals = torch.cat([reach.reset()["observation"][:, -3:] for _ in range(10)])
    targets = np.stack([simulator._target_pos for simulator in reach.simulators])
    np.testing.assert_allclose(goals[-3:], targets, rtol=1e-6)
    # uniform over [−.1, .1] × [.8, .9] × [.05, .3]: deviations .058, .029, .072
    assert (goals.std(0) > torch.tensor([0.03, 0.015, 0.03])).all()


@every_task
def test_a_seed_decides_everything_whatever_happened_before(task: str) -> None:
    new = MetaWorldEnv(task, 2)
    expected = fingerprint(new, seed=11)
    worn = MetaWorldEnv(task, 2)
    wear(worn)
    assert fingerprint(worn, seed=11) == expected
    assert fingerprint(worn, seed=12) != expected
    new.close()
    worn.close()


def test_a_seed_decides_everything_in_a_gymnasium_task() -> None:
    new, worn = simulation("Pendulum-v1").make(2, seed=0), simulation("Pendulum-v1").make(2, seed=5)
    worn.rollout(30)
    assert fingerprint(new, seed=11) == fingerprint(worn, seed=11)
    assert fingerprint(worn, seed=12) != fingerprint(worn, seed=11)
    new.close()
    worn.close()


@every_task
def test_copied_simulators_behave_like_the_compiled_one(task: str) -> None:
    env = MetaWorldEnv(task, 2)
    for simulator in env.simulators:
        simulator.np_random = np.random.default_rng(3)
    answers = [env.reset()["observation"]]
    for action in random_actions(env, 20, seed=0)[:, :1]:
        answer = act(env, action.repeat(2, axis=0))
        answers += [answer["observation"], answer["reward"]]
    assert all(torch.equal(answer[0], answer[1]) for answer in answers)
    env.close()


@every_task
def test_orientations_are_metaworlds_own_to_the_last_bit(task: str) -> None:
    env = MetaWorldEnv(task, 2)
    seed_env(env, 0)
    for simulator in env.simulators:
        simulator.reset()
        for action in random_actions(env, 30, seed=0)[:, 0]:
            simulator.step(action)
            assert np.array_equal(simulator._get_quat_objects(), type(simulator)._get_quat_objects(simulator))
    env.close()


@pytest.mark.parametrize("task", ["reach-v3", "drawer-close-v3"])
def test_simulators_do_not_touch_each_other(task: str) -> None:
    env = MetaWorldEnv(task, 3)
    still, moving = np.zeros((3, 4)), np.zeros((3, 4))
    moving[2] = 1
    seed_env(env, 4)
    start = env.reset()["observation"]
    for _ in range(5):
        alone = act(env, still)["observation"]
    seed_env(env, 4)
    assert torch.equal(env.reset()["observation"], start)
    for _ in range(2):
        state = act(env, moving)
    # a new episode moves bodies of the neighbour's model
    env.reset(state.set("_reset", torch.tensor([[False], [False], [True]])))
    for _ in range(3):
        with_neighbour = act(env, moving)["observation"]
    assert torch.equal(with_neighbour[:2], alone[:2])
    assert not torch.equal(with_neighbour[2], alone[2])
    env.close()


def global_numpy_state() -> str:
    """The generator MetaWorld draws from unless told otherwise."""
    with np.printoptions(threshold=10_000):
        return repr(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize("task", ["reach-v3", "Pendulum-v1"])
def test_seeding_leaves_global_generators_alone(task: str) -> None:
    torch_state, numpy_state = torch.random.get_rng_state(), global_numpy_state()
    env = simulation(task).make(num_envs=2, seed=1)
    seed_env(env, 2)
    env.reset()
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert global_numpy_state() == numpy_state
    env.close()


def test_global_generators_do_not_choose_goals() -> None:
    env = MetaWorldEnv("reach-v3", 1)
    goals = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        seed_env(env, 7)
        goals.append(env.reset()["observation"])
    assert torch.equal(*goals)
    env.close()


# Ends of episodes


def test_metaworld_truncates_at_500_steps_and_never_terminates(reach: MetaWorldEnv) -> None:
    reach.reset()
    for step in range(1, 501):
        answer = act(reach, np.zeros((3, 4)))
        assert answer["step"].flatten().tolist() == [step] * 3
        assert not answer["terminated"].any()
        assert answer["truncated"].all() == answer["done"].all() == (step == 500)
        assert answer["truncated"].any() == (step == 500)


def test_success_does_not_end_an_episode(reach: MetaWorldEnv) -> None:
    wear(reach)
    seed_env(reach, 1)
    observation, successes = reach.reset()["observation"], []
    for _ in range(60):
        action = np.clip(10 * (observation[:, -3:] - observation[:, :3]).numpy(), -1, 1)
        answer = act(reach, np.concatenate([action, np.zeros((3, 1))], 1))
        observation = answer["observation"]
        successes.append(answer["success"].flatten())
        assert not answer["done"].any()
    assert not successes[0].any()
    assert successes[-1].all()


def test_gymnasium_time_limit_truncates() -> None:
    env = simulation("Pendulum-v1").make(num_envs=2, seed=0)
    frames = env.rollout(200)
    assert frames["next", "truncated"].squeeze(-1).nonzero()[:, 1].tolist() == [199, 199]
    assert not frames["next", "terminated"].any()
    env.close()


def test_gymnasium_failure_terminates() -> None:
    env = simulation("InvertedPendulum-v5").make(num_envs=1, seed=0)
    state = env.reset()
    for _ in range(100):
        state = act(env, np.full((1, 1), 3.0), state)
        if state["done"].any():
            break
    assert state["terminated"].all()
    assert not state["truncated"].any()
    env.close()


def test_partial_reset_begins_one_episode_and_leaves_the_others(reach: MetaWorldEnv) -> None:
    reach.reset()
    for _ in range(3):
        before = act(reach, np.ones((3, 4)))
    request = before.clone().set("_reset", torch.tensor([[False], [True], [False]]))
    after = reach.reset(request)
    assert after["step"].flatten().tolist() == [3, 0, 3]
    assert torch.equal(after["observation"][[0, 2]], before["observation"][[0, 2]])
    assert not torch.equal(after["observation"][1], before["observation"][1])
    # and the others go on where they were
    assert act(reach, np.ones((3, 4)))["step"].flatten().tolist() == [4, 1, 4]


def test_only_ended_episodes_begin_again(reach: MetaWorldEnv) -> None:
    for simulator, horizon in zip(reach.simulators, (2, 3, 500), strict=True):
        simulator.max_path_length = horizon
    state, steps = reach.reset(), []
    for _ in range(6):
        stepped, state = reach.step_and_maybe_reset(reach.rand_action(state))
        steps.append(stepped["next", "step"].flatten().tolist())
    assert steps == [[1, 1, 1], [2, 2, 2], [1, 3, 3], [2, 1, 4], [1, 2, 5], [2, 3, 6]]


def test_answers_do_not_change_afterwards(reach: MetaWorldEnv) -> None:
    reach.reset()
    answer = act(reach, np.ones((3, 4)))
    kept = answer.clone()
    act(reach, -np.ones((3, 4)))
    reach.reset()
    for key in ("observation", "reward", "step", "truncated", "success"):
        assert torch.equal(answer[key], kept[key])


# Bad input


@pytest.mark.parametrize(
    ("name", "near"),
    [("reach-v2", "reach-v3"), ("drawer-clsoe-v3", "drawer-close-v3"), ("Pendulm-v1", "Pendulum-v1"), ("", "-v3")],
)
def test_unknown_task_offers_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match="unknown task") as refusal:
        simulation(name)
    assert near in str(refusal.value)


@pytest.mark.parametrize("task", ["reach-v3", "Pendulum-v1"])
@pytest.mark.parametrize("num_envs", [0, -1])
def test_environments_of_no_simulators_are_refused(task: str, num_envs: int) -> None:
    with pytest.raises(UserError, match=f"num_envs.*{num_envs}"):
        simulation(task).make(num_envs, seed=0)


@pytest.mark.parametrize(("name", "found"), [("reach-v3", MetaWorldTask), ("Pendulum-v1", GymnasiumTask)])
def test_a_name_is_found_by_the_kind_of_simulator_that_knows_it(name: str, found: type[Simulation]) -> None:
    assert find(name) == found(name)  # type: ignore[call-arg]
    assert find(f"no-{name}") is None


@pytest.mark.parametrize("task", ["CartPole-v1", "FrozenLake-v1"])
def test_discrete_actions_are_refused(task: str) -> None:
    with pytest.raises(UserError, match=r"action space Discrete.*gymnasium\.spaces\.Box|observation space Discrete"):
        simulation(task).make(num_envs=1, seed=0)


MINE = """
from dataclasses import dataclass
from datamodules.envs.simulation import Simulation
from datamodules.vla import ToyVLA

class Half(Simulation):
    name, horizon = "half", 3
    def make(self, num_envs, seed): ...

class Whole(Half):
    interface = None
    def spaces(self, env): ...

class Nameless(Whole):
    name = None

@dataclass(frozen=True)
class Wanting(Whole):
    port: str

class Stranger: ...
"""
CANNOT_BE_MADE = {
    "mine_sims.Half": "data.task=mine_sims.Half cannot be made: a Simulation has interface, spaces too",
    "mine_sims.Nameless": "data.task=mine_sims.Nameless has no name; a Simulation has one, a text",
    "mine_sims.Wanting": "data.task=mine_sims.Wanting cannot be made without --data.task.port=VALUE",
    "mine_sims.Stranger": "data.task=mine_sims.Stranger is no class derived from "
    "datamodules.envs.simulation.Simulation",
    "mine_sims.Nobody": "data.task=mine_sims.Nobody: there is no such class; a task by name has no dot in it",
    "no_sims.Whole": "data.task=no_sims.Whole: there is no such class; a task by name has no dot in it",
    "broken_sims.Whole": "data.task=broken_sims.Whole cannot be imported: ZeroDivisionError in <module> (",
}


@pytest.fixture
def my_simulations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_sims.py").write_text(MINE)
    (tmp_path / "broken_sims.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("my_simulations")
def test_the_path_of_a_class_alone_is_a_task() -> None:
    assert simulation("mine_sims.Whole").name == "half"
    assert simulation("datamodules.vla.ToyVLA") == ToyVLA()
    assert simulation("reach-v3") == simulation("reach-v3")


@pytest.mark.usefixtures("my_simulations")
@pytest.mark.parametrize("path", CANNOT_BE_MADE)
def test_a_simulation_that_cannot_be_made_says_what_it_lacks(path: str) -> None:
    with pytest.raises(UserError) as refusal:
        simulation(path)
    assert str(refusal.value).startswith(CANNOT_BE_MADE[path])
