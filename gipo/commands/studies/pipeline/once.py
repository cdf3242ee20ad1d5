"""What is run once: a folder says what was begun in it, and what came to its end."""

import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from gipo.common.errors import UserError
from gipo.common.files import locked, remove_partials, write_text


def once(
    folder: Path, name: str, words: Sequence[str], work: Callable[[int], object],
    fresh: bool = False, keep: Path | None = None, waiting: Callable[[], object] | None = None,
    made: Path | None = None,
) -> None:  # fmt: skip
    """Do `work` unless this folder says that the same has been done to its end.

    Work is given a descriptor of the folder's lock, for the processes that it starts: where a study was killed and
    what it had started goes on, that is waited for instead of started again beside it.

    Args:
        folder: of the work.
        name: of the work in its folder.
        words: what makes two works the same.
        work: what is to be done.
        fresh: begin with an empty folder, without what interrupted work left there.
        keep: where this file exists, nothing is cleared.
        waiting: called while another process works in the folder; what it raises ends the waiting.
        made: what the work makes: where this file is no longer there, it is made again.

    Raises:
        UserError: when the folder is of other work, or holds what is not of the study.
    """
    text = json.dumps(list(words))
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, waiting) as lock:
        remove_partials(folder)  # of one that was killed as it said that it begins
        begun = _begun(folder, name, text)
        if begun == "done" and (made is None or made.exists()):
            return
        if fresh and begun is None and any(folder.iterdir()):
            raise UserError(f"{folder} holds files not of this study; name another --out, or delete it")
        if fresh and not (keep and keep.exists()):
            _clear(folder, _marker(folder, name, "started"))
        write_text(text, _marker(folder, name, "started"))
        work(lock)
        write_text(text, _marker(folder, name, "done"))


def is_done(folder: Path, name: str, words: Sequence[str] | None = None) -> bool:
    """Whether the work of this name has come to its end; with `words` the same work, as `once` has it.

    Raises:
        UserError: when the folder is of other work.
    """
    if words is None:
        return _marker(folder, name, "done").exists()
    return _begun(folder, name, json.dumps(list(words))) == "done"


def _marker(folder: Path, name: str, state: str) -> Path:
    return folder / f"{name}.{state}.json"


def _begun(folder: Path, name: str, text: str) -> str | None:
    """How far work has come in its folder: `done`, `started`, or None; refuse other work than `text`."""
    for state in ("done", "started"):
        marker = _marker(folder, name, state)
        if marker.exists():
            if marker.read_bytes() != text.encode():
                raise UserError(
                    f"{folder} was made with other options; name another --out, or delete it and what was made from it "
                    f"({_difference(marker, json.loads(text))})"
                )
            return state
    return None


def _difference(marker: Path, words: Sequence[str]) -> str:
    """What a marker has that `words` have not, and the other way round; of each the first."""
    try:
        before, asked = _with_names(json.loads(marker.read_bytes())), _with_names(words)
    except (ValueError, TypeError):
        return f"{marker} is damaged"
    sides = [[word for word in one if word not in other] for one, other in ((before, asked), (asked, before))]
    there, now = (side[0] if side else "nothing" for side in sides)
    return f"it has {there} where {now} is asked for" if any(sides) else f"{marker} has them in another order"


def _with_names(words: Sequence[str]) -> list[str]:
    """Every word as a shell takes it, a value behind the name of its option: `--episodes`, `--episodes 2`."""
    names = ["", *(f"{word} " if word.startswith("--") and "=" not in word else "" for word in words)]
    return [
        shlex.quote(word) if word.startswith("-") else name + shlex.quote(word)
        for name, word in zip(names, words, strict=False)
    ]


def _clear(folder: Path, keep: Path) -> None:
    """Empty a folder but for `keep`; the folder itself stays, for the lock is on it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != keep:
            path.unlink()
