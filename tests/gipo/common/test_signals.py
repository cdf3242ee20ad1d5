"""Signals: heard by patient work, ending all other, and again ending even that."""

import os
import signal

import pytest

from gipo.common.signals import Ended, Listener


def give(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_what_is_not_patient_with_its_code(number: int, code: int) -> None:
    with Listener(), pytest.raises(Ended) as ended:
        give(number)
    assert ended.value.code == code


def test_patient_work_hears_it_and_the_same_again_ends_it() -> None:
    with Listener() as listener:
        listener.patient = True
        give(signal.SIGTERM)
        give(signal.SIGHUP)  # another, as a service manager sends after the first
        assert listener.heard == signal.SIGTERM
        with pytest.raises(Ended) as ended:
            give(signal.SIGTERM)
    assert ended.value.code == 143


def test_what_was_ignored_stays_ignored_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Listener() as listener:
            give(signal.SIGHUP)
            assert listener.heard is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGHUP, ignored)


def test_a_new_run_has_heard_nothing() -> None:
    listener = Listener()
    with listener, pytest.raises(Ended):
        give(signal.SIGINT)
    with listener:
        assert listener.heard is None
