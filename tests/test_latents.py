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


# CogVideoX's own VAE, the host's real class at small width with random weights.


@pytest.fixture(scope="module")
def cogvideox_vae():
    return toys.cogvideox_vae()


def round_trip(vae, frames):
    with torch.inference_mode():
        return latents.decode_latents(vae, latents.encode_frames(vae, frames))


@pytest.mark.parametrize("frames", range(5, 86, 8))
def test_cogvideox_vae_gives_back_as_many_frames_as_it_got(cogvideox_vae, frames):
    assert round_trip(cogvideox_vae, torch.rand(frames, 16, 16, 3)).shape == (frames, 16, 16, 3)


@pytest.mark.parametrize("frames", [1, 9])
def test_cogvideox_vae_keeps_odd_latent_counts_as_they_are(cogvideox_vae, frames):
    coded = torch.randn(1, 16, latents.latent_frames(frames), 2, 2)
    with torch.inference_mode():
        expected = cogvideox_vae.decode(coded)[0]
        assert torch.equal(latents.decode_latents(cogvideox_vae, coded), expected.clamp(0, 1))


@pytest.mark.parametrize("changed", [0, 5, 13, 21])
def test_a_changed_frame_shows_from_its_own_frame_on(cogvideox_vae, changed):
    """At the first frames of latent pairs, which nothing before them can see. Undone, it shows three frames late."""
    frames = torch.rand(29, 16, 16, 3)
    other = frames.clone()
    other[changed] = 1 - other[changed]
    difference = (round_trip(cogvideox_vae, frames) - round_trip(cogvideox_vae, other)).abs().flatten(1).mean(1)
    assert difference[:changed].sum() < 0.05 * difference.max()  # normalization spreads a little over all frames
    assert difference[changed] > 0.2 * difference.max()


def test_a_ramp_comes_back_in_its_order(cogvideox_vae):
    """Brightness along the line from dark to bright; what a random decoder makes of them differs frame by frame."""
    count = 29
    levels = torch.linspace(0.35, 0.65, count).view(-1, 1, 1, 1).expand(-1, 16, 16, 3)
    ramp, dark, bright = (
        round_trip(cogvideox_vae, frames).flatten(1)
        for frames in (levels, torch.full_like(levels, 0.35), torch.full_like(levels, 0.65))
    )
    line = bright - dark
    position = ((ramp - dark) * line).sum(1) / line.square().sum(1)
    ranks = position.argsort().argsort().double()
    assert torch.corrcoef(torch.stack([ranks, torch.arange(count).double()]))[0, 1] > 0.9


def test_the_first_frames_are_not_frozen(cogvideox_vae):
    """As stock decoding leaves them, which makes four frames of the first latent frame."""
    frames = torch.rand(13, 16, 16, 3)
    with torch.inference_mode():
        stock = cogvideox_vae.decode(latents.encode_frames(cogvideox_vae, frames))[0]
    assert len(stock) == 16 and torch.equal(stock[0], stock[3])
    steps = round_trip(cogvideox_vae, frames).diff(dim=0).abs().flatten(1).mean(1)
    assert steps.min() > 0.02 * steps.max()


def test_decoding_in_tiles_agrees_with_decoding_whole(cogvideox_vae, monkeypatch):
    """Tiles are normalized each by itself: apart by a few hundredths of what the picture varies by."""
    coded = latents.encode_frames(cogvideox_vae, torch.rand(5, 128, 320, 3))
    with torch.inference_mode():
        whole = latents.decode_latents(cogvideox_vae, coded)
        decode, calls = cogvideox_vae.first_stage_model.decode, []

        def decode_without_room(z, *args, **kwargs):
            calls.append(z.shape)
            if len(calls) == 1:
                raise torch.cuda.OutOfMemoryError("not enough memory for all of it")
            return decode(z, *args, **kwargs)

        monkeypatch.setattr(cogvideox_vae.first_stage_model, "decode", decode_without_room)
        tiled = latents.decode_latents(cogvideox_vae, coded)
    assert len(calls) > 2 and tiled.shape == whole.shape == (5, 128, 320, 3)
    assert (tiled - whole).abs().mean() < 0.05 * whole.std()
