"""The configuration of a run in its folder, and what a resumed run has otherwise than it had."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from gipo.callbacks.run_folder import shown
from gipo.common.checkpoint_head import note
from gipo.common.files import free_name, remove_partials, whole_file

VERSION = f"# gipo {version('gipo')}"  # the first line of a file
OF_THE_CHECKPOINT = {"model.init_from", "model.policy.observation_floor"}  # in a run that goes on
LENGTHS = {"data.total_frames", "data.iterations", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time"}


class KeepConfig(SaveConfigCallback):
    """Writes the full configuration of a run into its folder, and its hash into every checkpoint.

    A run that is resumed with other options, its length aside, is told which. In its own folder the file that had the
    old ones stays, as `config-1.yaml` or with the next free number; elsewhere they are those beside the checkpoint.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once, on the first process: what the run is, not where it is nor where one of its processes began."""
        resumed = self.config.ckpt_path
        self.config.ckpt_path = self.config.trainer.default_root_dir = None
        if stage == "fit" and trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            remove_partials(folder)
            path = folder / self.config_filename
            with whole_file(path) as partial:
                partial.write_text(f"{VERSION}\n{self._text}", encoding="utf-8")
                beside = path if resumed is None else Path(resumed).absolute().parents[1] / path.name
                _tell_changes(path if path.exists() else beside, partial, keep=path.exists())

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """SHA-256 of the configuration, whatever folder the run is in."""
        note(checkpoint, config_hash=hashlib.sha256(self._text.encode()).hexdigest())

    @cached_property
    def _text(self) -> str:
        return self.parser.dump(self.config)


def _tell_changes(old: Path, new: Path, keep: bool) -> None:
    """Say what a run has otherwise than it had; `keep` the old file under a name of its own if there is anything."""
    before, after = _read(old), _read(new)
    changed = [*differences(before, after, whole=_first_line(old) == _first_line(new))]
    if all(isinstance(each.get("model"), dict) and each["model"].get("kl_target") for each in (before, after)):
        changed = [line for line in changed if not line.startswith("model.kl_coef:")]  # which goes on from where it was
    # Where no scale of values is asked for, the run goes on with that of its checkpoint.
    changed = [line for line in changed if not (line.startswith("model.value_scale:") and line.endswith("→ None"))]
    if stays := [line for line in changed if line.partition(":")[0] in OF_THE_CHECKPOINT]:
        print(f"gipo: note: the checkpoint's stays, and not what is asked for: {'; '.join(stays)}", file=sys.stderr)
    changed = [line for line in changed if line not in stays]
    if not changed:
        return
    kept = free_name(old) if keep else old
    if keep:
        with whole_file(kept) as copy:
            shutil.copyfile(old, copy)
    line = f"goes on with other options than {shown(kept)} has: {'; '.join(changed)}"
    print(f"gipo: note: the run {line}", file=sys.stderr)


def differences(before: Any, after: Any, name: str = "", whole: bool = False) -> Iterator[str]:
    """`name: before → after` of the options of two configurations that say how a run learns.

    An option that only one of them has is null in the other where they are `whole`, of the same version; else it may
    be of another version, and is passed over, as is an option of a class that the other does not name.
    """
    both = isinstance(before, dict) and isinstance(after, dict)
    if both and before.get("class_path") == after.get("class_path"):
        for key in {**before, **after}:
            inner = name if key == "init_args" else f"{name}.{key}".lstrip(".")
            if inner not in LENGTHS and (whole or (key in before and key in after)):
                yield from differences(before.get(key), after.get(key), inner, whole)
    elif before != after:
        yield f"{name}: {_said(before)} → {_said(after)}"


def _said(value: Any) -> str:
    is_class = isinstance(value, dict) and "class_path" in value
    return str(value["class_path"]).rpartition(".")[2] if is_class else str(value)


def _read(path: Path) -> Any:
    """A configuration; nothing where there is none, or none that can be read, which nobody reads again."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, ValueError):
        return ""
