"""Recompute what a log says of its policies from their artifacts alone."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deploy.runtime.acting import ActingPolicy
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.common.tables import table
from gipo.common.transition import SOURCES
from robots.log import Episode, read_logs
from robots.review.chunks import Decisions, decisions, started
from robots.session.options import RANGES

TOLERANCE = 1e-5  # nats; what a logged log-prob may differ from the recomputed one …
ROUNDINGS = 4  # … or so many of float32's, where that is more: a person may do what the policy would hardly ever
OFF = 1e-4  # of an action's range; what a logged action may differ from the one that is sampled again
# Of the steps; where another processor rounds a probability otherwise, a noise next to it draws the token beside.
OFF_SHARE = 1e-3


@dataclass
class Audit:
    """How far logs are from what their artifacts give again, over everything audited.

    Args:
        log_prob: policy_id → largest |Δ log-prob|, nats.
        action: policy_id → largest |Δ action| between the logged action and the one that its noise gives again, or the
            most likely one of an episode that drew none.
        steps: (policy_id, policy_version) → steps, whoever chose their actions.
        others: the same → steps of them that a person commanded, and that were held.
        unreplayed: steps whose episode does not say its seed.
        unseen: steps of policies with vision whose decision's image or first step was dropped.
        worst: where the largest difference is, in words.
        beyond: the same of the steps whose difference no rounding explains; empty where there is none.
        drawn: steps whose action was sampled again.
        off: those of them whose action is another.
        first_off: where the first of these is, in words.
        drift: |Δ log-prob| of each step that was recomputed from a video, nats.
    """

    log_prob: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    action: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    steps: Counter[tuple[str, int]] = field(default_factory=Counter)
    others: dict[tuple[str, int], np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(2, int)))
    unreplayed: int = 0
    unseen: int = 0
    worst: str = ""
    beyond: str = ""
    drawn: int = 0
    off: int = 0
    first_off: str = ""
    drift: list[float] = field(default_factory=list)

    def take(
        self, policy: OnnxPolicy, where: str, step: np.ndarray, difference: np.ndarray, logged: np.ndarray
    ) -> None:
        """Note how far log-probs of steps [T] are, [T] nats, from those `logged`, [T, D]."""
        largest = _largest(difference)
        said = f"{where}, step {step[int(difference.argmax())]}: off by {largest:.1e} nats"
        if largest >= self.log_prob[policy.policy_id]:
            self.worst, self.log_prob[policy.policy_id] = said, largest
        # NaN is within nothing, and has no spacing either.
        allowed = np.maximum(TOLERANCE, ROUNDINGS * np.spacing(np.abs(logged.astype(np.float32))).max(1))
        if not (difference <= allowed).all():
            self.beyond = self.beyond or said

    def count(self, policy: OnnxPolicy, episode: Episode) -> None:
        """Count the steps of an episode, and who chose their actions."""
        who = (policy.policy_id, policy.manifest.policy_version)
        self.steps[who] += len(episode)
        self.others[who] += [int((episode["source"] == SOURCES.index(name)).sum()) for name in ("person", "hold")]

    def replayed(self, policy: OnnxPolicy, where: str, step: np.ndarray, difference: np.ndarray) -> None:
        """Note how far actions that were sampled again, of steps [T], are from those logged, [T, D]."""
        self.action[policy.policy_id] = max(self.action[policy.policy_id], _largest(np.abs(difference)))
        span = np.subtract(policy.manifest.action_high, policy.manifest.action_low)
        off = ~(np.abs(difference) <= OFF * span).all(1)  # NaN is within nothing
        self.drawn, self.off = self.drawn + len(off), self.off + int(off.sum())
        if off.any() and not self.first_off:
            self.first_off = f"{where}, step {step[int(off.argmax())]}"

    def check(self) -> None:
        """Refuse logs whose log-probs or actions the artifacts do not reproduce, or of which none was recomputed.

        Raises:
            UserError: naming the worst step.
        """
        if self.unseen == self.steps.total():
            missing = "image of what their policy saw" if self.unseen else "step"
            raise UserError(f"no log-prob was recomputed: the logs have no {missing}")
        if self.beyond:
            raise UserError(f"log-probs are not reproduced to {TOLERANCE:g}: {self.beyond}")
        if self.off > OFF_SHARE * self.drawn:
            raise UserError(
                f"of {self.drawn:,} actions that were sampled again, {self.off:,} are not those that were logged, "
                f"first {self.first_off}; was each drawn from the noise of its episode's seed?"
            )

    def text(self) -> str:
        """The audit as a table for a terminal: a row for each policy and version."""
        head = ("policy", "version", "steps", "max |Δ log-prob|", "max |Δ action|", "a person's", "held")
        rows = [
            (
                f"{name[:12]}…", version, f"{count:,}", f"{self.log_prob[name]:.1e}", f"{self.action[name]:.1e}",
                *(f"{other:,}" for other in self.others[name, version]),
            )
            for (name, version), count in sorted(self.steps.items())
        ]  # fmt: skip
        text = table(head, rows)
        if self.unseen:
            text += f"\n{self.unseen:,} steps were not recomputed: the log has no image of what their policy saw"
        if self.drift:
            text += (
                f"\nof {len(self.drift):,} steps whose images are a video's, log-probs differ by "
                f"{np.mean(self.drift):.2g} nats on average, {max(self.drift):.2g} at most: what decoding has changed"
            )
        return text + (f"\n{self.unreplayed:,} steps without a seed were not sampled again" if self.unreplayed else "")


def _largest(differences: np.ndarray) -> float:
    """The largest of them; infinite where one is NaN, which no comparison finds to be too large."""
    found = float(differences.max())
    return math.inf if math.isnan(found) else found


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
        seeing = {}
        for episode in log.episodes:
            where = f"{path}, episode {episode.number}"
            policy = policy_of(where, episode.policy_id, policies)
            check_versions(where, episode["policy_version"], policy)
            check_steps(where, episode)
            found.count(policy, episode)
            if policy.manifest.vision is not None:
                seeing[episode.number] = (episode, policy)
                found.unseen += len(episode)
                continue
            try:
                difference = log_prob_difference(policy, episode.columns)
            except ValueError as error:
                raise UserError(f"{where}: {error}") from error
            found.take(policy, where, episode["step"], difference, episode["log_prob"])
            again = _action_again(policy, episode, episode["observation"], episode["step"])
            if again is None:
                found.unreplayed += len(episode)
                continue
            found.replayed(policy, where, episode["step"], again - episode["proposed_action"])
        for some in decisions(path, seeing):
            _audit_decisions(found, path, some, *seeing[some.episode])
    return found


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
    decided = [event["data"]["decisions"] for event in episode.events if event["kind"] == "handback"]
    number = max(int(episode["step"].max()), *decided, 0)
    if number > most:
        raise UserError(f"{where}: it has a step {number:,}; no episode of gipo-robot is longer than {most:,}")


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
    noise = policy.noise((int(numbers.max()) + 1,), np.random.default_rng([seed, episode.number]))
    return policy.evaluate(seen, noise[_number(episode, steps, length)])["action"]


def _number(episode: Episode, steps: np.ndarray, length: int) -> np.ndarray:
    """Which decision of its episode each of the steps [T] is of: one each `length` ticks, and anew after a person."""
    returns = [event for event in episode.events if event["kind"] == "handback"]
    begun = np.array([0, *(event["step"] for event in returns)])
    before = np.array([0, *(event["data"]["decisions"] for event in returns)])
    since = np.searchsorted(begun, steps, side="right") - 1
    found: np.ndarray = before[since] + (steps - begun[since]) // length
    return found
