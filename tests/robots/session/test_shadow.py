"""A shadow is told what it would have done of the same latents, or is refused."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.policies import GaussianPolicy, Spaces
from robots.session.shadow import ShadowPolicy, check_comparable
from tests.deploy.builders import save
from tests.robots.builders import step_row


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxPolicy, OnnxPolicy]:
    """Of equal weights, whose latents become actions by tanh and by a clip."""
    from deploy.export.artifact import export

    def made(folder: Path, squash: bool) -> OnnxPolicy:
        torch.manual_seed(0)
        policy = GaussianPolicy(Spaces(3, (-1.0, -1.0), (1.0, 1.0)), squash=squash)
        export(save(policy, folder / "p.ckpt", interface=None), folder / "p.onnx", rate=50.0, observations=16)
        return OnnxPolicy.load(folder / "p.onnx")

    squashed, clipped = (made(tmp_path_factory.mktemp("shadow"), squash) for squash in (True, False))
    return squashed, clipped


def test_equal_latents_that_are_other_actions_are_refused(artifacts: tuple[OnnxPolicy, OnnxPolicy]) -> None:
    squashed, clipped = artifacts
    check_comparable(squashed, squashed)
    with pytest.raises(UserError, match="makes actions of latents by clip, the acting one by tanh"):
        check_comparable(clipped, squashed)


def test_the_divergence_is_its_estimate_wherever_the_shadow_gives_no_support(
    artifacts: tuple[OnnxPolicy, OnnxPolicy],
) -> None:
    log: Any = None  # to which nothing is written here
    shadow = ShadowPolicy(artifacts[0], log)
    try:
        assert np.isnan(shadow.summary().kl)  # of nothing there is no estimate
        shadow._log_ratios = [-200.0, 0.0]  # eˣ − 1 − x = 199 and 0
        assert shadow.summary().kl == pytest.approx(99.5)
    finally:
        shadow.worker.close()


class Candidate:
    """Gives every latent the same log-probs, and would always take the same action."""

    policy_id, manifest = "c" * 64, SimpleNamespace(policy_version=9)

    def log_prob_of(self, observation: np.ndarray, latent: np.ndarray) -> np.ndarray:
        return np.array([-0.5, -1.0])

    def act(self, observation: np.ndarray, rng: Any, deterministic: bool = False) -> Any:
        assert deterministic
        return SimpleNamespace(action=np.array([0.5, 0.0]))


@pytest.mark.parametrize("sampled", [True, False])
def test_what_the_acting_policy_chose_is_scored_and_what_a_person_did_is_only_logged(sampled: bool) -> None:
    rows: list[Any] = []
    log: Any = SimpleNamespace(shadow=rows.append)
    candidate: Any = Candidate()
    shadow = ShadowPolicy(candidate, log, sampled)
    for index, proposed in enumerate((None, np.zeros(2, np.float32))):
        row = step_row(7 + index, 5, 2)
        row.action, row.log_prob, row.proposed_action = np.array([0.0, -0.25]), np.array([-1.0, -2.0]), proposed
        shadow.worker(row)
    shadow.worker.close()
    assert [(row.step, row.policy_id, row.policy_version) for row in rows] == [(7, "c" * 64, 9), (8, "c" * 64, 9)]
    assert [row.log_prob.tolist() for row in rows] == [[-0.5, -1.0]] * 2
    assert [row.deterministic_action.tolist() for row in rows] == [[0.5, 0.0]] * 2
    found = shadow.summary()
    assert (found.steps, found.missed) == (1, 0)
    assert found.action_distance == pytest.approx((0.5 + 0.25) / 2)
    # x = log q − log p = (−0.5 − 1) − (−1 − 2) = 1.5: eˣ − 1 − x
    assert found.kl == (pytest.approx(np.exp(1.5) - 2.5) if sampled else pytest.approx(np.nan, nan_ok=True))


def actor(family: str = "token", size: int = 2, parameters: int = 16, vision: Any = None) -> Any:
    manifest = SimpleNamespace(family=family, action_size=size, parameters_per_dimension=parameters, vision=vision)
    return SimpleNamespace(manifest=manifest, latents=SimpleNamespace(way="tanh"))


@pytest.mark.parametrize(
    ("candidate", "incumbent", "said"),
    [
        (actor(), actor(), ""),
        (actor("gaussian", parameters=2), actor("gaussian", parameters=3), ""),
        (actor(vision="it sees"), actor(), "with vision"),
        (actor(), actor(vision="it sees"), "with vision"),
        (actor(size=3), actor(), "cannot score the latents"),
        (actor(parameters=8), actor(), r"\(token, 8 parameters a dimension\) cannot score .* \(token, 16\)"),
        (actor("gaussian", parameters=16), actor(), "cannot score"),
    ],
)
def test_only_latents_of_its_own_kind_can_be_scored(candidate: Any, incumbent: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) if said else nullcontext():
        check_comparable(candidate, incumbent)
