"""The audit of a policy without vision: what its episodes say of their noise decides what their actions are held to."""

import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import LogWriter, Session
from robots.review.audit import _drawn, _number, audit, check_steps, check_versions, log_prob_difference, policies_in
from robots.review.chunks import Decisions
from robots.review.findings import Audit
from tests.robots.builders import step_row

STEPS, SEED = 5, 3


def audited(
    path: Path,
    policy: OnnxPolicy,
    deterministic: bool,
    start: dict[str, Any],
    wrong: float = 0.0,
    lost: bool = False,
    first: int = 0,
) -> Audit:
    """Of an episode in which the action of the last step is off by `wrong`, and a log-prob of it may be `lost`."""
    writer, rng = LogWriter(path, Session("{}")), np.random.default_rng([SEED, 0])
    said = {"policy_id": policy.policy_id, "deterministic": deterministic, **start}
    writer.event("episode_start", "", 0, 0, said)
    for index in range(STEPS):
        row = step_row(index, policy.manifest.observation_size, policy.manifest.action_size)
        row.step += first
        decision = policy.act(row.observation, rng, deterministic)
        row.latent, row.log_prob = decision.latent, decision.log_prob
        row.action = decision.action + np.float32(wrong * (index == STEPS - 1))
        row.policy_version, row.valid = policy.manifest.policy_version, not deterministic
        row.source, row.proposed_action = "policy", None
        if lost and index == STEPS - 1:
            row.log_prob = np.full_like(row.log_prob, np.nan)
        writer.step(row)
    writer.close()
    return audit([path], {policy.policy_id: policy})


@pytest.mark.parametrize("kind", ["token", "gaussian"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_actions_are_held_to_the_noise_or_to_the_most_likely_one(
    kind: str, deterministic: bool, policies: dict[str, Path], tmp_path: Path
) -> None:
    policy, seed = OnnxPolicy.load(policies[kind]), {"seed": SEED}
    found = audited(tmp_path / "a.mcap", policy, deterministic, seed)
    assert (found.unreplayed, found.action[policy.policy_id]) == (0, pytest.approx(0, abs=1e-6))
    assert "were not sampled again" not in found.text()
    odd = audited(tmp_path / "b.mcap", policy, deterministic, seed, wrong=0.01)
    assert odd.action[policy.policy_id] == pytest.approx(0.01, abs=1e-6)
    found.check()
    with pytest.raises(
        UserError, match=rf"of {STEPS} actions .*, 1 are not those .*b\.mcap, episode 0, step {STEPS - 1};"
    ):
        odd.check()
    lost = audited(tmp_path / "c.mcap", policy, deterministic, seed, wrong=float("nan"))  # of every step
    with pytest.raises(UserError, match=f"{STEPS} are not those that were logged"):
        lost.check()


def test_beside_a_person_the_policy_is_held_to_what_it_would_have_done(
    policies: dict[str, Path], tmp_path: Path
) -> None:
    policy, writer = OnnxPolicy.load(policies["gaussian"]), LogWriter(tmp_path / "a.mcap", Session("{}"))
    rng = np.random.default_rng([SEED, 0])
    writer.event("episode_start", "", 0, 0, {"policy_id": policy.policy_id, "seed": SEED})
    for index in range(STEPS):
        row = step_row(index, policy.manifest.observation_size, policy.manifest.action_size)
        decision = policy.act(row.observation, rng)
        row.latent, row.log_prob, row.proposed_action = decision.latent, decision.log_prob, decision.action
        row.action = decision.action + np.float32(0.2)
        row.policy_version, row.valid, row.source = policy.manifest.policy_version, False, "person"
        writer.step(row)
    writer.close()
    found = audit([writer.path], {policy.policy_id: policy})
    found.check()
    assert (found.drawn, found.off) == (STEPS, 0)


@pytest.mark.parametrize("off", [0.5, -0.5])
def test_the_difference_of_a_step_is_that_of_its_worst_dimension(policies: dict[str, Path], off: float) -> None:
    policy, rng = OnnxPolicy.load(policies["gaussian"]), np.random.default_rng(0)
    seen = rng.standard_normal((3, policy.manifest.observation_size)).astype(np.float32)
    decision = policy.act(seen, rng)
    logged = decision.log_prob.copy()
    logged[1, 2] += off
    found = log_prob_difference(policy, {"observation": seen, "latent": decision.latent, "log_prob": logged})
    assert found == pytest.approx([0, 0.5, 0], abs=1e-5)


def test_every_step_is_of_the_version_of_its_artifact(policies: dict[str, Path]) -> None:
    policy = OnnxPolicy.load(policies["token"])
    version = policy.manifest.policy_version
    check_versions("a", np.full(3, version), policy)
    for others in ([version, version + 1], [version - 1, version]):
        with pytest.raises(UserError, match=rf"a: logged versions \[{others[0]}, {others[1]}\], the artifact is"):
            check_versions("a", np.array(others), policy)


def test_one_token_beside_in_a_thousand_steps_is_another_processors(policies: dict[str, Path]) -> None:
    policy = OnnxPolicy.load(policies["token"])
    difference = np.zeros((1000, 4))
    difference[7, 2] = 0.1
    found = Audit(steps=Counter({(policy.policy_id, 7): 1000}))
    found.replayed(policy, "a", np.arange(1000), difference)
    found.check()
    found.replayed(policy, "a", np.arange(10), difference[:10])
    with pytest.raises(UserError, match=r"of 1,010 actions .*, 2 are not those that were logged, first a, step 7"):
        found.check()


def test_a_step_that_no_session_makes_draws_no_noise(policies: dict[str, Path], tmp_path: Path) -> None:
    policy = OnnxPolicy.load(policies["token"])
    with pytest.raises(UserError, match=r"a\.mcap, episode 0: it has a step 10,000,000,000,004; no episode"):
        audited(tmp_path / "a.mcap", policy, False, {"seed": SEED}, first=10**13)


@pytest.mark.parametrize(
    ("step", "decisions", "said"),
    [
        (2**63, 1, "it has a step 9,223,372,036,854,775,808; no episode"),
        (0, 10**7, "it has 10,000,000 decisions before step 0; there is at most one a step"),
        (3, -1, "it has -1 decisions before step 3"),
    ],
)
def test_a_handback_that_no_session_makes_draws_no_noise(
    policies: dict[str, Path], tmp_path: Path, step: int, decisions: int, said: str
) -> None:
    policy, writer = OnnxPolicy.load(policies["token"]), LogWriter(tmp_path / "a.mcap", Session("{}"))
    writer.event("episode_start", "", 0, 0, {"policy_id": policy.policy_id, "seed": SEED})
    writer.event("handback", "", 0, step, {"decisions": decisions})
    row = step_row(0, policy.manifest.observation_size, policy.manifest.action_size)
    row.policy_version = policy.manifest.policy_version
    writer.step(row)
    writer.close()
    with pytest.raises(UserError, match=rf"a\.mcap, episode 0: {said}"):
        audit([writer.path], {policy.policy_id: policy})


@pytest.mark.parametrize("kind", ["token", "gaussian"])
def test_steps_far_into_an_episode_are_drawn_as_the_session_drew_them(
    policies: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """What is drawn in pieces, of which not all is kept, is what is drawn step by step."""
    policy, writer = OnnxPolicy.load(policies[kind]), LogWriter(tmp_path / "a.mcap", Session("{}"))
    rng = np.random.default_rng([SEED, 0])
    writer.event("episode_start", "", 0, 0, {"policy_id": policy.policy_id, "seed": SEED})
    for index in range(3000):
        row = step_row(0, policy.manifest.observation_size, policy.manifest.action_size)
        row.step = index
        if index not in (0, 1023, 1024, 2999):
            policy.noise((), rng)
            continue
        decision = policy.act(row.observation, rng)
        row.latent, row.log_prob, row.action = decision.latent, decision.log_prob, decision.action
        row.policy_version, row.source, row.proposed_action = policy.manifest.policy_version, "policy", None
        writer.step(row)
    writer.close()
    found = audit([writer.path], {policy.policy_id: policy})
    found.check()
    assert found.unreplayed == 0


def test_only_what_was_drawn_by_nobody_knows_which_seed_is_left_out(policies: dict[str, Path], tmp_path: Path) -> None:
    policy = OnnxPolicy.load(policies["token"])
    assert audited(tmp_path / "a.mcap", policy, True, {}).unreplayed == 0
    found = audited(tmp_path / "b.mcap", policy, False, {})
    assert found.unreplayed == STEPS
    assert f"{STEPS} steps without a seed were not sampled again" in found.text()


def test_a_log_prob_that_is_no_number_is_not_reproduced(policies: dict[str, Path], tmp_path: Path) -> None:
    found = audited(tmp_path / "a.mcap", OnnxPolicy.load(policies["token"]), False, {"seed": SEED}, lost=True)
    with pytest.raises(UserError, match=f"log-probs are not reproduced to 1e-05: .*, step {STEPS - 1}: off by inf"):
        found.check()


def test_what_a_person_did_against_all_odds_is_held_to_the_rounding_of_its_log_prob(policies: dict[str, Path]) -> None:
    policy, found = OnnxPolicy.load(policies["gaussian"]), Audit()
    logged = np.array([[-3.0, -0.5], [-334.0, -0.5]], np.float32)
    found.take(policy, "a.mcap", np.arange(2), np.array([9e-6, 3e-5]), logged)
    found.steps["a", 1] = 2
    found.check()  # one rounding of a float32 of 334 is 3e-5
    found.take(policy, "b.mcap", np.arange(2), np.array([9e-6, 2e-4]), logged)
    with pytest.raises(UserError, match=r"not reproduced to 1e-05: b\.mcap, step 1: off by 2\.0e-04 nats"):
        found.check()
    found = Audit()
    found.take(policy, "c.mcap", np.arange(2), np.array([1.1e-5, 0]), logged)
    found.steps["a", 1] = 2
    with pytest.raises(UserError, match=r"c\.mcap, step 0: off by 1\.1e-05 nats"):
        found.check()


def test_an_audit_of_no_step_vouches_for_nothing(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    writer.event("episode_start", "", 0, 0, {"policy_id": "p"})
    writer.close()
    with pytest.raises(UserError, match=r"no log-prob was recomputed: the logs have no step"):
        audit([tmp_path / "a.mcap"], {}).check()


def test_a_log_of_which_no_image_was_kept_is_not_audited_whatever_stands_beside_it() -> None:
    found = Audit(steps=Counter({("p", 1): 6}), unseen=3, blind="b.mcap")
    with pytest.raises(
        UserError, match=r"no log-prob of b\.mcap was recomputed: it has no image of what its policy saw"
    ):
        found.check()
    assert found.text().splitlines()[1].split()[3:5] == ["–", "–"], "what was not recomputed is no difference of zero"


@pytest.mark.parametrize(("drift", "said"), [([0.1, 1.2], "0.65"), ([0.1, float("nan")], "nan")])
def test_decoding_a_video_does_not_explain_every_difference(drift: list[float], said: str) -> None:
    Audit(steps=Counter({("p", 1): 2}), drift=[0.1, 0.8]).check()
    found = Audit(steps=Counter({("p", 1): 2}), drift=drift)
    with pytest.raises(UserError, match=rf"frames of videos are off by {said} nats on average, more than the 0\.5"):
        found.check()


def test_a_seed_that_no_generator_takes_is_none(policies: dict[str, Path], tmp_path: Path) -> None:
    assert audited(tmp_path / "a.mcap", OnnxPolicy.load(policies["token"]), False, {"seed": -1}).unreplayed == STEPS


@pytest.mark.parametrize("name", [["x"], {"a": 1}, 5, None])
def test_a_policy_that_is_called_by_no_text_is_not_named(
    name: object, policies: dict[str, Path], tmp_path: Path
) -> None:
    policy = OnnxPolicy.load(policies["token"])
    with pytest.raises(UserError, match="does not say which policy acted"):
        audited(tmp_path / "a.mcap", policy, False, {"policy_id": name})


def test_rows_that_are_not_the_policys_are_refused(policies: dict[str, Path], tmp_path: Path) -> None:
    policy = OnnxPolicy.load(policies["token"])
    writer = LogWriter(tmp_path / "a.mcap", Session("{}"))
    writer.event("episode_start", "", 0, 0, {"policy_id": policy.policy_id})
    row = step_row(0, 5, policy.manifest.action_size)
    row.policy_version = policy.manifest.policy_version
    writer.step(row)
    writer.close()
    with pytest.raises(UserError, match=r"a\.mcap, episode 0: observation has shape \(1, 5\)"):
        audit([writer.path], {policy.policy_id: policy})


def test_decisions_that_are_counted_below_zero_are_not_drawn_again(policies: dict[str, Path], tmp_path: Path) -> None:
    found = audited(tmp_path / "a.mcap", OnnxPolicy.load(policies["token"]), False, {"seed": SEED}, first=-1)
    assert found.unreplayed == STEPS


def test_decisions_are_counted_anew_from_each_handback() -> None:
    """Of three ticks each; a person handed back before step 4, after two of them, and before step 9, after five."""
    handbacks = [{"kind": "handback", "step": step, "data": {"decisions": made}} for step, made in ((4, 2), (9, 5))]
    episode: Any = SimpleNamespace(events=[{"kind": "engage", "step": 0, "data": {}}, *handbacks])
    steps = np.array([0, 2, 3, 4, 6, 7, 8, 9, 11, 12])
    assert _number(episode, steps, 3).tolist() == [0, 0, 1, 2, 2, 3, 3, 5, 5, 6]
    assert _number(episode, steps[3:], 1).tolist() == [2, 4, 5, 6, 5, 7, 8]


@pytest.mark.parametrize(
    ("last", "handbacks", "said"),
    [
        (10**7, [(10**7, 10**7), (5, 5), (0, 0), (7, 0)], ""),
        (10**7 + 1, [], "it has a step 10,000,001; no episode of gipo-robot is longer than 10,000,000"),
        (3, [(10**7 + 1, 1)], "it has a step 10,000,001"),
        (3, [(2, 1), (4, 5)], "it has 5 decisions before step 4"),
    ],
)
def test_there_are_at_most_as_many_decisions_as_steps(last: int, handbacks: list[tuple[int, int]], said: str) -> None:
    events = [{"kind": "handback", "step": step, "data": {"decisions": made}} for step, made in handbacks]
    episode: Any = type("Numbered", (dict,), {"events": events})(step=np.array([0, last]))
    with pytest.raises(UserError, match=f"^a: {said}") if said else nullcontext():
        check_steps("a", episode)


class Seeing:
    """A policy that sees, and decides on two actions of two numbers at once, which are its noise."""

    policy_id = "s" * 64
    manifest = SimpleNamespace(
        vision="a camera", policy_version=7, action_low=(-1.0, -1.0), action_high=(1.0, 1.0),
        layout=SimpleNamespace(decision=(2, 2), decision_size=4),
    )  # fmt: skip
    off = 0.0  # of the first number of a log-prob

    def noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal((*shape, 4), dtype=np.float32)

    def evaluate(self, seen: np.ndarray, noise: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"action": noise, "deterministic_action": noise + 5}

    def log_prob_of(self, seen: np.ndarray, latent: np.ndarray) -> np.ndarray:
        return latent + np.array([self.off, 0.0])  # of which the logs below say that it is their latent


def test_vectors_alone_do_not_give_the_log_probs_of_a_policy_that_sees() -> None:
    policy: Any = Seeing()
    with pytest.raises(UserError, match="sees a camera"):
        log_prob_difference(policy, {name: np.zeros((1, 2)) for name in ("observation", "latent", "log_prob")})


def test_noise_is_drawn_of_any_decisions_in_any_order() -> None:
    policy: Any = Seeing()
    numbers = np.array([1024, 2, 0, 2, 1023])
    all_of_it = np.random.default_rng(1).standard_normal((1025, 4), np.float32)
    np.testing.assert_array_equal(_drawn(policy, np.random.default_rng(1), numbers), all_of_it[numbers])


def seen_by(
    path: Path, policy: Seeing, replan: int = 0, steps: int = 4, first: int = 0, number: int = 0, **start: Any
) -> Path:
    """A log of one episode in which each decision drew noise from the seed 3, and no image nor early step was kept."""
    writer, rng = LogWriter(path, Session("{}")), np.random.default_rng([3, number])
    drawn = rng.standard_normal((9, 4), np.float32)
    said = {"policy_id": policy.policy_id, "instruction": "go", "camera": "c", "replan": replan, **start}
    writer.event("episode_start", "", number, 0, said)
    for index in range(steps):
        row = step_row(index, 5, 2)
        row.episode, row.step = number, first + index
        decision, place = divmod(row.step, replan or 2)
        row.latent = row.log_prob = np.array([index, -index], np.float32)
        row.action, row.policy_version = drawn[decision].reshape(2, 2)[place], 7
        row.source, row.proposed_action, row.chunk_step = "policy", None, place
        writer.step(row)
    writer.close()
    return path


def shows(monkeypatch: pytest.MonkeyPatch, chunks: Mapping[str, list[list[int]]], video: bool = False) -> None:
    """Have a log, by its name, hold the images of these chunks, as indices of their steps."""

    def found(path: Path, acted: Any) -> Any:
        if steps := chunks.get(path.name):
            yield Decisions(next(iter(acted)), np.zeros((len(steps), 9), np.float32), np.array(steps), video)

    monkeypatch.setattr("robots.review.audit.decisions", found)


@pytest.mark.parametrize(("number", "first"), [(0, 0), (2, 4)])
@pytest.mark.parametrize(("replan", "chunks"), [(0, [[0, 1], [2, 3]]), (1, [[0, -1], [1, -1], [2, -1], [3, -1]])])
def test_each_decision_of_a_chunk_is_drawn_once(
    replan: int, chunks: list[list[int]], number: int, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = Seeing()
    log = seen_by(tmp_path / "a.mcap", policy, replan, first=first, number=number, seed=3)
    shows(monkeypatch, {"a.mcap": chunks})
    found = audit([log], {policy.policy_id: policy})
    found.check()
    assert (found.drawn, found.off, found.unseen, found.unreplayed) == (4, 0, 0, 0)
    assert found.action == {policy.policy_id: 0}


def test_a_step_that_was_not_seen_is_counted_and_one_without_a_seed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = Seeing()
    policy.off = 0.25
    log = seen_by(tmp_path / "a.mcap", policy)
    shows(monkeypatch, {"a.mcap": [[0, 1], [2, -1]]})
    found = audit([log], {policy.policy_id: policy})
    assert (found.unseen, found.unreplayed, found.drawn) == (1, 3, 0)
    assert found.log_prob == {policy.policy_id: 0.25}, "the worst dimension is the difference of a step"


@pytest.mark.parametrize(("seed", "drawn"), [(0, 4), (True, 0), (0.0, 0), ("0", 0), (None, 0)])
def test_zero_is_a_seed_and_what_is_no_whole_number_none(
    seed: object, drawn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = Seeing()
    log = seen_by(tmp_path / "a.mcap", policy, seed=seed)
    shows(monkeypatch, {"a.mcap": [[0, 1], [2, 3]]})
    found = audit([log], {policy.policy_id: policy})
    assert (found.drawn, found.unreplayed) == (drawn, 4 - drawn)


def test_of_a_video_the_differences_are_kept_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy: Any = Seeing()
    policy.off = -0.25
    log = seen_by(tmp_path / "a.mcap", policy, seed=3)
    shows(monkeypatch, {"a.mcap": [[0, 1], [2, -1]]}, video=True)
    found = audit([log], {policy.policy_id: policy})
    assert (found.drift, found.unseen, found.drawn, found.log_prob) == ([0.25] * 3, 1, 0, {})


def test_the_first_log_of_which_nothing_was_seen_is_blind_whatever_was_missing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Any = Seeing()
    logs = [seen_by(tmp_path / f"{name}.mcap", policy, steps=steps) for name, steps in (("a", 4), ("b", 2), ("c", 2))]
    empty = LogWriter(tmp_path / "0.mcap", Session("{}"))
    empty.close()
    shows(monkeypatch, {"a.mcap": [[0, 1], [2, -1]]})
    found = audit([empty.path, *logs], {policy.policy_id: policy})
    assert (found.blind, found.unseen) == (str(logs[1]), 1 + 2 + 2)
    assert found.steps == {(policy.policy_id, 7): 8}


def test_the_artifacts_of_a_folder_are_those_that_lie_in_it(policies: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "older").mkdir()
    shutil.copy(policies["token"], tmp_path / "a.onnx")
    shutil.copy(policies["gaussian"], tmp_path / "older" / "b.onnx")
    for name in ("c.onnx", "d.onnx"):
        (tmp_path / name).write_bytes(b"")
    found, left_out = policies_in(tmp_path)
    token = OnnxPolicy.load(policies["token"])
    assert {name: each.policy_id for name, each in found.items()} == {token.policy_id: token.policy_id}
    assert [each.partition(": ")[0] for each in left_out] == [str(tmp_path / name) for name in ("c.onnx", "d.onnx")]
    (tmp_path / "a.onnx").unlink()
    with pytest.raises(UserError, match=rf"no artifact in {tmp_path}; .*c\.onnx: .*; .*d\.onnx: "):
        policies_in(tmp_path)
    for path in (tmp_path / "none", tmp_path / "c.onnx"):
        with pytest.raises(UserError, match=f"--policies {path} is no folder"):
            policies_in(path)
