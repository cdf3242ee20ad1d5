"""`gipo estimate` as it is typed, on real logs of a small robot whose rewards depend on what it does."""

import contextlib
import csv
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.runtime.policy import OnnxPolicy
from gipo.cli import main
from gipo.common.boundary import EXIT_NOT_KNOWN
from gipo.common.checkpoint_head import LearnedLog
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from robots.cli import main as robot_main
from robots.log import Step, read_log
from tests.datamodules.ingest.builders import write_log
from tests.offline import SENSORS, SPACES, D, Robot, arm, make_policy, make_robot, save, write_demonstrations

Capture = pytest.CaptureFixture[str]
EPISODES, STEPS = 60, 8


def judged(episode: int, rows: list[Step]) -> None:
    """A reward for each step that a policy chose: its first action, where the first sensor is positive."""
    for index, row in enumerate(rows):
        worth = float(row.action[0]) * (row.observation[0] > 0) if row.valid else 0.0
        rows[index] = dataclasses.replace(row, reward=worth)


def worth(policy: Policy) -> float:
    """What an episode of it returns: of 200 000 draws of what `rows_of` shows, for the steps that it chooses."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(200_000, SENSORS, generator=generator)
    with torch.no_grad():
        params = policy.params(seen)
        shape = (*params.shape[:1], D)
        noise = (torch.rand if isinstance(policy, TokenPolicy) else torch.randn)(shape, generator=generator)
        action = policy.to_env(policy.sample(params, noise))
    return float((action[:, 0] * (seen[:, 0] > 0)).mean()) * (STEPS - 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token policy's robot with episodes whose rewards are known, and candidates near to it and far from it."""
    folder = tmp_path_factory.mktemp("estimate")
    robot = make_robot(folder / "robot", steps=(STEPS,))
    for seed, log in enumerate(robot.logs):
        log.unlink()
        robot.log(log, (STEPS,) * (EPISODES // 2), seed, judged)
    save(moved(make_policy(), 0.25), folder / "near.ckpt")
    save(make_policy(seed=3, gain=300.0), folder / "far.ckpt")
    return folder


def moved(policy: Policy, by: float) -> Policy:
    """A policy whose preferences are shifted towards large first actions."""
    with torch.no_grad():
        bias = policy.network.actor[-1].bias.view(D, -1)  # type: ignore[union-attr,index]
        bias[0] += by * torch.linspace(-1, 1, bias.shape[1])
    return policy


def estimated(folder: Path, *args: str) -> int:
    """Exit code of the command on the robot's logs."""
    try:
        main(["estimate", *args, *(str(folder / "robot" / name) for name in ("a.mcap", "b.mcap"))])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_it_finds_what_another_policy_would_return(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "estimates.csv"
    assert estimated(folder, str(folder / "near.ckpt"), "--out", str(out), "--policies", str(folder / "robot")) == 0
    printed = capsys.readouterr().out
    assert f"{EPISODES} episodes of {EPISODES * STEPS} decisions by policy " in printed
    assert "this policy is version 7" in printed
    assert printed.rstrip().endswith(f"written {out}")
    with open(out) as file:
        rows = {(row["measure"], row["estimator"]): row for row in csv.DictReader(file)}
    truth = worth(moved(make_policy(), 0.25)) - worth(make_policy())
    found = rows["return", "doubly robust, weighted"]
    low, high = float(found["difference_low"]), float(found["difference_high"])
    assert truth > 0.2
    assert low < truth < high < low + 1.5
    assert low > 0  # enough to say that it is better
    assert "by all decisions: more than they had" in printed


def test_success_is_estimated_where_it_is_known_of_every_episode(folder: Path, capsys: Capture) -> None:
    """Of every third episode nobody has said how it went."""
    assert estimated(folder, str(folder / "near.ckpt")) == 0
    told = capsys.readouterr()
    assert f"success is not estimated: nobody said of {EPISODES // 3} episodes how they went" in told.err
    assert "success:" not in told.out


def test_a_policy_far_from_those_that_acted_has_a_code_of_its_own(folder: Path, capsys: Capture) -> None:
    assert estimated(folder, str(folder / "far.ckpt")) == EXIT_NOT_KNOWN
    assert "return: these logs cannot tell:" in capsys.readouterr().out


def test_too_few_episodes_cannot_tell(folder: Path, capsys: Capture) -> None:
    assert estimated(folder, str(folder / "near.ckpt"), "--effective", "100000") == EXIT_NOT_KNOWN
    assert "these logs cannot tell: an estimate needs 100000 effective episodes" in capsys.readouterr().out


def test_the_policy_that_acted_returns_what_it_returned(folder: Path, capsys: Capture) -> None:
    assert estimated(folder, str(folder / "robot" / "policy.ckpt")) == 0
    printed = capsys.readouterr().out
    (kl,) = re.findall(r"KL of a decision, of those that acted against this one: about (\S+) nats", printed)
    assert 0 <= float(kl) < 1e-6
    assert "return: +0.00 [+0.00, +0.00] against the policies that acted, by all decisions: no difference" in printed


def test_a_gaussian_too(tmp_path: Path, capsys: Capture) -> None:
    robot: Robot = make_robot(tmp_path / "robot", GaussianPolicy, steps=(STEPS,))
    robot.log(robot.folder / "c.mcap", (STEPS,) * (EPISODES // 2), 5, judged)
    policy = make_policy(GaussianPolicy)
    with torch.no_grad():
        policy.network.actor[-1].bias[0] += 0.3  # type: ignore[union-attr,index]
    save(policy, near := tmp_path / "near.ckpt")
    main(["estimate", str(near), str(robot.folder / "c.mcap")])
    assert "return: +" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["robot/policy.onnx"], "is an artifact; name the checkpoint that it was exported from (gipo lineage)"),
        (["nowhere.ckpt"], "nowhere.ckpt"),
        (["near.ckpt", "--effective", "1"], "no number from 2 to"),
        (["near.ckpt", "--discount", "0"], "no number above 0"),
        (["near.ckpt", "--out", "near.ckpt"], "is not replaced by a .csv"),
        (["near.ckpt", "--out", "no/such/folder.csv"], "--out no/such/folder.csv: there is no such folder"),
        (["near.ckpt", "--policies", "nowhere"], "nowhere"),
        (["near.ckpt", "--discont", "1"], "the nearest: --discount"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, args: list[str], said: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert estimated(folder, args[0], *args[1:]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gipo: error: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_logs_of_another_robot_are_refused(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    from gipo.policies import Spaces

    torch.manual_seed(0)
    other = TokenPolicy(Spaces(SENSORS + 1, (-1.0,) * D, (1.0,) * D), bins=8)
    save(other, tmp_path / "other.ckpt")
    assert estimated(folder, str(tmp_path / "other.ckpt")) == 2
    assert "the logs are of another robot than the policy" in capsys.readouterr().err


def test_a_policy_that_sees_the_same_in_another_order_is_refused(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """Its sizes fit, and every ratio would be of what it never saw."""
    names = [f"s{i}" for i in reversed(range(SENSORS))]
    save(make_policy(), tmp_path / "turned.ckpt", interface={"observation_names": names})
    assert estimated(folder, str(tmp_path / "turned.ckpt")) == 2
    printed = capsys.readouterr()
    assert "of another robot than the policy is for: its observation_names is ('s2', 's1', 's0')" in printed.err
    assert not printed.out


def test_a_policy_of_another_kind_is_refused(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    save(make_policy(GaussianPolicy), tmp_path / "gaussian.ckpt")
    assert estimated(folder, str(tmp_path / "gaussian.ckpt")) == 2
    assert "gaussian.ckpt holds a GaussianPolicy of 2: its ratio to them is of other" in capsys.readouterr().err
    torch.manual_seed(0)
    save(TokenPolicy(SPACES, bins=11), tmp_path / "bins.ckpt")
    assert estimated(folder, str(tmp_path / "bins.ckpt")) == 2
    assert "the logs are of token policies of 8 parameters a dimension, and" in capsys.readouterr().err


@pytest.mark.parametrize("entry", ["logs", "logs_before"])
def test_logs_that_the_policy_learned_from_are_told(entry: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """By their session, as labels that came since change the file; what a policy was fitted to speaks for it."""
    log = folder / "robot" / "a.mcap"
    session = read_log(log).header.session
    for one, several in ((session, []), (None, ["e" * 32, session])):  # several are those of an export
        learned = dataclasses.asdict(LearnedLog(one, "f" * 64, [], 0, several))
        save(moved(make_policy(), 0.25), tmp_path / "fitted.ckpt", **{entry: [learned]})
        assert estimated(folder, str(tmp_path / "fitted.ckpt")) == 0
        told = f"gipo: note: the policy learned from {log}, and estimates from that are too good; name other logs"
        assert told in capsys.readouterr().err
    assert estimated(folder, str(folder / "near.ckpt")) == 0
    assert "learned from" not in capsys.readouterr().err


def test_a_critic_that_saw_more_than_the_logs_hold_is_not_asked(folder: Path, tmp_path: Path) -> None:
    policy = make_policy()
    policy.see_privileged(5)
    save(policy, tmp_path / "privileged.ckpt")
    assert estimated(folder, str(tmp_path / "privileged.ckpt")) == 0


def test_logs_that_hold_no_log_probs_are_refused(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    data = write_demonstrations(tmp_path / "data", lambda seen: seen[:, :D])
    with pytest.raises(SystemExit, match="2"):
        main(["estimate", str(folder / "near.ckpt"), str(data)])
    assert "do not hold log-probs of who acted" in capsys.readouterr().err


def test_logs_whose_artifact_is_elsewhere_name_our_options(
    folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = shutil.copy(folder / "robot" / "a.mcap", tmp_path / "a.mcap")
    with pytest.raises(SystemExit, match="2"):
        main(["estimate", str(folder / "near.ckpt"), str(log)])
    assert "in --policies, or trust the source with --audit 0" in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(log))
    with pytest.raises(SystemExit, match="2"):
        main(["estimate", str(folder / "near.ckpt"), str(log), "--audit", "0"])
    assert "name another folder with XDG_CACHE_HOME" in capsys.readouterr().err
    monkeypatch.undo()
    main(["estimate", str(folder / "near.ckpt"), str(log), "--audit", "0"])


def test_an_episode_that_is_bad_is_left_out_as_it_is_said(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    def spoil(episode: int, rows: list[Step]) -> None:
        judged(episode, rows)
        if episode == 3:
            rows[5].reward = 1e39

    log = Robot(folder / "robot").log(tmp_path / "bad.mcap", (STEPS,) * 30, 0, spoil)
    command = ["estimate", str(folder / "near.ckpt"), str(log), "--policies", str(folder / "robot")]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    said = capsys.readouterr().err
    assert "episode 3, step 5: reward is not finite; `gipo-robot label --discard` leaves one of a log out\n" in said
    assert robot_main(["label", str(log), "--episode", "3", "--discard"]) == 0
    with contextlib.suppress(SystemExit):
        main(command)
    assert "29 episodes of" in capsys.readouterr().out


def test_episodes_of_which_the_log_does_not_have_the_end_are_left_out(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    def cut(episode: int, rows: list[Step]) -> None:
        judged(episode, rows)
        if episode % 2:
            del rows[-3:]

    log = Robot(folder / "robot").log(tmp_path / "cut.mcap", (STEPS,) * 30, 0, cut)
    with contextlib.suppress(SystemExit):
        main(["estimate", str(folder / "near.ckpt"), str(log), "--policies", str(folder / "robot")])
    printed = capsys.readouterr().out
    assert printed.startswith(f"15 episodes of {15 * STEPS} decisions by policy ")
    assert "left out: 15 episodes that the logs have only in part" in printed


def test_a_session_that_was_run_again_tells_no_more(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    policy, said = [OnnxPolicy.load(folder / "robot" / "policy.onnx")], []
    logs = [write_log(tmp_path / name, policy, (STEPS,) * 30, 0, arm(), judged, noise="0 ") for name in ("a", "b")]
    for some in (logs[:1], logs):
        main(["estimate", str(folder / "near.ckpt"), *map(str, some), "--policies", str(folder / "robot")])
        said.append(capsys.readouterr().out)
    left = "left out: 30 episodes that were driven again with the same noise\n"
    assert left in said[1]
    assert said[1].replace(left, "") == said[0]


def test_logs_without_outcome_or_reward_have_nothing_to_estimate(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    def idle(episode: int, rows: list[Step]) -> None:
        rows[:] = [dataclasses.replace(row, reward=0.0) for row in rows]

    Robot(folder / "robot").log(tmp_path / "idle.mcap", (STEPS,) * 12, 0, idle)
    with pytest.raises(SystemExit, match="2"):
        main(["estimate", str(folder / "near.ckpt"), str(tmp_path / "idle.mcap"), "--policies", str(folder / "robot")])
    assert "there is nothing to estimate: every reward is 0" in capsys.readouterr().err


def test_help_teaches(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "--help"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "gipo estimate runs/logs-0/checkpoints/last.ckpt apart/" in printed
    assert np.all([name in printed for name in ("--discount", "--effective", "--policies", "--out", "exit code 0")])
