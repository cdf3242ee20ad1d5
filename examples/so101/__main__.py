"""`python -m examples.so101 FOLDER`: the arm at the desk, until Ctrl-C, or who reads its output has ended."""

import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from examples.so101.bus.faults import Faults
from examples.so101.emulator import Emulator
from examples.so101.priority import HARDWARE, ask_for_real_time
from examples.so101.world import Gap
from gipo.common import boundary
from gipo.common.parsing import Parser, number

WAIT = 1000  # milliseconds


def build_parser() -> Parser:
    """What the arm may be unlike, and what may be wrong with its bus."""
    parser = Parser(prog="python -m examples.so101", description=__doc__)
    parser.add_argument("folder", type=Path, help="for port, scene and calibration")
    parser.add_argument("--gain", type=float, default=1.0, help="stiffness of the servos (%(default)s)")
    parser.add_argument("--backlash", type=float, default=0.0, help="degrees (%(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds (%(default)s)")
    parser.add_argument("--dropped", type=number(0, 1), default=0.0, help="share of answers lost (%(default)s)")
    parser.add_argument("--corrupted", type=number(0, 1), default=0.0, help="share of answers spoilt (%(default)s)")
    parser.add_argument("--realtime", action="store_true", help="real-time scheduling, where it is allowed")
    return parser


def run(given: list[str]) -> None:
    """Serve until Ctrl-C."""
    options = build_parser().parse_args(given)
    if options.realtime:
        ask_for_real_time(HARDWARE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gap = Gap(options.gain, options.backlash, options.latency)
    faults = Faults(dropped=options.dropped, corrupted=options.corrupted)
    with suppress(KeyboardInterrupt), Emulator(options.folder, gap, faults) as arm:  # its ordinary end
        print(f"six STS3215 at {arm.port.path}, the desk at {options.folder / 'scene'}; Ctrl-C ends it", flush=True)
        read = select.poll()
        read.register(sys.stdout, 0)  # of a pipe: who reads what it says is no more, such as a study that is killed
        while not read.poll(WAIT):  # a signal that another thread has taken is heard in between
            pass


if __name__ == "__main__":
    sys.exit(boundary.run("so101", run, None))
