"""The one boundary between a command and its user: whatever goes wrong becomes one line and an exit code.

| what ended the command | printed | exit |
|---|---|---|
| nothing | | what it returned, else 0 |
| `UserError`, or an error that can be translated into one | `gipo: error: …` | 2 |
| Ctrl-C that nothing else made use of | `gipo: interrupted` | 130 |
| a reader of its output that has gone (`| head`) | | 0 |
| a fault of ours | its traceback, and a request to report it | 1 |

`--debug`, or `GIPO_DEBUG=1`, prints the traceback of every one of them.
"""

import contextlib
import io
import os
import select
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from gipo.common import extras
from gipo.common.errors import UserError
from gipo.common.user_classes import at_fault
from gipo.common.working_folder import refuse_shadows, searched_last, shadowing

EXIT_FAULT, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 128 + 2
BASE = ("numpy", "onnxruntime", "mcap", "orjson", "zstandard")
OURS = tuple(
    str(Path(__file__).parents[2] / package) + os.sep for package in ("gipo", "datamodules", "robots", "deploy")
)
INSTALLED = ("<", sysconfig.get_path("stdlib") + os.sep)  # how the names of files begin that are nobody's here
DEBUG_HELP = "--debug, or GIPO_DEBUG=1, shows the traceback of an error"

Translator = Callable[[BaseException], str | None]


def run(program: str, command: Callable[[list[str]], int | None], arguments: Sequence[str] | None,
        translators: Sequence[Translator] = ()) -> int:  # fmt: skip
    """Run `command` and return its exit code; what it raises is told in one line on stderr.

    Args:
        program: as the user calls it, e.g. `gipo-robot`.
        command: takes the arguments; may exit, as argparse does.
        arguments: those of the process when None.
        translators: turn an error of another library into one line, or None; asked before those of this module.
    """
    reopen_closed()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("GIPO_DEBUG", "") not in ("", "0")
    given = [argument for argument in given if argument != "--debug"]
    try:
        refuse_shadows()
        with _any_character(), searched_last():
            code = command(given) or 0
        if sys.stdout is not None and not sys.stdout.closed:  # a driver may have closed it
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return _told(program, "; ".join(["interrupted", *filter(None, [str(error)])]), error, EXIT_INTERRUPTED, debug)
    except SystemExit as error:  # argparse's, a signal's, or of a module of the user's that ends whoever imports it
        line = of_a_users_class(error) if type(error) is SystemExit else None
        if line is None:
            raise
        return _told(program, f"error: {line}", error, EXIT_BAD_INPUT, debug)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_has_gone(sys.stdout):
            give_up(sys.stdout)
            return 0
        for translate in (*translators, *TRANSLATORS):
            if (line := translate(error)) is not None:
                return _told(program, f"error: {line}", error, EXIT_BAD_INPUT, debug)
        report = "this is a fault of gipo, not yours; please report it with the lines above"
        return _told(program, report, error, EXIT_FAULT, debug=True)


def _told(program: str, line: str, error: BaseException, code: int, debug: bool) -> int:
    """Print, to a terminal that may be gone, and return the code."""
    if debug:
        tell("".join(traceback.format_exception(error)).rstrip("\n"))
    tell(f"{program}: {one_line(line)}")
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError:
        give_up(sys.stdout)
    return code


def tell(text: str) -> None:
    """Lines on standard error, if anybody still reads it: what cannot be told does not change how a command ends."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # full, gone, or closed
        give_up(sys.stderr)


@contextlib.contextmanager
def _any_character() -> Iterator[None]:
    """Have what a terminal of another encoding than UTF-8 cannot show printed as `?`, where Python would raise."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [(stream, stream.errors) for stream in streams if not stream.closed]
    for stream, _ in before:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in before:
            with contextlib.suppress(OSError, ValueError):  # it writes what waits, to what may be full, gone or closed
                stream.reconfigure(errors=errors)


def one_line(text: str) -> str:
    """`text` without line breaks and what drives a terminal, either of which a file, a name or an error may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def reopen_closed() -> None:
    """Have what is printed to a stream that was closed at the start go nowhere.

    The next file that is opened would take its number, and get what libraries print: a checkpoint, or a robot's log.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None and not _is_open(number):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def reader_has_gone(stream: TextIO | None) -> bool:
    """Whether it is our output that nobody reads, and not, say, a robot's socket: a pipe's end, or a terminal's."""
    try:
        waiting = select.poll()
        waiting.register(stream.fileno(), 0)  # type: ignore[union-attr]
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def give_up(stream: TextIO) -> None:
    """What is still to be written there goes nowhere, as the interpreter would complain at its end (with exit 120)."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def of_a_user(error: BaseException) -> str | None:
    """An error that is already told as a user needs it."""
    return str(error) if isinstance(error, UserError) else None


def of_the_system(error: BaseException) -> str | None:
    """A file, device, port or folder that the operating system refuses."""
    if not isinstance(error, OSError):
        return None
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    what = error.strerror or str(error) or type(error).__name__
    return f"{where}: {what}" if where else what


def of_a_shadow(error: BaseException) -> str | None:
    """A module of the working folder that was imported in place of a library, where something is missing in it."""
    if not isinstance(error, (ImportError, AttributeError)):
        return None
    return shadowing({*extras.OF, *BASE, *sys.stdlib_module_names})


def of_a_missing_package(error: BaseException) -> str | None:
    """A library that an extra brings."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    if package not in extras.OF:
        return None
    return f"{package} is not installed; this command needs it: {extras.install(extras.OF[package])}"


def of_a_users_class(error: BaseException) -> str | None:
    """An exception out of code that is neither ours nor installed: named with its file and line.

    What an installed library raises is put down to whoever called it, the user's code or ours.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _installed(frame.filename)]
    if frames and not frames[-1].filename.startswith(OURS):
        return described(error)
    return at_fault(error, lambda file: not _installed(file) and not file.startswith(OURS))


def described(error: BaseException) -> str:
    """`KeyError in move (arm.py:4): 'joint'`: kind, place and words of an error raised by code that is not ours.

    The place is the user's own line where there is one, else that in the library, never the interpreter's.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    frames = [
        frame for frame in frames if not frame.filename.startswith(INSTALLED) or "site-packages" in frame.filename
    ]
    frames = [frame for frame in frames if not _installed(frame.filename)] or frames
    place = f" in {frames[-1].name} ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{place}: {error}"


def _installed(file: str) -> bool:
    return not file.startswith(OURS) and ("site-packages" in file or file.startswith(INSTALLED))


TRANSLATORS: tuple[Translator, ...] = (of_a_user, of_a_shadow, of_the_system, of_a_missing_package, of_a_users_class)
