"""Names of suites and tasks, and what is refused: no simulator is built here."""

import builtins
from typing import Any

import pytest
import yaml

from datamodules.envs.libero import tasks
from datamodules.envs.libero.simulator import interface, units
from datamodules.envs.libero.tasks import SUITES, find
from datamodules.envs.tasks import simulation
from gipo.cli import main
from gipo.common.errors import UserError


def test_the_five_suites_come_first_and_are_whole() -> None:
    assert tasks.suites()[:5] == tuple(sorted(SUITES))
    assert [len(find(suite)) for suite in SUITES] == [10, 10, 10, 10, 90]


def test_every_suite_has_its_files() -> None:
    for suite in tasks.suites():
        assert find(suite)[0].init_states().ndim == 2


def test_a_task_is_found_by_index_and_by_name() -> None:
    by_index, by_name, alone = (find(f"{name}")[0] for name in (
        "libero_goal/7", "libero_goal/turn_on_the_stove", "turn_on_the_stove"
    ))  # fmt: skip
    assert by_index == by_name == alone
    assert (alone.suite, alone.index, alone.instruction) == ("libero_goal", 7, "turn on the stove")
    assert alone.init_states().shape == (50, 79)


@pytest.mark.parametrize(
    ("suite", "horizon"),
    [
        ("libero_spatial", 220),
        ("libero_10", 520),
        ("libero_10_swap", 520),
        ("libero_goal_lan", 300),
        ("libero_mine", 600),
    ],
)
def test_a_derived_suite_has_the_horizon_of_its_origin(suite: str, horizon: int) -> None:
    assert simulation(suite).horizon == horizon


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("libero_spatail", "libero_spatial"),
        ("libero_spatial/10", "0 to 9"),
        ("libero_goal/turn_on_the_stoves", "turn_on_the_stove"),
        ("turn_on_the_stov", "turn_on_the_stove"),
        ("libero_goal_temp", "libero_goal"),  # the package has its name, and no file of it
    ],
)
def test_an_unknown_name_offers_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match=r"unknown|has no task") as refusal:
        simulation(name)
    assert near in str(refusal.value)


def test_without_libero_its_names_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == "libero":
            raise ModuleNotFoundError("No module named 'libero'", name="libero")
        return real(name, *args)

    for cached in (tasks.suites, tasks.tasks_of):
        cached.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"need libero: pip install '\.\[libero\]' in a clone of gipo"):
        simulation("libero_goal/7")
    with pytest.raises(UserError, match="reach-v3"):
        simulation("reach-v2")


def test_a_suite_counts_its_numbers_and_a_task_names_them() -> None:
    one, suite = interface(find("libero_10/3")), interface(find("libero_10"))
    assert len(set(one["observation_names"])) == len(one["observation_units"]) == len(units(find("libero_10/3")[0]))
    assert len(suite["observation_names"]) == max(len(units(task)) for task in find("libero_10")) + 10
    assert one["action_names"] == suite["action_names"]
    assert len(one["action_units"]) == 7
    assert one["control_rate_hz"] == 20


@pytest.mark.parametrize("suite", SUITES)
def test_one_configuration_is_for_every_suite(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fit", f"--config={suite}.yaml"])  # as it was called before
    (line,) = capsys.readouterr().err.splitlines()
    options = line.partition(f"{suite}.yaml is now libero.yaml: ")[2].split()
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *options, "--print_config"])
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["task"] == suite
    assert data["evaluation"]["test_episodes"] == 50 * len(simulation(suite).parts)
    assert data["freeze_moments"]
