"""How sources become a store."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.ingest.rewards import logged
from gipo.common.errors import UserError
from robots.review.tolerances import VIDEO_TOLERANCE


@dataclass(frozen=True)
class IngestOptions:
    """How sources are read, checked and converted.

    Args:
        policies: folders with the artifacts (`.onnx`), or checkpoints that were served (`.ckpt`), that the audit
            recomputes log-probs with; unless given, artifacts in the folders of the sources, and in their parents.
        audit: share of the steps of each episode whose log-probs are recomputed, in (0, 1], evenly spaced; 0 trusts
            the sources.
        video_tolerance: nats by which the log-prob of a step may differ where it is recomputed from a video, which does
            not quite show what the policy saw; a step that differs by more stays out of ratios.
        camera: of datasets, whose videos are kept for policies that see, by the name of its feature, or a list of them
            in the policy's order; a robot's log says what its policy saw.
        bad_episodes: `refuse` raises at the first one; `skip` leaves them out and names them in `Facts.skipped`, and
            decodes every image to find those that cannot be.
        reward: of the steps of an episode, a `datamodules.ingest.rewards.Reward`. It runs in this process.
        cache: folder of the stores; unless given, `$XDG_CACHE_HOME/gipo` or `~/.cache/gipo`.
        workers: processes that read, one source file each; as many as there are cores unless given, or one where a
            served checkpoint is audited, whose model each would load; and this process alone where one is enough.

    Raises:
        UserError: naming the option that is not allowed.
    """

    policies: str | Path | Sequence[str | Path] | None = None
    audit: float = 0.05
    video_tolerance: float = VIDEO_TOLERANCE
    camera: str | list[str] | None = None
    bad_episodes: Literal["refuse", "skip"] = "refuse"
    reward: Callable = logged  # bare, because jsonargparse takes a `Reward` for a class to build
    cache: str | Path | None = None
    workers: int | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras of datasets whose videos are kept."""
        return (self.camera,) if isinstance(self.camera, str) else tuple(self.camera or ())

    def __post_init__(self) -> None:
        if not 0 <= self.audit <= 1:
            raise UserError(f"audit must be a share in (0, 1], or 0 to trust the sources, got {self.audit}")
        if not self.video_tolerance >= 0:
            raise UserError(f"video_tolerance must be at least 0 nats, got {self.video_tolerance}")
        if self.bad_episodes not in ("refuse", "skip"):
            raise UserError(f"bad_episodes must be refuse or skip, got {self.bad_episodes!r}")
        if not callable(self.reward):
            raise UserError(f"reward must be a function of columns and success, got {self.reward!r}")
        _refuse_signature(self.reward)
        if self.workers is not None and self.workers < 1:
            raise UserError(f"workers must be at least 1, got {self.workers}")


def _refuse_signature(reward: Callable) -> None:
    """Refuse a reward that cannot be called with columns and success; what has no signature is called as it is."""
    try:
        signature = inspect.signature(reward)
    except ValueError:
        return
    try:
        signature.bind({}, None)
    except TypeError as error:
        name = getattr(reward, "__qualname__", type(reward).__qualname__)
        raise UserError(f"the reward {name} cannot be called with (columns, success): {error}") from error
