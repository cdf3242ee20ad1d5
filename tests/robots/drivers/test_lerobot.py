"""A LeRobot device from the command line: its own configuration, and one line for whatever is wrong with it."""

import json
import re
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.load import load_robot
from tests.robots.builders import make_spec


@dataclass
class CameraConfig:
    """As LeRobot's: subclasses register by a name that the key `type` chooses."""

    registered: ClassVar[dict[str, type]] = {}

    fps: int | None = None
    width: int | None = None

    @classmethod
    def get_known_choices(cls) -> dict[str, type]:
        return cls.registered


@dataclass(kw_only=True)
class OpenCVCameraConfig(CameraConfig):
    index_or_path: int | Path


CameraConfig.__module__ = "their_arms.cameras"  # beside which others are looked for
CameraConfig.registered["opencv"] = OpenCVCameraConfig


@dataclass(kw_only=True)
class ArmConfig:
    port: str
    id: str | None = None
    calibration_dir: Path | None = None
    use_degrees: bool = True
    max_relative_target: float | dict[str, float] | None = None
    cameras: dict[str, CameraConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for camera in self.cameras.values():
            if camera.width is None:
                raise ValueError("Specifying 'width' is required for the camera to be used in a robot")


class Arm:
    config_class = ArmConfig
    action_features: ClassVar[dict[str, Any]] = {"pan.pos": float}

    def __init__(self, config: ArmConfig):
        self.config = config
        if config.calibration_dir is not None:
            config.calibration_dir.mkdir(parents=True, exist_ok=True)
        if config.port == "/dev/locked":
            raise PermissionError(13, "Permission denied", config.port)
        self.observation_features = {"pan.pos": float, **dict.fromkeys(config.cameras, (4, 6, 3))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the spec of the arm; its driver can be imported."""
    for name in [each for each in sys.modules if each.partition(".")[0] == "lerobot"]:
        monkeypatch.delitem(sys.modules, name)  # another test's stand-in
    module = types.ModuleType("their_arms")
    module.Arm, module.Nothing = Arm, object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_arms", module)
    spec = make_spec(
        observation_names=("pan.pos",), observation_units=("deg",), observation_low=(-9.0,), observation_high=(9.0,),
        action_names=("pan.pos",), action_units=("deg",), action_low=(-1.0,), action_high=(1.0,),
        action_rate=(None,), action_acceleration=(None,), action_hold=("measured",),
    )  # fmt: skip
    (tmp_path / "arm.json").write_text(spec.to_json())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(*settings: str, device: str = "their_arms:Arm", spec: str = "arm.json") -> LeRobotRobot:
    given = [f"device={device}", f"spec={spec}", "wait=false", *settings]
    robot = load_robot("lerobot", None, given)  # type: ignore[arg-type]
    assert isinstance(robot, LeRobotRobot)
    return robot


def test_fields_are_what_the_configuration_says_they_are(folder: Path) -> None:
    config = load("port=5", "id=01", "calibration_dir=cal", "use_degrees=false", "max_relative_target=5").device.config
    assert config == ArmConfig(
        port="5", id="01", calibration_dir=Path("cal"), use_degrees=False, max_relative_target=5.0
    )
    assert (folder / "cal").is_dir()


CAMERAS = {"front": OpenCVCameraConfig(fps=30, width=640, index_or_path=0),
           "wrist": OpenCVCameraConfig(width=320, index_or_path=Path("/dev/video2"))}  # fmt: skip


@pytest.mark.parametrize("how", ["json", "dotted keys", "a JSON file", "a YAML file, with keys on top of it"])
def test_cameras(folder: Path, how: str) -> None:
    front = {"type": "opencv", "index_or_path": 0, "width": 640, "fps": 30}
    wrist = {"type": "opencv", "index_or_path": "/dev/video2", "width": 320}
    whole = {"port": "x", "cameras": {"front": front, "wrist": wrist}}
    if how == "json":
        settings = ["port=x", f"cameras={json.dumps(whole['cameras'])}"]
    elif how == "dotted keys":
        cameras = {"front": front, "wrist": wrist}
        keys = [f"cameras.{name}.{key}={value}" for name, each in cameras.items() for key, value in each.items()]
        settings = ["port=x", *keys]
    elif how == "a JSON file":
        (folder / "arm_config.json").write_text(json.dumps(whole))
        settings = ["config=arm_config.json"]
    else:
        wrist["width"] = 1
        yaml = pytest.importorskip("yaml")

        (folder / "arm_config.yaml").write_text(yaml.safe_dump({**whole, "port": "y"}))
        settings = ["config=arm_config.yaml", "port=x", "cameras.wrist.width=320"]
    assert load(*settings).device.config == ArmConfig(port="x", cameras=CAMERAS)  # type: ignore[arg-type]


def test_an_arm_needs_a_name_and_its_limits() -> None:
    for given, message in (
        ([], "needs --device: LeRobot's name"),
        (["device=so101_follower"], "needs --spec: the arm's"),
    ):
        with pytest.raises(UserError, match=message):
            load_robot("lerobot", None, given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], r"ArmConfig: missing a required (keyword-only )?argument: 'port'; its settings are: port, id"),
        (["port=x", "prot=y"], r"--set prot is no setting of ArmConfig; its settings are: port"),
        (["port=x", "use_degrees=perhaps"], r"--set use_degrees is 'perhaps'; it must be true or false"),
        (["port=x", "max_relative_target=fast"], r"--set max_relative_target is 'fast'; it must be a finite number"),
        (["port=x", "cameras=front"], r"--set cameras is 'front'; it must be dict"),
        (["port=x", "cameras.front.width=640"], r"--set cameras\.front\.type is None; it must be one of: opencv"),
        (["port=x", "cameras.front.type=opencv"], r"OpenCVCameraConfig: missing a required argument: 'index_or_path'"),
        (["port=x", "cameras.front.type=opencv", "cameras.front.index_or_path=0"],
         r"their_arms:Arm refuses its configuration: ValueError in __post_init__ \(.*test_lerobot\.py:\d+\): "
         "Specifying 'width' is required"),
        (["port=/dev/locked"], r"PermissionError in __init__ \(.*test_lerobot\.py:\d+\): .*Permission denied"),
        (["port=x", "config=none.json"], r"cannot read 'none\.json': No such file"),
        (["port=x", "config=arm.json"], r"--set name is no setting of ArmConfig"),
        (["port=x", "tolerate=overload, heat"], "motors report no fault 'heat'; they report encoder"),
        (["port=x", "patience=0"], "--set patience is 0; it must be a number of periods from 1 to 10"),
        (["wait=maybe"], r"--set wait is 'maybe'; it must be true or false"),
        (["speed=2"], r"--set speed is given by gipo-robot itself"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(folder: Path, settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(*settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["5", "their_arms", "their_arms:Leg", "..:x", ":Arm"])
def test_a_device_that_is_not_there(folder: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"there is no LeRobot device '{device}' .*package.module:Class"):
        load(device=device)


def test_a_class_that_is_no_device(folder: Path) -> None:
    with pytest.raises(UserError, match="their_arms:Nothing is no LeRobot device: it has no config_class"):
        load(device="their_arms:Nothing")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"name": "Größe"}'.encode("latin-1"), "'arm2.json' is not UTF-8 text: byte 12 is 0xf6"),
        (b"{", "the robot spec is not JSON"),
        (b'{"action_high": [1], "name": "arm", "action_high": [2]}', "the robot spec names 'action_high' twice"),
        (b'{"name": ' + b"[" * 500 + b"]" * 500 + b"}", "the robot spec nests values more than 64 deep"),
        (b"[]", "the robot spec is a JSON list, it must be an object"),
        (b'{"port": 1}', "spec"),
        (None, "'arm2.json' is not a regular file"),
    ],
)
def test_a_spec_that_is_none(folder: Path, data: bytes | None, message: str) -> None:
    if data is None:
        (folder / "arm2.json").mkdir()
    else:
        (folder / "arm2.json").write_bytes(data)
    with pytest.raises(UserError, match=message):
        load("port=x", spec="arm2.json")


@pytest.mark.parametrize(("text", "named"), [("[", "arm.cfg"), ("[1]", "one object"), ("a: [", "no JSON")])
def test_a_configuration_file_that_is_none(folder: Path, text: str, named: str) -> None:
    (folder / "arm.cfg").write_text(text)
    with pytest.raises(UserError, match=named):
        load("port=x", "config=arm.cfg")


def test_a_broken_yaml_file_is_not_said_to_be_none_by_its_name(folder: Path) -> None:
    pytest.importorskip("yaml")
    (folder / "arm.yaml").write_text("port: [")
    with pytest.raises(UserError, match=r"config=arm\.yaml: it is no YAML: while parsing"):
        load("port=x", "config=arm.yaml")


def test_the_device_that_is_documented_is_where_lerobot_has_it() -> None:
    """LeRobot 0.4.4 moved the followers of the SO arms into one module."""
    root = Path(__file__).parents[3]
    texts = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "robots").glob("*.py")]
    named = re.compile(r"lerobot\.robots\.[a-z0-9_.]+:\w+")
    found = {device for path in texts for device in named.findall(path.read_text(encoding="utf-8"))}
    assert found == {"lerobot.robots.so_follower:SO101Follower"}


@pytest.mark.parametrize("packet", [0.002, 0.3])
def test_a_device_that_comes_to_its_start_sends_nothing_once_it_is_stopped(packet: float) -> None:
    """The hold is the last command, however long the way to the start is, or a packet that is on its way already."""
    sent: list[str] = []

    class Homing(Arm):
        def __init__(self) -> None: ...

        def prepare(self, seed: int, stopped: Callable[[], bool]) -> None:
            for _ in range(500):
                if stopped():
                    return
                time.sleep(packet)
                sent.append("home")

        def send_action(self, action: dict[str, float]) -> dict[str, float]:
            sent.append("hold")
            return action

    names = {"action_names": ("pan.vel",), "action_units": ("deg/s",), "action_low": (-1.0,), "action_high": (1.0,),
             "action_rate": (1.0,), "action_acceleration": (1.0,), "action_hold": (0.0,)}  # fmt: skip
    device: Any = Homing()
    device.action_features = {"pan.vel": float}
    device.observation_features = dict.fromkeys(make_spec().observation_names, float)
    robot = LeRobotRobot(device, make_spec(**names))
    thread = threading.Thread(target=robot.prepare, args=(0,))
    thread.start()
    while len(sent) < 2:
        time.sleep(0.001)
    robot.stop("deadman")
    thread.join(5)
    assert not thread.is_alive()
    assert sent[-1] == "hold"
    assert sent.count("hold") <= 2, "once more where it may have come before what was on its way"
    assert len(sent) < 100
