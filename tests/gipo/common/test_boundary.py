"""Whatever ends a command: one line on stderr, and the exit code that says what it was."""

import argparse
import importlib
import io
import os
import subprocess
import sys

import pytest

from gipo.common import boundary, faults
from gipo.common.errors import UserError


def raising(error):
    def command(arguments):
        raise error

    return command


def told(capsys, command, *arguments):
    code = boundary.run("gipo-x", command, arguments)
    return code, capsys.readouterr().err


def test_what_a_command_returns_is_its_code():
    assert boundary.run("gipo-x", lambda arguments: None, []) == 0
    assert boundary.run("gipo-x", lambda arguments: 143, []) == 143


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no policy here"), "no policy here"),
        (PermissionError(13, "Permission denied", "/dev/ttyACM0"), "/dev/ttyACM0: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("port is gone"), "port is gone"),
        (ConnectionResetError(), "ConnectionResetError"),
        (OSError(18, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid cross-device link"),
        (UserError("a task named \x1b[2J\nb"), "a task named  [2J b"),
    ],
)
def test_bad_input_and_a_world_that_refuses_are_one_line(capsys, error, line):
    assert told(capsys, raising(error)) == (2, f"gipo-x: error: {line}\n")


@pytest.mark.parametrize(("given", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_what_a_parser_has_ended_needs_no_line_of_ours(capsys, given, code):
    """Also of a command that is neither ours nor installed, as those in `examples/` are not."""
    with pytest.raises(SystemExit) as ended:
        boundary.run("mine", lambda arguments: argparse.ArgumentParser(prog="mine").parse_args(arguments), [given])
    assert ended.value.code == code
    assert "SystemExit" not in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(None, 0), (UserError("no policy here"), 2)])
def test_standard_output_that_a_driver_has_closed_is_no_fault_of_ours(capsys, monkeypatch, error, code):
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    command = raising(error) if error else lambda arguments: None
    assert told(capsys, command) == (code, f"gipo-x: error: {error}\n" if error else "")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"a ? b\n"), ("latin-1", b"a ? b\n"), ("utf-8", "a Δ b\n".encode())]
)
def test_a_terminal_of_another_encoding_is_no_fault(monkeypatch, encoding, shown):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert boundary.run("gipo-x", lambda arguments: print("a Δ b"), []) == 0
    assert written.getvalue() == shown
    assert sys.stdout.errors == "strict"


def test_a_missing_library_names_the_extra(capsys):
    code, err = told(capsys, raising(ModuleNotFoundError("No module named 'minari'", name="minari.storage")))
    assert (code, err) == (
        2,
        "gipo-x: error: minari is not installed; this command needs it: pip install '.[export]' in a clone of gipo\n",
    )


def test_a_broken_connection_of_a_robot_is_no_reader_that_has_gone(capsys):
    assert told(capsys, raising(BrokenPipeError(32, "Broken pipe"))) == (2, "gipo-x: error: Broken pipe\n")


@pytest.mark.parametrize("deep", [False, True], ids=["itself", "through a library"])
def test_an_error_in_a_users_class_names_its_place(capsys, tmp_path, monkeypatch, deep):
    (tmp_path / "their_arm.py").write_text(
        "import numpy\n\ndef move(arguments):\n    "
        + ("numpy.zeros(3) @ numpy.zeros(4)" if deep else "return {}['joint']")
    )
    monkeypatch.syspath_prepend(tmp_path)
    code, err = told(capsys, importlib.import_module("their_arm").move)
    sys.modules.pop("their_arm")
    assert code == 2
    assert err.startswith(
        f"gipo-x: error: {'ValueError' if deep else 'KeyError'} in move ({tmp_path}/their_arm.py:4): "
    )
    assert err.count("\n") == 1


@pytest.mark.parametrize("how", ["--debug", "GIPO_DEBUG"])
def test_the_traceback_is_shown_when_asked_for(capsys, monkeypatch, how):
    if how == "GIPO_DEBUG":
        monkeypatch.setenv(how, "1")
    seen = []

    def command(arguments):
        seen.extend(arguments)
        raise UserError("no policy here")

    code, err = told(capsys, command, *(["info", "--debug"] if how == "--debug" else ["info"]))
    assert (code, seen) == (2, ["info"])
    assert err.startswith("Traceback")
    assert err.endswith("gipo-x: error: no policy here\n")


def test_a_fault_of_ours_shows_its_traceback_and_asks_for_a_report(capsys, monkeypatch):
    monkeypatch.setattr(faults, "OURS", (os.path.dirname(__file__) + os.sep,))
    code, err = told(capsys, raising(AssertionError("cannot be")))
    assert code == 1
    assert "Traceback" in err
    assert "AssertionError: cannot be" in err
    assert err.endswith("gipo-x: this is a fault of gipo, not yours; please report it with the lines above\n")


def test_ctrl_c_is_told_and_not_success(capsys):
    assert told(capsys, raising(KeyboardInterrupt())) == (130, "gipo-x: interrupted\n")


def test_ctrl_c_that_a_library_tells_as_another_error_is_no_fault(capsys):
    """ONNX Runtime, whose import it ends, raises an ImportError from it."""

    def command(arguments):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    def translated(arguments):
        try:
            command(arguments)
        except ImportError as error:
            raise UserError("there is no robot 'my_arm:MyArm'") from error

    assert told(capsys, command) == told(capsys, translated) == (130, "gipo-x: interrupted\n")


WRITES = "import sys; from gipo.common.boundary import run; sys.exit(run('gipo-x', lambda a: print('x' * 10**5), []))"


@pytest.mark.parametrize(
    ("output", "code", "line"),
    [("gone", 0, b""), ("full", 2, b"gipo-x: error: No space left on device\n")],
)
def test_output_that_cannot_be_written(output, code, line):
    """A reader that has gone has seen enough; a full disk is said, once."""
    if output == "gone":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run([sys.executable, "-c", WRITES], stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (code, line)
