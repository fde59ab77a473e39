"""What Pose to Tracks tells the artist: what was seen, what was made of it, and how sure it is."""

import numpy as np

from ..vision.camera_path import CameraPath
from ..vision.foot_slip import foot_slip
from ..vision.planted_feet.body import ANKLES, unit_of
from ..vision.planted_feet.estimate import Estimate
from ..vision.planted_feet.gates import GROWING_BODY_LOG, Verdict
from ..vision.pose import PoseTrack
from .feedback import ranges
from .tracks import motion_in_words

TRUSTED, DOUBTED = 0.6, 0.35  # confidence from which a pose tells the motion, and below which it does not
FEET = (("left", 1), ("right", 0))
CHOOSE = "the background stands; choose `camera` to move it"
SEEN = {
    Verdict.MOVES: "The planted feet move together in the picture: the camera moves",
    Verdict.STANDS: "The feet do not show that the camera moves: the background stands",
    Verdict.NO_FEET: f"No feet in view: {CHOOSE}",
    Verdict.FEET_LOST: f"Feet are in view too seldom: {CHOOSE}",
    Verdict.AIRBORNE: f"The feet are in the air too long to tell a camera by them: {CHOOSE}",
    Verdict.GLIDES: "The person may ride or glide (a board, skis, a bike), which looks like a pan over somebody "
    f"who stands: {CHOOSE}",
    Verdict.SLIPS: f"The feet move and the hips stay, like on a turntable: {CHOOSE}",
}
SOURCES = {
    "feet": "as fast as the planted feet tell",
    "cadence": "as fast as the steps and the body's height tell",
    "": "but nothing shows that the person walks, so that the background stands",
}


def report_motion(
    track: PoseTrack, path: CameraPath, found: Estimate, method: str, camera: str | None, source: str
) -> str:
    """The report of a ``path`` read by ``method``, or of a ``camera`` that the artist chose, whose
    speed is from ``source``."""
    lines = [f"{len(path)} frames of {path.width}×{path.height} px, " + _origin(method, camera, source)]
    if camera is None and method == "auto":
        lines.append(SEEN[found.verdict])
    lines += _feet_lines(found)
    growth = float(found.growth.sum())
    if abs(growth) > GROWING_BODY_LOG:
        lines.append(
            f"The body {'grows' if growth > 0 else 'shrinks'} by {abs(np.expm1(growth)):.0%}, like somebody who "
            f"{'comes nearer' if growth > 0 else 'goes away'}; for a zoom choose `growth`"
        )
    lines.append(f"The background moves {motion_in_words(path)}")
    slip = slip_of(found, path)
    if np.isfinite(slip):
        lines.append(f"Foot slip {slip:.2f} % of the body's height a frame")
    lines += _confidence_lines(path, camera)
    return "\n".join(lines + _gap_lines(track))


def slip_of(found: Estimate, path: CameraPath) -> float:
    """Of the ankles that ``found`` takes for planted, on ``path``: % of body height a frame."""
    unit = unit_of(path)
    feet = np.where(found.feet[..., None], found.person.joints[:, ANKLES], np.nan) / unit
    return foot_slip(feet, found.planted, path, found.person.stature / unit)


def _origin(method: str, camera: str | None, source: str) -> str:
    if camera is None:
        return f"read by {method}"
    if camera == "stands":
        return "camera chosen: stands"
    return f"camera chosen: {camera}, {SOURCES[source]}"


def _feet_lines(found: Estimate) -> list[str]:
    """In which frames each foot stands."""
    parts = []
    for name, foot in FEET:
        planted = found.planted[:, foot]
        frames = np.append(planted, False) | np.insert(planted, 0, False)
        if frames.any():
            parts.append(f"the {name} foot stands in frames {ranges(frames)}")
    text = "; ".join(parts)
    return [text[0].upper() + text[1:]] if text else []


def _confidence_lines(path: CameraPath, camera: str | None) -> list[str]:
    sure = float(path.confidence[1:].mean())
    if camera is not None:
        return ["Chosen, not read from the pose: look whether it fits"]
    if sure >= TRUSTED:
        verdict = "the pose tells the motion"
    elif sure >= DOUBTED:
        verdict = "the pose tells a part of the motion; look at the result before you use it"
    else:
        verdict = "the pose does NOT tell the motion. Take the tracks for a guess, or draw the camera by hand"
    lines = [f"Confidence {sure:.2f} of 1: {verdict}"]
    doubtful = path.confidence < DOUBTED
    if doubtful.any() and sure >= DOUBTED:
        lines.append(f"In doubt on the way to frames {ranges(doubtful)} (the first frame is 0)")
    return lines


def _gap_lines(track: PoseTrack) -> list[str]:
    """Frames that tell nothing."""
    lines = []
    if not track.measured.seen[..., ANKLES].any():
        lines.append("No foot is seen in any frame, and feet tell most: use a pose that shows the whole person")
    empty, filled = ~track.present, track.present & ~track.measured.present
    if empty.any():
        lines.append(f"Nobody is there in frames {ranges(empty)}")
    if filled.any():
        lines.append(f"Filled frames, which tell nothing: {ranges(filled)}")
    return lines
