"""What simulates a run's task: told, kept in its checkpoints, gone on with, and asked for otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.cli import main
from gipo.common.checkpoint_head import read_head
from gipo.common.simulators import equality
from gipo.common.simulators.equality import why_not_native
from tests.needs import needs_envpool
from tests.runs import cli_args

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]

pytestmark = [pytest.mark.usefixtures("no_plot"), needs_envpool]


@pytest.fixture(scope="module")
def native_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of two iterations in native simulators, which it took by itself."""
    folder = tmp_path_factory.mktemp("native") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
        main(cli_args(folder, data__total_frames=64))
    return folder / "checkpoints" / "last.ckpt"


def without_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("gipo.common.simulators.equality", "gipo.commands.fit.checks"):
        monkeypatch.setattr(f"{module}.available", lambda: False)


def test_reach_is_simulated_natively_by_itself_and_the_checkpoint_says_so(native_run: Path) -> None:
    assert why_not_native("reach-v3") is None
    assert read_head(native_run).simulator == "envpool"


def test_a_run_says_what_simulates_it(tiny: Args, capsys: Capture) -> None:
    main(tiny(data__total_frames=32))
    assert "gipo: note: envpool simulates reach-v3\n" in capsys.readouterr().err


def test_a_resumed_run_goes_on_with_what_it_began_with(
    native_run: Path, tiny: Args, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equality, "exception", lambda task: "changed since")  # so that a new run would be in Python
    main(tiny(ckpt_path=native_run, data__total_frames=96))
    assert "envpool simulates reach-v3, although changed since" in capsys.readouterr().err
    assert read_head(tmp_path / "run" / "checkpoints" / "last.ckpt").simulator == "envpool"


def test_a_run_from_before_there_was_a_choice_goes_on_in_python(
    native_run: Path, tiny: Args, tmp_path: Path, capsys: Capture
) -> None:
    old = torch.load(native_run, weights_only=True)
    del old["gipo"]["simulator"], old["OnlineDataModule"]["simulator"]
    torch.save(old, tmp_path / "old.ckpt")
    main(tiny(ckpt_path=tmp_path / "old.ckpt", data__total_frames=96))
    assert "MetaWorld's Python simulates reach-v3, as data.simulator says" in capsys.readouterr().err


def test_resuming_in_other_simulators_is_refused(native_run: Path, tiny: Args, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(tiny(ckpt_path=native_run, data__total_frames=96, data__simulator="python"))
    assert "was trained on 'envpool', data.simulator is 'python'; resume it with" in capsys.readouterr().err


def test_going_on_without_envpool_is_one_message(
    native_run: Path, tiny: Args, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_envpool(monkeypatch)
    with pytest.raises(SystemExit):
        main(tiny(ckpt_path=native_run, data__total_frames=96))
    assert (
        "the checkpoint was trained in envpool's simulators, and envpool is not installed: pip install '.[fast]'"
        in capsys.readouterr().err
    )


def test_a_native_run_is_tested_natively_and_in_python_where_asked(
    native_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for simulator in ("auto", "envpool", "python"):
        options = [
            "--data.evaluation.test_episodes=1",
            "--data.evaluation.num_envs=1",
            "--data.evaluation.max_steps=20",
        ]
        main(["test", f"--ckpt_path={native_run}", f"--data.simulator={simulator}", *options])
        found[simulator] = capsys.readouterr().out
    assert found["auto"] == found["envpool"] != found["python"]


def test_threads_step_native_simulators_alone(tiny: Args, capsys: Capture) -> None:
    main(tiny(data__total_frames=32, data__collector__threads=2))
    with pytest.raises(SystemExit):
        main(tiny("python", data__collector__threads=2, data__simulator="python"))
    assert "data.collector.threads=2 needs native simulators, and reach-v3 is in Python" in capsys.readouterr().err


def test_a_task_of_envpool_trains(tiny: Args, tmp_path: Path) -> None:
    main(tiny(data__task="envpool:Pendulum-v1", data__total_frames=64))
    head = read_head(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert (head.task, head.simulator) == ("envpool:Pendulum-v1", "envpool")
