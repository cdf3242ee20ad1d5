"""MetaWorld's Sawyer with a camera, for policies that see: `--robot robots.drivers.sim_camera:robot`.

It is the arm of `robots.drivers.sim`, but measures its hand and gripper alone; all else a camera shows.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.simulators.metaworld_camera import CAMERA, PREFIX, SIZE, STATE, Camera, seen_task
from gipo.common.simulators.toy import VisualGap
from robots.base import Observation
from robots.drivers.gap import VISUAL
from robots.drivers.sim import RealityGap, SimRobot, make_spec
from robots.settings.annotations import chosen
from robots.spec import RobotSpec


@dataclass(frozen=True)
class SeenGap(RealityGap):
    """How this arm and its camera differ from those in training; the defaults are no gap.

    Args:
        light: factor on every pixel.
        colour: from 0 to 1, how far red has turned into blue, and blue into red.
        shift_x: metres by which the camera has slipped, so that its picture lies to the right of where it lay.
        shift_y: the same, below.
    """

    light: float = 1.0
    colour: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0

    ranges = MappingProxyType({**RealityGap.ranges, **VISUAL})

    @property
    def visual(self) -> VisualGap:
        """The part of it that the camera shows."""
        return VisualGap(self.light, self.colour, self.shift_x, self.shift_y)


NO_GAP = SeenGap()


def robot(
    manifest: Manifest,
    task: str | None = None,
    speed: float = 1.0,
    every: int = 1,
    **gap: Any,
) -> "SeeingSimRobot":
    """The simulated arm with a camera for a policy.

    Args:
        manifest: of the policy that will drive it.
        task: a MetaWorld task, with cameras as in training (`camera:corner3:reach-v3`); the manifest's unless given.
        speed: of the loop; at any but 1 the arm moves one step a command instead of by the wall clock.
        every: observations from one image to the next. A policy may decide at any of them, where `--replan` is short
            of its chunk or a person hands back; 0 saves what it does not see where it goes through whole chunks alone.
        gap: fields of SeenGap.
    """
    if manifest.vision is None:
        raise UserError("this arm has a camera, for policies that see; the policy takes no image: --robot sim")
    found = chosen(SeenGap, gap, "the simulated arm", besides=("task", "every"))
    name, cameras = seen_task(manifest.task if task is None else task)
    sizes = tuple(height for height, _, _ in manifest.vision.shapes)
    seen_by = manifest.vision.cameras or cameras
    named = task is not None and ":" in task.removeprefix(PREFIX)
    if len(seen_by) != len(sizes) or (named and cameras != seen_by):
        policy = ", ".join(manifest.vision.cameras) or "one"
        raise UserError(f"task={task} has the cameras {', '.join(cameras)}; the policy sees by {policy}: task={name}")
    view = View(seen_by, sizes, every or manifest.vision.chunk)
    return SeeingSimRobot(name, view, found, speed == 1, make_seeing_spec().named_as(manifest))


def make_seeing_spec() -> RobotSpec:
    """The Sawyer as training knows it, of which no object and no goal is measured."""
    spec, mine = make_spec(), ("names", "units", "low", "high")
    return replace(spec, **{f"observation_{name}": getattr(spec, f"observation_{name}")[:STATE] for name in mine})


@dataclass(frozen=True)
class View:
    """What the cameras show, and how often.

    Args:
        cameras: of MetaWorld's, called by these names in the log.
        sizes: pixels of height and width, of each.
        every: observations from one image to the next; the first of an episode has one.
    """

    cameras: tuple[str, ...] = (CAMERA,)
    sizes: tuple[int, ...] = (SIZE,)
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"every is {self.every}; an image can come with each observation, every=1, or more seldom")


class SeeingSimRobot(SimRobot):
    """A Sawyer that measures its hand and gripper, and whose camera shows the rest.

    Args:
        task: a MetaWorld task, e.g. `reach-v3`; every episode has a new goal, chosen by its seed.
        view: of the camera.
        gap: how arm and camera differ from training.
        realtime: as `SimRobot` has it.
        spec: of the robot.
    """

    def __init__(
        self,
        task: str,
        view: View = View(),
        gap: SeenGap = NO_GAP,
        realtime: bool = True,
        spec: RobotSpec | None = None,
    ):
        super().__init__(task, gap, realtime, spec or make_seeing_spec())
        self.view, self._visual = view, gap.visual
        self._cameras: dict[str, Camera] = {}

    def connect(self) -> None:
        """Build the simulator and its cameras, with the gap's masses, friction and light, and draw what nobody sees."""
        super().connect()
        for name, size in zip(self.view.cameras, self.view.sizes, strict=True):
            self._cameras[name] = Camera(self._env.model, name, size, self._visual)
            # The first picture takes forty times as long as another: what draws is compiled. No deadline runs yet.
            self._cameras[name].picture(self._env.model, self._env.data)

    def prepare(self, seed: int) -> None:
        """Begin with a new goal, and with an image."""
        super().prepare(seed)
        self._readings = 0

    def observe(self) -> Observation:
        """Hand and gripper, an image where it is time for one, and for the log alone where objects and goal are."""
        found, due = super().observe(), self._readings % self.view.every == 0
        cameras = self._cameras if due else {}
        images = {name: each.picture(self._env.model, self._env.data) for name, each in cameras.items()}
        self._readings += 1
        # No sensor measures what is privileged, so that none errs or loses it.
        return replace(found, values=found.values[:STATE], images=images, privileged=self._values[STATE:])

    def close(self) -> None:
        """Release the cameras and the simulator."""
        while self._cameras:
            self._cameras.popitem()[1].close()
        super().close()
