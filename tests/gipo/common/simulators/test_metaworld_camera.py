"""One of MetaWorld's cameras: upright, the same every time, and unlike that of training only as its gap says."""

from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from gipo.common.simulators import metaworld_camera
from gipo.common.simulators.metaworld_camera import Camera, instruction_of
from gipo.common.simulators.toy import VisualGap
from tests.needs import needs_camera

SIZE = 48


@pytest.fixture(scope="module")
def simulator() -> Any:
    pytest.importorskip("metaworld")
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    from gipo.common.simulators.metaworld import show_goal

    env = ALL_V3_ENVIRONMENTS["button-press-topdown-v3"]()
    show_goal(env)
    return env


def picture(simulator: Any, name: str = "topview", gap: VisualGap = VisualGap()) -> np.ndarray:
    """What a camera shows of the start of an episode; it is put back where it was."""
    places = simulator.model.cam_pos.copy()
    camera = Camera(simulator.model, name, SIZE, gap)
    simulator.np_random = np.random.default_rng(3)
    simulator.reset()
    found = camera.picture(simulator.model, simulator.data)
    camera.close()
    simulator.model.cam_pos[:] = places
    return found


def yellow(pixels: np.ndarray) -> np.ndarray:
    """The middle (down, right) of the button's box, the one thing here that is yellow."""
    red, green, blue = pixels.astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red > 150) & (green > 100) & (blue < 60))
    assert len(rows) > 10
    return np.array((rows.mean(), columns.mean()))


@needs_camera
def test_pictures_repeat_bit_for_bit_and_their_top_is_above(simulator: Any) -> None:
    pixels = picture(simulator)
    assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(pixels, picture(simulator))
    # Seen from above, what is ahead of the arm lies above the middle; a camera in a corner shows the floor below.
    assert yellow(pixels)[0] < SIZE / 2
    corner = picture(simulator, "corner2").astype(int)
    assert corner[-8:].mean() > corner[:8].mean() + 30  # the sky is black
    assert not np.array_equal(corner, pixels)


@needs_camera
def test_light_and_colours_are_those_of_the_gap(simulator: Any) -> None:
    plain = picture(simulator)
    np.testing.assert_allclose(picture(simulator, gap=VisualGap(light=0.5)), plain * 0.5, atol=0.5)
    swapped = picture(simulator, gap=VisualGap(colour=1.0))
    np.testing.assert_array_equal(swapped, plain[..., ::-1])
    assert not picture(simulator, gap=VisualGap(light=0.0)).any()


@needs_camera
@pytest.mark.parametrize("name", ["topview", "corner3"])
def test_a_camera_that_slipped_shows_everything_to_the_side(simulator: Any, name: str) -> None:
    plain = yellow(picture(simulator, name))
    down, right = yellow(picture(simulator, name, VisualGap(shift_x=0.1))) - plain
    assert right > 2 > abs(down) * 4
    down, right = yellow(picture(simulator, name, VisualGap(shift_y=0.1))) - plain
    assert down > 2 > abs(right) * 4


def test_a_system_without_opengl_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr(metaworld_camera.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"draw with OpenGL \(egl\), which this system does not have .*apt-get") as told:
        metaworld_camera.refuse_no_graphics()
    assert "\n" not in str(told.value)


def test_instructions_are_the_tasks_names_in_words() -> None:
    assert instruction_of("camera:button-press-topdown-v3") == "button press topdown"
