"""Images of a store: kept as they came, decoded by number, through a cache that has a limit."""

import io
from pathlib import Path

import numpy as np
import pytest

from datamodules.ingest import pictures
from datamodules.ingest.pictures import Album, PictureWriter, move
from gipo.common.errors import UserError
from robots.log.images import png

SHAPE = (6, 5, 3)


def drawn(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def album(folder: Path, counts: tuple[int, ...] = (4, 3), limit: int = 1 << 20) -> Album:
    """Sources with so many images each, numbered on."""
    base = 0
    for index, count in enumerate(counts):
        made = folder / f"blocks-{index}"
        made.mkdir()
        writer = PictureWriter(made)
        for number in range(count):
            writer.add(png(drawn(base + number)), "png")
        writer.close()
        move(made, folder / "pictures" / f"{index:06d}", base)
        base += count
    return Album(sorted((folder / "pictures").iterdir()), limit)


def test_numbers_go_on_from_source_to_source(tmp_path: Path) -> None:
    numbers = np.array([6, 0, 3, 4, 3])
    np.testing.assert_array_equal(album(tmp_path)[numbers], np.stack([drawn(number) for number in numbers]))


def test_the_cache_keeps_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    true = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda data, form: (decoded.append(1), true(data, form))[1])
    found = album(tmp_path, limit=3 * drawn(0).nbytes)
    for numbers, total in (([0, 1, 2], 3), ([2, 1, 0], 3), ([3], 4), ([0, 3], 5), ([2], 5), ([5, 5, 5], 6)):
        found[np.array(numbers)]
        assert len(decoded) == total, numbers


def test_pixels_are_there_before_the_store_is(tmp_path: Path) -> None:
    writer = PictureWriter(tmp_path)
    number = writer.add(png(drawn(0)[..., :1]), "png")
    np.testing.assert_array_equal(writer.pixels(number), drawn(0)[..., :1])
    writer.close()


def test_files_of_other_writers_are_decoded(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    smooth = np.linspace(0, 255, 6 * 5 * 3).reshape(SHAPE).astype(np.uint8)
    for form, room in (("png", 0), ("jpeg", 40)):
        data = io.BytesIO()
        image.fromarray(smooth).save(data, form)
        found = pictures.decode(data.getvalue(), form)
        assert found.shape == (1, *SHAPE)
        assert np.abs(found[0].astype(int) - smooth).max() <= room


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_what_is_no_image_is_refused(form: str) -> None:
    with pytest.raises(UserError, match="an image cannot be decoded"):
        pictures.decode(b"\x89PNG\r\n\x1a\n" + bytes(50), form)


def test_a_picture_that_no_camera_takes_is_refused_by_its_head() -> None:
    image = pytest.importorskip("PIL.Image")
    data = io.BytesIO()
    image.new("1", (10_000, 7_000)).save(data, "png")
    with pytest.raises(UserError, match=r"^an image of 10,000 × 7,000 pixels is no camera's$"):
        pictures.decode(data.getvalue(), "png")


def test_depth_is_nothing_that_a_policy_sees() -> None:
    with pytest.raises(UserError, match="uint16; a policy sees uint8"):
        pictures.decode(png(drawn(0).astype(np.uint16)), "png")


def test_unknown_formats_and_mixed_sizes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the format 'webp'; known are png, jpeg"):
        PictureWriter(tmp_path).add(b"", "webp")
    writer = PictureWriter(tmp_path)
    writer.add(png(drawn(0)), "png")
    writer.add(png(drawn(0, (2, 2, 3))), "png")
    writer.close()
    with pytest.raises(UserError, match=r"\[2, 2, 3\] and \[6, 5, 3\] stand in the same logs"):
        Album([tmp_path])[np.array([0, 1])]


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    found = album(tmp_path, (2,))
    (file,) = tmp_path.rglob("*.bin")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"pictures.bin is cut short"):
        found[np.array([1])]


@pytest.mark.parametrize("said", ["ffconcat version 1.0\nfile secret.png\n", "v=0\nm=video 5798 RTP/AVP 96\n"])
def test_no_picture_names_a_file_or_a_port_that_is_opened(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg takes such texts for playlists and streams where it may guess what it is given."""
    pytest.importorskip("av", reason="the extra `video`")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.png").write_bytes(png(drawn(0)))
    with pytest.raises(UserError, match="a video cannot be decoded"):
        pictures.decode(said.encode(), "matroska")
    with pytest.raises(UserError, match="known are png, jpeg, h264, av1"):
        PictureWriter(tmp_path).add(said.encode(), "matroska")
