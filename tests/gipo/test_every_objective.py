"""What holds for every objective of the package: gradients, the on-policy limit, bounds, hostile input."""

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gipo.adaptive import AdaptiveGIPO, AgeAwareGIPO
from gipo.baselines import ASPO, CISPO, DPPO, ESPO, GMPO, GSPO, M2PO, MIS, TIS, VESPO, DecoupledPPO, binary_kl
from gipo.common.errors import UserError
from gipo.objectives import GIPO, SAPO, NoClip, Objective, PolicyLoss, PPOClip, policy_loss

torch.set_num_threads(1)

D, STEPS = 4, 3  # action dimensions, steps of a chunk
CUT = math.exp(5)  # what bounds ρ where an objective does not
EVERY: dict[str, tuple[Objective, float]] = {  # with the largest contribution there can be
    "gipo": (GIPO(), math.exp(0.5)),
    "noclip": (NoClip(), CUT),
    "ppo": (PPOClip(), CUT),
    "sapo": (SAPO(), 1.6),
    "adaptive": (AdaptiveGIPO(), CUT),
    "aspo": (ASPO(), CUT),
    "espo": (ESPO(alpha=1.0), CUT),
    "cispo": (CISPO(), 5.0),
    "tis": (TIS(), 2.0),
    "mis": (MIS(), 2.0),
    "m2po": (M2PO(), CUT),
    "vespo": (VESPO(), math.exp(-1) * 1.5**3),
    "vespo-chunk": (VESPO(chunk=True), math.exp(-1) * 1.5**3),
    "gspo": (GSPO(), CUT),
    "gspo-wide": (GSPO(clip_low=0.2, clip_high=0.2, chunk=True), CUT),
    "gmpo": (GMPO(), CUT),
    "gmpo-chunk": (GMPO(chunk=True), CUT),
    "decoupled": (DecoupledPPO(), CUT),
    "decoupled-uncapped": (DecoupledPPO(behaviour_cap=None), CUT),
    "dppo": (DPPO(), 20.0),
    "dppo-kl": (DPPO(change=binary_kl, delta=0.05), 20.0),
    "age": (AgeAwareGIPO(), math.exp(2)),
    "age-given": (AgeAwareGIPO(sigma_fresh=0.5, sigma_age=0.2, sigma_max=1.0), math.exp(0.5)),
    "age-outward": (AgeAwareGIPO(outward_only=True), math.exp(2)),
    "age-joint": (AgeAwareGIPO(joint=True, outward_only=True), math.exp(2)),
    "age-gain": (AgeAwareGIPO(advantage_gain=1.0), math.exp(2)),
    "age-rare": (AgeAwareGIPO(probability_floor=0.05, sigma_neg_ratio=0.5), math.exp(2)),
}
OBJECTIVES = pytest.mark.parametrize(("objective", "largest"), EVERY.values(), ids=EVERY)
PROPERTY = settings(deadline=None, max_examples=80, derandomize=True, database=None)


def judged(objective: Objective, x: Tensor, advantage: Tensor, **known: Any) -> tuple[PolicyLoss, Tensor]:
    """The loss of samples [N, D], of which all that can be known is known, and its gradient."""
    rows = len(x)
    known = {
        "age": torch.arange(rows) % 20,
        "entropy": torch.linspace(0.1, 1, D).expand(rows, D),
        "log_prob": (torch.nan_to_num(x, 0.0, 0.0, 0.0) - 4.0).clamp(max=-0.01),
        "memory": objective.memory(),
        "steps": STEPS,
    } | known
    x = x.clone().requires_grad_()
    found = policy_loss(objective, x, advantage, **known)
    return found, torch.autograd.grad(found.loss, x)[0]


def drawn(rows: int = 60, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return spread * torch.randn(rows, D, generator=generator), torch.randn(rows, generator=generator)


@OBJECTIVES
def test_the_gradient_is_minus_contribution_times_advantage(objective: Objective, largest: float) -> None:
    for spread in (0.02, 0.3, 3.0):
        x, advantage = drawn(spread=spread)
        found, gradient = judged(objective, x, advantage)
        torch.testing.assert_close(gradient * x.numel(), -found.contribution * advantage.unsqueeze(-1))
        assert not found.weight.requires_grad


@OBJECTIVES
def test_on_policy_it_is_the_policy_gradient(objective: Objective, largest: float) -> None:
    advantage = drawn()[1]
    found, gradient = judged(objective, torch.zeros(60, D), advantage)
    torch.testing.assert_close(gradient * 60 * D, -advantage.unsqueeze(-1).expand(60, D))
    torch.testing.assert_close(found.weight, torch.ones(60, D))


@OBJECTIVES
def test_no_contribution_is_beyond_the_bound(objective: Objective, largest: float) -> None:
    grid = torch.linspace(-12, 12, 1200).reshape(-1, 1)
    for x in (grid.expand(-1, D), grid.reshape(-1, D)):  # all dimensions alike, and each another
        for sign in (1.0, -1.0):
            found, _ = judged(objective, x, torch.full((len(x),), sign))
            assert found.contribution.max() <= largest * (1 + 1e-5)
            assert found.contribution.min() >= 0


@OBJECTIVES
def test_an_option_that_the_default_objective_has_too_has_its_default(objective: Objective, largest: float) -> None:
    # --model.objective=OTHER keeps what OTHER can take of the options of GIPO, which are there without being asked for
    own, default = ({each.name: each.default for each in fields(one)} for one in (type(objective), GIPO))
    assert {name for name in own.keys() & default.keys() if own[name] != default[name]} == set()


LOG_RATIOS = st.floats(-1e4, 1e4, width=32) | st.sampled_from([math.inf, -math.inf, math.nan, 88.8, -88.8, 0.0])
ADVANTAGES = st.floats(-100, 100, width=32) | st.sampled_from([math.inf, math.nan, 0.0])
CHUNK = st.lists(st.tuples(st.lists(LOG_RATIOS, min_size=D, max_size=D), ADVANTAGES), min_size=STEPS, max_size=STEPS)


@given(name=st.sampled_from(sorted(EVERY)), chunks=st.lists(CHUNK, min_size=1, max_size=3))
@PROPERTY
def test_hostile_input_is_masked_and_leaves_finite_gradients(name: str, chunks: list[Any]) -> None:
    objective = EVERY[name][0]
    rows = [row for chunk in chunks for row in chunk]
    x, advantage = torch.tensor([row for row, _ in rows]), torch.tensor([a for _, a in rows])
    found, gradient = judged(objective, x, advantage)
    assert found.used.tolist() == (x.isfinite() & advantage.isfinite().unsqueeze(-1)).tolist()
    assert torch.isfinite(found.loss)
    assert torch.isfinite(gradient).all()
    assert not gradient[~found.used].any()
    assert found.memory is None or torch.isfinite(found.memory).all()


@OBJECTIVES
def test_what_is_not_used_has_no_say(objective: Objective, largest: float) -> None:
    x, advantage = drawn()
    alone, gradient = judged(objective, x, advantage)
    more = torch.cat([x, torch.full((6, D), 2.5)]), torch.cat([advantage, torch.full((6,), 9.0)])
    found, larger = judged(objective, *more, valid=torch.arange(66) < 60)
    torch.testing.assert_close(found.loss, alone.loss)
    torch.testing.assert_close(larger[:60], gradient)


@OBJECTIVES
def test_compiled_it_is_the_same_function_of_shapes_alone(objective: Objective, largest: float) -> None:
    # a meta tensor has no values: whatever would wait for the device raises
    x = torch.zeros(6, D, device="meta", requires_grad=True)
    known = {name: torch.zeros(6, D, device="meta") for name in ("entropy", "log_prob")}
    memory = objective.memory()
    known |= {"age": torch.zeros(6, device="meta"), "memory": None if memory is None else memory.to("meta")}
    found = policy_loss(objective, x, torch.zeros(6, device="meta"), steps=STEPS, **known)
    assert found.loss.device == x.device
    assert found.contribution.shape == x.shape


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (ESPO(), r"ESPO needs the behaviour entropy.*data\.store_params=true"),
        (DPPO(), r"DPPO needs the probability of a token.*TokenPolicy"),
        (DecoupledPPO(), "DecoupledPPO needs the age of the data in policy versions"),
        (AgeAwareGIPO(), "AgeAwareGIPO needs the age"),
        (AgeAwareGIPO(probability_floor=0.1), "AgeAwareGIPO needs the"),
    ],
)
def test_what_is_needed_and_unknown_is_named(objective: Objective, words: str) -> None:
    with pytest.raises(UserError, match=words):
        policy_loss(objective, torch.zeros(2, D), torch.ones(2))
