"""What an episode is asked for, and what it came to."""

from collections.abc import Callable
from dataclasses import dataclass

from gipo.common.errors import UserError
from robots.timing import TimingSummary

CAMERA = "image"  # that is meant where nobody names one
RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10**7),
    "speed": (1e-3, 1e3),
    "engage_seconds": (0, 60),
    "deadline": (0.1, 10**4),
    "max_age": (0.1, 10**4),
    "replan": (0, 10**4),
}


@dataclass(frozen=True)
class Options:
    """How an episode is run.

    Args:
        steps: after which it is truncated.
        speed: pace of the loop; above 1 only for simulated robots. Deadlines stay those of the nominal period.
        deterministic: take the most likely action; such steps are no samples, so they are logged as not `valid`.
        end_on_success: truncate as soon as the robot reports success.
        end_on_label: truncate as soon as a person says success, failure or discard.
        engage_seconds: over which the policy is given control, and a person, and the policy again.
        deadline: periods that observe, policy, act or an answer of the operator may take before the watchdog stops the
            robot.
        max_age: periods an observation may be old.
        instruction: what a policy with vision is to do; it needs one.
        camera: whose image it sees, or the cameras of one that sees several, in its order; empty for those that its
            artifact names, or `image`.
        video: codec by which cameras are logged, `h264` or `av1`; empty for an image file a frame.
        replan: ticks after which a policy over chunks decides anew; 0 for the whole chunk.
        deadman: asked every tick; False stops the robot.
        takeover: asked every tick; True ends the episode, a person has the robot; one who hands it back is an operator
            of the session (`robots.people`).
        quit: asked every tick; a reason ends the episode in good order.
    """

    steps: int = 500
    speed: float = 1.0
    deterministic: bool = False
    end_on_success: bool = False
    end_on_label: bool = False
    engage_seconds: float = 0.25
    deadline: float = 1.25
    max_age: float = 1.5
    instruction: str = ""
    camera: str | tuple[str, ...] = ()
    video: str = ""
    replan: int = 0
    deadman: Callable[[], bool] = lambda: True
    takeover: Callable[[], bool] = lambda: False
    quit: Callable[[], str] = lambda: ""

    def __post_init__(self) -> None:
        for key, (low, high) in RANGES.items():
            if not low <= getattr(self, key) <= high:
                raise UserError(f"{key} is {getattr(self, key)}; it must be from {low} to {high}")

    def cameras(self, named: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Whose images a policy sees whose artifact has `named` them, in the order of its channels.

        Raises:
            UserError: when these options name others.
        """
        asked = (self.camera,) if isinstance(self.camera, str) else self.camera
        if named and asked not in ((), named):
            raise UserError(
                f"the policy sees the cameras {', '.join(named)}, in this order, and is to be given "
                f"{', '.join(asked)}; name those of the robot so, and leave --camera out"
            )
        if not named and len(asked) > 1:
            raise UserError(f"the policy sees one camera, and is to be given {', '.join(asked)}; name one of them")
        return named or asked or (CAMERA,)


@dataclass(frozen=True)
class Result:
    """How an episode went.

    Args:
        reason: why it ended: `steps`, `success`, `terminated`, `takeover`, what a person or `quit` said, or the stop.
        stopped: the robot is latched; a person must reset it.
        success: what a person said while it ran, else the robot's outcome sensor; None where neither did.
        discarded: a person said while it ran that nothing is to be learned from it: it counts nowhere.
        policy_id: of the policy that acted.
        seed: from which it was begun.
        helped: a person acted in it.
    """

    episode: int
    steps: int
    total_reward: float
    success: bool | None
    reason: str
    stopped: bool
    timing: TimingSummary
    discarded: bool = False
    policy_id: str = ""
    seed: int = 0
    helped: bool = False
