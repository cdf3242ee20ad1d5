"""What a checkpoint says of itself: the same with torch and without it."""

import os
import resource
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.checkpoints import checkpoint_id, load_checkpoint
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT, CheckpointHead, LearnedLog, note, read_head
from gipo.common.errors import UserError
from gipo.networks import SeparateNetworks
from gipo.policies import Spaces, TokenPolicy

SPACES = Spaces(3, (-1.0,), (1.0,))


def written(path: Path, version: int = 17, **extra: Any) -> tuple[Path, dict[str, Any]]:
    """A checkpoint as training writes it, optimiser and generators included."""
    policy = TokenPolicy(SPACES, bins=4, network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)))
    policy.version.fill_(version)
    optimiser = torch.optim.Adam(policy.parameters())
    policy.value(torch.zeros(1, 3)).sum().backward()
    optimiser.step()
    weights = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    recorded = {"format": CHECKPOINT_FORMAT, "policy": policy.description(), "task": "reach-v3", "frames": 10**12}
    checkpoint = {
        "state_dict": weights, "gipo": recorded, "optimizer_states": [optimiser.state_dict()],
        "generator": torch.Generator().get_state(), **extra,
    }  # fmt: skip
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    return path, checkpoint


@pytest.mark.parametrize("version", [0, 17, 2**40])
def test_it_is_what_torch_reads(tmp_path: Path, version: int) -> None:
    path, checkpoint = written(tmp_path / "x.ckpt", version)
    by_torch = torch.load(path, weights_only=True)
    head = read_head(path)
    assert head == CheckpointHead.of(by_torch, version=version)
    assert {name: getattr(head, name) for name in by_torch["gipo"]} == by_torch["gipo"]
    assert head.id == checkpoint_id(checkpoint)


def test_what_is_noted_is_what_is_read() -> None:
    checkpoint: dict[str, Any] = {}
    note(checkpoint, format=CHECKPOINT_FORMAT, policy={"class_path": "x"})
    note(checkpoint, logs=[{"session": "a", "sha256": None, "policy_ids": ["b"], "steps": 3}], parent="b")
    logs = (LearnedLog("a", None, ["b"], 3),)
    assert CheckpointHead.of(checkpoint) == CheckpointHead({"class_path": "x"}, parent="b", logs=logs)
    with pytest.raises(
        UserError, match="does not say parents of itself; it says policy, format, init_from, precision, id"
    ):
        note(checkpoint, parents=["b"])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"frames": "many"}, "entry 'frames' is str, it must be a whole number"),
        ({"interface": ["x"]}, "entry 'interface' is list, it must be an object"),
        ({"logs": [{"steps": 3}]}, "entry 'logs' lists one without a session or sha256"),
        ({"logs_before": [3]}, "entry 'logs_before' must be a list of objects"),
        ({"policy": None}, "has no 'policy'"),
    ],
)
def test_an_entry_of_another_type_is_refused_by_its_name(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"^run.ckpt:? .*{words}"):
        CheckpointHead.of({"gipo": {"format": CHECKPOINT_FORMAT, "policy": {}} | entries}, "run.ckpt")


def test_it_is_read_without_the_tensors(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "x.ckpt", replay=torch.ones(5_000_000))
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(4) + content[middle + 4 :])
    assert read_head(path).version == 17


def test_reading_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, ("ran",))

    monkeypatch.chdir(tmp_path)
    torch.save({"gipo": {"format": CHECKPOINT_FORMAT}, "evil": Evil()}, "x.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of plain tensors: its pickle names 'posix mkdir'"):
        read_head("x.ckpt")
    assert os.listdir() == ["x.ckpt"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no checkpoint at"), (b"", "truncated, damaged"), (b"PK\3\4" * 9, "truncated, damaged")],
)
def test_a_head_that_is_none_is_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_head(tmp_path / "x.ckpt")


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    """As another user's; root may read everything, but not without a descriptor."""
    path, _ = written(tmp_path / "x.ckpt")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        for read in (read_head, load_checkpoint):
            with pytest.raises(UserError, match=f"^cannot read {path}: Too many open files$"):
                read(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_run_folder_in_place_of_a_checkpoint_names_the_one_in_it(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.touch()
    for folder in (tmp_path / "run", last.parent):
        with pytest.raises(UserError, match=f"^{folder} is a folder; name a checkpoint, such as {last}$"):
            read_head(folder)
    with pytest.raises(UserError, match=f"^{tmp_path} is a folder; name a checkpoint file$"):
        read_head(tmp_path)
    with pytest.raises(UserError, match="no checkpoint at an empty path"):
        read_head("")


@pytest.mark.parametrize(
    ("version", "words"),
    [(torch.tensor([1.5]), "no whole number"), (torch.arange(3), "no whole number"), (7, "no tensor")],
)
def test_a_version_that_is_no_whole_number(tmp_path: Path, version: Any, words: str) -> None:
    torch.save({"gipo": {"format": CHECKPOINT_FORMAT}, "state_dict": {"policy.version": version}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=f"policy.version is {words}"):
        read_head(tmp_path / "x.ckpt")


@pytest.mark.parametrize("found", [None, 0, CHECKPOINT_FORMAT + 1, "1", True, [[1]]])
def test_another_format_is_refused(found: Any, tmp_path: Path) -> None:
    torch.save({"gipo": {"format": found}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"has checkpoint format .* this gipo reads 1"):
        read_head(tmp_path / "x.ckpt")


@pytest.mark.parametrize("found", [{"x": 1}, {"gipo": 3}, [1]])
def test_a_checkpoint_of_somebody_else(found: Any, tmp_path: Path) -> None:
    torch.save(found, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="not a gipo checkpoint"):
        read_head(tmp_path / "x.ckpt")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))
    with pytest.raises(UserError, match="its pickle is compressed"):
        read_head(tmp_path / "x.ckpt")
    with zipfile.ZipFile(tmp_path / "y.ckpt", "w") as archive:
        archive.writestr("other/else.txt", "x")
    with pytest.raises(UserError, match="holds 0 pickles"):
        read_head(tmp_path / "y.ckpt")
