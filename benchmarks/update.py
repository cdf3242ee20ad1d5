"""Optimizer updates per second in the authors' fresh regime, to a straightforward implementation of the same updates.

Both sides start from equal parameters and learn from equal batches: same network, batch, rounds, reuse, actor_every,
exact KL, Adam, clipping per head. The straightforward side does what the authors' script does: encoder, actor, critic,
distribution, surrogate, entropy and a handful of metrics at every update, the KL when the policy learns. Ours is timed
with its own diagnostics and with what Lightning adds to a training step. Learning rates are constant on both sides, so
that every update of the agreement check is full-size.
"""

import copy
import math
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F
from torch.optim import Adam
from torch.utils.data import DataLoader

from benchmarks.turns import Side
from gipo.commands.fit.arguments import shipped_configs
from gipo.commands.fit.precision import default_precision
from gipo.module import GIPOModule
from gipo.policies import Policy, Spaces

BOUND, AGREEMENT = 2.5, 1e-5
LOWERED, LOWERED_BOUND = "bf16-mixed", 4.0
METAWORLD = Spaces(39, (-1.0,) * 4, (1.0,) * 4)


def run(slices: int = 9, rounds: int = 10) -> dict[str, Any]:
    """Ratio of updates per second over `slices` iterations; the largest parameter difference after 20 updates.

    With matrix products in bfloat16 too, where that is what `gipo fit` would do on this processor.
    """
    difference, _ = disagreement(rounds=2)
    lowered_difference, share = disagreement(rounds=2, precision=LOWERED)
    assert difference <= AGREEMENT, f"parameters differ by {difference:.1e} after 20 updates: not the same updates"
    turns = _timed(slices, rounds)
    ratio = turns.ours.ratio(turns.theirs)
    figures = {
        "updates_per_s": turns.ours.rate,
        "straightforward_updates_per_s": turns.theirs.rate,
        "ratio": ratio,
        "processor_ratio": turns.ours.processor_ratio(turns.theirs),
        "max_parameter_difference": difference,
        "bf16_max_parameter_difference": lowered_difference,
        "bf16_difference_to_distance_learned": share,
        "bound": BOUND,
        "ok": ratio >= BOUND,
    }
    if default_precision("cpu") != LOWERED:
        return figures | {"bf16": "this processor does not multiply matrices faster in bfloat16"}
    turns = _timed(slices, rounds, LOWERED)
    ratio = turns.ours.ratio(turns.theirs)
    lowered = {"bf16_ratio": ratio, "bf16_processor_ratio": turns.ours.processor_ratio(turns.theirs)}
    return figures | lowered | {"bf16_bound": LOWERED_BOUND, "ok": figures["ok"] and ratio >= LOWERED_BOUND}


def disagreement(rounds: int, precision: Any = None) -> tuple[float, float]:
    """The largest difference of a parameter after both sides learned from the same `rounds` batches.

    And how far apart they are, in how far they went: ‖θ − θ'‖ / ‖θ' − θ₀‖.
    """
    module, straightforward, batches = _contestants(rounds)
    before = _flat(module.policy)
    _fit(module, [batches], precision=precision)
    straightforward.iterate(batches)
    ours, theirs = _flat(module.policy), _flat(straightforward.policy)
    assert (ours - before).abs().max() > 1e-3, "nothing was learned, so there is nothing to compare"
    return float((ours - theirs).abs().max()), float((ours - theirs).norm() / (theirs - before).norm())


def _timed(slices: int, rounds: int, precision: Any = None) -> "_Turns":
    module, straightforward, batches = _contestants(rounds)
    turns = _Turns(straightforward, batches)
    _fit(module, [batches] * (slices + 1), turns, precision=precision)
    return turns


class Straightforward:
    """The same updates the plain way: everything is computed at every update, then used or not.

    Args:
        policy: token policy to train, without a normaliser.
        options: the module whose updates to do.
    """

    def __init__(self, policy: Policy, options: GIPOModule):
        self.policy, self.options = policy, options
        network = policy.network
        self._heads = ([*network.encoder.parameters(), *network.actor.parameters()], list(network.critic.parameters()))
        rates = (options.policy_lr, options.value_lr)
        self._optimizers = [Adam(head, lr) for head, lr in zip(self._heads, rates, strict=True)]

    def iterate(self, batches: TensorDictBase) -> dict[str, float]:
        """Learn from batches [rounds, B]; returns the mean of each metric."""
        metrics = [self._update(batch, index) for batch in batches.unbind(0) for index in range(self.options.reuse)]
        return {name: sum(row[name] for row in metrics) / len(metrics) for name in metrics[0]}

    def _update(self, batch: TensorDictBase, index: int) -> dict[str, float]:
        options, target = self.options, batch["value_target"]
        advantage = (batch["advantage"] - batch["advantage"].mean()) / (batch["advantage"].std() + 1e-8)
        policy, value = self._forward(batch["observation"])
        log_ratio = policy.log_prob(batch["latent"]) - batch["log_prob"]
        ratio, entropy = log_ratio.exp(), policy.entropy().mean()
        # −sg(w)·ρ·A
        weight = torch.exp(-0.5 * (log_ratio / options.objective.sigma) ** 2).detach()  # type: ignore[attr-defined]
        policy_loss = -(weight * ratio * advantage.unsqueeze(-1)).mean()
        value_loss = F.mse_loss(value, target)
        loss = options.value_coef * value_loss
        if index % options.actor_every == 0:
            behaviour = Categorical(logits=batch["behaviour_params"].float())
            kl = kl_divergence(behaviour, policy).mean()
            total = policy_loss + options.kl_coef * kl - options.losses.entropy_coef * entropy
            loss = loss + total / math.sqrt(index + 1)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        norms = [nn.utils.clip_grad_norm_(head, options.max_grad_norm) for head in self._heads]
        for optimizer in self._optimizers:
            optimizer.step()
        return {
            "policy_loss": policy_loss.item(),
            "value_loss": value_loss.item(),
            "entropy": entropy.item(),
            "approximate_kl": -log_ratio.mean().item(),
            "clipped": ((ratio - 1).abs() > 0.2).float().mean().item(),
            "explained_variance": (1 - (target - value).var() / target.var()).item(),
            "grad_norm": max(norm.item() for norm in norms),
        }

    def _forward(self, observation: Tensor) -> tuple[Categorical, Tensor]:
        """Action distribution [B, 4] over bins and state value [B]."""
        network = self.policy.network
        features = network.encoder(observation)
        logits = network.actor(features).unflatten(-1, (self.policy.action_size, -1))
        return Categorical(logits=logits), network.critic(features.detach()).squeeze(-1)


class _Turns(Callback):
    """Before each training step of the module, the straightforward side does the same iteration."""

    def __init__(self, straightforward: Straightforward, batches: TensorDictBase):
        self.ours, self.theirs = Side(), Side()
        self._straightforward, self._batches = straightforward, batches
        self._updates = len(batches) * straightforward.options.reuse

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.theirs.start()
        self._straightforward.iterate(self._batches)
        self.theirs.stop(self._updates)
        self.ours.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.ours.stop(self._updates)


def _contestants(rounds: int) -> tuple[GIPOModule, Straightforward, TensorDict]:
    """Both sides with equal parameters, and batches [rounds, 512] that an earlier version of the policy produced."""
    config = yaml.safe_load(shipped_configs()["metaworld_fresh.yaml"].read_text())
    parser = ArgumentParser()
    parser.add_class_arguments(GIPOModule, "model")
    options = config["model"] | {"lr_warmup": 0, "lr_final": 1.0}
    module = parser.instantiate_classes(parser.parse_object({"model": options})).model
    torch.manual_seed(0)
    behaviour = module.policy_factory(METAWORLD)
    batches = behaviour_batches(behaviour, rounds, config["data"]["batch"])
    module.policy = copy.deepcopy(behaviour)
    for parameter in module.policy.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    return module, Straightforward(copy.deepcopy(module.policy), module), batches


@torch.no_grad()
def behaviour_batches(behaviour: Policy, rounds: int, batch: int) -> TensorDict:
    """Batches [rounds, batch] with the actions and log-probs of `behaviour`, and random advantages and targets."""
    shape = (rounds, batch)
    observation = torch.randn(*shape, METAWORLD.observation_size)
    params = behaviour.params(observation)
    latent = behaviour.sample(params, behaviour.noise(shape))
    return TensorDict(
        {
            "observation": observation,
            "latent": latent,
            "log_prob": behaviour.log_prob(params, latent),
            "behaviour_params": params.half(),
            "policy_version": torch.zeros(shape, dtype=torch.int64),
            "valid": torch.ones(shape, dtype=torch.bool),
            "advantage": torch.randn(shape),
            "value_target": torch.randn(shape),
        },
        batch_size=shape,
    )


def _fit(module: GIPOModule, iterations: list[TensorDict], *callbacks: Callback, precision: Any = None) -> None:
    Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DataLoader(iterations, batch_size=None, collate_fn=lambda batches: batches))  # type: ignore[arg-type]


def _flat(policy: Policy) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
