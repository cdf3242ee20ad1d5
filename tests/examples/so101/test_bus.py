"""The servos of a line: what the protocol and the manual of an STS3215 say they do."""

import pytest

from examples.so101.bus.line import Line
from examples.so101.bus.protocol import (
    ACTION,
    BROADCAST,
    OVERHEAT,
    PING,
    READ,
    REG_WRITE,
    SYNC_READ,
    SYNC_WRITE,
    WRITE,
    Instruction,
    Parser,
    packet,
)
from examples.so101.bus.registers import EEPROM_END, SIZE, STS3215
from tests.examples.so101.line import Clock, ask, line, place, value, whole, words


def write(servos: Line, name: str, number: int, identity: int = 1) -> bytes:
    register = STS3215[name]
    (answer,) = ask(servos, identity, WRITE, bytes([register.address]) + register.encode(number))
    return answer


def read(servos: Line, name: str, identity: int = 1) -> int:
    (answer,) = ask(servos, identity, READ, place(name))
    return value(name, answer)


def test_a_packet_of_the_manual() -> None:
    """Feetech's manual: ping of servo 1, and its answer."""
    assert packet(1, PING) == bytes.fromhex("ff ff 01 02 01 fb")
    assert ask(line(), 1, PING) == [bytes.fromhex("ff ff 01 02 00 fc")]


def test_packets_are_found_however_they_are_cut_and_whatever_is_between_them() -> None:
    stream = b"\x00\xff" + packet(1, PING) + b"\xff\xff\x07" + packet(2, READ, b"\x38\x02") + packet(3, PING)[:-1]
    stream += b"\x00" + packet(4, WRITE, b"\x2a\xff\xff")
    parser = Parser()
    found = [asked for byte in stream for asked in parser.feed(bytes([byte]))]
    assert found == [Instruction(1, PING), Instruction(2, READ, b"\x38\x02"), Instruction(4, WRITE, b"\x2a\xff\xff")]


def test_registers_do_not_overlap_and_are_within_the_table() -> None:
    taken = [byte for each in STS3215.values() for byte in range(each.address, each.address + each.size)]
    assert len(taken) == len(set(taken))
    assert max(taken) < SIZE


@pytest.mark.parametrize(("number", "data"), [(5, b"\x05\x00"), (-5, b"\x05\x08"), (2047, b"\xff\x07")])
def test_an_offset_is_sign_and_magnitude(number: int, data: bytes) -> None:
    assert STS3215["Homing_Offset"].encode(number) == data
    assert STS3215["Homing_Offset"].decode(data) == number


@pytest.mark.parametrize(("name", "number"), [("Homing_Offset", 2048), ("Homing_Offset", -2048), ("Lock", 256),
                                              ("Lock", -1)])  # fmt: skip
def test_what_a_register_cannot_hold_is_refused(name: str, number: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        STS3215[name].encode(number)


def test_all_answer_a_ping_of_all_and_one_that_of_one() -> None:
    assert [answer[2] for answer in ask(line(), BROADCAST, PING)] == [1, 2, 3, 4, 5, 6]
    assert [answer[2] for answer in ask(line(), 4, PING)] == [4]
    assert ask(line(), 9, PING) == []


def test_a_servo_says_its_model() -> None:
    (answer,) = ask(line(), 3, READ, b"\x03\x02")
    assert answer == packet(3, 0, words(777))


def test_a_motor_goes_to_its_goal_only_with_torque() -> None:
    clock = Clock()
    servos = line(clock=clock)
    write(servos, "Goal_Position", 1000)
    clock.now += 1.0
    assert read(servos, "Present_Position") == 2048
    write(servos, "Torque_Enable", 1)
    clock.now += 1.0
    assert read(servos, "Present_Position") == 2048, "torque alone moves nothing"
    write(servos, "Goal_Position", 1000)
    assert read(servos, "Moving") == 1
    clock.now += 1.0
    assert read(servos, "Present_Position") == 1000
    assert read(servos, "Moving") == 0


def test_an_offset_shifts_what_is_read_and_what_is_asked_for_alike() -> None:
    clock = Clock()
    servos = line(clock=clock)
    write(servos, "Homing_Offset", -100)
    assert read(servos, "Present_Position") == 2148
    write(servos, "Torque_Enable", 1)
    write(servos, "Goal_Position", 1500)
    clock.now += 1.0
    assert read(servos, "Present_Position") == 1500
    assert servos.servos[0].motor.position() == pytest.approx(1400, abs=1)


def test_a_goal_is_held_within_the_limits() -> None:
    clock = Clock()
    servos = line(clock=clock)
    write(servos, "Min_Position_Limit", 2000)
    write(servos, "Max_Position_Limit", 2500)
    write(servos, "Torque_Enable", 1)
    write(servos, "Goal_Position", 4000)
    clock.now += 1.0
    assert read(servos, "Present_Position") == 2500


@pytest.mark.parametrize(("name", "number", "locked", "kept"), [
    ("P_Coefficient", 16, 0, True), ("P_Coefficient", 16, 1, False), ("Goal_Position", 77, 0, False),
])  # fmt: skip
def test_what_is_kept_without_power(name: str, number: int, locked: int, kept: bool) -> None:
    servos = line()
    write(servos, "Lock", locked)
    write(servos, name, number)
    assert read(servos, name) == number
    servo = servos.servos[0]
    servo.lose_power()
    assert ask(servos, 1, PING) == []
    servo.get_power()
    assert read(servos, name) == (number if kept else STS3215[name].factory)
    assert (STS3215[name].address < EEPROM_END) == (name == "P_Coefficient")


def test_power_that_was_lost_comes_back_without_torque() -> None:
    clock = Clock()
    servos = line(clock=clock)
    write(servos, "Torque_Enable", 1)
    write(servos, "Goal_Position", 0)
    servos.servos[0].lose_power()
    servos.servos[0].get_power()
    clock.now += 1.0
    assert read(servos, "Torque_Enable") == 0
    assert read(servos, "Present_Position") == 2048


def test_a_hot_motor_says_so_and_goes_limp_until_it_is_switched_on_again() -> None:
    clock = Clock()
    servos = line(clock=clock)
    write(servos, "Torque_Enable", 1)
    servos.servos[0].hot = True
    (answer,) = ask(servos, 1, READ, place("Present_Temperature"))
    assert answer[4] == OVERHEAT
    assert value("Present_Temperature", answer) > read(servos, "Max_Temperature_Limit")
    write(servos, "Goal_Position", 0)
    clock.now += 1.0
    assert read(servos, "Present_Position") == 2048
    assert read(servos, "Status") == OVERHEAT
    servos.servos[0].hot = False
    assert read(servos, "Torque_Enable") == 0
    assert ask(servos, 1, PING)[0][4] == 0
    write(servos, "Torque_Enable", 1)
    assert read(servos, "Torque_Enable") == 1


@pytest.mark.parametrize("name", ["Present_Position", "Model_Number", "Status"])
def test_what_is_measured_cannot_be_written(name: str) -> None:
    servos = line()
    before = read(servos, name)
    assert write(servos, name, 1)[4] != 0
    assert read(servos, name) == before


def test_what_is_outside_of_the_table_is_refused() -> None:
    (answer,) = ask(line(), 1, READ, bytes([SIZE - 1, 2]))
    assert answer[4] != 0
    assert len(answer) == 6


def test_one_instruction_reads_all() -> None:
    servos = line(clock=Clock())
    found = ask(servos, BROADCAST, SYNC_READ, place("Present_Position") + bytes([3, 1, 9, 6]))
    assert [answer[2] for answer in found] == [3, 1, 6]
    assert all(whole(answer) and value("Present_Position", answer) == 2048 for answer in found)


def test_one_instruction_writes_all_and_none_answers() -> None:
    servos = line()
    goals = b"".join(bytes([identity]) + words(1000 + identity) for identity in (1, 2, 6))
    assert ask(servos, BROADCAST, SYNC_WRITE, place("Goal_Position") + goals) == []
    assert [read(servos, "Goal_Position", identity) for identity in (1, 2, 6)] == [1001, 1002, 1006]
    assert read(servos, "Goal_Position", 3) == 0


def test_a_write_can_wait_for_all() -> None:
    servos = line()
    address = bytes([STS3215["Goal_Position"].address])
    for identity in (1, 2):
        assert len(ask(servos, identity, REG_WRITE, address + words(500))) == 1
    assert read(servos, "Goal_Position") == 0
    assert ask(servos, BROADCAST, ACTION) == []
    assert [read(servos, "Goal_Position", identity) for identity in (1, 2, 3)] == [500, 500, 0]


def test_a_servo_may_be_told_to_answer_reads_alone() -> None:
    servos = line()
    assert ask(servos, 1, WRITE, bytes([STS3215["Response_Status_Level"].address, 0])) == []
    assert ask(servos, 1, WRITE, bytes([STS3215["Lock"].address, 0])) == []
    assert len(ask(servos, 1, READ, place("Lock"))) == 1
    assert len(ask(servos, 1, PING)) == 1


def test_a_servo_waits_before_it_answers_as_it_is_told() -> None:
    servos = line()
    asked = Instruction(1, PING)
    assert [answer.delay for answer in servos.answers(asked)] == [500e-6]
    write(servos, "Return_Delay_Time", 0)
    assert [answer.delay for answer in servos.answers(asked)] == [0.0]
