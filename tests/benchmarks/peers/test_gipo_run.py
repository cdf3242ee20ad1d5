"""Our own run is judged by the callback, which leaves training as it is."""

from types import SimpleNamespace

from benchmarks.peers.gipo_run import TimedEvaluations
from benchmarks.training.marks import read
from gipo.policies import Spaces, TokenPolicy

POLICY = TokenPolicy(Spaces(39, (-1.0,) * 4, (1.0,) * 4))


def test_a_run_is_evaluated_when_due_and_ended_when_good(tmp_path) -> None:
    successes = iter([0.5, 0.9])
    clock = TimedEvaluations(str(tmp_path / "marks.jsonl"), "reach-v3", until=0.9, between=20)
    clock._evaluation = lambda act: next(successes)
    trainer, module = SimpleNamespace(should_stop=False), SimpleNamespace(policy=POLICY)
    stopped = []
    for steps in (10, 20, 30, 40):
        trainer.datamodule = SimpleNamespace(position=steps)
        clock.on_train_batch_end(trainer, module)
        stopped.append(trainer.should_stop)
    assert stopped == [False, False, False, True]
    marks = read(tmp_path / "marks.jsonl")
    assert [mark.what for mark in marks] == [
        "iteration",
        "iteration",
        "pause",
        "resume",
        "iteration",
        "iteration",
        "pause",
        "resume",
    ]
    assert [mark.success for mark in marks if mark.what == "resume"] == [0.5, 0.9]
