"""Values of the kinds that other packs hand over, made of plain ones: those that mean the same, and those that mean
nothing."""

import copy
import math

import torch

SIZE = {"canvas_width": 64, "canvas_height": 48}


def same_images(images):
    """By kind: an IMAGE, and the float32 frames that it is. images: [T, H, W, 3] in steps of 1/255."""
    rounded, gray = images.bfloat16(), images[..., :1]
    return {
        "bfloat16": (rounded, rounded.float()),
        "float64": (images.double(), images),
        "bytes": ((images * 255).round().byte(), images),
        "floats to 255": ((images * 255).round(), images),
        "opaque alpha": (torch.cat([images, torch.ones_like(gray)], dim=-1), images),
        "gray": (gray, gray.expand(-1, -1, -1, 3)),
    }


def bad_images(images):
    dark = images.clone()
    dark[-1, 0, 0, 0] = math.nan
    return {
        "none": None,
        "nan": dark,
        "infinite": torch.where(dark.isnan(), math.inf, dark),
        "no frames": images[:0],
        "no width": images[:, :, :0],
        "no frame axis": images[0],
        "channels first": images.movedim(-1, 1),
        "two channels": images[..., :2],
        "from -1 to 1": images * 2 - 1,
        "huge": images * 1e4,
        "latent": {"samples": images},
        "complex": images + 0j,
    }


def same_masks(mask):
    """The same for a mask [T, H, W] of 0 and 1."""
    return {
        "bool": (mask.bool(), mask),
        "bytes": ((mask * 255).byte(), mask),
        "bytes of 0 and 1": (mask.byte(), mask),
        "floats to 255": (mask * 255, mask),
        "float64": (mask.double(), mask),
        "whole numbers": (mask.long(), mask),
        "channel second": (mask[:, None], mask),
        "channel last": (mask[..., None], mask),
        "one, without a frame axis": (mask[0], mask[:1]),
    }


def bad_masks(mask):
    holed = mask.clone()
    holed[-1, 0, 0] = math.nan
    return {
        "nan": holed,
        "image": mask[..., None].expand(-1, -1, -1, 3),
        "no frames": mask[:0],
        "negative": mask - 1,
        "huge": mask * 1e4,
        "list": [mask],
    }


def same_poses(pose):
    def changed(change):
        frames = copy.deepcopy(pose)
        for frame in frames:
            for person in frame["people"]:
                numbers = person["pose_keypoints_2d"]
                person["pose_keypoints_2d"] = [change(index, number) for index, number in enumerate(numbers)]
        return frames

    sides = [{**frame, "canvas_width": str(frame["canvas_width"])} for frame in pose]
    return {
        "numbers as text": (changed(lambda _, number: str(number)), pose),
        "width as text": (sides, pose),
        "no confidence": (changed(lambda index, number: None if index % 3 == 2 else number), pose),
    }


def bad_poses(pose):
    empty = copy.deepcopy(pose)
    empty[0]["people"] = [{"pose_keypoints_2d": [math.nan] * 54}]
    return {
        "none": None,
        "one frame": pose[0],
        "nothing": [],
        "text": "pose",
        "no canvas": [{"people": []}],
        "canvas of None": [{**pose[0], "canvas_width": None}],
        "canvas of NaN": [{**pose[0], "canvas_height": math.nan}],
        "all NaN": empty,
        "a number for points": [{**pose[0], "people": [{"pose_keypoints_2d": 3.0}]}],
        "pairs": [{**pose[0], "people": [{"pose_keypoints_2d": [[1.0, 2.0]] * 18}]}],
    }


def empty_poses(count):
    """Poses of ``count`` frames with nobody in them."""
    unsure = {"people": [{"pose_keypoints_2d": [20.0, 20.0, 0.0] * 18}], **SIZE}
    return {
        "nobody": [{"people": [], **SIZE}] * count,
        "people of None": [{"people": None, **SIZE}] * count,
        "an animal": [{"version": "ap10k", "animals": [[1.0] * 51], **SIZE}] * count,
        "unsure": [unsure] * count,
    }


def same_tracks(tracks):
    shown = tracks["track_visibility"]
    return {
        "visibility with a channel": ({**tracks, "track_visibility": shown[..., None]}, tracks),
        "visibility of NaN": ({**tracks, "track_visibility": torch.where(shown, 1.0, math.nan)}, tracks),
        "path of lists": ({**tracks, "track_path": tracks["track_path"].tolist()}, tracks),
    }


def bad_tracks(tracks):
    path = tracks["track_path"]
    return {
        "list": [path],
        "no path": {"track_visibility": tracks["track_visibility"]},
        "path of text": {"track_path": "left"},
        "path of None": {"track_path": None},
        "one axis too many": {"track_path": path[None]},
        "three coordinates": {"track_path": torch.cat([path, path[..., :1]], dim=-1)},
        "all NaN": {"track_path": path * math.nan},
        "visibility of others": {**tracks, "track_visibility": tracks["track_visibility"][:1]},
    }
