"""Policies over chunks: shapes, what they see, what they share with flat policies, and one update by hand."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict
from torch import Tensor

from gipo.common.errors import UserError
from gipo.module import GIPOModule
from gipo.networks import SeparateNetworks, SharedEncoder
from gipo.objectives import GIPO
from gipo.policies import Policy, Spaces, TokenPolicy, build
from gipo.vla.huggingface import HuggingFaceNetworks
from gipo.vla.lerobot import LeRobotNetworks
from gipo.vla.policies import VLAGaussianPolicy, VLATokenPolicy
from gipo.vla.tiny import MAX_BYTES, TinyVLANetworks
from tests.gipo.test_module import Batches
from tests.gipo.vla.builders import SPACES, observations

H, D = SPACES.decision


def tokens(bins: int = 6, normalise: bool = True) -> VLATokenPolicy:
    torch.manual_seed(0)

    def network(spaces: Any, outputs: int) -> TinyVLANetworks:
        return TinyVLANetworks(spaces, outputs, 16)

    return VLATokenPolicy(SPACES, bins=bins, network=network, normalise=normalise)


def gaussian() -> VLAGaussianPolicy:
    torch.manual_seed(0)
    return VLAGaussianPolicy(SPACES, network=lambda spaces, outputs: TinyVLANetworks(spaces, outputs, 16))


FAMILIES: list[Callable[[], Policy]] = [tokens, gaussian]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch", [(5,), (2, 3)])
def test_shapes(family: Callable[[], Policy], batch: tuple[int, ...]) -> None:
    policy, seen = family(), observations(*batch)
    params = policy.params(seen)
    latent = policy.sample(params, policy.noise(batch, torch.Generator().manual_seed(0)))
    action = policy.to_env(latent)
    assert params.shape == (*batch, H, D, policy.parameters_per_dimension)
    for found in (latent, action, policy.log_prob(params, latent), policy.entropy(params), policy.kl(params, params)):
        assert found.shape == (*batch, H, D)
    assert policy.value(seen).shape == (*batch, H)
    assert ((policy.action_low <= action) & (action <= policy.action_high)).all()
    torch.testing.assert_close(params.flatten(0, len(batch) - 1)[-1:], policy.params(rows(seen, len(batch), -1)))


def test_a_policy_of_what_the_task_does_not_show_is_refused() -> None:
    with pytest.raises(UserError, match=r"=TokenPolicy is not for this task; take gipo\.vla\.policies\.VLAToken"):
        TokenPolicy(SPACES)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"=VLATokenPolicy is not for this task; take TokenPolicy or Gaussian"):
        VLATokenPolicy(Spaces(3, (-1.0,), (1.0,)))  # type: ignore[arg-type]


def rows(seen: dict[str, Tensor], dims: int, index: int) -> dict[str, Tensor]:
    return {name: value.flatten(0, dims - 1)[index].unsqueeze(0) for name, value in seen.items()}


@pytest.mark.parametrize("name", ["image", "state", "instruction"])
def test_every_part_of_an_observation_is_seen(name: str) -> None:
    policy, seen = tokens(), observations(1)
    other = seen | {name: observations(2, seed=7)[name][1:]}
    assert not torch.equal(policy.params(seen), policy.params(other))


def test_the_hash_of_an_instruction_is_exact_and_depends_on_the_order() -> None:
    encoder = tokens().network.encoder
    seen = observations(2)["instruction"]
    # Σ wᵢ·bᵢ mod V, by integers
    expected = (seen * encoder.weights.long()).sum(-1) % 256
    assert torch.equal(encoder._hash(seen), expected)
    assert int(encoder._hash(seen[:1].roll(1, -1))) != int(expected[0])


def test_only_the_state_is_standardised() -> None:
    policy, plain = tokens(), tokens(normalise=False)
    plain.load_state_dict({k: v for k, v in policy.state_dict().items() if not k.startswith("normaliser")})
    seen = observations(64)
    policy.learn_moments(TensorDict(seen, batch_size=[64]))
    policy.take_moments()
    standard = (seen["state"] - seen["state"].mean(0)) / seen["state"].std(0, correction=0)
    torch.testing.assert_close(policy.params(seen), plain.params(seen | {"state": standard}), atol=1e-4, rtol=1e-4)
    assert plain.normaliser is None
    plain.learn_moments(TensorDict(seen, batch_size=[64]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_description_rebuilds_it(family: Callable[[], Policy]) -> None:
    policy, seen = family(), observations(3)
    again = build(policy.description())
    again.load_state_dict(policy.state_dict())
    assert torch.equal(again.params(seen), policy.params(seen))
    assert again.description() == policy.description()


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_in_float32_where_products_before_them_are_not(family: Callable[[], Policy]) -> None:
    policy, seen = family(), observations(8)
    features = policy.features(seen).detach()
    exact = policy.params_of(features), policy.value_of(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert policy.features(seen).dtype == torch.bfloat16
        assert torch.equal(policy.params_of(features), exact[0])
        assert policy.network.critic(features).dtype == torch.float32
    assert not torch.equal(exact[0][0], exact[0][1])


def test_longer_instructions_than_can_be_hashed_exactly_are_refused() -> None:
    longest = replace(SPACES, instruction_bytes=MAX_BYTES)
    encoder = TinyVLANetworks(longest, 4, 16).encoder
    worst = torch.full((1, MAX_BYTES), 255)
    assert torch.equal(encoder._hash(worst), (worst * encoder.weights.long()).sum(-1) % 256)
    with pytest.raises(UserError, match=rf"at most {MAX_BYTES} bytes exactly"):
        TinyVLANetworks(replace(SPACES, instruction_bytes=MAX_BYTES + 1), 4, 16)


@pytest.mark.parametrize("options", [{"hidden": 0}, {"text_vocab": 100}, {"text_dim": 0}])
def test_impossible_widths_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match="TinyVLANetworks needs"):
        TinyVLANetworks(SPACES, 4, **options)


def batch(policy: Policy, count: int = 8) -> TensorDict:
    """Chunks [1, count] of which the last steps of some were not executed."""
    generator = torch.Generator().manual_seed(3)
    executed = torch.arange(H) < torch.randint(1, H + 1, (count, 1), generator=generator)
    latent = torch.randint(policy.parameters_per_dimension, (count, H, D), generator=generator)
    found = TensorDict(
        {
            "observation": observations(count),
            "latent": latent,
            "log_prob": -1.8 + 0.3 * torch.randn(count, H, D, generator=generator),
            "policy_version": torch.zeros(count, dtype=torch.int64),
            "valid": executed,
            "executed": executed,
            "advantage": torch.randn(count, H, generator=generator),
            "value_target": torch.randn(count, H, generator=generator),
        },
        batch_size=[count],
    )
    return found.unsqueeze(0)


class OfChunks(Batches):
    spaces = SPACES  # type: ignore[assignment]


def learn(module: GIPOModule, data: TensorDict) -> GIPOModule:
    """The module after one iteration on batches of chunks."""
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=OfChunks([data]))
    return module


def test_an_update_has_one_ratio_a_token_and_one_advantage_a_chunk_step() -> None:
    data = batch(tokens())
    module = GIPOModule(
        policy=lambda _: tokens(), objective=GIPO(sigma=0.5), kl_coef=0.0, normalise_advantages=False,
        policy_lr=0.1, value_lr=0.1, max_grad_norm=1e9,
        optimizer=lambda parameters: torch.optim.SGD(parameters),
    )  # fmt: skip
    learn(module, data)
    # By hand, with a loop over tokens: L = −mean sg(w)·ρ·A, w = exp(−½(x/σ)²); the critic's mean over executed steps.
    hand, one = tokens(), data[0]
    params, losses, errors = hand.params(one["observation"]), [], []
    values = hand.value(one["observation"])
    for n, h in one["executed"].nonzero().tolist():
        errors.append((values[n, h] - one["value_target"][n, h]) ** 2)
        for d in range(D):
            x = params[n, h, d].log_softmax(-1)[one["latent"][n, h, d]] - one["log_prob"][n, h, d]
            weight = torch.exp(-0.5 * (x / 0.5) ** 2).detach()
            losses.append(-weight * x.exp() * one["advantage"][n, h])
    (torch.stack(losses).mean() + 0.5 * torch.stack(errors).mean()).backward()
    for (name, moved), still in zip(module.policy.named_parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(moved, still - 0.1 * still.grad, atol=1e-6, rtol=1e-4, msg=name)
    metrics = {name: float(value) for name, value in module.trainer.callback_metrics.items()}
    assert metrics["staleness/masked"] == D * int((~one["executed"]).sum())
    assert metrics["loss/policy"] == pytest.approx(float(torch.stack(losses).detach().mean()), abs=1e-6)
    assert metrics["loss/value"] == pytest.approx(float(torch.stack(errors).detach().mean()), abs=1e-6)


@pytest.mark.parametrize("norm", [True, False])
def test_a_normalised_body_still_tells_images_apart_when_what_they_share_has_grown(norm: bool) -> None:
    """As it does in the first updates, whose easiest way to any output is through pixels that all images have."""

    def network(spaces: Any, outputs: int) -> TinyVLANetworks:
        return TinyVLANetworks(spaces, outputs, 16, norm=norm)

    torch.manual_seed(0)
    policy = VLATokenPolicy(replace(SPACES, image=(3, 32, 32)), network=network)
    encoder: Any = policy.network.encoder
    assert policy.network.config()["norm"] == norm
    assert policy.description() == build(policy.description()).description()
    seen = observations(2, spaces=policy.spaces)
    for name in ("state", "instruction"):
        seen[name] = seen[name][:1].expand(2, -1)
    seen["image"] = torch.full_like(seen["image"], 150)
    seen["image"][1, :, 10:16, 10:16] = 255  # all that is not alike
    with torch.no_grad():
        encoder.image[1].weight += 10.0
        one, other = policy.encode(policy.standardised(seen))
    assert ((one - other).abs().max() > 1e-3) == norm


@pytest.mark.parametrize("network", [SeparateNetworks, SharedEncoder])
def test_a_network_of_numbers_is_not_for_a_policy_that_sees(network: Any) -> None:
    name = network.__name__
    with pytest.raises(UserError, match=f"network={name} is not for this policy; take gipo.vla.tiny.TinyVLANetworks"):
        VLATokenPolicy(SPACES, network=network)


@pytest.mark.parametrize(
    "network",
    [TinyVLANetworks, partial(HuggingFaceNetworks, pretrained="any"), partial(LeRobotNetworks, pretrained="any")],
)
def test_a_network_that_sees_is_not_for_a_policy_of_numbers(network: Any) -> None:
    with pytest.raises(UserError, match=r"network=\w+ is not for this policy; take SeparateNetworks or SharedEncoder"):
        TokenPolicy(Spaces(4, (-1.0,), (1.0,)), network=network)
