"""Batches of logs: the same from every kind of source, from nothing but valid memory, and exactly as many as asked."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.data.replay_buffers import RandomSampler, SamplerWithoutReplacement

from datamodules.advantages import GAE, VTrace
from datamodules.base import PolicyDataModule
from datamodules.ingest import IngestOptions
from datamodules.offline import OfflineDataModule
from datamodules.online import OnlineDataModule
from datamodules.options import CollectorOptions, EvaluationOptions
from datamodules.replay.behaviour import BehaviourOptions
from datamodules.replay.ring import LEARNER_KEYS
from gipo.common.errors import UserError
from gipo.objectives import GIPO, BehaviourCloning, Objective
from gipo.policies import Policy
from robots.review.export import export
from tests.offline import SPACES, Robot, make_policy


def attach(data: PolicyDataModule, policy: Policy, objective: Objective = GIPO()) -> None:  # noqa: B008 - frozen
    """As a trainer that fits `policy` would."""
    module = SimpleNamespace(policy=policy, objective=objective, kl_coef=0.0, critic_warmup=0)
    trainer = SimpleNamespace(
        lightning_module=module, state=SimpleNamespace(fn="fit"), current_epoch=0, num_devices=1, num_nodes=1
    )
    data.trainer = trainer  # type: ignore[assignment]


def batches(data: PolicyDataModule, count: int, policy: Policy) -> list[TensorDict]:
    """Some iterations, between which the critic changes."""
    attach(data, policy)
    found = []
    for _ in range(count):
        found += list(data.train_dataloader())
        with torch.no_grad():
            for parameter in policy.critic_parameters():
                parameter *= 1.1
    return found


def offline(robot: Robot, *sources: Path, **options: Any) -> OfflineDataModule:
    chosen = {"rounds": 2, "batch": 16, "seed": 3, **options}
    logs = [str(source) for source in (sources or robot.logs)]
    return OfflineDataModule(logs, ingest=IngestOptions(policies=robot.folder, workers=1), **chosen)


def test_ratios_are_read_by_the_estimator_too(robot: Robot) -> None:
    """V-trace on zeros in their place would learn nothing, and say nothing."""
    for estimator, reads in ((GAE(), False), (VTrace(), True)):
        data = offline(robot, estimator=estimator)
        attach(data, make_policy(), BehaviourCloning())
        assert data.reads_behaviour() is reads
        other = SimpleNamespace(objective=GIPO(), kl_coef=0.0)
        assert data.reads_behaviour(other)


@pytest.mark.parametrize(("task", "told"), [(None, []), ("Pendulum-v1", ["put it there"])])
def test_a_run_notes_which_task_its_logs_are_of(task: str | None, told: list[str], robot: Robot) -> None:
    found = offline(robot, task=task).notes(10)
    assert [note for note in found if "the logs are of" in note] == [
        f"the logs are of {each}; the policy is evaluated on data.task={task}" for each in told
    ]


def test_every_route_gives_equal_batches(robot: Robot, tmp_path: Path) -> None:
    expected = batches(offline(robot), 3, make_policy())
    assert not torch.equal(expected[0]["advantage"], expected[1]["advantage"])
    for kind in ("lerobot", "minari"):
        export(robot.logs, kind, tmp_path / kind)
        for mine, theirs in zip(expected, batches(offline(robot, tmp_path / kind), 3, make_policy()), strict=True):
            assert set(mine.keys()) == set(theirs.keys()) == set(LEARNER_KEYS)
            for key in LEARNER_KEYS:
                assert (mine[key].dtype, mine[key].shape) == (theirs[key].dtype, theirs[key].shape)
                assert torch.equal(mine[key], theirs[key]), (kind, key)


def test_batches_hold_what_was_logged(robot: Robot) -> None:
    data = offline(robot)
    found = batches(data, 1, make_policy())[0]
    frames = data.logs.store.frames
    rows = {tuple(row.tolist()): index for index, row in enumerate(frames["observation"])}
    index = torch.tensor([rows[tuple(row.tolist())] for row in found["observation"].flatten(0, 1)])
    for key in ("latent", "log_prob", "policy_version", "valid", "source"):
        assert torch.equal(found[key].flatten(0, 1), frames[key][index]), key
    assert found.shape == (2, 16)
    assert 0 < int((~found["valid"]).sum()) < 32  # steps while the policy was given control
    assert torch.equal(found["source"], torch.where(found["valid"], 0, 2))


def test_advantages_are_recomputed_when_due(robot: Robot) -> None:
    data = offline(robot, refresh_every=2)
    policy, seen = make_policy(), []
    attach(data, policy)
    for _ in range(4):
        next(iter(data.train_dataloader()))
        assert data._replay is not None
        seen.append(data._replay.state_dict()["value_target"].clone())
        with torch.no_grad():
            policy.critic_parameters()[-1].add_(1.0)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[2], seen[3])


def test_the_store_is_never_written_to(robot: Robot) -> None:
    data = offline(robot)
    before = copy.deepcopy(data.logs.store.frames.contiguous())
    batches(data, 2, make_policy())
    for key in before.keys(True, True):
        assert torch.equal(before[key], data.logs.store.frames[key]), key


def test_a_new_policy_takes_the_moments_of_the_logs_and_an_old_one_keeps_its_own(robot: Robot) -> None:
    old, new = make_policy(), make_policy()
    assert old.normaliser is not None
    assert new.normaliser is not None
    kept = copy.deepcopy(old.normaliser.state_dict())
    for name in new.normaliser.state_dict():
        getattr(new.normaliser, name).zero_()
    batches(offline(robot), 1, old)
    data = offline(robot)
    batches(data, 2, new)
    assert all(torch.equal(kept[name], value) for name, value in old.normaliser.state_dict().items())
    observation = data.logs.store.frames["observation"].double()
    assert int(new.normaliser.count) == len(observation)  # once, not at every iteration
    assert torch.allclose(new.normaliser.mean, observation.mean(0))
    assert torch.allclose(new.normaliser.scale(), observation.std(0, correction=0))


def test_cloning_asks_for_no_log_probs(robot: Robot) -> None:
    data = offline(robot)
    attach(data, make_policy(), BehaviourCloning())
    found = next(iter(data.train_dataloader()))
    assert torch.isfinite(found["log_prob"]).all()


SIZES = {"iterations": 0, "rounds": 0, "batch": -1, "refresh_every": 0, "min_ess": 1.5, "seed": -1, "reward_scale": 0,
         "human_share": 1.5}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_make_no_sense_are_refused(name: str, robot: Robot) -> None:
    with pytest.raises(UserError, match=rf"data\.{name} must"):
        offline(robot, **{name: SIZES[name]})


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 0), ("lr", 0.0), ("batch", 0), ("holdout", 0.0), ("holdout", 1.0)]
)
def test_behaviour_options_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"data\.behaviour\.{name} must"):
        BehaviourOptions(**{name: value})  # type: ignore[arg-type]


def mixed(robot: Robot, **options: Any) -> OnlineDataModule:
    chosen: dict[str, Any] = {
        "task": "Tiny-v0", "total_frames": 128, "frames_per_iteration": 32, "capacity": 96, "rounds": 3, "batch": 20,
        "collector": CollectorOptions(num_envs=4), "evaluation": EvaluationOptions(num_envs=1),
        "logs": [str(path) for path in robot.logs], "logs_share": 0.35, "seed": 3,
        "ingest": IngestOptions(policies=robot.folder, workers=1),
    }  # fmt: skip
    return OnlineDataModule(**{**chosen, **options})


def test_logs_and_collection_share_every_batch_exactly(robot: Robot) -> None:
    data = mixed(robot)
    policy = make_policy(version=9)
    attach(data, policy)
    data.setup("fit")
    for _ in range(2):
        found = next(iter(data.train_dataloader()))
        assert found.shape == (3, 20)
        logged = found["policy_version"] == 7  # as the robot logged it; what is collected is of version 9
        assert logged.sum(1).tolist() == [7, 7, 7]
        assert torch.isfinite(found["advantage"]).all()
        assert set(found["policy_version"].flatten().tolist()) == {7, 9}
    data.teardown("fit")


def test_a_checkpoint_of_both_says_the_task_and_the_logs(robot: Robot) -> None:
    data = mixed(robot)
    found = data.provenance()
    data.teardown("fit")
    assert (found["task"], found["frames"], len(found["logs"])) == ("Tiny-v0", 0, 2)


@pytest.mark.parametrize("share", [-0.1, 0.0, 0.02, 0.98, 1.0])
def test_a_mix_without_one_of_both_is_refused(share: float, robot: Robot) -> None:
    with pytest.raises(UserError, match=r"data\.logs_share=.* must leave some of both"):
        mixed(robot, logs_share=share)


def test_stored_parameters_cannot_be_mixed_with_logs(robot: Robot) -> None:
    with pytest.raises(UserError, match=r"data\.store_params=true cannot be mixed with data\.logs"):
        mixed(robot, store_params=True)


def test_logs_of_another_size_are_refused(robot: Robot) -> None:
    data = mixed(robot, task="Pendulum-v1")
    spaces = data.spaces
    with pytest.raises(UserError, match=r"another robot .* its action_size is 1 against 2"):
        data.logs.refuse_unlike(spaces)  # type: ignore[union-attr]
    data.teardown("fit")
    assert offline(robot).spaces == SPACES


def test_a_run_on_logs_counts_iterations(robot: Robot) -> None:
    data = offline(robot, iterations=7)
    assert (data.iterations, data.total, data.position) == (7, 7, 0)
    assert data.title == "180 logged steps"
    assert (data.privileged_size, data.metrics(), data.state_dict()) == (0, {}, {})
    batches(data, 2, make_policy())
    assert data.position == 2


def test_a_share_and_a_sampler_would_both_say_what_is_drawn(robot: Robot) -> None:
    with pytest.raises(UserError, match=r"data\.human_share says what is drawn, and so does data\.sampler"):
        offline(robot, human_share=0.5, sampler=RandomSampler())


def test_what_the_options_say_of_logs_reaches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("datamodules.offline.Logs", lambda *args: given.append(args))
    ingest, behaviour = IngestOptions(audit=0), BehaviourOptions()
    OfflineDataModule(
        "logs", ingest=ingest, behaviour=behaviour, action_low=[-1.0], action_high=[2.0], chunk=3, successes_only=True,
        seed=4,
    )  # fmt: skip
    assert given == [("logs", ingest, behaviour, 4, [-1.0], [2.0], 3, True)]


class Recorded:
    """Stands in for `LogReplay`, and keeps how it was made and asked."""

    made: tuple[Any, ...]

    def __init__(self, *given: Any):
        type(self).made, self.asked = given, list[Any]()

    def refresh(self, policy: Policy) -> None:
        self.asked.append("refresh")

    def sample(self, *given: int) -> TensorDict:
        self.asked.append(given)
        return TensorDict()


def test_batches_are_drawn_as_the_options_say(robot: Robot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.offline.LogReplay", Recorded)
    data = offline(robot, human_share=0.25, reward_scale=0.5, estimator=GAE(gamma=0.5))
    frames, policy = data.logs.store.frames, make_policy()
    policy.see_privileged(2)
    learned, needed = [], []
    policy.learn_privileged = learned.append  # type: ignore[method-assign]
    given = TensorDict({"observation": frames["observation"], "privileged": torch.ones(180, 2)}, batch_size=180)
    data.logs.frames = lambda _, needs: needed.append(needs) or given  # type: ignore[method-assign, func-returns-value]
    attach(data, policy, BehaviourCloning())
    data.trainer.num_devices = 2  # type: ignore[union-attr, misc]
    data.setup("fit")
    for _ in range(2):
        next(iter(data.train_dataloader()))
    assert (needed, len(learned)) == ([False], 1)
    assert Recorded.made[1:6] == (GAE(gamma=0.5), None, 0.5, 3, 0.25)
    assert data._replay.asked == ["refresh", (2, 8, 7)] * 2  # type: ignore[union-attr]
    blind = offline(robot)
    batches(blind, 1, make_policy())  # whose logs hold nothing that is privileged


def test_a_learners_part_of_a_batch_must_hold_some_of_both(robot: Robot) -> None:
    for options, said in (
        ({"batch": 15}, r"^data\.batch=15 must be a multiple of the 2 learners"),
        ({"human_share": 0.05}, r"^data\.human_share=0\.05 makes 0 of 8 transitions of a batch persons'"),
    ):
        data = offline(robot, **options)
        attach(data, make_policy())
        data.setup("fit")  # one learner has the whole batch
        data.trainer.num_devices = 2  # type: ignore[union-attr, misc]
        data.setup("validate")
        with pytest.raises(UserError, match=said):
            data.setup("fit")


def test_a_run_on_logs_goes_on_as_it_would_have(robot: Robot) -> None:
    policy, data = make_policy(), offline(robot)
    attach(data, policy)
    next(iter(data.train_dataloader()))
    state = copy.deepcopy(data.state_dict())
    generator, expected = torch.get_rng_state(), next(iter(data.train_dataloader()))
    again = offline(robot, seed=9)
    attach(again, policy)
    again.load_state_dict(state)
    assert again.iteration == 1
    assert again.state_dict() is state, "until it has gone on"
    torch.manual_seed(99)
    found = next(iter(again.train_dataloader()))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert torch.equal(torch.get_rng_state(), generator)
    assert again.state_dict()["iteration"] == 2
    never_due = offline(robot, refresh_every=5)
    attach(never_due, make_policy(seed=1))
    never_due.load_state_dict(state)
    assert torch.equal(next(iter(never_due.train_dataloader()))["value_target"], expected["value_target"])


def test_a_state_of_other_logs_or_of_another_run_is_refused(robot: Robot) -> None:
    data = offline(robot)
    batches(data, 1, make_policy())
    state = data.state_dict()
    one = [robot.logs[0]]
    cases: list[tuple[list[Path], dict[str, Any], dict[str, Any], str]] = [
        *[
            ([], {}, {name: None}, f"no training state of logs to resume from: {name} missing; to start")
            for name in state
        ],
        (one, {}, {}, r"was trained on other logs than data\.logs"),
        ([], {}, {"others": [{}]}, "the replay of 2 learners, the run has 1"),
        ([], {"sampler": SamplerWithoutReplacement()}, {}, r"was drawn from by another data\.sampler"),
    ]
    for sources, options, changed, said in cases:
        other = offline(robot, *sources, **options)
        attach(other, make_policy())
        with pytest.raises(UserError, match=said):
            other.load_state_dict({name: value for name, value in (state | changed).items() if value is not None})


def evaluated(robot: Robot, horizon: int | None = 10, there: Any = None, logged: Any = None) -> OfflineDataModule:
    """On a task of these spaces, after logs of those."""
    data = offline(robot)
    common = {"observation_size": 3, "decision": (2,), "cameras": ("top", "wrist")}
    data.task = SimpleNamespace(  # type: ignore[assignment]
        name="there", simulator="python", horizon=horizon, spaces=lambda env: SimpleNamespace(**common | (there or {}))
    )
    data._evaluation_env = SimpleNamespace()  # type: ignore[assignment]
    data.logs = SimpleNamespace(spaces=SimpleNamespace(**common | (logged or {})))  # type: ignore[assignment]
    return data


@pytest.mark.parametrize(
    ("there", "logged", "differs"),
    [
        ({}, {}, None),
        ({"cameras": ("a", "b")}, {}, None),  # called otherwise
        ({"cameras": ()}, {"cameras": ()}, None),
        ({"cameras": ("wrist", "top")}, {}, r"cameras \('wrist', 'top'\) there, and \('top', 'wrist'\) in the logs"),
        ({"observation_size": 4}, {}, "observation_size 4 there, and 3 in the logs"),
        ({"decision": (5, 2)}, {}, r"decision \(5, 2\) there, and \(2,\) in the logs"),
        ({}, {"image": (3, 8, 8)}, r"image None there, and \(3, 8, 8\) in the logs"),
        ({"instruction_bytes": 9}, {"instruction_bytes": 8}, "instruction_bytes 9 there, and 8 in the logs"),
    ],
)
def test_a_task_in_which_the_policy_could_not_act_is_refused(
    there: Any, logged: Any, differs: str | None, robot: Robot
) -> None:
    data = evaluated(robot, there=there, logged=logged)
    if differs is None:
        data.check_evaluation()
    else:
        with pytest.raises(UserError, match=rf"^data\.task=there cannot evaluate a policy for these logs: {differs}; "):
            data.check_evaluation()


def test_a_task_without_an_end_is_refused_and_none_is_none(robot: Robot) -> None:
    with pytest.raises(UserError, match="there has no time limit, so that an evaluation episode may never end"):
        evaluated(robot, horizon=None).check_evaluation()
    offline(robot).check_evaluation()


def test_a_checkpoint_says_of_logs_what_they_say_and_else_what_the_policy_was_for(robot: Robot) -> None:
    data = offline(robot)
    attach(data, make_policy())
    module: Any = data.trainer.lightning_module  # type: ignore[union-attr]
    module.interface = {"control_rate_hz": 1.0, "action_gain": 2.0}
    found = data.provenance()
    assert found["frames"] == 180
    assert (found["interface"]["control_rate_hz"], found["interface"]["action_gain"]) == (80.0, 2.0)  # type: ignore[index, typeddict-item]
    assert "simulator" not in found
    module.interface = None
    data.task = SimpleNamespace(name="there", simulator="envpool")  # type: ignore[assignment]
    found = data.provenance()
    assert "action_gain" not in found["interface"]  # type: ignore[operator, typeddict-item]
    assert (found["task"], found["simulator"]) == ("there", "envpool")
