"""Collection: in this process, and in workers that may die, hang, or lose their parent."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import Simulation, spaces_of
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions
from gipo.common.errors import UserError
from gipo.common.transition import REPLAY
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from tests.contract import assert_contract
from tests.runs import Process, living, within

TASK = simulation("reach-v3")
ENVS, FRAMES, WORKERS, SEED, FIRST_EPISODE = 2, 32, 2, 3, 50
Args = Callable[..., list[str]]
Start = Callable[[list[str]], Process]


@pytest.fixture(scope="module")
def policy() -> Policy:
    env = TASK.make(1, 0)
    torch.manual_seed(0)
    made = TokenPolicy(spaces_of(env), bins=8)
    env.close()
    return made


def in_process(policy: Policy, task: Simulation = TASK, seed: int = SEED, **options: Any) -> InProcessRollouts:
    return InProcessRollouts(Collection(task, ENVS, FRAMES, policy, seed=seed, **options))


class Workers:
    """Two workers that are gone when their tests are done."""

    def __init__(self, policy: Policy, asynchronous: bool):
        self.rollouts = WorkerRollouts(
            Collection(TASK, ENVS, FRAMES, policy, False, SEED, FIRST_EPISODE),
            CollectorOptions(workers=WORKERS, asynchronous=asynchronous, worker_timeout=3.0),
        )
        self.pids = {process.pid for process in self.rollouts._processes}
        # An asynchronous segment is of one worker, so that several may pass before one has come from each.
        self.segments = 3 * WORKERS if asynchronous else 1

    def collect(self) -> TensorDict:
        """Frames of all workers."""
        return torch.cat([self.rollouts.collect() for _ in range(self.segments)])

    def are_gone(self) -> bool:
        """Whether no worker process lives."""
        return within(20, lambda: not self.pids & set(living(lambda _: True)))


@pytest.fixture(scope="module", params=[False, True], ids=["synchronous", "asynchronous"])
def workers(policy: Policy, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Started once for all tests of a kind: starting takes longer than everything they do. The last one ends them."""
    started = Workers(policy, request.param)
    yield started
    started.rollouts.close()
    started.rollouts.close()
    assert started.are_gone()


def assert_episodes_are_whole(frames: TensorDict) -> None:
    """Within each episode steps count up by one, and each observation is what the step before led to."""
    for episode in frames["episode"].unique():
        mine = frames[frames["episode"] == episode]
        assert (mine["step"].diff() == 1).all()
        assert torch.equal(mine["observation"][1:], mine["next", "observation"][:-1])


@pytest.mark.parametrize("store_params", [False, True])
@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_frames_follow_the_data_contract(family: type[Policy], store_params: bool, policy: Policy) -> None:
    rollouts = in_process(family(policy.spaces), store_params=store_params)
    frames = rollouts.collect()
    rollouts.close()
    parameters = 256 if family is TokenPolicy else 2
    sizes = {"O": policy.spaces.observation_size, "D": policy.action_size, "P": parameters}
    # What the replay adds is not there yet.
    assert_contract(frames, REPLAY, sizes, without=("advantage", "value_target", "source"))
    assert frames["latent"].is_floating_point() == (family is GaussianPolicy)
    assert ("behaviour_params" in frames.keys()) == store_params
    assert len(frames) == FRAMES
    assert frames["valid"].all()


def test_log_probs_are_of_the_latent_under_the_policy_that_acted(policy: Policy) -> None:
    rollouts = in_process(policy)
    frames = rollouts.collect()
    rollouts.close()
    expected = policy.log_prob(policy.params(frames["observation"]), frames["latent"])
    assert torch.allclose(frames["log_prob"], expected, atol=1e-6)
    assert torch.equal(frames["action"], policy.to_env(frames["latent"]))


def test_a_task_without_success_says_nothing_of_it() -> None:
    task = simulation("Tiny-v0")
    env = task.make(1, 0)
    rollouts = in_process(TokenPolicy(spaces_of(env), bins=4), task)
    assert ("next", "success") not in rollouts.collect().keys(True)
    rollouts.close()


def test_episode_numbers_go_on_across_segments_ends_and_restarts() -> None:
    task = simulation("Tiny-v0")
    env = task.make(1, 0)
    rollouts = in_process(TokenPolicy(spaces_of(env), bins=4), task, first_episode=100)
    seen: set[int] = set()
    for restart in range(3):
        segments = [rollouts.collect() for _ in range(3)]
        frames = torch.cat(segments)
        order = frames["episode"].argsort(stable=True)
        assert_episodes_are_whole(frames[order])
        numbers = set(frames["episode"].tolist())
        assert min(numbers) >= 100
        assert not seen & numbers
        assert len(numbers) > ENVS  # some ended, so that new ones began
        seen |= numbers
        assert rollouts.next_episode == max(seen) + 1
        rollouts.restart(seed=restart)
    rollouts.close()


def test_a_restart_depends_on_its_seed_alone(policy: Policy) -> None:
    def after(segments: int, seed: int) -> TensorDict:
        rollouts = in_process(policy, seed=segments)
        for _ in range(segments):
            rollouts.collect()
        rollouts.restart(seed)
        frames = rollouts.collect()
        rollouts.close()
        return frames

    one, two, other = after(1, 5), after(3, 5), after(1, 6)
    for key in ("observation", "latent", "log_prob"):
        assert torch.equal(one[key], two[key])
        assert not torch.equal(one[key], other[key])


def test_workers_draw_different_goals_and_noise_and_number_episodes_apart(workers: Workers) -> None:
    frames = workers.collect()
    starts = frames[frames["step"] == 0]
    assert len(starts) == len(starts["episode"].unique()) == WORKERS * ENVS
    assert int(starts["episode"].min()) >= FIRST_EPISODE
    assert workers.rollouts.next_episode == int(starts["episode"].max()) + 1
    goals = starts["observation"][:, -3:]
    assert len(goals.unique(dim=0)) == WORKERS * ENVS
    assert len(starts["latent"].unique(dim=0)) == WORKERS * ENVS
    assert_episodes_are_whole(frames[frames["episode"].argsort(stable=True)])


def test_workers_act_with_the_weights_and_version_they_are_sent(workers: Workers, policy: Policy) -> None:
    learner = TokenPolicy(policy.spaces, bins=8)
    for version in range(1, 6):
        with torch.no_grad():
            learner.network.actor[-1].bias.normal_()
        learner.version.fill_(version)
        workers.rollouts.update(learner)
        frames = workers.collect()
        # What the frame says acted is what acted: its log-probs are those of that version's weights.
        mine = frames[frames["policy_version"] == version]
        assert len(mine) >= len(frames) / 2
        expected = learner.log_prob(learner.params(mine["observation"]), mine["latent"])
        assert torch.allclose(mine["log_prob"], expected, atol=1e-5)
        if workers.segments == 1:
            assert len(mine) == len(frames)


def test_workers_do_not_see_the_learner_change_its_weights(workers: Workers, policy: Policy) -> None:
    learner = TokenPolicy(policy.spaces, bins=8)
    learner.version.fill_(10)
    workers.rollouts.update(learner)
    workers.collect()
    sent = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():  # the learner learns, and has not sent anything yet
        learner.version += 7
        learner.network.actor[-1].bias.normal_()
    frames = workers.collect()
    assert set(frames["policy_version"].tolist()) == {10}
    learner.load_state_dict(sent)
    expected = learner.log_prob(learner.params(frames["observation"]), frames["latent"])
    assert torch.allclose(frames["log_prob"], expected, atol=1e-5)
    assert not any(value.is_shared() for value in learner.state_dict().values())


def test_workers_leave_signals_to_the_learner(workers: Workers) -> None:
    for pid in workers.pids:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    for _ in range(3):
        assert len(workers.collect()) > 0
    assert workers.pids <= set(living(lambda _: True))


def assert_the_run_ends_when_a_worker_is_sent(number: int, workers: Workers) -> None:
    os.kill(min(workers.pids), number)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"collection failed: .*worker"):
        list(iter(workers.rollouts.collect, None))  # until it fails: segments may be waiting already
    assert time.monotonic() - began < 12
    assert workers.are_gone()


def test_a_stuck_or_dead_worker_is_an_error_in_seconds(workers: Workers) -> None:
    # One kind each here, the other pairings in the campaign.
    number = signal.SIGKILL if workers.segments == 1 else signal.SIGSTOP
    assert_the_run_ends_when_a_worker_is_sent(number, workers)


@pytest.mark.campaign
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])
def test_however_a_worker_ends_it_is_an_error_in_seconds(number: int, asynchronous: bool, policy: Policy) -> None:
    workers = Workers(policy, asynchronous)
    workers.collect()
    assert_the_run_ends_when_a_worker_is_sent(number, workers)
    workers.rollouts.close()


WORKER_RUN = {
    "data__collector__workers": WORKERS,
    "data__collector__num_envs": ENVS,
    "data__collector__worker_timeout": 5,
    "data__total_frames": FRAMES * 1000,
}


@pytest.mark.parametrize("asynchronous", [pytest.param("false", marks=pytest.mark.campaign), "true"])
def test_a_killed_learner_leaves_no_worker(asynchronous: str, start: Start, tiny: Args) -> None:
    process = start(tiny(**WORKER_RUN, data__collector__asynchronous=asynchronous))
    process.wait_for_training()
    assert len(process.family()) >= 1 + WORKERS
    process.signal(signal.SIGKILL)
    assert within(20, lambda: not process.family())


@pytest.mark.campaign
def test_a_killed_worker_ends_the_run_with_one_clear_line(start: Start, tiny: Args) -> None:
    process = start(tiny(**WORKER_RUN))
    process.wait_for_training()
    children = living(lambda fields: int(fields[1]) == process.pid)
    os.kill(max(children), signal.SIGKILL)
    assert process.wait(20) == 2
    assert "gipo: error: collection failed:" in process.output
    assert "Traceback" not in process.output
    assert within(20, lambda: not process.family())
