"""Our commands as processes: what each says goes to a file, its progress bar to the terminal of who waits for it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gipo.common.errors import UserError

MODULES = {"gipo": "gipo.cli", "gipo-deploy": "deploy.cli", "gipo-robot": "robots.cli"}
TAIL = 15  # lines of a failed command that are repeated
PATIENCE = 30.0  # seconds a command may take to end in good order after Ctrl-C
BAR_SECONDS = "10"  # between two states of a progress bar in a file, where each is kept


def run(command: str, args: Sequence[str], output: Path, lock: int, bars: bool = False) -> None:
    """Run one of our commands with this interpreter.

    Args:
        command: one of MODULES.
        args: its arguments.
        output: file for what it says.
        lock: a descriptor that it inherits.
        bars: leave its standard error, which is where progress and errors go, on the terminal.

    Raises:
        UserError: when it fails, with the end of what it said.
    """
    shown = f"{command} {shlex.join(args)}"
    call = [sys.executable, "-m", MODULES[command], *args]
    with open(output, "w") as file:
        print(f"$ {shown}", file=file, flush=True)
        process = subprocess.Popen(
            call, stdin=subprocess.DEVNULL, stdout=file, stderr=None if bars else subprocess.STDOUT, pass_fds=[lock],
            env=os.environ if bars else {"TQDM_MININTERVAL": BAR_SECONDS, **os.environ},
        )  # fmt: skip
        code = _wait(process)
    if code:
        raise UserError(f"`{shown}` ended with exit code {code}; {output} ends with:\n{_tail(output)}")


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """The exit code. Ctrl-C at a terminal reaches both processes: then the other one is left the time to save."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # only we were interrupted
            process.terminate()
            process.wait()
        raise


def _tail(output: Path) -> str:
    """The last lines, each progress bar in its last state."""
    lines = [line.rpartition("\r")[2] for line in output.read_bytes().decode(errors="replace").split("\n")]
    return "\n".join(lines[-TAIL:]).rstrip("\n")
