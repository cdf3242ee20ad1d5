"""GIPO in a TorchRL script: `GIPOLoss` where `ClipPPOLoss` would stand, and a replay buffer of old data beside it.

    python examples/torchrl_gipo.py                # Reacher-v5; a minute or two on one core
    python examples/torchrl_gipo.py --buffer 1024  # on-policy

Run it where gipo is installed with its `train` extra.
"""

import argparse

import torch
from tensordict.nn import InteractionType, NormalParamExtractor, TensorDictModule
from torch import nn
from torch.distributions import Normal
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import Compose, DoubleToFloat, GymEnv, RewardSum, TransformedEnv
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives.value import GAE

from gipo.loss import GIPOLoss
from gipo.objectives import GIPO


def main(options: argparse.Namespace) -> list[float]:
    """Train; returns the mean return of the episodes that ended in an iteration, of each in which some did."""
    torch.manual_seed(options.seed)
    env = TransformedEnv(GymEnv(options.task), Compose(DoubleToFloat(), RewardSum()))
    env.set_seed(options.seed)
    size, actions = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]

    # Normal, and not TanhNormal or Independent: its log-probs are per dimension, and so are the trust weights.
    network = nn.Sequential(MLP(size, 2 * actions, num_cells=[64, 64]), NormalParamExtractor("biased_softplus_0.5"))
    actor = ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=Normal,
        return_log_prob=True,
        default_interaction_type=InteractionType.RANDOM,
    )
    critic = ValueOperator(MLP(size, 1, num_cells=[64, 64]), in_keys=["observation"])

    loss_module = GIPOLoss(
        actor, critic, objective=GIPO(sigma=options.sigma), kl_coeff=0.1, entropy_bonus=False, normalize_advantage=True
    )
    advantages = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=3e-4)
    # The buffer outlives the iteration: `action_log_prob` in it is that of the policy that acted, however old.
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(options.buffer), sampler=SamplerWithoutReplacement(), batch_size=options.batch
    )
    collector = Collector(
        env,
        actor,
        frames_per_batch=options.frames,
        total_frames=options.frames * options.iterations,
        auto_register_policy_transforms=False,
    )

    returns = []
    for iteration, frames in enumerate(collector):
        advantages(frames)
        buffer.extend(frames.reshape(-1))
        for _ in range(options.updates):
            losses = loss_module(buffer.sample())
            loss = losses["loss_objective"] + losses["loss_kl"] + losses["loss_critic"]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(loss_module.parameters(), 1.0)
            optimizer.step()
        collector.update_policy_weights_()
        ended = frames["next", "done"].squeeze(-1)
        came = "no episode ended"
        if ended.any():
            returns.append(float(frames["next", "episode_reward"][ended].mean()))
            came = f"return {returns[-1]:.2f}"
        print(
            f"iteration {iteration}: {came}, trust weight {float(losses['weight']):.3f}, "
            f"ESS {float(losses['ESS']):.3f}, KL {float(losses['kl_approx']):.4f}"
        )
    collector.shutdown()
    return returns


def parser() -> argparse.ArgumentParser:
    """Options of the example."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--task", default="Reacher-v5", help="any Gymnasium id with flat Box observations and actions")
    found.add_argument("--iterations", type=int, default=60, help="collect, then learn, so many times")
    found.add_argument("--frames", type=int, default=1024, help="environment steps an iteration")
    found.add_argument("--buffer", type=int, default=4096, help="transitions kept; --frames of them is on-policy")
    found.add_argument("--batch", type=int, default=256, help="transitions an update")
    found.add_argument("--updates", type=int, default=32, help="updates an iteration")
    found.add_argument("--sigma", type=float, default=1.0, help="width of the trust weight, nats")
    found.add_argument("--seed", type=int, default=22)
    return found


if __name__ == "__main__":
    main(parser().parse_args())
