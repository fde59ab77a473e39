"""Clips that were rendered apart become one video, and what does not belong together is refused."""

import pytest
import torch
from animate_anywhere.nodes import stitch as nodes
from comfy_api.latest import _io


def stitch(*parts, **more):
    return nodes.StitchClips.execute({f"clip{i}": part for i, part in enumerate(parts)}, **more)


def test_stitched_clips_are_one_video():
    images, report = stitch(torch.zeros(5, 8, 8, 3), torch.ones(5, 8, 8, 3), overlap=1).result
    assert images.shape == (9, 8, 8, 3) and images[:5].max() == 0 and images[5:].min() == 1
    assert report == "9 frames of 2 clips: 5 + 5, without 1 at the start of each following clip"


def test_stitch_clips_says_which_clip_does_not_fit():
    with pytest.raises(ValueError, match="clip2 and clip0 differ in size"):
        stitch(torch.zeros(5, 8, 8, 3), torch.zeros(5, 8, 8, 3), torch.zeros(5, 8, 16, 3))


def test_a_queued_prompt_reaches_stitch_clips_through_its_growing_sockets():
    """The host takes "clips.clip0" of an API prompt apart; at least two are demanded."""
    schema = nodes.StitchClips.INPUT_TYPES()
    assert "clips" in schema["required"]
    expanded, _, v3_data = _io.get_finalized_class_inputs(schema, {"clips.clip0": 1, "clips.clip1": 1, "overlap": 1})
    assert {"clips.clip0", "clips.clip1"} <= expanded["required"].keys()
    assert "clips.clip2" in expanded["optional"]
    nested = _io.build_nested_inputs({"clips.clip0": "a", "clips.clip1": "b", "overlap": 0}, v3_data)
    assert nested == {"clips": {"clip0": "a", "clip1": "b"}, "overlap": 0}
