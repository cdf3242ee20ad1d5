"""Latents of anybody's actions are those that training would say, and a policy's word on them is its log-prob."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deploy.runtime.latents import LatentMap
from deploy.runtime.layout import Layout
from deploy.runtime.manifest import Golden
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy
from tests.deploy.builders import save

BOUNDS = ((-1.0, -0.3, 0.0), (1.0, 0.7, 2.0))
KINDS = {
    "token": lambda spaces: TokenPolicy(spaces, bins=9),
    "tanh": lambda spaces: GaussianPolicy(spaces, squash=True),
    "clip": lambda spaces: GaussianPolicy(spaces, squash=False),
}


@pytest.fixture(params=KINDS, scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, OnnxPolicy]:
    from deploy.export.artifact import export

    torch.manual_seed(0)
    policy = KINDS[request.param](Spaces(5, *BOUNDS))
    folder = tmp_path_factory.mktemp("latents")
    path = folder / "p.onnx"
    export(save(policy, folder / "p.ckpt", interface=None), path, rate=50.0, observations=16)
    return policy, OnnxPolicy.load(path)


def test_the_latent_of_any_action_is_that_of_training(exported: tuple[Policy, OnnxPolicy]) -> None:
    policy, armed = exported
    rng = np.random.default_rng(0)
    low, high = np.array(BOUNDS)
    actions = rng.uniform(low - 0.2, high + 0.2, (500, 3))  # a person's may be outside
    expected = policy.from_env(torch.tensor(actions, dtype=torch.float32)).numpy()
    found = armed.latents.latent(actions)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=2e-3)
    inside = rng.uniform(low, high, (500, 3))
    again = armed.latents.action(armed.latents.latent(inside))
    width = 0.51 / 8 if armed.manifest.family == "token" else 2e-3
    assert (np.abs(again - inside) <= width * (high - low)).all()


def test_a_policys_word_on_a_persons_action_is_its_log_prob(exported: tuple[Policy, OnnxPolicy]) -> None:
    _, armed = exported
    rng = np.random.default_rng(1)
    for _ in range(20):
        seen = rng.standard_normal(5).astype(np.float32)
        decision = armed.act(seen, rng)
        judged = armed.judged(decision, np.array([0.3, -0.2, 1.9]))
        np.testing.assert_allclose(judged.log_prob, armed.log_prob_of(seen, judged.latent), atol=1e-6)
        assert judged.action.dtype == judged.log_prob.dtype == np.float32


def test_a_policy_that_makes_actions_in_a_way_of_its_own_is_refused(exported: tuple[Policy, OnnxPolicy]) -> None:
    golden: Golden = exported[1].manifest.golden
    turned = replace(golden, action=tuple(tuple(reversed(row)) for row in golden.action))
    with pytest.raises(UserError, match=r"makes its actions in a way of its own.*nobody can take over"):
        LatentMap.of(replace(exported[1].manifest, golden=turned))


@pytest.mark.parametrize(("way", "action"), [("tanh", 2 * np.tanh(0.5)), ("clip", 1.0)])
def test_how_small_latents_become_actions_is_told_by_more_than_a_ten_thousandth(way: str, action: float) -> None:
    """Within ±½ the two ways are 4 % of the half range apart; float32 moves an action by far less."""
    for moved, found in ((0.0, way), (3e-4, way), (5e-4, None)):
        golden = SimpleNamespace(latent=((0.0,), (0.5,)), action=((0.0,), (action + moved,)))
        manifest: Any = SimpleNamespace(
            family="gaussian", action_low=(-2.0,), action_high=(2.0,), layout=Layout(1, 1), golden=golden
        )
        if found:
            assert LatentMap.of(manifest).way == found
        else:
            with pytest.raises(UserError, match="in a way of its own"):
                LatentMap.of(manifest)
