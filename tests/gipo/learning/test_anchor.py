"""The weight of the anchor: when it moves, how far, and what a checkpoint knows of it."""

import math

import pytest
import torch

from gipo.common.errors import UserError
from gipo.learning.anchor import Anchor
from tests.gipo.test_module import batches, fit


@pytest.mark.parametrize(
    ("kl", "weight"), [(0.029, 0.1), (0.031, 0.15), (9.0, 0.15), (0.0134, 0.1), (0.0132, 0.1 / 1.5), (math.nan, 0.1)]
)
def test_the_weight_moves_where_the_kl_is_off_by_half(kl: float, weight: float) -> None:
    anchor = Anchor(0.1, target=0.02)
    anchor.meet(torch.tensor(kl))
    assert float(anchor.weight) == pytest.approx(weight)
    assert float(anchor.figures()["kl_coef"]) == pytest.approx(weight)


def test_the_weight_stays_in_its_bounds() -> None:
    anchor = Anchor(1.0, target=1.0)
    for kl, bound in ((100.0, 1e2), (0.0, 1e-4)):
        for _ in range(40):
            anchor.meet(torch.tensor(kl))
        assert float(anchor.weight) == pytest.approx(bound)


def test_an_iteration_without_a_sample_of_the_policy_moves_nothing() -> None:
    persons = [batch.set("valid", torch.zeros_like(batch["valid"])) for batch in batches(4, rounds=2)]
    for micro_batch in (None, 3):
        module = fit(persons, kl_target=0.02, kl_coef=0.2, micro_batch=micro_batch)
        assert float(module.anchor.weight) == pytest.approx(0.2)


def test_a_weight_without_a_target_is_held() -> None:
    anchor = Anchor(0.0)
    anchor.meet(torch.tensor(100.0))
    assert float(anchor.weight) == 0
    assert anchor.figures() == {}


@pytest.mark.parametrize(("weight", "target"), [(0.1, 0.0), (0.1, math.nan), (0.0, 0.1), (1e3, 0.1)])
def test_what_cannot_be_met_is_refused(weight: float, target: float) -> None:
    with pytest.raises(UserError, match="kl_target"):
        Anchor(weight, target)


def test_a_checkpoint_goes_on_with_a_weight_that_moved_and_not_with_one_that_was_held() -> None:
    moved = {"weight": torch.tensor(0.7)}
    for anchor, found, expected in (
        (Anchor(0.1, target=0.02), moved, 0.7),
        (Anchor(0.1, target=0.02), Anchor(0.0).state_dict(), 0.1),
        (Anchor(0.1, target=0.02), Anchor(0.7, target=0.1).state_dict(), 0.7),
        (Anchor(0.2), moved, 0.2),
        (Anchor(0.2), {}, 0.2),
    ):
        anchor.load_state_dict(dict(found))
        assert float(anchor.weight) == pytest.approx(expected)


@pytest.mark.parametrize(("target", "factor"), [(1e-6, 1.5), (1e3, 1 / 1.5)])
def test_every_iteration_of_the_policy_moves_the_weight_once(target: float, factor: float) -> None:
    module = fit(batches(4, rounds=2), kl_target=target, kl_coef=0.2, critic_warmup=1, reuse=2)
    assert float(module.anchor.weight) == pytest.approx(0.2 * factor**3, rel=1e-5)
    assert float(module.trainer.callback_metrics["kl_coef"]) == pytest.approx(0.2 * factor**3, rel=1e-5)


def test_a_weight_that_rises_pulls_the_policy_to_its_data() -> None:
    data = batches(1)
    options = {"policy_lr": 3e-3, "iterations": 30}
    free, held = (fit(data, kl_coef=0.01, kl_target=target, **options) for target in (None, 0.02))
    kls = [float(module.trainer.callback_metrics["kl"]) for module in (free, held)]
    assert kls[1] < 0.5 * kls[0]
    assert "kl_coef" not in free.trainer.callback_metrics
