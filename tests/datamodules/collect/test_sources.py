"""Which source of transitions is started, and with what."""

import copy
from typing import Any

import pytest
import torch

from datamodules.collect import sources
from datamodules.collect.actor import acting, acts_on_device
from datamodules.collect.episode_returns import EpisodeTracker
from datamodules.collect.random_state import generator_states, seed_generators
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import Shortened, Simulation
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions, EvaluationOptions, RayOptions
from gipo.common.errors import UserError
from gipo.networks import SeparateNetworks
from gipo.policies import TokenPolicy
from tests import tiny_env

TASK = simulation("Pendulum-v1")
SHORT = Shortened(TASK, 9)


def small() -> TokenPolicy:
    return TokenPolicy(TASK.spaces(TASK.make(1, 0)), network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)))


POLICY = small()


@pytest.mark.parametrize(
    ("name", "options", "seed", "task"),
    [
        ("InProcessRollouts", {"workers": 0, "asynchronous": False}, 40, TASK),
        ("WorkerRollouts", {"workers": 2, "asynchronous": False}, 40, TASK),
        ("AsynchronousRollouts", {"workers": 2}, 49, TASK),  # the iteration's
        ("RayRollouts", {"workers": 2, "backend": "ray", "ray": RayOptions(max_staleness=2)}, 40, TASK),
        ("InProcessRollouts", {"workers": 0, "asynchronous": False, "max_steps": 9}, 40, SHORT),
    ],
)
def test_the_options_choose_the_source(
    name: str, options: dict[str, Any], seed: int, task: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = CollectorOptions(num_envs=3, worker_timeout=7.0, **{"asynchronous": True} | options)
    evaluation = EvaluationOptions(num_envs=4)
    monkeypatch.setattr(sources, name, lambda *given: given)
    source = sources.RolloutSource(collector, TASK, evaluation)
    source.load_state_dict({"frames": 24, "next_episode": 5, "episodes": {"finished": []}, "generators": {}})
    source.start(12, POLICY, True, 40, 9)
    what = Collection(task, 3, 12, POLICY, True, seed, first_episode=5)
    given = {"InProcessRollouts": (what,), "WorkerRollouts": (what, collector, evaluation)}
    assert source.rollouts == given.get(name, (what, collector))  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(("backend", "said"), [("ray", "backend=ray needs actors"), ("process", "=true needs workers")])
def test_nobody_collects_asynchronously_without_workers(backend: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        CollectorOptions(workers=0, asynchronous=True, backend=backend)


@pytest.mark.parametrize(
    ("cores", "asked", "learners", "began_with", "workers"),
    [
        (1, None, 1, None, 0),
        (2, None, 1, None, 1),
        (2, None, 2, None, 0),
        (4, None, 2, None, 1),
        (2, 0, 1, None, 0),
        (1, 3, 1, None, 3),
        (1, None, 1, 1, 1),  # a resumed run has what it began with
        (2, None, 1, 0, 0),
        (2, 2, 1, 1, 2),  # unless told otherwise
    ],
)
def test_a_worker_is_beside_the_learner_where_there_is_a_core_for_it(
    cores: int,
    asked: int | None,
    learners: int,
    began_with: int | None,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datamodules.options.cores", lambda: cores)
    monkeypatch.setattr(sources, "rollouts", lambda what, options, *_: options.workers)
    source = sources.RolloutSource(CollectorOptions(workers=asked), TASK, EvaluationOptions())
    if began_with is not None:
        state = {"frames": 24, "next_episode": 5, "episodes": {"finished": []}, "generators": {}}
        source.load_state_dict(state | {"workers": began_with})
    source.start(20, POLICY, False, 1, 0, learners)
    assert source.rollouts == workers  # type: ignore[comparison-overlap]


@pytest.mark.parametrize(("large", "asked", "workers"), [(False, None, 1), (True, None, 0), (True, 2, 2)])
def test_a_large_network_acts_where_it_learns_and_needs_no_worker(
    large: bool, asked: int | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.options.cores", lambda: 4)
    monkeypatch.setattr(sources, "rollouts", lambda what, options, *_: options.workers)
    monkeypatch.setattr(SeparateNetworks, "large", large)
    policy = small().to("meta")  # another device than the CPU
    source = sources.RolloutSource(CollectorOptions(workers=asked), TASK, EvaluationOptions())
    source.start(20, policy, False, 1, 0)
    assert source.rollouts == workers  # type: ignore[comparison-overlap]
    assert (acting(policy) is policy) if large else not acts_on_device(policy)


def test_what_starts_again_has_episodes_of_its_own() -> None:
    source = sources.RolloutSource(CollectorOptions(num_envs=2, workers=0), TASK, EvaluationOptions())
    policy, seen = small(), []
    for _ in range(2):
        source.start(8, policy, False, 1, 0)
        source.act_by(policy, 1)
        segment = source.collect()
        source.count(segment)
        seen.append(set(segment["episode"].tolist()))
        source.close()
    assert seen == [{0, 1}, {2, 3}]
    assert source.frames == 16
    assert source.episodes.state_dict()["unfinished"] == []


class _RunningOn(InProcessRollouts):
    """Whose episodes go on across checkpoints, as those of asynchronous workers do."""

    def restart(self, seed: int) -> bool:
        return False


def test_episodes_that_go_on_across_a_checkpoint_are_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "InProcessRollouts", _RunningOn)
    source = sources.RolloutSource(CollectorOptions(num_envs=2, workers=0, max_steps=9), TASK, EvaluationOptions())
    policy, whole = small(), EpisodeTracker()
    source.start(8, policy, False, 1, 0)
    for seed in range(6):
        source.at_boundary = True
        source.act_by(policy, seed)
        segment = source.collect()
        source.count(segment)
        whole.add(segment)
    source.close()
    assert len(whole.finished) == 4
    assert source.episodes.finished == whole.finished


def test_what_a_resumed_run_had_not_finished_is_no_part_of_its_new_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "InProcessRollouts", _RunningOn)
    source = sources.RolloutSource(CollectorOptions(num_envs=2, workers=0), TASK, EvaluationOptions())
    episodes = {"finished": [], "unfinished": [[0, -5.0, False]]}
    state = {"frames": 8, "next_episode": 2, "episodes": episodes, "generators": generator_states()}
    source.load_state_dict(state)
    source.start(8, policy := small(), False, 1, 0)
    source.act_by(policy, 1)
    assert source.episodes.state_dict()["unfinished"] == []
    source.close()


@pytest.mark.parametrize("where", ["Reset", "Step"])
def test_simulators_that_draw_from_the_process_go_on_as_they_would_have(where: str) -> None:
    """From numpy's own generator, as many environments do: a checkpoint holds it."""
    tiny_env.register()
    task = simulation(f"{where}Draws-v0")
    policy = TokenPolicy(task.spaces(task.make(1, 0)), network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)))

    def source() -> sources.RolloutSource:
        return sources.RolloutSource(CollectorOptions(num_envs=2, workers=0), task, EvaluationOptions())

    seed_generators(5)
    first, second = source(), source()
    first.start(8, policy, False, 1, 0)
    first.act_by(policy, 11)
    first.count(first.collect())
    first.at_boundary = True
    state = copy.deepcopy(first.state_dict())
    first.act_by(policy, 22)
    went_on = [first.collect().clone() for _ in range(2)]
    first.close()
    seed_generators(99)  # another process
    second.load_state_dict(state)
    second.start(8, policy, False, 1, 1)
    second.act_by(policy, 22)
    for segment in went_on:
        assert torch.equal(second.collect()["observation"], segment["observation"])
    second.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_another_run_of_the_trainer_collects_other_episodes(workers: int) -> None:
    collector, policy, seen = CollectorOptions(num_envs=2, workers=workers), small(), []
    source = sources.RolloutSource(collector, TASK, EvaluationOptions())
    for run in range(2):
        source.start(20, policy, False, 22, run)
        source.act_by(policy, 1000 + run)
        seen.append(source.collect().clone())
        source.count(seen[-1])
        source.close()
    assert not torch.equal(seen[0]["observation"], seen[1]["observation"])
