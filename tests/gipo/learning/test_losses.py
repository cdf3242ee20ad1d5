"""The losses of an update, put together by hand from a small policy's log-probs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gipo.learning.losses import Losses, Samples
from gipo.networks import SeparateNetworks
from gipo.objectives import ContextObjective, Elements, Figures, NoClip, Terms, k3
from gipo.policies import Policy, Spaces, TokenPolicy

B, D, BINS = 6, 2, 5
VALID = torch.tensor([True, True, False, True, False, True])
ANCHOR, BONUS = 2.0, 0.5


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    made = TokenPolicy(
        Spaces(3, (-1.0,) * D, (1.0,) * D), BINS, lambda i, o: SeparateNetworks(i, o, (8,), actor_gain=1.0), False
    )
    return made.requires_grad_()


@pytest.mark.parametrize("exact", [False, True])
def test_the_policys_loss_is_surrogate_plus_anchor_less_bonus(policy: Policy, exact: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    seen, advantage = torch.randn(B, 3, generator=generator), torch.randn(B, generator=generator)
    latent, acted = torch.randint(BINS, (B, D), generator=generator), torch.randn(B, D, BINS, generator=generator)
    log_mu = policy.log_prob(acted, latent)
    found = Losses(NoClip(), k3, BONUS).policy_terms(
        policy, seen, latent, log_mu, Samples(VALID, advantage, torch.zeros(B)), torch.tensor(ANCHOR),
        acted if exact else None,
    )  # fmt: skip
    pi, mu = policy.params(seen).log_softmax(-1)[VALID], acted.log_softmax(-1)[VALID]
    x = pi.gather(-1, latent[VALID].unsqueeze(-1)).squeeze(-1) - log_mu[VALID]
    # KL(μ‖π) of those that count: Σ μ·log(μ/π), or of the tokens that were drawn eˣ − 1 − x
    kl = ((mu.exp() * (mu - pi)).sum(-1) if exact else x.exp() - 1 - x).mean()
    entropy = -(pi.exp() * pi).sum(-1).mean()
    torch.testing.assert_close(found.kl, kl)
    expected = -(x.exp() * advantage[VALID].unsqueeze(-1)).mean() + ANCHOR * kl - BONUS * entropy
    torch.testing.assert_close(found.loss, expected)


def test_the_critics_loss_is_of_the_steps_that_were_executed(policy: Policy) -> None:
    seen, target = torch.randn(B, 3, generator=torch.Generator().manual_seed(2)), torch.arange(B).float()
    losses = Losses(NoClip(), k3, 0.0)
    value, loss = losses.value_terms(policy, seen, target, VALID)
    torch.testing.assert_close(loss, (value - target)[VALID].square().mean())
    torch.testing.assert_close(losses.value_terms(policy, seen, target)[1], (value - target).square().mean())


class Counting(ContextObjective):
    """It keeps how many steps a chunk has."""

    def on_batch(self, seen: Elements) -> tuple[Terms, Figures]:
        return Terms(-seen.log_ratio, seen.used.float(), seen.used.float()), {"steps": torch.tensor(seen.steps)}


@pytest.mark.parametrize(("shape", "steps"), [((4, D), 1), ((4, 3, D), 3)])
def test_an_objective_is_told_how_many_steps_a_chunk_has(shape: tuple[int, ...], steps: int) -> None:
    def same(x: Tensor) -> Tensor:
        return x

    stub: Any = SimpleNamespace(
        encode=same, params_of=same, log_prob=lambda params, _: params, gives_probabilities=True
    )
    log_pi, count = torch.zeros(shape, requires_grad=True), 4 * steps
    samples = Samples(torch.ones(count, dtype=torch.bool), torch.ones(count), torch.zeros(count))
    found = Losses(Counting(), k3, 0.0).policy_terms(
        stub, log_pi, torch.zeros(shape), torch.zeros(shape), samples, torch.tensor(0.0), None
    )
    assert int(found.surrogate.figures["steps"]) == steps
