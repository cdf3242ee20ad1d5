"""Makes one store from the blocks of all sources."""

import os
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from tensordict import TensorDict

from datamodules.ingest.columns import Columns, Layout
from datamodules.ingest.convert import Converted, EpisodeRows, copies_among
from datamodules.ingest.interface import Interface, common_interface
from datamodules.ingest.metadata import AuditFacts, Facts, SourceFacts
from datamodules.ingest.options import IngestOptions
from datamodules.ingest.pictures import PICTURE, move
from datamodules.ingest.rewards import rewards_by
from datamodules.ingest.sources.base import POLICY, Description, Source
from datamodules.ingest.store import FACTS, FRAMES, PICTURES, allocate, reserve
from gipo.common.errors import UserError
from gipo.common.faults import described
from gipo.common.transition import STORED

PRIVILEGED = {"privileged", "next_privileged"}


@dataclass(frozen=True)
class Examined:
    """A source before its conversion.

    Args:
        source: where it is, and of which kind.
        files: that are read of it.
        sha256: of their contents, hex.
        description: what it says of itself.
    """

    source: Source
    files: tuple[Path, ...]
    sha256: str
    description: Description

    @property
    def path(self) -> str:
        """Where the source is."""
        return str(self.source.path)


@dataclass(frozen=True)
class Part:
    """A source after its conversion, and the folder of its blocks."""

    of: Examined
    folder: Path
    converted: Converted


@dataclass(frozen=True)
class _Kept:
    """The columns of a source with their rewards, and the episodes that go into the store."""

    part: Part
    columns: Columns
    spans: list[tuple[int, EpisodeRows]]  # first row in the blocks
    skipped: list[tuple[str, str]]

    @property
    def steps(self) -> int:
        return sum(span.rows for _, span in self.spans)

    @property
    def decided(self) -> bool:
        """Whether the source says which steps were decided on at once: our logs do, and whatever holds log-probs."""
        interface = self.part.converted.interface
        return "log_prob" in self.part.converted.layout or (interface is not None and interface.chunk is not None)


def assemble(folder: Path, key: str, parts: list[Part], options: IngestOptions) -> None:
    """Write the store `key` into an empty folder.

    Raises:
        UserError: when sources do not fit together, a reward cannot be given, or nothing is left.
    """
    interface = common_interface((part.of.path, part.converted.interface) for part in parts)
    kept = [_with_rewards(part, options) for part in parts]
    filled = [each for each in kept if each.spans]
    if not filled:
        raise UserError(_nothing_left(kept))
    filled = _with_what_nobody_chose(filled)
    for names in (POLICY, PRIVILEGED):
        filled = _without_half(filled, names)
    _check_types(filled)
    spans = [span for each in filled for _, span in each.spans]
    policies = tuple(dict.fromkeys(span.policy_id for span in spans if span.policy_id is not None))
    frames = allocate(folder / FRAMES, filled[0].columns.layout, sum(each.steps for each in filled))
    instructions = tuple(dict.fromkeys(span.instruction for span in spans if span.instruction))
    bases = _move_pictures(folder / PICTURES, filled)
    _fill(frames, filled, policies, instructions, bases)
    facts = _told(key, interface, kept, "log_prob" in filled[0].columns, policies, instructions, options.audit)
    (folder / FACTS).write_text(facts.to_json(), encoding="utf-8")
    for path in folder.rglob("*.memmap"):
        path.chmod(0o444)  # mapped read-only: what a reader writes stays a private copy


def _with_what_nobody_chose(filled: list[_Kept]) -> list[_Kept]:
    """Zeros for `latent` and `log_prob` of sources in which no policy decided, as those of a person's steps are."""
    chosen: Layout = {}
    for each in filled:
        chosen |= {name: each.columns.layout[name] for name in POLICY & set(each.columns)}
    return [
        each if set(each.columns) >= POLICY or each.columns["valid"].any()
        else replace(each, columns=each.columns.having(chosen))
        for each in filled
    ]  # fmt: skip


def _without_half(filled: list[_Kept], names: set[str]) -> list[_Kept]:
    """The sources without those of the columns `names`, where not all of them have them."""
    if all(names <= set(each.columns) for each in filled):
        return filled
    return [replace(each, columns=each.columns.without(names)) for each in filled]


def _told(
    key: str,
    interface: Interface,
    kept: list[_Kept],
    has_log_prob: bool,
    policies: tuple[str, ...],
    instructions: tuple[str, ...],
    share: float,
) -> Facts:
    """What the store says of itself, of whose steps this `share` was audited."""
    spans = [span for each in kept for _, span in each.spans]
    audit = _audited([each.part for each in kept], share)
    judged = [span.success for span in spans if span.success is not None]
    copies = copies_among(spans)
    notes = [*_note_on_copies(copies, spans), *_notes(kept, has_log_prob, audit)]
    return Facts(
        key=key, sources=tuple(map(_facts, kept)), policies=policies, interface=interface, has_log_prob=has_log_prob,
        steps=sum(each.steps for each in kept), episodes=len(spans), judged=len(judged), successes=sum(judged),
        skipped=tuple(skip for each in kept for skip in each.skipped),
        audit=audit, notes=tuple(notes), instructions=instructions, copies=copies,
        parts=tuple(number for number, span in enumerate(spans) if not span.whole),
    )  # fmt: skip


def _with_rewards(part: Part, options: IngestOptions) -> _Kept:
    """The rewards of every episode, mapped from beside the other blocks; an episode without one is bad."""
    found, spans, skipped = part.converted, [], list(part.converted.skipped)
    rows = sum(span.rows for span in found.spans)
    if not rows:
        return _Kept(part, Columns(part.folder, {}, 0), [], skipped)
    columns = dict(Columns(part.folder, found.layout, rows))
    given = np.memmap(part.folder / "reward.given", np.float32, "w+", shape=(rows,))
    reserve(part.folder / "reward.given")
    start = 0
    for span in found.spans:
        episode = slice(start, start + span.rows)
        try:
            seen = {name: values[episode] for name, values in columns.items()}
            given[episode] = rewards_by(options.reward, seen, span.success)
            spans.append((start, span))
        except UserError as error:
            if options.bad_episodes == "refuse":
                raise UserError(f"{span.where}: {error}") from error
            skipped.append((span.where, str(error)))
        except Exception as error:  # of the user's function: none of its episodes can be trusted
            raise UserError(f"{span.where}: the reward raised {described(error)}") from error
        start = episode.stop
    os.replace(part.folder / "reward.given", part.folder / "reward")
    layout = {**found.layout, "reward": (given.dtype.str, [])}
    return _Kept(part, Columns(part.folder, layout, rows), spans, skipped)


def _check_types(filled: list[_Kept]) -> None:
    first = filled[0]
    for each in filled[1:]:
        if PICTURE & set(first.columns) != PICTURE & set(each.columns):
            raise UserError(
                f"of {first.part.of.path} and {each.part.of.path} one holds images that its policies saw, the other "
                "none; ingest them apart"
            )
        if "picture" in each.columns and each.decided != first.decided:
            raise UserError(
                f"of {first.part.of.path} and {each.part.of.path} one says on which steps its policy decided at once, "
                "the other does not; ingest them apart"
            )
        for name, form in each.columns.layout.items():
            here, there = (f"{np.dtype(kind)} {shape}" for kind, shape in (first.columns.layout[name], form))
            if here != there:
                raise UserError(
                    f"{first.part.of.path} and {each.part.of.path} do not fit together: {name} is {here} against "
                    f"{there}; ingest them apart"
                )


def _move_pictures(folder: Path, filled: list[_Kept]) -> list[int]:
    """Bring the pictures of all sources into a folder; the number that the first of each has there."""
    bases = [0, *accumulate(each.part.converted.pictures for each in filled)]
    for index, (base, each) in enumerate(zip(bases, filled, strict=False)):
        if each.part.converted.pictures:
            move(each.part.folder, folder / f"{index:06d}", base)
    return bases


def _fill(
    frames: TensorDict, filled: list[_Kept], policies: tuple[str, ...], instructions: tuple[str, ...], bases: list[int]
) -> None:
    fields = (field for field in STORED if field.whole_episode or field.name in filled[0].columns)
    views = {field.name: frames[field.path].numpy() for field in fields}
    number = start = 0
    for base, each in zip(bases, filled, strict=False):
        columns = dict(each.columns)
        for name in PICTURE & set(columns):
            columns[name] = np.where(columns[name] < 0, -1, columns[name] + base)
        for first, span in each.spans:
            rows, taken = slice(start, start + span.rows), slice(first, first + span.rows)
            policy = -1 if span.policy_id is None else policies.index(span.policy_id)
            success = -1 if span.success is None else int(span.success)
            told = instructions.index(span.instruction) if span.instruction else -1
            whole = {"episode": number, "policy": policy, "success": success, "instruction": told}
            for name, view in views.items():
                view[rows] = whole[name] if name in whole else columns[name][taken]
            number, start = number + 1, rows.stop


def _facts(kept: _Kept) -> SourceFacts:
    of = kept.part.of
    return SourceFacts(
        path=of.path, kind=of.source.kind, sha256=of.sha256, sessions=of.description.sessions,
        episodes=len(kept.spans), steps=kept.steps, task=of.description.task,
    )  # fmt: skip


def _audited(parts: list[Part], share: float) -> AuditFacts:
    found = [part.converted.audit for part in parts]
    largest: dict[str, float] = {}
    for each in found:
        largest |= {name: max(largest.get(name, 0.0), value) for name, value in each.largest.items()}
    count = sum(each.from_video for each in found)
    return AuditFacts(
        share=share,
        steps=sum(each.steps for each in found),
        largest=largest,
        from_video=count,
        drift=sum(each.drift * each.from_video for each in found) / max(1, count),
        drift_max=max(each.drift_max for each in found),
        unlike=sum(each.unlike for each in found),
    )


def _note_on_copies(copies: tuple[int, ...], spans: list[EpisodeRows]) -> list[str]:
    if not copies:
        return []
    which = f"{len(copies):,} of {len(spans):,} episodes are copies of others, from the same noise"
    return [f"{which}, such as {spans[copies[0]].where}: they count twice. Go on with --first or another --seed"]


def _notes(kept: list[_Kept], has_log_prob: bool, audit: AuditFacts) -> list[str]:
    """What holds of all, and then what the sources say of themselves, of which there may be many."""
    notes = []
    if audit.from_video:
        notes.append(
            f"log-probs recomputed from videos differ by {audit.drift:.2g} nats on average, {audit.drift_max:.2g} at "
            f"most; {audit.unlike:,} of {audit.from_video:,} steps differ by more than the tolerance and have no ratio"
        )
    known = ["privileged" in each.part.converted.layout for each in kept if each.spans]
    if any(known) and not all(known):
        notes.append("what is privileged is left out: not every source says it")
    if not has_log_prob:
        without = [each.part.of.path for each in kept if each.spans and "log_prob" not in each.part.converted.layout]
        others = ", and so those of the others are left out" if len(without) < len(known) else ""
        notes.append(f"no log-probs of behaviour policies: {', '.join(without)} has none{others}")
    elif audit.share == 0:
        notes.append("the log-probs were not audited: audit is 0")
    else:
        told = [each for each in kept if each.spans and each.columns["valid"].any()]
        trusted = [each.part.of.path for each in told if not each.part.converted.audit.steps]
        notes += [f"no log-prob of {path} was audited: what the policy saw is not in it" for path in trusted]
    return notes + [note for each in kept for note in each.part.converted.notes]


def _nothing_left(kept: list[_Kept]) -> str:
    skipped = [skip for each in kept for skip in each.skipped]
    if not skipped:
        empty = ", ".join(each.part.converted.nothing_of(each.part.of.path) for each in kept)
        return f"there is no complete step in {empty}"
    where, reason = skipped[0]
    return f"all {len(skipped)} episodes are bad, the first: {where}: {reason}"
