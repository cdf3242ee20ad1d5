"""What is on the desk beside the bus, for whoever asks at a socket: the tracker, hands that place things, faults.

One JSON object a line, answered by one: {"look": true}, {"place": SEED, "task": NAME}, {"hot": ID}, {"cool": ID},
{"power": false}, {"unplug": true}, {"faults": {"dropped": 0.01}}.
"""

import json
import os
import socket
import socketserver
import threading
from pathlib import Path
from typing import Any

import numpy as np

from examples.so101.bus.port import Port
from examples.so101.scene import TASKS, layout
from examples.so101.world import World
from gipo.common.errors import UserError

LONGEST = 107  # bytes of the path of a Unix socket
KNOWN = {"look", "place", "task", "hot", "cool", "power", "unplug", "faults"}


def refuse_long(path: Path) -> None:
    """Refuse a path that no Unix socket can have.

    Raises:
        UserError: naming it.
    """
    if (length := len(os.fsencode(path))) > LONGEST:
        raise UserError(f"{path} has {length} bytes, and a socket's path at most {LONGEST}; name a shorter folder")


class DeskServer(socketserver.ThreadingUnixStreamServer):
    """Answers at a Unix socket until it is closed.

    Args:
        path: of the socket.
        world: what is seen, and placed.
        port: whose servos and line may fail.
    """

    daemon_threads = True

    def __init__(self, path: Path, world: World, port: Port):
        refuse_long(path)
        path.unlink(missing_ok=True)
        self.world, self.port = world, port
        super().__init__(str(path), _Visitor)
        threading.Thread(target=self.serve_forever, name="desk", daemon=True).start()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked, in the order of its keys; what is seen afterwards."""
        if unknown := set(asked) - KNOWN:
            raise KeyError(f"there is no {min(unknown)}")
        servos = {servo.identity: servo for servo in self.port.line.servos}
        if "place" in asked:
            self.world.place(layout(TASKS[asked["task"]], np.random.default_rng(asked["place"])))
        for key in ("hot", "cool"):
            if key in asked:
                servos[asked[key]].hot = key == "hot"
        if "power" in asked:
            for servo in servos.values():
                servo.get_power() if asked["power"] else servo.lose_power()
        for name, value in asked.get("faults", {}).items():
            kind = type(getattr(self.port.faults, name))
            setattr(self.port.faults, name, kind(value))
        if asked.get("unplug"):
            self.port.unplug()
        torque = [servo.get("Torque_Enable") for servo in servos.values()]
        joints = [servo.motor.position() for servo in servos.values()]
        faults = {"lost": self.port.faults.lost, "spoilt": self.port.faults.spoilt}
        return self.world.seen() | faults | {"torque": torque, "joints": joints}


class _Visitor(socketserver.StreamRequestHandler):
    server: DeskServer

    def handle(self) -> None:
        for line in self.rfile:
            try:
                answer = self.server.answer(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Visitor:
    """Asks a `DeskServer`.

    Args:
        path: of its socket.

    Raises:
        UserError: when nobody answers there.
    """

    def __init__(self, path: str | Path):
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5.0)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise UserError(
                f"no desk answers at {path} ({error}); python -m examples.so101 FOLDER has one at FOLDER/scene"
            ) from error
        self._lines = self._socket.makefile("r")

    def ask(self, **asked: Any) -> dict[str, Any]:
        """What the desk answers.

        Raises:
            UserError: when it is gone.
            ValueError: when it does not understand.
        """
        try:
            self._socket.sendall(json.dumps(asked).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise UserError(f"the desk at {self._path} does not answer: {error}") from error
        if not line:
            raise UserError(f"the desk at {self._path} is gone")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise ValueError(f"the desk does not understand {asked}: {found['error']}")
        return found

    def close(self) -> None:
        """Leave."""
        self._lines.close()
        self._socket.close()
