"""`ingest`: verify → audit → convert once to a store keyed by content; the second time, open it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from datamodules.ingest.assemble import Examined, Part, assemble
from datamodules.ingest.cache import ELSEWHERE, FULL, cache_folder, making, publish
from datamodules.ingest.convert import Job
from datamodules.ingest.hashes import Hashes, stamp
from datamodules.ingest.interface import common_interface
from datamodules.ingest.key import store_key, store_name
from datamodules.ingest.options import IngestOptions
from datamodules.ingest.pool import run_jobs
from datamodules.ingest.sources.base import Source
from datamodules.ingest.sources.dataset import Dataset
from datamodules.ingest.sources.locate import find_sources
from datamodules.ingest.store import Store, load_store
from gipo.common.errors import UserError
from gipo.common.interpreter import cores

DEFAULTS = IngestOptions()
STEP_BYTES = 8  # of the column `step`


def ingest(
    sources: Sequence[str | Path] | str | Path, options: IngestOptions = DEFAULTS, progress: bool = True
) -> Store:
    """The store of these sources: made when it is not there yet, which leaves all of it or nothing; else opened.

    Args:
        sources: logs (MCAP), folders of logs, LeRobot v3 datasets, Minari datasets, in any mix; their order is the
            order of the episodes.
        options: how they are read and checked.
        progress: show a bar while a store is made.

    Raises:
        UserError: naming source, episode and step, where one is not what it must be. Sources are never altered.
    """
    try:
        named = [Path(sources)] if isinstance(sources, str | Path) else list(map(Path, sources))
        plan = Plan(named, options)
        name = store_name(plan.key)
        target = plan.cache / name
        if not target.is_dir():
            with making(plan.cache, name) as folder:
                if not target.is_dir():
                    plan.make(folder, target, progress)
        store = load_store(target)
        return replace(store, facts=store.facts.at(plan.paths), left_out=tuple(plan.left_out))
    except OSError as error:
        elsewhere = ELSEWHERE if error.errno in FULL else ""
        raise UserError(
            f"cannot ingest: {error.filename or options.cache or 'the cache'}: {error.strerror or error}{elsewhere}"
        ) from error


class Plan:
    """What a store is made of: its sources, and so its key."""

    def __init__(self, named: list[Path], options: IngestOptions):
        self._named, self._options = named, options
        found, self.left_out = find_sources(named)
        if options.camera is not None and not any(isinstance(source, Dataset) for source in found):
            raise UserError(
                f"data.ingest.camera names {options.camera!r:.80} of datasets, and there is none; a robot's log says "
                "itself what its policy saw"
            )
        for source in found:
            source.cameras = options.cameras
        self.cache = cache_folder(options.cache)
        self._hashes = Hashes(self.cache)
        files = [source.files() for source in found]
        self._digests = digests = self._hashes.of(path for each in files for path in each.values())
        contents = [{name: digests[path] for name, path in each.items()} for each in files]
        self._sources = [
            Examined(source, tuple(each.values()), _sha256(content), source.describe())
            for source, each, content in zip(found, files, contents, strict=True)
        ]
        self._artifacts = self._usable_artifacts()
        kinds = [source.kind for source in found]
        self.key = store_key(zip(kinds, contents, strict=True), options, self._artifacts)

    @property
    def paths(self) -> list[str]:
        """Where the sources are."""
        return [each.path for each in self._sources]

    def make(self, folder: Path, target: Path, progress: bool) -> None:
        """Make the store `target` with the help of an empty folder beside it."""
        self._refuse_twice()
        common_interface((each.path, each.description.interface) for each in self._sources)
        blocks = [folder / f"{index:06d}" for index in range(len(self._sources))]
        for each in blocks:
            each.mkdir()
        jobs = [
            Job(
                path=each.path,
                folder=str(block),
                artifacts=self._artifacts,
                audit=self._options.audit,
                tolerance=self._options.video_tolerance,
                skip=self._options.bad_episodes == "skip",
                size=sum(stamp(path).size for path in each.files),
                cameras=self._options.cameras,
            )
            for each, block in zip(self._sources, blocks, strict=True)
        ]
        with _bar(blocks, progress) as tick:
            converted = run_jobs(jobs, self._options.workers or self._usual_workers(), tick)
        self._check_unchanged()
        (folder / "store").mkdir()
        parts = [Part(*each) for each in zip(self._sources, blocks, converted, strict=True)]
        assemble(folder / "store", self.key, parts, self._options)
        publish(folder / "store", target)

    def _check_unchanged(self) -> None:
        """Refuse sources that are no longer what the key was made of: a file was written to, has come or has gone."""
        self._hashes.check_unchanged(path for each in self._sources for path in each.files)
        for each in self._sources:
            if other := set(each.source.files().values()) ^ set(each.files):
                names = ", ".join(sorted(map(str, other)))
                raise UserError(f"{each.path} changed while it was read ({names}); ingest it again")

    def _usual_workers(self) -> int:
        """How many read, unless told: one a core; one in all with a served checkpoint, whose model each would load."""
        served = any(not path.endswith(".onnx") for path in self._artifacts.values())
        return 1 if served else cores()

    def _usable_artifacts(self) -> dict[str, str]:
        """policy_id → file, of the artifacts that the sources name and the audit asks for."""
        if self._options.audit == 0:
            return {}
        named = {name for each in self._sources for name in each.description.manifests}
        asked = self._options.policies is not None
        # Checkpoints are large, and many beside logs are no policy's that acted: only where they are asked for.
        kinds = ("*.onnx", "*.ckpt") if asked else ("*.onnx",)
        found = (path for folder in self._folders() for kind in kinds for path in sorted(folder.glob(kind)))
        # Of what merely lies beside the logs, a file that cannot be read is nobody's business.
        files = [path for path in found if path.is_file() and (asked or os.access(path, os.R_OK))]
        digests = self._hashes.of(files) if named else {}  # the policy id is the file's SHA-256
        return {digest: str(path) for path, digest in digests.items() if digest in named}

    def _folders(self) -> list[Path]:
        named = self._options.policies
        if named is None:
            paths = [*self._named, *(each.source.path for each in self._sources)]
            return list(dict.fromkeys(folder for path in paths for folder in list(path.absolute().parents)[:2]))
        folders = [Path(named)] if isinstance(named, str | Path) else list(map(Path, named))
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"policies: {folder} is no folder")
        return folders

    def _refuse_twice(self) -> None:
        seen: dict[str, str] = {}
        for each in self._sources:
            identities = (each.sha256, *self._steps(each.source), *each.description.sessions)
            for identity in identities:
                if identity in seen:
                    raise UserError(f"{seen[identity]} and {each.path} hold the same data; name one of them")
            seen |= dict.fromkeys(identities, each.path)

    def _steps(self, source: Source) -> list[str]:
        """Hashes of a dataset's files of steps: those of a copy are the same, whatever was changed in its metadata."""
        data = source.data() if isinstance(source, Dataset) else []
        return [self._digests[path] for path in data if path in self._digests]


def _sha256(content: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _bar(blocks: list[Path], progress: bool) -> Iterator[Callable[[], None]]:
    """A bar of the steps converted so far, read off the sizes of what the workers write."""
    with tqdm(unit=" steps", unit_scale=True, desc=f"ingest {len(blocks)} sources", disable=not progress) as bar:

        def tick() -> None:
            files = [folder / "step" for folder in blocks]
            bar.update(sum(file.stat().st_size for file in files if file.exists()) // STEP_BYTES - bar.n)

        yield tick
