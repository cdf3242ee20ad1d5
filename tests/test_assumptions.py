"""What this project takes for granted about the libraries it stands on. A failure here explains many others."""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import StalenessAwareSampler
from torchrl.envs import EnvBase
from torchrl.envs.utils import RandomPolicy

from datamodules.envs.tasks import simulation

torch.set_num_threads(1)

# torch


def test_minimum_splits_the_gradient_of_a_tie() -> None:
    # PPO-Clip inside the clip: both surrogates are equal, and their gradients must add up to the whole
    x = torch.tensor(1.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch.min(3 * x, x.clamp(0.8, 1.2) * 3), x)
    assert gradient == 3


def test_where_passes_no_gradient_to_what_it_masks() -> None:
    x = torch.tensor([1.0, math.nan, math.inf], requires_grad=True)
    kept = torch.where(torch.isfinite(x), x, 0.0)
    (gradient,) = torch.autograd.grad((kept.exp() * 2).sum(), x)
    assert gradient[1:].tolist() == [0, 0]


def test_uniform_noise_stays_below_one() -> None:
    # float32 noise has 24 bits: its largest value is the LAST_NOISE of the policy tests
    noise = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0))
    assert noise.min() >= 0
    assert noise.max() <= 1 - 2**-24
    assert torch.equal(noise * 2**24, (noise * 2**24).round())


def test_autocast_leaves_float32_distribution_maths_alone() -> None:
    logits = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Linear(8, 8)(logits).dtype == torch.bfloat16
        assert logits.log_softmax(-1).dtype == torch.float32
        assert (logits.exp() * logits).dtype == torch.float32


# Lightning


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("save_checkpoint", ["self", "checkpoint", "path", "storage_options"]),
        ("load_checkpoint", ["self", "path", "map_location", "weights_only"]),
    ],
)
def test_checkpoint_io_has_the_methods_that_are_overridden(method: str, arguments: list[str]) -> None:
    assert list(inspect.signature(getattr(TorchCheckpointIO, method)).parameters) == arguments


# TorchRL


def reach(num_envs: int = 2, horizon: int = 500) -> EnvBase:
    env = simulation("reach-v3").make(num_envs, seed=0)
    for simulator in env.simulators:
        simulator.max_path_length = horizon
    return env


def test_set_seed_reaches_the_environment_and_returns_another_seed() -> None:
    env = reach()
    following = env.set_seed(3)
    first = env.reset()["observation"]
    env.set_seed(3)
    assert following != 3
    assert torch.equal(env.reset()["observation"], first)


def test_unchecked_construction_still_exists() -> None:
    assert TensorDict._new_unsafe({"a": torch.zeros(2, 1)}, batch_size=torch.Size([2]))["a"].shape == (2, 1)


def test_collector_keeps_the_last_observation_of_an_episode_under_next() -> None:
    env = reach(horizon=3)
    collector = Collector(env, RandomPolicy(env.action_spec), frames_per_batch=12, total_frames=12)
    (chunk,) = list(collector)
    collector.shutdown()
    assert chunk.shape == (2, 6)  # [simulators, steps]
    assert {"observation", "reward", "terminated", "truncated", "done", "success", "step"} <= set(chunk["next"].keys())
    assert chunk["step"][0].flatten().tolist() == [0, 1, 2, 0, 1, 2]
    assert chunk["next", "step"][0].flatten().tolist() == [1, 2, 3, 1, 2, 3]
    assert chunk["next", "truncated"][0].flatten().tolist() == [False, False, True] * 2
    assert not chunk["next", "terminated"].any()
    # next of one step is the observation of the following one, except across the end of an episode
    same = (chunk["next", "observation"][:, :-1] == chunk["observation"][:, 1:]).all(-1)
    assert same.tolist() == [[True, True, False, True, True]] * 2


def test_collector_numbers_trajectories() -> None:
    env = reach(horizon=3)
    collector = Collector(env, RandomPolicy(env.action_spec), frames_per_batch=12, total_frames=12)
    (chunk,) = list(collector)
    collector.shutdown()
    assert chunk["collector", "traj_ids"].tolist() == [[0, 0, 0, 2, 2, 2], [1, 1, 1, 3, 3, 3]]


def versions_sampled(sampler: StalenessAwareSampler, draws: int) -> torch.Tensor:
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(2), sampler=sampler, batch_size=draws)
    buffer.extend(TensorDict({"policy_version": torch.tensor([7, 10])}, [2]))
    sampler.consumer_version = 10
    torch.manual_seed(0)
    return buffer.sample()["policy_version"]


def test_staleness_aware_sampler_reads_policy_version() -> None:
    # weights 1/(staleness + 1): ¼ for version 7, 1 for version 10
    fresh_share = (versions_sampled(StalenessAwareSampler(), 10_000) == 10).float().mean()
    assert fresh_share.item() == pytest.approx(0.8, abs=0.02)
    assert (versions_sampled(StalenessAwareSampler(max_staleness=2), 100) == 10).all()


# MetaWorld and MuJoCo


def test_metaworld_has_50_tasks_of_39_observations_and_4_actions() -> None:
    assert len(ALL_V3_ENVIRONMENTS) == 50
    simulator = ALL_V3_ENVIRONMENTS["reach-v3"]()
    assert simulator.sawyer_observation_space.shape == (39,)
    assert simulator.action_space.shape == (4,)
    assert simulator.max_path_length == 500


def test_metaworld_has_the_switches_that_are_set() -> None:
    simulator = ALL_V3_ENVIRONMENTS["reach-v3"]()
    switches = ("_partially_observable", "_freeze_rand_vec", "seeded_rand_vec", "_set_task_called")
    assert [vars(simulator)[name] for name in switches] == [True, True, False, False]
    assert "sawyer_observation_space" in vars(simulator)  # cached: must be dropped when observability changes


def test_metaworld_reset_ignores_its_seed_and_draws_from_np_random() -> None:
    (simulator,) = reach(num_envs=1).simulators

    def goal(seed: int | None = None) -> list[float]:
        return simulator.reset(seed=seed)[0][-3:].tolist()

    assert goal(seed=1) != goal(seed=1)
    simulator.np_random = np.random.default_rng(1)
    first = goal()
    simulator.np_random = np.random.default_rng(1)
    assert goal() == first


def test_copied_mujoco_models_are_independent() -> None:
    simulator = ALL_V3_ENVIRONMENTS["drawer-close-v3"]()
    twin = copy.copy(simulator.model)
    before = twin.body("drawer").pos.copy()
    simulator.model.body("drawer").pos = before + 1
    assert np.array_equal(twin.body("drawer").pos, before)
