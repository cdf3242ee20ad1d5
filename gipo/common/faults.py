"""Whose fault an error is, and the one line that says so: the user's, the system's, a package's that is missing.

What none of TRANSLATORS knows is a fault of ours.
"""

import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

from gipo.common import extras
from gipo.common.errors import UserError
from gipo.common.working_folder import PACKAGES, shadowing

BASE = ("numpy", "onnxruntime", "mcap", "orjson", "zstandard")
OURS = tuple(f"{Path(__file__).parents[2] / package}{os.sep}" for package in PACKAGES)
INSTALLED = ("<", sysconfig.get_path("stdlib") + os.sep)  # how the names of files begin that are nobody's here
# `Mine.__call__() takes 2 positional arguments but 3 were given`, `Can't instantiate abstract class Mine …`.
NAMED = re.compile(
    r"(?:Can't instantiate abstract class )?(\w+)(?:\.\w+\(\) (?:takes|missing|got)|\(\) |\b.* abstract method)"
)

Translator = Callable[[BaseException], str | None]


def of_a_user(error: BaseException) -> str | None:
    """The line of an error that is already told as a user needs it; None for others."""
    return str(error) if isinstance(error, UserError) else None


def of_the_system(error: BaseException) -> str | None:
    """The line about a file, device, port or folder that the operating system refuses; None for other errors."""
    if not isinstance(error, OSError):
        return None
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    return f"{where}: {what}" if where else what


def of_a_shadow(error: BaseException) -> str | None:
    """The line about a module of the working folder that was imported in a library's place and lacks something."""
    if not isinstance(error, (ImportError, AttributeError)):
        return None
    return shadowing({*extras.OF, *BASE, *sys.stdlib_module_names})


def of_a_missing_package(error: BaseException) -> str | None:
    """The line about a library that is not installed and comes with an extra; None for other errors."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    if package not in extras.OF:
        return None
    return f"{package} is not installed; this command needs it: {extras.install(extras.OF[package])}"


def of_a_users_class(error: BaseException) -> str | None:
    """The line about an exception out of code that is neither ours nor installed, with its file and line.

    What an installed library raises is put down to whoever called it, the user's code or ours.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _installed(frame.filename)]
    if frames and not frames[-1].filename.startswith(OURS):
        return described(error)
    return _of_its_call(error)


def described(error: BaseException) -> str:
    """`KeyError in move (arm.py:4): 'joint'`: kind, place and words of an error raised by code that is not ours.

    The place is the user's own line where there is one, else that in the library, never the interpreter's.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    of_libraries = [each for each in frames if _beside_metadata(each.filename) or _is_users(each.filename)]
    frames = [frame for frame in frames if _is_users(frame.filename)] or of_libraries
    place = f" in {frames[-1].name} ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}: {error}"


def line_of(error: BaseException) -> str:
    """` in move (arm.py:4)`, the user's own line that raised an error; nothing where there is none.

    No file is looked at, so that a control loop can say it while it stops.
    """
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    theirs = [
        (code, line) for code, line in frames
        if not code.co_filename.startswith((*OURS, *INSTALLED)) and "site-packages" not in code.co_filename
    ]  # fmt: skip
    return f" in {theirs[-1][0].co_name} ({theirs[-1][0].co_filename}:{theirs[-1][1]})" if theirs else ""


def _installed(file: str) -> bool:
    return not file.startswith(OURS) and (file.startswith(INSTALLED) or _beside_metadata(file))


def _beside_metadata(file: str) -> bool:
    """Whether a file is of an installed package: in `site-packages`, or where `pip install --target` put it."""
    roots = (path for path in sys.path if path and file.startswith(os.path.join(path, "")))
    return "site-packages" in file or any(any(Path(root).glob("*.dist-info")) for root in roots)


def _is_users(file: str) -> bool:
    return not file.startswith(OURS) and not _installed(file)


def _of_its_call(error: BaseException) -> str | None:
    """`mine.Mine (mine.py:4): …` for a call that a class does not take, an abstract class, or a mistyped module."""
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return f"{type(error).__name__} ({error.filename}:{error.lineno}): {error.msg}"
    found = NAMED.match(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    for module in list(sys.modules.values()):
        file, kind = getattr(module, "__file__", None), getattr(module, "__dict__", {}).get(found[1])
        if file and inspect.isclass(kind) and kind.__module__ == module.__name__ and _is_users(file):
            return f"{kind.__module__}.{kind.__qualname__} ({file}:{inspect.getsourcelines(kind)[1]}): {error}"
    return None


TRANSLATORS: tuple[Translator, ...] = (of_a_user, of_a_shadow, of_the_system, of_a_missing_package, of_a_users_class)


def is_ours(instance: object) -> bool:
    """Whether the class of an instance is of `gipo`, and not of a user or a library."""
    return type(instance).__module__.startswith("gipo.")


def class_path(instance: object) -> str:
    """Where the class of an instance is imported from."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}"
