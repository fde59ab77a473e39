"""What a token stands for, against counting by hand and the stage's own points."""

import math

import pytest
import torch
from animate_anywhere.models.latents import latent_frames
from animate_anywhere.training import stage, tokens
from animate_anywhere.vision.geometry import Cameras, epipolar_mask

TOKEN = 16


@pytest.mark.parametrize("frames", [5, 13, 45])
def test_every_frame_belongs_to_one_token_frame(frames):
    ranges = tokens.token_frames(frames)
    assert [frame for one in ranges for frame in one] == list(range(frames))
    assert [len(one) for one in ranges] == [5] + [8] * (latent_frames(frames) // 2 - 1)


def test_other_lengths_have_no_token_frames():
    for frames in (4, 9, 12, 49):
        with pytest.raises(ValueError, match=str(frames)):
            tokens.token_frames(frames)


def test_a_token_frame_has_the_camera_of_its_middle_frame():
    numbered = torch.arange(21.0).expand(2, 21)
    cameras = Cameras(
        torch.eye(3).expand(2, 21, 3, 3), torch.eye(3).expand(2, 21, 3, 3), numbered[..., None].repeat(1, 1, 3)
    )
    assert tokens.token_cameras(cameras).translation[1, :, 0].tolist() == [2, 8, 16]


def test_background_tokens_see_no_person_in_any_of_their_frames():
    foreground = torch.zeros(1, 13, 32, 48)
    foreground[0, 0, 0, 0] = 1  # one pixel of the first frame
    foreground[0, 4, 31, 47] = 0.2  # the last frame of the first token frame
    foreground[0, 5, 15, 31] = 1  # the first frame of the second
    background = tokens.background_tokens(foreground)
    assert background.shape == (1, 2, 2, 3)
    assert (~background).nonzero().tolist() == [[0, 0, 0, 0], [0, 0, 1, 2], [0, 1, 0, 1]]


@pytest.mark.parametrize(("kind", "bound"), [("follow", 0.99), ("dolly", 0.99), ("sway", 0.99), ("pan", 0.95)])
def test_true_matches_lie_in_the_band_whatever_frames_a_token_stands_for(kind, bound):
    """The stage's background points, in every pair of frames of two tokens. Fast pans move by more than the band's
    half width between a token's middle frame and its first."""
    held = []
    for seed in (6000, 6001):
        clip = stage.render_clip(stage.draw_plan(seed, 29, camera=kind))
        parts = (torch.from_numpy(part)[None] for part in (clip.camera.K, clip.camera.R, clip.camera.t))
        cameras, frames = tokens.token_cameras(Cameras(*parts)), tokens.token_frames(29)
        grid = (len(frames), clip.plan.height // TOKEN, clip.plan.width // TOKEN)
        mask = epipolar_mask(cameras, torch.arange(math.prod(grid))[None], grid, TOKEN).unflatten(1, grid)[0]
        column, row = (clip.tracks // TOKEN).long().unbind(-1)  # [T, points]
        inside = clip.visibility & (column >= 0) & (column < grid[2]) & (row >= 0) & (row < grid[1])
        for i, j in ((i, j) for i in range(grid[0]) for j in range(grid[0]) if i != j):
            for a, b in ((a, b) for a in frames[i] for b in frames[j]):
                both = inside[a] & inside[b]
                held.append(mask[i, row[a, both], column[a, both], j, row[b, both], column[b, both]])
    held = torch.cat(held)
    assert len(held) > 10_000
    assert held.float().mean() > bound
