"""Types a command of ours as a shell would, in this process: words, globs, `> file`, comments."""

import contextlib
import glob
import io
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import deploy.cli
import gipo.cli
import gipo.commands.demos
import gipo.commands.studies.cli
import robots.cli
from gipo.common.boundary import EXIT_NOT_KNOWN

ENTRIES: dict[str, Callable[[Sequence[str]], object]] = {
    "gipo": gipo.cli.main,
    "gipo-demos": gipo.commands.demos.main,
    "gipo-deploy": deploy.cli.main,
    "gipo-robot": robots.cli.main,
    "gipo-study": gipo.commands.studies.cli.main,
}


class CommandFailed(AssertionError):
    """A command that a page shows does not end well."""


def words(line: str) -> tuple[list[str], str | None]:
    """The words of a line with globs expanded, and the file its output goes to."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=">")
    lexer.whitespace_split = True
    found, output = list(lexer), None
    if ">" in found:
        where = found.index(">")
        output = found[where + 1]
        del found[where : where + 2]
    expanded = [sorted(glob.glob(word)) if "*" in word else [word] for word in found]
    return [word for each in expanded for word in each], output


def type_line(line: str, appended: str = "") -> str:
    """Run a line in the working folder, with options appended; what it printed.

    Raises:
        CommandFailed: when it ends with another code than 0, or than that of a question whose answer is not known yet.
    """
    (program, *arguments), output = words(f"{line} {appended}" if ">" not in line else line)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = _run(program, arguments)
    if output is not None:
        Path(output).write_text(said.getvalue())
    if code not in (0, None, EXIT_NOT_KNOWN):
        raise CommandFailed(f"`{line}` ended with {code}; run with {appended!r}:\n{said.getvalue()[-2000:]}")
    return said.getvalue()


def _run(program: str, arguments: list[str]) -> object:
    try:
        # Several learners are started by Lightning as copies of the first one's process, which must be a run, no test.
        several = any(argument.startswith("--trainer.strategy=") for argument in arguments)
        if program in ENTRIES and not several:
            return ENTRIES[program](arguments)
        if program == "python":
            return _python(arguments)
        command = [sys.executable, "-m", "gipo.cli"] if several else [program]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        print(done.stdout + done.stderr)
        return done.returncode
    except SystemExit as ended:
        return ended.code


def _python(arguments: list[str]) -> None:
    before = sys.argv
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            exec(arguments[1], {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        sys.argv = before
