"""The picture of docs/vla.md is drawn by the command that stands under it."""

from pathlib import Path

from examples.seen_by_metaworld import main, parser
from robots.log.images import decode_png
from tests.needs import needs_camera


@needs_camera
def test_every_task_is_drawn_without_the_gap_and_with_it(tmp_path: Path) -> None:
    main(parser().parse_args(["reach-v3", "--light", "0.5", "--out", str(tmp_path / "seen.png")]))
    pixels = decode_png((tmp_path / "seen.png").read_bytes())
    assert pixels.shape == (168, 2 * 168 + 8, 3)
    assert (pixels[:, 168:176] == 255).all()
    assert pixels[:, 176:].mean() < 0.7 * pixels[:, :168].mean()
