"""LIBERO's recorded demonstrations are observed as our simulator observes, and its script demonstrates."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.demos.attempts import Attempts
from datamodules.envs.libero.hdf5 import recorded
from datamodules.envs.libero.simulator import LiberoSimulator
from datamodules.envs.libero.states import LiberoStateTask
from datamodules.envs.libero.tasks import find
from gipo.common.errors import UserError

TASK = find("libero_object/6")[0]


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, np.ndarray]]:
    """A file of LIBERO's with one short demonstration, and what was observed in it.

    Its simulator lives as long as this module's tests, so that theirs need not be compiled.
    """
    simulator = LiberoSimulator(TASK)
    seen = [simulator.reset(0, np.random.default_rng(3))]
    states, actions = [], np.random.default_rng(0).uniform(-1, 1, (4, 7))
    for action in actions:
        states.append(simulator.domain.sim.get_state().flatten())
        seen.append(simulator.step(action)[0])
    path = tmp_path_factory.mktemp("libero") / "demo.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("data/demo_0")
        group["states"], group["actions"] = np.stack(states), actions
        group.attrs["model_file"] = simulator.domain.sim.model.get_xml()
    yield path, np.stack(seen)
    simulator.close()


def test_a_recorded_file_is_observed_as_it_was(episode: tuple[Path, np.ndarray]) -> None:
    path, seen = episode
    (found,) = recorded(TASK, path)
    observations = found.observations
    assert found.actions.shape == (3, 7)
    assert found.rewards.tolist() == [0, 0, 1]
    assert found.success is not None
    assert (found.terminated, found.success.tolist()) == (True, [False, False, True])
    # robosuite's observations lag a substep behind the state: 2 ms
    np.testing.assert_allclose(observations, seen[:-1], atol=6e-3)


def test_files_of_another_task_or_none_are_refused(episode: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"are not of libero_goal/7, which has states of 79"):
        list(recorded(find("libero_goal/7")[0], episode[0]))
    broken = tmp_path / "broken.hdf5"
    broken.write_bytes(episode[0].read_bytes()[:500])
    with pytest.raises(UserError, match="no file of LIBERO demonstrations"):
        list(recorded(TASK, broken))


@pytest.mark.parametrize("kind", [str, np.bytes_])
def test_a_file_of_another_task_of_the_suite_is_refused_by_its_name(
    kind: type, episode: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "other.hdf5"
    path.write_bytes(episode[0].read_bytes())
    other = find("libero_object/5")[0]
    assert other.init_states().shape == TASK.init_states().shape
    with h5py.File(path, "a") as file:
        file["data"].attrs["bddl_file_name"] = kind(f"chiliocosm/bddl_files/libero_object/{other.name}.bddl")
    with pytest.raises(UserError, match=rf"^{path} is of the task {other.name}, not of libero_object/6"):
        list(recorded(TASK, path))
    with h5py.File(path, "a") as file:
        file["data"].attrs["bddl_file_name"] = kind(f"bddl_files/{TASK.name}.bddl")
        model = file["data/demo_0"].attrs["model_file"]
        file["data/demo_0"].attrs["model_file"] = kind(model)
    assert len(list(recorded(TASK, path))) == 1


@pytest.mark.usefixtures("episode")
def test_the_script_succeeds_and_what_was_done_is_recorded() -> None:
    attempts = Attempts(LiberoStateTask("libero_object/6"), noise=0.1)
    env, maker = attempts.make()
    first = attempts.run(env, maker, 0)
    assert (first.succeeded, first.terminated) == (True, True)
    assert len(first.observations) == len(first.actions) + 1
    assert np.abs(first.actions).max() <= 1
    # The first attempt begins at the benchmark's first state, whatever the seed leaves open.
    begun = [env.simulator(0).reset(0, np.random.default_rng(seed)) for seed in (0, 1)]
    same = begun[0] == begun[1]
    np.testing.assert_allclose(begun[0][same], first.observations[0][same], atol=2e-3)
    env.close()
