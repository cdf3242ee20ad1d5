"""One source, read, verified, audited and written as blocks of columns. Needs no torch, so that workers start fast."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.ingest.audit import Auditor, Shown
from datamodules.ingest.checks import Behaviour, checked
from datamodules.ingest.columns import BlockWriter, Layout
from datamodules.ingest.interface import Interface
from datamodules.ingest.metadata import AuditFacts
from datamodules.ingest.pictures import PICTURE, PictureWriter
from datamodules.ingest.sources.base import Raw, Trajectory, told
from datamodules.ingest.sources.locate import source_at
from deploy.runtime.manifest import Manifest
from gipo.common.arrays.camera_images import each_shape
from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.faults import described

WHOLE = 2**24  # beyond it float32 leaves whole numbers out


@dataclass(frozen=True)
class Job:
    """What a worker is asked for.

    Args:
        path: of the source.
        folder: empty, for the blocks.
        artifacts: policy_id → file.
        audit: share of the steps whose log-probs are recomputed.
        tolerance: nats by which they may differ where they are recomputed from a video.
        skip: leave bad episodes out instead of refusing the source.
        size: of what is read, bytes.
        cameras: whose images are kept, of a source that does not say what its policies saw.
    """

    path: str
    folder: str
    artifacts: Mapping[str, str]
    audit: float
    tolerance: float
    skip: bool
    size: int
    cameras: tuple[str, ...] = ()


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of one episode in the blocks.

    Args:
        where: source and episode, in words.
        rows: how many.
        policy_id: of the policy that acted, if known.
        success: None when nobody said.
        instruction: what it was told; empty where it reads none.
        whole: the source has all of it.
        drawn: digest of the noise that it was drawn from and of what came of it; empty where the noise is not said.
    """

    where: str
    rows: int
    policy_id: str | None
    success: bool | None
    instruction: str
    whole: bool
    drawn: str = ""


def copies_among(spans: Sequence[EpisodeRows]) -> tuple[int, ...]:
    """The numbers of the episodes that hold what one before them holds, drawn from the same noise.

    A simulated robot that is begun from the same seed drives them again, and they tell nothing new. Without the same
    noise, episodes are alike by chance, as short ones may be, and each counts.
    """
    first: dict[str, int] = {}
    return tuple(n for n, span in enumerate(spans) if span.drawn and first.setdefault(span.drawn, n) != n)


def _drawn(trajectory: Trajectory, columns: Mapping[str, np.ndarray]) -> str:
    """SHA-256, hex, of the noise and the columns of an episode but its pictures, which have other numbers elsewhere."""
    if not trajectory.noise:
        return ""
    found = hashlib.sha256(f"{trajectory.noise} {trajectory.policy_id}".encode())
    for name in sorted(set(columns) - PICTURE):
        found.update(name.encode() + np.ascontiguousarray(columns[name]).tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Converted:
    """What became of a source.

    Args:
        layout: of the blocks.
        spans: of the episodes, in order.
        interface: of the source and of the policies that acted; None where it ends before it says.
        skipped: (where, why) of the bad episodes.
        notes: what else a reader should know.
        audit: what recomputing their log-probs found.
        pictures: images that were kept.
    """

    layout: Layout
    spans: list[EpisodeRows]
    interface: Interface | None
    skipped: list[tuple[str, str]]
    notes: list[str]
    audit: AuditFacts
    pictures: int

    def nothing_of(self, path: str) -> str:
        """The path of the source, and in words what may be why nothing was taken of it."""
        return ": ".join([path, *(note.removeprefix(f"{path}, ") for note in self.notes)])


def convert(job: Job) -> Converted:
    """Do one job.

    Raises:
        UserError: naming the source, and the episode and step where one is bad.
    """
    try:
        return _Conversion(job).run()
    except (UserError, OSError, MemoryError):
        raise
    except ModuleNotFoundError as error:  # of what reads datasets
        raise UserError(f"{job.path}: reading it needs {error.name}: {install('export')}") from error
    except Exception as error:  # as a damaged file has a library raise
        raise UserError(f"{job.path}: {described(error)}") from error


class _Conversion:
    def __init__(self, job: Job):
        self._job = job
        self._source = source_at(Path(job.path))
        self._source.cameras = job.cameras
        self._description = self._source.describe()
        self._interface = self._description.interface
        self._auditor = Auditor(job.artifacts, job.audit, job.tolerance)
        self._behaviours: dict[str, Behaviour] = {}
        self._spans: list[EpisodeRows] = []
        self._skipped: list[tuple[str, str]] = []
        self._notes: list[str] = []
        self._stepless: list[str] = []  # episodes
        self._pictures = PictureWriter(Path(job.folder))
        self._largest = np.zeros(0, np.float32)  # absolute value of each observation

    def run(self) -> Converted:
        with BlockWriter(Path(self._job.folder)) as blocks:
            for raw in self._source.episodes(self._pictures):
                try:
                    self._take(raw, blocks)
                except UserError as error:
                    if not self._job.skip:
                        raise UserError(f"{_named(raw.where, str(error))}{_way_out(str(error))}") from error
                    self._skipped.append((raw.where, str(error)))
            layout = blocks.layout
        self._pictures.close()
        if self._interface is None:
            self._notes.append(f"{self._job.path} ends before it says whose log it is; nothing is in it")
        return Converted(
            layout=layout,
            spans=self._spans,
            interface=self._interface,
            skipped=self._skipped,
            notes=[
                *self._source.notes,
                *told(self._stepless, "holds no complete step"),
                *self._notes,
                *self._coarse(),
            ],
            audit=self._auditor.facts(),
            pictures=self._pictures.count,
        )

    def _take(self, raw: Raw, blocks: BlockWriter) -> None:
        trajectory = raw.trajectory()
        if not len(trajectory):
            self._stepless.append(raw.where)
            return
        assert self._interface is not None
        assert self._description.interface is not None
        behaviour = self._behaviour(trajectory.policy_id)
        columns = checked(trajectory, self._description.interface, behaviour)
        self._lose_other_sizes(raw.where, columns, (behaviour or self._description).interface)
        if self._job.skip:
            self._look_at_all(columns)
        if "log_prob" in columns:
            self._auditor.check(trajectory.policy_id, columns, Shown(self._pictures, trajectory.instruction))
        interface = self._interface
        # Where it never sampled, what it is says nothing of the data, but by what it saw.
        if behaviour is not None and (columns["valid"].any() or "picture" in columns):
            interface = _agreed(interface, behaviour)
        blocks.append(columns)
        largest = np.abs(columns["observation"]).max(0)
        self._largest = np.maximum(self._largest, largest) if self._largest.size else largest
        self._interface = interface
        self._spans.append(
            EpisodeRows(
                where=raw.where,
                rows=len(trajectory),
                policy_id=None if behaviour is None else behaviour.policy_id,
                success=trajectory.success,
                instruction=trajectory.instruction,
                whole=trajectory.whole,
                drawn=_drawn(trajectory, columns),
            )
        )

    def _coarse(self) -> Iterator[str]:
        """Observations that float32 rounds to more than whole numbers, such as a time since 1970."""
        for index in np.flatnonzero(self._largest > WHOLE).tolist():
            names = self._interface.observation_names if self._interface is not None else None
            which, size = f"observation {index}" + (f" ({names[index]})" if names else ""), self._largest[index]
            yield (
                f"{self._job.path}: {which} comes to {size:.4g}, where float32 has steps of {np.spacing(size):g}; "
                "a constant subtracted where it is recorded keeps what is between"
            )

    def _lose_other_sizes(self, where: str, columns: dict[str, np.ndarray], seen: Interface | None) -> None:
        """Take for lost what is of another size than policies saw by: a camera failed, and the robot was stopped.

        Raises:
            UserError: when nothing has the size that the source says.
        """
        if seen is None or seen.image is None or "picture" not in columns:
            return
        for camera, (channels, *size) in enumerate(each_shape(seen.image, columns["picture"].shape[1])):
            numbers = np.unique([columns[name][:, camera] for name in PICTURE])
            numbers, wanted = numbers[numbers >= 0], (*size, channels)
            shapes = np.array([self._pictures.shape(number) for number in numbers.tolist()], int).reshape(-1, 3)
            unlike = (shapes != wanted).any(1)
            if not unlike.any():
                continue
            what = f"{tuple(shapes[unlike][0].tolist())}, where {wanted} is said"
            if unlike.all():
                raise UserError(f"its images are {what}")
            for name in PICTURE:
                columns[name][np.isin(columns[name][:, camera], numbers[unlike]), camera] = -1
            self._notes.append(f"{where}: {unlike.sum()} of its images count as lost: they are {what}")

    def _look_at_all(self, columns: Mapping[str, np.ndarray]) -> None:
        """Decode every picture of an episode, so that one that cannot be is skipped here and not met in a batch."""
        numbers = (columns[name].ravel() for name in PICTURE & set(columns))
        for number in np.unique(np.concatenate([np.empty(0, np.int64), *numbers])).tolist():
            if number >= 0:
                self._pictures.pixels(number)

    def _behaviour(self, policy_id: str | None) -> Behaviour | None:
        """What the source's manifest says of a policy; None when it has none."""
        if policy_id is None or policy_id not in self._description.manifests:
            return None
        if policy_id not in self._behaviours:
            manifest = Manifest.from_json(self._description.manifests[policy_id])
            self._behaviours[policy_id] = Behaviour(policy_id, manifest.policy_version, Interface.of_manifest(manifest))
        return self._behaviours[policy_id]


def _agreed(interface: Interface, behaviour: Behaviour) -> Interface:
    if difference := interface.difference(behaviour.interface):
        raise UserError(f"policy {behaviour.policy_id[:12]}… differs from the policies before it: {difference}")
    return interface.merged(behaviour.interface)


def _way_out(reason: str) -> str:
    """What may be done about an episode with a bad step; of another form all are, and leaving them out leaves none."""
    return "; data.ingest.bad_episodes=skip leaves such episodes out" if reason.startswith("step ") else ""


def _named(where: str, reason: str) -> str:
    """`where, step 3: …`, or `where: …`."""
    return f"{where}, {reason}" if reason.startswith("step ") else f"{where}: {reason}"
