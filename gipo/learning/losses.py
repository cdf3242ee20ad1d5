"""The losses of an update: of tensors alone, so that they can be compiled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gipo.objective import Objective, PolicyLoss, masked_mean, policy_loss
from gipo.policies import Policy


class Samples(NamedTuple):
    """What updates read of a batch, as samples: N = B, or B·H with action chunks of H steps.

    Args:
        valid: [N] bool; False where the policy did not choose the action.
        advantage: A [N].
        age: policy versions since the action was chosen [N].
        entropy: of the policy that acted, as a share of its maximum [N, D]; None unless the objective reads it.
    """

    valid: Tensor
    advantage: Tensor
    age: Tensor
    entropy: Tensor | None = None


class PolicyTerms(NamedTuple):
    """What the policy's loss of a batch is made of.

    Args:
        loss: to minimise, scalar.
        features: of the encoder [B, ...], which the critic's loss starts from unless it sees what is privileged.
        surrogate: the objective's part of the loss, and its weights per element.
        kl: the anchor KL(μ‖π), scalar, nats.
        log_ratio: x [N, D], nats.
    """

    loss: Tensor
    features: Tensor
    surrogate: PolicyLoss
    kl: Tensor
    log_ratio: Tensor


@dataclass(frozen=True)
class Losses:
    """The losses of the policy and of the critic, with the options of `GIPOModule` that they depend on."""

    objective: Objective
    kl_estimator: Callable[[Tensor], Tensor]
    entropy_coef: float

    def policy_terms(
        self,
        policy: Policy,
        standardised: Tensor,
        latent: Tensor,
        behaviour_log_prob: Tensor,
        samples: Samples,
        anchor: Tensor,
        behaviour_params: Tensor | None,
        memory: Tensor | None = None,
    ) -> PolicyTerms:
        """The policy's loss; `behaviour_params` where the anchor is exact, `memory` where the objective has one.

        The anchor's weight β is a scalar. Samples are [N], the rest is of decisions [B]. Observations are as
        `Policy.standardised` gives them.
        """
        features = policy.encode(standardised)
        params = policy.params_of(features)
        # x = log π_θ(a|s) − log μ(a|s), with μ as it was when it acted
        log_prob = policy.log_prob(params, latent)
        log_ratio = (log_prob - behaviour_log_prob).flatten(0, -2)
        surrogate = policy_loss(
            self.objective, log_ratio, samples.advantage, samples.valid, samples.entropy, samples.age, memory=memory,
            log_prob=log_prob.flatten(0, -2) if policy.gives_probabilities else None,
            steps=math.prod(latent.shape[1:-1]),
        )  # fmt: skip
        if behaviour_params is not None:
            kl = masked_mean(policy.kl(behaviour_params, params).flatten(0, -2), surrogate.used)
        else:
            kl = masked_mean(self.kl_estimator(torch.where(surrogate.used, log_ratio, 0.0)), surrogate.used)
        # L = L_policy + β·KL(μ‖π) − η·H(π)
        loss = surrogate.loss + anchor * kl
        if self.entropy_coef:
            entropies = policy.entropy(params).flatten(0, -2)
            loss = loss - self.entropy_coef * masked_mean(entropies, surrogate.used)
        return PolicyTerms(loss, features, surrogate, kl, log_ratio)

    def value_terms(
        self, policy: Policy, seen: Tensor, target: Tensor, executed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Values [B] or [B, H], and the mean of their losses, of the chunk steps that were `executed`.

        What is `seen` is as `Policy.critic_view` gives it.
        """
        outputs = policy.value_outputs(seen)
        value, losses = policy.value_scale.decode(outputs), policy.value_scale.loss(outputs, target)
        return value, losses.mean() if executed is None else masked_mean(losses, executed)
