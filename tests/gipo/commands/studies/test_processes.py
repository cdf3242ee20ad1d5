"""Commands as processes: what they say is kept, where they fail it is repeated, and Ctrl-C leaves them time to save."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gipo.commands.studies import processes as commands
from gipo.commands.studies.processes import run
from gipo.common.errors import UserError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`started(code)`: the next command is this Python program."""
    popen = subprocess.Popen

    def replace(code: str) -> None:
        monkeypatch.setattr(subprocess, "Popen", lambda call, **options: popen([sys.executable, "-c", code], **options))

    return replace


def lock(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY)


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError) as failed:
        run("gipo-deploy", ["check", "no such.onnx"], tmp_path / "said.txt", lock(tmp_path))
    assert "`gipo-deploy check 'no such.onnx'` ended with exit code 2; " in str(failed.value)
    assert "said.txt ends with:\n" in str(failed.value)
    assert "gipo-deploy: error: " in str(failed.value)
    assert (tmp_path / "said.txt").read_text().startswith("$ gipo-deploy check 'no such.onnx'\n")


BARS = "import sys; print('done', flush=True); sys.stderr.write('\\r 10 %\\r 99 %\\nwhy\\n'); sys.exit(3)"


@pytest.mark.parametrize("bars", [True, False])
def test_progress_goes_to_the_terminal_and_what_is_said_to_the_file(
    bars: bool, started: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started(BARS)
    with pytest.raises(UserError) as failed:
        run("gipo", ["fit"], tmp_path / "fit.txt", lock(tmp_path), bars)
    assert capfd.readouterr().err == ("\r 10 %\r 99 %\nwhy\n" if bars else "")
    assert "done" in (tmp_path / "fit.txt").read_text()
    assert ("\n 99 %\nwhy" in str(failed.value)) is not bars  # a bar in its last state only
    assert "10 %" not in str(failed.value)


@pytest.mark.parametrize("hears", [True, False])
def test_an_interrupted_command_may_save_and_one_that_heard_nothing_is_told(
    hears: bool, started: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "PATIENCE", 5.0 if hears else 0.2)
    started(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('told'), sys.exit(143)))\n"
        f"print('up', flush=True); time.sleep({'1.0' if hears else '60'}); print('saved')"
    )
    said = tmp_path / "fit.txt"

    def interrupt() -> None:
        while not said.exists() or "up" not in said.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), 2)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run("gipo", ["fit"], said, lock(tmp_path))
    assert said.read_text().splitlines()[-1] == ("saved" if hears else "told")
