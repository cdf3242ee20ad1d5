"""How sources are read: what is refused before any is, and what the bounds allow."""

from typing import Any

import pytest

from datamodules.ingest import IngestOptions
from gipo.common.errors import UserError


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"audit": -0.1}, r"^audit must be a share in \(0, 1\], or 0 to trust the sources, got -0\.1$"),
        ({"video_tolerance": -0.1}, r"^video_tolerance must be at least 0 nats, got -0\.1$"),
        ({"video_tolerance": float("nan")}, r"^video_tolerance must be at least 0 nats, got nan$"),
        ({"workers": -1}, r"^workers must be at least 1, got -1$"),
        (
            {"reward": lambda columns: None},
            r"^the reward .*<lambda> cannot be called with \(columns, success\): too many",
        ),
        ({"reward": lambda columns, success, more: None}, "missing a required argument: 'more'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        IngestOptions(**options)


def test_bounds_are_allowed() -> None:
    for name, value in (("audit", 0), ("audit", 1), ("video_tolerance", 0), ("workers", 1), ("bad_episodes", "skip")):
        assert getattr(IngestOptions(**{name: value}), name) == value  # type: ignore[arg-type]
    assert IngestOptions(reward=max).reward is max  # of no signature: it is called as it is


@pytest.mark.parametrize(
    ("camera", "cameras"), [(None, ()), ("top", ("top",)), (["top", "wrist"], ("top", "wrist")), ([], ())]
)
def test_cameras_are_in_the_order_that_is_asked_for(camera: str | list[str] | None, cameras: tuple[str, ...]) -> None:
    assert IngestOptions(camera=camera).cameras == cameras
