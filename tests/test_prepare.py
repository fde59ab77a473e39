"""From a folder of videos to samples and training: tiny films of a real dancer, 5 frames of 64×48 or 48×64 px."""

import errno
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import cv2
import film
import numpy as np
import pytest
import torch
from animate_anywhere.training import (
    checkpoint,
    configuration,
    dataset,
    encoded,
    prepare,
    samples,
    stage,
    supply,
    train,
)
from animate_anywhere.vision.detectors import BlazePose

pytest_plugins = ["training_toys"]

DATA = configuration.Data(frames=5, sizes=((64, 48), (48, 64)), fps=10.0)


def shrunk(dance, width, height, frames):
    """The dancer, upright in the middle of ``width``×``height`` px."""
    pictures = (dance[frames, 25:325, 75:275] * 255).round().to(torch.uint8).numpy()  # 2:3
    inner = [cv2.resize(picture, (2 * height // 3, height), interpolation=cv2.INTER_AREA) for picture in pictures]
    side = width - 2 * height // 3
    return np.pad(np.stack(inner), ((0, 0), (0, 0), (side // 2, side - side // 2), (0, 0)), mode="reflect")


@pytest.fixture(scope="module")
def footage(dance, tmp_path_factory):
    """Three videos of use and three that are of none."""
    folder = tmp_path_factory.mktemp("footage")
    wide = shrunk(dance, 160, 120, slice(0, 15))
    film.write(folder / "a.mp4", wide)
    (folder / "a.txt").write_text("A woman dances.\n")
    film.write(folder / "more" / "b.mp4", wide[:10, :, ::-1])
    cameras(folder / "more" / "b.camera.txt", 10)
    film.write(folder / "tall.mov", shrunk(dance, 96, 128, slice(20, 25)))
    film.write(folder / "short.mp4", wide[:3])
    film.write(folder / "wall.mp4", film.numbered(6, 96, 128))
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    return folder


def cameras(path, count):
    rows = [
        "https://example.org",
        *(f"{at} 0.5 0.7 0.5 0.5 0 0 1 0 0 {0.1 * at} 0 1 0 0 0 0 1 2" for at in range(count)),
    ]
    path.write_text("\n".join(rows))


@pytest.fixture(scope="module")
def prepared(footage, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    assert prepare.prepare_all(footage, out, DATA) == {"videos": 6, "clips": 6, "skipped": 3}
    return out


@pytest.fixture
def data(prepared):
    return replace(DATA, folder=str(prepared))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def entry_of(out, source):
    return next(entry for entry in dataset.read_entries(out) if entry["source"] == source)


# --- what is prepared -------------------------------------------------------------------------------------------------


def test_videos_of_no_use_are_listed_with_the_reason(prepared):
    lines = (prepared / prepare.REPORT).read_text().splitlines()
    assert [line.split(": ")[0] for line in lines] == ["broken.mp4", "short.mp4", "wall.mp4"]
    assert "cannot be" in lines[0]
    assert lines[1].endswith("it is too short: 3 frames at 10 a second, and a clip has 5")
    assert lines[2].endswith("nobody is seen")


def test_captions_are_kept(prepared):
    assert entry_of(prepared, "a.mp4")["caption"] == "A woman dances."


def test_a_clip_holds_the_person_and_a_picture_without(prepared):
    entry = entry_of(prepared, "a.mp4")
    assert entry["takes"][0]["clips"] == [0, 5, 10]
    clip = dataset.read_clip(entry["folder"], "0.5")
    assert clip.frames.shape == clip.clean.shape == (5, 48, 64, 3)
    assert clip.cameras is None
    person = clip.person[0]
    assert 0.1 < person.mean() < 0.6
    trunk = clip.pose.keypoints[0, 0, [1, 8, 11], :2].astype(int)
    assert person[trunk[:, 1], trunk[:, 0]].all()
    outside = cv2.dilate(person.astype(np.uint8), np.ones((15, 15))) == 0  # grown, and a soft edge
    change = np.abs(clip.frames[0].astype(int) - clip.clean[0]).mean(-1)
    assert change[person].mean() > 5 * change[outside].mean()


def test_hands_are_the_part_of_the_person_beyond_the_wrists(prepared):
    entry = entry_of(prepared, "a.mp4")
    clip = dataset.read_clip(entry["folder"], "0.0")
    assert not (clip.hands & ~clip.person).any()
    assert 0 < clip.hands.mean() < 0.15 * clip.person.mean()
    frame, row, column = np.argwhere(clip.hands).T
    wrists = clip.pose.keypoints[frame, 0][:, [4, 7], :2]  # [N, 2, 2]
    apart = np.linalg.norm(wrists - np.stack([column, row], -1)[:, None], axis=-1).min(1)
    assert apart.max() < 0.2 * 48  # px; a hand is a tenth of the body


def test_cameras_are_those_of_the_frames_that_were_read(footage, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b.mp4", "b.camera.txt"):
        (tmp_path / "b" / name).write_bytes((footage / "more" / name).read_bytes())
    prepare.prepare_all(tmp_path / "b", tmp_path / "out", replace(DATA, fps=5.0))  # every other frame
    entry = entry_of(tmp_path / "out", "b.mp4")
    clip = dataset.read_clip(entry["folder"], "0.0")
    assert clip.cameras.translation[:, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    # 160×120 px fill 64×48 exactly.
    assert clip.cameras.intrinsics[0].tolist() == [[32, 0, 32], [0, pytest.approx(33.6), 24], [0, 0, 1]]


def test_cameras_that_do_not_match_are_named(footage, tmp_path):
    film_there = tmp_path / "videos" / "b.mp4"
    film_there.parent.mkdir()
    film_there.write_bytes((footage / "more" / "b.mp4").read_bytes())
    other = tmp_path / "cameras"
    other.mkdir()
    cameras(other / "b.txt", 9)
    with pytest.raises(ValueError, match=r"b.txt: there are 9 lines with cameras, and the video has 10 frames"):
        prepare.prepare_all(film_there.parent, tmp_path / "out", DATA, cameras=other)


def test_only_joints_inside_the_crop_are_seen(prepared):
    for entry in dataset.read_entries(prepared):
        for take, found in enumerate(entry["takes"]):
            for at in found["clips"]:
                pose = dataset.read_clip(entry["folder"], f"{take}.{at}").pose
                points = pose.keypoints[pose.seen]
                assert (points[:, :2] >= 0).all() and (points[:, :2] < [pose.width, pose.height]).all()


# --- going on, and sharing --------------------------------------------------------------------------------------------


def test_interrupted_preparation_goes_on_and_ends_alike(footage, prepared, tmp_path, monkeypatch):
    follow, seen = BlazePose.follow, []

    def stop_at_the_second(self, frames, progress=None):
        seen.append(len(frames))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return follow(self, frames, progress)

    with monkeypatch.context() as patch:
        patch.setattr(BlazePose, "follow", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare_all(footage, tmp_path, DATA)
    first = entry_of(tmp_path, "a.mp4")["folder"] / dataset.ENTRY
    written = first.stat().st_mtime_ns
    assert len(dataset.read_entries(tmp_path)) == 2  # the second one's folder is there, but has not got its name
    prepare.prepare_all(footage, tmp_path, DATA)
    assert tree(tmp_path) == tree(prepared)
    assert first.stat().st_mtime_ns == written


def test_shards_and_workers_make_together_what_one_run_makes(footage, prepared, tmp_path):
    prepare.prepare_all(footage, tmp_path, DATA, shard="2/2")
    assert 0 < len(dataset.read_entries(tmp_path)) < 6
    cv2.warpAffine(
        np.zeros((2000, 2000, 3), np.uint8), np.eye(2, 3), (2000, 2000)
    )  # OpenCV has threads; a fork has not
    prepare.prepare_all(footage, tmp_path, DATA, shard="1/2", workers=2)
    assert tree(tmp_path) == tree(prepared)


def test_a_video_that_changed_is_prepared_anew(footage, tmp_path, caplog):
    videos = tmp_path / "videos"
    videos.mkdir()
    content = (footage / "tall.mov").read_bytes()
    (videos / "a.mp4").write_bytes(content[:900])
    (videos / "b.mp4").write_bytes(content)
    out = tmp_path / "out"
    assert prepare.prepare_all(videos, out, DATA)["skipped"] == 1
    (videos / "a.mp4").write_bytes(content)
    with caplog.at_level(logging.INFO):
        assert prepare.prepare_all(videos, out, DATA)["skipped"] == 0
    assert "1 of 2 videos are there already" in caplog.text
    assert (out / prepare.REPORT).read_text() == ""


def test_a_full_disk_stops_with_nothing_half_done(footage, tmp_path, monkeypatch):
    write = Path.write_bytes

    def write_bytes(self, content):
        if self.name.endswith("0.clean.mp4"):
            write(self, content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_bytes)
        with pytest.raises(prepare.PreparationError, match=r"a.mp4 could not be prepared: .*No space left.* goes on"):
            prepare.prepare_all(footage, tmp_path, DATA)
    assert [path.name for path in (tmp_path / dataset.VIDEOS).iterdir()] == []


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_an_unknown_shard_is_named(footage, tmp_path, shard):
    with pytest.raises(ValueError, match=f"--shard {shard}: expected i/n"):
        prepare.prepare_all(footage, tmp_path, DATA, shard=shard)


def test_a_folder_without_videos_is_named(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"videos: there are none in .*Known are \.mp4, \.mov"):
        prepare.prepare_all(tmp_path, tmp_path / "out", DATA)
    with pytest.raises(ValueError, match="videos: there is no folder"):
        prepare.prepare_all(tmp_path / "nothing", tmp_path / "out", DATA)


def test_a_dataset_of_other_settings_is_not_mixed_up(footage, prepared):
    with pytest.raises(ValueError, match=r"other settings: frames was 5, is 13; fps was 10.0, is 12.0"):
        prepare.prepare_all(footage, prepared, replace(DATA, frames=13, fps=12.0))


def test_nothing_left_is_an_error_with_the_first_reason(footage, tmp_path):
    (tmp_path / "short.mp4").write_bytes((footage / "short.mp4").read_bytes())
    with pytest.raises(ValueError, match="None of the 1 videos in .* is of use.*short.mp4: it is too short"):
        prepare.prepare_all(tmp_path, tmp_path / "out", DATA)


def test_a_dataset_that_does_not_fit_the_configuration_is_named(data, prepared, tmp_path):
    there = dataset.load(data.folder)
    with pytest.raises(ValueError, match=r"have 5 frames, and data.frames is 13"):
        there.check(replace(data, frames=13))
    with pytest.raises(ValueError, match=r"no clips of 32×32 px in .*data.sizes=\[\[64, 48\], \[48, 64\]\]"):
        there.check(replace(data, sizes=((64, 48), (32, 32))))
    with pytest.raises(ValueError, match="holds no dataset"):
        dataset.Dataset(tmp_path)


# --- samples ----------------------------------------------------------------------------------------------------------


def equal(one: samples.Sample, other: samples.Sample) -> bool:
    names = ("frames", "pose", "background", "environment", "character", "person", "hands")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def test_a_sample_has_what_it_says_and_is_a_function_of_its_number(data):
    sample = samples.draw_sample(data, 0)
    assert sample.frames.shape == sample.pose.shape == sample.environment.shape == (5, 48, 64, 3)
    assert sample.background.shape == sample.character.shape == (1, 48, 64, 3)
    assert sample.person.shape == sample.hands.shape == (5, 48, 64)
    assert samples.draw_sample(data, 1).frames.shape == (5, 64, 48, 3)  # sizes take turns
    assert equal(sample, samples.draw_sample(data, 0))
    assert sample.pose.float().mean() > 0


def test_every_clip_comes_once_before_one_comes_again_and_then_in_another_setting(data):
    there = dataset.load(data.folder)
    count = len(there.trained[64, 48])
    rounds = [[there.place(data, 0, turn, False)[1:] for turn in range(first, first + count)] for first in (0, count)]
    assert count > 1
    assert sorted(rounds[0]) == sorted(rounds[1]) == sorted(place[1:] for place in there.trained[64, 48])
    drawn = [samples.draw_sample(data, 2 * turn) for turn in range(2 * count)]
    for sample in drawn[:count]:
        again = next(other for other in drawn[count:] if torch.equal(other.frames, sample.frames))
        assert not torch.equal(again.character, sample.character)


def test_held_out_videos_are_never_trained_on(data, caplog):
    there = dataset.load(data.folder)
    sources = [{place.entry["source"] for place in part[64, 48]} for part in (there.trained, there.held_out)]
    assert all(sources) and not sources[0] & sources[1]
    numbers = samples.held_out_numbers(data, 4)
    assert min(numbers) >= stage.HELD_OUT and {number % 2 for number in numbers} == {0}
    back = [samples.draw_sample(data, number).frames for number in numbers]
    trained = [samples.draw_sample(data, 2 * turn).frames for turn in range(3)]
    assert not any(torch.equal(one, other) for one in back for other in trained)


def test_what_is_held_out_follows_from_names_alone():
    names = [f"video{number}.mp4" for number in range(1000)]
    kept_back = dataset.held_out(names)
    assert 30 < len(kept_back) < 75  # five of a hundred
    assert dataset.held_out(names[:500]) == kept_back & set(names[:500])
    assert len(dataset.held_out(names[:2])) == 1 and not dataset.held_out(names[:1])


def test_the_character_is_from_another_moment_than_the_clip(data):
    there = dataset.load(data.folder)
    place = dataset.Place(entry_of(Path(data.folder), "a.mp4"), 0, 5)
    files = {
        path.read_bytes() for path in place.entry["folder"].glob("0.*.png") if not 5 <= int(path.suffixes[0][1:]) < 10
    }
    assert files
    for seed in range(8):
        chosen = there.character(place, np.random.default_rng(seed))
        assert dataset.character_file(chosen) in files


# --- training ---------------------------------------------------------------------------------------------------------

CHANGES = ("data.frames=5", "data.sizes=[[64, 48], [48, 64]]", "run.steps=3")


def test_a_prepared_folder_trains_and_resumes(toy, data, prepared, tmp_path):
    changes = [*CHANGES, "optimiser.schedule=constant", "run.sample_every=3", "run.sample_steps=2"]
    there = f"data.folder={prepared}"
    assert train.Trainer(toy("base", *changes, there), tmp_path, "one").run()
    folder = tmp_path / "one" / "base"
    assert (folder / "sheets" / "00000003.png").is_file()
    state = json.loads((checkpoint.newest(folder) / checkpoint.STATE).read_text())
    assert state["dataset"] == dataset.load(data.folder).identity
    with pytest.raises(ValueError, match="trained on other clips than those in data.folder"):
        train.Trainer(toy("base", *changes), tmp_path, "one", resume=True)
    assert train.Trainer(toy("base", *changes, there, "run.steps=4"), tmp_path, "one", resume=True).run()


def test_clips_of_a_folder_can_be_kept(toy, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "SHARD", 2)
    settings = toy("base", *CHANGES, f"data.folder={prepared}", "data.keep=true", "data.clips=4")
    vae = configuration.ROOT / settings.model.vae
    assert train.Trainer(settings, tmp_path, "one").run()
    kept = encoded.Kept(tmp_path, settings, vae)
    assert kept.missing() == []
    staged = encoded.Kept(tmp_path, toy("base", *CHANGES, "data.keep=true", "data.clips=4"), vae)
    assert staged.folder != kept.folder


def test_a_folder_that_does_not_fit_stops_before_anything_is_built(toy, prepared):
    settings = toy("base", "data.frames=5", f"data.folder={prepared}")
    with pytest.raises(ValueError, match=r"no clips of .* px"):
        supply.Supply(replace(settings, data=replace(settings.data, sizes=((32, 32),))), None, torch.device("cpu"))
