"""MetaWorld's models without what is only seen: a tenth of the memory, made in half the time, stepped faster.

Their physics is that of the whole ones, bit for bit; a test compares all fifty tasks.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("mujoco", "metaworld", "assets")  # where EnvPool looks for them, below its `base_path`
ARMS = "sawyer_xyz"  # holds one file a task, which include those of the other folders

# Geoms that collide with nothing, but whose place or orientation is observed: file of a model → name.
OBSERVED = {"sawyer_coffee.xml": "mug", "sawyer_door_pull.xml": "handle", "sawyer_lever_pull.xml": "objGeom"}


@contextmanager
def lean_models(assets: Path) -> Iterator[str]:
    """A `base_path` for EnvPool with lean models; it may go once the simulators are made.

    Args:
        assets: its own base path.
    """
    with tempfile.TemporaryDirectory(prefix="gipo-models-") as folder:
        made = Path(folder, FOLDER)
        (made / ARMS).mkdir(parents=True)
        for path in (assets / FOLDER).iterdir():
            if path.name != ARMS:
                (made / path.name).symlink_to(path)
        for path in (assets / FOLDER / ARMS).iterdir():
            if path.suffix == ".xml":
                (made / ARMS / path.name).write_text(lean(path.read_text(), OBSERVED.get(path.name)))
        yield folder


def lean(model: str, observed: str | None = None) -> str:
    """A model's XML, compiled to what physics needs of it, and a geom by this name, which a tuple refers to."""
    kept = f'<custom><tuple name="observed"><element objtype="geom" objname="{observed}"/></tuple></custom>'
    added = '<compiler discardvisual="true"/>' + (kept if observed else "")
    return re.sub(r"(?=</mujoco>\s*$)", added, model)
