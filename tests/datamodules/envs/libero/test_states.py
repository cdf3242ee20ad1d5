"""State-only LIBERO against robosuite itself; initial states, seeds, ends of episodes, suites."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from datamodules.collect.evaluation import Evaluation, evaluate
from datamodules.envs.libero.script import PickAndPlace
from datamodules.envs.libero.simulator import LiberoSimulator, units
from datamodules.envs.libero.states import LiberoStateEnv
from datamodules.envs.libero.tasks import find
from datamodules.envs.seeding import seed_env
from datamodules.envs.simulation import spaces_of
from gipo.common.errors import UserError
from gipo.policies import TokenPolicy

torch.set_num_threads(1)
SPATIAL, GOAL = find("libero_spatial/0")[0], find("libero_goal/7")[0]


@pytest.fixture(scope="module")
def simulator() -> Iterator[LiberoSimulator]:
    simulator = LiberoSimulator(SPATIAL)
    yield simulator
    simulator.close()


@pytest.fixture(scope="module")
def env() -> Iterator[LiberoStateEnv]:
    env = LiberoStateEnv([GOAL], 2)
    yield env
    env.close()


def begin(simulator: LiberoSimulator, state: int = 0, seed: int = 0) -> np.ndarray:
    return simulator.reset(state, np.random.default_rng(seed))


@pytest.mark.parametrize(("tasks", "places", "most"), [(1, 3, 3), (10, 10, 10), (10, 8, 10), (5, 2, 5), (3, 7, 9)])
def test_a_suite_is_evaluated_by_as_many_simulators_as_it_needs(
    tasks: int, places: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that no place holds any more goes to the next that comes to its task."""
    made = []

    class Simulator:
        states = np.zeros((5, 1))

        def __init__(self, task: object):
            self.task, self.open = task, True
            made.append(self)

        def reset(self, state: int, generator: np.random.Generator) -> np.ndarray:
            return np.zeros(3, np.float32)

        def close(self) -> None:
            self.open = False

    monkeypatch.setattr("datamodules.envs.libero.states.LiberoSimulator", Simulator)
    names = dict.fromkeys(range(3 + tasks), "1")
    monkeypatch.setattr("datamodules.envs.libero.states.units_of", lambda _: names)
    suite = [SimpleNamespace(horizon=3, name=str(index)) for index in range(tasks)]
    env = LiberoStateEnv(suite, places, evaluating=True)  # type: ignore[arg-type]
    for first in range(0, tasks * 10, places):
        env.begin_with(range(first, first + places), 0)
        env.reset()
        held = [env.simulator(index) for index in range(places)]
        assert len({*map(id, held)}) == places
        assert [each.task for each in held] == [suite[(first + index) % tasks] for index in range(places)]  # type: ignore[attr-defined]
    assert len(made) <= most
    if len(made) == places:  # none is spare: whoever goes on with its task keeps its simulator
        env.begin_with(range(first, first + places), 1)
        env.reset()
        assert [env.simulator(index) for index in range(places)] == held
    env.close()
    assert not any(each.open for each in made)


# One simulator
# One simulator


def test_names_stand_where_the_numbers_are(simulator: LiberoSimulator) -> None:
    seen = dict(zip(units(SPATIAL), begin(simulator), strict=True))
    theirs = simulator.domain._get_observations(force_update=True)

    def at(name: str, ends: str = "xyz") -> list[float]:
        return [seen[f"{name}_{end}"] for end in ends]

    np.testing.assert_allclose(at("hand"), theirs["robot0_eef_pos"], atol=6e-4)
    np.testing.assert_allclose(at("finger", "12"), theirs["robot0_gripper_qpos"], atol=6e-4)
    for thing in ("akita_black_bowl_1", "plate_1"):
        np.testing.assert_allclose(at(thing), theirs[f"{thing}_pos"], atol=6e-4)
        np.testing.assert_allclose(at(f"{thing}_from_hand"), np.subtract(at(thing), at("hand")), atol=2e-3)
        matrix = simulator.data.body(simulator.domain.objects_dict[thing].root_body).xmat.reshape(3, 3)
        axes = [seen[f"{thing}_axis_{axis}_{row}"] for axis in "xy" for row in "xyz"]
        np.testing.assert_allclose(axes, matrix.T[:2].ravel(), atol=6e-4)
    simulator.data.joint("wooden_cabinet_1_middle_level").qpos = -0.1
    opened = dict(zip(units(SPATIAL), simulator.observation(), strict=True))
    assert opened["wooden_cabinet_1_middle_level"] == pytest.approx(-0.1)
    assert units(SPATIAL)["wooden_cabinet_1_middle_level"] == "m"
    assert units(SPATIAL)["flat_stove_1_button"] == "rad"


def test_a_step_is_robosuites_up_to_rounding(simulator: LiberoSimulator) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 7))
    begin(simulator)
    ours = [simulator.step(action)[0] for action in actions]
    begin(simulator)
    for action, expected in zip(actions, ours, strict=True):
        simulator.domain.step(action)
        np.testing.assert_allclose(simulator.observation(), expected, atol=2e-3)  # observed to the millimetre


def test_an_episode_depends_on_its_state_and_seed_alone(simulator: LiberoSimulator) -> None:
    def episode(state: int, seed: int) -> list[float]:
        begin(simulator, state, seed)
        for _ in range(3):
            seen, _ = simulator.step(np.full(7, 0.5))
        return list(seen)

    first = episode(0, 0)
    assert episode(1, 0) != first
    assert episode(0, 1) != first  # fixtures stand elsewhere
    for _ in range(10):  # the gripper closes, which the next episode must not remember
        simulator.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert episode(0, 0) == first


def test_a_second_simulator_is_a_copy_that_moves_alone(
    simulator: LiberoSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("datamodules.envs.libero.simulator._without_textures")  # without which none is compiled
    twin = LiberoSimulator(SPATIAL)
    np.testing.assert_array_equal(begin(twin, 3, 5), begin(simulator, 3, 5))
    before = simulator.observation()
    begin(twin, 4, 6)
    np.testing.assert_array_equal(simulator.observation(), before)
    twin.close()


def test_global_generators_are_left_alone(simulator: LiberoSimulator) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    begin(simulator)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


# The script


def test_the_script_puts_the_bowl_on_the_plate(simulator: LiberoSimulator) -> None:
    begin(simulator)
    script, success, steps = PickAndPlace(simulator), False, 0
    while not success and steps < SPATIAL.horizon:
        _, success = simulator.step(script().clip(-1, 1))
        steps += 1
    assert success
    assert steps < 100


def test_a_goal_of_another_kind_is_refused(env: LiberoStateEnv) -> None:
    with pytest.raises(UserError, match=r"turnon.*picks up one thing"):
        PickAndPlace(env.simulator(0))


# Many simulators


def test_specs_hold(env: LiberoStateEnv) -> None:
    check_env_specs(env)


def test_seeds_choose_initial_states(env: LiberoStateEnv) -> None:
    def beginnings(seed: int) -> torch.Tensor:
        seed_env(env, seed)
        return torch.cat([env.reset()["observation"] for _ in range(2)])

    first = beginnings(1)
    assert len(first.unique(dim=0)) == 4
    assert torch.equal(beginnings(1), first)
    assert not torch.equal(beginnings(2), first)


def test_success_is_the_reward_and_terminates(env: LiberoStateEnv) -> None:
    state = env.reset()
    first, second = (env.simulator(index) for index in range(2))
    first.data.joint("flat_stove_1_button").qpos = 1.0
    answer = env.step(env.full_action_spec.zero())["next"]
    assert answer["success"].flatten().tolist() == answer["terminated"].flatten().tolist() == [True, False]
    assert answer["reward"].flatten().tolist() == [1.0, 0.0]
    assert not answer["truncated"].any()
    assert state["step"].flatten().tolist() == [0, 0]
    assert not second.domain._check_success()


def test_the_horizon_truncates(env: LiberoStateEnv) -> None:
    env.reset()
    env._steps[:] = [[GOAL.horizon - 1], [GOAL.horizon - 2]]
    answer = env.step(env.full_action_spec.zero())["next"]
    assert answer["truncated"].flatten().tolist() == [True, False]
    assert not answer["terminated"].any()


@pytest.mark.usefixtures("simulator", "env")
def test_tasks_together_have_one_size_and_say_which_task() -> None:
    tasks = [SPATIAL, GOAL]
    assert len(units(SPATIAL)) != len(units(GOAL))
    env = LiberoStateEnv(tasks, 3)
    seen = env.reset()
    for index in range(3):
        row, size = seen["observation"][index], len(units(tasks[index % 2]))
        assert row[-2:].tolist() == [float(place == index % 2) for place in range(2)]
        assert row[:size].any()
        assert not row[size:-2].any()
    assert seen["task"].flatten().tolist() == [0, 1, 0]
    env.close()


@pytest.mark.usefixtures("simulator", "env")
def test_evaluation_goes_through_tasks_and_initial_states_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [GOAL, SPATIAL]
    begun, reset = [], LiberoSimulator.reset

    def noting(self: LiberoSimulator, state: int, generator: np.random.Generator) -> np.ndarray:
        begun.append((self.task.index, state))
        return reset(self, state, generator)

    monkeypatch.setattr(LiberoSimulator, "reset", noting)
    monkeypatch.setattr(type(GOAL), "horizon", 2)
    env = LiberoStateEnv(tasks, 2, evaluating=True)
    policy = TokenPolicy(spaces_of(env))
    for _ in range(2):  # the second evaluation is the first again
        begun.clear()
        episodes = evaluate(env, policy, 4, Evaluation(seed=3))
        assert begun == [(7, 0), (0, 0), (7, 1), (0, 1)]
        assert episodes["task"].tolist() == [0, 1, 0, 1]
        assert episodes["length"].tolist() == [2, 2, 2, 2]
    env.close()


def test_a_simulator_rests_when_its_episode_is_over() -> None:
    env = LiberoStateEnv([GOAL], 2, evaluating=True)
    state = env.reset()
    rest = env.reset(state.set("_reset", torch.tensor([[True], [False]])))
    still = env.step(rest.set("action", torch.ones(2, 7)))["next"]
    assert torch.equal(still["observation"][0], rest["observation"][0])
    assert not torch.equal(still["observation"][1], rest["observation"][1])
    assert not still["done"].any()
    env.close()
