"""From a name on the command line to an operator: ours, a LeRobot teleoperator, or a class of one's own."""

from collections.abc import Sequence

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from robots.load import imported, made
from robots.people.leader import teleoperator
from robots.people.operator import Operator
from robots.settings.annotations import arguments, parameters
from robots.settings.assignments import parse_settings
from robots.spec import RobotSpec

OURS = {
    "keyboard": "robots.people.keyboard:Keyboard",
    "gamepad": "robots.people.gamepad:gamepad",
    "scripted": "robots.people.scripted:ScriptedOperator",
}


def load_operator(name: str, spec: RobotSpec, manifest: Manifest, settings: Sequence[str] = ()) -> Operator:
    """Make an operator by its name on the command line.

    Args:
        name: `keyboard`, `gamepad`, `scripted`, or `package.module:Class`, which may be a LeRobot teleoperator.
        spec: of the robot, given to it if it has a parameter of that name.
        manifest: of the policy, likewise.
        settings: `key=value`, its other arguments or the fields of a teleoperator's configuration.

    Raises:
        UserError: when there is no such thing, it refuses its arguments, or it is no operator.
    """
    advice = f"name {', '.join(OURS)}, or package.module:Class"
    make = imported(OURS.get(name, name), f"operator {name!r}", advice)
    texts = parse_settings(settings, "--operator-set")
    if hasattr(make, "config_class"):
        return teleoperator(make, f"--operator {name}", spec, texts)
    ours = {"spec": spec, "manifest": manifest}
    given = {key: value for key, value in ours.items() if key in parameters(make)}
    read = arguments(make, texts, "--operator-set ", given)
    found = made(make, read, f"--operator {name}")
    if not isinstance(found, Operator):
        kind = type(found).__name__
        raise UserError(f"--operator {name} gives a {kind}; derive it from robots.people.operator.Operator")
    return found
