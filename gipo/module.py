"""The LightningModule: it only optimises. Environments, buffers and files are other rooms' business."""

import math
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from gipo.adaptive import AgeAwareGIPO
from gipo.common.errors import UserError
from gipo.distributed import ranks
from gipo.learning.anchor import Anchor
from gipo.learning.critic import CriticSees
from gipo.learning.imitation import imitation
from gipo.learning.losses import Losses, PolicyTerms, Samples
from gipo.learning.metrics import Iteration, beside
from gipo.learning.micro_batches import MicroBatch, parts_of, refuse_single, refuse_whole
from gipo.learning.updates import UpdatingModule, told_to_listeners
from gipo.learning.value_scale import ValueScaleFactory
from gipo.objective import NEEDED, first_memory
from gipo.objectives import Objective, k3
from gipo.policies import PolicyFactory

OptimizerFactory = Callable[[list[nn.Parameter]], Optimizer]


class GIPOModule(UpdatingModule):
    """Optimises a policy on batches of stale transitions.

    One training step is one iteration: every one of the `rounds` batches is reused `reuse` times; the policy learns
    on every `actor_every`-th reuse, the critic on all of them.

    Args:
        policy: policy class and its options, `gipo.policies.TokenPolicy` (the default) or `.GaussianPolicy`; with
            `init_from` it is that of the checkpoint.
        init_from: checkpoint whose policy, critic, normaliser and policy version the run starts from.
        critic: what the critic sees: the `observation`, by the policy's own features; or what is `privileged`, which
            the task or a simulated robot's log says and no policy gets (arXiv 1710.06542). Null is that of the
            checkpoint, or `observation`; another than the checkpoint's begins anew.
        critic_warmup: first iterations in which the critic learns alone.
        frozen: parts of the policy's network that stay as they are, such as `encoder` or `encoder.image`: few pictures
            are soon known by heart.
        objective: policy objective, such as `gipo.objectives.GIPO`, `.PPOClip`, `.SAPO`, `.NoClip`, or one of
            `gipo.adaptive` and `gipo.baselines`.
        kl_coef: weight of the anchor KL(μ‖π), which holds the policy near the data.
        kl_target: KL of an action dimension, nats, that the weight of the anchor is moved to meet, once an iteration,
            from `kl_coef` on; null holds it.
        kl_estimator: sampled estimate of the anchor from the log-ratio: `gipo.objectives.k1`, `.k2` or `.k3`.
        kl_exact: compute the anchor exactly instead; needs `data.store_params=true`.
        entropy_coef: weight of the entropy bonus.
        value_coef: weight of the critic's loss.
        value_scale: what the critic's outputs mean: `gipo.learning.value_scale.PopArt`, `.Standardised` or
            `.SymlogTwoHot`, or the `.Expectile` of IQL; null for values as they are, for which `data.reward_scale` has
            to bring them near 1. With `init_from` null is that of the checkpoint.
        human_coef: weight of −log π of what persons did in logs, as its sum over their steps divided by all steps that
            teach, the policy's among them; 0 leaves them to the critic alone.
        normalise_advantages: standardise advantages within each batch.
        reuse: updates on every batch.
        actor_every: of these, the policy learns on the first and every `actor_every`-th after it, its loss scaled by
            1/√(reuse index + 1).
        policy_lr: learning rate of the policy.
        value_lr: learning rate of the critic.
        lr_warmup: iterations of linear warm-up; the first already learns.
        lr_final: fraction of the learning rate that the cosine decay ends at; 1 keeps it constant.
        max_grad_norm: gradient clip, for the policy and the critic each.
        micro_batch: transitions that are computed at once: the gradient of a batch is added up over its parts, in the
            memory that one of them takes; null for the whole batch.
        recompute: keep no activations of a pretrained network for the backward pass, which computes them once more.
        optimizer: optimizer class and its options, beside the learning rate.
        compile: compile the losses (`torch.compile`), which takes a while at the first update.
        cuda_graphs: also replay them as CUDA graphs; needs `compile` and a CUDA device.
    """

    objective_memory: Tensor | None

    def __init__(
        self,
        policy: PolicyFactory | None = None,
        init_from: str | None = None,
        critic: CriticSees | None = None,
        critic_warmup: int = 0,
        frozen: list[str] | None = None,
        objective: Objective = AgeAwareGIPO(outward_only=True, sigma_fresh=0.1),  # noqa: B008 - frozen
        kl_coef: float = 0.1,
        kl_target: float | None = None,
        kl_estimator: Callable = k3,
        kl_exact: bool = False,
        entropy_coef: float = 0.0,
        value_coef: float = 0.5,
        value_scale: ValueScaleFactory | None = None,
        human_coef: float = 0.0,
        normalise_advantages: bool = True,
        reuse: int = 1,
        actor_every: int = 1,
        policy_lr: float = 3e-4,
        value_lr: float = 1e-3,
        lr_warmup: int = 1,
        lr_final: float = 1.0,
        max_grad_norm: float = 1.0,
        micro_batch: int | None = None,
        recompute: bool = False,
        optimizer: OptimizerFactory = lambda parameters: AdamW(parameters, weight_decay=0.0, fused=True),
        compile: bool = False,
        cuda_graphs: bool = False,
    ):
        super().__init__(policy=policy, init_from=init_from, critic=critic, critic_warmup=critic_warmup, frozen=frozen,
                         value_scale=value_scale, lr_warmup=lr_warmup, lr_final=lr_final, max_grad_norm=max_grad_norm,
                         policy_lr=policy_lr, value_lr=value_lr, recompute=recompute, optimizer=optimizer)  # fmt: skip
        self.objective, self.losses = objective, Losses(objective, kl_estimator, entropy_coef)
        self.register_buffer("objective_memory", first_memory(objective))
        self.kl_coef, self.anchor, self.kl_exact = kl_coef, Anchor(kl_coef, kl_target), kl_exact
        self.value_coef, self.cuda_graphs, self.reuse, self.actor_every = value_coef, cuda_graphs, reuse, actor_every
        self.normalise_advantages, self.human_coef, self.micro_batch = normalise_advantages, human_coef, micro_batch
        self._refuse_bad_options()
        self._choose_terms(compile)

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
        """Refuse what needs the behaviour distribution where it is not `stored`, or a policy of another kind."""
        objective, needs = f"objective={type(self.objective).__name__}", self.objective.needs
        for option, needed in (("kl_exact=true", self.kl_exact), (objective, "entropy" in needs)):
            if needed and not stored:
                raise UserError(
                    f"model.{option} needs the behaviour distribution: what is collected has it with "
                    "data.store_params=true, logs never"
                )
        if "entropy" in needs:
            _ = self.policy.max_entropy  # which only a policy over tokens has
        if "log_prob" in needs and not self.policy.gives_probabilities:
            raise UserError(f"model.{objective} needs {NEEDED['log_prob']}")

    def on_fit_start(self) -> None:
        """Refuse what the device or the number of learners does not allow."""
        if self.objective.needs_whole_batch and ranks.count() > 1:
            raise UserError(
                f"model.objective={type(self.objective).__name__} weighs a batch as a whole, which {ranks.count()} "
                "learners share; train with trainer.devices=1, or with another objective"
            )
        if self.micro_batch and (self._scaler is not None or ranks.count() > 1):
            raise UserError(
                "model.micro_batch adds up the gradients of one learner, in float32 or bfloat16; leave it out with "
                "trainer.precision=16-mixed, and with several learners, each of which has a part of the batch"
            )
        if self.cuda_graphs and self.device.type != "cuda":
            raise UserError(
                f"model.cuda_graphs=true needs a CUDA device and the learner is on {self.device}; "
                "set trainer.accelerator=gpu, or leave cuda_graphs out"
            )

    def training_step(self, batches: TensorDictBase, batch_idx: int) -> None:
        """Learn from batches [rounds, B]; keys as in the data contract, with `advantage` and `value_target` [B].

        With action chunks these, `valid` and `executed` are [B, H].
        """
        self.check_behaviour("behaviour_params" in batches.keys())
        refuse_single(batches.shape[-1] * ranks.count(), self.normalise_advantages)
        iteration = Iteration(copied=self.cuda_graphs)
        warming_up = self.current_epoch < self.critic_warmup
        # The moments are the same for all updates of an iteration.
        batches = batches.copy().set("observation", self.policy.standardised(batches["observation"]))
        self.policy.learn_values(batches["value_target"], batches.get("executed", batches["value_target"].isfinite()))
        with told_to_listeners(self.trainer):
            for batch, samples in zip(batches.unbind(0), self._samples(batches), strict=True):
                self._learn(batch, samples, iteration, warming_up)
        if not warming_up:
            self.policy.next_version()
        self.step_schedules(warming_up)
        metrics = iteration.metrics()
        if not warming_up:
            self.anchor.meet(metrics["kl"])
        figures = self.policy.value_scale.figures() | self.anchor.figures()
        self.log_dict(beside(figures | {"skipped": self.skipped.float()}, metrics))

    def _samples(self, batches: TensorDictBase) -> Iterator[Samples]:
        """The samples of each batch [N]; every step of an action chunk is one of its own."""
        advantage, valid = batches["advantage"].flatten(1), batches["valid"].flatten(1)
        acted = batches["policy_version"]
        age = torch.where(acted < 0, torch.nan, self.policy.version - acted)  # −1 where nobody said which version acted
        age = age.repeat_interleave(advantage.shape[-1] // age.shape[-1], -1)
        if "age" in self.objective.needs:
            valid = valid & age.isfinite()
        if self.normalise_advantages:
            mean, std = ranks.mean_and_std(advantage, valid & advantage.isfinite())
            advantage = (advantage - mean.unsqueeze(-1)) / (std.unsqueeze(-1) + 1e-8)
        for index, batch in enumerate(batches.unbind(0)):
            yield Samples(valid[index], advantage[index], age[index], self._behaviour_entropy(batch))

    def _learn(self, batch: TensorDictBase, samples: Samples, iteration: Iteration, critic_only: bool) -> None:
        """Reuse one batch [B], of which `micro_batch` transitions are computed at a time."""
        parts = parts_of(batch, samples, self.micro_batch)
        for index in range(self.reuse):
            if self.cuda_graphs:  # what the last graphs left may be written over from here on
                torch.compiler.cudagraph_mark_step_begin()
            acts = index % self.actor_every == 0 and not critic_only
            for name, norm in self.update(self._losses_of(parts, iteration, index if acts else None)).items():
                iteration.keep(f"grad_norm/{name}", torch.where(norm.isfinite(), norm, torch.nan))
            iteration.end_parts()
            if acts:
                self._keep_memory(parts)
        values = torch.cat([part.values for part in parts if part.values is not None])
        iteration.add_values(values, batch["value_target"], batch.get("executed", None))

    def _losses_of(
        self, parts: Sequence[MicroBatch], iteration: Iteration, index: int | None
    ) -> Iterator[dict[str, Tensor]]:
        """Losses of the parts of a batch, which is reused for the time `index`; None where the critic learns alone.

        Value-only updates never run the actor, and encode the batch at most once between policy updates.
        """
        for part in parts:
            losses = {}
            if index is not None:
                terms = self._terms(part, iteration)
                losses["policy"] = self._policy_loss(terms, part, iteration) / math.sqrt(index + 1)
                seen, part.seen = self._critic_view(part.batch, terms.features), None
            else:
                seen = part.seen = self._critic_view(part.batch) if part.seen is None else part.seen
            target, executed = part.batch["value_target"], part.batch.get("executed", None)
            part.values, loss = self._value_terms(self.policy, seen, target, executed)
            loss = loss if executed is None else ranks.weighed(loss, executed)
            iteration.keep("loss/value", loss, part.shares.get("value"))
            yield losses | {"value": self.value_coef * part.share_of("value", loss)}

    def _policy_loss(self, terms: PolicyTerms, part: MicroBatch, iteration: Iteration) -> Tensor:
        """What a part of a batch adds to the policy's loss, scalar."""
        loss = part.share_of("policy", ranks.weighed(terms.loss, terms.surrogate.used))
        if not self.human_coef:
            return loss
        cloned, persons, taught = imitation(
            terms.log_ratio, part.batch["log_prob"], part.batch["source"], terms.surrogate.used
        )
        mean = ranks.weighed(cloned * taught.sum() / persons.sum().clamp(min=1), persons)
        iteration.keep_mean("loss/imitation", mean, persons, part.shares.get("persons"))
        return loss + self.human_coef * part.share_of("imitation", ranks.weighed(cloned, taught))

    @torch.no_grad()
    def _critic_view(self, batch: TensorDictBase, features: Tensor | None = None) -> Tensor:
        """What the critic sees of a batch [B], of which there may be `features`."""
        return self.policy.critic_view(batch["observation"], batch.get("privileged", None), features).detach()

    def _terms(self, part: MicroBatch, iteration: Iteration) -> PolicyTerms:
        batch, samples = part.batch, part.samples
        terms = self._policy_terms(
            self.policy, batch["observation"], batch["latent"], batch["log_prob"], samples,
            self.anchor.weight, batch["behaviour_params"] if self.kl_exact else None, self.objective_memory,
        )  # fmt: skip
        iteration.add(terms, samples.advantage, samples.age, part.shares.get("policy"))
        part.memory = terms.surrogate.memory
        return terms

    def _keep_memory(self, parts: Sequence[MicroBatch]) -> None:
        """What the objective remembers of a batch is the mean over its samples."""
        found = [part.size * part.memory for part in parts if part.memory is not None]
        if self.objective_memory is not None and found:
            self.objective_memory.copy_(ranks.averaged(torch.stack(found).sum(0)))

    def _behaviour_entropy(self, batch: TensorDictBase) -> Tensor | None:
        """Entropy of the policy that acted [N, D], as a share of its maximum, where the objective reads it."""
        if "entropy" not in self.objective.needs:
            return None
        entropy = self.policy.entropy(batch["behaviour_params"].float()) / self.policy.max_entropy
        return entropy.flatten(0, -2)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what is not this run's; an objective that it did not have before begins without memory."""
        super().on_load_checkpoint(checkpoint)
        state, own = checkpoint.get("state_dict", {}), self.objective_memory
        found = state.pop("objective_memory", None)
        if own is not None:
            state["objective_memory"] = found if found is not None and found.shape == own.shape else own.clone()

    def _refuse_bad_options(self) -> None:
        if self.micro_batch is not None:
            refuse_whole(self.micro_batch, self.objective)
        positive = ("reuse", "actor_every", "policy_lr", "value_lr", "max_grad_norm")
        not_negative = ("kl_coef", "losses.entropy_coef", "value_coef", "human_coef", "critic_warmup", "lr_warmup",
                        "lr_final")  # fmt: skip
        for name in (*positive, *not_negative):
            value = attrgetter(name)(self)
            if not (math.isfinite(value) and value >= 0 and (value > 0 or name not in positive)):
                must = "be positive and finite" if name in positive else "not be negative"
                raise UserError(f"model.{name.removeprefix('losses.')} must {must}, got {value}")
