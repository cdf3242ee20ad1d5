"""The callback times a run of `gipo fit` that names it."""

from benchmarks.training.marks import read
from gipo.cli import main

SMALL = (
    "--data.total_frames=40", "--data.frames_per_iteration=8", "--data.capacity=64", "--data.rounds=1",
    "--data.batch=16", "--data.collector.num_envs=2", "--data.collector.workers=0", "--data.evaluation.num_envs=1",
    "--data.evaluation.episodes=1", "--data.evaluation.max_steps=4", "--trainer.check_val_every_n_epoch=3",
)  # fmt: skip


def test_iterations_and_evaluations_are_noted_in_order(tmp_path) -> None:
    file = tmp_path / "marks.jsonl"
    clock = ["--trainer.callbacks+=benchmarks.training.clock.Clock", f"--trainer.callbacks.file={file}"]
    main(["fit", f"--trainer.default_root_dir={tmp_path / 'run'}", *SMALL, *clock])
    marks = read(file)
    assert [(mark.what, mark.steps) for mark in marks] == [
        ("iteration", 8), ("iteration", 16), ("iteration", 24), ("pause", 24), ("resume", 24),
        ("iteration", 32), ("iteration", 40),
    ]  # fmt: skip
    assert marks[4].success == 0.0
    assert [mark.at for mark in marks] == sorted(mark.at for mark in marks)
