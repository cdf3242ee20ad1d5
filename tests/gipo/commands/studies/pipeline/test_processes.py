"""Commands as processes: what they say is kept, where they fail it is repeated, and Ctrl-C leaves them time to save."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from gipo.commands.studies.pipeline import processes as module
from gipo.commands.studies.pipeline.processes import (
    SOONEST,
    Commands,
    all_made,
    how_it_ended,
    in_order,
    side_by_side,
    under_a_bar,
)
from gipo.commands.studies.pipeline.versions import OtherVersion
from gipo.common.errors import UserError
from tests.unwoken import unwoken


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
        Commands().run("gipo-deploy", ["check", "no such.onnx"], tmp_path / "said.txt", lock(tmp_path))
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
        Commands().run("gipo", ["fit"], tmp_path / "fit.txt", lock(tmp_path), bars)
    assert capfd.readouterr().err == ("\r 10 %\r 99 %\nwhy\n" if bars else "")
    assert "done" in (tmp_path / "fit.txt").read_text()
    assert ("\n 99 %\nwhy" in str(failed.value)) is not bars  # a bar in its last state only
    assert "10 %" not in str(failed.value)


SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('told'), sys.exit(143)))
print('up', flush=True); time.sleep({seconds}); print('saved')
"""


def until_up(said: Path) -> None:
    while not said.exists() or "up" not in said.read_text():
        time.sleep(0.02)


@pytest.mark.parametrize("hears", [True, False])
def test_an_interrupted_command_may_save_and_one_that_heard_nothing_is_told(
    hears: bool, started: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 5.0 if hears else 0.2)
    started(SLEEPER.format(seconds=1.0 if hears else 60))
    said, commands = tmp_path / "fit.txt", Commands()

    def interrupt() -> None:
        until_up(said)
        os.kill(os.getpid(), 2)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt), side_by_side(commands, 1) as pool:
        list(in_order([pool.submit(commands.run, "gipo", ["fit"], said, lock(tmp_path))]))
    assert said.read_text().splitlines()[-1] == ("saved" if hears else "told")


def test_a_command_that_fails_ends_those_beside_it_and_none_begins_after(
    started: Callable[[str], None], tmp_path: Path
) -> None:
    started(SLEEPER.format(seconds=60))
    commands, said = Commands(), tmp_path / "other.txt"

    def fail() -> None:
        until_up(said)
        started("import sys; sys.exit('no disk')")
        commands.run("gipo", ["fit"], tmp_path / "failed.txt", lock(tmp_path))

    began = time.monotonic()
    with pytest.raises(UserError, match=r"(?s)`gipo fit` ended with exit code 1; .*\nno disk$"):  # noqa: SIM117, PT012
        with side_by_side(commands, 2) as pool:
            other = pool.submit(commands.run, "gipo-robot", ["run"], said, lock(tmp_path))
            list(in_order([other, pool.submit(fail), pool.submit(fail)]))
    assert time.monotonic() - began < 30
    assert said.read_text().splitlines()[-1] == "told"
    with pytest.raises(UserError, match="the study has ended"):
        other.result()
    with pytest.raises(UserError, match="the study has ended"):
        commands.run("gipo", ["fit"], tmp_path / "late.txt", lock(tmp_path))


@pytest.mark.parametrize(
    ("code", "says"),
    [(2, "ended with exit code 2"), (-15, "was ended by SIGTERM"), (-40, "was ended by signal 40")],
)
def test_how_a_process_ended_is_said(code: int, says: str) -> None:
    assert how_it_ended(code) == says


@pytest.mark.parametrize("before", [0, 2])
def test_what_an_earlier_call_has_made_takes_none_of_the_time_that_is_left(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[Any] = []
    monkeypatch.setattr(module, "tqdm", lambda **options: bars.append(tqdm(**options)) or bars[0])
    with under_a_bar(Commands(), 1, 5, "runs") as submit:
        for number in range(3):
            submit(time.sleep, 0.0 if number < before else SOONEST).result()
    assert (bars[0].n, bars[0].initial) == (3, before)
    known = bars[0].format_dict
    left = 2 * known["elapsed"] / (3 - before)
    assert tqdm.format_interval(left) in tqdm.format_meter(**known)


def test_results_come_in_order_and_the_first_error_at_once() -> None:
    slow: Future[int] = Future()
    done: Future[int] = Future()
    done.set_result(2)
    threading.Timer(0.05, slow.set_result, [1]).start()
    assert list(in_order([slow, done])) == [1, 2]
    never: Future[int] = Future()
    failed: Future[int] = Future()
    failed.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        list(in_order([never, failed]))


@pytest.mark.parametrize("waiting", [all_made, lambda futures: list(in_order(futures))])
def test_a_signal_that_wakes_nobody_is_heard_while_runs_are_waited_for(waiting: Callable[..., Any]) -> None:
    with unwoken() as deliver, ThreadPoolExecutor(1) as pool:
        assert waiting([pool.submit(deliver)]) == [None]


def ended(*found: int | Exception) -> list[Future[int]]:
    """Futures that have ended so."""
    futures: list[Future[int]] = [Future() for _ in found]
    for one, result in zip(futures, found, strict=True):
        if isinstance(result, Exception):
            one.set_exception(result)
        else:
            one.set_result(result)
    return futures


def test_a_run_that_fails_does_not_keep_others_from_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    assert all_made(ended(1, 2)) == [1, 2]
    slow: Future[int] = Future()
    timer = threading.Timer(0.05, slow.set_result, [1])
    timer.start()
    with pytest.raises(UserError, match=r"2 of 4 runs failed, all others are made; the first: (a|b)"):
        all_made([*ended(UserError("a"), UserError("b")), slow, *ended(3)])
    assert slow.done()
    assert capsys.readouterr().err.count("gipo: a run failed, the others go on:") == 2


def test_what_is_made_is_written_where_a_run_fails(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    rows: list[Future[dict[str, int]]] = [Future(), Future(), Future()]
    for number, one in enumerate(rows):
        one.set_result({"seed": number})
    assert len(all_made(rows, table)) == 3
    assert not table.exists(), "which the study itself writes"
    failed: Future[dict[str, int]] = Future()
    failed.set_exception(UserError("a nan"))
    with pytest.raises(UserError, match=rf"1 of 4 runs failed, all others are made and stand in {table}; .*: a nan"):
        all_made([failed, *rows], table)
    assert table.read_text().split() == ["seed", "0", "1", "2"]
    with pytest.raises(UserError, match="all others are made and stand in"):
        all_made([failed, *rows], table, [{"seed": 9}])
    assert table.read_text().split() == ["seed", "9", "0", "1", "2"]


def test_what_is_wrong_for_all_runs_ends_a_study_at_once() -> None:
    never: Future[int] = Future()
    with pytest.raises(UserError, match=r"^no disk$"):
        all_made([*ended(*[UserError("no disk")] * 3), never])
    for error in (ZeroDivisionError(), OtherVersion("rounds 16, and 32")):
        with pytest.raises(type(error)):
            all_made([*ended(1, error), never])


def refused(commands: Commands, folder: Path, name: str) -> str:
    """What a command said that found no log."""
    said = folder / name
    with pytest.raises(UserError, match=r"`gipo-robot info none\.mcap` ended with exit code 2; "):
        commands.run("gipo-robot", ["info", "none.mcap"], said, lock(folder))
    return said.read_text()


def test_a_prepared_process_becomes_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[list[str]] = []
    popen = subprocess.Popen

    def count(call: list[str], **options: Any) -> Any:
        began.append(call)
        return popen(call, **options)

    monkeypatch.setattr(subprocess, "Popen", count)
    commands = Commands()
    usual = refused(commands, tmp_path, "usual.txt")
    with commands:
        for _ in range(2):
            commands.prepare("gipo-robot")
        (_, _, dead), (_, _, alive) = commands._ready
        dead.process.kill()
        dead.process.wait()
        assert refused(commands, tmp_path, "prepared.txt") == usual
        assert alive.process.returncode == 2
        assert len(began) == 3  # of which the last two were prepared
        assert refused(commands, tmp_path, "again.txt") == usual
        assert len(began) == 4
        commands.prepare("gipo-robot")
        unused = commands._ready[0][2].process
    assert unused.returncode is not None
