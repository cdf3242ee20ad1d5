"""From a robot with a camera to a policy that has learned from its logs: log, audit, ingest, post-training, export."""

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.advantages import GAE
from datamodules.ingest import IngestOptions, Store, ingest
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from datamodules.replay.sight import Sight
from datamodules.replay.values import log_ratios
from deploy.export.artifact import export
from deploy.export.checkpoint_policy import CheckpointPolicy
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.common.transition import SOURCES
from gipo.policies import Spaces, TokenPolicy
from gipo.vla.observations import VLASpaces
from robots.drivers.toy import ToyRobot
from robots.log import read_log
from robots.people.operator import Operator
from tests.crash import crash
from tests.fingerprint import fingerprints
from tests.offline import fit_args
from tests.robots.people.people import FakeOperator
from tests.sight import INSTRUCTION, TASK, Seeing, make_seeing, rows_seen, save

pytestmark = pytest.mark.usefixtures("no_plot")
CHUNK, STEPS = 4, 12


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return make_seeing(tmp_path_factory.mktemp("seeing"))


def store_of(seeing: Seeing, *logs: Path, audit: float = 1.0) -> Store:
    return ingest(logs or seeing.logs, IngestOptions(policies=seeing.folder, workers=1, audit=audit), progress=False)


def logs_of(seeing: Seeing, *paths: Path) -> Logs:
    options = IngestOptions(policies=seeing.folder, workers=1, audit=1.0)
    return Logs([str(path) for path in paths or seeing.logs], options, None, 0)


def test_the_store_gives_back_what_the_policy_saw(seeing: Seeing) -> None:
    store = store_of(seeing)
    assert store.facts.interface.image == (3, 16, 16)
    assert store.facts.interface.chunk == CHUNK
    assert store.facts.instructions == (INSTRUCTION,)
    assert store.facts.audit.steps == store.facts.steps
    assert max(store.facts.audit.largest.values()) < 1e-5
    assert store.album is not None
    frames, row = store.frames, 0
    for path in seeing.logs:
        for episode in read_log(path).episodes:
            seen = rows_seen(path, episode.number)
            for step in episode["step"].tolist():
                found = store.album[np.concatenate([frames["picture"][row], frames["next", "picture"][row]])]
                np.testing.assert_array_equal(found, np.stack([seen[step], seen[step + 1]]))
                row += 1
    assert row == store.facts.steps


def test_the_policy_that_acted_finds_no_ratio_in_its_own_logs(seeing: Seeing) -> None:
    """Log-probs of decisions made of the store's images are those that the robot logged."""
    logs = logs_of(seeing)
    policy = policy_from(load_checkpoint(seeing.checkpoint))
    frames = logs.frames(policy, needs_behaviour=True)
    x = log_ratios(policy, frames, logs.seen)
    assert x.shape == (len(frames), CHUNK, 2)
    assert frames["valid"].any()
    assert x[frames["valid"]].abs().max() < 1e-4
    assert (frames["valid"] <= frames["executed"]).all()


def test_decisions_are_valued_and_drawn_with_their_images(seeing: Seeing) -> None:
    logs = logs_of(seeing)
    policy = policy_from(load_checkpoint(seeing.checkpoint))
    replay = LogReplay(logs.frames(policy, True), GAE(), seed=3, seen=logs.seen)
    replay.refresh(policy)
    batch, again = (
        LogReplay(logs.frames(policy, True), GAE(), seed=3, seen=logs.seen).sample(2, 8, 7) for _ in range(2)
    )
    assert batch["observation", "image"].shape == (2, 8, 3, 16, 16)
    assert batch["observation", "image"].dtype == torch.uint8
    assert torch.equal(batch["observation", "image"], again["observation", "image"])
    found = replay.sample(2, 8, 7)
    assert found["advantage"].shape == (2, 8, CHUNK)
    assert found["advantage"].isfinite().all()


def person() -> Operator:
    return FakeOperator(turns=(range(2, 5), range(9, 10)), push=lambda tick: np.array([0.7, -0.7]))


def test_a_takeover_inside_a_chunk_leaves_its_steps_out_of_ratios(seeing: Seeing, tmp_path: Path) -> None:
    """Steps 2 to 4 and 9 are a person's, who hands back at 5 and 10, where the policy decides anew."""
    path = seeing.log(tmp_path / "a.mcap", episodes=1, operator=person())
    logs = logs_of(seeing, path)
    policy = policy_from(load_checkpoint(seeing.checkpoint))
    frames = logs.frames(policy, True)
    length = len(read_log(path).episodes[0])
    assert length == STEPS
    assert frames["executed"].sum(1).tolist() == [4, 1, 4, 1, 2]
    assert frames["source"].tolist() == [[0, 0, 1, 1], [1, -1, -1, -1], [0, 0, 0, 0], [1, -1, -1, -1], [0, 0, -1, -1]]
    assert torch.equal(frames["valid"], frames["source"] == 0)
    np.testing.assert_allclose(frames["action"][0, 2:].numpy(), [[0.7, -0.7]] * 2, rtol=1e-6)
    assert (frames["log_prob"][~frames["valid"]] == 0).all()
    assert log_ratios(policy, frames, logs.seen)[frames["valid"]].abs().max() < 1e-4


def test_logs_in_which_only_a_person_acted_are_learned_from_too(seeing: Seeing, tmp_path: Path) -> None:
    """The policy saw all the while, and so will who learns."""
    helper = FakeOperator(turns=(range(STEPS + 1),), push=lambda tick: np.array([0.7, -0.7]))
    path = seeing.log(tmp_path / "a.mcap", episodes=2, operator=helper)
    logs = logs_of(seeing, path)
    frames = logs.frames(policy_from(load_checkpoint(seeing.checkpoint)), True)
    assert not frames["valid"].any()
    assert (frames["source"][frames["executed"]] == SOURCES.index("person")).all()
    assert int(frames["executed"].sum()) == 2 * STEPS


def arguments(folder: Path, seeing: Seeing, *logs: Path, **options: object) -> list[str]:
    chosen = {"config": "post_train.yaml", "model__init_from": seeing.checkpoint, "model__critic_warmup": 1}
    return fit_args(folder, *(logs or seeing.logs), **{**chosen, "data__batch": 8, **options})


def test_a_policy_that_sees_is_post_trained_on_its_logs_and_exported(seeing: Seeing, tmp_path: Path) -> None:
    main(arguments(tmp_path / "run", seeing))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before, after = (policy_from(load_checkpoint(path)) for path in (seeing.checkpoint, checkpoint))
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(moved), "encoder, actor and critic have learned"
    assert int(after.version) == 7 + 3
    export(checkpoint, tmp_path / "after.onnx", observations=16)
    manifest = OnnxPolicy.load(tmp_path / "after.onnx").manifest
    assert manifest.parent == OnnxPolicy.load(seeing.artifact).policy_id
    assert manifest.control_rate_hz == 20
    with open(tmp_path / "run" / "staleness.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["version"], float(row["ess"])) == ("7", pytest.approx(1, abs=1e-3))
    assert int(row["elements"]) == 2 * int(row["steps"])
    with open(tmp_path / "run" / "staleness_tokens.csv") as file:
        tokens = list(csv.DictReader(file))
    assert [(int(each["chunk_step"]), int(each["dimension"])) for each in tokens] == list(product(range(4), range(2)))
    assert sum(int(each["elements"]) for each in tokens) == int(row["elements"])


def test_a_critic_learns_from_the_log_what_no_image_shows(
    seeing: Seeing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The toy robot logs its target: a policy with a critic of images goes on with one that sees it, and back again."""
    frames = store_of(seeing).frames
    episode = read_log(seeing.logs[0]).episodes[0]
    assert torch.equal(frames["privileged"][:12], torch.from_numpy(episode["privileged"]))
    assert torch.equal(frames["privileged"], frames["next", "privileged"]), "a target stays for an episode"
    unread = logs_of(seeing).frames(policy_from(load_checkpoint(seeing.checkpoint)), True)
    assert not {"privileged", ("next", "privileged")} & set(unread.keys(True)), "the critic of images does not look"
    main(arguments(tmp_path / "told", seeing, model__critic="privileged", data__iterations=2))
    told = tmp_path / "told" / "checkpoints" / "last.ckpt"
    policy = policy_from(load_checkpoint(told))
    assert policy.privileged_size == 2
    assert policy.network.critic.normaliser.count == len(logs_of(seeing).frames(policy, True))  # type: ignore[union-attr]
    export(told, tmp_path / "told.onnx", observations=16)
    artifact = OnnxPolicy.load(tmp_path / "told.onnx")
    assert [each.name for each in artifact._session.get_inputs()] == ["observation", "image", "instruction", "noise"]
    assert artifact.manifest.layout == OnnxPolicy.load(seeing.artifact).manifest.layout

    real = tmp_path / "real.mcap"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ToyRobot, "observe", lambda self, observe=ToyRobot.observe: replace(observe(self), privileged=None)
        )
        seeing.log(real)
    options = {"model__init_from": told, "data__ingest__policies": seeing.folder}
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "run", seeing, real, **options))
    assert "the critic is to see what is privileged, and neither" in capsys.readouterr().err
    with pytest.raises(UserError, match="sees 2 privileged numbers, and the logs hold none, as a real robot does not"):
        logs_of(seeing, real).frames(policy, True)  # as where a run also collects from a task that says them
    main(arguments(tmp_path / "run", seeing, real, **options, model__critic="observation", data__iterations=2))
    mixed = store_of(seeing, seeing.logs[0], real)
    assert "privileged" not in mixed.frames.keys()
    assert "what is privileged is left out: not every source says it" in mixed.facts.notes


def test_a_crashed_run_resumes_bit_for_bit(seeing: Seeing, tmp_path: Path) -> None:
    main(arguments(tmp_path / "whole", seeing))
    crash(arguments(tmp_path / "cut", seeing), 2)
    main([*arguments(tmp_path / "cut", seeing), f"--ckpt_path={tmp_path / 'cut' / 'checkpoints' / 'last.ckpt'}"])
    whole, cut = (fingerprints(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "cut"))
    assert whole == cut


def test_what_does_not_fit_together_is_named(seeing: Seeing) -> None:
    policy = policy_from(load_checkpoint(seeing.checkpoint))
    flat = TokenPolicy(Spaces(2, (-1.0, -1.0), (1.0, 1.0)))
    with pytest.raises(UserError, match=r"the logs hold images that a policy decided by, and the policy .* takes none"):
        logs_of(seeing).frames(flat, True)
    store = store_of(seeing)
    assert store.album is not None
    with pytest.raises(UserError, match=r"the images of the logs are \(3, 16, 16\), the policy takes \(3, 8, 8\)"):
        Sight(store, replace(TASK.spaces(TASK.make(1, 0)), image=(3, 8, 8)))(
            logs_of(seeing).frames(policy, True)["observation"]
        )


def test_a_pretrained_model_with_adapters_learns_from_its_logs(tmp_path: Path) -> None:
    """It is too large for an artifact: its checkpoint acts, audits its own log, and is post-trained on it."""
    pytest.importorskip("peft", reason="the extra `vla`")
    from gipo.vla.huggingface import HuggingFaceNetworks
    from gipo.vla.openvla import VocabTailPolicy
    from tests.gipo.vla.builders import save_model

    def network(spaces: VLASpaces, outputs: int) -> HuggingFaceNetworks:
        return HuggingFaceNetworks(spaces, outputs, str(pretrained), rank=2, dtype="float32")

    pretrained, seeing = save_model(tmp_path / "model"), Seeing(tmp_path / "robot")
    seeing.folder.mkdir()
    torch.manual_seed(0)
    save(VocabTailPolicy(TASK.spaces(TASK.make(1, 0)), network=network, bins=16), seeing.checkpoint)
    log = seeing.log(tmp_path / "robot" / "a.mcap", policy=CheckpointPolicy(seeing.checkpoint))
    run = tmp_path / "run"
    main(arguments(run, seeing, log, data__iterations=2, data__ingest__audit=1.0, data__ingest__policies=seeing.folder))
    before, after = (
        policy_from(load_checkpoint(path)) for path in (seeing.checkpoint, run / "checkpoints" / "last.ckpt")
    )
    moved = {name for name, value in after.named_parameters() if not torch.equal(value, before.get_parameter(name))}
    learned = {name for name, value in after.named_parameters() if value.requires_grad}
    assert moved <= learned
    assert any("lora_B" in name for name in moved)
    with open(run / "staleness.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["ess"]) == pytest.approx(1, abs=1e-3)
