"""Attempts of scripts: begun and disturbed by their numbers, whichever process makes them; recorded as they were."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from datamodules.demos import gather
from datamodules.demos.attempts import Attempts
from datamodules.demos.demonstration import Demonstration
from datamodules.demos.gather import _answers, _serve, attempted
from datamodules.envs.gymnasium import find
from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.simulation import Simulation, Wrapped
from gipo.common.errors import UserError
from tests import tiny_env

SCRIPTS = """
import numpy as np


def home(observation):
    return -3 * observation[:2]


def still(observation):
    return np.zeros(2)


class Homing:
    noisy = 1

    def __init__(self, env):
        self.size = env.action_spec.shape[-1]

    def __call__(self, observation):
        return -observation[: self.size]


class Counting:
    made = 0

    def __init__(self):
        Counting.made += 1

    def __call__(self, observation):
        return np.zeros(2) + 0.01 * Counting.made


def crooked(observation):
    return [0.0]


def unread(observation):
    return np.load("no_such_gains.npy")


def unknown(observation):
    return {}["gains"]
"""


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_scripts.py").write_text(SCRIPTS)
    monkeypatch.syspath_prepend(tmp_path)
    tiny_env.register()


@pytest.fixture
def tiny() -> Simulation:
    found = find("tests.tiny_env:Tiny-v0") or find("Tiny-v0")
    assert found is not None
    return found


def run(attempts: Attempts, *numbers: int) -> list[Demonstration]:
    env, maker = attempts.make()
    try:
        return [attempts.run(env, maker, number) for number in numbers]
    finally:
        env.close()


def test_metaworlds_own_policy_succeeds_and_goes_on_as_long_as_it_is_told() -> None:
    (found,) = run(Attempts(MetaWorldTask("reach-v3"), noise=0.2, after=3), 5)
    assert found.success is not None
    assert found.success[-4]
    assert not found.success[:-4].any()
    assert not found.terminated
    assert found.observations.shape == (len(found.actions) + 1, 39)
    assert np.abs(found.actions).max() <= 1
    assert found.rewards.shape == (len(found.actions),)


def test_an_attempt_follows_from_its_seed_and_number_alone(tiny: Simulation) -> None:
    attempts = Attempts(tiny, "tiny_scripts.home", noise=0.3, seed=4)
    together, alone = run(attempts, 0, 1, 2), run(attempts, 2)
    for one, other in zip(together[2], alone[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(together[0].observations[0], together[1].observations[0])
    (other_seed,) = run(Attempts(tiny, "tiny_scripts.home", noise=0.3, seed=5), 2)
    assert not np.array_equal(other_seed.observations[0], alone[0].observations[0])


def test_demonstrations_begin_elsewhere_than_an_evaluation_with_the_same_seed() -> None:
    from datamodules.envs.seeding import begin_episodes

    task = MetaWorldTask("reach-v3")
    (found,) = run(Attempts(task, seed=0, max_steps=1), 0)
    env = task.make_evaluation(1, 0)
    begin_episodes(env, [0], 0)
    assert not np.array_equal(env.reset()["observation"][0].numpy(), found.observations[0])


def test_an_attempt_ends_where_its_task_says_though_its_environment_goes_on(tiny: Simulation) -> None:
    class Sooner(Wrapped):
        horizon = 4

    (found,) = run(Attempts(Sooner(tiny), "tiny_scripts.still", noise=0.0), 0)
    assert len(found.actions) == 4


def test_what_was_done_is_recorded_noise_and_bounds_included(tiny: Simulation) -> None:
    (plain,), (noisy,) = (run(Attempts(tiny, "tiny_scripts.home", noise=noise, seed=1), 0) for noise in (0.0, 0.5))
    np.testing.assert_allclose(plain.actions, (-3 * plain.observations[:-1, :2]).clip(-1, 1), rtol=1e-6)
    moved = np.diff(noisy.observations[:, :2], axis=0)
    np.testing.assert_allclose(moved, 0.3 * noisy.actions, atol=1e-6)
    assert plain.success is None
    assert plain.succeeded


def test_noise_is_only_where_a_script_takes_it(tiny: Simulation) -> None:
    (found,) = run(Attempts(tiny, "tiny_scripts.Homing", noise=0.5), 0)
    intended = (-found.observations[:-1, :2]).clip(-1, 1)
    np.testing.assert_allclose(found.actions[:, 1], intended[:, 1], rtol=1e-6)
    assert np.abs(found.actions[:, 0] - intended[:, 0]).max() > 0.01


def test_a_script_is_made_anew_for_every_episode(tiny: Simulation) -> None:
    first, second = run(Attempts(tiny, "tiny_scripts.Counting", max_steps=2), 0, 1)
    assert (first.actions == np.float32(0.01)).all()
    assert (second.actions == np.float32(0.02)).all()
    assert len(first.actions) == 2


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "nothing is scripted for .*Tiny-v0"),
        ("tiny_scripts.away", "--script tiny_scripts.away: there is no such class or function"),
        ("tiny_scripts.crooked", r"the script gave array\(\[0.\]\); the task takes 2 finite numbers"),
    ],
)
def test_a_script_that_will_not_do_is_named(script: str | None, reason: str, tiny: Simulation) -> None:
    with pytest.raises(UserError, match=reason):
        run(Attempts(tiny, script), 0)


@pytest.mark.timeout(60)
def test_a_task_that_no_process_can_make_is_told_at_once(tiny: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(end: Connection) -> None:
        for answer in _answers(end, Attempts(tiny)):  # for which nothing is scripted
            end.send(answer)

    monkeypatch.setattr(gather, "_worker", lambda _: thread(serve))
    with closing(attempted(Attempts(tiny), 2)) as made, pytest.raises(UserError, match="nothing is scripted for"):
        next(made)


def test_processes_change_no_demonstration(tiny: Simulation) -> None:
    attempts = Attempts(MetaWorldTask("reach-v3"), noise=0.2, max_steps=4)
    with closing(attempted(attempts, 2)) as made:
        found = list(islice(made, 3))
    for one, other in zip(found, run(attempts, 0, 1, 2), strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)


@contextmanager
def thread(serve: Callable[[Connection], None]) -> Iterator[Connection]:
    """In place of a process."""
    ours, theirs = Pipe()

    def until_the_end() -> None:
        with suppress(EOFError, OSError):
            serve(theirs)

    threading.Thread(target=until_the_end, daemon=True).start()
    yield ours
    ours.close()


def test_an_attempt_that_fails_behind_those_that_are_wanted_costs_none(
    tiny: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two workers one is slow, and the other fails at attempt 2 meanwhile."""

    def serve(end: Connection) -> None:
        while True:
            number = end.recv()
            time.sleep(0.2 * (number == 0))
            end.send((number, UserError("camera unplugged") if number == 2 else number))

    monkeypatch.setattr(gather, "_worker", lambda _: thread(serve))
    with closing(attempted(Attempts(tiny), 2)) as made:
        assert list(islice(made, 2)) == [0, 1]
        with pytest.raises(UserError, match="camera unplugged"):
            next(made)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("crooked", "the task takes 2 finite numbers"),
        ("unread", r"could not be made: FileNotFoundError in unread \(.*tiny_scripts\.py:\d+\): .*no_such_gains"),
        ("unknown", r"could not be made: KeyError in unknown \(.*tiny_scripts\.py:\d+\): 'gains'"),
    ],
)
def test_what_a_script_raises_is_told_the_same_of_however_many_processes(
    script: str, words: str, tiny: Simulation
) -> None:
    attempts = Attempts(tiny, f"tiny_scripts.{script}")
    with closing(attempted(attempts, 1)) as made, pytest.raises(UserError, match=words):
        next(made)
    ours, theirs = Pipe()
    handler = signal.getsignal(signal.SIGINT)
    ours.send(7)
    try:
        _serve(theirs, attempts)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ours.poll(), "a process that says nothing looks as if memory had run out"
    number, answer = ours.recv()
    assert number == 7
    with pytest.raises(UserError, match=words):
        raise answer


def test_a_process_whose_parent_has_gone_ends_without_a_word(tiny: Simulation) -> None:
    ours, theirs = Pipe()
    handler = signal.getsignal(signal.SIGINT)
    ours.close()
    try:
        _serve(theirs, Attempts(tiny, "tiny_scripts.home"))
    finally:
        signal.signal(signal.SIGINT, handler)
