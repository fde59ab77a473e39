"""What a draft is made of: its size, the driver, and the character, read from a node's inputs."""

from torch import Tensor

from ...vision.draft.subject import Subject
from ...vision.frames import picture
from ...vision.mask import INSIDE, three_dimensions
from ...vision.pose import PoseTrack
from ...vision.retarget import clearest_frame
from .. import detection, sockets
from ..socket_values import check_somebody, read_pose

SMALLEST_PX, MULTIPLE_PX = 640, 16  # of the longer side, and of both sides, where no size is given


def draft_size(width: int, height: int, background: Tensor) -> tuple[int, int]:
    """The draft's (width, height) px; 0×0 is that of ``background`` [T, h, w, C], enlarged to
    `SMALLEST_PX` where it is smaller, in multiples of `MULTIPLE_PX`."""
    sockets.check_both_or_neither(width, height, "the background's")
    if width:
        return width, height
    shown = background.shape[2], background.shape[1]
    scale = max(1.0, SMALLEST_PX / max(shown))
    across, down = (max(1, round(side * scale / MULTIPLE_PX)) * MULTIPLE_PX for side in shown)
    return across, down


def read_driver(pose: list[dict], person: int) -> PoseTrack:
    """The one person of the driving pose. Raises ValueError where there is nobody."""
    track, _ = read_pose(pose)
    people = track.keypoints.shape[1]
    check_somebody(track, "pose", "Look at it with Draw Pose, or take another driving video.")
    if not 0 <= person < people:
        raise ValueError(
            f"person: {person} is not in the pose, which has {people} "
            f"({'person' if people == 1 else 'people'}; the first is 0). Choose 0 to {people - 1}, "
            "or follow more people in Extract Pose."
        )
    track = track.only(person)
    if not track.present.any():
        raise ValueError(f"person: {person} is not seen in any frame of the pose. Choose another.")
    return track


def read_subject(image: Tensor, mask: Tensor | None, pose: list[dict] | None) -> Subject:
    """The person in a picture [1, h, w, 3 or 4]; alpha is a mask, and what is not given is found.

    Raises ValueError, naming the socket, where nobody is found or the inputs do not fit.
    """
    height, width = image.shape[1:3]
    if mask is None and image.shape[-1] == 4:
        mask = image[..., 3]
    mask = None if mask is None else _own_mask(mask, image)
    coarse = None
    if pose is None:
        found = detection.load_blazepose(detection.BLAZEPOSE).follow(image)
        if not found.pose.present.any():
            raise ValueError(
                "character: no person was found in it. Take a picture that shows one person from "
                "head to feet, at least about 50 px tall; or wire character_pose and "
                "character_mask."
            )
        track, coarse = found.pose, found.mask[0]
    else:
        track = PoseTrack.from_openpose(pose, "character_pose").resized(width, height)
        advice = "Take it from the character's picture, or disconnect it and the person is found."
        check_somebody(track, "character_pose", advice)
    frame = clearest_frame(track)
    one = {field: array[[frame], :1] for field, array in track.arrays.items()}
    track = PoseTrack(width=width, height=height, **one)
    if mask is None and coarse is None:
        coarse = detection.load_blazepose(detection.BLAZEPOSE).segment(image, track)[0]
    shown = coarse if mask is None else mask
    return Subject(picture(image[0]), shown.numpy(), mask is None, track)


def _own_mask(mask: Tensor, image: Tensor) -> Tensor:
    """The mask [h, w] float32 that was wired in, for a picture [1, h, w, C]."""
    mask = three_dimensions(mask)[0].float().cpu()
    size, wanted = tuple(mask.shape[::-1]), (image.shape[2], image.shape[1])
    if size != wanted:
        raise ValueError(
            f"character_mask: it is {size[0]}×{size[1]} px, character {wanted[0]}×{wanted[1]} "
            "px. Make the mask from this very picture."
        )
    if not (mask > INSIDE).any():
        raise ValueError(
            "character_mask: nothing in it is white. It must be white where the person is; "
            "disconnect it and the person is found here."
        )
    return mask.clamp(0, 1)
