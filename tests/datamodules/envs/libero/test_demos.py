"""Demonstrations: scripted and recorded ones become a dataset that can be cloned."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.envs.libero.demos import Demonstration, main, scripted, write
from datamodules.envs.libero.hdf5 import recorded
from datamodules.envs.libero.simulator import LiberoSimulator, units
from datamodules.envs.libero.tasks import find
from datamodules.ingest import IngestOptions, ingest
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
    ((observations, actions),) = recorded(TASK, path)
    assert actions.shape == (3, 7)
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
    with pytest.raises(UserError, match=rf"other\.hdf5 is of the task {other.name}, not of libero_object/6"):
        list(recorded(TASK, path))
    with h5py.File(path, "a") as file:
        file["data"].attrs["bddl_file_name"] = kind(f"bddl_files/{TASK.name}.bddl")
        model = file["data/demo_0"].attrs["model_file"]
        file["data/demo_0"].attrs["model_file"] = kind(model)
    assert len(list(recorded(TASK, path))) == 1


def test_a_dataset_is_ingested_whole(tmp_path: Path) -> None:
    size = len(units(TASK))
    made = [Demonstration(np.full((n + 1, size), n, np.float32), np.full((n, 7), 0.5, np.float32)) for n in (2, 3)]
    path = write(tmp_path / "out", TASK, made)
    store = ingest([path], IngestOptions(cache=tmp_path / "cache", workers=1))
    assert (store.facts.episodes, store.facts.steps, store.facts.successes) == (2, 5, 2)
    assert store.frames["next", "reward"].tolist() == [0, 1, 0, 0, 1]
    assert store.frames["next", "terminated"].tolist() == [False, True, False, False, True]
    with pytest.raises(UserError, match="exists; name another"):
        write(tmp_path / "out", TASK, made)


@pytest.mark.usefixtures("episode")
def test_scripted_demonstrations_record_what_was_done() -> None:
    first = next(scripted(TASK, noise=0.1, seed=0))
    assert len(first.observations) == len(first.actions) + 1
    assert np.abs(first.actions).max() <= 1
    simulator = LiberoSimulator(TASK)
    seen = simulator.reset(0, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, first.observations[0])


def test_a_suite_is_no_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--task=libero_goal", f"--out={tmp_path}"]) == 2
    assert "has 10 tasks" in capsys.readouterr().err
