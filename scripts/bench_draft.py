"""How good the draft shot is, and how quick: joints, pictures, edges and seconds, and a sheet of frames to look at.

    $(python3 scripts/host.py --python) scripts/bench_draft.py [--data FOLDER] [--sheet docs/draft.jpg] [--only NAME …]

Six characters out of ComfyUI's template packages follow three drivers: the dance of those packages, and, where FOLDER
has them, juggle.mp4 and worker_walking.gif. The pose is found again in each draft, by the driver's own detector.
"""

import argparse
import importlib.util
import sys
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pack
from PIL import Image, ImageSequence

DATA = pack.ROOT.parent / "shared" / "data"
PREFIX = "comfyui_workflow_templates_media_"
# Pictures of people: package, file, and the part of it (left, top, right, bottom) that shows one person.
CHARACTERS = {
    "explorer": ("image", "image_flux2_klein_9b_kv_image_edit-1.webp", (130, 0, 400, 400)),
    "elf": ("image", "3d_hunyuan3d_multiview_to_model-2.webp", None),
    "coat": ("other", "utility_bria_remove_image_background-2.webp", None),
    "astronaut": ("other", "templates_mjm_image_to_3d-1.webp", None),
    "anime": ("video", "video_wan2_2_14B_fun_control-1.webp", None),
    "dancer": ("api", "api_kling_omni_v2v-2.webp", None),
}
DANCE = ("api", "api_kling_omni_v2v-2.webp")
PLACE = ("other", "utility_depth_anything3_video_depth_estimation-2.webp")
DRIVERS = ("dance", "juggle", "walk")
CLIP_FRAMES = 45  # of the longer clips, as many as the dance has
GOALS = {"joints": 2.5, "worst": 6.0, "own": 40.0, "real": 16.0, "iou": 0.85, "350": 2.0, "700": 6.0, "sparkle": 0.1}
SIDE = 700  # px, the longer side of the drafts
FLIP = 0.5  # of alpha, within a frame and back in the next
HOLE_PX = 12  # a hole of so few pixels in the mask is one of the mesh, not of the pose
SHEET_FRAMES, TILE = 6, 110  # a row of the sheet, and the height of its pictures in px
QUALITY = 80


@dataclass
class Row:
    """What was measured of one draft; ``joints`` in % of the body's height, ``holes`` in % of the character's pixels,
    ``sparkle`` in % of the frames' pixels, and ``moving`` the same pixels in % of the character's."""

    joints: float
    swapped: bool
    holes: float
    sparkle: float
    moving: float


def template(package: str, name: str) -> Path:
    found = importlib.util.find_spec(PREFIX + package)
    return Path(next(iter(found.submodule_search_locations))) / "templates" / name


def frames_of(path: Path, step: int = 1, last: int | None = None):
    """The frames [T, h, w, 3] in 0…1 of a video or an animated picture."""
    import torch

    if path.suffix == ".mp4":
        from animate_anywhere.training import videos

        return torch.from_numpy(videos.read(path)[:last:step]).float() / 255
    with Image.open(path) as clip:
        every = islice(ImageSequence.Iterator(clip), 0, last, step)
        frames = [np.array(frame.convert("RGB")) for frame in every]
    return torch.from_numpy(np.stack(frames)).float() / 255


def character(name: str):
    """The picture [1, h, w, 3] of a character."""
    package, file, box = CHARACTERS[name]
    with Image.open(template(package, file)) as picture:
        first = np.array(picture.convert("RGB").crop(box))
    import torch

    return torch.from_numpy(first)[None].float() / 255


def drivers(data: Path) -> dict:
    """The driving clips that are there, by name."""
    found = {"dance": frames_of(template(*DANCE))}
    if (data / "juggle.mp4").is_file():
        found["juggle"] = frames_of(data / "juggle.mp4", last=CLIP_FRAMES)
    if (data / "worker_walking.gif").is_file():
        found["walk"] = frames_of(data / "worker_walking.gif", last=CLIP_FRAMES)
    return found


def pose_of(frames) -> list[dict]:
    from animate_anywhere.nodes.pose import ExtractPose

    return ExtractPose.execute(frames, "blazepose", 0.3).result[0]


def draft(picture, pose, background, **inputs):
    from animate_anywhere.nodes.draft.draft_shot import DraftShot

    return DraftShot.execute(picture, pose, background, **inputs).result


def joint_error(images, pose: list[dict]) -> tuple[float, bool]:
    """The mean distance of the joints found again in a draft from those it was drawn with, % of the body's height; and
    whether right and left were found swapped, as in a mirrored front that stands for a back."""
    from animate_anywhere.nodes.detection import WEIGHTS
    from animate_anywhere.vision import detectors
    from animate_anywhere.vision.draft.order import steady
    from animate_anywhere.vision.pose import PoseTrack

    wanted = PoseTrack.from_openpose(pose).keypoints[:, 0]
    found = detectors.load_blazepose(WEIGHTS).follow(images).pose.keypoints[:, 0]
    joints, mirrored = list(range(14)), [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10]
    y = np.where(wanted[..., 2] >= 0.3, wanted[..., 1], np.nan)
    there = np.isfinite(y).sum(axis=1) > 3
    height = np.nanmax(steady(np.nanmax(y[there], axis=1) - np.nanmin(y[there], axis=1), 2.0))
    errors = []
    for order in (joints, mirrored):
        both = (wanted[:, joints, 2] >= 0.3) & (found[:, order, 2] >= 0.3)
        apart = np.linalg.norm(found[:, order, :2] - wanted[:, joints, :2], axis=-1)
        errors.append(100 * float(apart[both].mean()) / height)
    return min(errors), errors[1] < errors[0]


def holes(mask) -> float:
    """Small gaps within the mask [T, H, W], % of its pixels."""
    small = total = 0
    for frame in mask.numpy():
        inside = frame > 0.5
        count, _, stats, _ = cv2.connectedComponentsWithStats((~inside).astype(np.uint8), connectivity=4)
        small += sum(area for area in stats[1:count, cv2.CC_STAT_AREA] if area <= HOLE_PX)
        total += inside.sum()
    return 100 * small / max(total, 1)


def sparkle(mask) -> tuple[float, float]:
    """Pixels that come or go within one frame and are back in the next: % of all pixels, and of the character's. A
    narrow gap between limbs that moves counts, too."""
    step = mask[1:] - mask[:-1]
    flipped = ((step[:-1] * step[1:]) < 0) & (step[:-1].abs() > FLIP) & (step[1:].abs() > FLIP)
    count = 100 * float(flipped.sum())
    return count / max(1, flipped.numel()), count / max(1.0, float((mask > 0.5).sum()))


def decibels(one, other, inside) -> float:
    return float(-10 * np.log10(max(float(((one - other)[inside] ** 2).mean()), 1e-10)))


def own_pose(picture) -> float:
    """PSNR inside the mask of a picture drawn in its own pose before itself."""
    import torch
    from animate_anywhere.nodes.draft.draft_inputs import read_subject

    scale = min(1.0, SIDE / max(picture.shape[1:3]))
    size = round(picture.shape[2] * scale), round(picture.shape[1] * scale)
    picture = torch.from_numpy(cv2.resize(picture[0].numpy(), size, interpolation=cv2.INTER_AREA))[None]
    subject = read_subject(picture, None, None)
    height, width = picture.shape[1:3]
    size = {"width": width, "height": height, "shadow": 0.0, "relight": 0.0, "background_motion": 0.0}
    images, mask, *_ = draft(picture, subject.pose.to_openpose(), picture, **size)
    return decibels(images[0], picture[0], mask[0] > 0.5)


def real_clip(clip, pose: list[dict]) -> dict[str, float]:
    """A clip driven by its own first frame before its own clean place, against what happened."""
    from animate_anywhere.nodes.detection import BLAZEPOSE, load_blazepose
    from animate_anywhere.vision.plate import clean_background

    found = load_blazepose(BLAZEPOSE).follow(clip)
    place = clean_background(clip, found.mask, method="temporal", grow=8).frames
    size = {"width": clip.shape[2], "height": clip.shape[1]}
    images, mask, *_ = draft(clip[:1], pose, place, relight=0.0, shadow=0.25, **size)
    person, drawn = found.mask > 0.5, mask > 0.5
    either = person | drawn
    held = clip[:1].expand_as(clip)
    return {
        "draft": float(np.mean([decibels(images[t], clip[t], either[t]) for t in range(len(clip))])),
        "held": float(np.mean([decibels(held[t], clip[t], person[t] | person[0]) for t in range(len(clip))])),
        "iou": float(((person & drawn).sum((1, 2)) / either.sum((1, 2))).mean()),
    }


def strip(frames, height: int = TILE, count: int = SHEET_FRAMES) -> np.ndarray:
    """A row of a sheet, uint8: ``count`` of the ``frames`` [T, h, w, 3]."""
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    tiles = [cv2.resize(frames[t].numpy(), (width, height), interpolation=cv2.INTER_AREA) for t in chosen]
    return np.rint(np.concatenate(tiles, axis=1).clip(0, 1) * 255).astype(np.uint8)


def stacked(rows: list[np.ndarray]) -> np.ndarray:
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def seconds(picture, pose: list[dict], background, side: int) -> float:
    start = time.process_time()
    draft(picture, pose, background, width=side, height=side)
    return time.process_time() - start


def told(name: str, value: float, goal: str, unit: str, least: bool = False) -> None:
    good = value >= GOALS[goal] if least else value <= GOALS[goal]
    sign = "≥" if least else "≤"
    print(f"{name}: {value:.2f} {unit} (goal {sign} {GOALS[goal]:g}: {'reached' if good else 'NOT reached'})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with juggle.mp4 and worker_walking.gif")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of all drafts, JPEG")
    parser.add_argument("--only", nargs="+", choices=CHARACTERS, default=list(CHARACTERS))
    arguments = parser.parse_args()
    pack.load()
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with torch.inference_mode():
        measure(arguments)
    return 0


def measure(arguments: argparse.Namespace) -> None:
    clips = drivers(arguments.data)
    print(f"drivers: {', '.join(clips)}; not there: {', '.join(set(DRIVERS) - clips.keys()) or 'none'}")
    poses = {name: pose_of(clip) for name, clip in clips.items()}
    place = frames_of(template(*PLACE), last=1)
    rows, sheet = {}, {name: [strip(clip)] for name, clip in clips.items()}
    for who in arguments.only:
        picture = character(who)
        print(f"{who}: own pose {own_pose(picture):.1f} dB inside the mask")
        for driver, pose in poses.items():
            height, width = clips[driver].shape[1:3]
            scale = SIDE / max(height, width)
            size = {"width": round(width * scale), "height": round(height * scale)}
            images, mask, _, drawn, _ = draft(picture, pose, place, **size)
            row = Row(*joint_error(images, drawn), holes(mask), *sparkle(mask))
            rows[who, driver] = row
            note = ", sides swapped" if row.swapped else ""
            print(f"  {driver}: joints {row.joints:.2f} %{note}; holes {row.holes:.3f} %", end="; ")
            print(f"sparkle {row.sparkle:.3f} % of the frame, {row.moving:.2f} % of the figure")
            sheet[driver].append(strip(images))
    told("joint error, mean", float(np.mean([row.joints for row in rows.values()])), "joints", "%")
    told("joint error, worst pair", max(row.joints for row in rows.values()), "worst", "%")
    told("sparkle, worst", max(row.sparkle for row in rows.values()), "sparkle", "%")
    real = real_clip(clips["dance"], poses["dance"])
    told("real clip from its frame 0", real["draft"], "real", f"dB (frame 0 held: {real['held']:.2f})", least=True)
    told("real clip, mask", real["iou"], "iou", "IoU", least=True)
    for side in (350, 700):
        spent = seconds(character("elf"), poses["dance"], place, side)
        told(f"{len(poses['dance'])} frames at {side}², one core", spent, str(side), "s of CPU")
    if arguments.sheet:
        picture = stacked([row for strips in sheet.values() for row in strips])
        Image.fromarray(picture).save(arguments.sheet, quality=QUALITY)
        print(f"{arguments.sheet}: {arguments.sheet.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
