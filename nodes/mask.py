"""Video -> character mask; mask -> shape-agnostic mask."""

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..models import matting as mattes
from ..models import sam2
from ..vision import mask as masks
from ..vision import outline, pointing
from ..vision import pose as poses
from ..vision.frames import same_shape
from . import files, memory, sockets
from .detection import BLAZEPOSE, LAPSE, load_blazepose, nobody
from .feedback import progress_of, shown
from .socket_values import check_shows_somebody, check_somebody, doubt_about, read_pose

BLOCKS = ("inference", "training")
MODELS = ("blazepose", "sam2")
MATTING = ("off", "vitmatte")
SAM2 = files.Kind("sam2", (".safetensors", ".pt"), "sam2.1_hiera_base_plus.safetensors", named="sam2")
VITMATTE = files.Kind("vitmatte", (), "vitmatte-small-composition-1k")
UNKNOWN = 0.012  # of the picture's longer side: how far to either side of the outline ViTMatte decides
WIDEST = 512  # px of growing and feathering: more is a blur of the whole picture


def _grow_input(default: int = 0, advanced: bool = False) -> io.Int.Input:
    return io.Int.Input(
        "grow",
        default=default,
        min=-WIDEST,
        max=WIDEST,
        advanced=advanced,
        tooltip="Moves the outline outwards by so many px; negative: inwards.",
    )


def _feather_input(default: int = 0, advanced: bool = False) -> io.Int.Input:
    return io.Int.Input(
        "feather",
        default=default,
        min=0,
        max=WIDEST,
        advanced=advanced,
        tooltip="Softens the edge over so many px to either side. 0: leave it as it is.",
    )


def _track_for(images: Tensor, pose: list[dict]) -> poses.PoseTrack:
    """``pose`` as a track for ``images`` [T, H, W, C]; ValueError unless it has somebody in it, T frames, and their
    proportions."""
    track, _ = read_pose(pose)
    if len(pose) != len(images):
        raise ValueError(
            f"pose: it has {len(pose)} frames, but images have {len(images)}. Extract it from these very images, or "
            "leave pose unconnected."
        )
    size = images.shape[2], images.shape[1]
    if not same_shape((track.width, track.height), size):
        raise ValueError(
            f"pose: it was made for {track.width}×{track.height}, but images are {size[0]}×{size[1]}, which has other "
            "proportions: it would point beside the person. Extract it from these very images, or leave pose "
            "unconnected."
        )
    check_somebody(track, "pose", "Leave pose unconnected to look for the person.")
    return track


def _built_in(images: Tensor, track: poses.PoseTrack | None, steadiness: float, refine: bool) -> Tensor:
    """Mask [T, H, W] in 0…1 by BlazePose, of everybody in ``track``, or of the clearest person."""
    count = len(images)
    done = progress_of(count * (1 + (steadiness > 0) + refine))
    network = load_blazepose(BLAZEPOSE)
    mask = network.follow(images, done).mask if track is None else network.segment(images, track, done)
    _check_found(mask, images, track)
    mask = mask.numpy()
    masks.close_lapses(mask, LAPSE)
    if steadiness:
        outline.steady(images, mask, steadiness, lambda frames: done(count + frames))
    if refine:
        for index, frame in enumerate(images):
            mask[index] = outline.refine(frame[..., :3].float().cpu().numpy(), mask[index])
            done(count * (1 + (steadiness > 0)) + index + 1)
    return torch.from_numpy(mask)


def _by_sam2(images: Tensor, track: poses.PoseTrack | None, weights: str, objects: bool) -> tuple[Tensor, Tensor]:
    """Masks [T, H, W] in 0…1 by SAM 2: of everybody in ``track``, or of the clearest person, and of what they hold."""
    network = sam2.load(SAM2.path(weights, asked_by="weights"))
    done = progress_of(2 * len(images))
    if track is None:
        track = load_blazepose(BLAZEPOSE).follow(images, done).pose
    track = track.resized(images.shape[2], images.shape[1])
    people, things = pointing.people(track), pointing.held(track) if objects else []
    if not people:
        _check_found(torch.zeros(1, 1), images, None)
    prompts = [
        [sam2.Prompt(point.frame, torch.from_numpy(point.points), torch.from_numpy(point.inside)) for point in pointed]
        for pointed in people + things
    ]
    mask, held = torch.zeros(images.shape[:3]), torch.zeros(images.shape[:3])
    cut_out = [masks.Cropped() for _ in things]
    for number, frame, found in network.follow(images, prompts, lambda frames: done(len(images) + frames)):
        if number < len(people):
            mask[frame] = torch.maximum(mask[frame], found)
        else:
            cut_out[number - len(people)].put(frame, found)
    _check_found(mask, images, track)
    whole = np.array([int((frame > masks.INSIDE).sum()) for frame in mask])
    for thing in [thing for thing in cut_out if _is_held(thing, mask, whole)]:
        for frame, box, part in thing.parts():
            held[frame][box] = torch.maximum(held[frame][box], part)
            mask[frame][box] = torch.minimum(mask[frame][box], 1 - held[frame][box])
    return mask, held


def _is_held(thing: masks.Cropped, person: Tensor, whole: np.ndarray) -> bool:
    """Whether ``thing`` can be held by those in the mask ``person`` [T, H, W], of ``whole`` [T] px."""
    area, own = np.zeros((2, len(person)))
    for frame, box, part in thing.parts():
        inside = part > masks.INSIDE
        area[frame], own[frame] = inside.sum(), (inside & (person[frame][box] > masks.INSIDE)).sum()
    return pointing.is_held(area, own, whole)


def _check_found(mask: Tensor, images: Tensor, track: poses.PoseTrack | None) -> None:
    if any(bool((frame > masks.INSIDE).any()) for frame in mask):  # all at once would be a mask more
        return
    if track is None:
        raise nobody(images)
    raise ValueError("pose: no person was found where it points to, in any frame. Is it the pose of these images?")


def _matted(network: mattes.VitMatte, images: Tensor, mask: Tensor) -> Tensor:
    """``mask`` [T, H, W] with its edges by ViTMatte, in place."""
    width = max(2, round(UNKNOWN * max(mask.shape[1:])))
    return network.matte(images, masks.trimap(mask, width, into=mask), progress_of(len(images)))


class SegmentCharacter(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}SegmentCharacter",
            display_name="Segment Character",
            category=sockets.MASK,
            description="Makes a mask of the person in a video or picture, and of what the hands hold. Without a pose "
            "it follows the clearest person; with one, it masks everybody whom the pose shows.",
            inputs=[
                io.Image.Input("images", tooltip="The video, or a picture, with a person in it."),
                sockets.PoseKeypoint.Input(
                    "pose",
                    optional=True,
                    tooltip="Where the people are, one pose a frame, from any pose detector. Useful when several are "
                    "in the picture, and to mask exactly those.",
                ),
                io.Combo.Input(
                    "model",
                    options=list(MODELS),
                    tooltip="blazepose is built in and quick. Its masks are soft and miss loose hair and what is held. "
                    "sam2 is pointed at the pose and follows sharper outlines; its weights go into models/sam2.",
                ),
                _feather_input(4),
                _grow_input(),
                io.Float.Input(
                    "steadiness",
                    optional=True,  # as all that follows: a prompt saved before they came still runs
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Calms the trembling outline of blazepose by what the frames around show. 0: off.",
                ),
                io.Boolean.Input(
                    "refine",
                    optional=True,
                    default=True,
                    tooltip="Lets the outline of blazepose follow the edges of the picture.",
                ),
                sockets.FileInput(
                    "weights",
                    optional=True,
                    options=["auto", *SAM2.found()],
                    advanced=True,
                    tooltip="Of sam2: a file or folder in models/sam2. auto: base plus of 2.1, or what is there.",
                ),
                io.Boolean.Input(
                    "objects",
                    optional=True,
                    default=False,
                    tooltip="Looks for what the hands hold, too, and takes it out of the mask. Needs sam2.",
                ),
                io.Combo.Input(
                    "matting",
                    optional=True,
                    options=list(MATTING),
                    tooltip="vitmatte draws hair and soft edges into the mask; its folder goes into models/vitmatte. "
                    "With it, set feather to 0.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "mask", tooltip="White where the people of the pose are, or the clearest person; one mask a frame."
                ),
                io.Mask.Output("objects", tooltip="White on what the hands hold; black where that was not asked for."),
            ],
            search_aliases=["person mask", "matte", "rotoscope", "remove background", "blazepose", "sam2", "vitmatte"],
        )

    @classmethod
    def execute(
        cls, images, model="blazepose", feather=4, grow=0, pose=None, steadiness=0.5, refine=True, weights="auto",
        objects=False, matting="off",
    ) -> io.NodeOutput:  # fmt: skip
        memory.check_room("images", *images.shape[:3], memory.SEGMENT)
        track = None if pose is None else _track_for(images, pose)
        held = torch.zeros(images.shape[:3])
        matte = None if matting == "off" else mattes.load(VITMATTE.path(asked_by="matting"))
        if model == "sam2":
            mask, held = _by_sam2(images, track, weights, objects)
        elif objects:
            raise ValueError("objects: blazepose knows the body alone. Choose sam2 as model, or turn objects off.")
        else:
            mask = _built_in(images, track, steadiness, refine)
        if matte is not None:
            mask = _matted(matte, images, mask)
        masks.grow(mask, grow, into=mask)  # in place, as all before it: a mask of a long video is large
        return io.NodeOutput(masks.feather(mask, feather, into=mask), held)


class ShapeAgnosticMask(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        block = {"default": masks.BLOCK, "min": 1, "max": 4096}
        return io.Schema(
            node_id=f"{sockets.PREFIX}ShapeAgnosticMask",
            display_name="Shape-Agnostic Mask",
            category=sockets.MASK,
            description="Turns a mask into blocks that hide its outline, so that a new character need not have the "
            "shape of the old one. This is how Animate Anyone 2 marks the place of the character in an environment.",
            inputs=[
                io.Mask.Input(
                    "mask", tooltip="White where the person is, one mask a frame, from Segment Character or SAM."
                ),
                io.Int.Input(
                    "block_height",
                    **block,
                    tooltip="Height of a block in px. 10 is what Animate Anyone 2 uses; larger blocks leave a new "
                    "character more room and hide more of the surroundings.",
                ),
                io.Int.Input("block_width", **block, tooltip="Width of a block in px; 10 as well."),
                _grow_input(advanced=True),
                _feather_input(advanced=True),
                io.Combo.Input(
                    "blocks",
                    optional=True,  # as all that follows: a prompt saved before they came still runs
                    options=list(BLOCKS),
                    advanced=True,
                    tooltip="inference: blocks of the size above. training: one size for the whole video, drawn from "
                    "the seed, as a network is trained on; for making training data, or a coarse mask by chance.",
                ),
                io.Int.Input(
                    "seed",
                    optional=True,
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    advanced=True,
                    tooltip="Of the size that training draws. The same seed on the same mask gives the same blocks.",
                ),
                io.Boolean.Input(
                    "steady",
                    optional=True,
                    default=True,
                    advanced=True,
                    tooltip="The grid stays where the first frame laid it. Off: each frame's box lays its own, as in "
                    "the paper, and the blocks jump with every pixel that the box moves.",
                ),
            ],
            outputs=[io.Mask.Output("mask", tooltip="The mask in blocks, within the box around the character.")],
            search_aliases=["blocky mask", "animate anyone 2", "block mask", "blockify"],
        )

    @classmethod
    def execute(
        cls, mask, block_height=masks.BLOCK, block_width=masks.BLOCK, grow=0, feather=0, blocks="inference", seed=0,
        steady=True,
    ) -> io.NodeOutput:  # fmt: skip
        check_shows_somebody(mask)
        # Grown first: the margin belongs to the character, and the blocks are to cover it.
        grown = masks.grow(mask, grow)
        if blocks == "training":
            block_height, block_width = masks.random_block(np.random.default_rng(seed), grown)
        blocky = masks.shape_agnostic(grown, block_height, block_width, progress_of(len(grown)), steady=steady)
        return io.NodeOutput(masks.feather(blocky, feather, into=blocky), ui=shown(doubt_about(mask)))


NODES = [SegmentCharacter, ShapeAgnosticMask]
