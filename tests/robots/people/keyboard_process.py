"""`gipo-robot run --operator keyboard` in a process of its own, at whatever terminal its standard input is."""

import sys

from robots import cli
from tests.robots.people.people import HelpedPolicy
from tests.robots.session_process import Arm, Wave


class HelpedWave(Wave):
    """A policy for the arm that a person can take over from."""

    latents = None
    size = 3
    judged = HelpedPolicy.judged


class Calm(Arm):
    """The arm, with no event but those of the test."""

    def __init__(self, raises: str = ""):
        super().__init__("/dev/null", "observe" if raises else "", "raises", 0)
        self.at = "engaged" if raises else ""


def run(arguments: list[str]) -> int:
    from deploy.runtime.policy import OnnxPolicy

    OnnxPolicy.load = lambda *_, **__: HelpedWave(Arm.spec)  # type: ignore[method-assign,assignment,return-value]
    command = ["run", "--robot", f"{__name__}:Calm", "--policy", "p.onnx", "--operator", "keyboard"]
    return cli.main([*command, "--deadline", "40", "--max-age", "100", "--engage", "0", *arguments])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
