"""Video -> character mask; mask -> shape-agnostic mask."""

import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..vision import detectors
from ..vision import mask as masks
from ..vision import pose as poses
from . import sockets
from .feedback import progress_of
from .pose import WEIGHTS

LAPSE = 2  # frames: BlazePose loses a sleeve or a hand before the body for so long, and finds it again
BLOCKS = ("inference", "training")
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
    """``pose`` as a track for ``images`` [T, H, W, C]; ValueError unless it has somebody in it, and T frames."""
    track = poses.PoseTrack.from_openpose(pose)
    if len(pose) != len(images):
        raise ValueError(
            f"pose: it has {len(pose)} frames, but images have {len(images)}. Extract it from these very images, or "
            "leave pose unconnected."
        )
    if not track.present.any():
        raise ValueError("pose: there is nobody in any of its frames. Leave pose unconnected to look for the person.")
    return track


class SegmentCharacter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}SegmentCharacter",
            display_name="Segment Character",
            category=sockets.PREPARE,
            description="Makes a mask of the person in a video or picture. Without a pose it follows the clearest "
            "person; with one, it masks everybody whom the pose shows.",
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
                    options=["blazepose"],
                    tooltip="blazepose is built in and quick. Its masks are soft and miss loose hair and what is held.",
                ),
                _feather_input(4),
                _grow_input(),
            ],
            outputs=[
                io.Mask.Output(
                    "mask", tooltip="White where the people of the pose are, or the clearest person; one mask a frame."
                )
            ],
            search_aliases=["person mask", "matte", "rotoscope", "remove background", "blazepose"],
        )

    @classmethod
    def execute(cls, images, model="blazepose", feather=4, grow=0, pose=None) -> io.NodeOutput:
        sockets.check_frames(images)
        track = None if pose is None else _track_for(images, pose)
        network = detectors.load_blazepose(WEIGHTS, comfy.model_management.get_torch_device())
        progress = progress_of(len(images))
        mask = network.follow(images, progress).mask if track is None else network.segment(images, track, progress)
        if not (mask > masks.INSIDE).any():
            raise ValueError(
                f"images: no person was found in any of the {len(images)} frames. The head and the trunk must be in "
                "the picture, and the person at least about 50 px tall; crop the video around the person."
                if track is None
                else "pose: no person was found where it points to, in any frame. Is it the pose of these images?"
            )
        mask = torch.from_numpy(masks.without_lapses(mask.numpy(), LAPSE))
        return io.NodeOutput(masks.feather(masks.grow(mask, grow), feather))


class ShapeAgnosticMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        block = {"default": masks.BLOCK, "min": 1, "max": 4096}
        return io.Schema(
            node_id=f"{sockets.PREFIX}ShapeAgnosticMask",
            display_name="Shape-Agnostic Mask",
            category=sockets.PREPARE,
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
                    options=list(BLOCKS),
                    advanced=True,
                    tooltip="inference: blocks of the size above. training: one size for the whole video, drawn from "
                    "the seed, as a network is trained on; for making training data, or a coarse mask by chance.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    advanced=True,
                    tooltip="Of the size that training draws. The same seed on the same mask gives the same blocks.",
                ),
                io.Boolean.Input(
                    "steady",
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
        # Grown first: the margin belongs to the character, and the blocks are to cover it.
        grown = masks.grow(mask, grow)
        if blocks == "training":
            block_height, block_width = masks.random_block(np.random.default_rng(seed), grown)
        blocky = masks.shape_agnostic(grown, block_height, block_width, progress_of(len(grown)), steady=steady)
        return io.NodeOutput(masks.feather(blocky, feather))


NODES = [SegmentCharacter, ShapeAgnosticMask]
