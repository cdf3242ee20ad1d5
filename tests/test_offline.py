"""Post-training on logs by the command line: what it starts from, how it goes on, what it refuses."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.learning.value_scale import Expectile
from gipo.module import GIPOModule
from gipo.policies import GaussianPolicy
from robots.log import Step, append_label, read_log
from tests.crash import crash
from tests.datamodules.ingest.foreign import buffer, write_collected
from tests.fingerprint import fingerprints
from tests.offline import BOUNDS, SENSORS, D, Robot, fit_args, make_policy, post_train_args, save, write_demonstrations

pytestmark = pytest.mark.usefixtures("no_plot")
Capture = pytest.CaptureFixture[str]
State = dict[str, torch.Tensor]


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def run(args: list[str], folder: Path) -> dict[str, str]:
    main(args)
    return fingerprints(last(folder))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The module's state before the first training step of every run that follows."""
    found: list[State] = []
    begin = GIPOModule.on_train_start

    def recording(self: GIPOModule) -> None:
        found.append({name: tensor.clone() for name, tensor in self.state_dict().items()})
        begin(self)

    monkeypatch.setattr(GIPOModule, "on_train_start", recording)
    return found


def refused(capsys: Capture, args: list[str], folder: Path) -> str:
    """The command exits with 2 after one line of error, and has not touched the folder."""
    before = sorted(folder.rglob("*")) if folder.exists() else None
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert (sorted(folder.rglob("*")) if folder.exists() else None) == before
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gipo: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data__sampler": "torchrl.data.StalenessAwareSampler"}, "another data.sampler; resume with that one"),
        ({"data__human_share": 0.5}, "needs steps that are a person's; among those to learn from there are none"),
    ],
)
def test_a_refused_resume_leaves_the_run_as_it_was(
    more: dict[str, object], words: str, robot: Robot, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    main(post_train_args(folder, robot, data__iterations=1))
    before = (folder / "config.yaml").read_bytes()
    again = {"ckpt_path": last(folder), "data__iterations": 2}
    assert words in refused(capsys, post_train_args(folder, robot, **again, **more), folder)
    assert (folder / "config.yaml").read_bytes() == before
    main(["fit", f"--config={folder}/config.yaml", f"--ckpt_path={last(folder)}", "--data.iterations=2"])


def assert_state(state: State, checkpoint: Path) -> None:
    """Weights of actor and critic, normaliser and version are those of the checkpoint, bit for bit."""
    policy = policy_from(load_checkpoint(checkpoint)).state_dict()
    assert {"version", "normaliser.mean", "normaliser.count", "network.critic.0.weight"} <= set(policy)
    for name, tensor in policy.items():
        assert torch.equal(state[f"policy.{name}"], tensor), name


def test_a_run_starts_from_the_checkpoint_and_goes_on_without_it(
    robot: Robot, started: list[State], tmp_path: Path
) -> None:
    init = Path(shutil.copy(robot.checkpoint, tmp_path / "init.ckpt"))
    args = post_train_args(tmp_path / "run", robot, model__init_from=init)
    crash(args, 2)
    assert_state(started[0], robot.checkpoint)
    init.unlink()
    saved = load_checkpoint(last(tmp_path / "run"))
    main([*args, f"--ckpt_path={last(tmp_path / 'run')}"])
    for name, tensor in saved["state_dict"].items():
        assert torch.equal(started[1][name], tensor), name
    assert int(started[1]["policy.version"]) == 7 + 2
    assert (
        load_checkpoint(last(tmp_path / "run"))["gipo"]["init_from"] == load_checkpoint(robot.checkpoint)["gipo"]["id"]
    )


def test_a_policy_to_start_from_that_is_not_there_is_refused(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    args = post_train_args(tmp_path / "run", robot, model__init_from=tmp_path / "none.ckpt")
    assert "no checkpoint at" in refused(capsys, args, tmp_path / "run")


def test_the_critic_warms_up_alone(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    main(post_train_args(tmp_path / "run", robot, model__critic_warmup=4))
    assert (
        "gipo: note: the policy stays as it is: the critic learns alone for model.critic_warmup=4 iterations, and this "
        "run ends with iteration 4; raise data.iterations"
    ) in capsys.readouterr().err
    before, after = (load_checkpoint(path)["state_dict"] for path in (robot.checkpoint, last(tmp_path / "run")))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".critic." in name}  # neither actor, normaliser nor version
    main(post_train_args(tmp_path / "two", robot, model__critic_warmup=3))
    assert "stays as it is" not in capsys.readouterr().err
    after = load_checkpoint(last(tmp_path / "two"))["state_dict"]
    assert int(after["policy.version"]) == 7 + 1
    assert not torch.equal(before["policy.network.actor.0.weight"], after["policy.network.actor.0.weight"])


SETTINGS: dict[str, dict[str, object]] = {
    "critic warm-up, refreshed now and then": {"model__critic_warmup": 1, "data__refresh_every": 2},
    "staleness-aware V-trace with evaluation": {
        "data__sampler": "torchrl.data.replay_buffers.StalenessAwareSampler",
        "data__estimator": "datamodules.advantages.VTrace",
        "data__task": "Tiny-v0",
        "data__evaluation__episodes": 2,
        "data__evaluation__num_envs": 2,
        "trainer__check_val_every_n_epoch": 3,
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_crashed_run_resumes_bit_for_bit(name: str, robot: Robot, tmp_path: Path) -> None:
    def args(folder: str) -> list[str]:
        options = {"data__iterations": 6, "checkpoint__every": 2, **SETTINGS[name]}
        return post_train_args(tmp_path / folder, robot, **options)

    whole = run(args("whole"), tmp_path / "whole")
    crash(args("again"), 5)
    assert fingerprints(last(tmp_path / "again")) != whole
    assert run([*args("again"), f"--ckpt_path={last(tmp_path / 'again')}"], tmp_path / "again") == whole


def test_a_new_policy_on_modelled_behaviour_resumes_bit_for_bit(tmp_path: Path, capsys: Capture) -> None:
    source = write_demonstrations(tmp_path / "theirs", lambda seen: 0.9 * seen[:, :2])

    def args(folder: str) -> list[str]:
        return fit_args(
            tmp_path / folder,
            source,
            **BOUNDS,
            model__policy="gipo.policies.GaussianPolicy",
            model__objective="GIPO",
            data__behaviour__epochs=3,
        )

    whole = run(args("whole"), tmp_path / "whole")
    said = capsys.readouterr()
    assert "gipo: behaviour model: " in said.err
    assert ["unknown", "–", "–"] in [line.split()[:3] for line in said.out.splitlines()]
    crash(args("again"), 2)
    assert run([*args("again"), f"--ckpt_path={last(tmp_path / 'again')}"], tmp_path / "again") == whole
    normaliser = policy_from(load_checkpoint(last(tmp_path / "whole"))).normaliser
    assert normaliser is not None
    assert int(normaliser.count) == 12 * 39  # the last step of an episode has no next observation
    with open(tmp_path / "whole" / "csv" / "version_0" / "metrics.csv") as file:
        logged = [row for row in csv.DictReader(file) if row["kl"]]
    assert {row["staleness/unknown_share"] for row in logged} == {"1.0"}
    assert not any(name.startswith("staleness/age") for name in logged[0])


def test_data_of_an_unknown_age_is_refused_by_an_objective_that_reads_ages(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.replay.logs.complete", None)  # no model is fitted for it first
    source = write_demonstrations(tmp_path / "theirs", lambda seen: 0.9 * seen[:, :2])
    args = fit_args(tmp_path / "run", source, **BOUNDS, model__objective="AgeAwareGIPO", data__behaviour__epochs=3)
    error = refused(capsys, args, tmp_path / "run")
    assert "model.objective=AgeAwareGIPO needs the age of the data in policy versions" in error
    assert "of these logs 468 of 468 transitions do not. Choose another, such as --model.objective=GIPO" in error


def test_another_seed_is_another_run(robot: Robot, tmp_path: Path) -> None:
    one = run(post_train_args(tmp_path / "one", robot), tmp_path / "one")
    two = run(post_train_args(tmp_path / "two", robot, seed_everything=8), tmp_path / "two")
    assert one["data/key"] == two["data/key"]
    assert one["state_dict"] != two["state_dict"]


def test_steps_a_person_chose_move_no_actor(robot: Robot, tmp_path: Path) -> None:
    def hold(episode: int, rows: list[Step]) -> None:
        rows[:] = [replace(row, valid=row.valid and row.step % 3 > 0) for row in rows]

    def other(episode: int, rows: list[Step]) -> None:
        hold(episode, rows)
        rng = np.random.default_rng(1)
        for index, row in enumerate(rows):
            if not row.valid:
                rows[index] = replace(
                    row, latent=rng.integers(0, 8, 2), action=-row.action, log_prob=row.log_prob - 3, policy_version=0
                )

    weights = []
    for name, change in (("held", hold), ("other", other)):
        log = robot.log(tmp_path / f"{name}.mcap", (30, 24), seed=4, change=change)
        options = {"model__init_from": robot.checkpoint, "data__ingest__policies": robot.folder}
        main(fit_args(tmp_path / name, log, **options))
        weights.append(load_checkpoint(last(tmp_path / name))["state_dict"])
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key]), key
    assert not torch.equal(weights[0]["policy.network.actor.0.weight"], make_policy().network.actor[0].weight)  # type: ignore[index]


def test_the_staleness_report_is_printed_and_kept(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    newer = save(make_policy(version=12, gain=20.0), tmp_path / "newer.ckpt")
    main(post_train_args(tmp_path / "run", robot, model__init_from=newer))
    words = capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "run" / "staleness.csv").open())
    assert (row["version"], row["age"], row["steps"]) == ("7", "5", "168")
    assert 0 < float(row["ess"]) < 1
    assert f"168 valid steps, effective sample size {float(row['ess']):.2f}" in words
    assert "staleness.csv" in words.splitlines()[-1]


def test_what_a_checkpoint_says_of_its_logs(robot: Robot, tmp_path: Path) -> None:
    main(post_train_args(tmp_path / "run", robot))
    recorded = load_checkpoint(last(tmp_path / "run"))["gipo"]
    policy_id = recorded["parent"]
    assert [each["policy_ids"] for each in recorded["logs"]] == [[policy_id]] * 2
    assert [each["steps"] for each in recorded["logs"]] == [84, 84]  # the valid ones
    assert recorded["task"] == "fake"
    assert recorded["interface"]["control_rate_hz"] == 80.0


def test_what_a_policys_numbers_mean_is_kept_where_a_dataset_does_not_say_it(robot: Robot, tmp_path: Path) -> None:
    rng, infinite = np.random.default_rng(0), np.full(SENSORS, np.inf, np.float32)
    episodes = [
        buffer(9, index, observations=rng.normal(size=(10, SENSORS)), actions=rng.uniform(-1, 1, (9, D)))
        for index in range(2)
    ]
    spaces = {"observation_space": Box(-infinite, infinite), "action_space": Box(-1.0, 1.0, (D,))}
    nameless = write_collected(tmp_path, episodes, **spaces)
    options = {"model__init_from": robot.checkpoint, "model__objective": "BehaviourCloning", "model__kl_coef": 0}
    main(fit_args(tmp_path / "run", nameless, data__iterations=1, **options))
    main(fit_args(tmp_path / "run", nameless, data__iterations=2, ckpt_path=last(tmp_path / "run"), **options))
    known = load_checkpoint(robot.checkpoint)["gipo"]["interface"]
    assert load_checkpoint(last(tmp_path / "run"))["gipo"]["interface"] == known


def test_a_reward_of_ones_own_needs_no_annotation(
    robot: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rewards_of_test.py").write_text("def seven(columns, success):\n    return columns['step'] * 0 + 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"data__ingest__reward": "rewards_of_test.seven", "data__iterations": 1, "data__reward_scale": 1}
    gae = {"data__estimator__gamma": 0, "data__estimator__lam": 0}
    main(post_train_args(tmp_path / "run", robot, data__estimator="datamodules.advantages.GAE", **options, **gae))
    target = load_checkpoint(last(tmp_path / "run"))["OfflineDataModule"]["replay"]["value_target"]
    assert (target == 7).all()


REFUSALS: dict[str, tuple[dict[str, object], str]] = {
    "other bins": ({"model__policy": "TokenPolicy", "model__policy__bins": 9}, "another policy"),
    "too little left": (
        {"data__min_ess": 0.99},
        r"effective sample size of these logs is 0\.\d+ .* below data\.min_ess",
    ),
    "a share above one": ({"data__min_ess": 1.5}, r"data\.min_ess must lie in \[0, 1\]"),
    "no artifact": ({"data__ingest__policies": "."}, "no artifact of policy"),
    "one bound": ({"data__action_low": "[-1,-1]"}, "data.action_low and data.action_high go together"),
    "other bounds": ({"data__action_low": "[-2,-1]", "data__action_high": "[1,1]"}, "another robot.*action_low"),
    "bounds of another size": ({"data__action_low": "[-1]", "data__action_high": "[1]"}, "need 2 numbers each"),
    "an exact anchor": ({"model__kl_exact": "true"}, "kl_exact=true needs the behaviour distribution"),
    "no sources": ({"data__logs": "[]"}, "names no source"),
    "nothing there": ({"data__logs": "nowhere"}, "nowhere"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_data_that_cannot_support_an_update_is_refused(
    name: str, robot: Robot, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options, reason = REFUSALS[name]
    far = save(make_policy(gain=60.0), tmp_path / "far.ckpt")
    args = post_train_args(tmp_path / "run", robot, **{"model__init_from": far, **options})
    if "data__logs" in options:
        args = [*args, f"--data.logs={options['data__logs']}"]
    error = refused(capsys, args, tmp_path / "run")
    assert re.search(reason, error), error


@pytest.mark.parametrize(
    ("interface", "reason"),
    [
        ({"action_names": ["y", "x"]}, "action_names is .*'y', 'x'.* against"),
        ({"control_rate_hz": 40.0}, r"control_rate_hz is 40\.0 against 80\.0"),
        ({"observation_units": ["cm", "m", "m"]}, "observation_units"),
    ],
)
def test_logs_of_another_robot_are_refused(
    interface: dict[str, object], reason: str, robot: Robot, tmp_path: Path, capsys: Capture
) -> None:
    known = load_checkpoint(robot.checkpoint)["gipo"]["interface"]
    other = save(make_policy(), tmp_path / "other.ckpt", interface=known | interface)
    error = refused(capsys, post_train_args(tmp_path / "run", robot, model__init_from=other), tmp_path / "run")
    assert "the logs are of another robot than the policy to be trained is for" in error
    assert re.search(reason, error), error


def test_a_policy_of_another_kind_than_acted_is_refused_and_can_be_cloned(
    robot: Robot, tmp_path: Path, capsys: Capture
) -> None:
    args = fit_args(tmp_path / "run", *robot.logs, model__policy="gipo.policies.GaussianPolicy")
    assert "another kind of policy than the GaussianPolicy" in refused(capsys, args, tmp_path / "run")
    main([*args, "--model.objective=BehaviourCloning", "--model.kl_coef=0"])
    assert isinstance(policy_from(load_checkpoint(last(tmp_path / "run"))), GaussianPolicy)
    assert not (tmp_path / "run" / "staleness.csv").exists()


def test_a_clone_of_what_no_policy_sampled_is_refused(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    """As of `gipo-robot run --deterministic`: the run would go through, and leave every weight as it was."""

    def held(episode: int, rows: list[Step]) -> None:
        rows[:] = [replace(row, valid=False) for row in rows]

    log = robot.log(tmp_path / "held.mcap", [12, 12], 3, held)
    args = fit_args(tmp_path / "run", log, model__objective="BehaviourCloning", model__kl_coef=0,
                    data__ingest__policies=robot.folder)  # fmt: skip
    assert "no step is valid: the policy chose no action" in refused(capsys, args, tmp_path / "run")


def test_demonstrations_need_a_model_of_who_acted(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    source = write_demonstrations(tmp_path / "theirs", lambda seen: seen[:, :2])
    args = fit_args(tmp_path / "run", source, **BOUNDS)
    assert "hold no behaviour log-probs" in refused(capsys, args, tmp_path / "run")
    assert "do not say the bounds" in refused(capsys, fit_args(tmp_path / "run", source), tmp_path / "run")
    args = fit_args(tmp_path / "run", source, model__init_from=robot.checkpoint)  # whose policy says them
    assert "hold no behaviour log-probs" in refused(capsys, args, tmp_path / "run")


def test_other_logs_are_no_way_to_resume(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    args = post_train_args(tmp_path / "run", robot, data__iterations=1)
    main(args)
    resumed = [*args, f"--ckpt_path={last(tmp_path / 'run')}"]
    error = refused(capsys, [*resumed, f"--data.logs={json.dumps([str(robot.logs[0])])}"], tmp_path / "run")
    assert "trained on other logs than data.logs" in error
    args = post_train_args(tmp_path / "elsewhere", robot, data__iterations=1)
    error = refused(capsys, [*args, f"--ckpt_path={robot.checkpoint}"], tmp_path / "elsewhere")
    assert "no training state of logs to resume from: key, iteration, replay" in error
    assert "--model.init_from" in error


def test_evaluation_without_a_simulator_is_refused(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    args = post_train_args(tmp_path / "run", robot, command="validate", checkpoint__every=None)
    error = refused(capsys, [*args, f"--ckpt_path={robot.checkpoint}"], tmp_path / "run")
    assert "evaluation needs a simulator: set data.task" in error


def test_a_task_in_which_the_policy_could_not_act_is_refused_before_it_learns(
    robot: Robot, tmp_path: Path, capsys: Capture
) -> None:
    args = post_train_args(tmp_path / "run", robot, data__task="gymnasium:Pendulum-v1", checkpoint__every=None)
    error = refused(capsys, args, tmp_path / "run")
    assert "data.task=gymnasium:Pendulum-v1 cannot evaluate a policy for these logs: decision (1,) there" in error


def test_sparse_success_is_reward_enough(robot: Robot, tmp_path: Path) -> None:
    log = robot.log(tmp_path / "a.mcap", (10, 12, 8), seed=5)  # unknown, success (terminated), failure
    append_label(log, read_log(log).header.session, 0, success=False, reward=None)
    options = {
        "model__init_from": robot.checkpoint, "data__ingest__policies": robot.folder, "data__reward_scale": 1,
        "data__ingest__reward": "datamodules.ingest.rewards.success", "data__iterations": 1,
        "data__estimator": "datamodules.advantages.GAE", "data__estimator__gamma": 1, "data__estimator__lam": 1,
    }  # fmt: skip
    main(fit_args(tmp_path / "run", log, **options))
    target = load_checkpoint(last(tmp_path / "run"))["OfflineDataModule"]["replay"]["value_target"]
    # γ = λ = 1: the sum of the rewards to come, and the critic's word where an episode was cut.
    assert torch.allclose(target[10:22], torch.ones(12), atol=1e-4)
    for part in (target[:10], target[22:]):
        assert torch.allclose(part, part[-1:].expand_as(part), atol=1e-4)
        assert abs(float(part[0]) - 1) > 0.01


@pytest.mark.parametrize("rival", ["bc", "awr", "iql"])
def test_a_rival_learns_from_the_same_logs(rival: str, robot: Robot, tmp_path: Path) -> None:
    log = robot.log(tmp_path / "a.mcap", (10, 12, 8), seed=5)  # unknown, success (terminated), failure
    options = {"model__init_from": robot.checkpoint, "data__ingest__policies": robot.folder, "model__critic_warmup": 0}
    args = fit_args(tmp_path / "run", log, config="post_train.yaml", data__iterations=1, **options)
    main([*args, f"--config=post_train_{rival}.yaml"])
    found = load_checkpoint(last(tmp_path / "run"))
    after, before = policy_from(found), policy_from(load_checkpoint(robot.checkpoint))
    assert any((a != b).any() for a, b in zip(after.actor_parameters(), before.actor_parameters(), strict=True))
    target = found["OfflineDataModule"]["replay"]["value_target"]
    assert len(target) == (12 if rival == "bc" else 30)
    learned = read_log(log).episodes[1:2] if rival == "bc" else read_log(log).episodes
    valid = sum(int(episode.transitions()["valid"].sum()) for episode in learned)
    assert [each["steps"] for each in found["gipo"]["logs"]] == [valid]  # which a lineage says
    scale = after.value_scale
    assert isinstance(scale, Expectile) == (rival == "iql")
    if rival == "iql":
        assert scale.config() == {"tau": 0.7}


def test_successes_alone_need_a_success(robot: Robot, tmp_path: Path, capsys: Capture) -> None:
    log = robot.log(tmp_path / "a.mcap", (10,), seed=5)
    options = {"model__init_from": robot.checkpoint, "data__ingest__policies": robot.folder}
    with pytest.raises(SystemExit, match="2"):
        main(fit_args(tmp_path / "run", log, config="post_train_bc.yaml", **options))
    said = capsys.readouterr().err
    assert (
        "no episode of the logs is known to have succeeded; `gipo-robot label` says it of a log, next.success" in said
    )


@pytest.mark.parametrize("family", ["TokenPolicy", "GaussianPolicy"])
def test_cloning_recovers_what_the_demonstrator_does(family: str, tmp_path: Path) -> None:
    def script(seen: np.ndarray) -> np.ndarray:
        return np.stack((0.8 * seen[:, 0], np.sign(seen[:, 1]) * 0.5), 1)

    source = write_demonstrations(tmp_path / "theirs", script)
    args = fit_args(
        tmp_path / "run", source, **BOUNDS, config="bc.yaml", model__policy=f"gipo.policies.{family}",
        data__iterations=20, data__rounds=10, data__batch=64, checkpoint__every=20, model__policy_lr=1e-2,
        model__policy__network="gipo.networks.SeparateNetworks", model__policy__network__hidden="[32]",
        data_module=None,
    )  # fmt: skip
    if family == "TokenPolicy":
        args = [*args, "--model.policy.bins=21"]
    main(args)
    policy = policy_from(load_checkpoint(last(tmp_path / "run")))
    seen = np.random.default_rng(9).uniform(-1, 1, (200, 3)).astype(np.float32)
    with torch.no_grad():
        done = policy.to_env(policy.mode(policy.params(torch.from_numpy(seen)))).numpy()
    error = np.abs(done - script(seen)).mean(0)
    assert error[0] < 0.1
    assert error[1] < 0.15
