"""Logs of cameras that were spoilt: they are refused by name, or what is good of them is learned from."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.ingest import IngestOptions, Store, ingest, load_store
from datamodules.replay.decisions import decisions_of
from datamodules.replay.sight import Sight
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from robots.log import LogWriter, verify
from robots.log.images import SIGNATURES, Image
from robots.review.audit import audit
from tests.datamodules.ingest.builders import assert_equal_frames
from tests.datamodules.ingest.test_store import forked, half_made, wait_until_half_made
from tests.robots.log.test_log import mutate
from tests.sight import TASK, Seeing, make_seeing

CHUNK = TASK.chunk


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return make_seeing(tmp_path_factory.mktemp("seeing"), logs=False)


def store_of(seeing: Seeing, log: Path, cache: Path, **options: float | str) -> Store:
    chosen = {"audit": 1.0, **options}
    return ingest([log], IngestOptions(policies=seeing.folder, cache=cache, workers=1, **chosen), progress=False)  # type: ignore[arg-type]


def learnable(store: Store) -> int:
    """Decisions of a store, each of which is looked at as learning does."""
    frames, _ = decisions_of(store.frames, CHUNK)
    seen = Sight(store, TASK.spaces(TASK.make(1, 0)))(frames["observation"])
    assert seen["image"].shape[1:] == (3, 16, 16)
    return len(frames)


def drifts(seeing: Seeing, folder: Path, **options: float) -> Store:
    path = folder / "film.mcap"
    if not path.exists():
        seeing.log(path, episodes=3, video="h264")
    return store_of(seeing, path, folder, **options)


def test_what_decoding_changed_is_measured_and_the_logged_log_probs_stay(seeing: Seeing, tmp_path: Path) -> None:
    store = drifts(seeing, tmp_path, audit=0.05)
    audit = store.facts.audit
    assert audit.from_video == store.facts.steps, "of videos, every step is recomputed"
    assert 1e-5 < audit.drift < audit.drift_max
    (note,) = [note for note in store.facts.notes if "videos" in note]
    assert f"{audit.unlike:,} of {audit.from_video:,} steps differ by more than the tolerance" in note
    trusted = drifts(seeing, tmp_path, audit=0.0)
    valid = store.frames["valid"].numpy()
    np.testing.assert_array_equal(store.frames["log_prob"].numpy()[valid], trusted.frames["log_prob"].numpy()[valid])
    assert learnable(store) == 3 * 3


def test_steps_beyond_the_tolerance_have_no_ratio_and_are_counted(seeing: Seeing, tmp_path: Path) -> None:
    loose = drifts(seeing, tmp_path, video_tolerance=100.0)
    drift = loose.facts.audit.drift
    store = drifts(seeing, tmp_path, video_tolerance=drift)
    assert loose.facts.audit.unlike == 0
    assert 0 < store.facts.audit.unlike < store.facts.steps
    assert int(store.frames["valid"].sum()) == store.facts.steps - store.facts.audit.unlike
    assert (store.frames["log_prob"][~store.frames["valid"]] == 0).all()
    with pytest.raises(UserError, match="video_tolerance must be at least 0 nats, got -1"):
        IngestOptions(video_tolerance=-1)


def test_an_audit_tells_drift_from_lies(seeing: Seeing, tmp_path: Path) -> None:
    path = seeing.log(tmp_path / "film.mcap", episodes=2, video="h264")
    policy = OnnxPolicy.load(seeing.artifact)
    found = audit([path], {policy.policy_id: policy})
    found.check()
    assert len(found.drift) == 24
    assert (found.unseen, found.unreplayed, found.log_prob, found.action) == (0, 0, {}, {})
    assert "of 24 steps whose images are a video's, log-probs differ by" in found.text()


def test_an_image_that_the_policy_did_not_see_is_found(seeing: Seeing, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        true = LogWriter.image
        patch.setattr(LogWriter, "image", lambda log, row: true(log, row._replace(pixels=255 - row.pixels)))
        path = seeing.log(tmp_path / "a.mcap", episodes=1)
    with pytest.raises(UserError, match=r"a\.mcap, episode 0, step \d+: log_prob is off by"):
        store_of(seeing, path, tmp_path)


def test_an_image_that_cannot_be_decoded_costs_its_episode_where_bad_ones_are_skipped(
    seeing: Seeing, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        true = LogWriter.image

        def spoil(log: LogWriter, row: Image) -> None:
            true(log, row._replace(pixels=SIGNATURES["jpeg"]) if (row.episode, row.step) == (1, 4) else row)

        patch.setattr(LogWriter, "image", spoil)
        path = seeing.log(tmp_path / "a.mcap", episodes=3)
    with pytest.raises(UserError, match=r"a.mcap, episode 1: an image cannot be decoded"):
        store_of(seeing, path, tmp_path, audit=0.0)
    store = store_of(seeing, path, tmp_path, audit=0.0, bad_episodes="skip")
    (skipped,) = store.facts.skipped
    assert skipped[0].endswith("a.mcap, episode 1")
    assert skipped[1].startswith("an image cannot be decoded")
    assert learnable(store) == 2 * 3


def test_a_camera_is_for_datasets_alone(seeing: Seeing, tmp_path: Path) -> None:
    path = seeing.log(tmp_path / "a.mcap", episodes=1)
    with pytest.raises(UserError, match=r"data.ingest.camera names 'top' of datasets, and there is none"):
        store_of(seeing, path, tmp_path, camera="top")


def test_lost_images_cost_their_decisions(seeing: Seeing, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        true = LogWriter.image
        patch.setattr(LogWriter, "image", lambda log, row: None if row.step in (4, 12) else true(log, row))
        path = seeing.log(tmp_path / "a.mcap", episodes=1)
    store = store_of(seeing, path, tmp_path)
    frames, left = decisions_of(store.frames, CHUNK)
    assert frames["executed"].sum(1).tolist() == [3, 3], "the second is gone, and what had no image behind it"
    assert left == 6


def test_a_log_of_which_nothing_was_audited_is_named(seeing: Seeing, tmp_path: Path) -> None:
    whole = seeing.log(tmp_path / "a.mcap", episodes=1)
    with pytest.MonkeyPatch.context() as patch:
        true = LogWriter.image
        patch.setattr(LogWriter, "image", lambda log, row: None if row.step % CHUNK == 0 else true(log, row))
        blind = seeing.log(tmp_path / "b.mcap", episodes=1)
    options = IngestOptions(policies=seeing.folder, cache=tmp_path / "cache", workers=1)
    notes = ingest([whole, blind], options, progress=False).facts.notes
    assert f"no log-prob of {blind} was audited: what the policy saw is not in it" in notes
    assert not any(str(whole) in note for note in notes)


def test_a_torn_log_gives_what_came_before(seeing: Seeing, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robots.log.container.BLOCK_TARGET", 8 << 10)  # several blocks, as longer sessions have
        whole = seeing.log(tmp_path / "a.mcap", episodes=4)
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(whole.read_bytes()[: int(0.8 * whole.stat().st_size)])
    assert verify(torn).status == "torn"
    store = store_of(seeing, torn, tmp_path)
    assert 0 < store.facts.steps < 48
    assert 0 < learnable(store) < 12


def spoilt(seeing: Seeing, folder: Path, seed: int, video: str) -> str:
    """One mutant: images that were changed before the log was sealed, or a log that was changed behind it; its fate."""
    chance = random.Random(seed)
    path = folder / "a.mcap"
    if seed % 2:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("robots.log.writer.camera_row", changing(chance))
            patch.setattr("robots.log.images.camera_row", changing(chance))
            seeing.log(path, episodes=1, video=video)
    else:
        whole = folder.parent / f"whole-{video}.mcap"
        if not whole.exists():
            seeing.log(whole, episodes=1, video=video)
        path.write_bytes(mutate(whole.read_bytes(), chance))
    before = path.read_bytes()
    try:
        store = store_of(seeing, path, folder / "cache", audit=float(chance.random() < 0.5))
        learnable(store)
        return "learned"
    except UserError as error:
        return str(error)
    finally:
        assert path.read_bytes() == before
        assert not list(folder.glob("cache/*.partial"))


def changing(chance: random.Random) -> Callable[..., dict[str, object]]:
    """`camera_row` that spoils one image in four."""
    from robots.log import images

    true = images.camera_row

    def changed(image: images.Image, encoded: bytes, form: str) -> dict[str, object]:
        row = true(image, mutate(encoded, chance) if chance.random() < 0.25 else encoded, form)
        if chance.random() < 0.05:
            row |= chance.choice([{"format": "webp"}, {"step": image.step + 1}, {"frame_id": "other"}])
        return row

    return changed


def fates(seeing: Seeing, folder: Path, seeds: range) -> set[bool]:
    """Whether each mutant was learned from; nothing else than a refusal ends one that was not."""
    found = set()
    for seed in seeds:
        own = folder / "one"
        own.mkdir()
        found.add(spoilt(seeing, own, seed, ("", "h264")[seed // 2 % 2]) == "learned")
        shutil.rmtree(own)
    return found


def test_spoilt_logs_of_cameras_are_refused_or_learned_from(seeing: Seeing, tmp_path: Path) -> None:
    assert fates(seeing, tmp_path, range(16)) <= {True, False}


@pytest.mark.campaign
def test_1000_spoilt_logs_of_cameras(seeing: Seeing, tmp_path: Path) -> None:
    assert fates(seeing, tmp_path, range(1000)) == {True, False}


def killed(seeing: Seeing, folder: Path, times: int) -> None:
    """Ingests of two camera logs that are killed leave nothing half made, and the next one makes the whole store."""
    logs = [seeing.log(folder / f"{video or 'png'}.mcap", episodes=20, video=video) for video in ("", "h264")]
    options = {"policies": seeing.folder, "workers": 1, "audit": 1.0}
    # The first time in a process takes longer than any other.
    for cache in ("warm", "whole"):
        began = time.monotonic()
        whole = ingest(logs, IngestOptions(cache=folder / cache, **options), progress=False)  # type: ignore[arg-type]
    duration, chance = time.monotonic() - began, random.Random(times)
    made, interrupted = folder / "cache", 0
    for attempt in range(times):
        child = forked(lambda: ingest(logs, IngestOptions(cache=made, **options), progress=False))  # type: ignore[arg-type]
        wait_until_half_made(made)
        time.sleep(chance.uniform(0, 0.6) * duration * bool(attempt))  # the first time as soon as it has begun
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = [each for each in made.iterdir() if each.is_dir()] if made.exists() else []
        interrupted += bool(half_made(made))
        for each in left:
            if each.suffix != ".partial":
                assert_equal_frames(load_store(each), whole)
                shutil.rmtree(each)
    assert interrupted
    again = ingest(logs, IngestOptions(cache=made, **options), progress=False)  # type: ignore[arg-type]
    assert again.facts == whole.facts
    assert_equal_frames(again, whole)
    assert again.album is not None
    assert whole.album is not None
    numbers = whole.frames["picture"].flatten().numpy()
    np.testing.assert_array_equal(again.album[numbers], whole.album[numbers])


def test_killed_ingests_of_camera_logs_leave_nothing_half_made(seeing: Seeing, tmp_path: Path) -> None:
    killed(seeing, tmp_path, 2)


@pytest.mark.campaign
def test_20_killed_ingests_of_camera_logs(seeing: Seeing, tmp_path: Path) -> None:
    killed(seeing, tmp_path, 20)
