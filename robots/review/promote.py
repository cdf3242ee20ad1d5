"""`gipo-robot promote` and `rollback`: change which policy a robot is to run, and back.

A folder is the place: a robot runs its `policy.onnx`, `promotions.jsonl` says what was done to it, and `policies/`
keeps every artifact that was ever in it. The history is written first, and what a kill leaves undone of a change is
done by the next one.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.runtime.check import Artifact, check_file, naming
from deploy.runtime.compare import check_same_robot
from deploy.runtime.identity import file_id
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from gipo.common.files import locked, write_bytes, write_text
from robots.review.compare import Comparison
from robots.review.promotions import HISTORY, Change, PairsSaid, read_history, standing, write_line

POLICY, KEPT = "policy.onnx", "policies"


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
            it; or when the place cannot be read or written.
    """
    artifact = _armed(candidate)
    with _changing(folder) as history:
        held = standing(history)
        if held:
            _check_follows(artifact, folder, held[-1], because, pairs)
        elif pairs is not None:
            raise UserError(f"no policy is in place in {folder} that pairs could be of; leave --pairs out")
        _put(folder, artifact, history, Change(artifact.policy_id, False, time.time_ns(), because, _said(pairs)))
    return _told(folder, artifact, held)


def rollback(folder: Path, because: str = "") -> str:
    """Put the policy back that was in place before the one that is, and say so in words.

    Raises:
        UserError: when none was, its artifact is damaged, or the place cannot be read or written.
    """
    if not (folder / HISTORY).is_file():
        raise UserError(f"{folder} is no place of a policy, it has no {HISTORY}; name what was given to promote --to")
    with _changing(folder) as history:
        held = standing(history)
        if len(held) < 2:
            raise UserError(
                f"no policy was in place in {folder} before {held[-1][:12]}…" if held else f"{folder} is empty"
            )
        artifact = _armed(_kept(folder, held[-2]), held[-2])
        _put(folder, artifact, history, Change(held[-2], True, time.time_ns(), because))
    return _told(folder, artifact, held)


@contextmanager
def _changing(folder: Path) -> Iterator[list[Change]]:
    """The history of a place, which nobody else changes meanwhile, and whose last change is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            path = folder / HISTORY
            history = read_history(path) if path.exists() else []
            _settle(folder, history)
            yield history
    except OSError as error:
        raise UserError(f"cannot change {folder}: {error.strerror or error}") from error


def _settle(folder: Path, history: list[Change]) -> None:
    """Do what a kill left undone of the last change; what nobody promoted is not written over."""
    there = folder / POLICY
    found = file_id(there) if there.is_file() else None
    wanted = standing(history)[-1] if history else None
    if found == wanted:
        return
    if found is not None and found not in {change.policy_id for change in history}:
        raise UserError(f"{there} was never promoted ({found[:12]}…); move it away, and promote it from there")
    if wanted is not None:
        write_bytes(check_file(_kept(folder, wanted), wanted).data, there)


def _check_follows(artifact: Artifact, folder: Path, held: str, because: str, pairs: Comparison | None) -> None:
    """Refuse a candidate that may not replace the policy in place."""
    if artifact.policy_id == held:
        raise UserError(f"policy {held[:12]}… is in place already")
    check_same_robot(check_file(_kept(folder, held), held).manifest, artifact.manifest)
    if pairs is not None and (both := (pairs.deployed.policy_id, pairs.candidate.policy_id)) != (
        wanted := (held, artifact.policy_id)
    ):
        one, other = (" and ".join(f"{each[:12]}…" for each in two) for two in (both, wanted))
        raise UserError(f"the pairs are of {one}, in place and candidate are {other}")
    if pairs is not None and pairs.paired.contradictory:
        raise UserError(f"{pairs.paired.conclusion} Leave --pairs out")
    if because:
        return
    if pairs is None:
        raise UserError(
            f"policy {held[:12]}… is in place; name the log of pairs which tell that the candidate is better, --pairs "
            "LOG, or say why it is promoted without, --because TEXT"
        )
    if pairs.paired.told and not pairs.paired.better:
        raise UserError(f"{pairs.paired.conclusion}; it is not promoted without --because TEXT")
    if not pairs.paired.better:
        raise NotKnown(f"{pairs.paired.conclusion}; it is not promoted without --because TEXT")


def _put(folder: Path, artifact: Artifact, history: list[Change], change: Change) -> None:
    """Write a change, so that at any moment what is in place and its history agree, or the next command sees to it."""
    lines = [*map(write_line, [*history, change])]
    kept = _kept(folder, artifact.policy_id)
    if not (kept.is_file() and file_id(kept) == artifact.policy_id):
        write_bytes(artifact.data, kept)
    write_text("".join(lines), folder / HISTORY)
    try:
        write_bytes(artifact.data, folder / POLICY)
    except UserError:
        with suppress(UserError):
            write_text("".join(lines[:-1]), folder / HISTORY)
        raise


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
    return PairsSaid(sessions, len(found.difference), float(found.difference.mean()), low, high)


def _told(folder: Path, artifact: Artifact, held: list[str]) -> str:
    after = f", after {held[-1][:12]}…" if held else ""
    version = artifact.manifest.policy_version
    return f"in place: {artifact.policy_id[:12]}… (version {version}){after}; run it with --policy {folder / POLICY}"
