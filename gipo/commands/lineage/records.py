"""What checkpoints, artifacts and logs say of themselves and of what they came from; only their heads are read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from deploy.runtime.check import check_file
from deploy.runtime.identity import file_id
from deploy.runtime.place import HISTORY, POLICY
from gipo.common.checkpoint_head import read_head
from gipo.common.errors import UserError
from robots.log import folders_below, out_of_reach, read_opening
from robots.review.promotions import placements, read_history, standing


class Kind(Enum):
    """What a node of the lineage is, by the word for it."""

    CHECKPOINT = "checkpoint"
    ARTIFACT = "artifact"
    LOG = "log"
    DATASET = "dataset"


class How(Enum):
    """How something came from its origin, in words that the origin follows."""

    EXPORTED = "exported from"
    RECORDED = "recorded with"
    PARENT = "learned from logs of"
    LEARNED = "learned from"
    STARTED = "started from"


class Key(NamedTuple):
    """Names a node, wherever its files lie."""

    kind: Kind
    id: str

    @property
    def short(self) -> str:
        """The id as far as a person reads it."""
        return self.id[:12]

    @property
    def title(self) -> str:
        """Kind and id; a checkpoint that was written before checkpoints had ids is named by its file alone."""
        return f"{self.kind.value} {'without an id' if self.id.startswith('none:') else self.short}"


@dataclass(frozen=True)
class Ancestor:
    """What something came from.

    Args:
        key: of the origin.
        how: it came from it.
        steps: that were taken from it, where that is known.
    """

    key: Key
    how: How
    steps: int | None = None


@dataclass(frozen=True)
class LineageNode:
    """A checkpoint, artifact, log or dataset: what one file says of it, or all files of a folder together.

    Args:
        key: its kind and id.
        files: that hold it, relative to the folder; none where it is only mentioned.
        facts: a few words each.
        origins: what it came from, the most telling first; it hangs below the first in the tree.
        placed: what became of it in each folder that it was promoted into.
    """

    key: Key
    files: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    origins: tuple[Ancestor, ...] = ()
    placed: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The files, or in words why there are none: a dataset would have to be read to be known again."""
        none = "datasets are not looked for" if self.key.kind is Kind.DATASET else "not in this folder"
        return ", ".join(self.files) or none


def scan(folder: Path) -> tuple[list[LineageNode], list[tuple[str, str]]]:
    """What the checkpoints, artifacts and logs under `folder` say, in the order of their names.

    Beside it, names of files and folders that could not be read, and why. What lies in hidden folders is nobody's
    lineage: the libraries of a `.venv` bring models of their own.

    Raises:
        UserError: when there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; name one that holds checkpoints, artifacts or logs")
    records: list[LineageNode] = []
    lost = ((path.relative_to(folder), reason) for path, reason in out_of_reach(folder))
    unreadable = [(printable(path.as_posix()), printable(reason)) for path, reason in lost if not _is_hidden(path)]
    for path in sorted(each for inner in folders_below(folder) for each in inner.iterdir()):
        read = READERS.get(path.name, READERS.get(path.suffix))
        inside = path.relative_to(folder)
        if read is None or _is_hidden(inside) or not path.is_file():
            continue
        name = printable(inside.as_posix())
        try:
            records += read(path, name)
        except (UserError, OSError) as error:
            reason = str(error).removeprefix(f"{path}: ").replace(repr(str(path)), "the file")
            reason = reason.replace(str(path), "the file")
            unreadable.append((name, printable(reason)))
    return records, unreadable


def _is_hidden(inside: Path) -> bool:
    return any(part.startswith(".") for part in inside.parts)


def read_checkpoint(path: Path, name: str) -> list[LineageNode]:
    """The checkpoint, and the logs and datasets it learned from."""
    head = read_head(path)
    identity = printable(head.id or f"none:{name}")  # written before checkpoints had ids
    learned, logs = [], []
    for log in head.logs:
        key = Key(Kind.LOG if log.session else Kind.DATASET, printable(log.session or log.sha256 or ""))
        learned.append(Ancestor(key, How.LEARNED, log.steps))
        of = [_ancestor(Kind.LOG, each, How.EXPORTED) for each in log.sessions]
        of += [_ancestor(Kind.ARTIFACT, each, How.RECORDED) for each in log.policy_ids]
        logs.append(LineageNode(key, (), (), tuple(of)))
    learned.sort(key=lambda origin: -(origin.steps or 0))
    origins = [
        *([_ancestor(Kind.ARTIFACT, head.parent, How.PARENT)] if head.parent else []),
        *learned,
        *([_ancestor(Kind.CHECKPOINT, head.init_from, How.STARTED)] if head.init_from else []),
    ]
    facts = (_count(head.version, "version {}"), _count(head.frames, "{:,} frames"), printable(head.task or ""))
    return [LineageNode(Key(Kind.CHECKPOINT, identity), (name,), tuple(filter(None, facts)), tuple(origins)), *logs]


def _ancestor(kind: Kind, identity: str, how: How) -> Ancestor:
    return Ancestor(Key(kind, printable(identity)), how)


def read_artifact(path: Path, name: str) -> list[LineageNode]:
    """The artifact, every check of its bytes included."""
    artifact = check_file(path)
    manifest = json.loads(artifact.manifest.to_json())
    return _artifact(artifact.policy_id, (name,), manifest)


def read_log(path: Path, name: str) -> list[LineageNode]:
    """The log, and the artifacts whose manifests it carries: they are known even where their files are gone."""
    opening = read_opening(path)
    header = opening.header
    manifests = {policy: _manifest(text) for policy, text in header.manifests.items()}
    first = opening.policy_id or (next(iter(manifests)) if len(manifests) == 1 else None)
    acting = header.turns or tuple(filter(None, [first]))
    origins = tuple(_ancestor(Kind.ARTIFACT, each, How.RECORDED) for each in acting)
    robot, created = header.robot.get("name"), header.created.replace("T", " ")[:16]
    beside = [f"shadow {policy[:12]}" for policy in manifests if acting and policy not in acting]
    facts = (created, str(robot or ""), *beside)
    shown = tuple(map(printable, filter(None, facts)))
    log = LineageNode(Key(Kind.LOG, printable(header.session)), (name,), shown, origins)
    return [log, *(known for policy, manifest in manifests.items() for known in _artifact(policy, (), manifest))]


def read_promotions(path: Path, name: str) -> list[LineageNode]:
    """What became of the artifacts that were promoted into a folder."""
    history = read_history(path)
    found = placements(history)
    if history:
        held, there = standing(history)[-1], path.parent / POLICY
        identity = file_id(there) if there.is_file() else None
        if identity != held:
            other = f"is {identity[:12]}…" if identity else "is not there"
            found[held] += f"; but its {POLICY} {other}"
    place = name.rpartition("/")[0]
    return [
        LineageNode(Key(Kind.ARTIFACT, policy), placed=(printable(f"{place}{': ' * bool(place)}{said}"),))
        for policy, said in found.items()
    ]


READERS: dict[str, Callable[[Path, str], list[LineageNode]]] = {
    ".ckpt": read_checkpoint,
    ".onnx": read_artifact,
    ".mcap": read_log,
    HISTORY: read_promotions,
}


def printable(text: str) -> str:
    """`text` without what could drive the terminal of whoever reads it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _artifact(policy_id: str, files: tuple[str, ...], manifest: Mapping[str, Any]) -> list[LineageNode]:
    """The artifact, and what its manifest knows of its checkpoint."""
    key = Key(Kind.ARTIFACT, printable(policy_id))
    precision = "int8" if manifest.get("precision") == "int8" else None
    facts = tuple(filter(None, (_count(manifest.get("policy_version"), "version {}"), precision)))
    checkpoint, parent = _text(manifest, "checkpoint"), _text(manifest, "parent")
    logs_of = (Ancestor(Key(Kind.ARTIFACT, parent), How.PARENT),) if parent else ()
    if checkpoint is None:
        return [LineageNode(key, files, facts, logs_of)]
    source = Key(Kind.CHECKPOINT, checkpoint)
    exported = LineageNode(key, files, facts, (Ancestor(source, How.EXPORTED),))
    return [exported, LineageNode(source, (), (), logs_of)]


def _manifest(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the log carries a manifest that is not JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _text(manifest: Mapping[str, Any], key: str) -> str | None:
    """A text of a manifest, which may be absent."""
    found = manifest.get(key)
    if found is not None and not isinstance(found, str):
        raise UserError(f"its entry {key!r} is {type(found).__name__}, it must be a text")
    return printable(found) if found else None


def _count(found: Any, words: str) -> str | None:
    """`found` in words, where it is a number."""
    return words.format(found) if isinstance(found, int) else None
