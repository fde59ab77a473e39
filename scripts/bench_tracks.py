"""How exactly Track Background follows the background of a real video: the figures of docs/preparation.md.

    $(python3 scripts/host.py --python) scripts/bench_tracks.py juggle.mp4 --still
    $(python3 scripts/host.py --python) scripts/bench_tracks.py bedroom.mp4 [--sheets FOLDER]

``--still`` takes a clip of 1280×720 px whose camera stands, and films it with virtual cameras, whose path is known.
Without it the node's report is printed; ``--sheets`` draws the points over the video beside the first frame as they
move it, to be looked at.
"""

import argparse
import sys
from pathlib import Path

import pack

FRAMES, FILMED, SIZE = 24, (720, 1280), (540, 960)  # of the clip, its height and width, and those of what is cut out
CAMERAS = {  # by frame: px to the right, growth of what is seen, degrees
    "pan, 1.7 px a frame": (1.7, 0, 0),
    "zoom, 0.6 % a frame": (0, 0.006, 0),
    "roll, 0.4° a frame": (0, 0, 0.4),
    "still": (0, 0, 0),
}
DIFFERS = 30  # grey levels from the median picture, in any channel: somebody, or a leaf
SPECK, GAP, AROUND = 3, 41, 17  # px: smaller is noise, larger parts two people; and what is taken around somebody
EVERY = 8  # frames on a sheet


def somebody(film):
    """Where somebody moves in any frame of ``film`` [T, H, W, 3] uint8, and all within: [H, W] bool."""
    import cv2
    import numpy as np

    middle = np.median(film, axis=0)
    differs = np.max([np.abs(frame - middle).max(axis=-1) for frame in film], axis=0) > DIFFERS
    mask = differs.astype(np.uint8)
    for change, size in ((cv2.MORPH_OPEN, SPECK), (cv2.MORPH_CLOSE, GAP), (cv2.MORPH_DILATE, AROUND)):
        mask = cv2.morphologyEx(mask, change, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED) > 0


def camera(right: float, growth: float, turn: float):
    """Homographies [T, 3, 3] from pixel centres of a frame of SIZE to those of the clip, both about their middle."""
    import numpy as np

    t = np.arange(FRAMES)
    turned = (1 + growth) ** t * np.exp(1j * np.radians(turn * t))  # as complex numbers, x + iy
    centre, middle = ((size[1] - 1 + 1j * (size[0] - 1)) / 2 for size in (SIZE, FILMED))
    way = middle + right * (t - t.mean()) - turned * centre
    path = np.zeros((FRAMES, 3, 3))
    path[:, 0] = np.stack([turned.real, -turned.imag, way.real], axis=1)
    path[:, 1] = np.stack([turned.imag, turned.real, way.imag], axis=1)
    path[:, 2, 2] = 1
    return path


def filmed(film, mask, path):
    """``film`` [T, H, W, 3] uint8 and the one ``mask`` [H, W] as a camera on ``path`` [T, 3, 3] sees them: [T, h, w, 3]
    in 0…1 and [T, h, w]. Each pixel is read once, at the very place: OpenCV's warps round it to 1/32 px."""
    import numpy as np
    import torch
    from animate_anywhere.vision.alignment import project

    pixels = np.indices(SIZE)[::-1].reshape(2, -1).T
    frames, masks = torch.empty(FRAMES, *SIZE, 3), torch.empty(FRAMES, *SIZE)
    for t, picture in enumerate(film):
        both = torch.from_numpy(np.dstack([picture / 255, mask])).movedim(-1, 0)[None]
        places = project(path[t], pixels) / (FILMED[1] - 1, FILMED[0] - 1) * 2 - 1
        grid = torch.from_numpy(places).view(1, *SIZE, 2)
        seen = torch.nn.functional.grid_sample(both, grid, "bicubic", align_corners=True)[0].clamp(0, 1)
        frames[t], masks[t] = seen[:3].movedim(0, -1), seen[3]
    return frames, masks


def errors(tracks, path):
    """How far [T, N, 2] px every point lies from where the camera on ``path`` carries the place at which it was first
    seen; NaN where it is not seen."""
    import numpy as np
    from animate_anywhere.vision.alignment import project

    places = tracks.path - 0.5  # from the picture's corner to pixel centres
    first = tracks.visible.argmax(axis=0)
    homes = np.concatenate([project(path[t], places[t, n][None]) for n, t in enumerate(first)])
    return np.where(tracks.visible[..., None], places - project(np.linalg.inv(path), homes), np.nan)


def measure_still(film) -> None:
    import numpy as np
    from animate_anywhere.vision.background_tracks import track_background

    mask = somebody(film)
    print(f"errors in px of all visible points' steps a frame, and of their places; {mask.mean():.0%} masked")
    print(f"{'camera':<22} {'steps':>6} {'mean':>6} {'95 %':>6} {'most':>6} {'place':>6}")
    for name, move in CAMERAS.items():
        path = camera(*move)
        off = errors(track_background(*filmed(film, mask, path)).tracks, path)
        steps = np.linalg.norm(np.diff(off, axis=0), axis=-1)
        steps = steps[np.isfinite(steps)]
        figures = (steps.mean(), np.percentile(steps, 95), steps.max(), np.nanmax(np.linalg.norm(off, axis=-1)))
        print(f"{name:<22} {len(steps):6d} " + " ".join(f"{figure:6.3f}" for figure in figures), flush=True)


def measure_moving(film, sheets: Path | None) -> None:
    import torch
    from animate_anywhere.nodes.backdrop import MoveBackground
    from animate_anywhere.nodes.tracks import DrawTracks, TrackBackground
    from animate_anywhere.vision import contact_sheet

    frames = torch.from_numpy(film).float() / 255
    tracks, _, report = TrackBackground.execute(frames).result
    print(report)
    if sheets:
        sheets.mkdir(parents=True, exist_ok=True)
        discs = DrawTracks.execute(tracks)[0][::EVERY]
        moved = MoveBackground.execute(frames[:1], tracks)[0][::EVERY]
        points = torch.where(discs.amax(dim=-1, keepdim=True) > 0, discs, frames[::EVERY])
        shown = torch.stack([points, moved], dim=1).flatten(0, 1)  # by turns, so that a pair lies side by side
        for number, sheet in enumerate(contact_sheet.sheets(shown)):
            (sheets / f"tracks-{number}.jpg").write_bytes(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--still", action="store_true", help="its camera stands: film it with virtual ones")
    parser.add_argument("--sheets", type=Path, help="folder for the points over every eighth frame")
    arguments = parser.parse_args()
    pack.load()
    import torch
    from animate_anywhere.training import videos

    film = videos.read(arguments.video, FRAMES if arguments.still else 0)
    if arguments.still and film.shape != (FRAMES, *FILMED, 3):
        count, height, width, _ = film.shape
        parser.error(
            f"--still: {arguments.video.name} has {count} frames of {width}×{height} px; {FRAMES} of "
            f"{FILMED[1]}×{FILMED[0]} are needed"
        )
    with torch.inference_mode():
        if arguments.still:
            measure_still(film)
        else:
            measure_moving(film, arguments.sheets)


if __name__ == "__main__":
    sys.exit(main())
