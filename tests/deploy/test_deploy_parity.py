"""The artifact is the policy: same tokens, actions, log-probs and distribution as torch."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from deploy.export.artifact import export
from deploy.export.parity import probe
from deploy.runtime.policy import OnnxPolicy
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, MixturePolicy, OrdinalPolicy, Spaces, TokenPolicy
from tests.deploy.builders import KINDS, save


@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch_on_a_thousand_observations(exported, kind):
    kit = exported(kind)
    policy, runtime = kit["policy"], OnnxPolicy.load(kit["file"])
    asked = probe(policy, 1000, seed=11)
    rows = slice(0, 1000)  # the random ones; the extreme ones follow
    found = runtime.evaluate(asked.observation[rows], asked.noise[rows])
    if kind.startswith("token"):
        assert np.array_equal(found["latent"], asked.answers["latent"][rows])
    # Two float32 engines cannot agree better than each agrees with float64; only the 512-wide gaussian comes near.
    floor = 2 * asked.rounding
    assert kind == "gaussian-shared" or kind.startswith("token") or floor < 1e-6
    for name, tolerance in (("action", 1e-6), ("log_prob", 1e-5), ("deterministic_action", 1e-6)):
        difference = np.abs(found[name] - asked.answers[name][rows])
        difference = difference[~asked.tied[rows]] if name == "deterministic_action" else difference
        assert difference.max() <= (tolerance if kind != "gaussian-shared" else max(tolerance, floor)), name


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch_on_many_observations(exported, kind):
    kit = exported(kind)
    runtime = OnnxPolicy.load(kit["file"])
    for seed in range(20):
        asked = probe(kit["policy"], 5000, seed)
        found = runtime.evaluate(asked.observation, asked.noise)
        assert not kind.startswith("token") or np.array_equal(found["latent"], asked.answers["latent"])
        assert np.abs(found["action"] - asked.answers["action"]).max() <= max(1e-6, 3 * asked.rounding)


@pytest.mark.parametrize("kind", KINDS[::3])
def test_extreme_observations_give_finite_answers_inside_the_bounds(exported, kind):
    runtime = OnnxPolicy.load(exported(kind)["file"])
    asked = probe(exported(kind)["policy"], 1, seed=0)
    found = runtime.evaluate(asked.observation, asked.noise)
    assert np.abs(asked.observation).max() > 1e37
    assert all(np.isfinite(value).all() for value in found.values())
    assert np.abs(found["action"]).max() <= 1
    assert np.abs(found["deterministic_action"]).max() <= 1


def test_sampled_tokens_follow_the_torch_distribution(exported):
    kit = exported("token-separate")
    runtime, rng = OnnxPolicy.load(kit["file"]), np.random.default_rng(5)
    observation = rng.standard_normal(39).astype(np.float32)
    with torch.no_grad():
        wanted = kit["policy"].params(torch.from_numpy(observation)).double().softmax(-1).numpy()
    draws = 20_000
    tokens = runtime.act(np.tile(observation, (draws, 1)), rng).latent
    for dimension in range(4):
        counts = np.bincount(tokens[:, dimension], minlength=256)
        order = np.argsort(wanted[dimension])
        # Bins are pooled from the rarest up until each expects 20 draws, where chi-square holds.
        pools = np.minimum(np.cumsum(wanted[dimension][order]) * draws // 20, draws // 20 - 1).astype(int)
        expected = np.bincount(pools, wanted[dimension][order] * draws)
        found = np.bincount(pools, counts[order])
        kept = expected > 0
        # Level 1e-3 over the four dimensions together.
        assert stats.chisquare(found[kept], expected[kept] * draws / expected.sum()).pvalue > 1e-3 / 4


@pytest.mark.parametrize("kind", ["gaussian-separate", "gaussian-shared"])
def test_sampled_latents_follow_the_torch_distribution(exported, kind):
    kit = exported(kind)
    runtime, rng = OnnxPolicy.load(kit["file"]), np.random.default_rng(6)
    observation = rng.standard_normal(39).astype(np.float32)
    with torch.no_grad():
        mean, log_std = kit["policy"].params(torch.from_numpy(observation)).double().unbind(-1)
    latent = runtime.act(np.tile(observation, (20_000, 1)), rng).latent
    for dimension in range(4):
        distribution = stats.norm(float(mean[dimension]), float(log_std[dimension].exp()))
        assert stats.kstest(latent[:, dimension], distribution.cdf).pvalue > 1e-3 / 4


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_of_a_logged_latent_is_the_one_it_was_sampled_with(exported, kind):
    kit = exported(kind)
    runtime, rng = OnnxPolicy.load(kit["file"]), np.random.default_rng(7)
    observation = rng.standard_normal((64, 39)).astype(np.float32)
    decision = runtime.act(observation, rng)
    recomputed = runtime.log_prob_of(observation, decision.latent)
    assert np.abs(recomputed - decision.log_prob).max() < 1e-5
    with torch.no_grad():
        params = kit["policy"].params(torch.from_numpy(observation))
        wanted = kit["policy"].log_prob(params, torch.from_numpy(decision.latent)).numpy()
    assert np.abs(recomputed - wanted).max() < 1e-5


@pytest.mark.parametrize(
    "make",
    [OrdinalPolicy, MixturePolicy, partial(GaussianPolicy, state_free_std=True)],
    ids=["ordinal", "mixture", "state-free"],
)
def test_other_heads_equal_torch_too(make, tmp_path):
    torch.manual_seed(5)
    policy = make(Spaces(39, (-1.0,) * 4, (1.0,) * 4), network=lambda i, o: SeparateNetworks(i, o, (32,), actor_gain=1))
    with torch.no_grad():
        for parameter in policy.actor_parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    export(save(policy.eval(), tmp_path / "a.ckpt"), tmp_path / "a.onnx", observations=100)
    runtime, asked = OnnxPolicy.load(tmp_path / "a.onnx"), probe(policy, 1000, seed=11)
    found, rows = runtime.evaluate(asked.observation[:1000], asked.noise[:1000]), slice(0, 1000)
    if isinstance(policy, TokenPolicy):
        assert np.array_equal(found["latent"], asked.answers["latent"][rows])
        assert len(np.unique(found["latent"])) == policy.bins
    for name, tolerance in (("action", 1e-6), ("log_prob", 1e-5), ("params", 1e-4)):
        assert np.abs(found[name] - asked.answers[name][rows]).max() <= tolerance, name
    recomputed = runtime.log_prob_of(asked.observation[rows], found["latent"])
    assert np.abs(recomputed - found["log_prob"]).max() < 1e-5
