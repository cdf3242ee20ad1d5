"""The gamepad: evdev's own event objects through a pipe in place of a device file; a real device where uinput is."""

import errno
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.base import Observation
from robots.people.gamepad import Gamepad, gamepad
from robots.people.operator import Said
from tests.robots.builders import make_spec

evdev = pytest.importorskip("evdev", reason="the extra gamepad, of Linux")
from evdev import AbsInfo, InputEvent  # noqa: E402
from evdev import ecodes as e  # noqa: E402

SEEN = Observation(np.zeros(5), 1)
EVENT = struct.Struct("llHHi")  # as the kernel writes it
ABS = [(code, AbsInfo(0, -32768, 32767, 16, 128, 0)) for code in (e.ABS_X, e.ABS_Y, e.ABS_RX, e.ABS_RY)]
KEYS = [e.BTN_TR, e.BTN_SOUTH, e.BTN_EAST, e.BTN_NORTH, e.BTN_WEST, e.BTN_SELECT]


class PipedDevice:
    """What of `evdev.InputDevice` is used, reading the kernel's structures from a pipe."""

    def __init__(self) -> None:
        self.fd, self.feed = os.pipe()
        os.set_blocking(self.fd, False)
        self.state, self.held, self.closed = dict(ABS), [], 0

    def capabilities(self) -> dict[int, Any]:
        return {e.EV_ABS: list(self.state.items()), e.EV_KEY: KEYS}

    def absinfo(self, code: int) -> Any:
        return self.state[code]

    def active_keys(self) -> list[int]:
        return self.held

    def read(self) -> Iterator[Any]:
        data = os.read(self.fd, EVENT.size * 64)  # raises BlockingIOError, as evdev does
        return iter([InputEvent(*EVENT.unpack_from(data, at)) for at in range(0, len(data), EVENT.size)])

    def close(self) -> None:
        self.closed += 1

    def say(self, *events: tuple[int, int, int]) -> None:
        os.write(self.feed, b"".join(EVENT.pack(0, 0, *event) for event in events))


@pytest.fixture
def device() -> Iterator[PipedDevice]:
    found = PipedDevice()
    yield found
    os.close(found.fd)


def test_sticks_move_while_the_shoulder_is_held(device: PipedDevice) -> None:
    pad = Gamepad(device, make_spec())
    pad.begin()
    assert not pad.engaged()
    device.say((e.EV_KEY, e.BTN_TR, 1), (e.EV_ABS, e.ABS_X, 32767), (e.EV_ABS, e.ABS_Y, 32767), (e.EV_SYN, 0, 0))
    np.testing.assert_allclose(pad.action(SEEN), [1, -1, 0], atol=1e-4, err_msg="up is where it counts down")
    assert pad.engaged()
    device.say((e.EV_ABS, e.ABS_X, 2000), (e.EV_ABS, e.ABS_Y, 0), (e.EV_ABS, e.ABS_RY, -16384), (e.EV_KEY, e.BTN_TR, 0))
    np.testing.assert_allclose(
        pad.action(SEEN), [0, 0, (0.5 - 0.1) / 0.9], atol=1e-4, err_msg="sticks never quite rest"
    )
    assert not pad.engaged()


def test_buttons_say_how_it_goes(device: PipedDevice) -> None:
    pad = Gamepad(device, make_spec())
    pressed = [(e.EV_KEY, key, value) for key in KEYS[1:] for value in (1, 2, 0)]  # held down repeats
    device.say(*pressed)
    pad.action(SEEN)
    words = [pad.said() for _ in range(6)]
    rewards = [Said(reward=1.0)] * 2
    assert words == [Said(success=True), Said(success=False), *rewards, Said(discard=True), None]
    device.say(*pressed)
    pad.begin()
    assert pad.said() is None, "what was said between episodes is not of the next"


def test_what_the_kernel_dropped_is_looked_up(device: PipedDevice) -> None:
    pad = Gamepad(device, make_spec())
    device.state[e.ABS_X] = AbsInfo(32767, -32768, 32767, 16, 128, 0)
    device.held = [e.BTN_TR]
    device.say((e.EV_SYN, e.SYN_DROPPED, 0))
    np.testing.assert_allclose(pad.action(SEEN)[0], 1, atol=1e-4)
    assert pad.engaged()


@pytest.mark.parametrize("hold", [0.0, "measured"])
def test_a_stick_that_is_held_out_in_silence_holds_the_robot_until_it_moves(device: PipedDevice, hold: Any) -> None:
    """What a pad out of reach of its receiver looks like: nothing, as long as it lasts."""
    now = 100.0
    spec = make_spec(action_hold=(hold,) * 3)
    seen = Observation(np.zeros(5), 1, np.array([0.25, 0.25, 0.25]) if hold else None)
    pad = Gamepad(device, spec, silence=1.0, clock=lambda: now)
    pad.begin()
    device.say((e.EV_KEY, e.BTN_TR, 1), (e.EV_ABS, e.ABS_X, 32767))
    first = pad.action(seen)
    assert first is not None
    now += 0.9
    assert pad.action(seen)[0] > first[0] if hold else pad.action(seen)[0] == 1  # type: ignore[index]
    now += 0.2
    assert pad.action(seen) is None, "the last command would go on for ever"
    assert pad.engaged(), "it is still the person's, and held"
    now += 60
    device.say((e.EV_ABS, e.ABS_X, 32766))
    again = pad.action(seen)
    assert again is not None
    assert again[0] == pytest.approx(first[0], abs=1e-3), "positions go on from where it is held"
    device.say((e.EV_ABS, e.ABS_X, 0))
    now += 60
    pad.action(seen)
    now += 60
    np.testing.assert_allclose(pad.action(seen), [0.25] * 3 if hold else [0] * 3, err_msg="sticks at rest are silent")


def test_a_silence_of_no_time_is_refused(device: PipedDevice) -> None:
    with pytest.raises(UserError, match="silence is 0; it must be above 0, inf for a gamepad"):
        Gamepad(device, make_spec(), silence=0)


def test_one_that_is_unplugged_is_told(device: PipedDevice) -> None:
    pad = Gamepad(device, make_spec())
    os.close(device.feed)
    with pytest.raises(OSError, match="the gamepad has gone"):
        pad.action(SEEN)
    pad.close()
    assert device.closed == 1


def test_a_robot_with_more_dimensions_than_axes_is_refused(device: PipedDevice) -> None:
    del device.state[e.ABS_RY]
    with pytest.raises(UserError, match="too few axes for the 3 action dimensions of fake"):
        Gamepad(device, make_spec())


def test_no_gamepad_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evdev, "list_devices", list)
    with pytest.raises(UserError, match="there is no gamepad that may be read; name one with --operator-set device="):
        gamepad(make_spec())
    with pytest.raises(UserError, match="the gamepad /no/such/event cannot be opened: No such file"):
        gamepad(make_spec(), "/no/such/event")
    (tmp_path / "event0").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be opened"):
        gamepad(make_spec(), str(tmp_path / "event0"))


class Devices:
    """Device files of a desk: a keyboard, one that may not be read, and two gamepads."""

    def __init__(self) -> None:
        self.opened: dict[str, PipedDevice] = {}

    def open(self, path: str) -> PipedDevice:
        if path == "secret":
            raise PermissionError(errno.EACCES, "Permission denied")
        found = self.opened[path] = PipedDevice()
        if path == "keyboard":
            found.capabilities = lambda: {e.EV_KEY: [e.KEY_A]}  # type: ignore[method-assign]
        return found

    @property
    def left_open(self) -> list[str]:
        return [path for path, device in self.opened.items() if not device.closed]


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[Devices]:
    found = Devices()
    monkeypatch.setattr(evdev, "list_devices", lambda: ["keyboard", "secret", "pad", "other"])
    monkeypatch.setattr(evdev, "InputDevice", found.open)
    yield found
    for device in found.opened.values():
        os.close(device.fd)
        os.close(device.feed)


def test_the_first_gamepad_that_may_be_read_is_taken_and_nothing_else_stays_open(devices: Devices) -> None:
    pad = gamepad(make_spec())
    assert list(devices.opened) == ["keyboard", "pad"]
    assert devices.left_open == ["pad"]
    pad.close()
    assert devices.left_open == []
    assert devices.opened["pad"].closed == 1


def test_a_refused_gamepad_is_released(devices: Devices) -> None:
    with pytest.raises(UserError, match="keyboard is no gamepad"):
        gamepad(make_spec(), "keyboard")
    with pytest.raises(UserError, match="the gamepad secret cannot be opened: Permission denied"):
        gamepad(make_spec(), "secret")
    with pytest.raises(UserError, match="strength is 2"):
        gamepad(make_spec(), "pad", strength=2)
    assert devices.left_open == []


@pytest.mark.skipif(not os.access("/dev/uinput", os.W_OK), reason="/dev/uinput is not there or may not be written to")
def test_a_real_device_of_the_kernel() -> None:
    created = evdev.UInput({e.EV_KEY: KEYS, e.EV_ABS: ABS}, name="gipo test pad")
    try:
        pad = gamepad(make_spec(), created.device.path)
        created.write(e.EV_KEY, e.BTN_TR, 1)
        created.write(e.EV_ABS, e.ABS_X, 32767)
        created.syn()
        _until(lambda: pad.action(SEEN)[0] > 0.99)
        assert pad.engaged()
    finally:
        created.close()
    with pytest.raises(OSError):  # noqa: PT011 - ENODEV, as the device is gone
        _until(lambda: pad.action(SEEN)[0] < 0)


def _until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
