"""An artifact as a folder that `--policy.path` takes."""

import shutil
from pathlib import Path

from deploy.runtime.check import check_file
from gipo.common.errors import UserError
from lerobot_policy_gipo.configuration_gipo import GIPOConfig
from lerobot_policy_gipo.processor_gipo import make_gipo_pre_post_processors
from robots.drivers.lerobot import readings_of
from robots.drivers.lerobot_devices import check_units, make_device


def write_folder(artifact: Path, out: Path, device: str, config: str) -> str:
    """Write the folder; one line about it.

    Args:
        artifact: that is to act.
        out: a folder that is not there yet.
        device: LeRobot's name of the robot that it is for, which is not connected.
        config: file with that robot's configuration.

    Raises:
        UserError: when the robot has other readings or motors, or in another order or other units: LeRobot passes
            numbers, not names.
    """
    manifest = check_file(artifact).manifest
    robot = make_device(device, config)
    readings = [name for name in robot.observation_features if name in readings_of(robot)]
    for what, mine, theirs in (
        ("observations", list(manifest.observation_names), readings),
        ("actions", list(manifest.action_names), list(robot.action_features)),
    ):
        if mine != theirs:
            raise UserError(f"the policy's {what} are {', '.join(mine)}; the robot's are {', '.join(theirs)}")
    check_units(manifest, "policy", robot)
    if out.exists():
        raise UserError(f"{out} is there already; name another folder")
    out.mkdir(parents=True)
    shutil.copyfile(artifact, out / "policy.onnx")
    settings = GIPOConfig(device="cpu", push_to_hub=False)
    settings.save_pretrained(out)
    for pipeline in make_gipo_pre_post_processors(settings):
        pipeline.save_pretrained(out)
    return f"written {out}: --policy.path={out}"
