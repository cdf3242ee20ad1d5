"""GIPOLoss beside TorchRL's own losses: equal where the formulas coincide, refusing what would broadcast silently."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import (
    CompositeDistribution,
    InteractionType,
    NormalParamExtractor,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    set_composite_lp_aggregate,
)
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss, PPOLoss, ValueEstimators

from gipo.adaptive import AdaptiveGIPO, AgeAwareGIPO
from gipo.baselines import ASPO, DPPO, ESPO, GSPO, M2PO, VESPO, DecoupledPPO
from gipo.common.errors import UserError
from gipo.loss import GIPOLoss
from gipo.objectives import GIPO, SAPO, NoClip, Objective, PPOClip, masked_mean, policy_loss

OBSERVATION, D, BATCH = 5, 3, 64


def summed(loc: Tensor, scale: Tensor) -> Independent:
    return Independent(Normal(loc, scale), 1)


def actor(distribution: Any = Normal) -> ProbabilisticActor:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(OBSERVATION, 2 * D), NormalParamExtractor())
    return ProbabilisticActor(
        TensorDictModule(body, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=distribution,
        return_log_prob=True,
        default_interaction_type=InteractionType.RANDOM,
    )


def critic() -> ValueOperator:
    torch.manual_seed(1)
    return ValueOperator(nn.Linear(OBSERVATION, 1), in_keys=["observation"])


def batch(of: ProbabilisticActor, spread: float = 0.3, seed: int = 2, size: int = BATCH) -> TensorDict:
    """Transitions of a policy `spread` nats away from `of`."""
    torch.manual_seed(seed)
    data = TensorDict({"observation": torch.randn(size, OBSERVATION)}, batch_size=[size])
    with torch.no_grad():
        of(data)
    data["action_log_prob"] = data["action_log_prob"] + spread * torch.randn_like(data["action_log_prob"])
    done = torch.rand(size, 1) < 0.1
    following = {"observation": torch.randn(size, OBSERVATION), "reward": torch.randn(size, 1), "done": done}
    data["next"] = TensorDict(following | {"terminated": done}, batch_size=[size])
    data["advantage"], data["value_target"] = torch.randn(size, 1), torch.randn(size, 1)
    return data


def by_name(objective: Objective) -> str:
    return type(objective).__name__


def remembered(loss: GIPOLoss) -> Tensor | None:
    """The moments of what an objective remembers, of the elements used."""
    memory = loss.objective_memory
    return memory if memory is None or not isinstance(loss.objective, AgeAwareGIPO) else memory / memory[0]


def gradients(loss: PPOLoss, data: TensorDict) -> dict[str, Tensor]:
    loss.zero_grad()
    out = loss(data)
    sum(value.sum() for name, value in out.items() if name.startswith("loss_")).backward()
    return {name: parameter.grad.clone() for name, parameter in loss.named_parameters() if parameter.grad is not None}


SHARED = ("loss_objective", "loss_entropy", "loss_critic", "entropy", "kl_approx", "explained_variance")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "normalised": {"normalize_advantage": True},
    "no entropy bonus": {"entropy_bonus": False},
    "no critic loss": {"critic_coeff": 0.0},
    "value clip, l2": {"clip_value": 0.2, "loss_critic_type": "l2"},
    "separate": {"separate_losses": True, "entropy_coeff": 0.3, "critic_coeff": 0.7},
    "capped ratio": {"max_importance_ratio": 1.3},
    "not functional": {"functional": False},
}


@pytest.mark.parametrize("distribution", [Normal, summed, TanhNormal], ids=["per-dimension", "summed", "tanh"])
@pytest.mark.parametrize("name", OPTIONS)
def test_with_ppo_clip_it_is_torchrls_clip_ppo(name: str, distribution: Any) -> None:
    options, data = OPTIONS[name], batch(actor(distribution))
    data["state_value"] = torch.randn(BATCH, 1)
    ours = GIPOLoss(actor(distribution), critic(), objective=PPOClip(clip=0.2), **options)
    theirs = ClipPPOLoss(actor(distribution), critic(), clip_epsilon=0.2, **options)
    torch.manual_seed(3)  # the entropy of a squashed Gaussian is sampled
    a = ours(data)
    torch.manual_seed(3)
    b = theirs(data)
    assert {key for key in SHARED if key in a.keys()} == {key for key in SHARED if key in b.keys()}
    for key in a.keys() & b.keys() - {"clip_fraction", "ESS"}:
        torch.testing.assert_close(a[key].squeeze(), b[key].squeeze(), msg=key)
    assert a["loss_objective"].shape == b["loss_objective"].shape
    torch.manual_seed(3)
    found = gradients(ours, data)
    torch.manual_seed(3)
    expected = gradients(theirs, data)
    assert found.keys() == expected.keys()
    assert any(name.startswith("actor") and value.any() for name, value in found.items())
    for name in found:
        torch.testing.assert_close(found[name], expected[name], msg=name)


def test_a_delayed_actor_is_the_same_decoupled_surrogate() -> None:
    data = batch(actor(), spread=0.2)
    ours, theirs = (
        kind(actor(), critic(), delay_actor=True, **options)
        for kind, options in ((GIPOLoss, {"objective": PPOClip()}), (ClipPPOLoss, {}))
    )
    for loss in (ours, theirs):
        loss.target_actor_network_params.data.add_(0.05)
    torch.testing.assert_close(ours(data)["loss_objective"], theirs(data)["loss_objective"])
    found, expected = gradients(ours, data), gradients(theirs, data)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_what_is_left_of_the_ratio_multiplies_the_loss_and_not_the_advantage() -> None:
    """An objective that damps large advantages less is not linear in A."""
    objective = AgeAwareGIPO(advantage_gain=1.0, sigma_age=0.0)
    data = batch(actor(), spread=0.5)
    data["age"] = torch.zeros(BATCH)
    options = {"entropy_bonus": False, "critic_coeff": 0.0, "reduction": "none"}
    capped, whole = (
        GIPOLoss(actor(), critic(), objective=objective, max_importance_ratio=most, **options)(data)["loss_objective"]
        for most in (1.3, None)
    )
    x = actor().get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    left = (math.log(1.3) - x).clamp(max=0)
    assert (left < 0).any()
    torch.testing.assert_close(capped, whole * left.exp().unsqueeze(-1).view_as(whole))


ALIKE_ON_POLICY = {
    "GIPO": GIPO(),
    "narrow": GIPO(sigma=0.2),
    "SAPO": SAPO(),
    "NoClip": NoClip(),
    "ASPO": ASPO(),
    "PPO": PPOClip(),
}


@pytest.mark.parametrize("objective", ALIKE_ON_POLICY.values(), ids=ALIKE_ON_POLICY)
def test_on_policy_every_objective_has_the_gradient_of_clip_ppo(objective: Objective) -> None:
    data = batch(actor(), spread=0.0)
    options = {"entropy_bonus": False, "critic_coeff": 0.0}
    found = gradients(GIPOLoss(actor(), critic(), objective=objective, **options), data)
    expected = gradients(ClipPPOLoss(actor(), critic(), **options), data)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    if not isinstance(objective, SAPO):  # whose loss is −(2/τ)·A there
        ours, theirs = (kind(actor(), critic())(data)["loss_objective"] for kind in (GIPOLoss, ClipPPOLoss))
        torch.testing.assert_close(ours, theirs)


def test_it_is_the_pure_function_on_per_dimension_ratios() -> None:
    data = batch(actor())
    out = GIPOLoss(actor(), critic(), objective=GIPO(sigma=0.5))(data)
    x = actor().get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    assert x.shape == (BATCH, D)
    expected = policy_loss(GIPO(sigma=0.5), x, data["advantage"].squeeze(-1))
    torch.testing.assert_close(out["loss_objective"], expected.loss)
    torch.testing.assert_close(out["weight"], expected.weight.mean())
    u = expected.contribution
    torch.testing.assert_close(out["ESS"], u.sum() ** 2 / (u.numel() * (u**2).sum()))
    torch.testing.assert_close(out["clip_fraction"], (expected.weight < 1e-3).float().mean())
    torch.testing.assert_close(out["max_ratio"], x.exp().max())
    assert out["masked"] == 0


def test_a_summed_log_prob_has_one_ratio_per_action() -> None:
    data = batch(actor(summed))
    out = GIPOLoss(actor(summed), critic())(data)
    x = actor(summed).get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    expected = policy_loss(GIPO(), x.unsqueeze(-1), data["advantage"].squeeze(-1))
    torch.testing.assert_close(out["loss_objective"], expected.loss)


def test_tokens_have_one_ratio_per_dimension() -> None:
    data = batch(tokens())
    out = GIPOLoss(tokens(), critic())(data)
    x = tokens().get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    assert x.shape == (BATCH, D)
    torch.testing.assert_close(out["loss_objective"], policy_loss(GIPO(), x, data["advantage"].squeeze(-1)).loss)


def tokens() -> ProbabilisticActor:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(OBSERVATION, D * 7), nn.Unflatten(-1, (D, 7)))
    logits = TensorDictModule(body, ["observation"], ["logits"])
    return ProbabilisticActor(logits, in_keys=["logits"], distribution_class=Categorical, return_log_prob=True)


@pytest.mark.parametrize("objective", [VESPO(), GSPO(), M2PO(), DecoupledPPO(), DPPO(), AgeAwareGIPO(sigma_age=0.2)])
@pytest.mark.parametrize("as_column", [False, True])
def test_objectives_that_see_more_see_it_here_too(objective: Objective, as_column: bool) -> None:
    of = tokens()
    data, age = batch(of), torch.arange(BATCH) % 9
    data["age"] = age.unsqueeze(-1) if as_column else age
    out = GIPOLoss(of, critic(), objective=objective)(data)
    log_prob = of.get_dist(data).log_prob(data["action"])
    x = log_prob - data["action_log_prob"]
    expected = policy_loss(objective, x, data["advantage"].squeeze(-1), age=age, log_prob=log_prob)
    torch.testing.assert_close(out["loss_objective"], expected.loss)
    torch.testing.assert_close(out["weight"], masked_mean(expected.weight, expected.used))


def test_a_summed_log_prob_is_a_sequence_of_its_own() -> None:
    data = batch(actor(summed))
    out = GIPOLoss(actor(summed), critic(), objective=VESPO())(data)
    x = actor(summed).get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    expected = policy_loss(VESPO(), x.unsqueeze(-1), data["advantage"].squeeze(-1))
    torch.testing.assert_close(out["loss_objective"], expected.loss)


def test_what_an_objective_remembers_is_part_of_the_loss_module() -> None:
    data = batch(actor())
    loss = GIPOLoss(actor(), critic(), objective=AgeAwareGIPO())
    with pytest.raises(UserError, match="AgeAwareGIPO needs the age of the data"):
        loss(data)
    data["age"] = torch.arange(BATCH) % 9
    loss.eval()
    loss(data)
    assert not loss.state_dict()["objective_memory"].any()
    loss.train()
    loss(data)
    assert loss.state_dict()["objective_memory"].all()
    assert "objective_memory" not in GIPOLoss(actor(), critic()).state_dict()


def test_one_age_holds_for_a_whole_trajectory_and_for_all_agents() -> None:
    ages = torch.arange(16) % 9
    data = TensorDict(dict(batch(actor()).reshape(16, 4).items()), batch_size=[16])

    def found(age: Tensor) -> Tensor:
        loss = GIPOLoss(actor(), critic(), objective=AgeAwareGIPO(sigma_age=0.3))
        weight: Tensor = loss(data.clone().set("age", age))["weight"]
        return weight

    wanted = found(ages.unsqueeze(-1).expand(16, 4))
    assert wanted != found(ages.flip(0).unsqueeze(-1).expand(16, 4))
    for age in (ages, ages.unsqueeze(-1), ages.view(16, 1, 1).expand(16, 4, 1)):
        torch.testing.assert_close(found(age), wanted)
    with pytest.raises(UserError, match=r"'age' has shape \(16, 2\) beside advantages of the batch \(16, 4\)"):
        found(ages.unsqueeze(-1).expand(16, 2))


def test_the_age_may_stand_under_another_key() -> None:
    data = batch(actor())
    loss = GIPOLoss(actor(), critic(), objective=AgeAwareGIPO(sigma_age=0.3))
    loss.set_keys(age=("agents", "versions"))
    assert ("agents", "versions") in loss.in_keys
    with pytest.raises(UserError, match=r"put it into the batch, \('agents', 'versions'\) \[\*B\]"):
        loss(data.clone())
    wanted = GIPOLoss(actor(), critic(), objective=AgeAwareGIPO(sigma_age=0.3))
    ages = torch.arange(BATCH) % 9
    there = loss(data.clone().set(("agents", "versions"), ages))
    torch.testing.assert_close(there["weight"], wanted(data.clone().set("age", ages))["weight"])


def test_what_an_objective_remembers_keeps_its_precision() -> None:
    """Squares of ages that are large are not told apart in float32."""
    loss = GIPOLoss(actor(), critic(), objective=AgeAwareGIPO())
    remembered = loss.objective_memory.clone()
    for converted in (loss.float(), loss.to(torch.bfloat16), loss.half()):
        assert converted.objective_memory.dtype == torch.float64
        assert torch.equal(converted.objective_memory, remembered)
    assert loss.to("meta").objective_memory.is_meta


def test_densities_are_no_probabilities() -> None:
    with pytest.raises(UserError, match=r"DPPO needs the probability of a token: .* Categorical, and is Normal"):
        GIPOLoss(actor(), critic(), objective=DPPO())(batch(actor()))


@pytest.mark.parametrize("options", [{"delay_actor": True}, {"max_importance_ratio": 2.0}])
def test_with_a_proximal_policy_no_probability_is_known(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"DPPO needs the probability of a token, which .* delay_actor or max_import"):
        GIPOLoss(actor(), critic(), objective=DPPO(), **options)


def test_a_composite_distribution_has_one_ratio_per_action() -> None:
    data = TensorDict({"action": {"a": torch.randn(BATCH, 2), "b": torch.randn(BATCH)}}, [BATCH])
    data["observation"], data["advantage"] = torch.randn(BATCH, OBSERVATION), torch.randn(BATCH, 1)
    data["value_target"] = torch.randn(BATCH, 1)
    torch.manual_seed(0)
    parameters = TensorDictModule(nn.Linear(OBSERVATION, 3), ["observation"], [("params", "all")])

    class Split(nn.Module):
        def forward(self, loc: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            return loc[..., :2], torch.ones_like(loc[..., :2]), loc[..., 2], torch.ones_like(loc[..., 2])

    split = TensorDictModule(
        Split(),
        [("params", "all")],
        [("params", "a", "loc"), ("params", "a", "scale"), ("params", "b", "loc"), ("params", "b", "scale")],
    )
    with set_composite_lp_aggregate(False):
        composite = ProbabilisticTensorDictSequential(
            parameters,
            split,
            ProbabilisticTensorDictModule(
                in_keys=["params"],
                out_keys=[("action", "a"), ("action", "b")],
                distribution_class=CompositeDistribution,
                distribution_kwargs={
                    "distribution_map": {"a": summed, "b": Normal},
                    "name_map": {"a": ("action", "a"), "b": ("action", "b")},
                },
                return_log_prob=True,
            ),
        )
        with torch.no_grad():
            dist = composite.get_dist(data)
            data.update(dist.log_prob(data))
        data["action", "a_log_prob"] -= 0.1
        data["action", "b_log_prob"] -= 0.2
        out, theirs = GIPOLoss(composite, critic(), objective=NoClip())(data), ClipPPOLoss(composite, critic())(data)
    # x = .1 + .2
    torch.testing.assert_close(out["mean_ratio"], torch.tensor(math.exp(0.3)))
    torch.testing.assert_close(out["loss_objective"], -math.exp(0.3) * data["advantage"].mean())
    torch.testing.assert_close(out["entropy"], theirs["entropy"])
    assert out["composite_entropy"].keys() == theirs["composite_entropy"].keys()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_what_is_not_finite_is_left_out_and_counted(reduction: str) -> None:
    data = batch(actor())
    clean = data[3:].clone()
    data["action_log_prob"][0] = math.nan
    data["action_log_prob"][1] = -math.inf
    data["advantage"][2] = math.inf
    loss = GIPOLoss(actor(), critic(), reduction=reduction)
    out, expected = loss(data), loss(clean)
    assert out["masked"] == 3 * D
    for name in ("weight", "ESS", "kl_approx", "max_ratio", "mean_ratio", "clip_fraction"):
        torch.testing.assert_close(out[name], expected[name])
    objective = out["loss_objective"] if reduction != "none" else out["loss_objective"][3:]
    torch.testing.assert_close(objective, expected["loss_objective"])
    # the critic and the entropy bonus would learn from those observations
    loss = GIPOLoss(actor(), critic(), reduction=reduction, critic_coeff=0.0, entropy_bonus=False)
    found, wanted = gradients(loss, data), gradients(loss, clean)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


@pytest.mark.parametrize("key", [("collector", "mask"), "shifted_valid"])
def test_masks_in_the_batch_are_those_of_torchrl(key: Any) -> None:
    data = batch(actor())
    whole = GIPOLoss(actor(), critic(), objective=PPOClip())(data)
    data[key] = torch.arange(BATCH) % 3 > 0
    ours, theirs = GIPOLoss(actor(), critic(), objective=PPOClip())(data), ClipPPOLoss(actor(), critic())(data)
    for name in ("loss_objective", "loss_critic", "loss_entropy"):
        torch.testing.assert_close(ours[name], theirs[name])
        assert ours[name] != whole[name]


@pytest.mark.parametrize(
    "objective", [GIPO(), AgeAwareGIPO(), M2PO(), AdaptiveGIPO(), VESPO()], ids=lambda one: type(one).__name__
)
@pytest.mark.parametrize("distribution", [Normal, summed], ids=["per-dimension", "summed"])
def test_what_a_mask_leaves_out_is_seen_by_nothing(objective: Objective, distribution: Any) -> None:
    """Padded sequences [8, 8] have the losses, metrics and memory of the half of them that is none."""
    data = batch(actor(distribution)).reshape(8, 8)
    data["age"] = torch.arange(64).reshape(8, 8, 1).float() % 9
    data["collector", "mask"] = (torch.arange(8) < 4).expand(8, 8).unsqueeze(-1)
    padding = data[:, 4:]
    padding["action_log_prob"] = torch.full_like(padding["action_log_prob"], -8.0)
    padding["advantage"], padding["age"] = torch.full((8, 4, 1), 5.0), torch.full((8, 4, 1), math.nan)
    data = torch.cat([data[:, :4], padding], 1)
    found, wanted = (
        GIPOLoss(actor(distribution), critic(), objective=objective, kl_coeff=0.1, normalize_advantage=True)
        for _ in range(2)
    )
    out, expected = found(data), wanted(data[:, :4].exclude("collector"))
    for name in ("loss_objective", "loss_kl", *GIPOLoss.METRICS):
        torch.testing.assert_close(out[name], expected[name])
    torch.testing.assert_close(remembered(found), remembered(wanted))


def test_an_age_that_is_not_finite_is_left_out_and_counted() -> None:
    data = batch(actor())
    data["age"] = torch.arange(BATCH).float() % 9
    data["age"][0], data["age"][1] = math.nan, math.inf
    found, wanted = (GIPOLoss(actor(), critic(), objective=AgeAwareGIPO()) for _ in range(2))
    out, expected = found(data), wanted(data[2:])
    assert out["masked"] == 2 * D
    torch.testing.assert_close(out["loss_objective"], expected["loss_objective"])
    torch.testing.assert_close(remembered(found), remembered(wanted))
    # one that reads no age is not told by it
    assert GIPOLoss(actor(), critic())(data)["masked"] == 0


def test_an_advantage_that_is_not_finite_leaves_the_moments_of_the_others() -> None:
    data = batch(actor())
    clean = data[1:].clone()
    data["advantage"][0] = math.nan
    loss = GIPOLoss(actor(), critic(), normalize_advantage=True)
    out = loss(data)
    assert out["masked"] == D
    torch.testing.assert_close(out["loss_objective"], loss(clean)["loss_objective"])


def test_keys_can_be_renamed() -> None:
    data = batch(actor())
    expected = GIPOLoss(actor(), critic())(data)["loss_objective"]
    loss = GIPOLoss(actor(), critic())
    loss.set_keys(advantage="adv", value_target="goal", sample_log_prob="mu", action="chosen")
    for old, new in (("advantage", "adv"), ("value_target", "goal"), ("action_log_prob", "mu"), ("action", "chosen")):
        data.rename_key_(old, new)
    torch.testing.assert_close(loss(data)["loss_objective"], expected)


@pytest.mark.parametrize("estimator", [ValueEstimators.GAE, ValueEstimators.TD0, ValueEstimators.TDLambda])
def test_advantages_are_computed_where_there_are_none(estimator: ValueEstimators) -> None:
    data = batch(actor()).reshape(4, BATCH // 4).exclude("advantage", "value_target")
    results = []
    for kind, options in ((GIPOLoss, {"objective": PPOClip()}), (ClipPPOLoss, {})):
        loss = kind(actor(), critic(), **options)
        loss.make_value_estimator(estimator)
        results.append(loss(data.clone())["loss_objective"])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("objective", [GIPO(), AgeAwareGIPO()], ids=by_name)
def test_it_works_without_tensordicts(objective: Objective) -> None:
    data = batch(actor()).exclude("advantage", "value_target")
    data["age"] = torch.arange(BATCH) % 9
    loss = GIPOLoss(actor(), critic(), objective=objective, kl_coeff=0.1).eval()
    assert ("age" in loss.in_keys) == ("age" in objective.needs)
    arguments = {"_".join(key) if isinstance(key, tuple) else key: data[key] for key in loss.in_keys}
    out, expected = loss(**arguments), loss(data)
    assert set(loss.out_keys) == set(expected.keys()) - {"explained_variance"}
    for name, value in zip(loss.out_keys, out, strict=True):
        torch.testing.assert_close(value, expected[name])


def test_half_precision_ratios_are_taken_in_float32_and_float64_stays() -> None:
    data = batch(actor())
    assert GIPOLoss(actor().double(), critic().double())(data.double())["loss_objective"].dtype == torch.float64
    loss = GIPOLoss(actor(), critic())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(data.float())["loss_objective"].dtype == torch.float32


def test_log_probs_of_two_kinds_are_refused() -> None:
    data = batch(actor(), size=D)  # where [B] against [B, D] would broadcast
    data["action_log_prob"] = data["action_log_prob"].sum(-1)
    with pytest.raises(UserError, match=r"'action_log_prob' has shape \(3,\), the actor's log-prob \(3, 3\)"):
        GIPOLoss(actor(), critic())(data)


def test_an_advantage_without_its_last_dimension_is_refused() -> None:
    data = batch(actor())
    data["advantage"] = data["advantage"].squeeze(-1)
    with pytest.raises(UserError, match=r"'advantage' has shape \(64,\)"):
        GIPOLoss(actor(), critic())(data)


def test_no_advantage_and_no_critic_is_refused() -> None:
    with pytest.raises(UserError, match="critic_network"):
        GIPOLoss(actor(), critic_coeff=0.0)(batch(actor()).exclude("advantage"))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_anchor_is_its_estimate(reduction: str) -> None:
    data = batch(actor())
    data["action_log_prob"][0] = math.nan
    out = GIPOLoss(actor(), critic(), kl_coeff=0.3, reduction=reduction)(data)
    x = actor().get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    expected = 0.3 * (x.exp() - 1 - x)
    if reduction == "none":
        assert out["loss_kl"].shape == (BATCH, D)
        torch.testing.assert_close(out["loss_kl"][1:], expected[1:], atol=1e-6, rtol=1e-4)
        assert not out["loss_kl"][0].any()
    else:
        torch.testing.assert_close(out["loss_kl"], getattr(expected[1:], reduction)(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_bad_anchor_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="kl_coeff"):
        GIPOLoss(actor(), critic(), kl_coeff=value)


def test_with_a_delayed_actor_the_anchor_is_to_who_acted_all_the_same() -> None:
    """Where the target network was synchronised just now, the ratio to it is 1, and the data are as old as before."""
    data = batch(actor(), spread=0.5)
    for options in ({"delay_actor": True}, {"max_importance_ratio": 1.3}):
        kinds = (GIPOLoss(actor(), critic(), kl_coeff=1.0, entropy_bonus=False, **more) for more in ({}, options))
        wanted, found = (loss(data)["loss_kl"] for loss in kinds)
        torch.testing.assert_close(found, wanted)
        assert found > 0.05
    with pytest.raises(UserError, match="leave out one of the three"):
        GIPOLoss(actor(), critic(), kl_coeff=1.0, delay_actor=True, max_importance_ratio=1.3)


def test_what_is_no_objective_is_refused() -> None:
    with pytest.raises(UserError, match=r"must be an objective such as GIPO\(\), got <class"):
        GIPOLoss(actor(), critic(), objective=GIPO)


def test_a_memory_is_where_the_networks_are() -> None:
    loss = GIPOLoss(actor().to("meta"), objective=AgeAwareGIPO(), critic_coeff=None)
    assert loss.objective_memory.is_meta


def test_a_single_transition_needs_no_batch() -> None:
    data = batch(actor(summed))
    loss = GIPOLoss(actor(summed), critic())
    torch.testing.assert_close(loss(data[0])["loss_objective"], loss(data[:1])["loss_objective"])


def test_the_line_of_the_page_on_torchrl() -> None:
    page = (Path(__file__).parents[2] / "docs" / "torchrl.md").read_text()
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "GIPOLoss" in code]
    names: dict[str, Any] = {}
    exec(block, names)
    data = batch(actor())
    expected = GIPOLoss(actor(), critic(), kl_coeff=0.1)(data)
    for name, value in names["loss_for"](actor(), critic())(data).items():
        torch.testing.assert_close(value, expected[name])


def test_an_objective_that_needs_more_is_refused() -> None:
    with pytest.raises(UserError, match="ESPO needs the behaviour entropy"):
        GIPOLoss(actor(), critic(), objective=ESPO())
