"""Work beside the control thread: the viewer, and what becomes of work that fails or lags."""

import sys
import threading
import time
import types
from pathlib import Path

import pytest

from gipo.common.errors import UserError
from robots.session.background import Background
from robots.session.viewer import viewer
from tests.robots.builders import make_spec, step_row
from tests.unwoken import unwoken


def test_items_are_handled_in_order_and_close_waits_for_them() -> None:
    seen: list[int] = []
    work: Background[int] = Background(seen.append, capacity=100)
    for index in range(50):
        work(index)
    work.close()
    assert seen == list(range(50))
    assert work.dropped == 0


def test_what_lags_is_dropped_without_waiting() -> None:
    gate = threading.Event()
    work: Background[int] = Background(lambda _: gate.wait(), capacity=5)
    start = time.monotonic()
    for index in range(100):
        work(index)
    assert time.monotonic() - start < 1
    assert work.dropped >= 94
    gate.set()
    work.close()


def test_what_fails_is_kept_and_counted() -> None:
    def fail(_: int) -> None:
        raise ValueError("no window")

    work: Background[int] = Background(fail)
    for index in range(5):
        work(index)
    work.close()
    assert work.error == "ValueError: no window"
    assert work.dropped == 5


def test_a_signal_that_wakes_nobody_is_heard_while_work_is_waited_for() -> None:
    with unwoken() as deliver:
        work: Background[int] = Background(lambda _: deliver())
        work(0)
        work.close()
    assert work.error == ""


def test_work_that_exits_is_kept_too() -> None:
    def leave(_: int) -> None:
        raise SystemExit(3)

    work: Background[int] = Background(leave)
    work(0)
    work(1)
    work.close()
    assert (work.error, work.dropped) == ("SystemExit: 3", 2)


@pytest.mark.parametrize("waiting", [1, 5])
def test_work_that_hangs_does_not_hold_up_the_end(waiting: int) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hang(_: int) -> None:
        begun.set()
        gate.wait()

    work: Background[int] = Background(hang, capacity=3)
    for index in range(waiting):
        work(index)
        begun.wait()
    work.close(timeout=0.2)
    assert work.error == "it takes more than 0.2 s"
    assert work.dropped == waiting, "what hangs, what waits behind it, and what found no room"
    gate.set()


def test_the_viewer_shows_steps(tmp_path: Path) -> None:
    rerun = pytest.importorskip("rerun")
    spec = make_spec()
    with viewer(spec, spawn=False) as (show,):
        rerun.save(tmp_path / "a.rrd")
        for index in range(20):
            show(step_row(index, 5, 3))
    assert show.error == ""
    rerun.disconnect()
    data = (tmp_path / "a.rrd").read_bytes()
    assert b"action/grip/sent" in data or len(data) > 2000


def test_a_viewer_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rerun = types.SimpleNamespace(init=lambda *_, **__: None)  # and nothing to log with
    monkeypatch.setitem(sys.modules, "rerun", rerun)
    with viewer(make_spec()) as (show,):
        show(step_row(0, 5, 3))
    assert "the viewer failed, 1 steps were not shown: AttributeError" in capsys.readouterr().err


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"needs rerun: pip install .*\[viewer\]"), viewer(make_spec(), spawn=False):
        pass
