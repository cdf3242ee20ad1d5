"""A shadow is told what it would have done of the same latents, or is refused."""

import threading
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
from robots.divergence import shadows
from robots.log import LogWriter, Session, read_log
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


def test_it_is_asked_of_what_the_acting_policy_saw_and_drew_and_the_log_says_of_which_step(
    artifacts: tuple[OnnxPolicy, OnnxPolicy], tmp_path: Path
) -> None:
    candidate, _ = artifacts
    log = LogWriter(tmp_path / "a.mcap", Session('{"name": "fake"}'))
    shadow = ShadowPolicy(candidate, log)
    rows = [step_row(index, 3, 2) for index in (48, 50)]  # the last but one of an episode, the first of the next
    for row in rows:
        row.observation = np.array([row.step / 16, -1.0, 2.0], np.float32)
        row.latent = np.array([row.step / 50, -0.5], np.float32)
        log.step(row)
        shadow.worker(row)
    shadow.worker.close()
    log.close()
    episodes = read_log(log.path).episodes
    logged = [each for episode in episodes for each in episode.shadows]
    assert [(each["episode"], each["step"]) for each in logged] == [(0, 48), (1, 0)]
    for row, found in zip(rows, logged, strict=True):
        (mean, log_std), noise = candidate.act(row.observation, None, True).params.T, row.latent
        z = (noise - mean) / np.exp(log_std)
        np.testing.assert_allclose(found["log_prob"], -(z**2) / 2 - log_std - np.log(2 * np.pi) / 2, atol=1e-5)
        np.testing.assert_allclose(found["deterministic_action"], np.tanh(mean), atol=1e-6)
    assert str(shadows(episodes)[candidate.policy_id]) == str(shadow.summary())


def test_steps_that_it_does_not_come_to_are_counted() -> None:
    begun, go = threading.Event(), threading.Event()

    class Late(Candidate):
        def log_prob_of(self, observation: np.ndarray, latent: np.ndarray) -> np.ndarray:
            begun.set()
            assert go.wait(60)
            return super().log_prob_of(observation, latent)

    candidate: Any = Late()
    log: Any = SimpleNamespace(shadow=lambda row: None)
    shadow = ShadowPolicy(candidate, log)
    shadow.worker(step_row(1, 5, 2))
    assert begun.wait(60)
    for _ in range(260):  # 256 may wait
        shadow.worker(step_row(1, 5, 2))
    go.set()
    shadow.worker.close(60)
    assert (shadow.summary().steps, shadow.summary().missed) == (257, 4)


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
