"""`gipo-robot promote` and `rollback`: change which policy a robot is to run, and back.

A folder is the place: a robot runs its `policy.onnx`, `promotions.jsonl` says what was done to it, and `policies/`
keeps every artifact that was ever in it. A command that ends without success changes neither; after a kill between the
two, the next one says that they do not agree.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.runtime.check import Artifact, check_file, naming
from deploy.runtime.compare import check_same_robot
from deploy.runtime.identity import file_id
from deploy.runtime.place import HISTORY, POLICY
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError, of_the_system
from gipo.common.files import locked, whole_file, write_bytes, write_text
from robots.review.compare import Comparison
from robots.review.promotions import Change, PairsSaid, read_history, standing, write_line

KEPT = "policies"


class NotKnown(UserError):
    """What was asked for waits for more pairs."""


def promote(candidate: Path, folder: Path, because: str = "", pairs: Comparison | None = None) -> str:
    """Put a candidate into a place, and say so in words.

    Args:
        candidate: its artifact, which is verified as before a session.
        folder: the place, which need not be there yet.
        because: why, in a person's words, who needs no pairs then.
        pairs: of the policy in place and the candidate.

    Raises:
        NotKnown: when the pairs do not tell, and no person says why it is promoted all the same.
        UserError: when the candidate is damaged, is for another robot, or in place already; when nothing speaks for
            it; or when the place cannot be read or written. Nothing is changed then.
    """
    artifact, because = _armed(candidate), because.strip()
    if pairs is not None and not (folder / HISTORY).exists():
        raise UserError(f"no policy is in place in {folder} that pairs could be of; leave --pairs out")
    with _changing(folder) as (history, found):
        held = standing(history)
        if held and found is None and artifact.policy_id == held[-1]:
            _keep(folder, artifact.policy_id, artifact.data)
            write_bytes(artifact.data, folder / POLICY)
            return _told(folder, artifact, [])
        if found is not None and found not in {change.policy_id for change in history}:
            raise UserError(
                f"{folder / POLICY} was put there by hand, or is damaged ({found[:12]}…); move it away, and promote it "
                "from there if it is to be in place"
            )
        if held:
            if found not in (None, held[-1]):
                raise UserError(
                    f"{folder / POLICY} is {found[:12]}…, and the history says {held[-1][:12]}…: a change was cut "
                    "short, or undone by hand; gipo-robot rollback makes them agree"
                )
            _check_follows(artifact, folder, held[-1], because, pairs)
        elif pairs is not None:
            raise UserError(f"no policy is in place in {folder} that pairs could be of; leave --pairs out")
        _put(folder, artifact, history, Change(artifact.policy_id, False, time.time_ns(), because, _said(pairs)))
    return _told(folder, artifact, held[-1:])


def rollback(folder: Path, because: str = "") -> str:
    """Put the policy back that was in place before the one that is, and say so in words.

    Where a robot runs what was never promoted, or what was before the last two, or nothing, the last promoted is put
    back; a file that is nowhere else is kept beside it.

    Raises:
        UserError: when none was, its artifact is damaged, or the place cannot be read or written.
    """
    if not (folder / HISTORY).is_file():
        raise UserError(f"{folder} is no place of a policy, it has no {HISTORY}; name what was given to promote --to")
    with _changing(folder) as (history, found):
        held = standing(history)
        if held and (found not in held[-2:] if found else _is(_kept(folder, held[-1]), held[-1])):
            return _put_back(folder, found, held[-1])
        if len(held) < 2:
            raise UserError(
                f"no policy was in place in {folder} before {held[-1][:12]}…" if held else f"{folder} is empty"
            )
        artifact = _armed(_kept(folder, held[-2]), held[-2])
        _put(folder, artifact, history, Change(held[-2], True, time.time_ns(), because.strip()))
    return _told(folder, artifact, held[-1:])


@contextmanager
def _changing(folder: Path) -> Iterator[tuple[list[Change], str | None]]:
    """The history of a place, and the id of the policy that is there; nobody else changes either meanwhile."""
    there, path = folder / POLICY, folder / HISTORY
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if there.exists() and not there.is_file():
                raise UserError(f"{there} is no file; move it away")
            found = file_id(there) if there.exists() else None
            yield read_history(path) if path.exists() else [], found
    except OSError as error:
        raise UserError(f"cannot change {folder}: {of_the_system(error, folder)}") from error


def _check_follows(artifact: Artifact, folder: Path, held: str, because: str, pairs: Comparison | None) -> None:
    """Refuse a candidate that may not replace the policy in place."""
    if artifact.policy_id == held:
        raise UserError(f"policy {held[:12]}… is in place already")
    before = folder / POLICY
    check_same_robot(check_file(before if before.exists() else _kept(folder, held), held).manifest, artifact.manifest)
    if pairs is not None:
        ids, wanted = (pairs.deployed.policy_id, pairs.candidate.policy_id), (held, artifact.policy_id)
        if ids != wanted:
            one, other = (" and ".join(f"{each[:12]}…" for each in two) for two in (ids, wanted))
            raise UserError(f"the pairs are of {one}, in place and candidate are {other}")
        if pairs.paired.contradictory:
            raise UserError(f"{pairs.paired.conclusion} Leave --pairs out")
    if not because:
        _check_pairs(held, pairs)


def _check_pairs(held: str, pairs: Comparison | None) -> None:
    """Refuse pairs that do not tell that the candidate is better."""
    if pairs is None:
        raise UserError(
            f"policy {held[:12]}… is in place; name the log of pairs which tell that the candidate is better, --pairs "
            "LOG, or say why it is promoted without, --because TEXT"
        )
    if pairs.doubts:
        raise UserError(f"{'; '.join(pairs.doubts)}; it is not promoted without --because TEXT")
    if not pairs.paired.better:
        kind = UserError if pairs.paired.told else NotKnown
        raise kind(f"{pairs.paired.conclusion}; it is not promoted without --because TEXT")


def _put(folder: Path, artifact: Artifact, history: list[Change], change: Change) -> None:
    """Write a change; where what a robot runs cannot be replaced, the history stays as it was."""
    lines = [*map(write_line, [*history, change])]
    if (before := folder / POLICY).exists():  # is kept since it came, unless somebody has emptied policies/
        _keep(folder, file_id(before), before.read_bytes())
    _keep(folder, artifact.policy_id, artifact.data)
    write_text("".join(lines), folder / HISTORY)
    try:
        write_bytes(artifact.data, folder / POLICY)
    except BaseException:
        with suppress(UserError, OSError):
            if history:
                write_text("".join(lines[:-1]), folder / HISTORY)
            else:
                (folder / HISTORY).unlink()
        raise


def _put_back(folder: Path, found: str | None, held: str) -> str:
    """Have a robot run what the history says, in place of what it does not."""
    artifact = _armed(_kept(folder, held), held)
    there, said = folder / POLICY, ""
    if found is not None:
        aside = _kept(folder, found)
        if not _is(aside, found):
            aside = there.with_name(f"found-{found[:12]}.onnx")
            with whole_file(aside) as copy:
                shutil.copyfile(there, copy)
        said = f"; what was there, {found[:12]}…, is {aside}"
    write_bytes(artifact.data, there)
    return _told(folder, artifact, []) + said


def _keep(folder: Path, policy_id: str, data: bytes) -> None:
    kept = _kept(folder, policy_id)
    if not _is(kept, policy_id):
        write_bytes(data, kept)


def _is(path: Path, policy_id: str) -> bool:
    return path.is_file() and file_id(path) == policy_id


def _kept(folder: Path, policy_id: str) -> Path:
    return folder / KEPT / f"{policy_id[:12]}.onnx"


def _armed(path: Path, policy_id: str | None = None) -> Artifact:
    """An artifact that a robot would run: every check passes, its golden vectors included."""
    artifact = check_file(path, policy_id)
    with naming(path):
        OnnxPolicy(artifact)
    return artifact


def _said(pairs: Comparison | None) -> PairsSaid | None:
    if pairs is None:
        return None
    found = pairs.paired
    low, high = found.looks[-1].tolist()
    sessions = tuple(sorted(pairs.deployed.sessions | pairs.candidate.sessions))
    return PairsSaid(sessions, len(found.difference), float(found.difference.mean()), low, high, tuple(pairs.doubts))


def _told(folder: Path, artifact: Artifact, before: list[str]) -> str:
    after = f", after {before[0][:12]}…" if before else ""
    version = artifact.manifest.policy_version
    return f"in place: {artifact.policy_id[:12]}… (version {version}){after}; run it with --policy {folder / POLICY}"
