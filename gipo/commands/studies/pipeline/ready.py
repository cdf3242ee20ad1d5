"""Processes that import what a coming command needs while another stage runs, and then wait for its arguments.

The study and such a process share a socket. One message on it is the order: the arguments as JSON, and the descriptors
for what the command says, for its progress, and of the lock of its folder. Without an order the process ends with the
study, whatever ends that.
"""

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

from gipo.common.interpreter import lean_imports

# Command → the module that is run, and what it imports later, and slowly.
MODULES = {
    "gipo": ("gipo.cli", ("gipo.commands.fit.cli",)),
    "gipo-demos": ("gipo.commands.demos", ("datamodules.demos.gather", "datamodules.demos.dataset")),
    "gipo-deploy": ("deploy.cli", ("deploy.export.artifact", "torch.export", "onnxscript")),
    "gipo-robot": ("robots.cli", ("robots.session.runner", "robots.drivers.sim", "metaworld.env_dict")),
}
DESCRIPTORS = 3
MOST = 1 << 20  # bytes of an order


class Ready:
    """A process that is ready for one command.

    Args:
        command: one of MODULES.
        environment: of the process.
    """

    def __init__(self, command: str, environment: Mapping[str, str]):
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            call = [sys.executable, "-m", __name__, command, str(theirs.fileno())]
            nowhere = subprocess.DEVNULL
            self.process = subprocess.Popen(
                call, stdin=nowhere, stdout=nowhere, stderr=nowhere, pass_fds=[theirs.fileno()], env=environment
            )

    def order(self, args: Sequence[str], output: int, progress: int, lock: int) -> bool:
        """Run the command with these arguments; False where the process is no longer there to hear of it."""
        with self._ours, suppress(OSError):
            socket.send_fds(self._ours, [json.dumps(list(args)).encode()], [output, progress, lock])
            return True
        return False

    def dismiss(self) -> None:
        """End the process without a command."""
        self._ours.close()
        self.process.terminate()
        self.process.wait()


def main(command: str, descriptor: int) -> None:
    """Import, wait for the order, and become the command."""
    module, needed = MODULES[command]
    with socket.socket(fileno=descriptor) as channel:
        with lean_imports():
            for name in needed:
                with suppress(Exception):  # the command says what is wrong with it
                    importlib.import_module(name)
        order, descriptors, *_ = socket.recv_fds(channel, MOST, DESCRIPTORS)
    if not order:
        return
    output, progress, _ = descriptors
    for ours, standard in ((output, sys.stdout), (progress, sys.stderr)):
        os.dup2(ours, standard.fileno())
        os.close(ours)
    sys.argv[1:] = json.loads(order)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
