"""A GIPO artifact inside LeRobot's own recording, and what it sampled back in ours, exactly."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")
pytest.importorskip("lerobot_policy_gipo", reason="the plugin is installed beside it: make lerobot")

from lerobot.configs.policies import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_policy_gipo.__main__ import main
from lerobot_policy_gipo.decisions import Decisions, DecisionWriter, read_decisions
from lerobot_policy_gipo.features import match

from datamodules.ingest.options import IngestOptions
from datamodules.ingest.pipeline import ingest
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.review.audit import log_prob_difference
from tests.lerobot.arm import NAMES, Desk, make_artifact
from tests.lerobot.conftest import HOME

MODERN = version("lerobot").startswith("0.6")
SECONDS, EPISODES = 1.5, 2


def record(desk: Desk, command: Callable[..., None], name: str) -> str:
    """LeRobot's own command drives the arm by the policy, and records; the data set's name."""
    options = {
        "policy.path": "pretrained", "policy.decisions": "decisions.jsonl", "policy.seed": "5",
        "robot.type": "so101_follower", "robot.port": desk.port.path, "robot.id": "desk",
        "robot.calibration_dir": str(desk.folder / "calibration"), "dataset.num_episodes": str(EPISODES),
        "dataset.episode_time_s": str(SECONDS) if MODERN else "2", "dataset.reset_time_s": "0", "dataset.fps": "30",
        "dataset.single_task": "reach", "dataset.push_to_hub": "false", "dataset.video": "false",
        "play_sounds": "false",
    }  # fmt: skip
    if MODERN:
        options |= {"strategy.type": "episodic", "strategy.reset_to_initial_position": "false", "fps": "30",
                    "return_to_initial_position": "false", "dataset.repo_id": f"arm/rollout_{name}"}  # fmt: skip
    else:
        options |= {"dataset.repo_id": f"arm/eval_{name}"}
    command("lerobot_rollout" if MODERN else "lerobot_record", *(f"--{key}={value}" for key, value in options.items()))
    (found,) = (HOME / "arm").glob(f"*_{name}*")
    return f"arm/{found.name}"


def test_it_is_found_by_its_name() -> None:
    register_third_party_plugins()
    assert PreTrainedConfig.get_choice_class("gipo").__name__ == "GIPOConfig"


@pytest.mark.parametrize("family", ["gaussian", "token"])
def test_what_it_samples_comes_back_exactly(
    desk: Desk, command: Callable[..., None], family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = make_artifact(tmp_path / "policy.onnx", family)
    assert (
        main(["folder", str(artifact), "--out", "pretrained", "--device", "so101_follower", "--config", "arm.yaml"])
        == 0
    )
    recorded = record(desk, command, family)
    assert main(["features", recorded, "--decisions", "decisions.jsonl", "--new", f"mine/sampled_{family}"]) == 0
    assert "of them sampled by the policy" in capsys.readouterr().out

    store = ingest(
        [HOME / "mine" / f"sampled_{family}"], IngestOptions(cache=tmp_path, workers=1, audit=0.0), progress=False
    )
    frames = {
        name: store.frames[name].numpy() for name in ("observation", "action", "latent", "log_prob", "valid", "source")
    }
    # What follows the last frame of an episode was not recorded.
    assert len(frames["valid"]) == LeRobotDataset(recorded).num_frames - EPISODES > EPISODES
    assert frames["valid"].all()
    assert (frames["source"] == 0).all()
    assert (store.frames["policy_version"].numpy() == 3).all()
    policy = OnnxPolicy.load(artifact)
    assert log_prob_difference(policy, frames).max() < 1e-5
    # Episode 1 begins with the noise that its seed says.
    first = int(np.argmax(store.frames["episode"].numpy() == 1))
    again = policy.act(frames["observation"][first], np.random.default_rng([5, 1]))
    assert again.latent.tobytes() == frames["latent"][first].tobytes()
    assert again.log_prob.tobytes() == frames["log_prob"][first].tobytes()


def test_a_robot_of_another_order_is_refused(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LeRobot passes numbers and no names: they would go to the wrong joints."""
    artifact = make_artifact(tmp_path / "policy.onnx", names=NAMES[::-1])
    given = ["--out", "pretrained", "--device", "so101_follower", "--config", "arm.yaml"]
    assert main(["folder", str(artifact), *given]) == 2
    assert "the policy's observations are gripper.pos, wrist_roll.pos" in capsys.readouterr().err
    assert not Path("pretrained").exists()


def test_a_robot_of_other_units_is_refused(desk: Desk, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk.configure(use_degrees=False)
    given = ["--out", "pretrained", "--device", "so101_follower", "--config", "arm.yaml"]
    assert main(["folder", str(artifact), *given]) == 2
    assert "the policy has 'shoulder_pan.pos' in deg, and the device has it from -100" in capsys.readouterr().err
    assert not Path("pretrained").exists()


def test_frames_that_nobody_sampled_are_of_no_decision() -> None:
    seen, acted = np.arange(5, dtype=np.float32)[:, None], np.ones((5, 1), np.float32)
    made = Decisions({}, seen[[0, 1, 1, 3]], acted[:4], acted[:4], acted[:4], np.ones(4, bool))
    assert match(seen, acted, made).tolist() == [0, 1, -1, 3, -1]
    assert match(seen[[1, 1, 0]], acted[:3], made).tolist() == [1, 2, -1]  # never back in time


def test_images_are_not_read_for_it(
    tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are a megabyte each, and a recording has thousands."""
    policy, rng = OnnxPolicy.load(artifact), np.random.default_rng(0)
    writer = DecisionWriter(tmp_path / "d.jsonl", policy, 0)
    vector = {"dtype": "float32", "shape": (6,), "names": list(NAMES)}
    image = {"dtype": "image", "shape": (8, 8, 3), "names": ["height", "width", "channels"]}
    features = {"observation.state": vector, "action": vector, "observation.images.front": image}
    dataset = LeRobotDataset.create("arm/seen", fps=30, features=features, use_videos=False)
    for seen in rng.normal(size=(4, 6)).astype(np.float32):
        decision = policy.act(seen, rng)
        writer.write(seen, decision, sampled=True)
        dataset.add_frame({"observation.state": seen, "action": decision.action, "task": "reach",
                           "observation.images.front": np.zeros((8, 8, 3), np.uint8)})  # fmt: skip
    dataset.save_episode()
    dataset.finalize()
    monkeypatch.setattr("datasets.Image.decode_example", lambda *_, **__: pytest.fail("an image is read"))
    assert main(["features", "arm/seen", "--decisions", str(tmp_path / "d.jsonl"), "--new", "arm/seen_sampled"]) == 0
    assert "4 frames, 4 of them sampled by the policy" in capsys.readouterr().out


def test_decisions_of_a_torn_file_are_read_up_to_there(tmp_path: Path, artifact: Path) -> None:
    policy, rng = OnnxPolicy.load(artifact), np.random.default_rng(0)
    writer = DecisionWriter(tmp_path / "d.jsonl", policy, 0)
    made = [policy.act(np.zeros(6, np.float32), rng) for _ in range(3)]
    for decision in made:
        writer.write(np.zeros(6, np.float32), decision, sampled=True)
    text = (tmp_path / "d.jsonl").read_text()
    (tmp_path / "d.jsonl").write_text(text[:-20])
    found = read_decisions(tmp_path / "d.jsonl")
    assert found.latent.tobytes() == np.stack([each.latent for each in made[:2]]).tobytes()
    assert found.header["policy_id"] == policy.policy_id


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no decision"), ("{}\n", "line 1 is not what the policy gipo says of itself: it lacks action_names, "),
     ("[]\n[1]\n{}\n", "line 1 is not"), ("\x00\n{}\n", "line 1 is not"), ("[" * 9000 + "}", "line 1 is not")],
)  # fmt: skip
def test_a_file_of_something_else_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        read_decisions(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [('"latent"', '"latemt"', "line 3 is not a decision of the policy gipo: it lacks latent"),
     ('"observation": [', '"observation": ', "line 3 is not a decision"),
     ('"observation": [', '"observation": [7.0, ', r"line 3: observation is \[7.0, .* it must be 6 numbers"),
     ('"action": [', '"action": ["x", ', "line 3: action is .* it must be 6 numbers")],
)  # fmt: skip
def test_what_a_hand_has_damaged_is_told_by_its_line(
    old: str, new: str, said: str, tmp_path: Path, artifact: Path
) -> None:
    policy, rng = OnnxPolicy.load(artifact), np.random.default_rng(0)
    writer = DecisionWriter(tmp_path / "d.jsonl", policy, 0)
    for _ in range(3):
        writer.write(np.zeros(6, np.float32), policy.act(np.zeros(6, np.float32), rng), sampled=True)
    lines = (tmp_path / "d.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace(old, new)
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=said):
        read_decisions(tmp_path / "d.jsonl")
