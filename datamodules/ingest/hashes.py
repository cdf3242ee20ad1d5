"""Content hashes, remembered as git's index remembers them: by path, size, time and inode."""

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from deploy.runtime.identity import file_id
from gipo.common.errors import UserError
from gipo.common.files import whole_file

# A file that changed so shortly before it was hashed may change again within one tick of its file system's clock.
SETTLED_NS = 2_000_000_000
INDEX = "hashes.json"


class Stamp(NamedTuple):
    """What tells that a file is another one than before."""

    size: int
    mtime_ns: int
    inode: int


def stamp(path: Path) -> Stamp:
    """Size, time and inode of a file."""
    found = os.stat(path)
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


class Hashes:
    """SHA-256 of files, hex, and when they were what.

    Args:
        folder: where the index stands; what is wrong with an index only makes it forgotten, as where others keep the
            stores and nobody else may write: a store that must be made says so itself.
    """

    def __init__(self, folder: Path):
        self._index = folder / INDEX
        self._known: dict[str, tuple[Stamp, int, str]] = {}
        self._stamps: dict[Path, Stamp] = {}
        with suppress(OSError, ValueError, TypeError, AttributeError):
            raw = json.loads(self._index.read_text(encoding="utf-8"))
            self._known = {path: (Stamp(*each), int(at), str(digest)) for path, (each, at, digest) in raw.items()}

    def of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The hash of each file, from its bytes unless it was hashed before and has settled since."""
        named = list(dict.fromkeys(paths))
        self._stamps |= {path: stamp(path) for path in named}
        missing = [path for path in named if not self._trusted(path)]
        if missing:
            now = time.time_ns()
            with ThreadPoolExecutor(min(4, len(missing))) as threads:  # hashing leaves Python's lock alone
                for path, digest in zip(missing, threads.map(file_id, missing), strict=True):
                    self._known[_name(path)] = (self._stamps[path], now, digest)
            self._save()
        return {path: self._known[_name(path)][2] for path in named}

    def check_unchanged(self, paths: Iterable[Path]) -> None:
        """Refuse files that are no longer what they were when `of` looked at them.

        Raises:
            UserError: naming the first.
        """
        for path in paths:
            if stamp(path) != self._stamps[path]:
                raise UserError(f"{path} changed while it was read; ingest it again once nobody writes to it")

    def _trusted(self, path: Path) -> bool:
        known = self._known.get(_name(path))
        return known is not None and known[0] == self._stamps[path] and known[0].mtime_ns < known[1] - SETTLED_NS

    def _save(self) -> None:
        kept = {name: each for name, each in self._known.items() if os.path.exists(name)}
        with suppress(OSError), whole_file(self._index) as partial:
            partial.write_text(json.dumps(kept), encoding="utf-8")


def _name(path: Path) -> str:
    return str(path.absolute())
