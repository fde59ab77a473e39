"""Measure how far Pose to Tracks tells the background's motion: the figures of docs/preparation.md.

    $(python3 scripts/host.py --python) scripts/bench_motion.py [FOLDER] [--clips 60]

Learned head, geometry and planted feet (auto), on
  clips of FOLDER, *.npz of poses with tracked backgrounds, where it is there;
  template clips of the host's packages;
  real poses before virtual cameras; and
  stage clips: walks with a planted foot in the frame, before backgrounds that move; rehearsed and
  not drawn.
Real clips are also read smoothed, at half the frame rate, and in halves.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import motion_clips
import pack

sys.path.append(str(pack.ROOT / "tests"))  # walks.py: what the tests hold the same readers against

FOLDER = pack.ROOT.parent / "shared" / "prototypes" / "motion" / "poses"
# Template clips with feet in view, of cameras that stand and that move. Gates were set after a look
# at ltx2_3_ic_lora, hunyuan3d and king_o3.
MEDIA_CLIPS = (
    "video/video_wan2_2_14B_fun_control-1.webp",
    "video/video_wan_vace_inpainting-1.webp",
    "video/video_wan_vace_inpainting-2.webp",
    "video/api_google_gemini_omni_flash_t2v-1.webp",
    "video/video_ltx2_3_ic_lora-1.webp",
    "api/api_kling_omni_v2v-2.webp",
    "image/api_hunyuan3d_text_to_model-1.webp",
    "image/api_king_o3_t2v-1.webp",
)
SEEDS = (5, 6)  # of the virtual cameras; 1 and 2 were looked at while the gates were set
REAL_BANDS = (0, 0.35, 0.6, 1.01)
MOVES_PX = 0.01  # a frame: a predicted motion
WORSE_RATIO = 1.05  # of a still background's error
VIRTUAL_MIN_PX = 0.1  # a frame: a virtual camera that moves less is no test

KINDS = ("follow", "pan", "zoom", "sway", "dolly")
FIRST = 7_500_000_000  # seeds that nothing was trained on, and no constant chosen by
MIXED, ALL = "as the stage has them", "all of each kind"
BANDS = (0, 0.35, 0.6, 0.75, 1.01)  # of confidence
ALONG, TURNED = 0.8, 3  # of a way along the view, and degrees: what tells the ways of a dolly apart


def way_of(clip) -> str:
    """Which way a travelling camera goes."""
    import numpy as np

    camera = clip.camera
    way, view = camera.centre[-1] - camera.centre[0], camera.R[:, 2]
    if abs(way @ view.mean(0)) > ALONG * np.linalg.norm(way):
        return "dolly: nearer or farther"
    turned = np.degrees(np.arccos(np.clip(view[0] @ view[-1], -1, 1)))
    return "dolly: round the person" if turned > TURNED else "dolly: sideways"


def rows_of(kind: str, clip) -> tuple[str, ...]:
    """The rows of the table for which a walk before a camera of this kind counts."""
    if kind == MIXED:
        return (MIXED,)
    return (kind, way_of(clip), ALL) if kind == "dolly" else (kind, ALL)


def table(groups: dict, confidences: dict) -> None:
    import numpy as np
    from animate_anywhere.vision import metrics

    print(f"  {'camera':<26} {'clips':>5} {'within 45°':>11} {'within 90°':>11} {'confidence':>11}")
    for name, right in groups.items():
        right = np.array(right)
        shares = f"{np.mean(right > metrics.RIGHT):11.0%} {np.mean(right > 0):11.0%}"
        print(f"  {name:<26} {len(right):5d} {shares} {np.mean(confidences[name]):11.2f}")
    right, sure = (np.array(values[ALL]) for values in (groups, confidences))
    for low, high in pairwise(BANDS):
        inside = (sure >= low) & (sure < high)
        share = f"{np.mean(right[inside] > metrics.RIGHT):.0%}" if inside.any() else "none"
        print(f"  confidence from {low:.2f}: {inside.sum():4d} clips, within 45° {share}")


def readers() -> dict:
    """By method: PoseTrack -> steps [T-1, 4], confidence [T-1]."""
    import torch
    from animate_anywhere.models import pose_motion
    from animate_anywhere.nodes.motion import WEIGHTS
    from animate_anywhere.training import pose_figures
    from animate_anywhere.vision.planted_feet.estimate import estimate_scene

    def of_keypoints(read):
        return lambda pose: read(torch.from_numpy(pose.keypoints), pose.width, pose.height)

    def auto(pose):
        found = estimate_scene(pose)
        return found.steps, found.confidence

    learned = pose_figures.learned(pose_motion.load(WEIGHTS))
    return {"learned": of_keypoints(learned), "geometry": of_keypoints(pose_figures.geometry), "auto": auto}


def measure(read, clips: list) -> list[tuple]:
    """(clip, error px, still error px, it moves, mean confidence) of each."""
    import numpy as np

    rows = []
    for clip in clips:
        steps, confidence = read(clip.pose)
        still = clip.still_error
        moved = bool(np.abs(steps).max() > 0)
        rows.append((clip, clip.error(steps), still, moved, float(np.mean(confidence))))
    return rows


def print_real(title: str, rows: list[tuple]) -> None:
    """Errors against a still background, and what confidence is worth."""
    import numpy as np

    moving = [row for row in rows if not row[0].stands]
    standing = [row for row in rows if row[0].stands]
    ratio = np.array([error / still for _, error, still, _, _ in moving])
    told = np.array([row[3] for row in moving], bool)
    line = f"  {title}: {len(moving)} moving clips"
    if len(moving):
        line += f", median {np.median(ratio):.2f} of still, worst {ratio.max():.2f}, "
        line += f"{np.sum(ratio > WORSE_RATIO)} above {WORSE_RATIO}"
    if told.any():
        line += f"; {told.sum()} told, median {np.median(ratio[told]):.2f}"
    print(line)
    if standing:
        more = np.array([error - still for _, error, still, _, _ in standing])
        print(f"    {len(standing)} standing: {np.median(more):.2f} px a frame invented, most {more.max():.2f}")
    for low, high in pairwise(REAL_BANDS):
        inside = [row for row in rows if low <= row[4] < high]
        right = [clip.is_right(error) for clip, error, *_ in inside]
        share = f"{np.mean(right):.0%}" if right else "none"
        print(f"    confidence from {low:.2f}: {len(inside):4d} clips, right {share}")


def measure_real(title: str, clips: list) -> None:
    print(f"{title} (right: error up to {motion_clips.MIN_ERROR_PX} px, or {motion_clips.RIGHT_RATIO} of still)")
    shown = [variant for clip in clips for variant in motion_clips.variants(clip) if len(variant.points) > 2]
    for method, read in readers().items():
        print(f" {method}:")
        print_real("as they are", measure(read, clips))
        if method == "auto":
            print_real("and smoothed, at half rate, in halves", measure(read, shown))


def measure_virtual(clips: list) -> None:
    """Real poses of standing cameras, filmed virtually."""
    print("real poses before virtual cameras")
    kinds = motion_clips.VIRTUAL_KINDS
    filmed = [motion_clips.film_virtually(clip, kind, seed) for clip in clips for kind in kinds for seed in SEEDS]
    filmed = [clip for clip in filmed if clip.still_error > VIRTUAL_MIN_PX]
    for method, read in readers().items():
        print(f" {method}:")
        rows = measure(read, filmed)
        for kind in kinds:
            print_virtual(kind, [row for row in rows if f", {kind} " in row[0].name])
        print_virtual("all", rows)
        for low, high in pairwise(REAL_BANDS):
            right = [clip.is_right(error) for clip, error, _, _, sure in rows if low <= sure < high]
            print(f"    confidence from {low:.2f}: {len(right):4d} clips, right {sum(right)}")


def print_virtual(kind: str, rows: list[tuple]) -> None:
    import numpy as np

    ratio = np.array([error / still for _, error, still, _, _ in rows])
    told = np.array([row[3] for row in rows], bool)
    middle = f"{np.median(ratio[told]):.2f}" if told.any() else "none"
    print(
        f"  {kind:<7} {len(rows):3d} clips, {told.sum():3d} told, their median {middle} of still; "
        f"worst {ratio.max():.2f}, {np.sum(ratio > 1.1)} above 1.1"
    )


def measure_stage(count: int) -> None:
    """Walks of the stage, ``count`` of each kind of camera."""
    from walks import cosines, moving_walks

    walks = {kind: moving_walks(count, (kind,), FIRST + i * 10**6) for i, kind in enumerate(KINDS)}
    walks[MIXED] = moving_walks(count * len(KINDS), first=FIRST + len(KINDS) * 10**6)
    print("stage clips")
    for method, read in readers().items():
        right, sure = {}, {}
        for kind, clips in walks.items():
            for clip in clips:
                steps, confidence = read(clip.pose)
                cosine = cosines([clip], lambda _, steps=steps: steps)[0]
                for name in rows_of(kind, clip):
                    right.setdefault(name, []).append(cosine)
                    sure.setdefault(name, []).append(confidence.mean())
        for values in (right, sure):
            values[ALL] = values.pop(ALL)  # the last row
        print(f"{method}:")
        table(right, sure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="of *.npz clips; skipped if not there")
    parser.add_argument("--clips", type=int, default=60, help="of the stage, of each kind of camera")
    arguments = parser.parse_args()
    pack.load()
    import torch

    torch.set_num_threads(1)
    clips = motion_clips.load_folder(arguments.folder) if arguments.folder.is_dir() else []
    if clips:
        measure_real(f"clips of {arguments.folder.name}, which constants were set on", clips)
    media = list(motion_clips.load_media(MEDIA_CLIPS))
    measure_real("template clips", media)
    measure_virtual([clip for clip in clips + media if clip.stands and _shows_feet(clip)])
    if arguments.clips:
        measure_stage(arguments.clips)


def _shows_feet(clip) -> bool:
    return bool((clip.pose.measured.keypoints[:, 0, [10, 13], 2] > 0).any(1).mean() > 0.6)


if __name__ == "__main__":
    main()
