"""Recompute what a log says of its policies from their artifacts alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import Episode, read_logs
from robots.review.chunks import Decisions, decisions, started
from robots.review.findings import Audit
from robots.session.options import RANGES

DRAWN = 1024  # decisions whose noise is drawn at once


def policies_in(folder: str | Path) -> tuple[dict[str, OnnxPolicy], list[str]]:
    """Every artifact in a folder by its policy_id, and why others were left out that are called so.

    Raises:
        UserError: when there is no such folder, or nothing in it is an artifact.
    """
    if not Path(folder).is_dir():
        raise UserError(f"--policies {folder} is no folder")
    found, left_out = {}, []
    for path in sorted(Path(folder).glob("*.onnx")):
        try:
            policy = OnnxPolicy.load(path)
        except UserError as error:
            left_out.append(str(error))
        else:
            found[policy.policy_id] = policy
    if not found:
        raise UserError("; ".join([f"no artifact in {folder}", *left_out]))
    return found, left_out


def audit(logs: Iterable[str | Path], policies: Mapping[str, OnnxPolicy]) -> Audit:
    """Recompute every log-prob and every sampled action; of a person's step, what the policy that looked on thought.

    Raises:
        UserError: when a log is damaged or named twice, or names a policy or version that is not there.
    """
    found = Audit()
    for path, log in read_logs(logs):
        seeing, unseen = {}, found.unseen
        for episode in log.episodes:
            where = f"{path}, episode {episode.number}"
            policy = policy_of(where, episode.policy_id, policies)
            check_versions(where, episode["policy_version"], policy)
            check_steps(where, episode)
            found.count(policy, episode)
            if policy.manifest.vision is None:
                _audit_steps(found, where, episode, policy)
            else:
                seeing[episode.number] = (episode, policy)
                found.unseen += len(episode)
        for some in decisions(path, seeing):
            _audit_decisions(found, path, some, *seeing[some.episode])
        if 0 < sum(map(len, log.episodes)) == found.unseen - unseen:
            found.blind = found.blind or str(path)
    return found


def _audit_steps(found: Audit, where: str, episode: Episode, policy: OnnxPolicy) -> None:
    try:
        difference = log_prob_difference(policy, episode.columns)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    found.take(policy, where, episode["step"], difference, episode["log_prob"])
    again = _action_again(policy, episode, episode["observation"], episode["step"])
    if again is None:
        found.unreplayed += len(episode)
    else:
        found.replayed(policy, where, episode["step"], again - episode["proposed_action"])


def _audit_decisions(found: Audit, path: str | Path, some: Decisions, episode: Episode, policy: OnnxPolicy) -> None:
    known = some.steps >= 0
    steps = some.steps[known]
    latent = np.where(known[..., None], episode["latent"][some.steps], 0)  # one that exists, where there is none
    again = policy.log_prob_of(some.seen, latent)[known]
    difference = np.abs(again - episode["log_prob"][steps]).max(1)
    found.unseen -= len(steps)
    if some.video:
        found.drift += difference.tolist()
        return
    where = f"{path}, episode {episode.number}"
    found.take(policy, where, episode["step"][steps], difference, episode["log_prob"][steps])
    length = started(episode)["replan"] or some.steps.shape[1]
    decided = _action_again(policy, episode, some.seen, episode["step"][some.steps[:, 0]], length)
    if decided is None:
        found.unreplayed += len(steps)
        return
    drawn = decided.reshape(latent.shape)[known]
    found.replayed(policy, where, episode["step"][steps], drawn - episode["proposed_action"][steps])


def policy_of(where: str, name: str | None, policies: Mapping[str, OnnxPolicy]) -> OnnxPolicy:
    """The artifact of the policy that acted, among those given.

    Raises:
        UserError: when nobody says which, or it is not there.
    """
    if name is None:
        raise UserError(f"{where}: the log does not say which policy acted")
    if name not in policies:
        raise UserError(
            f"{where}: policy {name} is unknown; put its artifact into the folder (a checkpoint that was served has "
            "none: gipo fit audits its logs, with the checkpoint's folder as data.ingest.policies)"
        )
    return policies[name]


def check_versions(where: str, versions: np.ndarray, policy: OnnxPolicy) -> None:
    """Refuse logged policy versions [T] that are not the artifact's.

    Raises:
        UserError: listing them.
    """
    found, known = sorted(set(versions.tolist())), policy.manifest.policy_version
    if found != [known]:
        raise UserError(f"{where}: logged versions {found}, the artifact is {known}")


def check_steps(where: str, episode: Episode) -> None:
    """Refuse numbers of steps or decisions that no session makes: so much noise would be drawn.

    Raises:
        UserError: naming the number.
    """
    most = int(RANGES["steps"][1])
    returns = [event for event in episode.events if event["kind"] == "handback"]
    number = max(int(episode["step"].max()), *(event["step"] for event in returns), 0)
    if number > most:
        raise UserError(f"{where}: it has a step {number:,}; no episode of gipo-robot is longer than {most:,}")
    for event in returns:
        step, decided = event["step"], event["data"]["decisions"]
        if not 0 <= decided <= step:
            raise UserError(f"{where}: it has {decided:,} decisions before step {step:,}; there is at most one a step")


def log_prob_difference(policy: ActingPolicy, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Largest |Δ log-prob| [T] over the dimensions of each row between what was logged and what the policy gives.

    Args:
        policy: that acted.
        rows: `observation` [T, O], `latent` [T, D] and `log_prob` [T, D].

    Raises:
        UserError: the policy sees more than the observation.
    """
    if policy.manifest.vision is not None:
        raise UserError(f"policy {policy.policy_id} sees a camera: vectors alone do not give its log-probs again")
    again = policy.log_prob_of(rows["observation"], rows["latent"])
    return np.abs(again - rows["log_prob"]).max(1)


def _action_again(
    policy: OnnxPolicy, episode: Episode, seen: np.ndarray, steps: np.ndarray, length: int = 1
) -> np.ndarray | None:
    """What the policy does [N, K] where it decides: by the episode's generator, or the most likely if none was drawn.

    Args:
        policy: that acted.
        episode: in which it did.
        seen: [N, R] what it saw.
        steps: [N] of the decisions.
        length: ticks from one decision to the next.

    Returns:
        None where nobody says how the noise was drawn.
    """
    if episode.deterministic:
        none = np.zeros((len(seen), policy.manifest.layout.decision_size))
        return policy.evaluate(seen, none)["deterministic_action"]
    seed = episode.start.get("seed")
    if type(seed) is not int or seed < 0:
        return None
    numbers = _number(episode, episode["step"], length)
    if numbers.min() < 0:
        return None
    noise = _drawn(policy, np.random.default_rng([seed, episode.number]), _number(episode, steps, length))
    return policy.evaluate(seen, noise)["action"]


def _drawn(policy: OnnxPolicy, rng: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """The noise [N, K] of the decisions `numbers` [N]; all before the last are drawn, and no more of them are held."""
    wanted, places = np.unique(numbers, return_inverse=True)
    kept = []
    for first in range(0, int(wanted[-1]) + 1, DRAWN):
        noise = policy.noise((DRAWN,), rng)
        kept.append(noise[wanted[(first <= wanted) & (wanted < first + DRAWN)] - first])
    return np.concatenate(kept)[places]


def _number(episode: Episode, steps: np.ndarray, length: int) -> np.ndarray:
    """Which decision of its episode each of the steps [T] is of: one each `length` ticks, and anew after a person."""
    returns = [event for event in episode.events if event["kind"] == "handback"]
    begun = np.array([0, *(event["step"] for event in returns)])
    before = np.array([0, *(event["data"]["decisions"] for event in returns)])
    since = np.searchsorted(begun, steps, side="right") - 1
    found: np.ndarray = before[since] + (steps - begun[since]) // length
    return found
