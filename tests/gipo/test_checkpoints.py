"""Checkpoint files: whole or not there, data and never code, and the policy they hold."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.checkpoints import checkpoint_id, load_checkpoint, policy_from
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT, read_head
from gipo.common.errors import UserError
from gipo.common.files import remove_partials, whole_file
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy
from tests.runs import dead

SPACES = Spaces(3, (-1.0, -2.0), (1.0, 2.0))


def checkpoint_of(policy: Policy, **extra: Any) -> dict[str, Any]:
    weights = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    return {"state_dict": weights, "gipo": {"format": CHECKPOINT_FORMAT, "policy": policy.description()}, **extra}


class Killed(BaseException):
    """Stands for whatever ends a process in the middle of a save."""


class Fatal:
    """Ends the save when it is pickled."""

    def __reduce__(self) -> Any:
        raise Killed


@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_a_policy_comes_back_whole(family: type[Policy], tmp_path: Path) -> None:
    policy = family(SPACES)
    policy.normaliser.update(torch.randn(50, 3))
    policy.version.fill_(17)
    AtomicCheckpointIO().save_checkpoint(checkpoint_of(policy), tmp_path / "deep" / "x.ckpt")
    loaded = policy_from(load_checkpoint(tmp_path / "deep" / "x.ckpt"))
    assert int(loaded.version) == 17
    observation = torch.randn(4, 3)
    assert torch.equal(loaded.params(observation), policy.params(observation))
    assert torch.equal(loaded.value(observation), policy.value(observation))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.ckpt"]


def test_a_checkpoint_of_a_gpu_is_read_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run reads it that is resumed or evaluated; Lightning does not say where its tensors are to go."""
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:7")
    AtomicCheckpointIO().save_checkpoint(checkpoint_of(TokenPolicy(SPACES)), tmp_path / "x.ckpt")
    found = SingleDeviceStrategy(checkpoint_io=AtomicCheckpointIO()).load_checkpoint(tmp_path / "x.ckpt")
    assert {value.device.type for value in found["state_dict"].values()} == {"cpu"}


@pytest.mark.parametrize("existing", [False, True])
def test_a_save_that_fails_leaves_what_was_there(existing: bool, tmp_path: Path) -> None:
    path, io = tmp_path / "x.ckpt", AtomicCheckpointIO()
    good = checkpoint_of(TokenPolicy(SPACES, bins=4))
    if existing:
        io.save_checkpoint(good, path)
        before = path.read_bytes()
    with pytest.raises(Killed):
        io.save_checkpoint(good | {"bad": Fatal()}, path)
    assert [found.name for found in tmp_path.iterdir()] == (["x.ckpt"] if existing else [])
    if existing:
        assert path.read_bytes() == before


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    checkpoint, io = checkpoint_of(TokenPolicy(SPACES, bins=4)), AtomicCheckpointIO()
    for name in ("a.ckpt", "b.ckpt"):
        io.save_checkpoint(checkpoint, tmp_path / name)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_equal_policies_have_equal_ids_whatever_else_the_file_holds(tmp_path: Path) -> None:
    io, policy = AtomicCheckpointIO(), TokenPolicy(SPACES, bins=4)
    for name, extra in (("best", 1), ("last", 2)):
        io.save_checkpoint(checkpoint_of(policy, epoch=extra), tmp_path / name)
    heads = [read_head(tmp_path / name) for name in ("best", "last")]
    assert heads[0] == heads[1]
    assert heads[0].id == load_checkpoint(tmp_path / "best")["gipo"]["id"]
    assert len(bytes.fromhex(heads[0].id or "")) == 32
    # saving a loaded checkpoint again changes nothing: the id does not depend on the id
    io.save_checkpoint(load_checkpoint(tmp_path / "best"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "best").read_bytes()


def test_whatever_makes_another_policy_makes_another_id() -> None:
    policy = TokenPolicy(SPACES, bins=4)
    ids = [checkpoint_id(checkpoint_of(policy))]
    other = checkpoint_of(policy)
    other["gipo"]["config_hash"] = "0" * 64
    ids.append(checkpoint_id(other))
    other = checkpoint_of(policy)
    other["gipo"]["policy"]["init_args"]["bins"] = 5
    ids.append(checkpoint_id(other))
    for name in policy.state_dict():  # a weight, a moment of the normaliser, the version: any of them
        other = checkpoint_of(policy)
        value = other["state_dict"][f"policy.{name}"].clone()
        value.view(-1)[-1] += 1
        other["state_dict"][f"policy.{name}"] = value
        ids.append(checkpoint_id(other))
    assert len(set(ids)) == len(ids)


def test_the_id_is_of_bytes_not_of_where_they_lie() -> None:
    checkpoint = checkpoint_of(TokenPolicy(SPACES, bins=4))
    turned = checkpoint | {"state_dict": dict(reversed(list(checkpoint["state_dict"].items())))}
    name = "policy.network.critic.0.weight"
    turned["state_dict"][name] = turned["state_dict"][name].t().contiguous().t()
    assert checkpoint_id(turned) == checkpoint_id(checkpoint)


def test_the_head_is_read_without_the_tensors(tmp_path: Path) -> None:
    policy = TokenPolicy(SPACES, bins=4)
    policy.version.fill_(17)
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint_of(policy, replay=torch.ones(5_000_000)), path)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(4) + content[middle + 4 :])
    with pytest.raises(UserError, match="checksum"):
        load_checkpoint(path)
    assert read_head(path).version == 17


def test_storage_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "x.ckpt", storage_options={})


def test_partials_of_killed_runs_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    killed = dead()
    theirs = f".policy.onnx.{os.getppid()}.partial"  # another process writes it
    for name in (f".last.ckpt.{killed}.partial", "last.ckpt", ".hidden", "notes.partial", theirs):
        (tmp_path / name).write_text("")
    (folder := tmp_path / f".export.{killed}.partial").mkdir()  # whoever writes a folder clears it
    remove_partials(tmp_path)
    kept = sorted([".hidden", "last.ckpt", "notes.partial", theirs, folder.name])
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    remove_partials(tmp_path / "nowhere")


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("part", [0, 1, 100, 0.5, 0.9, -1])
def test_every_truncation_is_refused(part: float, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint_of(TokenPolicy(SPACES, bins=4)), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content)) if isinstance(part, float) else part])
    with pytest.raises(UserError, match="truncated, damaged"):
        load_checkpoint(path)


def test_a_flipped_bit_anywhere_in_the_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint_of(TokenPolicy(SPACES, bins=4)), path)
    content = path.read_bytes()
    for position in range(len(content) // 4, 3 * len(content) // 4, len(content) // 11):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(UserError, match="checksum"):
            load_checkpoint(path)


def test_reading_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"gipo": {"format": CHECKPOINT_FORMAT}, "evil": Evil()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of plain tensors"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("found", [None, 0, CHECKPOINT_FORMAT + 1, "1"])
def test_another_format_is_refused(found: Any, tmp_path: Path) -> None:
    torch.save({"gipo": {"format": found}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="format"):
        load_checkpoint(tmp_path / "x.ckpt")


def test_weights_that_do_not_fit_or_are_not_finite_are_refused() -> None:
    policy = TokenPolicy(SPACES, bins=4)
    other, missing, broken = (checkpoint_of(policy) for _ in range(3))
    other["gipo"]["policy"]["init_args"]["bins"] = 5
    del missing["state_dict"]["policy.network.critic.0.weight"]
    broken["state_dict"]["policy.network.critic.0.weight"] = torch.full((256, 3), torch.nan)
    for checkpoint, words in ((other, "do not fit"), (missing, "do not fit"), (broken, "not finite")):
        with pytest.raises(UserError, match=words):
            policy_from(checkpoint)
