"""One STS3215: its control table, what it keeps without power, its torque and its error bits."""

from examples.so101.bus.motors import Motor
from examples.so101.bus.protocol import OVERHEAT
from examples.so101.bus.registers import EEPROM_END, SIZE, STS3215, TURN

COLD, HOT = 30, 85  # °C; the limit is 70 from the factory


class Servo:
    """A servo with its motor.

    Present_Position = (where the motor is − Homing_Offset) mod 4096; a goal is held within the position limits.

    Args:
        identity: its id on the bus.
        motor: what it turns.
    """

    def __init__(self, identity: int, motor: Motor):
        self.motor = motor
        self.hot = False
        self.powered = True
        self.errors = 0
        self._table = bytearray(SIZE)
        for name, register in STS3215.items():
            self.set(name, register.factory)
        self.set("ID", identity)
        self._kept = bytes(self._table)  # what the table is when power comes back
        self._pending: tuple[int, bytes] | None = None

    @property
    def identity(self) -> int:
        """The id that it answers to."""
        return self.get("ID")

    def get(self, name: str) -> int:
        """A register's value, as it was measured or written last."""
        register = STS3215[name]
        return register.decode(bytes(self._table[register.address : register.address + register.size]))

    def set(self, name: str, value: int) -> None:
        """Set a register from inside, whether a master may write it or not; the motor is not told."""
        register = STS3215[name]
        self._table[register.address : register.address + register.size] = register.encode(value)

    def calibrate(self, low: int, high: int) -> None:
        """Keep the ends of its range for good, as after a calibration."""
        self.set("Min_Position_Limit", low)
        self.set("Max_Position_Limit", high)
        self._kept = bytes(self._table[:EEPROM_END]) + self._kept[EEPROM_END:]

    def check(self) -> None:
        """Measure, and switch the torque off where an error asks for that: only a master switches it on again."""
        self.set("Present_Position", self._present())
        self.set("Present_Temperature", HOT if self.hot else COLD)
        self.errors = OVERHEAT if self.get("Present_Temperature") > self.get("Max_Temperature_Limit") else 0
        self.set("Status", self.errors)
        if self.errors & self.get("Unloading_Condition"):
            self.set("Torque_Enable", 0)
            self.motor.drive(None, 0.0)
        away = abs(self.get("Present_Position") - self.get("Goal_Position"))
        self.set("Moving", int(self.get("Torque_Enable") and away > 4))

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes of the table; None outside of it."""
        return bytes(self._table[address : address + size]) if address + size <= SIZE else None

    def write(self, address: int, data: bytes) -> bool:
        """Write bytes of the table, and do what they say; False where one of them may not be written."""
        touched = {name for name, each in STS3215.items()
                   if each.address < address + len(data) and address < each.address + each.size}  # fmt: skip
        if address + len(data) > SIZE or not touched or not all(STS3215[name].writable for name in touched):
            return False
        had_torque, unlocked = self.get("Torque_Enable"), not self.get("Lock")
        self._table[address : address + len(data)] = data
        if unlocked:
            self._kept = bytes(self._table[:EEPROM_END]) + self._kept[EEPROM_END:]
        if self.get("Torque_Enable") and not had_torque:
            self.set("Goal_Position", self._present())  # it stays where it is until it is told otherwise
        if {"Torque_Enable", "Goal_Position", "Torque_Limit", "Homing_Offset"} & touched:
            self._drive()
        return True

    def keep_for_later(self, address: int, data: bytes) -> None:
        """A write that waits for `act`."""
        self._pending = (address, data)

    def act(self) -> None:
        """Do the write that waits."""
        if self._pending is not None:
            self.write(*self._pending)
        self._pending = None

    def lose_power(self) -> None:
        """The supply breaks down: no torque, no answers, and only the EEPROM is kept."""
        self.powered = False
        self.motor.drive(None, 0.0)
        self._table[:] = self._kept
        self._pending = None

    def get_power(self) -> None:
        """The supply is back: it answers again, as after it was switched on, without torque."""
        self.powered = True

    def _present(self) -> int:
        return round(self.motor.position() - self.get("Homing_Offset")) % TURN

    def _drive(self) -> None:
        if not self.get("Torque_Enable"):
            self.motor.drive(None, 0.0)
            return
        low, high, goal = self.get("Min_Position_Limit"), self.get("Max_Position_Limit"), self.get("Goal_Position")
        if low < high:  # both 0: no limits
            goal = min(max(goal, low), high)
        strength = min(self.get("Torque_Limit"), self.get("Max_Torque_Limit")) / 1000.0
        self.motor.drive(self.motor.position() + goal - self._present(), strength)
