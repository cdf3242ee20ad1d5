"""LeRobot datasets with videos: what a camera saw comes frame by frame, and cloning by images learns from it."""

import json
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from datamodules.ingest import IngestOptions, Store, ingest
from datamodules.ingest.pictures import PictureWriter
from datamodules.ingest.sources import lerobot_videos
from datamodules.ingest.sources.lerobot import _short
from datamodules.ingest.sources.lerobot_videos import Videos
from datamodules.replay.decisions import decisions_of
from datamodules.replay.sight import Sight
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces
from gipo.vla.policies import VLATokenPolicy
from robots.log.images import png
from robots.log.scheduling import kept_scheduling
from robots.log.video import blocks_between
from tests.datamodules.ingest.foreign import RATE, write_frames
from tests.offline import fit_args
from tests.robots.log.test_video import scene

av = pytest.importorskip("av")
CAMERA, SIDE, LENGTHS = "observation.images.top", "observation.images.side", (12, 9)
NOTHING: Mapping[str, Any] = MappingProxyType({})


H264 = ("libx264", {"crf": "16", "bf": "2", "g": "4"})


def write_film(path: Path, frames: list[np.ndarray], codec: tuple[str, dict[str, str]] = H264) -> None:
    """An MP4 as ffmpeg makes them: with frames that build on later ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder, options = codec
    with kept_scheduling(), av.open(str(path), "w") as file:
        stream = file.add_stream(encoder, rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))


def write_dataset(
    folder: Path,
    missing: int = 0,
    columns: Mapping[str, Any] = NOTHING,
    codec: tuple[str, dict[str, str]] = H264,
    **changes: Any,
) -> Path:
    """Two episodes in one video file, which lacks `missing` frames at its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_frames(folder, LENGTHS, {"next.done": [False] * 11 + [True] + [False] * 8 + [True], **columns})
    frames = [scene(number) for number in range(sum(LENGTHS) - missing)]
    write_film(folder / "videos" / CAMERA / "chunk-000" / "file-000.mp4", frames, codec)
    begins = np.array([0, LENGTHS[0]]) / RATE
    rows: dict[str, Any] = {
        "episode_index": [0, 1], "tasks": [["stack"], ["stack"]], f"videos/{CAMERA}/chunk_index": [0, 0],
        f"videos/{CAMERA}/file_index": [0, 0], f"videos/{CAMERA}/from_timestamp": begins, **changes,
    }  # fmt: skip
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(rows), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    info = (folder / "meta" / "info.json").read_text()
    feature = f'"{CAMERA}": {{"dtype": "video", "shape": [32, 32, 3], "names": ["height", "width", "channels"]}}, '
    (folder / "meta" / "info.json").write_text(info.replace('"features": {', '"features": {' + feature))
    return folder


def write_two_cameras(folder: Path, size: int = 32) -> Path:
    """The same episodes with a second camera, whose pictures lie upside down."""
    columns = {f"videos/{SIDE}/{name}": [0, 0] for name in ("chunk_index", "file_index")}
    begins = np.array([0, LENGTHS[0]]) / RATE
    write_dataset(folder, **columns, **{f"videos/{SIDE}/from_timestamp": begins})
    frames = [scene(number)[::-1][:size, :size] for number in range(sum(LENGTHS))]
    write_film(folder / "videos" / SIDE / "chunk-000" / "file-000.mp4", frames)
    info = (folder / "meta" / "info.json").read_text()
    feature = f'"{SIDE}": {{"dtype": "video", "shape": [{size}, {size}, 3]}}, '
    (folder / "meta" / "info.json").write_text(info.replace('"features": {', '"features": {' + feature))
    return folder


def store_of(folder: Path, cache: Path, camera: str | list[str] | None = CAMERA) -> Store:
    return ingest([folder], IngestOptions(cache=cache, workers=1, camera=camera), progress=False)


CODECS = {
    "h264": H264,
    "h264 with one key frame": ("libx264", {"crf": "16", "bf": "3", "g": "250"}),
    "h264, open groups": ("libx264", {"crf": "16", "g": "6", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}),
    # x265's own groups are open: frames before a key frame build on it and on the group before.
    "hevc": ("libx265", {"crf": "20", "x265-params": "log-level=none:keyint=6:min-keyint=6"}),
    "hevc, as LeRobot records": ("libx265", {"crf": "20", "g": "2", "x265-params": "log-level=none"}),
    "av1, as LeRobot records": ("libsvtav1", {"crf": "30", "g": "2"}),
}


@pytest.mark.parametrize("codec", CODECS)
def test_every_step_has_the_frame_of_its_moment(codec: str, tmp_path: Path) -> None:
    store = store_of(write_dataset(tmp_path / "set", codec=CODECS[codec]), tmp_path)
    assert store.facts.interface.image == (3, 32, 32)
    assert store.facts.instructions == ("stack",)
    assert store.album is not None
    shown = [*range(12), *range(12, 21)]
    for key, after in ((("picture",), 0), (("next", "picture"), 1)):
        found = store.album[store.frames[key].flatten().numpy()]
        assert len(found) == 21
        for row, number in enumerate(shown):
            last = 11 if number < 12 else 20  # which terminated, and stands as its own
            true = scene(min(number + after, last)).astype(int)
            others = [np.abs(found[row] - scene(other).astype(int)).mean() for other in range(21)]
            assert np.abs(found[row] - true).mean() == min(others) < 6, (key, row)
    assert not [note for note in store.facts.notes if "not read" in note]


def test_a_long_episode_takes_no_more_memory_than_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, frames = write_dataset(tmp_path / "set"), 3000
    videos = Videos(folder, json.loads((folder / "meta" / "info.json").read_text()), CAMERA)
    # The first frame of a block may be shown before the last one of the block in front of it.
    times = np.arange(frames) / RATE
    times[[999, 1000]] = times[[1000, 999]]

    def blocks(path: Path, begin: float, end: float) -> Iterator[tuple[bytes, list[float]]]:
        for start in range(0, frames, 1000):
            yield b"", times[start : start + 1000].tolist()

    monkeypatch.setattr(lerobot_videos, "blocks_between", blocks)
    monkeypatch.setattr(PictureWriter, "check_block", lambda *block: None)  # there is nothing in them
    written = PictureWriter(tmp_path)
    wanted = np.arange(frames) / RATE + np.random.default_rng(0).uniform(-0.4, 0.4, frames) / RATE
    tracemalloc.start()
    found = videos.keep(0, wanted, RATE, written)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    shown = np.arange(frames)
    shown[[999, 1000]] = [1000, 999]
    np.testing.assert_array_equal(found, shown)
    assert most < 100 * 8 * frames


def test_two_cameras_are_read_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    folder = write_two_cameras(tmp_path / "set")
    for cameras in ([CAMERA, SIDE], [SIDE, CAMERA]):
        store = store_of(folder, tmp_path, cameras)
        assert store.facts.interface.image == (6, 32, 32)
        assert store.facts.interface.cameras == tuple(camera.rpartition(".")[2] for camera in cameras)
        assert store.album is not None
        frames, _ = decisions_of(store.frames, 3, recorded=False)
        seen = Sight(store, VLASpaces((6, 32, 32), 3, (-1.0,), (1.0,), 3))(frames["observation"])["image"].numpy()
        for row, number in ((0, 0), (5, 5), (len(seen) - 1, 20)):
            true = {CAMERA: scene(number).astype(int), SIDE: scene(number)[::-1].astype(int)}
            for place, camera in enumerate(cameras):
                pixels = seen[row, 3 * place : 3 * place + 3].transpose(1, 2, 0)
                assert np.abs(pixels - true[camera]).mean() < 6, (cameras, row)


def test_cameras_of_different_sizes_are_seen_each_at_its_own(tmp_path: Path) -> None:
    store = store_of(write_two_cameras(tmp_path / "set", 16), tmp_path, [CAMERA, SIDE])
    sizes = store.facts.interface.image
    assert sizes == ((3, 32, 32), (3, 16, 16))
    spaces = VLASpaces(sizes, 3, (-1.0,), (1.0,), 3, cameras=("top", "side"))
    frames, _ = decisions_of(store.frames, 3, recorded=False)
    top, side = spaces.apart(Sight(store, spaces)(frames["observation"])["image"])
    for row, number in ((0, 0), (5, 5), (len(top) - 1, 20)):
        for found, true in ((top, scene(number)), (side, scene(number)[::-1][:16, :16])):
            assert np.abs(found[row].permute(1, 2, 0).numpy() - true.astype(int)).mean() < 6, row
    with pytest.raises(UserError, match=r"images of the logs are \(\(3, 32, 32\), \(3, 16, 16\)\), the policy takes"):
        Sight(store, VLASpaces((6, 32, 32), 3, (-1.0,), (1.0,), 3))(frames["observation"])


def test_videos_of_another_size_than_the_dataset_says_are_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    info = folder / "meta" / "info.json"
    info.write_text(info.read_text().replace('"shape": [32, 32, 3]', '"shape": [64, 64, 3]'))
    with pytest.raises(UserError, match=r"set, episode 0: its images are \(32, 32, 3\), where \(64, 64, 3\) is said"):
        store_of(folder, tmp_path)


def test_without_a_camera_videos_are_left_where_they_are(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    store = store_of(folder, tmp_path, None)
    assert (store.album, store.facts.interface.image) == (None, None)
    assert any(f"not read: {CAMERA}" in note for note in store.facts.notes)
    assert store.facts.key != store_of(folder, tmp_path).facts.key


@pytest.mark.parametrize(
    ("missing", "changes", "said"),
    [
        (3, {}, r"episode 1, step 6: .*file-000.mp4 has no frame at 0.225 s"),
        (0, {f"videos/{CAMERA}/file_index": [0, 1]}, "file-001.mp4 is no video that can be read"),
        (0, {"episode_index": [0, 7]}, "does not say where episode 1 is in the videos"),
        (0, {f"videos/{CAMERA}/from_timestamp": [None, None]}, "does not say where its episodes are"),
    ],
)
def test_what_is_missing_is_named(missing: int, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        store_of(write_dataset(tmp_path / "set", missing, **changes), tmp_path)


def test_metadata_that_cannot_be_read_are_named_alone(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set")
    (path,) = (dataset / "meta" / "episodes").rglob("*.parquet")
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=rf"^{path} cannot be read: "):
        store_of(dataset, tmp_path)


def test_an_unknown_camera_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"no videos of a camera 'wrist'; .*may name: {CAMERA}"):
        store_of(write_dataset(tmp_path / "set"), tmp_path, "wrist")


def test_decisions_that_were_recorded_are_taken_as_they_were(tmp_path: Path) -> None:
    places = np.concatenate([np.arange(length) % 3 for length in LENGTHS])
    said = np.zeros((sum(LENGTHS), 3))
    recorded = {"policy.latent": said.astype(np.int64), "policy.log_prob": said - 1, "policy.chunk_step": places}
    theirs = write_dataset(tmp_path / "recorded", columns=recorded)
    options = IngestOptions(cache=tmp_path, workers=1, camera=CAMERA, audit=0)
    store = ingest([theirs], options, progress=False)
    assert store.decided
    frames, _ = decisions_of(store.frames, 3, store.decided)
    assert frames["executed"].sum(1).tolist() == [3] * 7, "21 steps, three at a time and none of them twice"
    bare = write_dataset(tmp_path / "bare")
    assert not ingest([bare], options, progress=False).decided
    with pytest.raises(UserError, match=r"recorded and .*bare one says on which steps its policy decided at once"):
        ingest([theirs, bare], options, progress=False)


@pytest.mark.usefixtures("no_plot")
def test_chunks_are_cloned_from_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "config": "bc.yaml", "data__ingest__camera": CAMERA, "data__action_low": "[0,0,0]",
        "data__action_high": "[1,1,1]",
        "model__policy": "gipo.vla.policies.VLATokenPolicy", "data__batch": 8, "data__chunk": 4,
    }  # fmt: skip
    main(fit_args(tmp_path / "run", write_dataset(tmp_path / "set"), **options))
    policy = policy_from(load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert isinstance(policy, VLATokenPolicy)
    assert policy.spaces.decision == (4, 3)
    with pytest.raises(SystemExit):
        main(fit_args(tmp_path / "none", tmp_path / "set", **{**options, "data__chunk": None}))
    assert "give data.chunk" in capsys.readouterr().err
    objective = {"model__objective": "GIPO", "config": "bc.yaml"}
    with pytest.raises(SystemExit):
        main(fit_args(tmp_path / "ratios", tmp_path / "set", **{**options, **objective}))
    assert "is not modelled; clone them" in capsys.readouterr().err


def test_an_episode_of_several_tasks_is_told_none_of_them(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", tasks=[["stack", "fold"], ["stack"]])
    with pytest.raises(UserError, match="episode 0: it has 2 tasks, 'stack', 'fold', and a policy is told one for an"):
        store_of(folder, tmp_path)
    options = IngestOptions(cache=tmp_path, workers=1, camera=CAMERA, bad_episodes="skip")
    assert len(ingest([folder], options, progress=False).frames) == LENGTHS[1]
    assert store_of(write_dataset(tmp_path / "text", tasks=["stack", "stack"]), tmp_path).facts.instructions == (
        "stack",
    )


def test_a_dataset_of_links_is_read_as_the_cache_of_a_hub_has_it(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    for number, file in enumerate([each for each in folder.rglob("*") if each.is_file()]):
        blob = tmp_path / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        file.rename(blob)
        file.symlink_to(blob)
    assert len(store_of(folder, tmp_path).frames) == sum(LENGTHS)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (("[32, 32, 3]", '["a", 32, 3]'), r"have the shape \['a', 32, 3\]; it must be \[height, width, 3\]"),
        (('"fps"', '"video_path": "../x.mp4", "fps"'), "a video outside of the dataset"),
        (('"fps"', '"video_path": "/tmp/x.mp4", "fps"'), "a video outside of the dataset"),
        (('"fps"', '"video_path": "x\\u0000.mp4", "fps"'), "a video outside of the dataset"),
        (('"fps"', '"video_path": "videos/{video_key.foo}.mp4", "fps"'), "does not say where its episodes are"),
    ],
)
def test_what_the_metadata_must_not_say_is_one_line(info: tuple[str, str], said: str, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    file = folder / "meta" / "info.json"
    file.write_text(file.read_text().replace(*info))
    with pytest.raises(UserError, match=said):
        store_of(folder, tmp_path)


@pytest.mark.parametrize("begin", [np.inf, np.nan, -1.0, 1e15])
def test_a_moment_that_no_video_has_is_one_line(begin: float, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", **{f"videos/{CAMERA}/from_timestamp": [0.0, begin]})
    with pytest.raises(UserError, match=r"does not say where its episodes are in the .* that begins at"):
        store_of(folder, tmp_path)


def test_a_feature_whose_names_say_the_order_is_read_by_them(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set")
    file = folder / "meta" / "info.json"
    text = file.read_text().replace('["height", "width", "channels"]', '["channels", "height", "width"]')
    file.write_text(text.replace("[32, 32, 3]", "[3, 32, 32]"))
    assert store_of(folder, tmp_path).facts.interface.image == (3, 32, 32)


def test_cameras_that_end_alike_are_named_by_all_that_differs(tmp_path: Path) -> None:
    assert _short(["observation.images.left.rgb", "observation.images.right.rgb"]) == ("left.rgb", "right.rgb")
    assert _short(["observation.images.top", "observation.images.left.rgb"]) == ("top", "rgb")


def test_a_video_that_gives_other_frames_than_it_says_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dataset(tmp_path / "set")
    whole = lerobot_videos.blocks_between
    monkeypatch.setattr(
        lerobot_videos, "blocks_between", lambda *what: ((data, [*shown, 9.0]) for data, shown in whole(*what))
    )
    with pytest.raises(UserError, match=r"episode 0: .*file-000.mp4: a video of 5 frames gives 4 when it is decoded"):
        store_of(folder, tmp_path)


def test_a_playlist_under_the_name_of_a_video_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(png(np.zeros((16, 16, 3), np.uint8)))
    film = tmp_path / "file-000.mp4"
    film.write_text("ffconcat version 1.0\nfile other.png\n")
    with pytest.raises(UserError, match=r"is no video that can be read: .*; copy it again$"):
        list(blocks_between(film, 0.0, 1.0))
