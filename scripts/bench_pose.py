"""What Extract Pose and Mask finds in videos of one's own: the figures of docs/preparation.md on real footage.

    $(python3 scripts/host.py --python) scripts/bench_pose.py VIDEO[:FRAMES] … [--people 2] [--sheets FOLDER]

FRAMES are those that show a whole person, as somebody has seen by eye, like "0-11,15-49"; without them, all.
``--sheets`` draws the skeletons over the video, to be looked at.
"""

import argparse
import sys
from pathlib import Path

import pack

SMOOTHING = 0.3  # the node's default
STILL = 24  # frames of one picture with a camera's grain: a body that stands still
GRAIN = 0.02  # of full brightness, deviation
LAGS = 5  # frames to either side
QUICK = 0.02  # body heights a frame: joints this quick have a lag that can be told


def detected(frames, people: int):
    from animate_anywhere.nodes.detection import WEIGHTS
    from animate_anywhere.vision import detectors
    from animate_anywhere.vision.tracking import Identities

    return detectors.load_blazepose(WEIGHTS).follow(frames, identities=Identities(people)).pose


def heights(pose):
    """The median height of each person's body in px, [P]: the joints' extent over those that are seen."""
    import numpy as np

    y = np.where(pose.seen, pose.keypoints[..., 1], np.nan)  # [T, P, 18]
    there = pose.seen.any(axis=2)
    spans = [np.nanmax(y[there[:, p], p], axis=1) - np.nanmin(y[there[:, p], p], axis=1) for p in range(y.shape[1])]
    return np.array([np.median(span) for span in spans])


def lag(pose, smoothed) -> float:
    """By how many frames the quick joints of the lead come later than they were found: the delay at which the smoothed
    paths fit best, between frames by a parabola."""
    import numpy as np

    found, calm = pose.keypoints[:, 0], smoothed.keypoints[:, 0]
    errors = []
    for delay in range(-LAGS, LAGS + 1):
        now = np.arange(LAGS + 1, len(found) - LAGS - 1)
        whole = pose.seen[:, 0].all(axis=1)
        fit = np.stack([whole[now + shift] for shift in range(-LAGS - 1, LAGS + 2)]).all(axis=0)
        now = now[fit]
        step = np.linalg.norm(found[now, :, :2] - found[now - 1, :, :2], axis=-1) > QUICK * heights(pose)[0]
        off = ((calm[now + delay, :, :2] - found[now, :, :2]) ** 2).sum(axis=-1)
        errors.append(off[step].mean() if step.any() else np.nan)
    if not np.isfinite(errors).all():
        return np.nan
    best = int(np.clip(np.argmin(errors), 1, 2 * LAGS - 1))
    left, middle, right = errors[best - 1 : best + 2]
    return best - LAGS + 0.5 * (left - right) / (left - 2 * middle + right)


def trembling(frame) -> float:
    """How far the joints of a body that stands still come from their mean place after smoothing, of its height, root
    mean square: the clearest person of ``frame`` [H, W, 3] uint8, shown over and over with a camera's grain."""
    import numpy as np
    import torch
    from animate_anywhere.vision import pose as poses

    grain = torch.randn(STILL, *frame.shape, generator=torch.Generator().manual_seed(0)) * GRAIN
    pose = poses.smooth(detected((frame / 255 + grain).clamp(0, 1), people=1), SMOOTHING)
    seen = pose.seen[:, 0].all(axis=0)
    places = pose.keypoints[:, 0, seen, :2]
    off = places - places.mean(axis=0)
    return float(np.sqrt((off**2).sum(axis=-1).mean()) / heights(pose)[0])


def measure(path: Path, frames: str, people: int, sheets: Path | None) -> None:
    import numpy as np
    import torch
    from animate_anywhere.nodes.feedback import frames_of, ranges
    from animate_anywhere.training import videos
    from animate_anywhere.vision import contact_sheet, drawing
    from animate_anywhere.vision import pose as poses

    film = torch.from_numpy(videos.read(path))
    whole = frames_of(frames or f"0-{len(film) - 1}", len(film), "FRAMES")
    pose = detected(film, people)
    smoothed = poses.smooth(pose, SMOOTHING)
    print(f"{path.name}: {len(film)} frames of {film.shape[2]}×{film.shape[1]}, a whole person in {whole.sum()}")
    for person, there in enumerate(pose.seen.any(axis=2).T):
        found = there & whole
        missing = f", not in {ranges(whole & ~there)}" if (whole & ~there).any() else ""
        print(f"  person {person} found in {found.sum()} of them, {found.sum() / whole.sum():.1%}{missing}")
    print(f"  the lead's quick joints lag by {lag(pose, smoothed):+.2f} frames after smoothing of {SMOOTHING}")
    shown = np.flatnonzero(whole)
    middle = int(shown[len(shown) // 2])
    print(f"  frame {middle} as a still video trembles by {trembling(film[middle]):.2%} of the body's height")
    if sheets:
        sheets.mkdir(parents=True, exist_ok=True)
        drawn = drawing.draw_over(smoothed, film.float() / 255, 1.0)
        for number, sheet in enumerate(contact_sheet.sheets(drawn[::2])):
            (sheets / f"{path.stem}-{number}.jpg").write_bytes(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", metavar="VIDEO[:FRAMES]")
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--sheets", type=Path, help="folder for the skeletons over every second frame")
    arguments = parser.parse_args()
    pack.load()
    import torch

    with torch.inference_mode():
        for video in arguments.videos:
            path, _, frames = video.partition(":")
            measure(Path(path), frames, arguments.people, arguments.sheets)


if __name__ == "__main__":
    sys.exit(main())
