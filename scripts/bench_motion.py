"""Measure by kind of camera how far Pose to Tracks tells the background's motion: the figures of docs/preparation.md.

    $(python3 scripts/host.py --python) scripts/bench_motion.py [--clips 60]

Walks of the stage with a planted foot in the frame, before backgrounds that move; rehearsed and not drawn.
"""

import argparse
import sys
from itertools import pairwise

import pack

sys.path.append(str(pack.ROOT / "tests"))  # walks.py: what the tests hold the same readers against

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60, help="of each kind of camera")
    arguments = parser.parse_args()
    pack.load()
    import torch
    from animate_anywhere.models import pose_motion
    from animate_anywhere.nodes.motion import WEIGHTS
    from animate_anywhere.training import pose_figures
    from walks import cosines, moving_walks

    torch.set_num_threads(1)
    walks = {kind: moving_walks(arguments.clips, (kind,), FIRST + i * 10**6) for i, kind in enumerate(KINDS)}
    walks[MIXED] = moving_walks(arguments.clips * len(KINDS), first=FIRST + len(KINDS) * 10**6)
    readers = {"geometry": pose_figures.geometry, "learned": pose_figures.learned(pose_motion.load(WEIGHTS))}
    for method, read in readers.items():
        right, sure = {}, {}
        for kind, clips in walks.items():
            for clip in clips:
                steps, confidence = read(torch.from_numpy(clip.pose.keypoints), clip.pose.width, clip.pose.height)
                cosine = cosines([clip], lambda _, steps=steps: steps)[0]
                for name in rows_of(kind, clip):
                    right.setdefault(name, []).append(cosine)
                    sure.setdefault(name, []).append(confidence.mean())
        for values in (right, sure):
            values[ALL] = values.pop(ALL)  # the last row
        print(f"{method}:")
        table(right, sure)


if __name__ == "__main__":
    main()
