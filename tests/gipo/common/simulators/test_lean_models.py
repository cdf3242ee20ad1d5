"""Models without what is only seen: the same physics and observations, bit for bit, in a fraction of the memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gipo.common.simulators.lean_models import FOLDER, OBSERVED, lean, lean_models
from gipo.common.simulators.native import METAWORLD, Pool, available, envpool
from tests.needs import needs_envpool

# Two whose observed geom collides with nothing, one without; all fifty are the campaign.
SAMPLE = ("MetaWorld/DoorClose-v3", "MetaWorld/CoffeePull-v3", "MetaWorld/Push-v3")
TASKS = [task for task in envpool().list_all_envs() if task.startswith(METAWORLD)] if available() else []


@needs_envpool
@pytest.mark.parametrize(
    "task", [task if task in SAMPLE else pytest.param(task, marks=pytest.mark.campaign) for task in TASKS]
)
def test_a_lean_model_moves_as_the_whole_one_bit_for_bit(task: str) -> None:
    whole = envpool().make_gymnasium(task, num_envs=1, num_threads=1, seed=[3], partially_observable=False)
    pool = Pool(task, [3])
    assert np.array_equal(pool.reset(), whole.reset()[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (100, 1, 4)).astype(np.float32):
        observation, reward, *_, info = whole.step(action)
        answer = pool.step(action)
        assert np.array_equal(answer.observation, observation)
        assert np.array_equal(answer.reward, reward)
        assert np.array_equal(answer.success, info["success"] > 0)
    pool.close()
    whole.close()


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """EnvPool's, of which lean models are to be made in a cache of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lean_models.cache_clear()
    yield Path(envpool().registration.base_path)
    lean_models.cache_clear()


@needs_envpool
def test_the_cache_holds_every_model_and_links_to_all_else(assets: Path, tmp_path: Path) -> None:
    made = Path(lean_models(assets)) / FOLDER
    models = {path.name for path in (assets / FOLDER / "sawyer_xyz").glob("*.xml")}
    assert {path.name for path in (made / "sawyer_xyz").glob("*.xml")} == models > set(OBSERVED)
    assert all('discardvisual="true"' in path.read_text() for path in (made / "sawyer_xyz").glob("*.xml"))
    assert {path.name for path in made.iterdir()} == {path.name for path in (assets / FOLDER).iterdir()}
    assert [path.name for path in (tmp_path / "gipo").iterdir()] == [Path(lean_models(assets)).name]


@needs_envpool
def test_another_process_may_make_it_meanwhile(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lean_models(assets)
    lean_models.cache_clear()
    exists = Path.exists
    answers = iter([False])  # of the first question, whether it is there
    monkeypatch.setattr(Path, "exists", lambda path: next(answers, None) is not False and exists(path))
    assert lean_models(assets) == first
    assert len(list((tmp_path / "gipo").iterdir())) == 1


@needs_envpool
def test_without_a_home_to_write_to_it_is_for_this_process(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = Path(lean_models(assets))
    assert (folder / FOLDER / "sawyer_xyz" / "sawyer_coffee.xml").is_file()
    assert tmp_path not in folder.parents


def test_what_is_added_stands_within_the_model() -> None:
    assert lean("<mujoco>\n</mujoco>\n") == '<mujoco>\n<compiler discardvisual="true"/></mujoco>\n'
    assert '<element objtype="geom" objname="mug"/></tuple></custom></mujoco>' in lean("<mujoco></mujoco>", "mug")
