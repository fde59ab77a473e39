"""Pictures that do not fit into memory are refused with the size that they need, before any work."""

import psutil
import pytest
import torch
from animate_anywhere.nodes import backdrop, background, drawing, mask, memory, pose, tracks

SIDE = 16_000  # px
PICTURE = torch.zeros(1, 1, 1, 3).expand(300, SIDE, SIDE, 3)  # a view of one pixel: it takes no memory itself
MASK = torch.zeros(1, 1, 1).expand(300, SIDE, SIDE)
TRACKS = {"track_path": torch.ones(300, 2, 2), "track_visibility": torch.ones(300, 2, dtype=torch.bool)}
PERSON = {"pose_keypoints_2d": [9.0] * 54}
POSE = [{"people": [PERSON], "canvas_width": SIDE, "canvas_height": SIDE}] * 300


@pytest.mark.parametrize(
    ("socket", "run"),
    [
        ("images", lambda: pose.ExtractPose.execute(PICTURE, "blazepose", 0.5)),
        ("images", lambda: mask.SegmentCharacter.execute(PICTURE)),
        ("images", lambda: background.InpaintBackground.execute(PICTURE, MASK)),
        ("images", lambda: tracks.TrackBackground.execute(PICTURE)),
        ("width", lambda: tracks.DrawTracks.execute(TRACKS, SIDE, SIDE)),
        ("width", lambda: backdrop.MoveBackground.execute(torch.zeros(1, 8, 8, 3), TRACKS, width=SIDE, height=SIDE)),
        ("pose", lambda: drawing.DrawPose.execute(POSE)),
        ("width", lambda: drawing.DrawPose.execute(POSE, SIDE, SIDE)),
    ],
)
def test_a_node_tells_how_much_memory_it_would_need(socket, run):
    with pytest.raises(ValueError, match=rf"^{socket}: 300 frames of 16000×16000 px need about [\d,.]+ GB of memory"):
        run()


def test_what_fits_passes():
    available = psutil.virtual_memory().available
    side = int((available / 2 / 10) ** 0.5)
    memory.check_room("images", 1, side, side, memory.Work(5, 5))
    with pytest.raises(ValueError, match="fewer of them at a time"):
        memory.check_room("images", 3, side, side, memory.Work(10, 0))
