"""What `gipo` prints when it is done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from gipo.callbacks.last_checkpoint import why_it_stops
from gipo.callbacks.plots import AXES
from gipo.callbacks.run_folder import shown
from gipo.common.intervals import with_interval

FILES = (
    "checkpoints/best.ckpt", "checkpoints/last.ckpt", "curves.png", "curves.csv", "staleness.csv", "config.yaml",
    "tensorboard", "csv",
)  # fmt: skip


def run_summary(trainer: Trainer, data: Any) -> str:
    """What ended a run, how far it came, how good its policy is, and where everything is."""
    folder = Path(trainer.default_root_dir)
    why = why_it_stops(trainer) or "done"
    far = f"{data.position} {AXES[data.axis]}" + (f" of {data.total}" if why != "done" else "")
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    figures = [f"{name} {metrics[name]:.2f}" for name in ("val/success", "val/return") if name in metrics]
    files = [name for name in FILES if (folder / name).exists()]
    return f"{why}: {', '.join([far, *figures])}; {shown(folder)} holds " + ", ".join(files)


def episode_summary(metrics: Mapping[str, Any], prefix: str, episodes: int) -> str:
    """Success and return over evaluation episodes, each with its 95 % interval; below, the success of each part."""
    names = {"success": "success at any step", "success_last": "success at the last step", "return": "return"}
    parts = []
    for name, words in names.items():
        key = f"{prefix}/{name}"
        if key in metrics:
            mean, low, high = (float(metrics[key + end]) for end in ("", "_low", "_high"))
            parts.append(f"{words} {with_interval(mean, low, high, '.0f' if name == 'return' else '.2f')}")
    start = f"{prefix}/success/"
    tasks = [f"\n  {float(metrics[key]):.2f}  {key.removeprefix(start)}" for key in metrics if key.startswith(start)]
    return f"over {episodes} episodes (95 % intervals): " + ", ".join(parts) + "".join(tasks)
