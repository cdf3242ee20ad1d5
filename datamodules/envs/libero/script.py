"""A scripted policy for tasks of picking one thing up and placing it in or on another, from the simulator's state."""

import numpy as np

from datamodules.envs.libero.simulator import ACTION_SIZE, LiberoSimulator
from gipo.common.errors import UserError

OPEN, CLOSED = -1.0, 1.0
STEP = 0.05  # metres that an action of 1 asks for
GAIN = 1.5  # of the way to a waypoint that an action asks for
OPENING = 0.075  # metres between the fingers; what is wider is held by its rim
DEPTH, FLOOR = 0.03, 0.012  # metres that the fingers reach below its top, and stay above its foot
RIM, RIM_DEPTH = 0.006, 0.015  # the same for a rim: into it, and below it
CLOSING_STEPS = 12
NEAR, VERY_NEAR = 0.015, 0.008  # metres
CLEARANCE = 0.08  # metres above whatever is to be passed


class PickAndPlace:
    """Above the thing, down, close, up, above the target, down, open: waypoints computed anew at every step.

    It reads the state of `simulator`, and begins anew with every episode: make one per episode.

    Raises:
        UserError: when the goal is another than one thing in or on another.
    """

    def __init__(self, simulator: LiberoSimulator):
        goal = simulator.domain.parsed_problem["goal_state"]
        movable = simulator.domain.objects_dict
        if len(goal) != 1 or goal[0][0] not in ("in", "on") or goal[0][1] not in movable:
            raise UserError(
                f"{simulator.task.suite}/{simulator.task.index} asks for {goal}; the script picks up one thing and "
                "places it in or on another: choose such a task, or bring demonstrations of your own"
            )
        self._simulator = simulator
        _, self._thing, self._target = goal[0]
        self._inside = goal[0][0] == "in"
        low, high = self._extent(self._thing)
        centre, by_rim = (low + high) / 2, high[1] - low[1] > OPENING
        # Where the fingers hold it, and its lowest point, relative to its own position.
        origin = self._position(self._thing)
        self._grasp = np.array([centre[0], centre[1], max(high[2] - DEPTH, low[2] + FLOOR)]) - origin
        if by_rim:
            self._grasp[1:] = low[1] + RIM - origin[1], high[2] - RIM_DEPTH - origin[2]
        self._bottom = low[2] - origin[2]
        self._phase, self._closing = 0, 0

    def __call__(self) -> np.ndarray:
        """The next action [7] of the script, not clipped to [−1, 1]."""
        hand = self._simulator.data.site_xpos[self._simulator._hand]
        grasp = self._position(self._thing) + self._grasp
        goal = self._position(self._target) + self._grasp
        height = self._extent(self._container)[1][2] if self._inside else self._position(self._target)[2]
        above = height + CLEARANCE + self._grasp[2] - self._bottom
        if self._phase == 0:  # above it, fingers open
            off = np.linalg.norm((grasp - hand)[:2])
            waypoint = grasp + np.array([0, 0, CLEARANCE if off > 2 * NEAR else 0])
            self._phase += bool(np.abs(grasp - hand).max() < VERY_NEAR)
        if self._phase == 1:  # close
            waypoint = grasp
            self._closing += 1
            self._phase += self._closing > CLOSING_STEPS
        if self._phase == 2:  # up, and across once nothing is in the way
            waypoint = np.array([*(goal[:2] if hand[2] > above - CLEARANCE / 2 else hand[:2]), above])
            self._phase += bool(np.linalg.norm((goal - hand)[:2]) < NEAR)
        if self._phase == 3:  # down, and let go
            low = above if self._inside else height + self._grasp[2] - self._bottom + 0.01
            waypoint = np.array([*goal[:2], low])
            self._phase += bool(abs(low - hand[2]) < NEAR)
        if self._phase == 4:
            waypoint = np.array([*goal[:2], above])
        action = np.zeros(ACTION_SIZE)
        action[:3] = GAIN * (waypoint - hand) / STEP
        action[-1] = CLOSED if self._phase in (1, 2, 3) else OPEN
        return action

    @property
    def _container(self) -> str:
        """Name of the thing that the target is a region of, or of the target itself."""
        site = self._simulator.domain.object_states_dict[self._target]
        return getattr(site, "parent_name", self._target)

    def _position(self, name: str) -> np.ndarray:
        return np.array(self._simulator.domain.object_states_dict[name].get_geom_state()["pos"])

    def _extent(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3] of the box around what can be touched of a thing, world coordinates (m)."""
        model, data = self._simulator.model, self._simulator.data
        root = self._simulator.domain.obj_body_id[name]
        corners = []
        for geom in range(model.ngeom):
            if model.body_rootid[model.geom_bodyid[geom]] == root and model.geom_contype[geom]:
                centre, half = model.geom_aabb[geom][:3], model.geom_aabb[geom][3:]
                signs = np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3)
                rotation = data.geom_xmat[geom].reshape(3, 3)
                corners.append(data.geom_xpos[geom] + (centre + signs * half) @ rotation.T)
        points = np.concatenate(corners)
        return points.min(0), points.max(0)
