"""One of MetaWorld's cameras: upright, the same every time, and unlike that of training only as its gap says."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from gipo.common.simulators import metaworld_camera
from gipo.common.simulators.metaworld_camera import Camera, instruction_of
from gipo.common.simulators.toy import VisualGap
from tests.needs import needs_camera
from tests.pages import ROOT

SIZE = 48
Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def simulator() -> Any:
    pytest.importorskip("metaworld")
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    from gipo.common.simulators.metaworld import show_goal

    env = ALL_V3_ENVIRONMENTS["button-press-topdown-v3"]()
    show_goal(env)
    return env


@pytest.fixture(scope="module")
def cameras() -> Iterator[dict[str, Camera]]:
    yield (made := {})
    for camera in made.values():
        camera.close()


@pytest.fixture
def picture(simulator: Any, cameras: dict[str, Camera]) -> Callable[..., np.ndarray]:
    """What a camera shows of the start of an episode; one that a gap has moved is put back."""

    def draw(name: str = "topview", gap: VisualGap | None = None) -> np.ndarray:
        places = simulator.model.cam_pos.copy()
        camera = Camera(simulator.model, name, SIZE, gap) if gap else cameras.get(name)
        if camera is None:
            camera = cameras[name] = Camera(simulator.model, name, SIZE)
        simulator.np_random = np.random.default_rng(3)
        simulator.reset()
        found = camera.picture(simulator.model, simulator.data)
        simulator.model.cam_pos[:] = places
        if gap:
            camera.close()
        return found

    return draw


def yellow(pixels: np.ndarray) -> np.ndarray:
    """The middle (down, right) of the button's box, the one thing here that is yellow."""
    red, green, blue = pixels.astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red > 150) & (green > 100) & (blue < 60))
    assert len(rows) > 10
    return np.array((rows.mean(), columns.mean()))


@needs_camera
def test_pictures_repeat_bit_for_bit_and_their_top_is_above(picture: Draw) -> None:
    pixels = picture()
    assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(pixels, picture())
    np.testing.assert_array_equal(pixels, picture(gap=VisualGap()))  # another camera draws the same
    # Seen from above, what is ahead of the arm lies above the middle; a camera in a corner shows no sky below.
    assert yellow(pixels)[0] < SIZE / 2
    corner = picture("corner2").astype(int)
    assert corner[-8:].mean() > corner[:8].mean() + 30


@needs_camera
def test_a_gap_is_in_the_light_the_colours_and_the_place_of_the_camera(picture: Draw) -> None:
    plain = picture()
    dark = picture(gap=VisualGap(light=0.5, colour=1.0))
    np.testing.assert_allclose(dark, plain[..., ::-1] * 0.5, atol=0.5)
    down, right = yellow(picture(gap=VisualGap(shift_x=0.1))) - yellow(plain)
    assert right > 2 > abs(down) * 4
    # It is turned the right way up, and so is what its gap says.
    down, right = yellow(picture("corner3", VisualGap(shift_y=0.1))) - yellow(picture("corner3"))
    assert down > 2 > abs(right) * 4


@needs_camera
def test_cameras_of_a_process_do_not_disturb_each_other_nor_its_end(simulator: Any, picture: Draw) -> None:
    expected = picture()
    camera = Camera(simulator.model, size=SIZE)
    camera = Camera(simulator.model, size=SIZE)  # the one before it is freed when this one has been made
    np.testing.assert_array_equal(camera.picture(simulator.model, simulator.data), expected)
    np.testing.assert_array_equal(picture(), expected)
    camera.close()
    code = (
        "import weakref; weakref.finalize(object, print).detach()\n"  # as libraries do that are imported before
        "from metaworld.env_dict import ALL_V3_ENVIRONMENTS as all\n"
        "from gipo.common.simulators.metaworld_camera import Camera\n"
        "camera = Camera(all['reach-v3']().model, size=8)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_system_without_opengl_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr(metaworld_camera.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"draw with OpenGL \(EGL\), which this system does not have .*apt-get") as told:
        metaworld_camera.refuse_no_graphics()
    assert "\n" not in str(told.value)


def test_instructions_are_the_tasks_names_in_words() -> None:
    assert instruction_of("camera:button-press-topdown-v3") == "button press topdown"


@needs_camera
def test_a_fork_draws_after_the_process_that_it_is_of() -> None:
    """Whoever trains has drawn before its workers are forked."""
    program = """
import os, time
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from gipo.common.simulators.metaworld_camera import Camera
env = ALL_V3_ENVIRONMENTS["reach-v3"]()
Camera(env.model).picture(env.model, env.data)
threads = {open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")}
assert not [name for name in threads if "llvmpipe" in name or "disk$" in name], threads
if (child := os.fork()) == 0:
    Camera(env.model).picture(env.model, env.data)
    os._exit(7)
until = 400
while not (ended := os.waitpid(child, os.WNOHANG))[0] and until:
    until -= 1
    time.sleep(0.05)
if not until:
    os.kill(child, 9)
os._exit(os.waitstatus_to_exitcode(ended[1]) if until else 1)
"""
    ours = ("LP_NUM_THREADS", "MESA_SHADER_CACHE_DISABLE")
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, check=False).returncode == 7
