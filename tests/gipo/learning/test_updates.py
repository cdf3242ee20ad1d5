"""Updates of two heads: their schedules, the scale of half precision, and who is told of them."""

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from tensordict import TensorDict
from torch import nn
from torch.optim import LBFGS, SGD, AdamW

from gipo.common.errors import UserError
from gipo.learning.updates import MAX_SKIPS_IN_A_ROW, told_to_listeners
from gipo.module import GIPOModule
from tests.gipo.test_module import SPACES, Batches, batches, fit, parameters, shared

# Schedules ------------------------------------------------------------------------------------------------------------


def scheduled(max_epochs: int, **options: Any) -> GIPOModule:
    module = GIPOModule(policy=shared, **options)
    module.trainer = Trainer(accelerator="cpu", max_epochs=max_epochs, logger=False, enable_checkpointing=False)
    return module


def test_after_the_warm_up_a_rate_is_half_a_cosine_and_stays_at_its_end() -> None:
    module = scheduled(20, lr_warmup=4, lr_final=0.2)
    # 16 iterations from 1 to 0.2: a quarter, half and all of them
    expected = {4: 1.0, 8: 0.6 + 0.4 * math.sqrt(0.5), 12: 0.6, 20: 0.2, 36: 0.2}
    assert {k: module._rate_factor(k) for k in expected} == pytest.approx(expected)


def test_what_begins_late_ends_with_the_run() -> None:
    module = scheduled(20, lr_warmup=4, lr_final=0.2, critic_warmup=6, policy_lr=3.0, value_lr=5.0)
    (policy, of_policy), (value, of_value) = module._rates
    assert (policy, value) == (3.0, 5.0)
    # The policy's own iterations are 14, of which 10 decay.
    assert [of_policy(k) for k in (0, 4, 9, 14)] == pytest.approx([0.25, 1.0, 0.6, 0.2])
    assert [of_value(k) for k in (0, 4, 12, 20)] == pytest.approx([0.25, 1.0, 0.6, 0.2])


def test_a_run_without_an_end_decays_over_the_iterations_of_its_data() -> None:
    module = scheduled(-1, lr_warmup=4, lr_final=0.2)
    module.trainer.datamodule = SimpleNamespace(iterations=20)  # type: ignore[attr-defined]
    assert [module._rate_factor(k) for k in (12, 20)] == pytest.approx([0.6, 0.2])


def test_while_the_critic_learns_alone_the_policys_schedule_waits() -> None:
    module = fit(batches(3, rounds=1), critic_warmup=2, lr_warmup=4, policy_lr=4e-3, value_lr=8e-3)
    now = [optimizer.param_groups[0]["lr"] for optimizer in module.optimizers()]
    assert now == pytest.approx([4e-3 * 2 / 4, 8e-3 * 4 / 4])


def test_where_a_run_goes_on_with_a_longer_warm_up_the_policys_schedule_ends_with_it_too() -> None:
    module = fit(batches(3, rounds=1), critic_warmup=1, lr_warmup=0, lr_final=0.0, policy_lr=3.0)
    module.critic_warmup, module.trainer.fit_loop.max_epochs = 5, 10
    module.on_train_start()
    # It has learned in 2 iterations, waits for the 4th and the 5th, and learns in 5 more: 7.
    now = module.optimizers()[0].param_groups[0]["lr"]
    assert now == pytest.approx(3.0 * 0.5 * (1 + math.cos(math.pi * 2 / 7)))
    factor = module._rates[0][1]
    assert factor(6) == pytest.approx(0.5 * (1 + math.cos(math.pi * 6 / 7)))
    assert factor(7) == 0.0


def test_an_optimizer_that_needs_the_loss_again_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.optimizer=torch\.optim\.\S*LBFGS computes the loss several times"):
        fit(batches(1, rounds=1), optimizer=lambda each: LBFGS(each))


def counting(parameters: list[nn.Parameter]) -> AdamW:
    """An optimizer that keeps a number of its own beside its options."""
    optimizer = AdamW(parameters, weight_decay=0.0)
    optimizer.param_groups[0]["counted"] = 0
    return optimizer


def test_rates_and_options_are_of_this_run_whatever_a_checkpoint_remembers() -> None:
    module = fit(batches(1, rounds=1), lr_warmup=4, policy_lr=4e-3, value_lr=8e-3, optimizer=counting)
    for optimizer, schedule in zip(module.optimizers(), module.lr_schedulers(), strict=True):
        optimizer.param_groups[0].update(lr=9.0, initial_lr=9.0, weight_decay=9.0, counted=9)
        schedule.base_lrs = [9.0]
    module.on_train_start()
    for optimizer, schedule, rate in zip(module.optimizers(), module.lr_schedulers(), (4e-3, 8e-3), strict=True):
        group = optimizer.param_groups[0]
        assert (group["lr"], group["initial_lr"], schedule.base_lrs) == (rate * 2 / 4, rate, [rate])
        assert (group["weight_decay"], group["counted"]) == (0.0, 9)


@pytest.mark.parametrize("share", [0.999, 1.001])
def test_a_norm_a_little_above_its_limit_is_cut_to_it(share: float) -> None:
    def moved(limit: float) -> tuple[GIPOModule, float]:
        module = fit(batches(1, rounds=1), policy_lr=1.0, max_grad_norm=limit, optimizer=lambda each: SGD(each))
        pairs = zip(module.policy.actor_parameters(), shared(SPACES).actor_parameters(), strict=True)
        return module, float(torch.cat([(after - before).detach().flatten() for after, before in pairs]).norm())

    norm = float(moved(1e9)[0].trainer.callback_metrics["grad_norm/policy"])
    assert moved(share * norm)[1] == pytest.approx(min(1, share) * norm, rel=1e-4)


# The scale of half precision ------------------------------------------------------------------------------------------


class Scaled(MixedPrecision):
    """Multiplies losses as half precision does, and computes in `dtype`."""

    def __init__(self, scale: float, dtype: torch.dtype):
        super().__init__("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
        self.dtype = dtype

    def autocast_context_manager(self) -> Any:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast("cpu", self.dtype)


def fit_scaled(
    data: list[TensorDict], scale: float, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[GIPOModule, float]:
    """The module, and the scale that its losses have come to."""
    module, precision = GIPOModule(**{"policy": shared} | options), Scaled(scale, dtype)
    trainer = Trainer(
        accelerator="cpu", max_epochs=len(data), logger=False, plugins=[precision], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=Batches(data))
    assert precision.scaler is not None
    return module, precision.scaler.get_scale()


@pytest.mark.parametrize("clip", [0.01, 1e3])
@pytest.mark.parametrize("optimizer", [{}, {"optimizer": lambda parameters: SGD(parameters)}], ids=["fused", "plain"])
def test_losses_that_are_scaled_learn_the_same(optimizer: dict[str, Any], clip: float) -> None:
    """By a power of two, so that nothing is rounded."""
    data, options = batches(1), {"reuse": 3, "actor_every": 2, "max_grad_norm": clip} | optimizer
    plain, (scaled, scale) = fit(data, **options), fit_scaled(data, 2.0**10, **options)
    assert scale == 2.0**10
    for ours, theirs in zip(parameters(scaled), parameters(plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    for name in ("grad_norm/policy", "grad_norm/value"):
        found, expected = (module.trainer.callback_metrics[name] for module in (scaled, plain))
        torch.testing.assert_close(found, expected, msg=name)


def test_a_scale_that_is_too_large_falls_and_ends_no_run() -> None:
    module, scale = fit_scaled(batches(1, rounds=20), 2.0**36, torch.float16)
    assert int(module.skipped) > MAX_SKIPS_IN_A_ROW
    assert scale == 2.0 ** (36 - int(module.skipped))
    assert module.skipped_in_a_row.tolist() == [0, 0]
    assert not any(map(torch.equal, parameters(module), shared(SPACES).parameters()))


def test_a_head_that_is_left_out_changes_nothing_of_what_the_other_learns() -> None:
    """Each is scaled by what the scale is when its turn comes."""
    data = batches(1, rounds=4)
    data[0]["advantage"] = data[0]["advantage"] * 1e30
    options = {
        "normalise_advantages": False,
        "value_lr": 0.1,
        "max_grad_norm": 1e9,
        "optimizer": lambda each: SGD(each),
    }
    plain, (scaled, scale) = fit(data, **options), fit_scaled(data, 2.0**10, **options)
    assert int(plain.skipped) == int(scaled.skipped) == 4
    assert scale == 2.0**6
    for ours, theirs in zip(parameters(scaled), parameters(plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_a_norm_that_overflows_where_no_gradient_does_has_the_scale_fall_and_then_ends_the_run() -> None:
    """Of values in single precision, whose gradients the scaler finds finite."""
    data = batches(1, rounds=MAX_SKIPS_IN_A_ROW + 2)
    data[0]["value_target"] = data[0]["value_target"] * 1e30
    with pytest.raises(UserError, match=r"^10 updates of the critic in a row .*, or look for extreme rewards$"):
        fit_scaled(data, 4.0)


def test_parts_of_a_batch_are_refused_where_losses_are_scaled() -> None:
    with pytest.raises(
        UserError, match=r"^model\.micro_batch adds up .* leave it out with trainer\.precision=16-mixed"
    ):
        fit_scaled(batches(1), 1.0, micro_batch=4)


# Who is told ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_before_backward", "on_after_backward", "on_before_optimizer_step"])
def test_one_that_listens_to_any_step_of_an_update_is_told(hook: str) -> None:
    listening = type("Listens", (Callback,), {hook: lambda *_: None})()
    trainer: Any = SimpleNamespace(callbacks=[Callback(), listening])
    with told_to_listeners(trainer):
        assert trainer.callbacks == [listening]
    assert len(trainer.callbacks) == 2
