"""Episodes out of phase: lengths, restarts, what such an episode is, and what has no limit to be staggered in."""

from contextlib import closing

import pytest
import torch
from tensordict import TensorDict

from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.collect.stagger import Staggered, first_lengths
from datamodules.envs.gymnasium import GymnasiumTask
from datamodules.envs.simulation import Simulation
from datamodules.envs.tasks import simulation
from datamodules.online import OnlineDataModule
from datamodules.options import CollectorOptions
from datamodules.vla import ToyVLA
from gipo.common.errors import UserError
from gipo.policies import TokenPolicy
from gipo.vla.policies import VLATokenPolicy

ENVS, STEPS = 4, 30
HORIZON = 12  # of Tiny-v0
TINY = Staggered(simulation("Tiny-v0"))


def rollouts(task: Simulation, family: type = TokenPolicy) -> InProcessRollouts:
    with closing(task.make(1, 0)) as env:
        torch.manual_seed(0)
        policy = family(task.spaces(env), bins=4)
    return InProcessRollouts(Collection(task, ENVS, ENVS * STEPS, policy, seed=5))


def segment(source: InProcessRollouts) -> TensorDict:
    return source.collect().reshape(ENVS, STEPS)


def first_ends(frames: TensorDict) -> list[int]:
    """Steps of each simulator's first episode."""
    return (1 + frames["next", "done"].long().argmax(1)).tolist()


@pytest.mark.parametrize("count", [1, 3, 10, 40])
def test_first_lengths_are_spread_over_the_whole_limit(count: int) -> None:
    lengths = first_lengths(count, 500, seed=1)
    assert lengths.shape == (count,)
    assert lengths.min() >= 1
    assert lengths.max() <= 500
    # one in every count-th part of the limit
    assert sorted(((lengths - 1) * count // 500).tolist()) == list(range(count))
    assert torch.equal(lengths, first_lengths(count, 500, seed=1))
    assert not torch.equal(lengths, first_lengths(count, 500, seed=2))


def test_only_first_episodes_are_short_and_they_are_truncated_not_terminated() -> None:
    task = CollectorOptions(stagger=True, max_steps=9).simulated(simulation("Pendulum-v1"))
    with closing(rollouts(task)) as source:
        frames = segment(source)
    lengths = first_ends(frames)
    assert len(set(lengths)) == ENVS
    assert lengths == first_lengths(ENVS, 9, seed=5).tolist()
    for row, length in zip(frames, lengths, strict=True):
        assert row["next", "done"].nonzero().flatten().tolist() == list(range(length - 1, STEPS, 9))
        assert row["next", "staggered"].nonzero().flatten().tolist() == ([length - 1] if length < 9 else [])
        assert torch.equal(row["next", "truncated"], row["next", "done"])
        assert not row["next", "terminated"].any()
        # the step after the cut begins an episode, and the last observation is not its first
        assert row["step"][length] == 0
        assert not torch.equal(row["next", "observation"][length - 1], row["observation"][length])


def test_a_restart_staggers_again_and_by_its_seed_alone() -> None:
    task = CollectorOptions(stagger=True, max_steps=9).simulated(simulation("Pendulum-v1"))
    with closing(rollouts(task)) as source:
        begun = first_ends(segment(source))
        source.restart(8)
        again = segment(source)
        segment(source)
        source.restart(8)
        once_more = segment(source)
    assert first_ends(again) == first_lengths(ENVS, 9, seed=8).tolist() != begun
    for key in ("observation", "action", ("next", "reward"), ("next", "staggered")):
        assert torch.equal(again[key], once_more[key])


def test_an_episode_that_ends_by_itself_is_not_cut_later() -> None:
    with closing(rollouts(TINY)) as source:
        segments = [segment(source) for _ in range(3)]
    frames = torch.cat(segments, 1)
    for row in frames:
        first = int(row["next", "done"].long().argmax())
        assert not row["next", "staggered"][first + 1 :].any()


def test_action_chunks_are_staggered_by_decisions() -> None:
    task = Staggered(ToyVLA(chunk=2, max_steps=8))
    assert task.horizon == 4
    with closing(rollouts(task, VLATokenPolicy)) as source:
        frames = segment(source)
    cut = frames["next", "staggered"]
    assert cut.any()
    assert (cut.sum(1) <= 1).all()
    assert frames["next", "truncated"][cut].all()
    assert not frames["next", "terminated"][cut].any()
    assert first_ends(frames) <= [4] * ENVS


def test_evaluation_is_the_tasks_own() -> None:
    with closing(TINY.make_evaluation(2, 0)) as env:
        assert "staggered" not in env.observation_spec.keys()
    own = simulation("Tiny-v0")
    assert (TINY.name, TINY.horizon, TINY.parts, TINY.interface) == (own.name, own.horizon, own.parts, own.interface)


def test_a_task_without_a_limit_is_refused_with_the_way_out() -> None:
    class Endless(GymnasiumTask):
        horizon = None  # type: ignore[assignment]

    for build in (
        lambda: CollectorOptions(stagger=True).simulated(Endless("Tiny-v0")),
        lambda: OnlineDataModule(Endless("Tiny-v0"), collector=CollectorOptions(stagger=True)),
    ):
        with pytest.raises(UserError, match=r"Tiny-v0 has none: set data\.collector\.max_steps"):
            build()
    assert CollectorOptions(stagger=True, max_steps=9).simulated(Endless("Tiny-v0")).horizon == 9


def test_checkpoints_that_leave_no_whole_episode_are_said_before_the_run() -> None:
    def notes(every: int, stagger: bool = True) -> list[str]:
        collector = CollectorOptions(num_envs=20, stagger=stagger)
        return [note for note in OnlineDataModule("reach-v3", collector=collector).notes(every) if "checkpoint" in note]

    # 50 steps of a simulator an iteration, episodes of 500
    assert notes(20) == []
    assert notes(10, stagger=False) == []
    (note,) = notes(10)
    assert "every 500 steps" in note
    assert note.endswith("choose checkpoint.every of at least 20")
