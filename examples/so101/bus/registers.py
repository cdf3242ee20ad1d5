"""The control table of an STS3215: where each register is, how it is coded, and what it holds from the factory.

Source: Feetech's manual of the SMS/STS series; names as LeRobot has them.
"""

from dataclasses import dataclass

SIZE = 87  # bytes of the table
EEPROM_END = 40  # below it: kept without power, and written for good only while `Lock` is 0
TURN = 4096  # steps of the encoder


@dataclass(frozen=True)
class Register:
    """A register of a servo.

    Args:
        address: of its first byte.
        size: bytes, the lowest first.
        factory: what it holds when it is new.
        sign: the bit that is the sign, of a value that is sign and magnitude.
        writable: whether a master may write it.
    """

    address: int
    size: int = 1
    factory: int = 0
    sign: int | None = None
    writable: bool = True

    def encode(self, value: int) -> bytes:
        """The bytes of a value.

        Raises:
            ValueError: when the register cannot hold it.
        """
        limit = 1 << (8 * self.size if self.sign is None else self.sign)
        if abs(value) >= limit or (value < 0 and self.sign is None):
            raise ValueError(f"register {self.address} cannot hold {value}")
        raw = value if value >= 0 else -value | 1 << (self.sign or 0)
        return raw.to_bytes(self.size, "little")

    def decode(self, data: bytes) -> int:
        """The value of its bytes."""
        raw = int.from_bytes(data, "little")
        if self.sign is None or not raw >> self.sign & 1:
            return raw
        return -(raw & ((1 << self.sign) - 1))


def _read_only(address: int, size: int = 1, factory: int = 0, sign: int | None = None) -> Register:
    return Register(address, size, factory, sign, writable=False)


STS3215 = {
    "Firmware_Major_Version": _read_only(0, factory=3),
    "Firmware_Minor_Version": _read_only(1, factory=10),
    "Model_Number": _read_only(3, 2, factory=777),
    "ID": Register(5, factory=1),
    "Baud_Rate": Register(6),
    "Return_Delay_Time": Register(7, factory=250),  # 2 µs each
    "Response_Status_Level": Register(8, factory=1),  # 0: answers reads and pings alone
    "Min_Position_Limit": Register(9, 2),
    "Max_Position_Limit": Register(11, 2, factory=TURN - 1),
    "Max_Temperature_Limit": Register(13, factory=70),  # °C
    "Max_Voltage_Limit": Register(14, factory=140),  # .1 V
    "Min_Voltage_Limit": Register(15, factory=40),
    "Max_Torque_Limit": Register(16, 2, factory=1000),  # .1 %
    "Phase": Register(18, factory=12),
    "Unloading_Condition": Register(19, factory=44),  # error bits that switch the torque off
    "LED_Alarm_Condition": Register(20, factory=47),
    "P_Coefficient": Register(21, factory=32),
    "D_Coefficient": Register(22, factory=32),
    "I_Coefficient": Register(23),
    "Minimum_Startup_Force": Register(24, 2, factory=16),
    "CW_Dead_Zone": Register(26, factory=1),
    "CCW_Dead_Zone": Register(27, factory=1),
    "Protection_Current": Register(28, 2, factory=500),
    "Angular_Resolution": Register(30, factory=1),
    "Homing_Offset": Register(31, 2, sign=11),
    "Operating_Mode": Register(33),  # 0: position
    "Protective_Torque": Register(34, factory=20),
    "Protection_Time": Register(35, factory=200),
    "Overload_Torque": Register(36, factory=80),
    "Velocity_closed_loop_P_proportional_coefficient": Register(37, factory=10),
    "Over_Current_Protection_Time": Register(38, factory=200),
    "Velocity_closed_loop_I_integral_coefficient": Register(39, factory=10),
    "Torque_Enable": Register(40),
    "Acceleration": Register(41),
    "Goal_Position": Register(42, 2, sign=15),
    "Goal_Time": Register(44, 2),
    "Goal_Velocity": Register(46, 2, sign=15),
    "Torque_Limit": Register(48, 2, factory=1000),
    "Lock": Register(55, factory=1),
    "Present_Position": _read_only(56, 2, sign=15),
    "Present_Velocity": _read_only(58, 2, sign=15),
    "Present_Load": _read_only(60, 2, sign=10),
    "Present_Voltage": _read_only(62, factory=121),
    "Present_Temperature": _read_only(63, factory=25),
    "Status": _read_only(65),
    "Moving": _read_only(66),
    "Present_Current": _read_only(69, 2),
    "Goal_Position_2": _read_only(71, 2, sign=15),
    "Moving_Velocity_Threshold": Register(80, factory=1),
    "DTs": Register(81, factory=1),
    "Velocity_Unit_factor": Register(82, factory=50),
    "Hts": Register(83),
    "Maximum_Velocity_Limit": Register(84, factory=254),
    "Maximum_Acceleration": Register(85, factory=254),
    "Acceleration_Multiplier": Register(86, factory=100),
}
