"""What motors of a LeRobot device say is wrong with them: every answer tells, and LeRobot's `sync_read` drops it.

A servo that overheats goes limp and still answers where it is, so that nothing but a joint that does not follow would
tell. What is read one motor at a time needs no watch: LeRobot's `read` raises for error bits.
"""

from collections.abc import Callable, Iterable
from typing import Any

from gipo.common.errors import UserError
from robots.drivers.lerobot_bus import buses

# Register that a model has → bit of its answers → fault. Feetech's manual of the SMS/STS series, whose answers repeat
# the register; Robotis' e-manual of protocol 2.0, whose answers say no more than that the register is not 0.
BITS = {
    "Status": {1: "voltage", 2: "encoder", 4: "overheat", 8: "overcurrent", 32: "overload"},
    "Hardware_Error_Status": {128: "hardware"},
}
FAULTS = tuple(sorted({fault for bits in BITS.values() for fault in bits.values()}))
RECEIVED = 0  # what the servos' own libraries call a success


class FaultWatch:
    """Notes the error bits of what motors answer; costs no packet.

    Args:
        device: whose buses LeRobot drives, with the servos' own libraries below it.
        tolerated: faults, of `FAULTS`, that are no reason to stop.

    Raises:
        UserError: when there is no such fault.
    """

    def __init__(self, device: Any, tolerated: Iterable[str] = ()):
        self._tolerated = set(tolerated)
        if unknown := sorted(self._tolerated - set(FAULTS)):
            raise UserError(f"motors report no fault {unknown[0]!r}; they report {', '.join(FAULTS)}")
        self._reports: list[_Reports] = [_Reports(bus) for bus in buses(device) if hasattr(bus, "packet_handler")]

    def check(self) -> None:
        """Go on where no motor has reported a fault in its last two answers; one alone may be a dip of the voltage.

        Raises:
            UserError: naming motor and fault.
        """
        for reports in self._reports:
            for motor, faults in reports.lasting.items():
                if found := [fault for fault in faults if fault not in self._tolerated]:
                    raise UserError(
                        f"motor {motor} ({reports.bus.motors[motor].id}) on {reports.bus.port} reports "
                        f"{' and '.join(found)}, and its torque may be off; see to it, then switch its power off and on"
                    )


class _Reports:
    """What the motors of a bus have reported: motor → faults, in the last answer and in the last two."""

    def __init__(self, bus: Any):
        self.bus = bus
        self.lasting: dict[str, list[str]] = {}
        self._last: dict[str, list[str]] = {}
        tables = getattr(bus, "model_ctrl_table", {})
        self._motors = {
            what.id: (name, bits)
            for name, what in bus.motors.items()
            for register, bits in BITS.items()
            if register in tables.get(what.model, {})
        }
        if self._motors:
            bus.packet_handler.readRx = self._noting(bus.packet_handler.readRx)

    def _noting(self, read: Callable[..., Any]) -> Callable[..., Any]:
        def read_and_note(port: Any, identity: int, length: int) -> Any:
            data, result, error = read(port, identity, length)
            if result == RECEIVED and identity in self._motors:
                motor, bits = self._motors[identity]
                now = [fault for bit, fault in bits.items() if error & bit]
                self.lasting[motor] = [fault for fault in now if fault in self._last.get(motor, ())]
                self._last[motor] = now
            return data, result, error

        return read_and_note
