"""The questions that an artifact must answer as torch does, and which of them it keeps, by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from deploy.export.parity import LOG_PROB_TOLERANCE, SLACK, Probe, _avoid_steps, _rounding, compare, probe, torch_run
from deploy.export.probes import _middle, cdf, golden_vectors, margin, noise, states
from gipo.common.errors import UserError
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy

SPACES = Spaces(2, (-0.5, -4.0), (1.0, 1.0))
THIRDS = np.log([0.2, 0.3, 0.5]).astype(np.float32)


def make(kind: type[Policy], **options: Any) -> Policy:
    return kind(SPACES, network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)), **options)


def test_states_are_as_the_normaliser_saw_them_and_far_outside() -> None:
    policy = make(GaussianPolicy)
    assert policy.normaliser is not None
    policy.normaliser.update(torch.tensor([[2.9, -6.0], [3.1, 10.0]]))
    mean = np.array([3.0, 2.0])
    scale = policy.normaliser.scale().numpy().astype(float)
    found = states(policy, 8, np.random.default_rng(0))
    drawn = np.random.default_rng(0).standard_normal((8, 2))
    spread = np.array([1, 1, 1, 5, 1, 1, 1, 5])[:, None]
    np.testing.assert_allclose(found[:8], mean + scale * spread * drawn, rtol=1e-5)
    unit = np.maximum(scale, 1)
    wanted = [[0, 0], mean, *(sign * far * unit for far in (10, 1e4, 1e30) for sign in (-1, 1))]
    np.testing.assert_allclose(found[8:16], wanted, rtol=1e-5)
    assert np.abs(found[16:18]).max() <= np.float32(3e38)
    np.testing.assert_allclose(np.abs(found[18:]), np.array([[10.0, 1e4, 1e30, 3e38]] * 2).T, rtol=1e-6)
    assert found.dtype == np.float32


def test_what_a_network_sees_raw_stays_within_what_float32_multiplies() -> None:
    found = states(make(GaussianPolicy, normalise=False), 4, np.random.default_rng(0))
    assert np.abs(found[:3]).max() < 5
    assert found[4:10].tolist() == [[0, 0], [0, 0], [-10, -10], [10, 10], [-1000, -1000], [1000, 1000]]
    assert np.abs(found[10:]).tolist() == [[10, 10], [1000, 1000]]


def test_noise_is_of_the_head_that_takes_it() -> None:
    uniform, normal = (noise(make(kind), 500, np.random.default_rng(0)) for kind in (TokenPolicy, GaussianPolicy))
    assert uniform.shape == normal.shape == (500, 2)
    assert uniform.dtype == normal.dtype == np.float32
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1
    assert normal.min() < -2
    assert normal.std() == pytest.approx(1, abs=0.1)


def test_steps_of_tokens_by_hand() -> None:
    np.testing.assert_allclose(cdf(THIRDS + 1000), [0.2, 0.5, 1.0], atol=1e-4)
    middle, share = _middle(np.array([[THIRDS, THIRDS, THIRDS]]), np.array([[0, 1, 2]]))
    assert middle.tolist() == [pytest.approx([0.1, 0.35, 0.75])]
    assert share.tolist() == [pytest.approx([0.2, 0.3, 0.5])]
    logits = np.array([[1.0, 7.0, 4.0], [5.0, 5.0, -9.0]])
    assert margin(make(TokenPolicy, bins=3), logits).tolist() == [3, 0]
    assert margin(make(GaussianPolicy), logits).tolist() == [np.inf, np.inf]


def test_noise_beside_a_step_is_drawn_again() -> None:
    """Steps are at 0.2 and 0.5; whatever lies within 1e-5 of one, or SLACK roundings, hangs on the last bits."""
    params = np.broadcast_to(THIRDS, (2, 2, 3))
    drawn = np.array([[0.2, 0.3], [0.500005, 0.5001]], np.float32)
    assert _avoid_steps(params, drawn, 0.0, np.random.default_rng(0)) == 2
    assert (drawn[0, 1], drawn[1, 1]) == (np.float32(0.3), np.float32(0.5001))
    assert np.abs(drawn[..., None] - [0.2, 0.5]).min() > 1e-5
    assert _avoid_steps(params, drawn, 2e-4 / SLACK, np.random.default_rng(0)) >= 1
    with pytest.raises(UserError, match="decides this policy's tokens"):
        _avoid_steps(params, drawn, 1.0, np.random.default_rng(0))


def test_rounding_is_that_of_the_worst_number() -> None:
    policy = make(GaussianPolicy)
    seen = states(policy, 8, np.random.default_rng(0))
    params = torch_run(policy)(seen, np.zeros((len(seen), 2), np.float32))["params"]
    assert _rounding(policy, seen, params) < 1e-6
    params[3, 1, 0] += 5e-4
    assert _rounding(policy, seen, params) == pytest.approx(5e-4, rel=1e-2)
    params[3, 1, 0] += 1e-3
    with pytest.raises(UserError, match=r"float32 is 1\.50e-03 away from float64 .* more than 0\.001"):
        _rounding(policy, seen, params)


def asked(rounding: float = 0.0, tied: bool = False) -> tuple[Probe, dict[str, np.ndarray]]:
    """Two questions, and answers that are torch's."""
    zeros = np.zeros((2, 2))
    names = ("action", "deterministic_action", "latent", "log_prob")
    answers, found = ({name: zeros.copy() for name in names} for _ in range(2))
    return Probe(zeros, zeros, answers, rounding, np.full((2, 2), tied), redrawn=3), found


@pytest.mark.parametrize(
    ("name", "dimension", "rounding", "allowed"),
    [
        ("action", 0, 0.0, 1e-6),  # of the largest bound, which is 1
        ("action", 1, 0.0, 4e-6),  # and here 4
        ("action", 1, 1e-6, 4 * SLACK * 1e-6),
        ("deterministic_action", 1, 0.0, 4e-6),
        ("log_prob", 0, 0.0, LOG_PROB_TOLERANCE),
        ("log_prob", 1, 1e-4, SLACK * 1e-4),
    ],
)
def test_answers_may_differ_by_what_rounding_explains(
    name: str, dimension: int, rounding: float, allowed: float
) -> None:
    policy = make(GaussianPolicy)
    for sign in (1, -1):
        probe, found = asked(rounding)
        found[name][1, dimension] = sign * 0.99 * allowed
        said = compare(policy, probe, found)
        assert (said.log_prob if name == "log_prob" else said.action) == pytest.approx(0.99 * allowed)
        assert (said.observations, said.rounding, said.redrawn, said.ties) == (2, rounding, 3, 0)
        found[name][1, dimension] = sign * 1.01 * allowed
        with pytest.raises(UserError, match=rf"Runtime's {name} is .* away from torch's \(question 1\)"):
            compare(policy, probe, found)
    found[name][1, dimension] = np.nan
    with pytest.raises(UserError, match=name):
        compare(policy, probe, found)


def test_of_ties_the_most_likely_action_alone_may_be_another() -> None:
    policy = make(TokenPolicy, bins=3)
    probe, found = asked(tied=True)
    found["deterministic_action"][0, 0] = 1
    assert (compare(policy, probe, found).ties, compare(policy, probe, found).action) == (4, 0)
    found["action"][0, 0] = 1
    with pytest.raises(UserError, match="Runtime's action is"):
        compare(policy, probe, found)
    found["latent"][0, 1] = 1
    with pytest.raises(UserError, match="samples 1 tokens of 4 otherwise"):
        compare(policy, probe, found)


def test_equal_logits_are_a_tie_and_no_others() -> None:
    """Of three bins the first two have the same weights; the third is far below, or in one dimension far above."""
    policy = make(TokenPolicy, bins=3)
    last: Any = policy.network.actor[-1]  # type: ignore[index]
    with torch.no_grad():
        weight, bias = last.weight.view(2, 3, -1), last.bias.view(2, 3)
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        weight[:, 1] = weight[:, 0]
        bias.copy_(torch.tensor([[0.3, 0.3, -5.0], [0.3, 0.3, 5.0]]))
    found = probe(policy, 8, seed=0)
    assert found.rounding > 0
    assert found.tied.all(0).tolist() == [True, False]
    assert not found.tied[:, 1].any()


def test_golden_vectors_are_the_surest_a_quarter_of_them_extreme() -> None:
    """Of 16 usual questions and 14 extreme ones; how sure the policy is goes round in each kind."""
    policy = make(TokenPolicy, bins=3)
    sure = np.concatenate([np.arange(16) * 7 % 16, np.arange(14) * 3 % 14])
    noises = []

    def run(seen: np.ndarray, drawn: np.ndarray) -> dict[str, np.ndarray]:
        noises.append(drawn)
        params = np.zeros((30, 2, 3), np.float32)
        params[:, 0, 1] = 0.1 * sure  # the least sure dimension counts
        params[:, 1, 1] = 3
        number = np.repeat(np.arange(30)[:, None], 2, 1)
        return dict.fromkeys(("action", "deterministic_action", "log_prob"), number) | {
            "latent": np.ones((30, 2), int), "params": params,
        }  # fmt: skip

    found = golden_vectors(policy, run, seed=5, count=4, choice=4)
    # 7·n mod 16 is 15, 14 and 13 for n of 9, 2 and 11; 3·n mod 14 is 13 for 9, which is question 16 + 9.
    assert [row[0] for row in found.action] == [2, 9, 11, 25]
    asked = states(policy, 16, np.random.default_rng(5))
    assert [list(row) for row in found.observation] == asked[[2, 9, 11, 25]].tolist()
    assert found.noise == tuple((0.5, 0.5) for _ in range(4)), "in the middle of the middle token's share"
    assert len(noises) == 2
    assert (noises[1] == 0.5).all(), "what is kept was answered to the noise that is kept"


def test_a_token_that_rounding_could_miss_is_in_no_golden_vector() -> None:
    """Of four usual questions three are kept: not the one whose noise fell on a token of 2 in a billion."""
    policy = make(TokenPolicy, bins=3)

    def run(seen: np.ndarray, drawn: np.ndarray) -> dict[str, np.ndarray]:
        params, latent = np.zeros((18, 2, 3), np.float32), np.ones((18, 2), int)
        params[..., 1] = 3
        params[2, :, 1], latent[2, 1] = 20, 0
        number = np.repeat(np.arange(18)[:, None], 2, 1)
        return dict.fromkeys(("action", "deterministic_action", "log_prob"), number) | {
            "latent": latent, "params": params,
        }  # fmt: skip

    assert [row[0] for row in golden_vectors(policy, run, seed=5, count=4, choice=1).action][:3] == [0, 1, 3]
