"""A spec that `gipo-robot spec` begins, that a person ends, and that a run then takes."""

import io
import json
import re
import sys
import types
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.cli import main
from robots.drivers.lerobot import LeRobotRobot
from robots.log import read_log
from robots.spec import RobotSpec, is_marked, mark

SENSORS, MOTORS = ("pan.pos", "grip.pos", "base.vel"), ("pan.pos", "base.vel")


class Norm(Enum):
    """As `lerobot.motors.MotorNormMode`."""

    WHOLE = "range_m100_100"
    HALF = "range_0_100"
    DEGREES = "degrees"


class Device:
    """A LeRobot device: two joints and a base."""

    name = "cart"

    class Config:
        def __init__(self, port: str):
            self.port = port

    config_class = Config
    made: "list[Device]" = []  # noqa: RUF012 - of a test
    observation_features = dict.fromkeys(SENSORS, float)
    action_features = dict.fromkeys(MOTORS, float)
    is_calibrated = True

    def __init__(self, config: Any):
        motors = {"pan": Norm.WHOLE, "grip": Norm.HALF, "base": Norm.DEGREES}
        self.bus = types.SimpleNamespace(
            motors={name: types.SimpleNamespace(norm_mode=mode) for name, mode in motors.items()}
        )
        self.config, self.is_connected = config, False
        self.sent: list[dict[str, float]] = []
        Device.made.append(self)

    def connect(self, calibrate: bool = True) -> None:
        self.is_connected = True

    def get_observation(self) -> dict[str, float]:
        return {"pan.pos": 5.0, "grip.pos": 50.0, "base.vel": 0.25}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(action)
        return action

    def disconnect(self) -> None:
        self.is_connected = False


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of the device: a joint by its position, the base by its velocity."""
    torch = pytest.importorskip("torch", reason="its policy is exported with torch")
    from deploy.export.artifact import export
    from gipo.networks import SeparateNetworks
    from gipo.policies import GaussianPolicy, Spaces
    from tests.offline import save

    torch.manual_seed(0)
    spaces = Spaces(3, (-100.0, -1.0), (100.0, 1.0))
    made = GaussianPolicy(spaces, network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)))
    interface = {
        "observation_names": SENSORS, "observation_units": ("%", "%", "m/s"), "action_names": MOTORS,
        "action_units": ("%", "m/s"), "control_rate_hz": 30.0,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("cart")
    export(save(made, folder / "policy.ckpt", interface=interface), folder / "policy.onnx", observations=16)
    return folder / "policy.onnx"


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    found = types.ModuleType("my_device")
    found.Cart = Device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_device", found)
    monkeypatch.setattr(Device, "made", [])


def spec(policy: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["spec", "--policy", str(policy), *more]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_what_an_artifact_alone_says(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = spec(policy, capsys)
    assert set(found) == set(RobotSpec.__dataclass_fields__)
    assert (found["observation_names"], found["action_units"]) == (list(SENSORS), ["%", "m/s"])
    assert (found["action_low"], found["action_high"]) == ([-100.0, -1.0], [100.0, 1.0])
    assert found["control_rate_hz"] == 30.0
    # a position that is measured, too, and a velocity that is measured just as well
    assert found["action_hold"] == ["measured", 0.0]
    for key, size in (("observation_low", 3), ("observation_high", 3), ("action_rate", 2), ("action_acceleration", 2)):
        assert [is_marked(value) for value in found[key]] == [True] * size
    assert found["observation_low"][2].startswith("DECIDE: lowest reading of base.vel, in m/s")
    assert is_marked(found["name"])


def test_from_a_device_to_a_run(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arm, device = tmp_path / "arm.json", ["--set", "port=/dev/ttyACM0"]
    found = spec(policy, capsys, "--device", "my_device:Cart", *device)
    assert Device.made[-1].config.port == "/dev/ttyACM0"
    assert not Device.made[-1].is_connected
    assert found["name"] == "cart"
    assert found["observation_low"][:2] == [-100.0, 0.0]  # what LeRobot normalises them to
    assert found["observation_high"][:2] == [100.0, 100.0]
    assert [is_marked(found[key][2]) for key in ("observation_low", "observation_high")] == [True, True]
    run = ["run", "--robot", "lerobot", "--policy", str(policy), "--log", str(tmp_path / "logs"), "--episodes", "1",
           "--steps", "20", "--deadline", "50", "--max-age", "60", "--set", "device=my_device:Cart", *device,
           "--set", f"spec={arm}", "--set", "wait=false"]  # fmt: skip
    arm.write_text(json.dumps(found))
    assert main(run) == 2
    error = capsys.readouterr().err
    for expected in (
        "spec.observation_low is to be decided for base.vel",
        "spec.observation_high is to be decided for base.vel",
        "spec.action_rate is to be decided for pan.pos, base.vel",
        "spec.action_acceleration is to be decided for pan.pos, base.vel",
    ):
        assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "logs").exists()

    found["observation_low"][2], found["observation_high"][2] = -2.0, 2.0
    found["action_rate"], found["action_acceleration"] = [200.0, 1.0], [None, None]
    arm.write_text(json.dumps(found))
    assert main(run) == 0
    (path,) = (tmp_path / "logs").glob("*-cart-*.mcap")
    (episode,) = read_log(path).episodes
    assert len(episode) == 20
    assert (np.abs(np.diff(episode["sent_action"][:, 1])) <= 1 / 30 + 1e-9).all()
    assert Device.made[-1].sent[-1] == {"pan.pos": 5.0, "base.vel": 0.0}  # held by the kind of each


def test_all_that_is_missing_unknown_or_undecided_is_named_at_once() -> None:
    with pytest.raises(UserError) as refused:
        RobotSpec.from_json(json.dumps({
            "name": mark("?"), "nmae": "x", "action_names": ["a", "b"], "action_rate": [1.0, mark("?")],
        }))  # fmt: skip
    found = str(refused.value).split("; ")
    missing = set(RobotSpec.__dataclass_fields__) - {"name", "action_names", "action_rate"}
    assert found == [
        *(f"spec.{key} is missing" for key in sorted(missing)),
        "spec.nmae is not a known key",
        "spec.name is to be decided",
        "spec.action_rate is to be decided for b",
    ]


def test_a_robot_that_says_its_spec_itself(
    policies: dict[str, Path], policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = spec(policies["token"], capsys, "--robot", "sim", "--set", "rate=2.5")
    assert RobotSpec.from_json(json.dumps(found)).action_rate == (2.5,) * 4
    assert capsys.readouterr().err == ""
    assert main(["spec", "--policy", str(policy), "--robot", "sim"]) == 2
    assert "the policy was made for another robot than 'sim'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--device", "my_device:Cart"], "port"),
        (["--device", "my_device:None"], "no LeRobot device"),
        (["--device", "my_device:Cart", "--robot", "sim"], "name one of them"),
        (["--set", "port=x"], "neither is named"),
    ],
)
def test_refusals(more: list[str], reason: str, policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "--policy", str(policy), *more]) == 2
    found = capsys.readouterr()
    assert reason in found.err
    assert (found.err.count("\n"), found.out) == (1, "")


def test_another_robots_policy(policies: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    device = ["--device", "my_device:Cart", "--set", "port=x"]
    assert main(["spec", "--policy", str(policies["token"]), *device]) == 2
    error = capsys.readouterr().err
    assert "only in the device ['base.vel', 'grip.pos', 'pan.pos']" in error
    assert "motors: only in the policy ['gripper_effort'" in error


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_what_is_written_to_a_file_is_read_again_whatever_the_encoding(
    policy: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("robots.spec_draft.draft_for", lambda *_: {"action_units": ["N·m", "Ω"]})
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert main(["spec", "--policy", str(policy)]) == 0
    assert json.loads(written.getvalue().decode("utf-8")) == {"action_units": ["N·m", "Ω"]}


@pytest.mark.parametrize(
    ("mode", "unit", "said"),
    [
        (Norm.WHOLE, "deg", "from -100 to 100 of its range (range_m100_100); many devices have use_degrees=true"),
        (Norm.HALF, "rad", "from 0 to 100 of its range (range_0_100)"),
        (Norm.DEGREES, "%", "in degrees; many devices have use_degrees=false"),
        (Norm.DEGREES, "rad", "in degrees"),
        (Norm.DEGREES, "deg", ""),
        (Norm.WHOLE, "%", ""),
        (Norm.WHOLE, "unspecified", ""),
    ],
)
def test_positions_are_in_the_unit_that_the_device_has_them_in(mode: Norm, unit: str, said: str) -> None:
    device = Device(None)
    device.bus.motors["pan"].norm_mode = mode
    units = {"observation_units": (unit, "%", "m/s"), "action_units": (unit, "m/s")}
    spec = RobotSpec(
        name="cart", observation_names=SENSORS, observation_low=(-200.0,) * 3, observation_high=(200.0,) * 3,
        action_names=MOTORS, action_low=(-50.0, -1.0), action_high=(50.0, 1.0), action_rate=(None,) * 2,
        action_acceleration=(None,) * 2, action_hold=("measured", 0.0), control_rate_hz=30.0, **units,
    )  # fmt: skip
    if not said:
        assert LeRobotRobot(device, spec).spec is spec
        return
    refusal = re.escape(f"the spec has 'pan.pos' in {unit}, and the device has it {said}")
    with pytest.raises(UserError, match=refusal):
        LeRobotRobot(device, spec)
