"""Collection in worker processes, in lockstep or never waiting: they may die, hang, fail, or lose their learner."""

import faulthandler
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import EnvBase

from datamodules.collect import worker_process
from datamodules.collect.asynchronous import AsynchronousRollouts
from datamodules.collect.evaluation import Evaluation, evaluate
from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import Wrapped, spaces_of
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions, EvaluationOptions
from gipo.common.errors import UserError
from gipo.policies import Policy, TokenPolicy
from tests.datamodules.collect.test_rollouts import assert_episodes_are_whole
from tests.runs import Process, living, within

TASK, SHORT = simulation("reach-v3"), simulation("Tiny-v0")
ENVS, FRAMES, WORKERS, SEED, FIRST_EPISODE = 2, 32, 2, 3, 50
KINDS = {"in lockstep": WorkerRollouts, "asynchronous": AsynchronousRollouts}
Args = Callable[..., list[str]]
Start = Callable[[list[str]], Process]


def policy_for(task: Any) -> Policy:
    with closing(task.make(1, 0)) as env:
        torch.manual_seed(0)
        return TokenPolicy(spaces_of(env), bins=8)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return policy_for(TASK)


def lockstep(policy: Policy, task: Any = SHORT, workers: int = 1, overlap: bool = True, **what: Any) -> WorkerRollouts:
    what = {"num_envs": ENVS, "frames": FRAMES, "seed": SEED, "first_episode": FIRST_EPISODE} | what
    options = CollectorOptions(workers=workers, overlap=overlap, worker_timeout=3.0)
    return WorkerRollouts(Collection(task, policy=policy, **what), options)


def learned(policy: Policy) -> None:
    """What an iteration of learning leaves: other weights, and the next version."""
    with torch.no_grad():
        policy.network.actor[-1].bias.normal_(generator=torch.Generator().manual_seed(int(policy.version)))
        policy.version += 1


def assert_equal(one: TensorDict, two: TensorDict) -> None:
    assert set(one.keys(True, True)) == set(two.keys(True, True))
    for key in one.keys(True, True):
        assert torch.equal(one[key], two[key]), key


def test_one_worker_that_waits_collects_what_one_process_does() -> None:
    policy = policy_for(SHORT)
    here = InProcessRollouts(Collection(SHORT, ENVS, FRAMES, policy, seed=SEED, first_episode=FIRST_EPISODE))
    with closing(lockstep(policy, overlap=False)) as there, closing(here):
        for segment in range(6):
            if segment == 3:
                assert here.restart(9)
                assert there.restart(9)
            for rollouts in (here, there):
                rollouts.update(policy)
                rollouts.begin()
            assert_equal(here.collect(), there.collect())
            assert here.next_episode == there.next_episode
            learned(policy)


def files_of_segments() -> int:
    """How many files of this process are memory of segments."""
    gc.collect()
    files = Path("/proc/self/fd").iterdir()
    return sum("memfd:segments" in os.readlink(file) for file in files if file.is_symlink())


def test_a_source_that_is_closed_leaves_no_file_open() -> None:
    policy, before = policy_for(SHORT), files_of_segments()
    with closing(lockstep(policy)) as rollouts:
        loop(rollouts, policy, 2)
        assert files_of_segments() == before + 1  # while the memory is mapped
    del rollouts
    assert files_of_segments() == before


def loop(rollouts: WorkerRollouts, policy: Policy, iterations: int) -> list[TensorDict]:
    """What `iterations` iterations of the online data module learn from."""
    found = []
    for _ in range(iterations):
        rollouts.update(policy)
        segment = rollouts.collect()
        rollouts.begin()
        found.append(segment.clone())
        learned(policy)
    return found


def test_beside_the_learner_every_segment_is_one_version_old() -> None:
    policy = policy_for(SHORT)
    learner = TokenPolicy(policy.spaces, bins=8)
    with closing(lockstep(policy)) as rollouts:
        segments = loop(rollouts, policy, 5)
    assert [segment["policy_version"].unique().tolist() for segment in segments] == [[0], [0], [1], [2], [3]]
    learner.load_state_dict(policy_for(SHORT).state_dict())
    for segment in segments[1:]:
        # The version on a frame is that of the weights that acted.
        assert int(learner.version) == int(segment["policy_version"][0])
        expected = learner.log_prob(learner.params(segment["observation"]), segment["latent"])
        assert torch.allclose(segment["log_prob"], expected, atol=1e-6)
        learned(learner)
    assert_episodes_are_whole(torch.cat(segments)[torch.cat(segments)["episode"].argsort(stable=True)])


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_collected_depends_on_seeds_alone(workers: int) -> None:
    runs = []
    for pause in (0.0, 0.02):
        policy = policy_for(SHORT)
        with closing(lockstep(policy, workers=workers, num_envs=2, frames=24)) as rollouts:
            found = []
            for _ in range(4):
                found += loop(rollouts, policy, 1)
                time.sleep(pause)
        runs.append(torch.cat(found))
    assert_equal(*runs)
    assert len(runs[0]) == 4 * 24
    starts = runs[0][runs[0]["step"] == 0]["observation"]
    assert len(starts.unique(dim=0)) == len(starts) >= 2 * workers


def test_a_segment_that_was_begun_belongs_to_the_episodes_before_a_restart() -> None:
    def after(segments: int, seed: int) -> list[TensorDict]:
        policy = policy_for(SHORT)
        with closing(lockstep(policy, frames=8)) as rollouts:
            found = loop(rollouts, policy, segments)
            ahead = rollouts.ahead()
            assert ahead is not None
            ahead = ahead.clone()
            rollouts.restart(seed)
            found += loop(rollouts, policy_for(SHORT), 2)
            assert_equal(ahead, found[-2])
        return found

    one, two, other = after(1, 5), after(3, 5), after(3, 6)
    assert one[-1]["step"].min() == two[-1]["step"].min() == 0
    assert set(two[-3]["episode"].tolist()) & set(two[-2]["episode"].tolist())  # they go on
    assert torch.equal(one[-1]["observation"], two[-1]["observation"])
    assert torch.equal(one[-1]["latent"], two[-1]["latent"])
    assert not torch.equal(two[-1]["observation"], other[-1]["observation"])
    assert not set(two[-1]["episode"].tolist()) & set(two[-2]["episode"].tolist())


def test_evaluation_with_the_help_of_workers_is_that_of_one_process() -> None:
    policy = policy_for(SHORT)
    what = Collection(SHORT, ENVS, FRAMES, policy, seed=SEED)
    options = EvaluationOptions(num_envs=2, seed=4)
    with closing(WorkerRollouts(what, CollectorOptions(workers=2), options)) as rollouts:
        rollouts.update(policy)
        rollouts.begin()
        learned(policy)
        with closing(SHORT.make_evaluation(2, 4)) as env:
            alone, together = (evaluate(env, policy, 9, Evaluation(seed=4), workers) for workers in (None, rollouts))
        segment = rollouts.collect()  # which was begun before, by the weights before
    assert_equal(alone, together)
    assert len(alone) == 9
    assert segment["policy_version"].unique().tolist() == [0]


class Broken(Exception):
    """What a user's simulator raises."""


@dataclass(frozen=True)
class Misbehaving(Wrapped):
    """A task whose simulators do something else once they have made some steps."""

    what: Callable[[], object]
    after: int = 20

    def make(self, num_envs: int, seed: int) -> EnvBase:
        env, left = self.task.make(num_envs, seed), [self.after]
        step = env._step

        def misbehave(tensordict: TensorDict) -> TensorDict:
            left[0] -= 1
            if left[0] == 0:
                self.what()
            return step(tensordict)

        env._step = misbehave
        return env


def fail() -> None:
    raise Broken("in the simulator")


def crash() -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


ENDS = {
    "raises": (fail, r"worker 0: Broken in .*test_processes.py:\d+\): in the simulator; all workers were ended"),
    "exits": (lambda: os._exit(3), r"worker 0 \(process \d+\) ended with exit code 3; all"),
    "is killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), r"worker 0 \(process \d+\) ended by SIGKILL; all"),
    "crashes": (crash, r"worker 0 \(process \d+\) ended by SIGSEGV; all"),
    "is stopped": (lambda: os.kill(os.getpid(), signal.SIGSTOP), r"worker 0 \(process \d+\) was stopped; all"),
    "hangs": (lambda: time.sleep(60), r"worker 0 .*made no step for 1 s \(data.collector.worker_timeout\); all"),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_happens_to_a_worker_is_one_clear_error_in_seconds(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    what, message = ENDS[end]
    monkeypatch.setattr(worker_process, "STOPPED", 5)
    timeout = 1.0 if end == "hangs" else 30.0
    policy = policy_for(SHORT)
    collection = Collection(Misbehaving(SHORT, what), ENVS, FRAMES, policy, seed=SEED)
    rollouts = WorkerRollouts(collection, CollectorOptions(workers=2, worker_timeout=timeout))
    pids = {worker.pid for worker in rollouts._workers}
    began = time.monotonic()
    with pytest.raises(UserError, match=f"collection failed: {message}"):
        loop(rollouts, policy, 3)
    assert time.monotonic() - began < 12
    assert rollouts.ahead() is None  # what was learned can still be saved
    with pytest.raises(UserError, match="collection failed"):
        rollouts.collect()
    assert within(5, lambda: not pids & set(living(lambda _: True)))
    rollouts.close()


@dataclass(frozen=True)
class SlowToEvaluate(Wrapped):
    """A task whose simulators for evaluation take a while to be made."""

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        time.sleep(2.5)
        return super().make_evaluation(num_envs, seed)


def test_a_worker_that_makes_simulators_for_evaluation_does_not_hang() -> None:
    policy = policy_for(SHORT)
    task = SlowToEvaluate(SHORT)
    what, evaluation = Collection(task, ENVS, FRAMES, policy, seed=SEED), EvaluationOptions(num_envs=2, seed=4)
    with closing(WorkerRollouts(what, CollectorOptions(workers=1, worker_timeout=1.0), evaluation)) as rollouts:
        loop(rollouts, policy, 2)
        with closing(SHORT.make_evaluation(2, 4)) as env:
            assert len(evaluate(env, policy, 9, Evaluation(seed=4), rollouts)) == 9


def test_a_simulator_that_cannot_be_made_says_why() -> None:
    policy = policy_for(SHORT)
    rollouts = lockstep(policy, num_envs=0)
    with pytest.raises(UserError, match="num_envs must be at least 1, got 0; all workers were ended"):
        rollouts.collect()


SCRIPT = """
import tests.tiny_env, lightning, torch
tests.tiny_env.register()
from datamodules.online import OnlineDataModule
from datamodules.options import CollectorOptions
from gipo.module import GIPOModule
data = OnlineDataModule("Tiny-v0", total_frames=96, frames_per_iteration=32, capacity=96, rounds=1, batch=16,
                        collector=CollectorOptions(num_envs=4, workers=1))
trainer = lightning.Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                            limit_val_batches=0, accelerator="cpu")
trainer.fit(GIPOModule(), data)
print("version", int(trainer.lightning_module.policy.version), data.position)
"""


def test_a_script_without_a_main_guard_may_collect_beside_the_learner(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().splitlines()[-1] == "version 3 96", done.stderr


class Workers:
    """Two workers that are gone when their tests are done."""

    def __init__(self, policy: Policy, kind: str):
        self.rollouts = KINDS[kind](
            Collection(TASK, ENVS, FRAMES, policy, False, SEED, FIRST_EPISODE),
            CollectorOptions(workers=WORKERS, asynchronous=kind == "asynchronous", overlap=False, worker_timeout=3.0),
        )
        members = self.rollouts._workers if kind == "in lockstep" else self.rollouts._processes
        self.pids = {member.pid for member in members}
        # An asynchronous segment is of one worker, so that several may pass before one has come from each.
        self.segments = 3 * WORKERS if kind == "asynchronous" else 1

    def collect(self) -> TensorDict:
        """Frames of all workers."""
        return torch.cat([self.rollouts.collect() for _ in range(self.segments)])

    def are_gone(self) -> bool:
        """Whether no worker process lives."""
        return within(20, lambda: not self.pids & set(living(lambda _: True)))


@pytest.fixture(scope="module", params=KINDS)
def workers(policy: Policy, request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Started once for all tests of a kind: starting takes longer than everything they do. The last one ends them."""
    started = Workers(policy, request.param)
    yield started
    started.rollouts.close()
    started.rollouts.close()
    assert started.are_gone()


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
@pytest.mark.parametrize("kind", KINDS)
def test_however_a_worker_ends_it_is_an_error_in_seconds(number: int, kind: str, policy: Policy) -> None:
    workers = Workers(policy, kind)
    workers.collect()
    assert_the_run_ends_when_a_worker_is_sent(number, workers)
    workers.rollouts.close()


WORKER_RUN = {
    "data__collector__workers": WORKERS,
    "data__collector__num_envs": ENVS,
    "data__collector__worker_timeout": 5,
    "data__total_frames": FRAMES * 1000,
}


@pytest.mark.parametrize("asynchronous", ["false", pytest.param("true", marks=pytest.mark.campaign)])
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
