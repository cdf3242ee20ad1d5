"""A task that a user's module registers, `module:Id`: trained, resumed, evaluated, exported, and run as a robot."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deploy.cli import main as deploy
from gipo.cli import main
from gipo.common import terminal
from robots.cli import main as robot

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]
MODULE = """
import gymnasium, numpy

class Mine(gymnasium.Env):
    metadata = {"render_fps": 100}
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), numpy.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), numpy.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return numpy.zeros(2, numpy.float32), {}

    def step(self, action):
        return numpy.full(2, action[0], numpy.float32), float(-action[0] ** 2), False, False, {}

gymnasium.register("MineOfTest-v0", entry_point=Mine, max_episode_steps=8)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the module, on no path."""
    (tmp_path / "mine_envs.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    sys.modules.pop("mine_envs", None)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.usefixtures("no_plot")
def test_from_training_to_a_robot(here: Path, tiny: Args, capsys: Capture) -> None:
    options = {"data__task": "mine_envs:MineOfTest-v0"}
    last = here / "run" / "checkpoints" / "last.ckpt"
    main(tiny(data__total_frames=32, **options))
    main(tiny(data__total_frames=64, ckpt_path=last, **options))
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["frames"] == 64
    capsys.readouterr()
    main(tiny(command="test", ckpt_path=last, checkpoint__every=None, data__evaluation__test_episodes=2, **options))
    assert "over 2 episodes" in capsys.readouterr().out
    assert deploy(["export", str(last), "--out", "policy.onnx", "--rate", "100"]) == 0
    run = ["run", "--robot", "gym", "--policy", "policy.onnx", "--episodes", "1", "--steps", "4", "--log", "logs"]
    assert robot([*run, "--set", "env=mine_envs:MineOfTest-v0"]) == 0, capsys.readouterr().err
    assert robot(run) == 0, capsys.readouterr().err  # the task that the artifact names


@pytest.mark.usefixtures("here", "no_plot")
def test_workers_import_the_module_too(tiny: Args, tmp_path: Path) -> None:
    main(tiny(data__task="mine_envs:MineOfTest-v0", data__total_frames=32, data__collector__workers=1))
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["OnlineDataModule"]["frames"] == 32


SIMULATION = """
from dataclasses import dataclass
import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase, StepCounter, TransformedEnv
from datamodules.envs.simulation import SeededSimulation

class Remote(EnvBase):
    def __init__(self, count, lost):
        super().__init__(batch_size=[count])
        self.observation_spec = Composite(observation=Unbounded((count, 1)), shape=[count])
        self.action_spec, self.reward_spec = Bounded(-1.0, 1.0, (count, 1)), Unbounded((count, 1))
        self.lost, self.taken = lost, 0

    def _reset(self, tensordict):
        return TensorDict(observation=torch.zeros(*self.batch_size, 1), batch_size=self.batch_size)

    def _step(self, tensordict):
        self.taken += 1
        if self.taken == self.lost:
            raise RuntimeError("the arm fell over")
        no = torch.zeros(*self.batch_size, 1, dtype=torch.bool)
        return self._reset(None).update({"reward": torch.ones(no.shape), "terminated": no, "done": no})

    def _set_seed(self, seed): ...

    def close(self, **options):
        raise ConnectionError("nobody answers")

@dataclass(frozen=True)
class Far(SeededSimulation):
    name: str = "far"
    lost: int = 0
    horizon, interface = 8, None

    def environment(self, num_envs, evaluating):
        return TransformedEnv(Remote(num_envs, self.lost), StepCounter(8, step_count_key="step"))
"""


@pytest.mark.usefixtures("no_plot")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_closed_hides_nothing_and_costs_no_run(
    here: Path, tiny: Args, workers: int, capfd: Capture
) -> None:
    """A simulator that is gone cannot be closed either."""
    (here / "far_sim.py").write_text(SIMULATION)
    sys.modules.pop("far_sim", None)
    terminal._said.clear()
    options = {"data__task": "far_sim.Far", "data__total_frames": 32, "data__collector__workers": workers}
    main(tiny(**options))
    assert "task 'far' could not be closed: ConnectionError in close (" in capfd.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*tiny("lost", **options), "--data.task.lost=4"])
    assert "RuntimeError in _step (" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("mine_envs:MineOfTst-v0", "module 'mine_envs' registers no 'MineOfTst-v0'. Nearest: MineOfTest-v0"),
        ("nowhere:MineOfTest-v0", "module 'nowhere' cannot be imported: ModuleNotFoundError"),
        ("broken_envs:X-v0", "module 'broken_envs' cannot be imported: ZeroDivisionError in <module> ("),
        ("ending_envs:X-v0", "module 'ending_envs' cannot be imported: SystemExit"),
        ("mistyped_envs:X-v0", "module 'mistyped_envs' cannot be imported: SyntaxError"),
        (":X-v0", "module '' cannot be imported"),
    ],
)
def test_a_module_that_does_not_register_it(task: str, words: str, here: Path, tiny: Args, capsys: Capture) -> None:
    (here / "broken_envs.py").write_text("1 / 0\n")
    (here / "ending_envs.py").write_text("raise SystemExit(0)\n")
    (here / "mistyped_envs.py").write_text("def f(:\n")
    with pytest.raises(SystemExit, match="2"):
        main(tiny(data__task=task))
    error = capsys.readouterr().err
    assert error.startswith(f"gipo: error: data.task={task}: {words}")
    assert error.count("\n") == 1
