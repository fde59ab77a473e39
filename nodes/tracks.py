"""Video + mask -> background tracks and camera path; tracks -> pictures of them."""

import numpy as np
from comfy_api.latest import io, ui

import nodes

from ..vision import background_tracks
from ..vision import tracks as points
from . import memory, preview, sockets
from .feedback import progress_of, ranges, shown
from .socket_values import doubt_about

NOTICEABLE = 0.05  # px a frame, or about as much at the picture's edge: less is not told


def motion_in_words(camera) -> str:
    """How a camera path moves its picture, on average, in px a frame."""
    dx, dy, growth, roll = np.mean(camera.steps, axis=0)
    edge = np.hypot(camera.width, camera.height) / 2
    corners = np.array([[0, 0], [camera.width, 0], [0, camera.height], [camera.width, camera.height]], float)
    speed = np.linalg.norm(np.diff(camera.carry(corners), axis=0), axis=-1).mean()
    words = [f"{speed:.2f} px a frame"]
    if np.hypot(dx, dy) > NOTICEABLE:
        words.append(f"shift {dx:+.2f}, {dy:+.2f} px (right, down)")
    if abs(growth) * edge > NOTICEABLE:
        words.append(f"zoom {np.expm1(growth):+.2%}")
    if abs(roll) * edge > NOTICEABLE:
        words.append(f"roll {np.degrees(roll):+.2f}°")
    return "; ".join(words)


def places_of(text: str) -> np.ndarray:
    """Places [N, 2] in 0…1 of the picture as they are named in an input: "0.25, 0.4; 0.7, 0.33"."""
    try:
        places = np.array([[float(word) for word in pair.split(",")] for pair in text.split(";") if pair.strip()])
        good = not len(places) or (places.shape[1:] == (2,) and bool(((places >= 0) & (places <= 1)).all()))
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"placed_points: {text!r} are no places. Write x, y of each as parts of the picture's width and height: "
            '"0.25, 0.4; 0.7, 0.33".'
        )
    if len(places) > background_tracks.MOST:
        raise ValueError(f"placed_points: {len(places)} are too many; place {background_tracks.MOST} at most.")
    return places.reshape(-1, 2)


def _report(found: background_tracks.Tracked, reseed: bool, placed: np.ndarray) -> str:
    visible = found.tracks.visible
    lines = [f"{len(visible)} frames of {found.tracks.width}×{found.tracks.height} px"]
    if found.lost:
        names = "; ".join(f"{x:g}, {y:g}" for x, y in placed[list(found.lost)])
        lines.append(
            f"{len(found.lost)} of {len(placed)} placed points could not be followed; they are covered, at the very "
            f"edge, on something plain, or soon gone: {names}"
        )
    if not visible.any():
        return "\n".join(
            [
                *lines,
                "No trackable points: the background has too little texture, or too little of it is in view. The "
                "tracks are empty, the camera path stands still, and how the camera really moves is not known",
            ]
        )
    seen = visible.sum(axis=1)
    lines.append(f"{visible.shape[1]} points; {seen.min()} to {seen.max()} of them are seen in a frame")
    lines.append("The camera stands" if found.still else f"The background moves {motion_in_words(found.camera)}")
    lines += [f"Cut before frame {frame}: no point is followed across it" for frame in found.cuts]
    blind = found.camera.confidence == 0
    if blind.any():
        lines.append(f"No point tells how the camera gets to frames {ranges(blind)} (the first frame is 0)")
    late = int((~visible[0]).sum())
    if late and reseed:
        lines.append(
            f"{late} points are not seen in the first frame. For WanMoveTrackToVideo, which takes every point's looks "
            "from there, turn reseed off"
        )
    return "\n".join(lines)


class TrackBackground(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}TrackBackground",
            display_name="Track Background",
            category=sockets.BACKGROUND,
            description="Follows points of the background through a video, past the people in front of it, and reads "
            "from them how the camera moves.",
            inputs=[
                io.Image.Input("images", tooltip="The video, two frames at least."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where people are: no point is taken there. One mask a frame, or one for all. Leave "
                    "it unconnected where nobody is in the picture.",
                ),
                io.Int.Input(
                    "points",
                    default=background_tracks.DEFAULT,
                    min=background_tracks.FEWEST,
                    max=background_tracks.MOST,
                    tooltip="How many points are followed at a time, spread over the background. Fewer where it has "
                    "too little texture.",
                ),
                io.Boolean.Input(
                    "reseed",
                    default=True,
                    tooltip="New points take the place of those that leave the picture. Turn it off for "
                    "WanMoveTrackToVideo, which only knows points that the first frame shows.",
                ),
                io.Int.Input(
                    "grow",
                    default=background_tracks.GROW,
                    min=0,
                    max=512,
                    advanced=True,
                    tooltip="Keeps so many px around the mask free of points, too.",
                ),
                io.String.Input(
                    "placed_points",
                    default="",
                    optional=True,  # a prompt saved before it came still runs
                    advanced=True,
                    tooltip="Points of your own in the first frame instead of those that are chosen, as parts of its "
                    'width and height: "0.25, 0.4; 0.7, 0.33". Or drag them in the picture that the node shows after a '
                    "run.",
                ),
            ],
            outputs=[
                io.Tracks.Output(
                    "tracks", tooltip="The points, for Draw Tracks, Move Background and Wan-Move's nodes."
                ),
                sockets.CameraPath.Output(
                    "camera_path", tooltip="How the camera moves the whole background, for Move Background."
                ),
                io.String.Output("report", tooltip="How many points were followed, and how the camera moves."),
            ],
            search_aliases=["point tracking", "camera motion", "cotracker", "optical flow", "wan move tracks"],
        )

    @classmethod
    def execute(
        cls, images, points=background_tracks.DEFAULT, reseed=True, grow=background_tracks.GROW, mask=None,
        placed_points="",
    ) -> io.NodeOutput:  # fmt: skip
        memory.check_room("images", *images.shape[:3], memory.TRACK)
        placed = places_of(placed_points)
        pixels = placed * [images.shape[2], images.shape[1]] if len(placed) else None
        progress = progress_of(2 * len(images))
        found = background_tracks.track_background(images, mask, points, reseed, grow, progress, pixels)
        report = "\n".join(filter(None, [_report(found, reseed, placed), doubt_about(mask)]))
        shown = {"aa_points": [preview.background_points(images, found, placed)]}
        return io.NodeOutput(found.tracks.to_host(), found.camera, report, ui=ui.PreviewText(report).as_dict() | shown)


class DrawTracks(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": nodes.MAX_RESOLUTION}
        return io.Schema(
            node_id=f"{sockets.PREFIX}DrawTracks",
            display_name="Draw Tracks",
            category=sockets.BACKGROUND,
            description="Draws background tracks as coloured discs on black, left out where the character is: the "
            "picture of background motion that Liu et al. show their model.",
            inputs=[
                io.Tracks.Input("tracks", tooltip="From Track Background, Pose to Tracks or Wan-Move's nodes."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the character is: nothing is drawn there, softly at soft edges. One mask a "
                    "frame, or one for all.",
                ),
                io.Int.Input(
                    "width",
                    **size,
                    tooltip="Width of the pictures in px; the tracks are stretched to it. 0, together with height: as "
                    "large as the video they came from.",
                ),
                io.Int.Input(
                    "height", **size, tooltip="Height of the pictures in px. 0, together with width: as the video."
                ),
                io.Float.Input(
                    "radius",
                    default=0.0,
                    min=0.0,
                    max=512.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Of the discs, in px. 0: 1/64 of the picture's shorter side.",
                ),
                io.Int.Input(
                    "trail",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="Shows the way of each point through so many frames before. 0: the points alone.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="One picture of the points a frame.")],
            search_aliases=["visualize tracks", "track video", "background motion", "render points"],
        )

    @classmethod
    def execute(cls, tracks, width=0, height=0, radius=0.0, trail=0, mask=None) -> io.NodeOutput:
        track = points.Tracks.from_host(tracks)
        sockets.check_both_or_neither(width, height, "the tracks' own")
        if not (width or track.width):
            raise ValueError("width: the tracks do not say how large their picture is. Give width and height.")
        track = track.on_canvas(width or track.width, height or track.height)
        memory.check_room("width", len(track), track.height, track.width, memory.DRAW)
        drawn = points.draw(track, mask, radius, trail, progress_of(len(track)))
        return io.NodeOutput(drawn, ui=shown(doubt_about(mask)))


NODES = [TrackBackground, DrawTracks]
