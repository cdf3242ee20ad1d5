"""What a run starts from and goes on with, and what its checkpoints say of it; no training."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from tensordict import TensorDict

from gipo.checkpoints import load_checkpoint
from gipo.common.checkpoint_head import CheckpointHead
from gipo.common.errors import UserError
from gipo.learning.value_scale import PopArt, ValueScale
from gipo.module import GIPOModule
from gipo.networks import SharedEncoder
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy
from tests.trained import save_policy

SPACES, BINS, G = Spaces(2, (-1.0,), (1.0,)), 4, 3
INTERFACE = {"control_rate_hz": 20.0}


def small(spaces: Spaces = SPACES) -> TokenPolicy:
    return TokenPolicy(spaces, BINS, lambda i, o: SharedEncoder(i, o, 4, 4))


def saved(path: Path, scale: ValueScale | None = None, critic: int = 0, **said: Any) -> tuple[Policy, Path]:
    """A policy that has learned something, and its checkpoint."""
    policy = small()
    if scale is not None:
        policy.scale_values(scale, learned=False)
    if critic:
        policy.see_privileged(critic)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter)
    policy.version.fill_(7)
    return policy, save_policy(policy, path, **said)


@pytest.fixture
def began(tmp_path: Path) -> tuple[Policy, Path]:
    return saved(tmp_path / "began.ckpt", task="reach-v3", interface=INTERFACE, init_from="its own")


def assert_same(found: Policy, expected: Policy) -> None:
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_convolutions_are_in_float32_whoever_has_the_policy_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, and a Trainer of one's own."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    GIPOModule().build_policy(Spaces(2, (-1.0,), (1.0,)))
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"  # torch's default


def test_a_module_alone_says_how_the_policy_of_a_checkpoint_is_had() -> None:
    """As Lightning's `load_from_checkpoint` builds it."""
    with pytest.raises(UserError, match=r"policy_from\(gipo\.checkpoints\.load_checkpoint\(PATH\)\)"):
        GIPOModule().configure_model()


def test_a_policy_is_built_once_and_by_default_of_tokens() -> None:
    module = GIPOModule()
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(spaces=SPACES), strategy=None)  # type: ignore[assignment]
    module._device_mesh = None
    module.configure_model()
    first = module.policy
    module.configure_model()
    assert module.policy is first
    assert type(first) is TokenPolicy


def test_a_run_starts_from_the_policy_of_a_checkpoint_and_says_so(began: tuple[Policy, Path]) -> None:
    module = GIPOModule(init_from=str(began[1]))
    found = module.build_policy(SPACES)
    assert_same(found, began[0])
    assert found.training
    head = CheckpointHead.of(load_checkpoint(began[1]))
    assert head.id is not None
    assert module._ancestry == {"init_from": head.id, "task": "reach-v3"}
    assert module.interface == INTERFACE
    GIPOModule(init_from=str(began[1]), policy=small).build_policy(SPACES)


def test_a_run_that_goes_on_needs_nothing_of_where_it_began(began: tuple[Policy, Path], tmp_path: Path) -> None:
    policy, path = saved(tmp_path / "last.ckpt")
    module = GIPOModule(init_from=str(tmp_path / "gone.ckpt"))
    found = module.build_policy(SPACES, load_checkpoint(path))
    assert_same(found, policy)
    assert found.training
    assert (module._ancestry, module.interface) == ({}, None), "its checkpoint is asked when it is loaded"


@pytest.mark.parametrize("resumed", [False, True])
def test_another_policy_than_the_data_or_the_options_ask_for_is_refused(
    resumed: bool, began: tuple[Policy, Path]
) -> None:
    other = Spaces(2, (-1.0, -1.0), (1.0, 1.0))
    for spaces, policy, said in (
        (other, None, r"\(spaces.action_low: checkpoint \(-1.0,\), configuration \(-1.0, -1.0\); spaces.action_high"),
        (
            SPACES,
            lambda spaces: TokenPolicy(spaces, BINS + 1, lambda i, o: SharedEncoder(i, o, 4, 4)),
            r"\(init_args.bins: checkpoint 4, configuration 5\)",
        ),
        (
            SPACES,
            GaussianPolicy,
            r"\(class_path: checkpoint gipo.policies.TokenPolicy, configuration gipo.policies.GaussianPolicy",
        ),
    ):
        module = GIPOModule(policy=policy, init_from=None if resumed else str(began[1]))
        with pytest.raises(UserError, match=rf"holds another policy than the data and model\.policy ask for .*{said}"):
            module.build_policy(spaces, load_checkpoint(began[1]) if resumed else None)


def test_a_scale_that_is_given_to_learned_values_leaves_them_as_they_are(
    began: tuple[Policy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[bool] = []
    attach = PopArt.attach

    def watched(self: PopArt, critic: Any, given: bool) -> None:
        learned.append(given)
        attach(self, critic, given)

    monkeypatch.setattr(PopArt, "attach", watched)
    found = GIPOModule(init_from=str(began[1]), value_scale=PopArt).build_policy(SPACES)
    assert learned == [True]
    seen = torch.randn(5, 2)
    torch.testing.assert_close(found.value(seen), began[0].value(seen))
    assert type(GIPOModule(policy=small, value_scale=PopArt).build_policy(SPACES).value_scale) is PopArt
    assert learned == [True, False]


def test_values_that_have_a_scale_keep_it(began: tuple[Policy, Path], tmp_path: Path) -> None:
    _, scaled = saved(tmp_path / "scaled.ckpt", PopArt())
    for path, resumed in ((scaled, False), (scaled, True)):
        for asked in (None, PopArt):
            module = GIPOModule(init_from=None if resumed else str(path), value_scale=asked)
            found = module.build_policy(SPACES, load_checkpoint(path) if resumed else None)
            assert type(found.value_scale) is PopArt
    asked_late = GIPOModule(value_scale=PopArt)
    with pytest.raises(UserError, match=r"value_scale=ValueScale with \{\}, and model\.value_scale asks for PopArt"):
        asked_late.build_policy(SPACES, load_checkpoint(began[1]))
    with pytest.raises(
        UserError, match=r"value_scale=PopArt with .*, and .* asks for ValueScale with .*; leave it out"
    ):
        GIPOModule(init_from=str(scaled), value_scale=ValueScale).build_policy(SPACES)
    with pytest.raises(
        UserError, match=r"value_scale=PopArt with .*, and .* asks for PopArt with .*0\.5.*; leave it out"
    ):
        GIPOModule(init_from=str(scaled), value_scale=lambda: PopArt(0.5)).build_policy(SPACES)


def test_a_critic_begins_anew_at_a_start_alone(began: tuple[Policy, Path], tmp_path: Path) -> None:
    sees, seeing = saved(tmp_path / "seeing.ckpt", critic=G)
    assert_same(GIPOModule(init_from=str(seeing)).build_policy(SPACES, privileged=G), sees)
    assert GIPOModule(policy=small, critic="privileged").build_policy(SPACES, privileged=G).privileged_size == G
    found = GIPOModule(init_from=str(began[1]), critic="privileged").build_policy(SPACES, privileged=G)
    assert (found.privileged_size, found.training) == (G, True)
    assert GIPOModule(init_from=str(seeing), critic="observation").build_policy(SPACES).privileged_size == 0
    last = load_checkpoint(seeing)
    for critic in (None, "privileged"):
        assert_same(GIPOModule(critic=critic).build_policy(SPACES, last, G), sees)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"critic sees the privileged, model\.critic asks for observation; leave it"):
        GIPOModule(critic="observation").build_policy(SPACES, last, G)
    with pytest.raises(UserError, match=r"neither the task nor the logs hold it"):
        GIPOModule(policy=small, critic="privileged").build_policy(SPACES)


def test_a_new_policy_is_tried_and_every_one_is_looked_at(
    began: tuple[Policy, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("refuse_unusable", "refuse_unlearned"):
        monkeypatch.setattr(f"gipo.learning.policy_module.{name}", lambda policy, name=name: asked.append(name))
    GIPOModule(policy=small).build_policy(SPACES)
    assert asked == ["refuse_unusable", "refuse_unlearned"]
    GIPOModule(init_from=str(began[1])).build_policy(SPACES)
    assert asked[2:] == ["refuse_unlearned"]


def test_activations_are_computed_once_more_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(SharedEncoder, "recompute", lambda self: asked.append(True))
    GIPOModule(policy=small).build_policy(SPACES)
    assert asked == []
    GIPOModule(policy=small, recompute=True).build_policy(SPACES)
    assert asked == [True]


def test_what_is_frozen_is_named_by_whole_parts_of_its_place(began: tuple[Policy, Path]) -> None:
    for resumed in (None, load_checkpoint(began[1])):
        module = GIPOModule(policy=small, frozen=["encoder.0", "actor.3.bias"])
        policy = module.build_policy(SPACES, resumed)
        still = {name for name, each in policy.network.named_parameters() if not each.requires_grad}
        assert still == {"encoder.0.weight", "encoder.0.bias", "actor.3.bias"}
    with pytest.raises(UserError, match=r"names 'enc', which holds nothing that learns; there are encoder\.0, "):
        GIPOModule(policy=small, frozen=["enc"]).build_policy(SPACES)
    for frozen, who in ((["encoder", "actor"], "policy"), (["critic"], "critic")):
        with pytest.raises(UserError, match=rf"leaves nothing of the {who} to learn$"):
            GIPOModule(policy=small, frozen=frozen).build_policy(SPACES)


# Evaluation, and checkpoints ------------------------------------------------------------------------------------------


class Logging(GIPOModule):
    """Keeps what it logs."""

    def log_dict(self, dictionary: Any, *_: Any, **__: Any) -> None:
        self.logged = {name: float(value) for name, value in dictionary.items()}


def attached(module: GIPOModule, fn: str = "fit", **said: Any) -> GIPOModule:
    """As in a trainer that does `fn`, on data that `said` so much of themselves."""
    data = SimpleNamespace(
        provenance=lambda: said, spaces=SPACES, evaluated_task=SimpleNamespace(parts=("reach", "push"))
    )
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        datamodule=data, precision="bf16-mixed", state=SimpleNamespace(fn=fn)
    )
    return module


def test_episodes_of_validation_and_of_a_test_are_told_apart() -> None:
    module = attached(Logging(policy=small))
    episodes = TensorDict(
        {"return": torch.tensor([1.0, 3.0]), "success": torch.tensor([True, False])}, batch_size=2
    )  # fmt: skip
    for step, prefix in ((module.validation_step, "val/"), (module.test_step, "test/")):
        step(episodes, 0)
        assert module.logged[f"{prefix}return"] == 2  # type: ignore[operator, index]
        assert all(name.startswith(prefix) and name.count("/") == 1 for name in module.logged)  # type: ignore[union-attr]
    module.validation_step(episodes.set("task", torch.tensor([1, 1])), 0)
    assert module.logged["val/success/push"] == 0.5  # type: ignore[index, operator]
    assert "val/success/reach" not in module.logged  # type: ignore[operator]


def test_a_checkpoint_says_where_its_policy_comes_from_and_what_it_learned_on_last(began: tuple[Policy, Path]) -> None:
    module = attached(GIPOModule(init_from=str(began[1]), frozen=["encoder"]), task="push-v3", frames=9)
    module.policy = module.build_policy(SPACES)
    checkpoint: dict[str, Any] = {"state_dict": {}}
    module.on_save_checkpoint(checkpoint)
    head = CheckpointHead.of(checkpoint)
    assert head.policy == began[0].description()
    assert (head.init_from, head.task, head.frames) == (CheckpointHead.of(load_checkpoint(began[1])).id, "push-v3", 9)
    assert (head.precision, head.frozen) == ("bf16-mixed", ("encoder",))
    attached(module).on_save_checkpoint(checkpoint := {"state_dict": {}})
    assert CheckpointHead.of(checkpoint).task == "reach-v3", "where the data say of none, that of the start"


def test_a_run_that_goes_on_hands_on_what_its_checkpoint_says(began: tuple[Policy, Path]) -> None:
    module = attached(GIPOModule(policy=small))
    module.policy = module.build_policy(SPACES)
    module.on_load_checkpoint(load_checkpoint(began[1]))
    assert module._ancestry == {"init_from": "its own", "task": "reach-v3"}
    assert module.interface == INTERFACE
    older = saved(began[1].with_name("older.ckpt"))[1]
    module.on_load_checkpoint(load_checkpoint(older))
    assert module._ancestry == {}, "which says nothing"


def test_a_policy_of_several_rounds_names_the_logs_of_each(tmp_path: Path) -> None:
    """Those of its own round apart from those of the rounds before, also where a round is gone on with."""
    rounds = [{"session": each, "sha256": None, "policy_ids": ["a"], "steps": 3} for each in ("one", "two", "three")]
    _, path = saved(tmp_path / "two.ckpt", logs_before=rounds[:1], logs=rounds[1:2])
    third = attached(GIPOModule(init_from=str(path)), logs=rounds[2:])
    third.policy = third.build_policy(SPACES)
    third.on_save_checkpoint(checkpoint := {"state_dict": {}})
    for resumed in (False, True):
        head = CheckpointHead.of(checkpoint)
        assert ([each.session for each in head.logs_before], [each.session for each in head.logs]) == (
            ["one", "two"], ["three"],
        ), f"resumed: {resumed}"  # fmt: skip
        again = attached(GIPOModule(policy=small), logs=rounds[2:])
        again.policy = again.build_policy(SPACES)
        again.on_load_checkpoint(checkpoint)
        again.on_save_checkpoint(checkpoint := {"state_dict": {}})


def test_a_checkpoint_from_before_there_was_an_option_is_gone_on_from(began: tuple[Policy, Path]) -> None:
    module, older = attached(GIPOModule(policy=small)), load_checkpoint(began[1])
    module.policy = module.build_policy(SPACES)
    del older["gipo"]["policy"]["init_args"]["normalise"]
    module.on_load_checkpoint(older)
    older["gipo"]["policy"]["init_args"]["bins"] = BINS + 1
    with pytest.raises(UserError, match="holds another policy than"):
        module.on_load_checkpoint(older)


def test_what_is_frozen_stays_so_where_a_run_goes_on(began: tuple[Policy, Path], tmp_path: Path) -> None:
    _, other = saved(tmp_path / "other.ckpt", frozen=["encoder"])
    module = attached(GIPOModule(policy=small))
    module.policy = module.build_policy(SPACES)
    module.on_load_checkpoint(load_checkpoint(began[1]))  # which does not say
    with pytest.raises(UserError, match=r"is of a run with model\.frozen=\['encoder'\], this one has \[\]"):
        module.on_load_checkpoint(load_checkpoint(other))


def test_optimizers_are_compared_where_they_go_on(began: tuple[Policy, Path]) -> None:
    checkpoint = load_checkpoint(began[1]) | {"optimizer_states": []}
    for part in ("actor", "critic"):
        optimizer = torch.optim.SGD(getattr(began[0], f"{part}_parameters")())
        checkpoint["optimizer_states"].append(optimizer.state_dict())
    for state in (0, 1):  # of the policy, of the critic
        fewer = checkpoint | {"optimizer_states": [dict(each) for each in checkpoint["optimizer_states"]]}
        fewer["optimizer_states"][state]["param_groups"] = [
            group | {"params": group["params"][1:]} for group in fewer["optimizer_states"][state]["param_groups"]
        ]
        for fn in ("fit", "test"):
            module = GIPOModule(policy=small, optimizer=lambda parameters: torch.optim.SGD(parameters))
            attached(module, fn).policy = module.build_policy(SPACES)
            module.on_load_checkpoint(dict(checkpoint))
            if fn == "test":
                module.on_load_checkpoint(dict(fewer))
                continue
            with pytest.raises(UserError, match=r"the checkpoint's optimizer moves \d+ parameters, and that of this"):
                module.on_load_checkpoint(dict(fewer))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit_train_batches": 0}, "(limit_train_batches=0): an iteration is one batch, and nothing would be"),
        ({"precision": "bf16-true"}, "(precision='bf16-true'): weights, ratios and data are in single precision"),
        ({"precision": 64}, "(precision='64-true'): weights, ratios and data are in single precision"),
        ({"limit_train_batches": 1}, None),
        ({"precision": "bf16-mixed"}, None),
    ],
)
def test_a_trainer_of_ones_own_is_asked_for_what_can_be_had(options: dict[str, Any], words: str | None) -> None:
    """The command refuses these before; a Trainer has nobody else to say it."""
    module = GIPOModule()
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **options)
    if words is None:
        module.setup("fit")
        return
    with pytest.raises(UserError, match=f"^{re.escape('Trainer' + words)}"):
        module.setup("fit")
