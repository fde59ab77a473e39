"""The arithmetic of frames and latent frames, and the way through a VAE."""

import pytest
import torch
import toys
from animate_anywhere.models import latents


@pytest.mark.parametrize(
    ("frames", "valid"), [(5, 5), (12, 5), (13, 13), (29, 29), (45, 45), (48, 45), (81, 77), (85, 85)]
)
def test_lengths_are_rounded_down_to_8k_plus_5(frames, valid):
    assert latents.valid_length(frames) == valid


@pytest.mark.parametrize(("frames", "fitting"), [(1, 5), (5, 5), (6, 13), (13, 13), (14, 21), (100, 101)])
def test_lengths_are_rounded_up_to_8k_plus_5(frames, fitting):
    assert latents.fitting_length(frames) == fitting


@pytest.mark.parametrize(("frames", "following"), [(0, 5), (4, 5), (9, 13), (12, 13), (30, 37)])
def test_other_lengths_are_refused_and_the_next_that_fits_is_named(frames, following):
    with pytest.raises(ValueError, match=rf"data\.frames: {frames} frames .* Use {following}\."):
        latents.check_length(frames, "data.frames")


@pytest.mark.parametrize("frames", range(5, 200, 8))
def test_valid_lengths_pair_their_latent_frames(frames):
    latents.check_length(frames)
    count = latents.latent_frames(frames)
    assert count % latents.PATCH == 0 and latents.frames_of(count) == frames


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_too_few_frames_are_refused(frames):
    with pytest.raises(ValueError, match=f"at least 5 frames; there are {frames}"):
        latents.valid_length(frames)


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [
        (1360, 760, "height .* 760 is not. Nearest: 768"),
        (350, 352, "width .* 350 is not. Nearest: 352"),
        (0, 16, "width"),
    ],
)
def test_sizes_that_do_not_fit_name_the_nearest(width, height, says):
    with pytest.raises(ValueError, match=says):
        latents.check_size(width, height)


def test_sizes_of_16_fit():
    latents.check_size(1360, 768)


def test_a_vae_of_other_channels_is_refused():
    latents.check_vae(toys.taehv_vae())
    vae = toys.taehv_vae()
    vae.latent_channels = 4
    with pytest.raises(ValueError, match="vae: .* 16 latent channels; this is a video VAE with 4"):
        latents.check_vae(vae)


@pytest.mark.parametrize("frames", [5, 13, 21])
def test_encoding_and_decoding_keep_the_number_of_frames(frames):
    vae = toys.taehv_vae()
    with torch.inference_mode():
        coded = latents.encode_frames(vae, torch.rand(frames, 16, 32, 3))
        assert coded.shape == (1, 16, latents.latent_frames(frames), 2, 4)
        assert latents.decode_latents(vae, coded).shape == (frames, 16, 32, 3)


@pytest.mark.parametrize(("changed", "first_latent"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_taehv_is_aligned_as_cogvideox(changed, first_latent):
    """Frame 0 alone is latent frame 0, frames 1-4 are latent frame 1, and so on; none looks ahead."""
    vae, frames = toys.taehv_vae(), torch.rand(13, 16, 16, 3)
    other = frames.clone()
    other[changed] = 1 - other[changed]
    with torch.inference_mode():
        difference = (latents.encode_frames(vae, frames) - latents.encode_frames(vae, other)).abs()
    touched = difference.amax(dim=(0, 1, 3, 4)) > 1e-6  # one value a latent frame
    assert int(touched.nonzero()[0]) == first_latent


def test_a_start_picture_fills_the_first_latent_frame_alone():
    padded = latents.first_frame_only(torch.ones(1, 16, 1, 2, 2), 4)
    assert padded.shape == (1, 16, 4, 2, 2)
    assert padded[:, :, 0].all() and not padded[:, :, 1:].any()
