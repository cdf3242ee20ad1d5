"""The audit: what sources say of their policies, recomputed from the artifacts."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from datamodules.ingest.metadata import AuditFacts
from datamodules.ingest.pictures import PictureWriter
from deploy.runtime.acting import ActingPolicy
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.review.audit import log_prob_difference
from robots.review.tolerances import TOLERANCE

SERVED = " here; a network in bfloat16 computes otherwise on another kind of device than the one that served it"
AT_ONCE = 64  # decisions of a policy that sees; their images take memory


class Shown(NamedTuple):
    """What the policy of an episode saw and was told, beside its observations."""

    pictures: PictureWriter
    instruction: str

    def lossy(self, columns: Mapping[str, np.ndarray]) -> bool:
        """Whether the pictures of a camera are frames of videos, all of them: one image says what was seen."""
        every = columns.get("picture", np.empty((0, 0), np.int64))
        there = [[each for each in camera if each >= 0] for camera in every.T.tolist()]
        return any(camera and all(map(self.pictures.of_video, camera)) for camera in there)

    def images(self, numbers: np.ndarray, cameras: tuple[str, ...]) -> np.ndarray | dict[str, np.ndarray]:
        """What cameras saw at one moment, of the numbers of their pictures; by name where the policy has names."""
        seen = [self.pictures.pixels(number) for number in numbers.tolist()]
        return dict(zip(cameras, seen, strict=False)) if cameras else np.concatenate(seen, -1)


class Auditor:
    """Recomputes a share of the log-probs of each episode, and all of one that was logged as video.

    Args:
        artifacts: policy_id → file.
        share: of the steps of each episode, in (0, 1]; 0 recomputes nothing.
        tolerance: nats by which a log-prob may differ that is recomputed from a video.
    """

    def __init__(self, artifacts: Mapping[str, str], share: float, tolerance: float):
        self._artifacts, self._share, self._tolerance = artifacts, share, tolerance
        self._policies: dict[str, ActingPolicy] = {}
        self._steps = self._unlike = 0
        self._largest: dict[str, float] = {}
        self._drift: list[np.ndarray] = []

    def facts(self) -> AuditFacts:
        """What was found so far."""
        drift = np.concatenate([np.zeros(0), *self._drift])
        mean, most = (float(drift.mean()), float(drift.max())) if len(drift) else (0.0, 0.0)
        return AuditFacts(self._share, self._steps, dict(self._largest), len(drift), mean, most, self._unlike)

    def check(self, policy_id: str | None, columns: dict[str, np.ndarray], shown: Shown) -> None:
        """Refuse an episode whose log-probs do not come out.

        Of a policy that sees, steps are passed over whose decision, or the image of it, is not there. Where its images
        were logged as video, steps that differ by more than the tolerance are made not `valid` instead.

        Raises:
            UserError: naming the step with the largest difference, or the artifact that is missing.
        """
        lossy = shown.lossy(columns)
        rows = chosen(columns["valid"], 1.0 if lossy and self._share else self._share)
        if not len(rows):
            return
        if policy_id is None:
            raise UserError(
                "it has log-probs and names no policy that they could be checked with; data.ingest.audit=0 trusts them"
            )
        policy = self._policy(policy_id)
        if policy.manifest.vision is None:
            picked = {name: columns[name][rows] for name in ("observation", "latent", "log_prob")}
            difference = log_prob_difference(policy, picked)
        else:
            rows, difference = seen_difference(policy, columns, rows, shown)
        self._steps += len(rows)
        if lossy:
            self._leave_out(columns, rows, difference)
        elif len(rows):
            self._refuse(policy_id, columns["step"][rows], difference)

    def _refuse(self, policy_id: str, step: np.ndarray, difference: np.ndarray) -> None:
        worst = int(difference.argmax())
        if not difference[worst] <= TOLERANCE:
            served = "" if self._artifacts[policy_id].endswith(".onnx") else SERVED
            raise UserError(
                f"step {step[worst]}: log_prob is off by {difference[worst]:.1e} nats from what "
                f"policy {policy_id[:12]}… gives{served}"
            )
        self._largest[policy_id] = max(self._largest.get(policy_id, 0.0), float(difference[worst]))

    def _leave_out(self, columns: dict[str, np.ndarray], rows: np.ndarray, difference: np.ndarray) -> None:
        unlike = rows[~(difference <= self._tolerance)]
        columns["valid"] = columns["valid"].copy()
        columns["valid"][unlike], columns["log_prob"][unlike] = False, 0
        self._unlike += len(unlike)
        self._drift.append(difference)

    def _policy(self, policy_id: str) -> ActingPolicy:
        if policy_id not in self._policies:
            if policy_id not in self._artifacts:
                raise UserError(
                    f"no artifact of policy {policy_id} is there to audit its log-probs; put its .onnx beside the "
                    "logs, or name its folder, or that of the checkpoint that was served, in data.ingest.policies, "
                    "or trust the source with data.ingest.audit=0"
                )
            self._policies[policy_id] = _loaded(self._artifacts[policy_id], policy_id)
        return self._policies[policy_id]


def _loaded(path: str, policy_id: str) -> ActingPolicy:
    """The policy of an artifact, or of a checkpoint that a server answered from."""
    if path.endswith(".onnx"):
        return OnnxPolicy.load(path, require_id=policy_id)
    from deploy.export.checkpoint_policy import CheckpointPolicy  # torch, which a worker needs for nothing else

    return CheckpointPolicy(path, timeless=True)


def chosen(valid: np.ndarray, share: float) -> np.ndarray:
    """Indices of ⌈share · n⌉ of the n valid rows, evenly spaced from the first to the last."""
    rows = np.flatnonzero(valid)
    count = int(np.ceil(share * len(rows)))
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)] if count else rows[:0]


def seen_difference(
    policy: ActingPolicy, columns: Mapping[str, np.ndarray], rows: np.ndarray, shown: Shown
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that can be recomputed from what was seen, and of each the largest |Δ log-prob| [n], nats.

    Args:
        policy: that decides on chunks by images.
        columns: of an episode.
        rows: [T] indices of steps.
        shown: what it saw and was told.

    Raises:
        UserError: when an image cannot be decoded, or does not fit the policy.
    """
    step, place = columns["step"][rows], columns["chunk_step"][rows]
    begun = np.searchsorted(columns["step"], step - place)  # of each row, that of its decision's first step
    there = (columns["step"][begun] == step - place) & (columns["chunk_step"][begun] == 0)
    rows, begun = (values[there & (columns["picture"][begun] >= 0).all(1)] for values in (rows, begun))
    cameras = () if policy.manifest.vision is None else policy.manifest.vision.cameras
    decided, which = np.unique(begun, return_inverse=True)
    difference = np.zeros(len(rows))
    for first in range(0, len(decided), AT_ONCE):
        mine = np.flatnonzero((which >= first) & (which < first + AT_ONCE))
        some = decided[first : first + AT_ONCE]
        try:
            seen = [
                policy.row(columns["observation"][row], shown.images(pictures, cameras), shown.instruction)
                for row, pictures in zip(some.tolist(), columns["picture"][some], strict=True)
            ]
        except ValueError as error:
            raise UserError(str(error)) from error
        at = which[mine] - first, columns["chunk_step"][rows[mine]]
        latent = np.zeros((len(some), *policy.manifest.layout.decision), columns["latent"].dtype)
        latent[at] = columns["latent"][rows[mine]]
        again = policy.log_prob_of(np.stack(seen), latent)[at]
        difference[mine] = np.abs(again - columns["log_prob"][rows[mine]]).max(1)
    return rows, difference
