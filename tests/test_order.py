"""A task with the sensors of a policy in another order: no size tells, and the policy would see what it never saw."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torchrl.envs import EnvBase

from datamodules.envs.simulation import Simulation
from datamodules.envs.tasks import simulation
from gipo.cli import main
from gipo.policies import Spaces
from tests.test_bad_input import refused

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("no_plot")


@dataclass(frozen=True)
class Ordered(Simulation):
    """The point of `Tiny-v0`, with names for what it observes."""

    name: str = "a point with names"
    names: tuple[str, str, str] = ("x", "speed", "goal")
    horizon = 12

    @property
    def interface(self) -> dict[str, Any]:
        return {
            "observation_names": list(self.names), "observation_units": ["m", "m/s", "m"],
            "action_names": ["east", "north"], "action_units": ["m", "m"],
        }  # fmt: skip

    def make(self, num_envs: int, seed: int) -> EnvBase:
        return simulation("Tiny-v0").make(num_envs, seed)

    def spaces(self, env: EnvBase) -> Spaces:
        return simulation("Tiny-v0").spaces(env)


@pytest.fixture
def learned(tiny: Args, tmp_path: Path) -> Path:
    """The checkpoint of a run on it."""
    main(tiny("learned", **NAMED, data__total_frames=32))
    return tmp_path / "learned" / "checkpoints" / "last.ckpt"


NAMED = {"data__task__class_path": "tests.test_order.Ordered"}
TURNED = NAMED | {"data__task__init_args__names": '["goal","speed","x"]'}
OTHER = NAMED | {"data__task__init_args__names": '["position","velocity","target"]'}


def test_the_same_sensors_in_another_order_are_refused(
    learned: Path, tiny: Args, tmp_path: Path, capsys: Capture
) -> None:
    words = (
        f"observation_names of the task a point with names are those of {learned} in another order: "
        "['goal', 'speed', 'x'] against ['x', 'speed', 'goal'], by which its policy learned; give the task the order"
    )
    assert words in refused(tiny(**TURNED, model__init_from=learned), capsys)
    assert words in refused(tiny(**TURNED, ckpt_path=learned), capsys)
    assert not (tmp_path / "run").exists()
    evaluated = [f"--{name.replace('__', '.')}={value}" for name, value in TURNED.items()]
    for command in ("validate", "test"):
        assert words in refused([command, *evaluated, f"--ckpt_path={learned}"], capsys)


def test_other_names_may_be_of_the_same_sensors(learned: Path, tiny: Args, tmp_path: Path) -> None:
    main(tiny(**OTHER, model__init_from=learned, data__total_frames=32))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
