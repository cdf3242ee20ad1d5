"""Our exports under LeRobot's own loader, visualiser and edit commands, and what comes back from them."""

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from lerobot.datasets.lerobot_dataset import LeRobotDataset

from datamodules.ingest.options import IngestOptions
from datamodules.ingest.pipeline import ingest
from robots.cli import main
from tests.lerobot.arm import Desk
from tests.lerobot.conftest import HOME
from tests.lerobot.patience import PATIENT

MODERN = version("lerobot").startswith("0.6")
LENGTH = 12


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, artifact: Path) -> Path:
    """Four episodes of the arm, as a data set `arm/export`."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        desk = Desk(folder)
        given = ["--robot", "lerobot", "--device", "so101_follower", "--config", "arm.yaml", "--spec", "arm.json"]
        ran = main(["run", "--policy", str(artifact), *given, "--set", "wait=false", "--episodes", "4", "--steps",
                    str(LENGTH), *PATIENT, "--engage", "0"])  # fmt: skip
        desk.port.unplug()
        (log,) = Path("logs").glob("*.mcap")
        assert ran == 0
        assert main(["label", str(log), "--episode", "1", "--success"]) == 0
        assert main(["export", "logs", "--format", "lerobot", "--out", str(HOME / "arm" / "export")]) == 0
    return HOME / "arm" / "export"


def frames(source: Path, cache: Path) -> dict[str, np.ndarray]:
    """What an ingest makes of a data set, by the store's names; the names of policies stand in the sidecar alone."""
    store = ingest([source], IngestOptions(cache=cache, workers=1, audit=0.0), progress=False)
    return {"/".join(key) if isinstance(key, tuple) else key: store.frames[key].numpy()
            for key in store.frames.keys(True, True)}  # fmt: skip


def check(edited: Path, episodes: list[int], exported: Path, cache: Path) -> None:
    """The edited data set gives the frames of these episodes, bit for bit, but for the last of each.

    What follows the last frame stands in the sidecar, which LeRobot's commands leave behind.
    """
    whole, found = frames(exported, cache), frames(edited, cache)
    kept = np.concatenate([np.flatnonzero(whole["episode"] == episode)[:-1] for episode in episodes])
    assert len(found["observation"]) == len(kept) == len(episodes) * (LENGTH - 1)
    for name in ("observation", "action", "sent_action", "latent", "log_prob", "policy_version", "valid", "source",
                 "next/observation", "next/reward", "success"):  # fmt: skip
        assert found[name].tobytes() == whole[name][kept].tobytes(), name
    ends = np.arange(1, len(kept) + 1) % (LENGTH - 1) == 0
    assert (found["next/truncated"] == ends).all()


def test_its_loader_reads_an_export(exported: Path) -> None:
    found = LeRobotDataset("arm/export", root=exported)
    assert (found.num_episodes, found.num_frames, found.fps) == (4, 4 * LENGTH, 30)
    frame = found[3]
    assert tuple(frame["policy.log_prob"].shape) == (6,)
    assert int(frame["policy.version"]) == 3
    assert frame["task"] == "reach"


def test_its_visualiser_shows_an_export(exported: Path, command: Callable[..., None], tmp_path: Path) -> None:
    command("lerobot_dataset_viz", "--repo-id", "arm/export", "--episode-index", "0", "--save", "1", "--num-workers",
            "0", "--output-dir", str(tmp_path))  # fmt: skip
    (shown,) = tmp_path.glob("*.rrd")
    assert shown.stat().st_size > 1000


def test_an_episode_is_deleted(exported: Path, command: Callable[..., None], tmp_path: Path) -> None:
    command("lerobot_edit_dataset", "--repo_id", "arm/export", "--new_repo_id", "arm/shorter", "--operation.type",
            "delete_episodes", "--operation.episode_indices", "[2]")  # fmt: skip
    check(HOME / "arm" / "shorter", [0, 1, 3], exported, tmp_path)


def test_it_is_split_and_merged(exported: Path, command: Callable[..., None], tmp_path: Path) -> None:
    command("lerobot_edit_dataset", "--repo_id", "arm/export", "--operation.type", "split", "--operation.splits",
            '{"train": [0, 1, 2], "val": [3]}')  # fmt: skip
    check(HOME / "arm" / "export_train", [0, 1, 2], exported, tmp_path)
    check(HOME / "arm" / "export_val", [3], exported, tmp_path)
    merge = ["--operation.type", "merge", "--operation.repo_ids", "['arm/export_val', 'arm/export_train']"]
    command("lerobot_edit_dataset", *(["--new_repo_id"] if MODERN else ["--repo_id"]), "arm/merged", *merge)
    check(HOME / "arm" / "merged", [3, 0, 1, 2], exported, tmp_path)


def test_a_feature_is_removed(exported: Path, command: Callable[..., None], tmp_path: Path) -> None:
    command("lerobot_edit_dataset", "--repo_id", "arm/export", "--new_repo_id", "arm/narrower", "--operation.type",
            "remove_feature", "--operation.feature_names", "['policy.proposed_action']")  # fmt: skip
    check(HOME / "arm" / "narrower", [0, 1, 2, 3], exported, tmp_path)


def test_its_task_is_named_anew_in_place(exported: Path, command: Callable[..., None], tmp_path: Path) -> None:
    shutil.copytree(exported, HOME / "arm" / "renamed")
    command("lerobot_edit_dataset", "--repo_id", "arm/renamed", "--operation.type", "modify_tasks",
            "--operation.new_task", "touch it")  # fmt: skip
    assert LeRobotDataset("arm/renamed")[0]["task"] == "touch it"
    whole, found = frames(exported, tmp_path), frames(HOME / "arm" / "renamed", tmp_path)
    assert all(
        found[name].tobytes() == values.tobytes() for name, values in whole.items()
    )  # its sidecar is still there


def test_it_is_described(exported: Path, command: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    command("lerobot_edit_dataset", "--repo_id", "arm/export", "--operation.type", "info", "--operation.show_features",
            "true")  # fmt: skip
    assert "policy.log_prob" in "".join(capfd.readouterr())


@pytest.mark.skipif(not MODERN, reason="0.4.4 has no such command")
def test_its_statistics_are_made_anew(exported: Path, command: Callable[..., None], tmp_path: Path) -> None:
    command("lerobot_edit_dataset", "--repo_id", "arm/export", "--new_repo_id", "arm/counted", "--operation.type",
            "recompute_stats")  # fmt: skip
    ours = json.loads((exported / "meta" / "stats.json").read_text())["policy.log_prob"]
    theirs = json.loads((HOME / "arm" / "counted" / "meta" / "stats.json").read_text())["policy.log_prob"]
    for statistic in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.squeeze(theirs[statistic]), ours[statistic], rtol=1e-4, atol=1e-5)
