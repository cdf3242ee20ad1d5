"""`gipo-robot run --operator keyboard` in a process of its own, at whatever terminal its standard input is."""

import multiprocessing
import sys
import time
from pathlib import Path

from robots import cli
from robots.base import Observation
from tests.robots.people.people import HelpedPolicy
from tests.robots.session_process import Arm, Wave


class HelpedWave(Wave):
    """A policy for the arm that a person can take over from."""

    latents = None
    size = 3
    judged = HelpedPolicy.judged


class Calm(Arm):
    """The arm, with no event but those of the test: it raises once there is a file of the name `raises`.

    With `forks` it does its work in another process, for as long as it is connected.
    """

    def __init__(self, raises: str = "", forks: bool = False):
        super().__init__("/dev/null", "", "", 0)
        self.raises = raises
        self.worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,)) if forks else None

    def connect(self) -> None:
        super().connect()
        if self.worker is not None:
            self.worker.start()

    def close(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker.join()
        super().close()

    def observe(self) -> Observation:
        if self.raises and Path(self.raises).exists():
            raise OSError("port is gone")
        return super().observe()


def run(arguments: list[str]) -> int:
    from deploy.runtime.policy import OnnxPolicy

    OnnxPolicy.load = lambda *_, **__: HelpedWave(Arm.spec)  # type: ignore[method-assign,assignment,return-value]
    command = ["run", "--robot", f"{__name__}:Calm", "--policy", "p.onnx", "--operator", "keyboard"]
    return cli.main([*command, "--deadline", "40", "--max-age", "100", "--engage", "0", *arguments])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
