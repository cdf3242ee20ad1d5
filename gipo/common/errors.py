"""The errors that a user can mend: the command line prints them as one line and exits with code 2."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Bad input, or a world that does not allow what was asked. The message names what, where, and the way out."""


GipoError = ArtifactError = RobotError = LogError = UserError  # its names in version 0.1, by who raised it


def first_line(error: BaseException) -> str:
    """What an error says, without what a library puts below it; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def of_the_system(error: OSError, folder: Path) -> str:
    """What the system says of a failure in a folder; that a file has the place of one, which it calls "File exists"."""
    # os.path answers False where Path raises: on the way through a folder that may not be searched
    taken = next((each for each in (folder, *folder.parents) if os.path.exists(each) and not os.path.isdir(each)), None)
    return str(error.strerror or error) if taken is None else f"{taken} is a file; name a folder"


def nearest(name: str, known: Iterable[str]) -> str:
    """The three known names closest to `name`, in whatever case it is typed, as text for an error message."""
    known = list(known)
    lowered = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), lowered, cutoff=0.4)
    return ", ".join([lowered[one] for one in found] or known[:3])
