"""What motors of a LeRobot device say is wrong with them: LeRobot reads their positions without their error bits.

A servo that overheats goes limp and still answers where it is, so that nothing but a joint that does not follow would
tell. Servos of Feetech's older protocol are left out: LeRobot reads those one by one, and raises for their error bits.
"""

from collections.abc import Iterable, Iterator
from itertools import cycle
from typing import Any

from gipo.common.errors import UserError
from robots.drivers.lerobot_bus import buses

# Register → bit → fault. Feetech's manual of the SMS/STS series; Robotis' e-manual of the X series.
REGISTERS = {
    "Status": {1: "voltage", 2: "encoder", 4: "overheat", 8: "overcurrent", 32: "overload"},
    "Hardware_Error_Status": {1: "voltage", 4: "overheat", 8: "encoder", 16: "shock", 32: "overload"},
}
FAULTS = tuple(sorted({fault for bits in REGISTERS.values() for fault in bits.values()}))
WITHOUT_SYNC_READ = 1  # Feetech's protocol of the SCS series


class FaultWatch:
    """Asks the motors whether something is wrong with them: one of them each time, in turn, which costs one packet.

    Args:
        device: whose buses LeRobot drives; one whose motors have no register for faults is asked nothing.
        tolerated: faults, of `FAULTS`, that are no reason to stop.

    Raises:
        UserError: when there is no such fault.
    """

    def __init__(self, device: Any, tolerated: Iterable[str] = ()):
        self._tolerated = set(tolerated)
        if unknown := sorted(self._tolerated - set(FAULTS)):
            raise UserError(f"motors report no fault {unknown[0]!r}; they report {', '.join(FAULTS)}")
        self._turns = cycle(list(_watched(device)))

    def look(self) -> None:
        """Ask the motor whose turn it is.

        Raises:
            UserError: when it reports a fault, naming motor and fault.
            Exception: the bus's own, when it does not answer.
        """
        if (turn := next(self._turns, None)) is None:
            return
        # Twice, where it reports one: another answer of this motor, if it is late, passes for that to the first.
        if self._reported(*turn) and (reported := self._reported(*turn)):
            bus, motor, _ = turn
            raise UserError(
                f"motor {motor} ({bus.motors[motor].id}) on {bus.port} reports {' and '.join(reported)}, and its "
                "torque may be off; see to it, then switch its power off and on"
            )

    def _reported(self, bus: Any, motor: str, register: str) -> list[str]:
        status = int(bus.sync_read(register, motor, normalize=False)[motor])
        return [fault for bit, fault in REGISTERS[register].items() if status & bit and fault not in self._tolerated]


def _watched(device: Any) -> Iterator[tuple[Any, str, str]]:
    """Bus, motor and register of every motor that has one for its faults."""
    for bus in buses(device):
        if getattr(bus, "protocol_version", None) == WITHOUT_SYNC_READ:
            continue
        tables = getattr(bus, "model_ctrl_table", {})
        for motor, what in bus.motors.items():
            yield from ((bus, motor, name) for name in REGISTERS if name in tables.get(getattr(what, "model", ""), {}))
