"""Every entrant is judged on the goals of `gipo fit`, by MetaWorld's own simulator, and brings its own libraries."""

import subprocess
import sys
from contextlib import closing

import numpy as np

from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.seeding import begin_episodes
from datamodules.options import EvaluationOptions
from gipo.commands.studies.fifty import judge
from gipo.commands.studies.fifty.judge import Judge


def towards_the_goal(observations: np.ndarray) -> np.ndarray:
    move = 10 * (observations[:, -3:] - observations[:, :3])
    return np.concatenate([move, np.zeros((len(move), 1))], 1).clip(-1, 1)


def nothing(observations: np.ndarray) -> np.ndarray:
    return np.zeros((len(observations), 4))


def test_goals_are_those_of_gipo_fit_and_gipo_test() -> None:
    options, one = EvaluationOptions(), Judge("reach-v3", num_envs=2)
    assert (options.episodes, options.seed) == (judge.EPISODES, judge.SEED)
    assert (options.test_episodes, options.seed + 1) == (judge.TEST_EPISODES, judge.TEST_SEED)
    for seed in (options.seed, options.seed + 1):
        with closing(MetaWorldTask("reach-v3").make_evaluation(2, seed)) as env:
            for numbers in (range(2), range(2, 4)):
                begin_episodes(env, numbers, seed)
                theirs = env.reset()["observation"].numpy()
                np.testing.assert_array_equal(one.begin(numbers, seed), theirs)
        assert not np.array_equal(theirs[0], theirs[1])


def test_success_is_of_any_step_and_an_evaluation_ends_with_it(monkeypatch) -> None:
    monkeypatch.setattr(judge, "EPISODES", 3)  # the last wave is smaller
    asked = []

    def act(observations: np.ndarray) -> np.ndarray:
        asked.append(len(observations))
        return towards_the_goal(observations)

    one = Judge("reach-v3", num_envs=2)
    assert one(act) == 1.0
    assert len(asked) < 500
    assert {*asked} == {1, 2}
    assert one(nothing) == 0.0


def test_an_episode_of_an_evaluation_ends_with_its_success(monkeypatch) -> None:
    monkeypatch.setattr(judge, "EPISODES", 2)
    one = Judge("reach-v3", num_envs=2)
    assert one(lambda observations: towards_the_goal(observations) * [[1], [0]]) == 0.5
    ended, ran_on = (simulator.curr_path_length for simulator in one._simulators)
    assert ended < ran_on == 500


def test_a_test_runs_every_episode_to_its_end(monkeypatch) -> None:
    monkeypatch.setattr(judge, "TEST_EPISODES", 2)
    steps = []

    def there_and_back(observations: np.ndarray) -> np.ndarray:
        steps.append(len(observations))
        return towards_the_goal(observations) * (1 if len(steps) < 250 else -1)

    found = Judge("reach-v3", num_envs=2).test(there_and_back)
    assert len(steps) == 500
    assert found.success.all()
    assert not found.success_last.any()
    assert (found.returned > 0).all()


def test_neither_torch_nor_torchrl_is_imported_for_a_rival() -> None:
    imports = "import sys, gipo.commands.studies.fifty.rivals, benchmarks.peers.__main__, benchmarks.peers.rival_run"
    code = f"{imports}; print({{'torch', 'torchrl'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
