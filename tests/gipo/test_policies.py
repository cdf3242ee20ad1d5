"""Policies: exact sampling, log-probs and KL against references, bounds, gradients, and the description round trip."""

import copy
import itertools
import json
import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

from gipo.common.errors import UserError
from gipo.networks import SeparateNetworks, SharedEncoder
from gipo.policies import GaussianPolicy, MixturePolicy, OrdinalPolicy, Policy, Spaces, TokenPolicy, build
from gipo.policy import class_of
from tests.pages import ROOT

torch.set_num_threads(1)

PROPERTY = settings(deadline=None, max_examples=150, derandomize=True, database=None)
LAST_NOISE = 1 - 2**-24  # the largest float32 that torch.rand can return


def spaces(**overrides: Any) -> Spaces:
    return Spaces(**{"observation_size": 3, "action_low": (-1.0, 0.0), "action_high": (1.0, 4.0)} | overrides)


def small(inputs: int, outputs: int) -> SeparateNetworks:
    return SeparateNetworks(inputs, outputs, hidden=(16, 8))


def shared(inputs: int, outputs: int) -> SharedEncoder:
    return SharedEncoder(inputs, outputs, width=16, critic_width=8)


def token_policy(**overrides: Any) -> TokenPolicy:
    return TokenPolicy(**{"spaces": spaces(), "bins": 8, "network": small} | overrides)


def gaussian_policy(**overrides: Any) -> GaussianPolicy:
    return GaussianPolicy(**{"spaces": spaces(), "network": small} | overrides)


def ordinal_policy(**overrides: Any) -> OrdinalPolicy:
    return OrdinalPolicy(**{"spaces": spaces(), "bins": 8, "network": small} | overrides)


def mixture_policy(**overrides: Any) -> MixturePolicy:
    return MixturePolicy(**{"spaces": spaces(), "bins": 8, "network": small} | overrides)


POLICIES = {
    "token": token_policy,
    "token-shared": lambda: token_policy(network=shared),
    "token-raw": lambda: token_policy(normalise=False),
    "gaussian": gaussian_policy,
    "gaussian-clipped": lambda: gaussian_policy(squash=False, normalise=False, std_min=0.2, mean_max=1.0),
    "gaussian-shared": lambda: gaussian_policy(network=shared),
    "gaussian-free": lambda: gaussian_policy(state_free_std=True, std_start=0.3),
    "ordinal": ordinal_policy,
    "mixture": mixture_policy,
}
every_policy = pytest.mark.parametrize("make", POLICIES.values(), ids=POLICIES)


# Spaces


@pytest.mark.parametrize(
    "overrides",
    [
        {"observation_size": 0},
        {"action_low": (), "action_high": ()},
        {"action_low": (1.0, 0.0)},
        {"action_low": (-1.0,)},
        {"action_high": (math.inf, 4.0)},
        {"action_low": (math.nan, 0.0)},
        {"action_high": (1e39, 4.0)},
        {"action_low": (-3e38, 0.0), "action_high": (3e38, 4.0)},
    ],
)
def test_impossible_spaces_are_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="bounds"):
        spaces(**overrides)


# Token policy: sampling

SAMPLER = token_policy()  # draws from any parameters it is given


def tokens_on_a_grid(logits: Tensor, count: int) -> Tensor:
    """Share of each token when the noise is a uniform grid: inverse-CDF sampling, integrated exactly."""
    noise = (torch.arange(count) + 0.5) / count
    tokens = token_policy(bins=len(logits)).sample(logits.expand(count, -1), noise)
    return torch.bincount(tokens, minlength=len(logits)) / count


@pytest.mark.parametrize("bins", [2, 5, 256])
def test_each_token_gets_exactly_its_probability(bins: int) -> None:
    logits = torch.randn(bins, generator=torch.Generator().manual_seed(bins)) * 2
    count = 2**15
    deviation = (tokens_on_a_grid(logits, count) - logits.softmax(-1)).abs().max()
    assert deviation <= 1.5 / count


def test_random_draws_pass_a_chi_square_test() -> None:
    policy, draws = token_policy(bins=16), 200_000
    logits = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    noise = policy.noise((draws,), torch.Generator().manual_seed(1))
    tokens = policy.sample(logits.expand(draws, 2, 16), noise)
    for dimension in range(2):
        expected = draws * logits[dimension].softmax(-1)
        observed = torch.bincount(tokens[:, dimension], minlength=16)
        # 15 degrees of freedom: χ² exceeds 37.70 once in a thousand
        assert ((observed - expected) ** 2 / expected).sum() < 37.70


def test_tokens_follow_the_noise_in_order() -> None:
    # cumulative .1 .3 .6 1
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    noise = torch.tensor([0.0, 0.09, 0.11, 0.29, 0.31, 0.59, 0.61, LAST_NOISE])
    assert token_policy(bins=4).sample(logits.expand(8, 4), noise).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


EDGE_LOGITS = [
    list(logits) for logits in itertools.product([1e4, 0.0, -1e4, -math.inf], repeat=4) if max(logits) > -1e5
]


@pytest.mark.parametrize("noise", [0.0, 2**-24, 0.5, 1 - 2**-23, LAST_NOISE])
def test_no_token_without_mass_is_ever_drawn(noise: float) -> None:
    logits = torch.tensor(EDGE_LOGITS)
    tokens = token_policy(bins=4).sample(logits, torch.full((len(logits),), noise))
    mass = logits.softmax(-1).gather(-1, tokens.unsqueeze(-1))
    assert (mass > 0).all()


def test_rounding_of_the_total_never_runs_past_the_last_token_with_mass() -> None:
    # float32 sums of 128 probabilities end a little below or above 1; the other 128 tokens have no mass
    logits = 3 * torch.randn(2000, 256, generator=torch.Generator().manual_seed(0))
    logits[:, 128:] = -1e4
    assert (logits.softmax(-1).sum(-1) < LAST_NOISE).any()
    for noise in (LAST_NOISE, 1 - 2**-23, 1 - 2**-22):
        assert (SAMPLER.sample(logits, torch.full((2000,), noise)) < 128).all()


@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=64),
    noise=st.floats(0, LAST_NOISE, width=32),
)
@PROPERTY
def test_drawn_tokens_exist_and_have_mass(logits: list[float], noise: float) -> None:
    params = torch.tensor(logits)
    token = SAMPLER.sample(params, torch.tensor(noise))
    assert 0 <= token < len(logits)
    assert params.softmax(-1)[token] > 0


def test_last_of_256_equal_tokens_is_reachable_and_the_last() -> None:
    policy = token_policy(bins=256)
    assert policy.sample(torch.zeros(256), torch.tensor(0.0)) == 0
    assert policy.sample(torch.zeros(256), torch.tensor(LAST_NOISE)) == 255


# Token policy: probabilities and actions


def test_token_log_probs_sum_to_one() -> None:
    params = torch.randn(6, 2, 8) * 5
    every_token = torch.arange(8).view(8, 1, 1).expand(8, 6, 2)
    log_prob = token_policy().log_prob(params.expand(8, 6, 2, 8), every_token)
    torch.testing.assert_close(log_prob.exp().sum(0), torch.ones(6, 2))
    reference = Categorical(logits=params)
    torch.testing.assert_close(log_prob, torch.stack([reference.log_prob(token) for token in every_token]))


def test_token_log_prob_by_hand() -> None:
    log_prob = token_policy(bins=2).log_prob(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))
    assert log_prob.item() == pytest.approx(math.log(0.75))


def test_tokens_are_uniform_bins() -> None:
    # the authors' grid: token k ↦ −1 + 2k/255
    policy = token_policy(bins=256, spaces=spaces(action_low=(-1.0,), action_high=(1.0,)))
    actions = policy.to_env(torch.arange(256).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(actions, -1 + 2 * torch.arange(256) / 255)
    assert (actions[0], actions[-1]) == (-1, 1)


def test_token_mode_is_the_most_likely() -> None:
    assert token_policy(bins=3).mode(torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])).tolist() == [1, 0]


# Policies over tokens that know the order of the bins


def test_ordinal_logits_are_those_of_the_paper() -> None:
    s = 3 * torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(0))
    # arXiv 1901.10500, section 4.2
    on, off = s.double().sigmoid().log(), (1 - s.double().sigmoid()).log()
    paper = torch.stack([on[..., : k + 1].sum(-1) + off[..., k + 1 :].sum(-1) for k in range(8)], -1)
    found = ordinal_policy()._constrain(s).double().log_softmax(-1)
    torch.testing.assert_close(found, paper.log_softmax(-1), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("likeliest", [8, 128])
def test_ordinal_distributions_of_many_bins_survive_half_precision(likeliest: int) -> None:
    """As they are stored beside a sample: KL(μ‖π) is 0 where π is μ."""
    policy = ordinal_policy(bins=256)
    # logits up to a thousand, which half precision rounds to whole numbers where they are not near 0
    slope = 6 * (likeliest - torch.linspace(-1, 255, 256)).div(8).tanh().expand(1, 2, -1)
    params = policy._constrain(slope)
    assert policy.kl(params.half(), params).abs().max() < 1e-4
    assert policy.entropy(params.half().float()) == pytest.approx(policy.entropy(params), abs=2e-3)


def test_evidence_for_a_bin_is_evidence_for_its_neighbours() -> None:
    """A gradient step on one token of a uniform distribution raises the tokens beside it too, the nearer the more."""
    outputs = torch.zeros(1, 9, requires_grad=True)
    policy = ordinal_policy(bins=9, spaces=spaces(action_low=(-1.0,), action_high=(1.0,)))
    policy.log_prob(policy._constrain(outputs), torch.tensor([4])).sum().backward()
    assert outputs.grad is not None
    after = policy._constrain(outputs.detach() + 0.5 * outputs.grad).softmax(-1)[0]
    assert after.argmax() == 4
    assert after[3] > 1 / 9
    assert (after[:4].diff() > 0).all()
    assert (after[5:].diff() < 0).all()


@pytest.mark.parametrize("components", [1, 4])
def test_bins_of_a_mixture_have_its_masses(components: int) -> None:
    policy = mixture_policy(components=components, scale_min=0.05, scale_max=0.6)
    outputs = 2 * torch.randn(6, 2, 3 * components, generator=torch.Generator().manual_seed(1))
    weight, location, raw = outputs.double().unflatten(-1, (3, components)).unbind(-2)
    location = 1.25 * torch.tanh(location + policy.start)
    scale = 0.05 * (0.6 / 0.05) ** torch.sigmoid(raw + 1)
    # bins lie at −1, −5/7, …, 1; what is beyond the outermost edges is theirs
    edges = torch.tensor([-math.inf, *(-6 / 7 + 2 / 7 * j for j in range(7)), math.inf], dtype=torch.float64)
    cdf = ((edges - location.unsqueeze(-1)) / scale.unsqueeze(-1)).sigmoid()
    mass = (weight.softmax(-1).unsqueeze(-1) * cdf.diff()).sum(-2)
    found = policy._constrain(outputs)
    torch.testing.assert_close(found.double().exp(), mass, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.double().exp().sum(-1), torch.ones(6, 2, dtype=torch.float64))


def test_a_mixture_far_from_a_bin_still_says_how_far() -> None:
    """Where a difference of two sigmoids is 0 in float32: log-masses and their gradients stay finite and right."""
    policy = mixture_policy(bins=33, components=1, scale_min=0.01, scale_max=0.02)
    outputs = torch.tensor([[[0.0, -9.0, -9.0]]], requires_grad=True)  # at −1.25, scale .01
    logits = policy._constrain(outputs)[0, 0]
    rate = 1 / policy.scale_min
    assert logits[-1].item() == pytest.approx(-(1 - 1 / 32 + 1.25) * rate, rel=1e-3)
    logits[-1].backward()
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()


def test_a_mixture_starts_wide_and_can_be_certain_of_its_bounds() -> None:
    policy = mixture_policy(bins=33)
    start = policy._constrain(torch.zeros(1, 2, 9))
    assert policy.entropy(start).min() > 0.9 * policy.max_entropy
    narrow = torch.tensor([0.0] * 3 + [9.0] * 3 + [-9.0] * 3).expand(1, 2, 9)
    assert policy._constrain(narrow).exp()[..., -1].min() > 0.999


@pytest.mark.parametrize("bad", [{"components": 0}, {"scale_min": 0.6}, {"scale_min": 0.0}, {"scale_max": math.inf}])
def test_impossible_mixtures_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"components|scale_min < scale_max"):
        mixture_policy(**bad)


# Gaussian policy


def gaussian_params(rows: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return gaussian_policy()._constrain(torch.randn(rows, 2, 2, generator=generator) * 3)


def test_a_standard_deviation_starts_where_it_is_told() -> None:
    for free in (False, True):
        policy = gaussian_policy(state_free_std=free, std_start=0.25, network=lambda i, o: small(i, o))
        with torch.no_grad():
            for parameter in policy.network.actor.parameters():
                parameter.zero_()
        std = policy.params(torch.randn(4, 3))[..., 1].exp()
        torch.testing.assert_close(std, torch.full((4, 2), 0.25))


def test_a_state_free_standard_deviation_is_the_same_everywhere_and_learns() -> None:
    policy = gaussian_policy(state_free_std=True)
    assert policy.network.actor[-1].out_features == 2  # type: ignore[index,union-attr]
    assert policy.same_everywhere is not None
    with torch.no_grad():
        policy.same_everywhere.raw.copy_(torch.tensor([2.0, -1.0]))
    mean, log_std = policy.params(100 * torch.randn(50, 3)).unbind(-1)
    # log std = log .1 + log 10·σ(raw + 1)
    expected = math.log(0.1) + math.log(10) * torch.sigmoid(torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(log_std, expected.expand(50, 2))
    assert mean.std(0).min() > 0
    policy.entropy(torch.stack((mean, log_std), -1)).sum().backward()
    assert (policy.same_everywhere.raw.grad > 0).all()  # type: ignore[operator]


@pytest.mark.parametrize("bad", [0.1, 1.0, 2.0, math.nan])
def test_a_standard_deviation_does_not_start_out_of_bounds(bad: float) -> None:
    with pytest.raises(UserError, match="std_start"):
        gaussian_policy(std_start=bad)


def test_gaussian_log_prob_is_that_of_torch() -> None:
    params, latent = gaussian_params(), torch.randn(5, 2)
    reference = Normal(params[..., 0], params[..., 1].exp()).log_prob(latent)
    torch.testing.assert_close(gaussian_policy().log_prob(params, latent), reference)


def test_gaussian_samples_are_mean_plus_noise() -> None:
    params = torch.tensor([[1.0, math.log(0.5)], [-1.0, 0.0]])
    policy = gaussian_policy()
    torch.testing.assert_close(policy.sample(params, torch.tensor([2.0, -1.0])), torch.tensor([2.0, -2.0]))
    assert torch.equal(policy.mode(params), torch.tensor([1.0, -1.0]))


def test_gaussian_scale_and_mean_stay_inside_their_bounds() -> None:
    policy = gaussian_policy(std_min=0.2, std_max=0.8, mean_max=1.5)
    params = policy._constrain(torch.tensor([-1e4, -3.0, 0.0, 3.0, 1e4]).expand(2, 5).T.unsqueeze(1))
    mean, std = params[..., 0], params[..., 1].exp()
    assert mean.abs().max() <= 1.5
    assert std.min() >= 0.2 - 1e-6
    assert std.max() <= 0.8 + 1e-6
    assert torch.isfinite(params).all()


def test_gaussian_to_env_by_hand() -> None:
    latent = torch.tensor([[0.5, -3.0]])
    squashed, clipped = gaussian_policy().to_env(latent), gaussian_policy(squash=False).to_env(latent)
    torch.testing.assert_close(squashed, torch.tensor([[math.tanh(0.5), 2 + 2 * math.tanh(-3.0)]]))
    torch.testing.assert_close(clipped, torch.tensor([[0.5, 0.0]]))


@pytest.mark.parametrize(
    "overrides",
    [
        {"std_min": 0.0},
        {"std_min": 1.0, "std_max": 0.5},
        {"std_min": math.nan},
        {"std_max": math.inf},
        {"mean_max": 0.0},
        {"mean_max": math.nan},
        {"mean_max": math.inf},
    ],
)
def test_bad_gaussian_parameters_are_refused_by_name(overrides: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(overrides))):
        gaussian_policy(**overrides)


def test_a_single_bin_is_refused() -> None:
    with pytest.raises(UserError, match="bins"):
        token_policy(bins=1)


# Entropy and KL


def test_token_entropy_is_that_of_torch() -> None:
    params = torch.randn(4, 2, 8) * 3
    torch.testing.assert_close(token_policy().entropy(params), Categorical(logits=params).entropy())
    uniform, certain = torch.zeros(8), torch.tensor([1e4] + [-1e4] * 7)
    assert token_policy().entropy(uniform).item() == pytest.approx(math.log(8))
    assert token_policy().entropy(certain) == 0


def test_gaussian_entropy_is_that_of_torch() -> None:
    params = gaussian_params()
    torch.testing.assert_close(
        gaussian_policy().entropy(params), Normal(params[..., 0], params[..., 1].exp()).entropy()
    )


def test_token_kl_is_that_of_torch() -> None:
    behaviour, params = torch.randn(2, 4, 2, 8) * 3
    reference = kl_divergence(Categorical(logits=behaviour), Categorical(logits=params))
    torch.testing.assert_close(token_policy().kl(behaviour, params), reference)
    torch.testing.assert_close(token_policy().kl(behaviour.half(), params), reference, atol=1e-2, rtol=1e-2)


def test_gaussian_kl_is_that_of_torch() -> None:
    behaviour, params = gaussian_params(6).split(3)
    normals = [Normal(p[..., 0], p[..., 1].exp()) for p in (behaviour, params)]
    torch.testing.assert_close(gaussian_policy().kl(behaviour, params), kl_divergence(*normals))


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_token_kl_of_extreme_logits_is_finite(extreme: float) -> None:
    behaviour, params = torch.tensor([extreme, 0.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    assert torch.isfinite(token_policy(bins=3).kl(behaviour.half(), params))


@every_policy
def test_kl_to_itself_is_zero(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    params = policy.params(torch.randn(4, 3))
    torch.testing.assert_close(policy.kl(params, params), torch.zeros(4, 2), atol=1e-6, rtol=0)


# All policies


@every_policy
def test_shapes_and_dtypes(make) -> None:  # type: ignore[no-untyped-def]
    policy: Policy = make()
    observation = torch.randn(7, 3, 3)
    params = policy.params(observation)
    latent = policy.sample(params, policy.noise((7, 3)))
    assert params.shape == (7, 3, 2, policy.parameters_per_dimension)
    for mode_or_sample in (latent, policy.mode(params)):
        assert mode_or_sample.shape == (7, 3, 2)
        assert mode_or_sample.dtype == policy.latent_dtype
    assert policy.log_prob(params, latent).shape == (7, 3, 2)
    assert policy.kl(params, params).shape == (7, 3, 2)
    assert policy.to_env(latent).shape == (7, 3, 2)
    assert policy.value(observation).shape == (7, 3)


@every_policy
def test_sampling_is_a_function_of_its_noise(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    params = policy.params(torch.randn(50, 3))
    noise = policy.noise((50,), torch.Generator().manual_seed(3))
    assert torch.equal(noise, policy.noise((50,), torch.Generator().manual_seed(3)))
    assert torch.equal(policy.sample(params, noise), policy.sample(params, noise))
    assert not torch.equal(policy.sample(params, noise), policy.sample(params, policy.noise((50,))))


BOUNDS = st.floats(-1e3, 1e3, width=32)


@given(low=BOUNDS, high=BOUNDS, bins=st.integers(2, 300))
@PROPERTY
def test_actions_never_leave_the_bounds(low: float, high: float, bins: int) -> None:
    if low == high:
        return
    limits: dict[str, Any] = {
        "spaces": spaces(action_low=(min(low, high),), action_high=(max(low, high),)),
        "network": lambda inputs, outputs: SeparateNetworks(inputs, outputs, hidden=(1,)),
    }
    latents = {
        token_policy(**limits, bins=bins): torch.arange(bins).unsqueeze(-1),
        gaussian_policy(**limits): torch.linspace(-30, 30, 101).unsqueeze(-1),
        gaussian_policy(**limits, squash=False): torch.linspace(-30, 30, 101).unsqueeze(-1),
    }
    for policy, latent in latents.items():
        action = policy.to_env(latent)
        assert (action >= policy.action_low).all()
        assert (action <= policy.action_high).all()
        assert torch.equal(action[0], policy.action_low)
        # the last one is the upper bound, up to rounding of the distance between the two
        assert policy.action_high - action[-1] <= 1e-6 * (policy.action_high - policy.action_low)


@every_policy
def test_value_loss_moves_the_critic_alone(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    observation = torch.randn(4, 3)
    policy.value_of(policy.features(observation)).sum().backward()
    assert all(parameter.grad is None for parameter in policy.actor_parameters())
    assert all(parameter.grad is not None for parameter in policy.critic_parameters())


@every_policy
def test_policy_loss_moves_everything_but_the_critic(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    params = policy.params(torch.randn(4, 3))
    policy.log_prob(params, policy.sample(params, policy.noise((4,))).detach()).sum().backward()
    assert all(parameter.grad is not None for parameter in policy.actor_parameters())
    assert all(parameter.grad is None for parameter in policy.critic_parameters())


@every_policy
def test_actor_and_critic_share_no_parameter_and_miss_none(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    named = [id(parameter) for parameter in [*policy.actor_parameters(), *policy.critic_parameters()]]
    assert sorted(named) == sorted(id(parameter) for parameter in policy.parameters())


@every_policy
def test_value_does_not_run_the_actor(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    calls: list[str] = []
    policy.network.actor.register_forward_hook(lambda *_: calls.append("actor"))
    policy.network.critic.register_forward_hook(lambda *_: calls.append("critic"))
    policy.value(torch.randn(4, 3))
    assert calls == ["critic"]
    policy.params(torch.randn(4, 3))
    assert calls == ["critic", "actor"]


@every_policy
def test_autocast_keeps_log_probs_in_float32(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    observation = torch.randn(64, 3)
    exact = policy.params(observation)
    latent = policy.sample(exact, policy.noise((64,)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        params = policy.params(observation)
        log_prob = policy.log_prob(params, latent)
        assert {params.dtype, log_prob.dtype, policy.value(observation).dtype} == {torch.float32}
    # the network itself ran in bfloat16, the distribution on top of it did not
    assert not torch.equal(params, exact)
    torch.testing.assert_close(log_prob, policy.log_prob(params, latent), atol=0, rtol=0)


@every_policy
def test_normaliser_is_part_of_the_policy(make) -> None:  # type: ignore[no-untyped-def]
    policy = make()
    observation = torch.randn(32, 3) * 5 + 2
    before = policy.params(observation)
    if policy.normaliser is None:
        assert not any("normaliser" in name for name in policy.state_dict())
        return
    policy.normaliser.update(observation)
    standardised = (observation - observation.mean(0)) / observation.std(0, correction=0)
    after = policy.params(observation)
    bare = policy.params_of(policy.network.encoder(standardised))
    torch.testing.assert_close(after, bare, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before, after)


# Descriptions


@every_policy
def test_description_rebuilds_the_policy(make) -> None:  # type: ignore[no-untyped-def]
    policy: Policy = make()
    if policy.normaliser is not None:
        policy.normaliser.update(torch.randn(20, 3))
    policy.version.fill_(17)
    description = json.loads(json.dumps(policy.description()))

    again = build(description)

    assert again.description() == policy.description()
    again.load_state_dict(policy.state_dict())
    assert again.version == 17
    observation = torch.randn(9, 3)
    params, noise = policy.params(observation), policy.noise((9,))
    assert torch.equal(again.params(observation), params)
    assert torch.equal(again.value(observation), policy.value(observation))
    latent = policy.sample(params, noise)
    assert torch.equal(again.sample(params, noise), latent)
    assert torch.equal(again.to_env(latent), policy.to_env(latent))


def damaged(*path: str, value: Any) -> dict[str, Any]:
    description = copy.deepcopy(token_policy().description())
    entry = description
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    return description


HOSTILE = {
    "no description": None,
    "a list": [1, 2],
    "empty": {},
    "a function": damaged("class_path", value="os.system"),
    "not a policy": damaged("class_path", value="builtins.dict"),
    "the abstract base": damaged("class_path", value="gipo.policies.Policy"),
    "no such module": damaged("class_path", value="no_such_module.Policy"),
    "no such class": damaged("class_path", value="gipo.policies.NoSuchPolicy"),
    "no module": damaged("class_path", value="TokenPolicy"),
    "a relative module": damaged("class_path", value="..policies.TokenPolicy"),
    "a number for a class": damaged("class_path", value=5),
    "policy for a network": damaged("network", "class_path", value="gipo.policies.TokenPolicy"),
    "network without body": damaged("network", value=None),
    "text for widths": damaged("network", "init_args", value={"hidden": "wide"}),
    "no widths": damaged("network", "init_args", value={"hidden": []}),
    "unknown argument": damaged("init_args", value={"bins": 8, "normalise": True, "shell": "rm"}),
    "text for bins": damaged("init_args", "bins", value="many"),
    "too few bins": damaged("init_args", "bins", value=-3),
    "more bins than memory": damaged("init_args", "bins", value=10**17),
    "more bins than integers": damaged("init_args", "bins", value=10**30),
    "bounds of two lengths": damaged("spaces", "action_low", value=[0.0]),
    "bounds upside down": damaged("spaces", "action_low", value=[9.0, 9.0]),
    "text for bounds": damaged("spaces", "action_low", value=["a", "b"]),
    "a huge observation": damaged("spaces", "observation_size", value=10**18),
}


@settings(deadline=None)
@given(
    low=st.floats(-100, 100, width=32), width=st.floats(1, 100, width=32),
    bins=st.integers(2, 512), fraction=st.floats(0, 1),
)  # fmt: skip
def test_tokens_come_back_from_their_actions(low: float, width: float, bins: int, fraction: float) -> None:
    policy = TokenPolicy(Spaces(1, (low,), (low + width,)), bins=bins, network=small)
    tokens = torch.arange(bins).unsqueeze(-1)
    assert torch.equal(policy.from_env(policy.to_env(tokens)), tokens)
    action = torch.tensor([low + width * fraction])
    # the nearest bin: never further than half of one
    assert abs(float(policy.to_env(policy.from_env(action)) - action)) <= 0.5 * width / (bins - 1) + 1e-4


@settings(deadline=None)
@given(
    low=st.floats(-10, 10, width=32), width=st.floats(1, 100, width=32),
    latent=st.floats(-3, 3, width=32), squash=st.booleans(),
)  # fmt: skip
def test_gaussian_latents_come_back_from_their_actions(low: float, width: float, latent: float, squash: bool) -> None:
    policy = GaussianPolicy(Spaces(1, (low,), (low + width,)), squash=squash, network=small)
    given_latent = torch.tensor([latent])
    action = policy.to_env(given_latent)
    expected = given_latent if squash else given_latent.clamp(-1, 1)
    assert torch.allclose(policy.from_env(action), expected, atol=5e-3)
    assert torch.allclose(policy.to_env(policy.from_env(action)), action, atol=1e-4 * (width + abs(low)))


def test_an_action_at_its_bound_has_a_finite_latent_just_inside() -> None:
    policy = GaussianPolicy(Spaces(1, (-1.0,), (1.0,)), network=small)
    for action in (-1.0, 1.0, 1.5):
        latent = policy.from_env(torch.tensor([action]))
        assert float(latent) == pytest.approx(math.copysign(math.atanh(0.999), action), abs=1e-3)


@pytest.mark.parametrize("description", HOSTILE.values(), ids=HOSTILE)
def test_hostile_descriptions_are_refused(description: Any) -> None:
    with pytest.raises(UserError) as refusal:
        build(description)
    assert str(refusal.value)


@pytest.mark.parametrize("network", [SeparateNetworks, SharedEncoder])
def test_log_probs_by_products_in_bfloat16_are_those_of_float32(network: Any) -> None:
    """Of a policy as decided as a trained one: fresh data have |x| of hundredths, and no bias."""
    torch.manual_seed(0)
    policy = TokenPolicy(Spaces(39, (-1.0,) * 4, (1.0,) * 4), bins=33, network=network, normalise=False)
    observation = torch.randn(2000, 39)
    with torch.no_grad():
        head = policy.network.actor[-1]
        logits = policy.params(observation)
        head.weight *= 2 / logits.std()
        params = policy.params(observation)
        latent = policy.sample(params, policy.noise((2000,)))
        single = policy.log_prob(params, latent)
        with torch.autocast("cpu", torch.bfloat16):
            x = policy.log_prob(policy.params(observation), latent) - single
    assert params.std() > 1.9
    assert x.dtype == torch.float32
    assert x.abs().max() < 0.1
    assert x.std() < 0.02
    assert x.mean().abs() < 1e-3


def test_a_class_of_ones_own_in_a_checkpoint_is_named_with_how_it_comes_in() -> None:
    with pytest.raises(UserError, match=r"'mine\.Plain'.* --model\.policy or its .* -c 'import sys, mine; from"):
        class_of("mine.Plain", Policy)


@pytest.mark.parametrize("path", ["gipo.later.Plain", "gipo.later.room.Plain", "gipo.policies.room.Plain"])
def test_a_module_that_this_version_does_not_have_holds_no_known_class(path: str) -> None:
    with pytest.raises(UserError, match=rf"unknown class '{path}' in the checkpoint"):
        class_of(path, Policy)


def test_the_command_that_imports_a_class_of_ones_own_ends_as_the_export_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError) as refused:
        class_of("json.Plain", Policy)
    program = str(refused.value).split("python -c '")[1].partition("'")[0]
    assert program.replace("json", "my_networks") in (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["-c", "export", "nowhere.ckpt", "--out", "policy.onnx"])
    with pytest.raises(SystemExit) as ended:
        exec(program, {})  # as `python -c` does
    assert ended.value.code == 2


def test_the_mean_of_a_gaussian_is_bounded_softly() -> None:
    policy = gaussian_policy(mean_max=2.0)
    mean = policy._constrain(torch.tensor([[[1.0, 0.0], [-40.0, 0.0]]]))[..., 0]
    assert mean.tolist() == [[pytest.approx(2 * math.tanh(0.5)), pytest.approx(-2.0)]]


def test_an_action_beyond_its_bounds_has_the_outermost_token() -> None:
    policy = token_policy(bins=5)
    beyond = 10 * (policy.action_high - policy.action_low)
    assert policy.from_env(policy.action_high + beyond).tolist() == [4] * len(beyond)
    assert policy.from_env(policy.action_low - beyond).tolist() == [0] * len(beyond)


def test_moments_take_effect_with_the_next_version() -> None:
    policy = token_policy()
    assert policy.normaliser is not None
    seen = torch.randn(50, policy.spaces.observation_size, generator=torch.Generator().manual_seed(0)) + 3
    before = policy.standardised(seen)
    policy.learn_moments(seen)
    assert torch.equal(policy.standardised(seen), before)
    policy.next_version()
    torch.testing.assert_close(policy.standardised(seen).mean(0), torch.zeros(seen.shape[1]), atol=1e-5, rtol=0)
    assert int(policy.version) == 1
