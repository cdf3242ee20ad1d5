"""Every peer is judged on the goals of `gipo fit`, by MetaWorld's own simulator, and brings its own libraries."""

import subprocess
import sys
from contextlib import closing

import numpy as np

from benchmarks.peers import evaluation
from benchmarks.peers.evaluation import Evaluation
from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.seeding import begin_episodes
from datamodules.options import EvaluationOptions


def towards_the_goal(observations: np.ndarray) -> np.ndarray:
    move = 10 * (observations[:, -3:] - observations[:, :3])
    return np.concatenate([move, np.zeros((len(move), 1))], 1).clip(-1, 1)


def test_goals_are_those_of_gipo_fit() -> None:
    options, judge = EvaluationOptions(), Evaluation("reach-v3")
    assert (options.episodes, options.seed) == (evaluation.EPISODES, evaluation.SEED)
    with closing(MetaWorldTask("reach-v3").make_evaluation(2, options.seed)) as env:
        for numbers in (range(2), range(2, 4)):
            begin_episodes(env, numbers, options.seed)
            theirs = env.reset()["observation"].numpy()
            np.testing.assert_array_equal(judge.begin(numbers), theirs)
    assert not np.array_equal(theirs[0], theirs[1])


def test_success_is_of_any_step(monkeypatch) -> None:
    monkeypatch.setattr(evaluation, "EPISODES", 2)
    judge = Evaluation("reach-v3")
    assert judge(towards_the_goal) == 1.0
    assert judge(lambda observations: np.zeros((len(observations), 4))) == 0.0


def test_neither_torch_nor_torchrl_is_imported_for_a_rival() -> None:
    imports = "import sys, benchmarks.peers.evaluation, benchmarks.peers.__main__"
    code = f"{imports}; print({{'torch', 'torchrl'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
