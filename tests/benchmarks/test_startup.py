"""Start-ups that are timed: each has a bound, and a command that ends otherwise than it should is no measurement."""

import sys

import pytest

from benchmarks import startup


def test_every_command_has_a_bound() -> None:
    found = startup.commands("folder", 0)
    assert set(found) == {"torch", *startup.BOUNDS}
    assert "--trainer.callbacks+=benchmarks.startup.EndAtFirstBatch" in found["first_batch"]


def test_a_run_ends_at_its_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    startup.EndAtFirstBatch().on_train_batch_start(None, None, None, 0)
    assert codes == [startup.REACHED]


def test_a_command_that_ends_otherwise_is_no_measurement() -> None:
    call = [sys.executable, "-c", "import sys; sys.exit('no torch')"]
    clock, processor = startup.timed(call, code=1)
    assert 0 < processor < clock + 1
    with pytest.raises(RuntimeError, match=r"ended with 1:\nno torch"):
        startup.timed(call)
