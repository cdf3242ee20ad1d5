"""The optimisation of one iteration: what is computed, what is skipped, what is refused."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from tensordict import TensorDict
from torch import Tensor, nn
from torch.nn import functional as F

from gipo.adaptive import AdaptiveGIPO, AgeAwareGIPO
from gipo.baselines import ESPO, M2PO
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT, note
from gipo.common.errors import UserError
from gipo.common.transition import SOURCES
from gipo.learning.losses import Losses
from gipo.learning.updates import MAX_SKIPS_IN_A_ROW
from gipo.learning.value_scale import PopArt, ValueScale
from gipo.module import GIPOModule
from gipo.networks import SharedEncoder
from gipo.objectives import GIPO, Elements, Figures, Objective, Terms, masked_mean, policy_loss
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy

SIZE, D, BINS, BATCH = 5, 2, 6, 16
SPACES = Spaces(SIZE, (-1.0,) * D, (1.0,) * D)


class Batches(LightningDataModule):
    """Serves ready batches, one [rounds, B] an iteration."""

    spaces = SPACES

    def __init__(self, batches: list[TensorDict]):
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> "Batches":
        return self

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TensorDict]:
        yield self.batches[self.trainer.current_epoch % len(self.batches)]


def shared(spaces: Spaces) -> Policy:
    torch.manual_seed(0)
    return TokenPolicy(spaces, BINS, lambda i, o: SharedEncoder(i, o, 12, 8), normalise=False)


def later(spaces: Spaces) -> Policy:
    """The same policy, with versions before it."""
    policy = shared(spaces)
    policy.version.fill_(BATCH)
    return policy


def batches(count: int, rounds: int = 2, seed: int = 1) -> list[TensorDict]:
    generator = torch.Generator().manual_seed(seed)

    def one() -> TensorDict:
        shape = (rounds, BATCH)
        return TensorDict(
            {
                "observation": torch.randn(*shape, SIZE, generator=generator),
                "latent": torch.randint(BINS, (*shape, D), generator=generator),
                "log_prob": -2 + 0.3 * torch.randn(*shape, D, generator=generator),
                "policy_version": torch.zeros(shape, dtype=torch.int64),
                "valid": torch.rand(shape, generator=generator) > 0.2,
                "advantage": torch.randn(shape, generator=generator),
                "value_target": torch.randn(shape, generator=generator),
            },
            batch_size=shape,
        )

    return [one() for _ in range(count)]


def fit(
    data: list[TensorDict],
    iterations: int | None = None,
    precision: Any = None,
    callbacks: list[Callback] | None = None,
    **options: Any,
) -> GIPOModule:
    module = GIPOModule(**{"policy": shared} | options)
    trainer = Trainer(
        accelerator="cpu", max_epochs=iterations or len(data), logger=False, precision=precision, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=Batches(data))
    return module


def naive(data: list[TensorDict], reuse: int, actor_every: int, rate: float, clip: float) -> Policy:
    """The whole forward at every step, as straightforwardly as it can be written."""
    policy = shared(SPACES)
    actor = torch.optim.AdamW(policy.actor_parameters(), lr=rate, weight_decay=0.0)
    critic = torch.optim.AdamW(policy.critic_parameters(), lr=2 * rate, weight_decay=0.0)
    for batch in (batch for iteration in data for batch in iteration.unbind(0)):
        chosen = batch["advantage"][batch["valid"]]
        advantage = (batch["advantage"] - chosen.mean()) / (chosen.std() + 1e-8)
        for index in range(reuse):
            params, value = policy.params(batch["observation"]), policy.value(batch["observation"])
            value_loss = 0.5 * F.mse_loss(value, batch["value_target"])
            if index % actor_every == 0:
                x = policy.log_prob(params, batch["latent"]) - batch["log_prob"]
                term = policy_loss(GIPO(), x, advantage, batch["valid"])
                loss = (term.loss + 0.1 * masked_mean(x.exp() - 1 - x, term.used)) / math.sqrt(index + 1)
                gradients = torch.autograd.grad(loss, policy.actor_parameters(), retain_graph=True)
                step(actor, policy.actor_parameters(), gradients, clip)
            step(critic, policy.critic_parameters(), torch.autograd.grad(value_loss, policy.critic_parameters()), clip)
    return policy


def step(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: Any, clip: float) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


@pytest.mark.parametrize(("reuse", "actor_every"), [(1, 1), (6, 3), (5, 2), (4, 10)])
def test_value_only_reuse_gives_the_parameters_of_the_naive_loop(reuse: int, actor_every: int) -> None:
    data = batches(3)
    options = {"objective": GIPO(), "policy_lr": 1e-3, "value_lr": 2e-3, "max_grad_norm": 0.5}
    module = fit(data, reuse=reuse, actor_every=actor_every, **options)
    expected = naive(data, reuse, actor_every, 1e-3, 0.5)
    for (name, ours), theirs in zip(module.policy.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6), name


def test_one_backward_pass_gives_the_parameters_of_one_for_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    data, options = batches(3), {"reuse": 3, "actor_every": 2, "max_grad_norm": 0.5}
    together, update = fit(data, **options), GIPOModule.update

    def in_turns(self: GIPOModule, parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: update(self, [{name: loss}])[name] for name, loss in next(parts).items()}

    monkeypatch.setattr(GIPOModule, "update", in_turns)
    assert all(map(torch.equal, parameters(together), parameters(fit(data, **options))))


@pytest.mark.parametrize("size", [1, 5, BATCH, 2 * BATCH])
@pytest.mark.parametrize("more", [{}, {"objective": AgeAwareGIPO()}, {"human_coef": 0.5}], ids=str)
def test_gradients_of_parts_add_up_to_that_of_the_batch(more: dict[str, Any], size: int) -> None:
    data = batches(3)
    for batch in data:  # what counts is spread unevenly, and a few elements count for nothing
        batch["valid"][:, : BATCH // 2] = False
        batch["log_prob"][0, -2:, 0] = torch.nan
        batch["policy_version"] += BATCH - torch.arange(BATCH) % 4  # the slope of x² on age is of these
        batch["source"] = torch.full((2, BATCH), SOURCES.index("policy"))
        batch["source"][:, 1:4] = SOURCES.index("person")
    options = {"policy": later, "objective": GIPO(), "reuse": 3, "actor_every": 2, "max_grad_norm": 0.5}
    options |= {"entropy_coef": 0.01, "kl_target": 0.15} | more
    whole, parts = (fit(data, micro_batch=part, **options) for part in (None, size))
    for ours, theirs in zip(parameters(parts), parameters(whole), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    expected, found = whole.trainer.logged_metrics, parts.trainer.logged_metrics
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, equal_nan=True, msg=name)
    assert (whole.objective_memory is None) == (parts.objective_memory is None) == (options["objective"] == GIPO())
    if whole.objective_memory is not None:
        assert whole.objective_memory[2] > 0  # ages were seen
        torch.testing.assert_close(parts.objective_memory, whole.objective_memory, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"micro_batch": 0}, r"model\.micro_batch must be at least 1, got 0"),
        ({"objective": M2PO()}, "M2PO weighs a batch as a whole"),
        ({"objective": AdaptiveGIPO()}, "AdaptiveGIPO weighs a batch as a whole"),
    ],
)
def test_what_weighs_a_batch_as_a_whole_has_no_parts(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        GIPOModule(**{"micro_batch": 4} | options)


class Listening(Callback):
    """Counts what it is told of updates."""

    def __init__(self) -> None:
        self.told = {"backward": 0, "step": 0, "batch": 0}

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.told["backward"] += 1

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.told["step"] += 1

    def on_train_batch_end(self, *_: Any) -> None:
        self.told["batch"] += 1


class Elsewhere(Callback):
    """Listens to nothing that happens in an update, and sees whether it is among the callbacks where it does."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.batches += self in trainer.callbacks


def test_updates_are_told_to_callbacks_that_listen_and_to_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    listening, elsewhere, present = Listening(), Elsewhere(), []
    update = GIPOModule.update

    def watched(self: Any, parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        present.append([one for one in self.trainer.callbacks if one in (listening, elsewhere)])
        return update(self, parts)

    monkeypatch.setattr(GIPOModule, "update", watched)
    fit(batches(2, rounds=3), callbacks=[listening, elsewhere])
    assert listening.told == {"backward": 6, "step": 12, "batch": 2}  # one pass, and a step of each head
    assert present == [[listening]] * 6
    assert elsewhere.batches == 2


class Heard(Callback):
    """Counts the errors that end a run."""

    errors = 0

    def on_exception(self, *_: Any) -> None:
        self.errors += 1


def test_an_error_in_an_update_is_told_to_all_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Any, parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        raise RuntimeError("in an update")

    monkeypatch.setattr(GIPOModule, "update", failing)
    heard = Heard()
    with pytest.raises(RuntimeError, match="in an update"):
        fit(batches(1), callbacks=[heard])
    assert heard.errors == 1


def test_products_in_bfloat16_learn_what_float32_does() -> None:
    data, start = batches(8), [parameter.detach() for parameter in shared(SPACES).parameters()]
    single, lowered = (parameters(fit(data, precision=precision)) for precision in ("32-true", "bf16-mixed"))
    assert all(parameter.dtype == torch.float32 for parameter in lowered)
    for begun, one, other in zip(start, single, lowered, strict=True):
        assert (one - other).norm() < 0.1 * (one - begun).norm()
    assert not all(map(torch.equal, single, lowered))


@pytest.mark.parametrize(("reuse", "actor_every", "runs"), [(1, 1, 1), (6, 3, 2), (10, 10, 1), (5, 2, 3)])
def test_value_only_updates_never_run_the_actor(reuse: int, actor_every: int, runs: int) -> None:
    calls = {"actor": 0, "encoder": 0}

    def counting(spaces: Spaces) -> Policy:
        policy = shared(spaces)
        for name in calls:
            getattr(policy.network, name).register_forward_hook(
                lambda *_, name=name: calls.update({name: calls[name] + 1})
            )
        return policy

    data = batches(2, rounds=3)
    fit(data, policy=counting, reuse=reuse, actor_every=actor_every)
    assert calls["actor"] == runs * 6
    # Once for every policy update, and once for the value-only updates after it, which share it.
    assert calls["encoder"] <= 2 * runs * 6


@pytest.mark.parametrize("head", ["advantage", "value_target"])
def test_a_non_finite_gradient_changes_nothing_and_is_counted(head: str) -> None:
    good, bad = batches(1, rounds=1)[0], batches(1, rounds=1, seed=2)[0]
    if head == "advantage":
        bad["advantage"] = bad["advantage"] * 1e38  # finite, and its loss is not
        options = {"normalise_advantages": False}
    else:
        bad["value_target"] = bad["value_target"] * 1e30
        options = {}
    alone, both = fit([good], **options), fit([good, bad], **options)
    assert (int(alone.skipped), int(both.skipped)) == (0, 1)
    chosen = Policy.actor_parameters if head == "advantage" else Policy.critic_parameters
    assert all(map(torch.equal, chosen(alone.policy), chosen(both.policy)))
    index = 0 if head == "advantage" else 1
    states = [module.optimizers()[index].optimizer.state_dict()["state"] for module in (alone, both)]
    for parameter in states[0]:
        assert all(torch.equal(states[0][parameter][key], states[1][parameter][key]) for key in states[0][parameter])
    assert all(torch.isfinite(parameter).all() for parameter in both.policy.parameters())


def test_the_mean_norm_is_of_updates_whose_gradient_was_finite() -> None:
    good, bad = batches(1, rounds=1)[0], batches(1, rounds=1, seed=2)[0]
    bad["value_target"] = bad["value_target"] * 1e30
    both = fit([torch.cat([good, bad])]).trainer.logged_metrics
    assert both["grad_norm/value"] == pytest.approx(fit([good]).trainer.logged_metrics["grad_norm/value"])


@pytest.mark.parametrize("size", [None, 5])
def test_what_has_no_age_is_left_out_where_ages_are_read(size: int | None) -> None:
    data = batches(2)
    unknown = torch.arange(BATCH) % 3 == 0
    for batch in data:
        batch["policy_version"] += BATCH - torch.arange(BATCH) % 4
    without, nobody = copy.deepcopy(data), copy.deepcopy(data)
    for batch in without:
        batch["valid"] &= ~unknown
    for batch in nobody:
        batch["policy_version"][:, unknown] = -1
    for objective, same in ((AgeAwareGIPO(outward_only=True), True), (GIPO(), False)):
        options = {"policy": later, "objective": objective, "micro_batch": size}
        ours, theirs = (parameters(fit(each, **options)) for each in (nobody, without))
        assert all(map(torch.equal, ours, theirs)) is same


@pytest.mark.parametrize("head", ["advantage", "value_target"])
def test_ten_in_a_row_end_the_run_even_when_the_other_head_is_fine(head: str) -> None:
    data = batches(1, rounds=MAX_SKIPS_IN_A_ROW)[0]
    data[head] = data[head] * 1e38
    with pytest.raises(UserError, match=r"10 updates of the (policy|critic) in a row had a non-finite gradient"):
        fit([data], normalise_advantages=False)


def test_an_objective_of_somebodys_own_is_named_where_its_gradient_may_be_the_reason() -> None:
    class Rooted(Objective):
        """A loss whose gradient is 0·∞ at every x."""

        def __call__(self, log_ratio: Tensor, advantage: Tensor) -> Terms:
            one = torch.ones_like(log_ratio)
            return Terms((log_ratio * 0).sqrt() * advantage, one, one)

    with pytest.raises(UserError, match=r"extreme rewards, or at the gradient of \S+Rooted: with fresh data every"):
        fit(batches(1, rounds=MAX_SKIPS_IN_A_ROW), objective=Rooted())


def test_nine_in_a_row_do_not() -> None:
    good, bad = batches(1, rounds=1)[0], batches(1, rounds=MAX_SKIPS_IN_A_ROW - 1)[0]
    bad["value_target"] = bad["value_target"] * 1e30
    module = fit([bad, good, bad])
    assert int(module.skipped) == 2 * (MAX_SKIPS_IN_A_ROW - 1)


def test_frames_the_policy_did_not_choose_move_the_critic_alone() -> None:
    data = batches(1)
    data[0]["valid"][:] = False
    module, fresh = fit(data), shared(SPACES)
    assert all(map(torch.equal, module.policy.actor_parameters(), fresh.actor_parameters()))
    assert not all(map(torch.equal, module.policy.critic_parameters(), fresh.critic_parameters()))


@pytest.mark.parametrize(("warmup", "moved"), [(3, 0), (2, 1), (0, 3)])
def test_while_the_critic_warms_up_the_actor_and_its_version_stay(warmup: int, moved: int) -> None:
    data = batches(3)
    module, fresh = fit(data, critic_warmup=warmup, reuse=2), shared(SPACES)
    assert all(map(torch.equal, module.policy.actor_parameters(), fresh.actor_parameters())) == (moved == 0)
    assert not any(map(torch.equal, module.policy.critic_parameters(), fresh.critic_parameters()))
    assert int(module.policy.version) == moved
    assert "loss/value" in module.trainer.callback_metrics
    assert ("loss/policy" in module.trainer.callback_metrics) == (moved > 0)


def test_a_warmed_up_critic_is_one_that_learned_alone() -> None:
    data = batches(2)
    module, naively = fit(data, critic_warmup=2, value_lr=2e-3), shared(SPACES)
    critic = torch.optim.AdamW(naively.critic_parameters(), lr=2e-3, weight_decay=0.0)
    for batch in (batch for iteration in data for batch in iteration.unbind(0)):
        loss = 0.5 * F.mse_loss(naively.value(batch["observation"]), batch["value_target"])
        step(critic, naively.critic_parameters(), torch.autograd.grad(loss, naively.critic_parameters()), 1.0)
    for ours, theirs in zip(module.policy.critic_parameters(), naively.critic_parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_each_head_is_clipped_alone(scale: float) -> None:
    data = batches(1, rounds=1)
    data[0]["value_target"] *= scale
    options = {"policy_lr": 1.0, "value_lr": 1.0, "max_grad_norm": 0.01}
    module = fit(data, optimizer=lambda parameters: torch.optim.SGD(parameters), **options)
    start = shared(SPACES)
    moved = []
    for chosen in (Policy.actor_parameters, Policy.critic_parameters):
        pairs = zip(chosen(module.policy), chosen(start), strict=True)
        moved.append(torch.cat([(after - before).flatten() for after, before in pairs]).norm())
    assert float(moved[0]) == pytest.approx(0.01, rel=1e-3)
    assert float(moved[1]) <= 0.01 * 1.001


def rates(iterations: int, **options: Any) -> list[float]:
    """The policy's learning rate during each iteration, over its peak."""
    module = GIPOModule(policy=shared, **options)
    module.trainer = Trainer(accelerator="cpu", max_epochs=iterations, logger=False, enable_checkpointing=False)
    return [module._rate_factor(iteration) for iteration in range(iterations)]


def test_warm_up_learns_from_the_first_iteration_and_cosine_ends_at_its_floor() -> None:
    found = rates(100, lr_warmup=10, lr_final=0.1)
    assert found[:11] == pytest.approx([*[(k + 1) / 10 for k in range(10)], 1.0])
    assert all(a >= b for a, b in itertools.pairwise(found[10:]))
    assert found[-1] == pytest.approx(0.1, abs=1e-3)
    assert min(found) > 0


@pytest.mark.parametrize("warmup", [0, 1, 5, 100])
@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_no_iteration_but_the_very_end_of_a_full_decay_is_wasted(warmup: int, iterations: int) -> None:
    assert rates(iterations, lr_warmup=warmup, lr_final=1.0)[-1] > 0
    assert all(rate > 0 for rate in rates(iterations, lr_warmup=warmup, lr_final=0.0))


def test_the_optimizer_really_uses_the_schedule() -> None:
    module = fit(batches(2), lr_warmup=4, policy_lr=4e-3, value_lr=8e-3)
    now = [optimizer.param_groups[0]["lr"] for optimizer in module.optimizers()]
    assert now == pytest.approx([4e-3 * 3 / 4, 8e-3 * 3 / 4])


def test_the_exact_anchor_needs_stored_parameters() -> None:
    with pytest.raises(UserError, match=r"kl_exact.*store_params"):
        fit(batches(1), kl_exact=True)


def test_entropy_objectives_need_stored_parameters_and_tokens() -> None:
    with pytest.raises(UserError, match=r"objective=ESPO.*store_params"):
        fit(batches(1), objective=ESPO())
    data = batches(1)
    data[0]["behaviour_params"] = torch.zeros(2, BATCH, D, 2)
    with pytest.raises(UserError, match="GaussianPolicy has no maximum"):
        fit(data, objective=ESPO(), policy=lambda spaces: GaussianPolicy(spaces, normalise=False))
    module = GIPOModule(objective=ESPO())
    module.policy = GaussianPolicy(SPACES)
    with pytest.raises(UserError, match="GaussianPolicy has no maximum"):
        module.check_behaviour(stored=True)  # before there are any data


@pytest.mark.parametrize("name", ["kl", "skipped", "kl_coef"])
def test_a_figure_of_an_objective_takes_the_place_of_no_metric(name: str) -> None:
    @dataclass(frozen=True)
    class Named(GIPO):
        def on_batch(self, elements: Elements) -> tuple[Terms, Figures]:
            return super().on_batch(elements)[0], {name: torch.tensor(7.0)}

    with pytest.raises(UserError, match=f"a figure '{name}', and so is a metric called"):
        fit(batches(1, rounds=1), objective=Named(), kl_target=0.02)


def test_entropy_objectives_see_the_entropy_of_the_policy_that_acted() -> None:
    seen = []

    @dataclass(frozen=True)
    class Recording(ESPO):
        def on_batch(self, elements: Elements) -> tuple[Terms, Figures]:
            seen.append((elements.used, elements.entropy))
            return super().on_batch(elements)

    data = batches(1, rounds=1)
    # uniform, and one of six tokens certain
    certain = torch.tensor([100.0] + [0.0] * (BINS - 1))
    data[0]["behaviour_params"] = torch.stack((torch.zeros(BINS), certain)).half().expand(1, BATCH, D, BINS)
    fit(data, objective=Recording(), reuse=3)
    assert len(seen) == 3
    for used, entropy in seen:
        assert torch.allclose(entropy, torch.tensor([1.0, 0.0]).expand(BATCH, D), atol=1e-6)
        assert torch.equal(used, data[0]["valid"][0].unsqueeze(-1).expand(BATCH, D))


@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_the_exact_anchor_pulls_towards_the_behaviour_policy(family: Callable[..., Policy]) -> None:
    def policy(spaces: Spaces) -> Policy:
        torch.manual_seed(3)
        return family(spaces, normalise=False)

    behaviour = policy(SPACES)
    with torch.no_grad():
        behaviour.network.actor[-1].weight.normal_(0, 0.3)
    data = batches(1, rounds=8)[0]
    data["advantage"] = torch.zeros(8, BATCH)
    params = behaviour.params(data["observation"]).detach()
    data["behaviour_params"] = params.half()
    data["latent"] = behaviour.mode(params)
    data["log_prob"] = behaviour.log_prob(params, data["latent"]).detach()
    start = policy(SPACES)
    module = fit([data], iterations=20, policy=policy, kl_exact=True, kl_coef=1.0, policy_lr=3e-3)
    before, after = (float(p.kl(params, p.params(data["observation"])).mean()) for p in (start, module.policy))
    assert after < 0.5 * before


def test_version_and_ages_count_iterations() -> None:
    module = fit(batches(3))
    assert int(module.policy.version) == 3
    assert float(module.trainer.callback_metrics["staleness/age_max"]) == 2


def test_the_width_chosen_is_logged_as_the_mean_of_the_iteration() -> None:
    data = batches(1, rounds=3)
    module = fit(data, objective=AdaptiveGIPO(0.7), policy_lr=1e-12, kl_coef=0.0)
    widths = []
    for batch in data[0].unbind(0):
        x = module.policy.log_prob(module.policy.params(batch["observation"]), batch["latent"]) - batch["log_prob"]
        surrogate = policy_loss(AdaptiveGIPO(0.7), x.detach(), torch.ones(BATCH), batch["valid"])
        widths.append(float(surrogate.figures["weight/sigma"]))
    assert len(set(widths)) == 3
    assert float(module.trainer.callback_metrics["weight/sigma"]) == pytest.approx(sum(widths) / 3, rel=1e-3)


def test_a_policy_of_another_description_is_refused() -> None:
    module = fit(batches(1))
    checkpoint: dict[str, Any] = {}
    note(checkpoint, format=CHECKPOINT_FORMAT, policy=copy.deepcopy(module.policy.description()))
    module.on_load_checkpoint(checkpoint)
    checkpoint["gipo"]["policy"]["init_args"]["bins"] = 99
    with pytest.raises(UserError, match="bins"):
        module.on_load_checkpoint(checkpoint)


def test_what_an_objective_remembers_is_saved_and_begins_anew_with_another() -> None:
    data = batches(3)
    for age, batch in enumerate(data):
        batch["policy_version"] += BATCH - torch.arange(BATCH) % (age + 2)
    module = fit(data, policy=later, objective=AgeAwareGIPO())
    kept = module.state_dict()["objective_memory"]
    assert kept[0] > 0
    assert module.trainer.callback_metrics["weight/sigma_age"] > 0
    assert "objective_memory" not in fit(batches(1), objective=GIPO()).state_dict()

    def loaded(objective: Objective, memory: Tensor | None) -> Tensor | None:
        one, checkpoint = fit(batches(1), objective=objective), {"state_dict": {}}
        note(checkpoint, format=CHECKPOINT_FORMAT, policy=copy.deepcopy(one.policy.description()))
        if memory is not None:
            checkpoint["state_dict"]["objective_memory"] = memory
        one.on_load_checkpoint(checkpoint)
        return checkpoint["state_dict"].get("objective_memory")

    assert loaded(AgeAwareGIPO(), kept) is kept
    for other in (None, torch.zeros(99)):
        fresh = loaded(AgeAwareGIPO(), other)
        assert fresh is not None
        assert fresh.shape == kept.shape
    assert loaded(GIPO(), kept) is None


def test_a_batch_of_one_cannot_be_normalised() -> None:
    with pytest.raises(UserError, match=r"data\.batch"):
        fit([batches(1)[0][:, :1]])


def parameters(module: GIPOModule) -> list[Tensor]:
    return [parameter.detach() for parameter in module.policy.parameters()]


# What the losses are given --------------------------------------------------------------------------------------------


class KeepsBatches(Callback):
    """Keeps what callbacks are shown of an iteration."""

    def __init__(self) -> None:
        self.batches: list[TensorDict] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: TensorDict, *_: Any) -> None:
        self.batches.append(batch)


def test_observations_are_standardised_once_and_the_batch_stays_as_it_is() -> None:
    moments = 5 + 3 * torch.randn(200, SIZE, generator=torch.Generator().manual_seed(3))

    def normalising(spaces: Spaces) -> Policy:
        torch.manual_seed(0)
        policy = TokenPolicy(spaces, BINS, lambda i, o: SharedEncoder(i, o, 12, 8))
        assert policy.normaliser is not None
        policy.normaliser.update(moments)
        return policy

    data = batches(2)
    given, standard = copy.deepcopy(data), copy.deepcopy(data)
    for batch in standard:
        batch["observation"] = normalising(SPACES).standardised(batch["observation"])
    keeping = KeepsBatches()
    ours = fit(data, policy=normalising, reuse=2, actor_every=2, callbacks=[keeping])
    theirs = fit(standard, reuse=2, actor_every=2)
    assert all(map(torch.equal, parameters(ours), parameters(theirs)))
    assert all((one == other).all() for one, other in zip(keeping.batches, given, strict=True))


def samples_of(advantage: Any, valid: Any, versions: Any, **options: Any) -> Any:
    """The samples of one batch for a policy of version 16."""
    module = GIPOModule(**options)
    module.policy = later(SPACES)
    given = {"advantage": torch.tensor([advantage]), "valid": torch.tensor([valid]),
             "policy_version": torch.tensor([versions])}  # fmt: skip
    (found,) = module._samples(TensorDict(given, batch_size=given["policy_version"].shape))
    return found


def test_advantages_are_standardised_over_what_is_valid_and_known() -> None:
    found = samples_of([1.0, 3.0, math.nan, 102.0], [True, True, True, False], [16, 14, 15, -1], objective=GIPO())
    expected = torch.tensor([-1.0, 1.0, math.nan, 100.0]) / math.sqrt(2)
    torch.testing.assert_close(found.advantage, expected, equal_nan=True)
    torch.testing.assert_close(found.age, torch.tensor([0.0, 2.0, 1.0, math.nan]), equal_nan=True)
    same = samples_of([5.0] * 3, [True] * 3, [0, 16, -1], objective=AgeAwareGIPO())
    assert same.advantage.tolist() == [0] * 3, "which all are as good as"
    assert same.valid.tolist() == [True, True, False], "of an age that is unknown"
    raw = samples_of([5.0, 7.0], [True] * 2, [0, 0], normalise_advantages=False)
    assert raw.advantage.tolist() == [5.0, 7.0]


def test_every_step_of_a_chunk_has_the_age_of_its_decision() -> None:
    found = samples_of([[1.0, 2.0], [3.0, 4.0]], [[True, False], [True, True]], [16, 13], normalise_advantages=False)
    assert found.advantage.tolist() == [1, 2, 3, 4]
    assert found.valid.tolist() == [True, False, True, True]
    assert found.age.tolist() == [0, 0, 3, 3]


def test_what_persons_did_is_cloned_with_its_weight_and_logged_as_their_mean() -> None:
    data = batches(1, rounds=1)
    one = data[0][0]
    one["advantage"][:], one["valid"][:] = 0, (torch.arange(BATCH) >= 5) & (torch.arange(BATCH) < 13)
    data[0]["source"] = (torch.arange(BATCH) < 5).long().unsqueeze(0)
    module = fit(
        data, human_coef=0.5, objective=GIPO(), kl_coef=0.0, normalise_advantages=False, policy_lr=0.1,
        max_grad_norm=1e9, optimizer=lambda parameters: torch.optim.SGD(parameters),
    )  # fmt: skip
    hand = shared(SPACES)
    theirs = -hand.log_prob(hand.params(one["observation"]), one["latent"])[:5]
    # of 5 persons' steps and 8 of the policy's, which pull nowhere
    (0.5 * theirs.sum() / (13 * D)).backward()
    for ours, still in zip(module.policy.actor_parameters(), hand.actor_parameters(), strict=True):
        assert still.grad is not None
        torch.testing.assert_close(ours, still - 0.1 * still.grad, atol=1e-7, rtol=1e-5)
    assert float(module.trainer.callback_metrics["loss/imitation"]) == pytest.approx(float(theirs.detach().mean()))


def test_a_scale_of_values_learns_from_targets_that_are_known_or_were_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Tensor] = []
    monkeypatch.setattr(ValueScale, "learn", lambda self, critic, target, used: told.append(used))
    one, chunk = batches(2, rounds=1)
    one["value_target"][0, 0] = math.nan
    chunk["executed"] = torch.arange(BATCH).unsqueeze(0) > 3
    fit([one, chunk])
    assert [(~used).nonzero().tolist() for used in told] == [[[0, 0]], [[0, n] for n in range(4)]]


def test_an_exact_anchor_is_of_the_whole_distributions() -> None:
    one = batches(1, rounds=1)[0]
    acted = torch.randn(1, BATCH, D, BINS, generator=torch.Generator().manual_seed(4))
    found = fit([one.set("behaviour_params", acted)], kl_exact=True).trainer.callback_metrics["kl"]
    policy, valid = shared(SPACES), one["valid"][0]
    pi, mu = policy.params(one["observation"][0]).detach().log_softmax(-1), acted[0].log_softmax(-1)
    # KL(μ‖π) = Σ μ·(log μ − log π) of what the policy chose
    assert float(found) == pytest.approx(float((mu.exp() * (mu - pi)).sum(-1)[valid].mean()), rel=1e-5)


def test_an_update_of_the_critic_is_weighed_and_explains_what_its_values_did() -> None:
    data, moved = batches(1, rounds=1), []
    for weighed in ({"value_coef": 0.25}, {}):  # half of what it is by default
        module = fit(data, value_lr=0.1, max_grad_norm=1e9, optimizer=lambda each: torch.optim.SGD(each), **weighed)
        pairs = zip(module.policy.critic_parameters(), shared(SPACES).critic_parameters(), strict=True)
        moved.append(torch.cat([(after - before).detach().flatten() for after, before in pairs]))
    torch.testing.assert_close(2 * moved[0], moved[1], atol=1e-7, rtol=1e-4)
    value, target = shared(SPACES).value(data[0]["observation"][0]).detach(), data[0]["value_target"][0]
    left = (target - value).var() / target.var()
    assert float(module.trainer.callback_metrics["explained_variance"]) == pytest.approx(1 - float(left), abs=1e-5)


POSITIVE = ("reuse", "actor_every", "policy_lr", "value_lr", "max_grad_norm")
NOT_NEGATIVE = ("kl_coef", "entropy_coef", "value_coef", "human_coef", "critic_warmup", "lr_warmup", "lr_final")


@pytest.mark.parametrize("name", [*POSITIVE, *NOT_NEGATIVE])
def test_options_that_make_no_sense_are_refused_by_their_names(name: str) -> None:
    must = "be positive and finite" if name in POSITIVE else "not be negative"
    for value in (-1, math.nan, math.inf, *[0] * (name in POSITIVE)):
        with pytest.raises(UserError, match=rf"^model\.{name} must {must}, got {value}$"):
            GIPOModule(**{name: value})
    GIPOModule(**{name: int(name in POSITIVE)})


def test_an_objective_of_probabilities_needs_a_policy_that_gives_them() -> None:
    with pytest.raises(UserError, match=r"^model\.objective=AgeAwareGIPO needs the probability of a token"):
        fit(batches(1), objective=AgeAwareGIPO(probability_floor=0.1), policy=GaussianPolicy)


COMPILED = {
    "every update": {},
    "value-only reuse": {"reuse": 4, "actor_every": 2},
    "critic first": {"critic_warmup": 1},
    "entropy bonus": {"entropy_coef": 0.01},
    "anchor that moves, PopArt": {"kl_target": 0.001, "value_scale": PopArt},
    "an objective that remembers": {"objective": AgeAwareGIPO(probability_floor=0.1, joint=True)},
    "an objective of whole batches": {"objective": M2PO()},
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled_computes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses are traced, and run as traced: equal to the bit, so that compilers may differ by rounding alone."""
    traced: list[str] = []

    def traced_only(function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
        assert mode is None

        def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
            traced.append(function.__name__)
            return graph.forward

        return torch._dynamo.optimize(backend, nopython=True)(function)

    data, options = batches(3), COMPILED[name]
    plain = fit(data, **options)
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", traced_only)
    compiled = fit(data, compile=True, **options)
    assert {"policy_terms", "value_terms"} <= set(traced)
    assert all(map(torch.equal, parameters(plain), parameters(compiled)))
    metrics = [module.trainer.callback_metrics for module in (plain, compiled)]
    assert metrics[0].keys() == metrics[1].keys()
    assert {key for key in metrics[0] if not torch.equal(metrics[0][key], metrics[1][key])} == set()


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["tokens", "Gaussian"])
def test_a_compiled_update_is_the_plain_one(kind: str) -> None:
    def gaussian(spaces: Spaces) -> Policy:
        torch.manual_seed(0)
        return GaussianPolicy(spaces)

    data = batches(3)
    if kind == "Gaussian":
        for batch in data:
            batch["latent"] = torch.randn(batch["latent"].shape, generator=torch.Generator().manual_seed(2))
    policy = shared if kind == "tokens" else gaussian
    plain, compiled = (fit(data, policy=policy, compile=compile) for compile in (False, True))
    assert any(not torch.equal(a, b) for a, b in zip(parameters(plain), parameters(compiled), strict=True))
    for one, other in zip(parameters(plain), parameters(compiled), strict=True):
        assert torch.allclose(one, other, atol=1e-6, rtol=0)


def test_cuda_graphs_are_refused_where_there_are_none() -> None:
    with pytest.raises(UserError, match=r"cuda_graphs=true needs a CUDA device and the learner is on cpu"):
        fit(batches(1), compile=True, cuda_graphs=True)
    with pytest.raises(UserError, match=r"needs model\.compile=true"):
        GIPOModule(cuda_graphs=True)


def test_what_is_kept_of_cuda_graphs_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph writes its next results over its last ones; so the figures must not lie in its memory."""
    data = batches(1, rounds=3)
    expected = fit(data).trainer.callback_metrics
    monkeypatch.setattr(GIPOModule, "on_fit_start", lambda self: setattr(self, "cuda_graphs", True))
    update = GIPOModule.update

    def overwriting(self: GIPOModule, parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
        norms = update(self, parts)
        for tensor in [*outputs[0], *outputs[1]]:
            tensor.detach().zero_()
        return norms

    outputs: dict[int, list[Tensor]] = {}
    policy_terms, value_terms = Losses.policy_terms, Losses.value_terms

    def policy(self: Losses, *args: Any) -> Any:
        found = policy_terms(self, *args)
        outputs[0] = [found.loss, found.kl, found.log_ratio, *found.surrogate[:3]]
        return found

    def value(self: Losses, *args: Any) -> Any:
        found = value_terms(self, *args)
        for tensor in outputs.get(2, []):  # of the last update
            tensor.detach().zero_()
        outputs[1], outputs[2] = [found[1]], [found[0]]
        return found

    monkeypatch.setattr(GIPOModule, "update", overwriting)
    monkeypatch.setattr(Losses, "policy_terms", policy)
    monkeypatch.setattr(Losses, "value_terms", value)
    found = fit(data).trainer.callback_metrics
    assert {key for key in expected if not torch.equal(expected[key], found[key])} == set()
