"""The port of a bus, and what can go wrong on it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.so101.bus.faults import Faults
from examples.so101.bus.port import Port
from examples.so101.bus.protocol import BROADCAST, PING, READ, SYNC_READ
from tests.examples.so101.line import Master, line, place, whole, words

ALL = place("Present_Position") + bytes(range(1, 7))


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    with Port(line(), str(tmp_path / "arm")) as port:
        yield port


@pytest.fixture
def master(port: Port) -> Iterator[Master]:
    master = Master(port.path)
    yield master
    master.close()


def test_a_driver_finds_six_servos(port: Port, master: Master) -> None:
    assert port.path.endswith("arm")
    assert list(master.ask(BROADCAST, PING, size=36)[2::6]) == [1, 2, 3, 4, 5, 6]
    assert master.ask(6, READ, b"\x03\x02", size=8)[5:7] == words(777)


def test_a_port_outlives_whoever_has_opened_it(port: Port) -> None:
    for _ in range(2):
        master = Master(port.path)
        assert len(master.ask(1, PING)) == 6
        master.close()


def test_a_mute_bus_says_nothing_until_it_speaks_again(port: Port, master: Master) -> None:
    port.faults.mute = True
    assert master.ask(1, PING, seconds=0.05) == b""
    port.faults.mute = False
    assert len(master.ask(1, PING)) == 6


def test_a_pulled_plug_is_the_end_of_the_port(port: Port, master: Master) -> None:
    port.unplug()
    assert not os.path.lexists(port.path)
    with pytest.raises(OSError, match=r"Input/output|Errno 5"):
        master.ask(1, PING)
    port.unplug()  # a plug is pulled once, however often


def test_a_plug_that_is_pulled_leaves_the_port_that_has_taken_its_name(port: Port) -> None:
    with Port(line(), port.path) as later:
        port.unplug()
        master = Master(later.path)
        assert len(master.ask(1, PING)) == 6
        master.close()
    assert not os.path.lexists(later.path)


def test_answers_are_late_as_they_are_told_to_be(port: Port, master: Master) -> None:
    port.faults.latency = 0.05
    begun = time.monotonic()
    assert len(master.ask(1, PING)) == 6
    assert time.monotonic() - begun >= 0.05


def test_a_share_of_the_answers_is_lost() -> None:
    faults = Faults(dropped=0.1, seed=3)
    answers = [faults.on_the_way(b"\xff\xff\x01\x02\x00\xfc") for _ in range(2000)]
    assert answers.count(b"") == faults.lost
    assert 150 < faults.lost < 250


def test_what_is_corrupted_is_no_packet_any_more() -> None:
    faults = Faults(corrupted=1.0)
    answers = [faults.on_the_way(b"\xff\xff\x01\x02\x00\xfc") for _ in range(300)]
    assert faults.spoilt == 300
    assert not any(whole(answer) for answer in answers)


def test_losses_are_seen_on_the_port(port: Port, master: Master) -> None:
    port.faults.dropped = 1.0
    assert master.ask(BROADCAST, SYNC_READ, ALL, seconds=0.05) == b""
    assert port.faults.lost == 6
