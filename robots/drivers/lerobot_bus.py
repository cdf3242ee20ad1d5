"""The servo buses of a LeRobot device: patient with a packet that is lost, and without torque when they are let go.

Whatever is done here goes through the public methods of LeRobot's buses (`num_retry`, `disable_torque`, `disconnect`)
and, for how long an answer is waited for, through the port of the servos' own library.
"""

import errno
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gipo.common.errors import UserError

RETRIES = 2  # as many as LeRobot's own `num_read_retries`
ATTEMPTS = 3  # to connect: some of what a handshake reads is not retried packet by packet
ASKED = ("ping", "read", "write", "sync_read")  # what waits for an answer
POLL = 1e-3  # seconds after which a port that is listened to is asked for the time
GROUP = "dialout"  # that serial ports belong to, on most Linux


def arms(device: Any) -> dict[str, Any]:
    """What of a device has a bus, by what the names of its motors begin with: "" itself, "left_" its `left_arm`."""
    inside = vars(device) if hasattr(device, "__dict__") else {}
    parts = {"": device, **{name.removesuffix("arm"): part for name, part in inside.items()}}
    return {name: part for name, part in parts.items() if hasattr(getattr(part, "bus", None), "motors")}


def buses(device: Any) -> list[Any]:
    """The buses of a device: its own, or those of the arms that it is made of."""
    return list({id(part.bus): part.bus for part in arms(device).values()}.values())


def retry_packets(device: Any, retries: int = RETRIES) -> None:
    """Ask again, so many times, when an answer is lost or damaged, whatever the device itself asks for."""
    for bus in buses(device):
        for name in ASKED:
            if hasattr(type(bus), name):
                setattr(bus, name, _retried(getattr(type(bus), name).__get__(bus), retries))


def _retried(method: Callable[..., Any], retries: int) -> Callable[..., Any]:
    def ask(*arguments: Any, num_retry: int = 0, **options: Any) -> Any:
        return method(*arguments, num_retry=max(num_retry, retries), **options)

    return ask


def forget_late_answers(device: Any) -> None:
    """Before anything is asked, drop what came too late for what was asked before: it would be taken for the answer.

    The servos' own `clearPort`, called there, waits for what goes out and leaves what has come in.
    """
    for bus in buses(device):
        port: Any = getattr(bus, "port_handler", None)
        if hasattr(port, "clearPort"):
            port.clearPort = _drop_input(port)


def _drop_input(port: Any) -> Callable[[], None]:
    return lambda: port.ser.reset_input_buffer()  # of the serial port that is open then


def wait_at_most(device: Any, seconds: float) -> None:
    """Give up on an answer after `seconds`: LeRobot's 50 ms are more than a tick, and nothing could be asked again.

    Until then the thread sleeps. The servos' library asks its port without end, and keeps a processor from whatever
    else the tick waits for.
    """
    for bus in buses(device):
        port: Any = getattr(bus, "port_handler", None)
        if hasattr(port, "setPacketTimeoutMillis"):
            port.setPacketTimeout = _timeout(port, 1e3 * seconds)
        if hasattr(getattr(port, "ser", None), "timeout"):
            port.ser.timeout = POLL


def answer_within(device: Any, seconds: float, patience: int = 1) -> None:
    """Ask again for an answer that is lost, `RETRIES` times within `seconds`, or so often within `patience` of them."""
    tries = RETRIES + 1
    wait_at_most(device, seconds / tries)
    retry_packets(device, patience * tries - 1)


def _timeout(port: Any, milliseconds: float) -> Callable[[int], None]:
    def start(size: int) -> None:
        """Wait from now on for an answer of so many bytes."""
        port.setPacketTimeoutMillis(port.tx_time_per_byte * size + milliseconds)

    return start


def connect(device: Any) -> None:
    """Connect without calibrating; anew when packets were lost.

    Raises:
        Exception: the device's own, when it fails for good; its torque is off then and its port closed.
    """
    retry_packets(device)
    forget_late_answers(device)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            device.connect(calibrate=False)
            return
        except Exception as error:
            release(device)
            if attempt == ATTEMPTS or not _was_lost(error):
                raise


def release(device: Any, always: bool = True) -> list[str]:
    """Switch off the torque of every motor that answers, and close all ports; the motors that may still have torque.

    LeRobot's own `disconnect` ends at the first motor that does not answer, and does nothing without a camera.

    Args:
        device: connected, or as far as it came.
        always: switch torque off also of an arm whose configuration keeps it.
    """
    left = []
    for name, arm in [(name, arm) for name, arm in arms(device).items() if arm.bus.is_connected]:
        bus = arm.bus
        for motor in bus.motors if always or _relaxes(arm) else ():
            try:
                bus.disable_torque(motor, num_retry=RETRIES)
            except Exception:
                left.append(f"{name}{motor}")
        with suppress(Exception):  # of a plug that is out
            bus.disconnect(disable_torque=False)
    for camera in (getattr(device, "cameras", None) or {}).values():
        with suppress(Exception):
            camera.disconnect()
    if not buses(device) and getattr(device, "is_connected", False):
        with suppress(Exception):
            device.disconnect()
    return left


def _relaxes(arm: Any) -> bool:
    """Whether an arm is to be without torque when it is let go, as LeRobot's default is; each of two says it itself."""
    return bool(getattr(getattr(arm, "config", None), "disable_torque_on_disconnect", True))


def let_go(device: Any) -> None:
    """Disconnect; by force where the device's own way fails, or a part of it is gone and the bus still there.

    Raises:
        UserError: when it fails, naming the motors that may still have torque.
    """
    failed: Exception | None = None
    if getattr(device, "is_connected", True):
        try:
            device.disconnect()
            return
        except Exception as error:
            failed = error
    left = release(device, always=False)
    said = [] if failed is None else [explained(failed, device)]
    said += [f"torque may still be on at {', '.join(left)}"] * bool(left)
    if said:
        raise UserError("; ".join(said)) from failed


def explained(error: BaseException, device: Any) -> str:
    """One line about why a bus does not do what it is told, with the way out where there is one."""
    bus = _at_fault(error, device)
    port, said = "the port" if bus is None else str(bus.port), " ".join(str(error).split())
    number = next(filter(None, map(_number, _causes(error))), None)
    if isinstance(error, UserError):
        return said
    if any("status packet" in str(cause) for cause in _causes(error)) and "Could not connect" in said:
        return f"answers of the motors on {port} are lost or damaged: see to their cables"
    if "Could not connect on port" in said:
        if number == errno.EACCES:
            return f"no permission to open {port}: sudo usermod -aG {GROUP} $USER, and log in anew"
        if number == errno.ENOENT:
            return f"there is no port {port}; lerobot-find-port says which it is"
        return f"{port} is no serial port that can be opened; lerobot-find-port says which it is"
    if missing := re.search(r"Missing motor IDs:(.*?)(?:Motors with|Full expected)", said):
        return _missing(port, re.findall(r"- (\d+) ", missing[1]), bus)
    if wrong := re.search(r"Motors with incorrect model numbers:(.*?)Full expected", said):
        return f"motors on {port} are of another model than the device's:{wrong[1].rstrip()}"
    if number == errno.EIO or "device disconnected" in said or "Device not configured" in said:
        return f"{port} is gone: is its plug in?"
    return f"{type(error).__name__}: {said}"


def _at_fault(error: BaseException, device: Any) -> Any:
    """The bus whose port an error names, or else whose port is gone, or the first; None where there is none."""
    said, found = " ".join(map(str, _causes(error))), buses(device)
    named = [bus for bus in found if re.search(rf"{re.escape(str(bus.port))}(?!\w)", said)]
    gone = [bus for bus in found if not Path(bus.port).exists()]
    return next(iter([*named, *gone, *found]), None)


def _missing(port: str, ids: list[str], bus: Any) -> str:
    motors = {str(motor.id): name for name, motor in getattr(bus, "motors", {}).items()}
    if len(ids) == len(motors):
        return f"no motor answers on {port}: is the arm powered, and is it this port? lerobot-find-port says which"
    named = ", ".join(f"{identity} ({motors.get(identity, '?')})" for identity in ids)
    return f"these motors do not answer on {port}: {named}; see to their cables, or lerobot-setup-motors gives them ids"


def _was_lost(error: BaseException) -> bool:
    """Whether asking again may help: nothing of the system refused, and the bus was there.

    The servos' own library reads past the end of an answer that came too late for another question: an IndexError.
    """
    return isinstance(error, ConnectionError | RuntimeError | IndexError) and not any(map(_number, _causes(error)))


def _number(error: BaseException) -> int | None:
    """The system's number of an error; that of a terminal has it as its first argument."""
    if isinstance(error, OSError):
        return error.errno
    return error.args[0] if type(error).__module__ == "termios" else None


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
