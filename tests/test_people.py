"""From a person who helps to a policy that has learned from it: log, audit, labels, exports, ingest, post-training."""

import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.advantages import GAE
from datamodules.ingest import IngestOptions, ingest
from datamodules.offline import OfflineDataModule
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from datamodules.replay.people_share import PeopleShare
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main as gipo
from gipo.common.errors import UserError
from robots.cli import main as gipo_robot
from robots.log import LogWriter, Session, append_label, read_log, verify
from robots.loop import ControlLoop
from robots.people.operator import Said
from robots.review.audit import audit
from robots.review.export import export
from robots.safety import Limits
from robots.session.options import Options
from tests.crash import crash
from tests.offline import Robot, arm, fit_args, make_policy
from tests.robots.builders import assert_no_limit_violated
from tests.robots.fakes import FakeRobot
from tests.robots.people.people import FakeOperator, die

pytestmark = pytest.mark.usefixtures("no_plot")
PUSH = np.array([0.9, -0.9])  # what the person does, always
STEPS, TURN = 30, range(8, 22)
CLONING = {"model__objective": "gipo.objectives.BehaviourCloning", "model__kl_coef": 0}
PERSONS = len(TURN) - 3  # of a turn, the first three are handed over


def helped(robot: Robot, path: Path, episodes: int = 3, **operator: Any) -> Path:
    """A log in which a person takes over once an episode."""
    policy, spec = OnnxPolicy.load(robot.artifact), arm(action_rate=(40.0,) * 2, action_acceleration=(4000.0,) * 2)
    writer = LogWriter(path, Session(spec.to_json(), {policy.policy_id: policy.manifest.to_json()}))
    person = FakeOperator(**{"turns": (TURN,), "push": lambda tick: PUSH, **operator})
    options = Options(steps=STEPS, engage_seconds=4 / 80, speed=50, deadline=80, max_age=80)
    loop = ControlLoop(FakeRobot(spec), policy, writer, options, operator=person)
    for episode in range(episodes):
        loop.run(episode, seed=episode)
    loop.close()
    writer.close()
    return path


def ours(robot: Robot) -> IngestOptions:
    return IngestOptions(policies=robot.folder, workers=1, audit=1.0)


def test_the_audit_holds_for_a_persons_steps_and_counts_them_apart(
    robot: Robot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = helped(robot, tmp_path / "a.mcap")
    policy = OnnxPolicy.load(robot.artifact)
    found = audit([path], {policy.policy_id: policy})
    who = (policy.policy_id, 7)
    assert found.log_prob[policy.policy_id] <= 1e-5
    assert found.action[policy.policy_id] <= 1e-6, "what the policy would have done is sampled again, too"
    assert (found.steps[who], found.others[who].tolist()) == (3 * STEPS, [3 * PERSONS, 3 * 9])
    assert gipo_robot(["audit", str(path), "--policies", str(robot.folder)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", shown[0].strip())[-2:] == ["a person's", "held"]
    assert shown[1].split()[-2:] == [str(3 * PERSONS), "27"]
    assert gipo_robot(["info", str(path)]) == 0
    head, first = (
        re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.split("\n\n")[1].splitlines()[:2]
    )
    assert first[head.index("a person's")] == str(PERSONS)


def test_a_log_prob_that_is_not_the_policys_word_on_the_persons_action_is_found(robot: Robot, tmp_path: Path) -> None:
    wrong = OnnxPolicy.judged

    def flatter(self: OnnxPolicy, decision: Any, action: np.ndarray) -> Any:
        found = wrong(self, decision, action)
        return type(found)(found.action, found.latent, found.log_prob + 0.1, found.params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxPolicy, "judged", flatter)
        path = helped(robot, tmp_path / "a.mcap")
    policy = OnnxPolicy.load(robot.artifact)
    with pytest.raises(UserError, match=r"log-probs are not reproduced to 1e-05: .*step (8|9|1[0-9]|2[01]): off by"):
        audit([path], {policy.policy_id: policy}).check()


def test_the_store_keeps_who_acted_and_leaves_persons_out_of_ratios(robot: Robot, tmp_path: Path) -> None:
    store = ingest([helped(robot, tmp_path / "a.mcap")], ours(robot))
    source, valid = store.frames["source"], store.frames["valid"]
    assert (source == 1).sum() == 3 * PERSONS
    assert (valid == (source == 0)).all()
    np.testing.assert_allclose(store.frames["action"][source == 1].numpy(), np.tile(PUSH, (3 * PERSONS, 1)), rtol=1e-6)
    assert (store.frames["log_prob"][source == 1] == 0).all()


def test_words_of_a_person_are_labels_that_later_ones_win_over_field_by_field(robot: Robot, tmp_path: Path) -> None:
    words = {5: [Said(success=False), Said(reward=2.0)], 9: [Said(discard=True)]}
    path = helped(robot, tmp_path / "a.mcap", words=words)
    first = read_log(path).episodes[0]
    assert (first.success, first.discarded, first.total) == (False, True, STEPS + 2)
    said = f"there is no complete step in {path}: episode 0 was discarded by a person; so it is with 2 more"
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        ingest([path], ours(robot))
    with pytest.raises(UserError, match=r"nothing to export; .*a\.mcap: 3 of 3 episodes are discarded$"):
        export([path], "lerobot", tmp_path / "out")
    label = ["label", str(path), "--episode"]
    assert gipo_robot([*label, "0", "--keep"]) == 0
    assert gipo_robot([*label, "1", "--keep", "--success", "--reward", "-1"]) == 0
    kept = read_log(path).episodes
    assert [each.discarded for each in kept] == [False, False, True]
    assert [each.success for each in kept] == [False, True, False]
    rewards = [each.transitions()["next_reward"] for each in kept]
    assert (rewards[0][4], rewards[0][-1]) == (3.0, 1.0), "said at tick 5, of what step 4 did"
    assert (rewards[1][4], rewards[1][-1]) == (1.0, 0.0), "the label's reward is in the place of those said"
    store = ingest([path], ours(robot))
    assert store.facts.episodes == 2
    assert any("episode 2 was discarded by a person" in note for note in store.facts.notes)
    assert store.frames["success"].unique().tolist() == [0, 1]


def test_older_readers_of_labels_see_what_they_know(robot: Robot, tmp_path: Path) -> None:
    path = helped(robot, tmp_path / "a.mcap", episodes=1)
    session = read_log(path).header.session
    append_label(path, session, 0, True, None)
    append_label(path, session, 0, None, None, True)
    plain, discarding = path.with_suffix(".labels.jsonl").read_text().splitlines()
    assert '"discard"' not in plain
    assert '"discard":true' in discarding
    (episode,) = read_log(path).episodes
    assert (episode.success, episode.discarded) == (True, True)


@pytest.mark.parametrize("kind", ["lerobot", "minari"])
def test_exports_say_who_acted_and_what_the_policy_would_have_done(robot: Robot, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow" if kind == "lerobot" else "minari")
    path = helped(robot, tmp_path / "a.mcap", words={29: [Said(discard=True)]})
    assert gipo_robot(["label", str(path), "--episode", "0", "--keep"]) == 0
    assert "1 episodes, 30 steps" in export([path], kind, tmp_path / "out")
    if kind == "lerobot":
        import pyarrow.parquet as pq

        columns = pq.read_table(tmp_path / "out" / "data" / "chunk-000" / "file-000.parquet").to_pydict()
        (episode, *_) = read_log(path).episodes
        np.testing.assert_array_equal(np.array(columns["policy.proposed_action"]), episode["proposed_action"])
        assert columns["policy.source"] == episode["source"].tolist()
    again = ingest([tmp_path / "out"], ours(robot)).frames
    once = ingest([path], ours(robot)).frames
    for key in ("source", "valid", "action", "latent"):
        assert torch.equal(again[key], once[key]), key


def test_a_torn_log_keeps_what_was_said_before(robot: Robot, tmp_path: Path) -> None:
    path = helped(robot, tmp_path / "a.mcap", words={5: [Said(success=True)]})
    whole = path.read_bytes()
    for cut in range(len(whole) // 2, len(whole), 997):
        torn = tmp_path / "torn.mcap"
        torn.write_bytes(whole[:cut])
        for episode in read_log(torn).episodes:
            assert set(episode["source"].tolist()) <= {0, 1, 2}
            episode.transitions()


# Learning from it -----------------------------------------------------------------------------------------------------


def likes(checkpoint: Path, frames: Any) -> float:
    """Mean log-prob of what the person did, nats a dimension."""
    policy = policy_from(load_checkpoint(checkpoint))
    rows = frames["source"] == 1
    with torch.no_grad():
        return float(policy.log_prob(policy.params(frames["observation"][rows]), frames["latent"][rows]).mean())


@pytest.fixture(scope="module")
def persons_log(robot: Robot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helped(robot, tmp_path_factory.mktemp("helped") / "a.mcap")


def fitted(robot: Robot, log: Path, folder: Path, **options: object) -> Path:
    gipo(fit_args(folder, log, model__init_from=robot.checkpoint, model__policy_lr=3e-3,
                  data__ingest__policies=robot.folder, **options))  # fmt: skip
    return folder / "checkpoints" / "last.ckpt"


def test_a_person_is_imitated_with_a_weight_and_the_report_counts_them_apart(
    robot: Robot, persons_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = ingest([persons_log], ours(robot)).frames
    before = likes(robot.checkpoint, frames)
    without = fitted(robot, persons_log, tmp_path / "without", model__human_coef=0)
    said = capsys.readouterr().out
    assert f"{3 * PERSONS:,} of a person ({before:.2f} nats a dimension), for the critic alone" in said
    assert "; 27 of nobody's choice, for the critic alone" in said
    assert f"{3 * (STEPS - PERSONS - 9)} valid steps" in said
    imitated = fitted(robot, persons_log, tmp_path / "with", model__human_coef=1)
    assert "imitated with weight 1" in capsys.readouterr().out
    assert likes(imitated, frames) > max(before, likes(without, frames)) + 0.2


def test_who_clones_is_told_that_persons_are_left_out(
    robot: Robot, persons_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who corrected the policy would be missed most."""
    left_out = f"{3 * PERSONS} steps of a person are nothing to the policy; --model.human_coef=1 imitates them, too\n"
    for coef in (0, 1):
        fitted(robot, persons_log, tmp_path / str(coef), model__human_coef=coef, model__objective="BehaviourCloning")
        assert (left_out in capsys.readouterr().out) == (coef == 0)


def test_with_weight_0_what_the_person_did_is_nothing_to_the_policy(robot: Robot, tmp_path: Path) -> None:
    """Only latents of persons differ between two logs; without imitation nothing else may."""
    frames = Logs([str(helped(robot, tmp_path / "a.mcap"))], ours(robot), None, 0).frames(make_policy(), True)
    turned = frames.clone()
    turned["latent"][frames["source"] == 1] = 0
    for coef, same in ((0.0, True), (0.5, False)):
        updated = [weights_after(each, coef) for each in (frames, turned)]
        assert all(torch.equal(*pair) for pair in zip(*updated, strict=True)) == same


def weights_after(frames: Any, coef: float) -> list[torch.Tensor]:
    """The actor after an iteration on batches of `frames`."""
    from tests.gipo.test_module import fit

    replay = LogReplay(frames, GAE(), seed=1)
    policy = make_policy()
    replay.refresh(policy)
    return [each.detach().clone() for each in fit_policy(fit, replay.sample(2, 64, 7), coef)]


def fit_policy(fit: Any, batch: Any, coef: float) -> list[torch.Tensor]:
    module = fit([batch], policy=lambda spaces: make_policy(), human_coef=coef)
    return list(module.policy.actor_parameters())


def test_persons_share_of_every_batch(robot: Robot, persons_log: Path, tmp_path: Path) -> None:
    frames = Logs([str(persons_log)], ours(robot), None, 0).frames(make_policy(), True)
    for share, count in ((0.25, 8), (1.0, 32), (0.0, 0)):
        replay = LogReplay(frames, GAE(), seed=3, human_share=share)
        batch = replay.sample(4, 32, 7)
        assert (batch["source"] == 1).sum(1).tolist() == [count] * 4
    state = {name: value.clone() for name, value in replay.state_dict().items() if name == "generator"}
    again = LogReplay(frames, GAE(), seed=9, human_share=0.0)
    again.load_state_dict(replay.state_dict() | state)
    assert torch.equal(again.sample(2, 8, 7)["observation"], replay.sample(2, 8, 7)["observation"])
    with pytest.raises(UserError, match=r"needs steps that are a person's; among those to learn from there are none"):
        LogReplay(frames[frames["source"] != 1], GAE(), human_share=0.5)
    for part, batch in ((0.01, 32), (0.99, 32), (0.4, 1), (0.5, 1)):
        with pytest.raises(UserError, match=rf"data.human_share={part} makes \d+ of {batch} transitions .* persons'"):
            PeopleShare.refuse_rounded(part, batch)
    for part, batch in ((0.0, 1), (1.0, 1), (0.02, 32), (0.5, 2)):
        PeopleShare.refuse_rounded(part, batch)
    with pytest.raises(UserError, match=r"needs steps that are any other's"):
        LogReplay(frames[frames["source"] == 1], GAE(), human_share=0.5)


def test_corrections_alone_teach_and_a_killed_run_goes_on_equal(
    robot: Robot, persons_log: Path, tmp_path: Path
) -> None:
    frames = ingest([persons_log], ours(robot)).frames
    options = {"data__human_share": 1, "model__human_coef": 1}
    whole = fitted(robot, persons_log, tmp_path / "whole", **options)
    assert likes(whole, frames) > likes(robot.checkpoint, frames) + 0.3
    args = fit_args(tmp_path / "cut", persons_log, model__init_from=robot.checkpoint, model__policy_lr=3e-3,
                    data__ingest__policies=robot.folder, **options)  # fmt: skip
    crash(args, 2)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    gipo(["fit", "--config", str(tmp_path / "cut" / "config.yaml"), f"--ckpt_path={last}"])
    ends = [policy_from(load_checkpoint(path)).state_dict() for path in (whole, last)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_persons_alone_teach_nothing_unless_they_are_imitated(
    robot: Robot, persons_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = fit_args(tmp_path / "run", persons_log, model__init_from=robot.checkpoint, data__human_share=1,
                    data__ingest__policies=robot.folder)  # fmt: skip
    with pytest.raises(SystemExit):
        gipo(args)
    assert "with model.human_coef=0 the policy learns nothing of it; give model.human_coef=1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


NO_SUCH_SHARE = {
    "of nobody": ((), 0.5, "data.human_share=0.5 needs steps that are a person's; among those to learn from there are"),
    "rounded": ((TURN,), 0.01, "data.human_share=0.01 makes 0 of 32 transitions of a batch persons'"),
    "of none": ((TURN,), 0, "data.human_share=0 draws nothing that persons did, and model.human_coef=1 would have it"),
}


@pytest.mark.parametrize("which", NO_SUCH_SHARE)
def test_a_share_that_logs_and_options_cannot_give_is_refused_before_the_run(
    robot: Robot, tmp_path: Path, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    turns, share, told = NO_SUCH_SHARE[which]
    log = helped(robot, tmp_path / "a.mcap", turns=turns)
    with pytest.raises(SystemExit):
        fitted(robot, log, tmp_path / "run", data__human_share=share, model__human_coef=1)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({0: True, 1: False}, "data.human_share=0.5 needs steps that are a person's; among those to learn from there"),
        ({0: False, 1: False}, "data.successes_only leaves nothing: no episode of the logs is known to have succeeded"),
    ],
)
def test_what_only_failed_episodes_hold_is_refused_before_a_run_on_successes(
    robot: Robot, tmp_path: Path, labels: dict[int, bool], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, with_person = helped(robot, tmp_path / "0.mcap", 1, turns=()), helped(robot, tmp_path / "1.mcap", 1)
    for number, log in enumerate((alone, with_person)):
        append_label(log, read_log(log).header.session, 0, labels[number], None)
    options = {"data__human_share": 0.5, "data__successes_only": True, "data__ingest__policies": robot.folder}
    with pytest.raises(SystemExit):
        gipo(fit_args(tmp_path / "run", alone, with_person, model__init_from=robot.checkpoint, **options))
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_share_and_a_sampler_are_refused_together(
    robot: Robot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sampler = "torchrl.data.StalenessAwareSampler"
    with pytest.raises(SystemExit):
        gipo(fit_args(tmp_path / "run", *robot.logs, model__init_from=robot.checkpoint, data__human_share=0.5,
                      data__sampler=sampler))  # fmt: skip
    assert "data.human_share says what is drawn, and so does data.sampler" in capsys.readouterr().err


@pytest.mark.parametrize("share", [1.5, -0.1, math.nan])
def test_a_share_that_is_none_is_refused_before_any_log_is_read(share: float) -> None:
    with pytest.raises(UserError, match=rf"data\.human_share must lie in \[0, 1\], got {share}"):
        OfflineDataModule("no/such/logs", human_share=share)


def test_logs_of_persons_alone_are_refused_with_how_to_clone_them_which_works(
    robot: Robot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = helped(robot, tmp_path / "a.mcap", turns=(range(STEPS),))
    frames = ingest([log], ours(robot)).frames
    assert not frames["valid"].any()
    advice = "what persons did, if they did, is cloned with --config bc.yaml --model.human_coef=1"
    for options in ({"model__human_coef": 1}, {"model__human_coef": 0, **CLONING}):
        with pytest.raises(SystemExit):
            fitted(robot, log, tmp_path / "refused", **options)
        assert advice in capsys.readouterr().err
    cloned = fitted(robot, log, tmp_path / "cloned", model__human_coef=1, **CLONING)
    assert likes(cloned, frames) > likes(robot.checkpoint, frames) + 0.2


# Whatever happens -----------------------------------------------------------------------------------------------------


def happenings(robot: Robot, folder: Path, count: int) -> None:
    """Random sequences of what an operator does: nothing passes the limits, and every step says who chose it."""
    policy, spec = OnnxPolicy.load(robot.artifact), arm(action_rate=(40.0,) * 2, action_acceleration=(4000.0,) * 2)
    path = folder / "a.mcap"
    writer = LogWriter(path, Session(spec.to_json(), {policy.policy_id: policy.manifest.to_json()}), capacity=10**6)
    told: list[tuple[FakeOperator, int, bool]] = []
    arm_ = FakeRobot(spec)
    for number in range(count):
        rng = random.Random(number)
        person, stop = _person(rng)
        emergency = rng.randrange(40) if rng.random() < 0.2 else 99
        deadman = lambda: arm_.tick < emergency  # noqa: E731, B023
        options = Options(steps=20, engage_seconds=rng.choice([0, 3 / 80]), speed=50, deadline=80, max_age=80,
                          end_on_label=rng.random() < 0.5, deadman=deadman)  # fmt: skip
        arm_.bus.clear()
        loop = ControlLoop(arm_, policy, writer, options, operator=person)
        result = loop.run(number, seed=number)
        loop.close()
        told.append((person, stop, result.stopped))
        commands = np.concatenate([np.zeros((1, 2)), arm_.commands])
        assert_no_limit_violated(Limits.of(spec), commands)
        if result.stopped:
            assert arm_.bus[-1][1] == "stop"
            assert len(arm_.commands) <= min(stop + 1, emergency), "held once at most, and stopped"
    writer.close()
    _check(path, policy, told)


def _person(rng: random.Random) -> tuple[FakeOperator, int]:
    """A person who takes over and hands back at random, is silent or talks, and may be gone; the tick of that."""
    cuts = sorted(rng.sample(range(22), rng.choice([0, 2, 4])))
    turns = tuple(range(first, after) for first, after in zip(cuts[::2], cuts[1::2], strict=True))
    stop = rng.randrange(20) if rng.random() < 0.2 else 99
    silent = {rng.randrange(20) for _ in range(3)}
    words = {rng.randrange(20): [Said(**rng.choice([{"success": True}, {"reward": -1.0}, {"discard": True}]))]}
    push = lambda tick: None if tick in silent else np.array([rng.uniform(-1.4, 1.4), 0.5])  # noqa: E731
    return FakeOperator(turns, push, words, {stop: die(OSError("gone"))}), stop


def _check(path: Path, policy: OnnxPolicy, told: list[tuple[FakeOperator, int, bool]]) -> None:
    assert verify(path).status == "sealed"
    episodes = {episode.number: episode for episode in read_log(path).episodes}
    for number, (person, stop, _) in enumerate(told):
        if number not in episodes:
            continue
        episode = episodes[number]
        for index, step in enumerate(episode["step"].tolist()):
            engaged = any(step in turn for turn in person.turns)
            silent = person.push(step) is None
            handed = "engage" in episode.gate.get(index, [])
            expected = 2 if handed or step == stop or (engaged and silent) else 1 if engaged else 0
            assert episode["source"][index] == expected, (number, step)
    found = audit([path], {policy.policy_id: policy})
    assert found.log_prob[policy.policy_id] <= 1e-5
    assert found.action[policy.policy_id] <= 1e-6


def test_whatever_a_person_does_limits_sources_and_audit_hold(robot: Robot, tmp_path: Path) -> None:
    happenings(robot, tmp_path, 40)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_ten_thousand_sequences(robot: Robot, tmp_path: Path) -> None:
    happenings(robot, tmp_path, 10_000)
