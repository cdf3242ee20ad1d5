"""What a store says of itself: plain data, as JSON beside the frames."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from datamodules.ingest.interface import Interface
from deploy.runtime.validation import tuples


@dataclass(frozen=True)
class SourceFacts:
    """Which source a store was made of, and how much was taken from it.

    Args:
        path: where it is; in a file of a store, where it was when it was ingested.
        kind: `mcap`, `lerobot` or `minari`.
        sha256: of what was read of it, hex.
        sessions: identities of the robot sessions in it, where it says.
        episodes: taken from it.
        steps: taken from it.
        task: that its policies were for; empty where it does not say.
    """

    path: str
    kind: str
    sha256: str
    sessions: tuple[str, ...]
    episodes: int
    steps: int
    task: str = ""


@dataclass(frozen=True)
class AuditFacts:
    """What recomputing log-probs found.

    Args:
        share: of the steps of each episode that was asked for; 0 when the sources were trusted.
        steps: recomputed.
        largest: policy_id → largest |Δ log-prob|, nats, where nothing was lost on the way.
        from_video: steps recomputed from videos.
        drift: their mean |Δ log-prob|, nats: what decoding has changed.
        drift_max: their largest.
        unlike: of these, steps that differ by more than the tolerance, and are not `valid`.
    """

    share: float
    steps: int
    largest: Mapping[str, float]
    from_video: int = 0
    drift: float = 0.0
    drift_max: float = 0.0
    unlike: int = 0


@dataclass(frozen=True)
class Facts:
    """What is in a store and where it came from.

    Args:
        key: of the store, hex.
        sources: in the order of their episodes.
        policies: policy ids; `policy` of a frame is the index into them, −1 where nobody knows.
        interface: of all sources.
        has_log_prob: whether frames hold `latent` and `log_prob` of the behaviour policies.
        steps: M.
        episodes: in the store.
        judged: episodes somebody called a success or a failure.
        successes: of those.
        skipped: (where, why) of every episode left out because it is bad.
        audit: of the log-probs.
        notes: what else a reader should know, e.g. torn tails.
        instructions: that policies were given; `instruction` of a frame is the index into them, −1 where there is none.
        parts: numbers of the episodes of which the sources have not all steps to the end.
        copies: numbers of the episodes that hold what one before them holds, drawn from the same noise.
    """

    key: str
    sources: tuple[SourceFacts, ...]
    policies: tuple[str, ...]
    interface: Interface
    has_log_prob: bool
    steps: int
    episodes: int
    judged: int
    successes: int
    skipped: tuple[tuple[str, str], ...]
    audit: AuditFacts
    notes: tuple[str, ...]
    instructions: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()
    copies: tuple[int, ...] = ()

    def at(self, paths: Sequence[str]) -> "Facts":
        """These facts with the sources, and what is said of them, at the paths where they are now."""
        now = {source.path: path for source, path in zip(self.sources, paths, strict=True) if source.path != path}
        if not now:
            return self
        longest = sorted(now, key=len, reverse=True)  # first, of those that begin alike
        named = re.compile(rf"(?<!\S)({'|'.join(map(re.escape, longest))})(?=[,:;\s]|$)")

        def moved(text: str) -> str:
            return named.sub(lambda found: now[found[1]], text)

        return replace(
            self,
            sources=tuple(replace(source, path=now.get(source.path, source.path)) for source in self.sources),
            skipped=tuple((moved(where), moved(why)) for where, why in self.skipped),
            notes=tuple(map(moved, self.notes)),
        )

    def to_json(self) -> str:
        """JSON; every float survives the round trip exactly."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Facts":
        """Parse what `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: when it is something else.
        """
        raw = json.loads(text, object_pairs_hook=lambda pairs: {key: tuples(value) for key, value in pairs})
        sources = tuple(SourceFacts(**each) for each in raw["sources"])
        parts = {"sources": sources, "interface": Interface(**raw["interface"]), "audit": AuditFacts(**raw["audit"])}
        return cls(**raw | parts)
