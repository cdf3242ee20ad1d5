"""Signs of life between learners: who is slow is waited for, who is lost is not."""

import signal
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from torch import distributed as dist

from gipo.common.signals import listener
from gipo.distributed import failure as together
from gipo.distributed import ranks
from gipo.distributed.failure import EndTogether, Pulse, report_lost
from tests.ranks import on_ranks

BEAT, SILENCE, GRACE = 0.1, 1.0, 0.3


def pulse(lost: list[str]) -> Pulse:
    dist.init_process_group("gloo")
    together.BEAT, together.SILENCE, together.GRACE = BEAT, timedelta(seconds=SILENCE), GRACE
    return Pulse(lambda error: lost.append(str(error)))


def slow() -> tuple[list[str], float]:
    """The second rank computes for longer than a rank may be silent, and is done long after the first."""
    lost: list[str] = []
    mine, began = pulse(lost), time.monotonic()
    # Half a second more than is asked of the first, which begins to count when it is given a processor.
    while ranks.rank() == 1 and time.monotonic() - began < 2 * SILENCE + 0.5:
        sum(range(10_000))
    mine.finish()
    return lost, time.monotonic() - began


def silent(leaves: bool) -> list[str]:
    """The second rank stops to answer; the first notices, and calls it a loss unless it `leaves` by itself."""
    lost: list[str] = []
    mine = pulse(lost)
    if ranks.rank() == 1:
        mine.leave()
        time.sleep(SILENCE + GRACE + 1)
        return lost
    end = time.monotonic() + SILENCE + GRACE + 1
    while time.monotonic() < end and mine._thread.is_alive():
        time.sleep(BEAT)
        if leaves and time.monotonic() > end - GRACE - 1:
            mine.leave()
    assert not mine._thread.is_alive()
    return lost


def test_a_slow_learner_is_waited_for() -> None:
    for lost, seconds in on_ranks(slow):
        assert lost == []
        assert seconds >= 2 * SILENCE  # who is done goes on to say that it lives


def test_a_silent_learner_is_lost() -> None:
    first, second = on_ranks(silent, False)
    assert len(first) == 1
    assert "Timed out" in first[0]
    assert second == []


def test_who_ends_by_itself_is_not_ended() -> None:
    assert on_ranks(silent, True) == [[], []]


def test_a_signal_to_one_learner_ends_all_after_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = SimpleNamespace(_signal_connector=SimpleNamespace(received_sigterm=False))
    callback, heard_elsewhere = EndTogether(), [0]
    monkeypatch.setattr(ranks, "others", lambda own: heard_elsewhere)
    with listener:
        callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        assert not trainer._signal_connector.received_sigterm
        heard_elsewhere[0] = signal.SIGTERM
        callback.on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        assert trainer._signal_connector.received_sigterm
        assert listener.heard == signal.SIGTERM  # so that all end with the same code


def test_a_signal_that_comes_while_a_learner_waits_for_the_others_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = SimpleNamespace(_signal_connector=SimpleNamespace(received_sigterm=False))
    told: list[int] = []

    def others(own: int) -> list[int]:
        told.append(own)
        listener.heard = signal.SIGTERM  # meanwhile
        return [0]

    monkeypatch.setattr(ranks, "others", others)
    with listener:
        for _ in range(2):
            EndTogether().on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
        assert told == [0, signal.SIGTERM]
        assert trainer._signal_connector.received_sigterm


def test_what_looks_like_a_loss_is_none_where_nobody_can_be_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert not ranks.is_loss_of_a_rank(RuntimeError("the read operation timed out"))
    assert ranks.is_loss_of_a_rank(dist.DistNetworkError("the port is taken\nmore"))
    report_lost(RuntimeError("the port is taken\nmore"))
    assert capsys.readouterr().err == "gipo: error: the learners of this run could not meet: the port is taken\n"
