"""What the policy says at a tick: a flat policy is asked at every one, a policy over chunks whenever one is used up."""

from dataclasses import dataclass

import numpy as np

from deploy.runtime.acting import ActingPolicy, Decision
from gipo.common.errors import UserError, nearest
from robots.base import Observation
from robots.session.options import Options


class Unseen(UserError):
    """The robot does not show what its policy sees by: a fault of a camera, and none of the policy."""


@dataclass(frozen=True)
class Choice:
    """What is to be done at a tick.

    Args:
        decision: [D] the action, with its latent and the policy's log-prob of it.
        chunk_step: which action of its decision's chunk the policy is at.
        source: who chose it: `policy`, `person` or `hold`.
        proposed: [D] what the policy would have done where another chose; None where it chose.
        since: the step from which control is being handed over to who has it.
    """

    decision: Decision
    chunk_step: int = 0
    source: str = "policy"
    proposed: np.ndarray | None = None
    since: int = 0


class Decider:
    """Asks a policy, and goes through the chunk it decided on.

    Args:
        policy: that acts.
        options: instruction and camera of a policy that sees, and when it decides anew.

    Raises:
        UserError: the options ask for what the policy does not have, or do not say what it needs.
    """

    def __init__(self, policy: ActingPolicy, options: Options):
        self._policy, self._options = policy, options
        self._vision = policy.manifest.vision
        self._chunk: Decision | None = None
        self._step = 0
        self.decisions = 0  # of this episode so far, each with a draw of noise
        if self._vision is None:
            given = {"instruction": options.instruction, "camera": options.camera, "replan": options.replan}
            if idle := [name for name, value in given.items() if value]:
                raise UserError(f"the policy sees nothing and decides at every tick; leave --{idle[0]} out")
            return
        self._cameras = options.cameras(self._vision.cameras)
        self._length = options.replan or self._vision.chunk
        if self._length > self._vision.chunk:
            raise UserError(f"replan is {options.replan}, the policy decides on {self._vision.chunk} actions at once")
        if not options.instruction:
            raise UserError("the policy acts on an instruction; say what it is to do: --instruction 'open the door'")
        if options.instruction.encode(errors="ignore").decode() != options.instruction:
            raise UserError(f"--instruction {options.instruction!a} is not UTF-8; have the terminal send UTF-8")
        # Whatever is wrong with the words is found before anything moves.
        blank = {
            name: np.zeros(shape, np.uint8) for name, shape in zip(self._cameras, self._vision.shapes, strict=True)
        }
        self._row(np.zeros(policy.manifest.observation_size), blank)

    def begin(self) -> None:
        """Begin a new episode: forget the chunk of the last one."""
        self._chunk, self.decisions = None, 0

    def decide_anew(self) -> None:
        """Forget the rest of the chunk: others have moved the robot since it was decided on."""
        self._chunk = None

    def next(self, found: Observation, values: np.ndarray, rng: np.random.Generator) -> tuple[Decision, int]:
        """The decision [D] for this tick, and which action of its chunk it is.

        Args:
            found: what the robot sees.
            values: its values [O] as float32.
            rng: one draw a decision.

        Raises:
            Unseen: the policy needs an image that the robot does not give.
        """
        deterministic = self._options.deterministic
        if self._vision is None:
            self.decisions += 1
            return self._policy.act(values, rng, deterministic), 0
        self._step += 1
        if self._chunk is None or self._step == self._length:
            self.decisions += 1
            seen = self._row(values, self._images(found))
            self._chunk, self._step = self._policy.act(seen, rng, deterministic), 0
        parts = (self._chunk.action, self._chunk.latent, self._chunk.log_prob, self._chunk.params)
        return Decision(*(part[self._step] for part in parts)), self._step

    def _images(self, found: Observation) -> dict[str, np.ndarray]:
        """The images of the policy's cameras, by their names."""
        there = {name: pixels for name, pixels in found.images.items() if isinstance(pixels, np.ndarray)}
        for camera in self._cameras:
            if isinstance(found.images.get(camera), bytes):
                fix = "the policy sees pixels: decode it in observe()"
                raise Unseen(f"the camera {camera!r} gives the bytes of a file, and {fix}")
            if camera not in there:
                assert self._vision is not None
                named = f"the policy sees the robot's camera of that name; there are {', '.join(there)}"
                seen = named if self._vision.cameras else f"say which one with --camera {nearest(camera, there)}"
                seen = seen if there else "no camera of it gives an image with this observation"
                raise Unseen(f"the robot shows the policy nothing of a camera {camera!r}: {seen}")
        return {camera: there[camera] for camera in self._cameras}

    def _row(self, values: np.ndarray, images: dict[str, np.ndarray]) -> np.ndarray:
        assert self._vision is not None
        (one, *_) = images.values()
        try:
            # One camera may be called whatever the robot calls it.
            return self._policy.row(values, images if self._vision.cameras else one, self._options.instruction)
        except ValueError as error:
            raise Unseen(str(error)) from error
