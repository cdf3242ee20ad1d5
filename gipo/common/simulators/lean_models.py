"""MetaWorld's models without what is only seen, which takes most of the memory.

Their physics is that of the whole ones, bit for bit; a test compares all fifty tasks.
"""

import hashlib
import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

FOLDER = Path("mujoco", "metaworld", "assets")  # where EnvPool looks for them, below its `base_path`
ARMS = "sawyer_xyz"  # holds one file a task, which include those of the other folders

# Geoms that collide with nothing, but whose place or orientation is observed: file of a model → name.
OBSERVED = {"sawyer_coffee.xml": "mug", "sawyer_door_pull.xml": "handle", "sawyer_lever_pull.xml": "objGeom"}


@cache
def lean_models(assets: Path) -> str:
    """A `base_path` for EnvPool with lean models, in the user's cache or, where there can be none, for this process.

    The path is the same in every process: MuJoCo keeps meshes in memory by their path, and would keep them again.

    Args:
        assets: its own base path.
    """
    models = {path.name: path.read_text() for path in sorted((assets / FOLDER / ARMS).glob("*.xml"))}
    models = {name: lean(model, OBSERVED.get(name)) for name, model in models.items()}
    key = hashlib.sha256(repr((str(assets), models)).encode()).hexdigest()[:16]
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gipo", f"models-{key}")
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _publish(assets, models, folder)
    except (OSError, RuntimeError):  # no home, or none to write to
        folder = Path(_of_this_process().name)
        _fill(assets, models, folder)
    return str(folder)


def lean(model: str, observed: str | None = None) -> str:
    """A model's XML, compiled to what physics needs of it, and a geom by this name, which a tuple refers to."""
    kept = f'<custom><tuple name="observed"><element objtype="geom" objname="{observed}"/></tuple></custom>'
    added = '<compiler discardvisual="true"/>' + (kept if observed else "")
    return re.sub(r"(?=</mujoco>\s*$)", added, model)


def _publish(assets: Path, models: dict[str, str], folder: Path) -> None:
    """Make the folder, which appears as a whole: other processes may be about to make the same."""
    made = Path(tempfile.mkdtemp(prefix=".models-", dir=folder.parent))
    try:
        _fill(assets, models, made)
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(assets: Path, models: dict[str, str], folder: Path) -> None:
    made = folder / FOLDER
    (made / ARMS).mkdir(parents=True)
    for path in (assets / FOLDER).iterdir():
        if path.name != ARMS:
            (made / path.name).symlink_to(path)
    for name, model in models.items():
        (made / ARMS / name).write_text(model)


@cache
def _of_this_process() -> tempfile.TemporaryDirectory[str]:
    """A folder that is gone when this process ends."""
    return tempfile.TemporaryDirectory(prefix="gipo-models-")
