"""Collection on a Ray cluster of two nodes: what is collected, how old it may be, and what happens to lost actors."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from ray.cluster_utils import Cluster
from tensordict import TensorDict
from torchrl.envs import EnvBase

from datamodules.collect.ray_actors import RayRollouts, _Collecting
from datamodules.collect.ray_cluster import RayCluster
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import Simulation, Wrapped, spaces_of
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions, RayOptions
from gipo.common.errors import UserError
from gipo.policies import Policy, TokenPolicy
from tests.runs import living, within

TASK = simulation("Pendulum-v1")
ENVS, FRAMES, WORKERS, SEED, FIRST_EPISODE = 2, 24, 2, 3, 50
Make = Callable[..., RayRollouts]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes' worth of processes, a place to spare on each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    made.add_node(num_cpus=2)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def make(cluster: Cluster, policy: Policy) -> Iterator[Make]:
    """`make(**options)`: rollouts on the cluster that are closed in the end."""
    made: list[RayRollouts] = []

    def make(
        task: Simulation = TASK,
        workers: int = WORKERS,
        asynchronous: bool = False,
        timeout: float = 20.0,
        **options: Any,
    ) -> RayRollouts:
        ray = RayOptions(address=cluster.address, **options)
        collector = CollectorOptions(workers=workers, asynchronous=asynchronous, worker_timeout=timeout, ray=ray)
        made.append(RayRollouts(Collection(task, ENVS, FRAMES, policy, False, SEED, FIRST_EPISODE), collector))
        return made[-1]

    yield make
    for rollouts in made:
        rollouts.close()


@pytest.fixture(scope="module")
def pair(make: Make) -> RayRollouts:
    """Two actors for most tests, because to start one takes longer than all that it does; the last test ends them.

    One core is left on a node that holds an actor of 1.5: the other one has to go elsewhere.
    """
    return make(asynchronous=True, timeout=6.0, cpus=1.5, max_staleness=2, replacements=1)


@pytest.fixture(scope="module")
def policy() -> Policy:
    env = TASK.make(1, 0)
    torch.manual_seed(0)
    made = TokenPolicy(spaces_of(env), bins=8)
    env.close()
    return made


def learner(policy: Policy, version: int) -> Policy:
    """The policy after `version` updates."""
    torch.manual_seed(version)
    other = TokenPolicy(policy.spaces, bins=8)
    other.version.fill_(version)
    return other


def processes(rollouts: RayRollouts) -> list[int]:
    return [worker.process for worker in rollouts._workers]


def assert_same(one: TensorDict, other: TensorDict) -> None:
    for key in other.keys(True, True):
        assert torch.equal(one[key], other[key]), key


def collected(rollouts: RayRollouts, policy: Policy, segments: int = 4) -> list[TensorDict]:
    """Segments, an update of the policy before each."""
    found = []
    for version in range(segments):
        rollouts.update(learner(policy, version))
        found.append(rollouts.collect())
    return found


def assert_episodes_go_on(segments: list[TensorDict]) -> None:
    """Within each episode steps count up by one, and each observation is what the step before led to."""
    frames = torch.cat(segments)
    for episode in frames["episode"].unique():
        mine = frames[frames["episode"] == episode]
        assert (mine["step"].diff() == 1).all()
        assert torch.equal(mine["observation"][1:], mine["next", "observation"][:-1])


def test_actors_are_on_both_nodes_and_draw_different_goals_and_noise(pair: RayRollouts) -> None:
    free = pair._ray._private.state.available_resources_per_node()
    assert sorted(node["CPU"] for node in free.values()) == [0.5, 0.5]
    frames = pair.collect()
    starts = frames[frames["step"] == 0]
    assert len(frames) == FRAMES
    assert sorted(starts["episode"].tolist()) == list(range(FIRST_EPISODE, FIRST_EPISODE + WORKERS * ENVS))
    assert pair.next_episode == FIRST_EPISODE + WORKERS * ENVS
    assert len(starts["observation"].unique(dim=0)) == WORKERS * ENVS
    assert_episodes_go_on([frames, pair.collect()])


def test_staleness_is_bounded_and_the_same_after_every_restart(pair: RayRollouts, policy: Policy) -> None:
    assert pair.restart(11)
    segments = collected(pair, policy, 6)
    # The first three were asked for before the first update, every other one two updates before it was used.
    assert [frames["policy_version"].unique().tolist() for frames in segments] == [[0], [0], [0], [1], [2], [3]]
    assert [len(worker.requests) for worker in pair._workers] == [2] * WORKERS
    for frames in segments:
        acted = learner(policy, int(frames["policy_version"][0]))
        expected = acted.log_prob(acted.params(frames["observation"]), frames["latent"])
        assert torch.allclose(frames["log_prob"], expected, atol=1e-6)
    assert_episodes_go_on(segments)
    before = pair.next_episode
    pair.restart(11)
    for again, frames in zip(collected(pair, policy, 6), segments, strict=True):
        assert again["episode"].min() >= before
        again["episode"] -= again["episode"].min() - frames["episode"].min()
        assert_same(again, frames)


def test_one_actor_at_zero_staleness_collects_what_one_process_does(make: Make, policy: Policy) -> None:
    ray = make(workers=1, asynchronous=True, max_staleness=0, cpus=0.5)
    here = InProcessRollouts(Collection(TASK, ENVS, FRAMES, policy, False, SEED, FIRST_EPISODE))
    for seed in (7, 8):
        for version in range(2):
            ray.update(learner(policy, version))
            policy.load_state_dict(learner(policy, version).state_dict())
            assert_same(ray.collect(), here.collect())
        assert ray.next_episode == here.next_episode
        ray.restart(seed)
        here.restart(seed)
    assert_same(ray.collect(), here.collect())
    here.close()
    ray.update(TokenPolicy(policy.spaces, bins=4))  # does not fit into what the actor acts with
    with pytest.raises(UserError, match=r"collection failed: Ray actor 0 .*size mismatch"):
        ray.collect()


@pytest.mark.campaign
def test_a_slow_actor_is_waited_for_after_a_checkpoint_and_its_process_seeded(make: Make) -> None:
    class Slow(Wrapped):  # sent as it is: a module of tests is on no machine of the cluster
        def make(self, num_envs: int, seed: int) -> EnvBase:
            env = self.task.make(num_envs, seed)
            step = env._step

            def slow_step(given: TensorDict) -> TensorDict:
                time.sleep(2.0 * ENVS / FRAMES)
                return step(given).set("reward", torch.rand(num_envs, 1))  # of the process's own generator

            env._step = slow_step
            return env

    timeout = 4.0  # of which a segment takes the half; there are three on the way at a checkpoint
    rollouts = make(Slow(TASK), 1, True, timeout, max_staleness=2, replacements=0, cpus=0.5)
    rollouts.collect()
    found = []
    for _ in range(2):
        rollouts.restart(SEED)
        found.append(rollouts.collect())
    found[1]["episode"] -= found[1]["episode"].min() - found[0]["episode"].min()
    assert_same(*found)
    rollouts.close()


def assert_a_lost_actor_is_replaced(
    number: int, rollouts: RayRollouts, policy: Policy, capfd: pytest.CaptureFixture[str]
) -> None:
    rollouts.restart(12)
    undisturbed = collected(rollouts, policy, 5)
    rollouts.restart(12)
    segments = collected(rollouts, policy, 1)
    lost, kept = processes(rollouts)
    os.kill(lost, number)
    began = time.monotonic()
    for version in range(1, 5):  # the third of them was asked for after the loss
        rollouts.update(learner(policy, version))
        segments.append(rollouts.collect())
    assert time.monotonic() - began < 150  # 12 s where nothing else runs, 70 s were seen beside two other tests
    new, same = processes(rollouts)
    assert (same, new in (lost, kept)) == (kept, False)
    assert within(10, lambda: lost not in living(lambda _: True))
    assert f"process {lost})" in capfd.readouterr().err
    half = FRAMES // WORKERS
    for frames, whole in zip(segments, undisturbed, strict=True):
        assert len(frames) == FRAMES
        # Who takes its place acts with the weights that it was asked to act with, and the others notice nothing.
        assert torch.equal(frames["policy_version"], whole["policy_version"])
        assert torch.equal(frames["latent"][half:], whole["latent"][half:])
    assert_episodes_go_on(segments)


def test_a_stuck_actor_is_replaced(pair: RayRollouts, policy: Policy, capfd: pytest.CaptureFixture[str]) -> None:
    assert_a_lost_actor_is_replaced(signal.SIGSTOP, pair, policy, capfd)


def test_a_run_ends_when_too_many_actors_are_lost(pair: RayRollouts) -> None:
    # Of the tests that use the pair some may run in another process than this one, where it is not the same.
    count, mine = pair._replaced, processes(pair)
    pair._options = replace(pair._options, replacements=count)
    os.kill(mine[1], signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"Ray actor 1 \(process \d+\) died, and {count} actors were replaced before"):
        [pair.collect() for _ in range(8)]  # segments may be waiting already
    assert time.monotonic() - began < 10
    assert within(10, lambda: not set(mine) & set(living(lambda _: True)))


@pytest.mark.campaign
def test_an_actor_that_cannot_start_says_why(make: Make) -> None:
    # Known here, but on no machine of the cluster.
    with pytest.raises(UserError, match=r"Ray actor 0 could not start: .*gymnasium cannot make task 'Tiny-v0'"):
        make(simulation("Tiny-v0"), workers=1)


def test_an_actor_that_finds_no_place_says_why(make: Make) -> None:
    with pytest.raises(UserError, match=r"did not start within 2 s .*asks for 64 cores .* of 4 cores free"):
        make(cpus=64, start_timeout=2)


@pytest.mark.campaign
def test_two_actors_at_zero_staleness_collect_what_they_do_synchronously(make: Make, policy: Policy) -> None:
    one, other = make(cpus=0.5), make(asynchronous=True, max_staleness=0, cpus=0.5)
    synchronous = collected(one, policy)
    for ours, theirs in zip(collected(other, policy), synchronous, strict=True):
        assert_same(ours, theirs)
    one.close()
    other.close()
    assert [frames["policy_version"].unique().tolist() for frames in synchronous] == [[0], [1], [2], [3]]


@pytest.mark.campaign
def test_twenty_times_an_actor_is_lost_and_replaced(
    make: Make, policy: Policy, capfd: pytest.CaptureFixture[str]
) -> None:
    rollouts = make(asynchronous=True, timeout=6.0, max_staleness=2, replacements=20)
    ever = set(processes(rollouts))
    for number in [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGTERM] * 5:
        assert_a_lost_actor_is_replaced(number, rollouts, policy, capfd)
        ever |= set(processes(rollouts))
    rollouts.close()
    assert len(ever) == WORKERS + 20
    assert within(10, lambda: not ever & set(living(lambda _: True)))


@pytest.mark.campaign
def test_a_node_that_goes_away_takes_its_actor_along_and_the_run_goes_on(make: Make, cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=2)
    rollouts = make(cpus=1.25, workers=3)  # one on each node
    rollouts.collect()
    cluster.add_node(num_cpus=2)
    before = processes(rollouts)
    cluster.remove_node(node, allow_graceful=False)
    assert len(rollouts.collect()) == FRAMES
    assert processes(rollouts) != before


@pytest.mark.campaign
def test_where_no_core_is_left_for_another_the_loss_is_what_is_said(make: Make) -> None:
    rollouts = make(workers=1, cpus=0.25)
    rollouts.collect()
    rollouts._make = rollouts._ray.remote(_Collecting).options(num_cpus=64).remote  # there is no place for it
    rollouts._options = replace(rollouts._options, start_timeout=3)
    os.kill(processes(rollouts)[0], signal.SIGKILL)
    said = r"Ray actor 0 \(process \d+\) died, and none took its place: .* not start within 3 s .*; all were ended"
    with pytest.raises(UserError, match=said):
        list(iter(rollouts.collect, None))  # until it fails: a segment may be waiting already
    assert not rollouts._workers


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379", "127.0.0.1", "127.0.0.1:99999"])
def test_nobody_at_the_address_is_an_error_in_seconds(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"nobody answers at '{address}'"):
        RayCluster(address, cpus=1)
    assert time.monotonic() - began < 15


def test_a_port_that_is_none_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux takes a port modulo 2¹⁶."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1] + (1 << 16)
        with pytest.raises(UserError, match=f"nobody answers at '127.0.0.1:{port}' .*there is no port {port}"):
            RayCluster(f"127.0.0.1:{port}", cpus=1)
