"""The one boundary between a command and its user: whatever goes wrong becomes one line and an exit code.

| what ended the command | printed | exit |
|---|---|---|
| nothing | | what it returned, else 0 |
| nothing, and what it was asked is not known yet | that | 3 |
| `UserError`, or an error that can be translated into one | `gipo: error: …` | 2 |
| Ctrl-C that nothing else made use of | `gipo: interrupted` | 130 |
| a reader of its output that has gone (`| head`) | | 0 |
| a fault of ours | its traceback, and a request to report it | 1 |

`--debug`, or `GIPO_DEBUG=1`, prints the traceback of every one of them.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from gipo.common.faults import TRANSLATORS, Translator, of_a_users_class
from gipo.common.terminal import any_character, give_up, one_line, reader_has_gone, reopen_closed, tell
from gipo.common.working_folder import refuse_shadows, searched_last

EXIT_FAULT, EXIT_BAD_INPUT, EXIT_NOT_KNOWN, EXIT_INTERRUPTED = 1, 2, 3, 128 + 2
DEBUG_HELP = "--debug, or GIPO_DEBUG=1, shows the traceback of an error"


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
        with any_character(), searched_last():
            code = command(given) or 0
        if sys.stdout is not None and not sys.stdout.closed:  # a driver may have closed it
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return _told(program, "; ".join(["interrupted", *filter(None, [str(error)])]), error, EXIT_INTERRUPTED, debug)
    except SystemExit as error:  # argparse's, a signal's, or of a module of the user's that ends whoever imports it
        line = of_a_users_class(error) if type(error) is SystemExit and not _of_a_parser(error) else None
        if line is None:
            raise
        return _told(program, f"error: {line}", error, EXIT_BAD_INPUT, debug)
    except Exception as error:
        if _is_interrupt(error):
            return _told(program, "interrupted", error, EXIT_INTERRUPTED, debug)
        if isinstance(error, BrokenPipeError) and reader_has_gone(sys.stdout):
            give_up(sys.stdout)
            return 0
        for translate in (*translators, *TRANSLATORS):
            if (line := translate(error)) is not None:
                return _told(program, f"error: {line}", error, EXIT_BAD_INPUT, debug)
        report = "this is a fault of gipo, not yours; please report it with the lines above"
        return _told(program, report, error, EXIT_FAULT, debug=True)


def _of_a_parser(error: SystemExit) -> bool:
    """Whether argparse, or a parser made of it, has ended the command: it has said all there is to say."""
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return last.f_code.co_filename == argparse.__file__


def _is_interrupt(error: BaseException) -> bool:
    """Whether an error was raised out of Ctrl-C, as by a library in C whose import it ended."""
    cause = error.__cause__
    return cause is not None and (isinstance(cause, KeyboardInterrupt) or _is_interrupt(cause))


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
