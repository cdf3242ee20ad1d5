"""The LightningModule: it only optimises. Environments, buffers and files are other rooms' business."""

import math
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from gipo.common.errors import UserError
from gipo.distributed import ranks
from gipo.distributed.sharding import whole
from gipo.learning.diagnostics import explained_variance
from gipo.learning.losses import Losses, PolicyTerms
from gipo.learning.metrics import Iteration
from gipo.learning.policy_module import PolicyModule
from gipo.objectives import GIPO, Objective, k3
from gipo.policies import PolicyFactory

MAX_SKIPS_IN_A_ROW = 10


class Samples(NamedTuple):
    """What an update reads of a batch, as samples [N]: validity, advantage, behaviour entropy [N, D], age."""

    valid: Tensor
    advantage: Tensor
    entropy: Tensor | None
    age: Tensor


class GIPOModule(PolicyModule):
    """Optimises a policy on batches of stale transitions.

    One training step is one iteration: every one of the `rounds` batches is reused `reuse` times; the policy learns
    on every `actor_every`-th reuse, the critic on all of them.

    Args:
        policy: policy class and its options, `gipo.policies.TokenPolicy` (the default) or `.GaussianPolicy`; with
            `init_from` it is that of the checkpoint.
        init_from: checkpoint whose policy, critic, normaliser and policy version the run starts from.
        critic_warmup: first iterations in which the critic learns alone.
        objective: policy objective, such as `gipo.objectives.GIPO`, `.PPOClip`, `.SAPO`, `.NoClip`, or one of
            `gipo.baselines`.
        kl_coef: weight of the anchor KL(μ‖π), which holds the policy near the data.
        kl_estimator: sampled estimate of the anchor from the log-ratio: `gipo.objectives.k1`, `.k2` or `.k3`.
        kl_exact: compute the anchor exactly instead; needs `data.store_params=true`.
        entropy_coef: weight of the entropy bonus.
        value_coef: weight of the squared value error.
        normalise_advantages: standardise advantages within each batch.
        reuse: updates on every batch.
        actor_every: of these, the policy learns on the first and every `actor_every`-th after it, its loss scaled by
            1/√(reuse index + 1).
        policy_lr: learning rate of the policy.
        value_lr: learning rate of the critic.
        lr_warmup: iterations of linear warm-up; the first already learns.
        lr_final: fraction of the learning rate that the cosine decay ends at; 1 keeps it constant.
        max_grad_norm: gradient clip, for the policy and the critic each.
        optimizer: optimizer class and its options, beside the learning rate.
        compile: compile the losses (`torch.compile`), which takes a minute at the first update.
        cuda_graphs: also replay them as CUDA graphs; needs `compile` and a CUDA device.
    """

    skipped: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        init_from: str | None = None,
        critic_warmup: int = 0,
        objective: Objective = GIPO(),  # noqa: B008 - frozen
        kl_coef: float = 0.1,
        kl_estimator: Callable = k3,
        kl_exact: bool = False,
        entropy_coef: float = 0.0,
        value_coef: float = 0.5,
        normalise_advantages: bool = True,
        reuse: int = 1,
        actor_every: int = 1,
        policy_lr: float = 3e-4,
        value_lr: float = 3e-4,
        lr_warmup: int = 1,
        lr_final: float = 1.0,
        max_grad_norm: float = 1.0,
        optimizer: Callable[[list[nn.Parameter]], Optimizer] = lambda parameters: AdamW(
            parameters, weight_decay=0.0, fused=True
        ),
        compile: bool = False,
        cuda_graphs: bool = False,
    ):
        super().__init__(policy, init_from, optimizer)
        self.automatic_optimization = False
        self.objective, self.losses = objective, Losses(objective, kl_coef, kl_estimator, entropy_coef)
        self.critic_warmup, self.kl_exact, self.value_coef = critic_warmup, kl_exact, value_coef
        self.normalise_advantages, self.reuse, self.actor_every = normalise_advantages, reuse, actor_every
        self.policy_lr, self.value_lr, self.lr_warmup, self.lr_final = policy_lr, value_lr, lr_warmup, lr_final
        self.max_grad_norm, self.cuda_graphs = max_grad_norm, cuda_graphs
        self._refuse_bad_options()
        self._choose_terms(compile)
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped_in_a_row", torch.zeros(2, dtype=torch.int64))  # of the policy and of the critic

    def _choose_terms(self, compiled: bool) -> None:
        """The functions that compute the losses: as they are written, or compiled."""
        self._policy_terms: Callable[..., PolicyTerms] = self.losses.policy_terms
        self._value_terms: Callable[..., tuple[Tensor, Tensor]] = self.losses.value_terms
        if compiled:
            mode = "reduce-overhead" if self.cuda_graphs else None
            self._policy_terms = torch.compile(self._policy_terms, mode=mode)
            self._value_terms = torch.compile(self._value_terms, mode=mode)
        elif self.cuda_graphs:
            raise UserError("model.cuda_graphs=true needs model.compile=true")

    def check_behaviour(self, stored: bool) -> None:
        """Refuse options that need the behaviour distribution where it is not `stored`, or not of the right kind."""
        for option, needed in (
            ("kl_exact=true", self.kl_exact),
            (f"objective={type(self.objective).__name__}", self.objective.needs_entropy),
        ):
            if needed and not stored:
                raise UserError(f"model.{option} needs the behaviour distribution: set data.store_params=true")
        if self.objective.needs_entropy:
            _ = self.policy.max_entropy  # which only a policy over tokens has

    def configure_optimizers(self) -> Any:
        """One optimizer and one schedule for the policy, one of each for the critic."""
        optimizers, schedules = [], []
        for parameters, (rate, factor) in zip(
            (self.policy.actor_parameters(), self.policy.critic_parameters()), self._rates, strict=True
        ):
            optimizer = self.optimizer_factory(parameters)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizers.append(optimizer)
            schedules.append(LambdaLR(optimizer, factor))
        return optimizers, schedules

    def on_fit_start(self) -> None:
        """Refuse what the device or the number of learners does not allow."""
        if self.objective.needs_whole_batch and ranks.count() > 1:
            raise UserError(
                f"model.objective={type(self.objective).__name__} weighs a batch as a whole, which {ranks.count()} "
                "learners share; train with trainer.devices=1, or with another objective"
            )
        if self.cuda_graphs and self.device.type != "cuda":
            raise UserError(
                f"model.cuda_graphs=true needs a CUDA device and the learner is on {self.device}; "
                "set trainer.accelerator=gpu, or leave cuda_graphs out"
            )

    def on_train_start(self) -> None:
        """Take the learning rates from the options, also where a checkpoint remembers others."""
        schedules: Any = self.lr_schedulers()
        for schedule, (rate, factor) in zip(schedules, self._rates, strict=True):
            schedule.base_lrs = [rate] * len(schedule.base_lrs)
            for group in schedule.optimizer.param_groups:
                group["initial_lr"] = rate
                group["lr"] = rate * factor(schedule.last_epoch)

    @property
    def _rates(self) -> list[tuple[float, Callable[[int], float]]]:
        """Learning rate and its schedule, of the policy and of the critic."""
        # The policy's iterations begin when the critic no longer learns alone.
        return [
            (self.policy_lr, partial(self._rate_factor, late=self.critic_warmup)),
            (self.value_lr, self._rate_factor),
        ]

    def _rate_factor(self, iteration: int, late: int = 0) -> float:
        """(k+1)/warm-up, then cosine from 1 to `lr_final`; never 0 at the first iteration, k = 0.

        Args:
            iteration: k, of those in which these parameters learn.
            late: iterations of the run before the first of them.
        """
        if iteration < self.lr_warmup:
            return (iteration + 1) / self.lr_warmup
        epochs = self.trainer.max_epochs or 0
        last = max((epochs if epochs > 0 else self._data.iterations) - late, self.lr_warmup + 1)
        progress = min(1.0, (iteration - self.lr_warmup) / (last - self.lr_warmup))
        return self.lr_final + (1 - self.lr_final) * 0.5 * (1 + math.cos(math.pi * progress))

    def training_step(self, batches: TensorDictBase, batch_idx: int) -> None:
        """Learn from batches [rounds, B]; keys as in the data contract, with `advantage` and `value_target` [B].

        With action chunks these, `valid` and `executed` are [B, H].
        """
        self.check_behaviour("behaviour_params" in batches.keys())
        if self.normalise_advantages and batches.shape[-1] * ranks.count() < 2:
            raise UserError("model.normalise_advantages needs batches of at least 2 transitions; raise data.batch")
        iteration = Iteration()
        warming_up = self.current_epoch < self.critic_warmup
        for batch in batches.unbind(0):
            self._learn(batch, iteration, warming_up)
        if not warming_up:
            self.policy.next_version()
        schedules: Any = self.lr_schedulers()
        for schedule in schedules[1:] if warming_up else schedules:
            schedule.step()
        self.log_dict(iteration.metrics() | {"skipped": self.skipped.float()})

    def _learn(self, batch: TensorDictBase, iteration: Iteration, critic_only: bool) -> None:
        """Reuse one batch [B].

        Value-only updates never run the actor, and encode the batch once between policy updates.
        """
        samples = self._samples(batch)
        executed, target = batch.get("executed", None), batch["value_target"]
        features = None
        for index in range(self.reuse):
            if self.cuda_graphs:  # what the last graphs left may be written over from here on
                torch.compiler.cudagraph_mark_step_begin()
            if index % self.actor_every == 0 and not critic_only:
                value_features, features = self._learn_policy(batch, samples, iteration, index), None
            else:
                if features is None:
                    with torch.no_grad():
                        features = self.policy.features(batch["observation"])
                value_features = features
            value, loss = self._value_terms(self.policy, value_features, target, executed)
            loss = loss if executed is None else ranks.weighed(loss, executed)
            iteration.keep("loss/value", loss.detach().clone() if self.cuda_graphs else loss.detach())
            iteration.keep("grad_norm/value", self._update(1, self.value_coef * loss, self.policy.critic_parameters))
        value = value.detach()
        if executed is not None:
            value, target = value[executed], target[executed]
        iteration.keep("explained_variance", explained_variance(ranks.joined(value), ranks.joined(target)))

    def _samples(self, batch: TensorDictBase) -> Samples:
        """Every step of an action chunk is a sample of its own: [B], or [B, H] as [B·H]."""
        advantage, valid = batch["advantage"].flatten(), batch["valid"].flatten()
        if self.normalise_advantages:
            mean, std = ranks.mean_and_std(advantage[valid & advantage.isfinite()])
            advantage = (advantage - mean) / (std + 1e-8)
        age = (self.policy.version - batch["policy_version"]).repeat_interleave(len(advantage) // len(batch))
        entropy = None
        if self.objective.needs_entropy:
            entropy = self.policy.entropy(batch["behaviour_params"].float()) / self.policy.max_entropy
            entropy = entropy.flatten(0, -2)
        return Samples(valid, advantage, entropy, age)

    def _learn_policy(self, batch: TensorDictBase, samples: Samples, iteration: Iteration, index: int) -> Tensor:
        """Update the policy on the reuse `index` of the batch; returns the features that its loss was computed from."""
        valid, advantage, entropy, age = samples
        params = batch["behaviour_params"] if self.kl_exact else None
        terms = self._policy_terms(
            self.policy, batch["observation"], batch["latent"], batch["log_prob"], valid, advantage, entropy, params
        )
        iteration.add(terms.kept(self.cuda_graphs), advantage, age)
        loss = ranks.weighed(terms.loss, terms.surrogate.used)
        iteration.keep("grad_norm/policy", self._update(0, loss / math.sqrt(index + 1), self.policy.actor_parameters))
        return terms.features.detach()

    def _update(self, index: int, loss: Tensor, parameters: Callable[[], list[nn.Parameter]]) -> Tensor:
        """One optimizer step, or none when the gradient is not finite; returns the gradient norm before clipping."""
        optimizers: Any = self.optimizers()
        optimizer = optimizers[index]
        optimizer.zero_grad()
        self.manual_backward(loss)
        # In half precision Lightning scales the loss by s, and its gradients: |s·g| ≤ s·limit clips g at the limit.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        # Asked for after the backward pass: sharded parameters are others until then.
        norm = whole(nn.utils.clip_grad_norm_(parameters(), self.max_grad_norm * scale)) / scale
        if math.isfinite(norm):
            optimizer.step()
            self.skipped_in_a_row[index] = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row[index] += scale <= 1.0  # a larger one may be what overflowed, and falls now
            if scaler is not None:
                scaler.unscale_(optimizer.optimizer)
                scaler.update()
            if self.skipped_in_a_row[index] >= MAX_SKIPS_IN_A_ROW:
                head = ("policy", "critic")[index]
                raise UserError(
                    f"{MAX_SKIPS_IN_A_ROW} updates of the {head} in a row had a non-finite gradient at policy version "
                    f"{int(self.policy.version)}; lower model.policy_lr and model.value_lr, or look for extreme rewards"
                )
        return norm

    def _refuse_bad_options(self) -> None:
        positive = ("reuse", "actor_every", "policy_lr", "value_lr", "max_grad_norm")
        not_negative = (
            "losses.kl_coef", "losses.entropy_coef", "value_coef", "critic_warmup", "lr_warmup", "lr_final",
        )  # fmt: skip
        for name in (*positive, *not_negative):
            value = attrgetter(name)(self)
            if not (math.isfinite(value) and value >= 0 and (value > 0 or name not in positive)):
                must = "be positive and finite" if name in positive else "not be negative"
                raise UserError(f"model.{name.removeprefix('losses.')} must {must}, got {value}")
