"""GIPO as a TorchRL loss module, for training scripts of your own."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase, is_tensor_collection
from tensordict.nn import dispatch
from tensordict.utils import expand_right
from torch import Tensor
from torch.distributions import Categorical
from torchrl.objectives import PPOLoss

from gipo.common.errors import UserError
from gipo.learning.diagnostics import loss_metrics
from gipo.objective import (
    Elements,
    Objective,
    Terms,
    blanked,
    first_memory,
    masked_terms,
    remembered,
    since,
)
from gipo.objectives import GIPO, k3


class GIPOLoss(PPOLoss):
    """A sibling of `torchrl.objectives.ClipPPOLoss`, with any `gipo.objectives.Objective` in place of the clip.

    Keys, `set_keys`, value estimators, reductions, masks, entropy bonus and critic loss are those of `PPOLoss`.

    The ratio is that of the log-probs the actor's distribution gives. One that treats action dimensions separately
    (`Normal`, or `Categorical` over logits [*B, D, V]) gives log-probs [*B, D], and so one ratio, trust weight and
    loss per dimension, which is what GIPO is made for; the advantage [*B, 1] is shared. One that sums them
    (`TanhNormal`, `Independent`, composite distributions) gives [*B], and so one ratio per action.
    The stored log-probs must be of the same kind. Elements whose log-ratio, advantage or age is not finite are left out
    of the mean and counted; the moments of `normalize_advantage` are of all finite advantages. What a mask of the batch
    leaves out is seen by nothing here: not by the objective, its memory, its metrics, nor those moments. (`entropy` and
    `explained_variance` are `PPOLoss`'s, of all.)

    Output keys, beside `loss_objective`, `loss_kl`, `loss_entropy`, `loss_critic`, `entropy` and `explained_variance`:
    `weight`, the mean trust weight; `clip_fraction`, the share of elements with a weight below .001; `ESS`, effective
    sample size of the contributions w·ρ in [0, 1]; `kl_approx`, the mean of −x; `max_ratio` and `mean_ratio`, of ρ;
    `masked`, the count of elements left out as not finite.

    Args:
        actor_network: policy operator, as for `PPOLoss`.
        critic_network: value operator, as for `PPOLoss`.
        objective: the policy objective; not one that needs the behaviour entropy. One that needs the age of the data
            finds it in the entry `age` (`set_keys`) [*B] or [*B, 1], in policy versions, or one for all that the
            leading dimensions of *B hold: [B] of trajectories [B, T], or of the agents [B, n]. What it remembers is the
            buffer `objective_memory`, which `forward` brings up to date while training.
        kl_coeff: weight of the anchor KL(μ‖π), estimated by eˣ − 1 − x, in `loss_kl`. On stale data GIPO needs one
            (`gipo.module` has .1); 0 leaves it out.
        options: every other keyword of `PPOLoss`. With `delay_actor` or `max_importance_ratio` the objective acts on
            the ratio to the proximal policy, and the rest of the behaviour ratio multiplies its loss; the anchor is to
            the behaviour policy all the same, whose ratio is not known with both.

    Raises:
        UserError: the objective is none or needs what is not known here, or so does the anchor.
    """

    @dataclass
    class _AcceptedKeys(PPOLoss._AcceptedKeys):
        """Keys of `PPOLoss`, and that of the age of the data."""

        age: NestedKey = "age"

    default_keys = _AcceptedKeys
    _in_keys: list[Any]
    _out_keys: list[str] | None
    objective_memory: Tensor | None
    METRICS = ("weight", "clip_fraction", "ESS", "kl_approx", "max_ratio", "mean_ratio", "masked")

    def __init__(
        self,
        actor_network: Any = None,
        critic_network: Any = None,
        *,
        objective: Objective = GIPO(),  # noqa: B008 - frozen
        kl_coeff: float = 0.0,
        **options: Any,
    ):
        if not 0 <= kl_coeff < math.inf:
            raise UserError(f"GIPOLoss.kl_coeff must be finite and not negative, got {kl_coeff}")
        if not isinstance(objective, Objective):
            raise UserError(f"GIPOLoss.objective must be an objective such as GIPO(), got {objective!r}")
        if kl_coeff and options.get("delay_actor") and options.get("max_importance_ratio"):
            raise UserError(
                "GIPOLoss.kl_coeff needs the ratio to the behaviour policy, which delay_actor and max_importance_ratio "
                "together hide: leave out one of the three"
            )
        if "entropy" in objective.needs:
            raise UserError(
                f"{type(objective).__name__} needs the behaviour entropy, which GIPOLoss does not have: "
                "choose another objective, or train with gipo.module.GIPOModule"
            )
        if "log_prob" in objective.needs and (options.get("delay_actor") or options.get("max_importance_ratio")):
            raise UserError(
                f"{type(objective).__name__} needs the probability of a token, which GIPOLoss does not know with "
                "delay_actor or max_importance_ratio: leave these out, or choose another objective"
            )
        self.objective = objective  # which says what the entries of a batch are
        super().__init__(actor_network, critic_network, **options)
        self.register_buffer("objective_memory", first_memory(objective, self.entropy_coeff.device))
        self.kl_coeff = kl_coeff

    def _apply(self, fn: Any) -> "GIPOLoss":
        """Move, or convert: the memory is moved alone, as it needs the precision that it has."""
        kept = self.objective_memory
        super()._apply(fn)
        moved = self.objective_memory
        if kept is not None and moved is not None:
            self.objective_memory = kept.to(moved.device)
        return self

    @property
    def out_keys(self) -> list[str]:
        """What `forward` returns, in order, to callers without tensordicts."""
        if self._out_keys is None:
            self._out_keys = [
                "loss_objective",
                *(("loss_kl",) if self.kl_coeff else ()),
                *(("entropy", "loss_entropy") if self.entropy_bonus else ()),
                *(("loss_critic",) if self._has_critic else ()),
                *(("value_clip_fraction",) if self.clip_value else ()),
                *self.METRICS,
            ]
        return self._out_keys

    @out_keys.setter
    def out_keys(self, values: list[str]) -> None:
        self._out_keys = values

    def _set_in_keys(self) -> None:
        super()._set_in_keys()
        if "age" in self.objective.needs:
            self._in_keys = [*self._in_keys, self.tensor_keys.age]

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Losses and metrics of a batch; the sum of the entries named `loss_…` is to be minimised."""
        tensordict = tensordict.clone(False)
        advantage = self._advantage(tensordict)
        batch = advantage.shape[:-1]
        log_weight, dist, _, correction = self._log_weight(tensordict, adv_shape=batch)
        x = log_weight.squeeze(-1)
        self._refuse_shapes(tensordict, x, advantage)
        # half precision loses ratios; float64 stays
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        # [*B, 1] against x [*B] or [*B, D]
        advantage = expand_right(advantage.squeeze(-1).to(x.dtype), x.shape)
        # what is left of the behaviour ratio beside x, 1 where x is all of it
        left = torch.zeros_like(x) if correction is None else correction.squeeze(-1).to(x.dtype).expand_as(x)
        age = self._age(tensordict, batch)
        kept = self._kept(tensordict, x.unsqueeze(-1)).squeeze(-1)
        used = kept & torch.isfinite(x) & torch.isfinite(advantage * left.exp())
        if age is not None:
            used &= expand_right(age.isfinite().squeeze(-1), x.shape)
        log_prob = None if correction is not None else self._probability(tensordict, dist, x)
        terms = self._terms(Elements(x, advantage, used, age, log_prob=log_prob), batch)

        loss = terms.loss * torch.where(used, left, 0.0).exp()
        metrics = loss_metrics(x.detach(), left, terms, used)
        out = TensorDict({"loss_objective": loss.unsqueeze(-1), **metrics, "masked": (kept & ~used).sum()})
        if self.kl_coeff:
            whole = x + left if self.delay_actor else x  # log π/μ: a cap on x alone leaves it what it is
            out.set("loss_kl", self.kl_coeff * k3(torch.where(used, whole, 0.0)).unsqueeze(-1))
        if self.entropy_bonus:
            out.update(self._entropy_terms(self._get_entropy(dist, adv_shape=batch)))
        if self._has_critic:
            out.update(self._critic_terms(tensordict))
        for name in [name for name in out.keys() if name.startswith("loss_")]:
            masked = used if name in ("loss_objective", "loss_kl") else None
            out.set(name, self._reduced(out.get(name), tensordict, masked))
        return out

    def _terms(self, seen: Elements, batch: torch.Size) -> Terms:
        """What the objective says of x [*B, D] or [*B], whose one element is a sequence of its own."""
        x, shape = seen.log_ratio, seen.log_ratio.shape
        by_element = shape if len(shape) > len(batch) else (*shape, 1)
        known = blanked(
            Elements(
                x.reshape(by_element),
                seen.advantage.reshape(by_element),
                seen.used.reshape(by_element),
                age=since(seen.age, x),
                log_prob=None if seen.log_prob is None else seen.log_prob.reshape(by_element),
                memory=self.objective_memory,
            )
        )
        terms, _ = masked_terms(self.objective, known)
        memory = remembered(self.objective, known, seen.age)
        if self.objective_memory is not None and memory is not None and self.training and torch.is_grad_enabled():
            self.objective_memory.copy_(memory)
        return Terms(*(part.reshape(shape) for part in terms))

    def _age(self, tensordict: TensorDictBase, batch: torch.Size) -> Tensor | None:
        """The age [*B, 1] of the data in policy versions, where the objective reads it."""
        if "age" not in self.objective.needs:
            return None
        key, name = self.tensor_keys.age, type(self.objective).__name__
        age = tensordict.get(key, None)
        if age is None:
            raise UserError(f"{name} needs the age of the data in policy versions: put it into the batch, {key!r} [*B]")
        known = age if age.shape == batch[: age.ndim] else age.squeeze(-1)
        if known.shape != batch[: known.ndim]:
            raise UserError(
                f"{key!r} has shape {tuple(age.shape)} beside advantages of the batch {tuple(batch)}: it needs that "
                "shape, or its leading dimensions"
            )
        # one age for all that the leading dimensions hold: a trajectory, the agents
        return expand_right(known, (*batch, 1))

    def _kept(self, tensordict: TensorDictBase, like: Tensor) -> Tensor:
        """Bool, as `like`: False where a mask of the batch leaves an element out, as `_reduce_loss` would."""
        kept = torch.ones_like(like, dtype=torch.bool)
        for key in self._loss_mask_keys():
            mask = tensordict.get(key, default=None)
            kept = kept if mask is None else kept & self._expand_loss_mask(mask, like)
        return kept

    def _standardize_advantage(self, advantage: Tensor, tensordict: TensorDictBase) -> Tensor:
        """By mean and spread of what is used: a single one that is not finite would make every other so."""
        counted = advantage.isfinite() & self._kept(tensordict, advantage)
        fixed = {dim % advantage.ndim for dim in self.normalize_advantage_exclude_dims}
        dims = [dim for dim in range(advantage.ndim) if dim not in fixed]
        count = counted.sum(dims, keepdim=True)
        mean = torch.where(counted, advantage, 0.0).sum(dims, keepdim=True) / count.clamp(min=1)
        squares = torch.where(counted, (advantage - mean).square(), 0.0).sum(dims, keepdim=True)
        spread = (squares / (count - 1).clamp(min=1)).sqrt()
        return (advantage - mean) / spread.clamp(min=torch.finfo(torch.float32).resolution)

    def _probability(self, tensordict: TensorDictBase, dist: Any, x: Tensor) -> Tensor | None:
        """log π(a|s) [*B, D] or [*B] of tokens, nats, without a gradient; None of a density."""
        if not isinstance(dist, Categorical):
            if "log_prob" in self.objective.needs:
                raise UserError(
                    f"{type(self.objective).__name__} needs the probability of a token: the actor's distribution has "
                    f"to be Categorical, and is {type(dist).__name__}"
                )
            return None
        return x.detach() + tensordict.get(self.tensor_keys.sample_log_prob, as_padded_tensor=True).to(x.dtype)

    def _entropy_terms(self, entropy: Any) -> dict[str, Any]:
        """The entropy bonus as a loss, and the mean entropy; of a composite distribution that of each part too."""
        parts = {"composite_entropy": entropy.detach()} if is_tensor_collection(entropy) else {}
        total = entropy.sum(dim="feature", reduce=True) if is_tensor_collection(entropy) else entropy
        return {**parts, "entropy": total.detach().mean(), "loss_entropy": self._weighted_loss_entropy(entropy)}

    def _critic_terms(self, tensordict: TensorDictBase) -> dict[str, Tensor]:
        """The critic's loss, and what `PPOLoss` tells of it."""
        names = ("loss_critic", "value_clip_fraction", "explained_variance")
        found = zip(names, self.loss_critic(tensordict), strict=True)
        return {name: value for name, value in found if value is not None}

    def _advantage(self, tensordict: TensorDictBase) -> Tensor:
        """The advantage [*B, 1], computed where the batch has none, standardised where asked for."""
        missing = self.tensor_keys.advantage not in tensordict.keys(include_nested=True)
        if missing:
            if self.critic_network is None:
                raise UserError(
                    f"GIPOLoss finds no {self.tensor_keys.advantage!r} in its input and has no critic_network to "
                    "compute it: give it one, or run a value estimator first"
                )
            self.value_estimator(
                tensordict,
                params=self._cached_critic_network_params_detached,
                target_params=self.target_critic_network_params,
            )
        advantage = tensordict.get(self.tensor_keys.advantage, as_padded_tensor=True)
        return self._maybe_normalize_advantage(advantage, tensordict, update_norm=missing)

    def _refuse_shapes(self, tensordict: TensorDictBase, x: Tensor, advantage: Tensor) -> None:
        """Log-probs of two kinds, or an advantage without its last dimension, would broadcast to something else."""
        key = self.tensor_keys.sample_log_prob
        stored = None if isinstance(key, list) else tensordict.get(key, as_padded_tensor=True)
        if isinstance(stored, Tensor) and stored.shape != x.shape:
            raise UserError(
                f"{key!r} has shape {tuple(stored.shape)}, the actor's log-prob {tuple(x.shape)}: store log-probs of "
                "the distribution that is trained, per dimension or summed"
            )
        batch = advantage.shape[:-1]
        if advantage.shape[-1] != 1 or x.shape[: len(batch)] != batch:
            raise UserError(
                f"{self.tensor_keys.advantage!r} has shape {tuple(advantage.shape)} beside log-probs "
                f"{tuple(x.shape)}: it needs the shape of the batch and a last dimension of 1"
            )

    def _reduced(self, loss: Tensor, tensordict: TensorDictBase, used: Tensor | None) -> Tensor:
        # 'none' keeps the shape of the batch: what is left out stays there, with no gradient
        mask = None if used is None or self.reduction == "none" else used.unsqueeze(-1)
        return self._reduce_loss(loss, tensordict, mask=mask).squeeze(-1)
