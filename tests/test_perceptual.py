"""The perceptual loss by counting, and its features against torchvision."""

import logging

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
import toys
from animate_anywhere.training import perceptual

FRAMES, HEIGHT, WIDTH = 5, 32, 48


class Decoder:
    """A VAE of no consequence: latents [b, 16, 2, h, w] to 5 frames of their first three channels, eight times as
    large."""

    def __init__(self):
        self.decoded = 0

    def __call__(self, latents):
        self.decoded += len(latents)
        frames = F.interpolate(latents[:, :3, :1].expand(-1, -1, FRAMES, -1, -1), scale_factor=(1, 8, 8))
        return frames.sigmoid().movedim(1, -1)


def loss_of(timestep, hands=None, change=1.0, features=None, decode=None):
    """The loss of as many clips as timesteps, whose decoded frames miss theirs by ``change`` [H, W] times noise."""
    generator = torch.Generator().manual_seed(0)
    decode = decode or Decoder()
    count = len(timestep)
    predicted = torch.randn(1, 16, 2, HEIGHT // 8, WIDTH // 8, generator=generator).repeat(count, 1, 1, 1, 1)
    noise = 0.1 * torch.randn(1, FRAMES, HEIGHT, WIDTH, 3, generator=generator)
    frames = Decoder()(predicted) + noise * (change if isinstance(change, float) else change[:, :, None])
    hands = torch.zeros(count, FRAMES, HEIGHT, WIDTH) if hands is None else hands.expand(count, FRAMES, -1, -1)
    predicted.requires_grad_()
    loss = perceptual.perceptual_loss(
        features or perceptual.EdgePyramid(), decode, predicted, frames, hands, torch.tensor(timestep)
    )
    return loss, predicted


def test_perceptual_loss_looks_at_the_last_30_per_cent_of_denoising_only():
    decode = Decoder()
    loss, predicted = loss_of([0, 299, 300, 999], decode=decode)
    loss.backward()
    assert decode.decoded == 2
    assert [bool(one.any()) for one in predicted.grad] == [True, True, False, False]


def test_nothing_is_decoded_where_no_timestep_counts():
    decode = Decoder()
    loss, _ = loss_of([300, 999], decode=decode)
    assert loss == 0
    assert decode.decoded == 0


def test_a_clip_weighs_the_same_in_every_batch():
    alone, both, half = (loss_of(timesteps)[0] for timesteps in ([10], [10, 10], [10, 500]))
    assert torch.isclose(both, alone) and torch.isclose(half, alone / 2)


def test_hands_weigh_double():
    """What misses only on hands counts twice, what misses only elsewhere once. The hand's rim is blurred by the
    pyramid's coarser sizes, so it covers a half of the picture and the miss keeps 16 px away from it."""
    hands, inside, elsewhere = (torch.zeros(HEIGHT, 3 * WIDTH) for _ in range(3))
    hands[:, 72:] = 1
    inside[:, 112:] = 1
    elsewhere[:, :32] = 1
    for change, factor in ((inside, 2), (elsewhere, 1)):
        measured = [wide_perceptual(change, mask) for mask in (hands, torch.zeros_like(hands))]
        assert torch.isclose(measured[0], factor * measured[1], rtol=1e-5)
    assert torch.isclose(loss_of([0], torch.ones(HEIGHT, WIDTH))[0], 2 * loss_of([0])[0])


def wide_perceptual(change, hands):
    frames = torch.full((1, FRAMES, *change.shape, 3), 0.5)
    missed = frames + 0.1 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * change[..., None]
    zeros = torch.zeros(1, 16, 2, 4, 18)
    weight = hands.expand(1, FRAMES, -1, -1)
    return perceptual.perceptual_loss(perceptual.EdgePyramid(), lambda _: frames, zeros, missed, weight, torch.zeros(1))


def test_frames_of_another_length_are_refused():
    frames, hands = torch.zeros(1, FRAMES + 8, HEIGHT, WIDTH, 3), torch.zeros(1, FRAMES + 8, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"\(1, 5, 32, 48, 3\).*\(1, 13, 32, 48, 3\)"):
        perceptual.perceptual_loss(
            perceptual.EdgePyramid(), Decoder(), torch.zeros(1, 16, 2, 4, 6), frames, hands, torch.zeros(1)
        )


def test_the_stand_in_sees_blur_that_keeps_the_colours():
    """Against an equal mean error in the colours' level, blur costs more: that is what it stands in for."""
    sharp = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    sharp = F.interpolate(sharp[..., ::4, ::4], scale_factor=4)
    blurred = F.avg_pool2d(sharp, 5, 1, 2, count_include_pad=False)
    shifted = sharp + (blurred - sharp).abs().mean()
    distances = [
        sum((ours - theirs).abs().mean() for ours, theirs in zip(*map(perceptual.EdgePyramid(), (sharp, other))))
        for other in (blurred, shifted)
    ]
    assert distances[0] > 1.5 * distances[1]


def vgg(layers: str) -> torch.nn.Module:
    """The convolutions of torchvision's VGG16 ("D") or VGG19 ("E"), from a seed and an eighth as wide."""
    plan = [step if step == "M" else step // 8 for step in torchvision.models.vgg.cfgs[layers]]
    return toys.randomised(torchvision.models.vgg.make_layers(plan), scale=2.0)


@pytest.mark.parametrize(("layers", "ends"), [("D", (4, 9, 16, 23)), ("E", (4, 9, 18, 27))])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_vgg_features_equal_torchvisions(layers, ends, suffix, tmp_path):
    network = vgg(layers)
    state = {f"features.{key}": value for key, value in network.state_dict().items()}
    path = tmp_path / f"vgg{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(state, path)
    frames = torch.rand(2, 3, 32, 48)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        seen = perceptual.load_features(path)(frames)
        expected = [network[:end]((frames - mean) / std) for end in ends]
    assert len(seen) == 4
    assert all(torch.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(seen, expected))


def test_a_file_that_is_no_vgg_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"features.0.weight": torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"vgg: .*other.safetensors: expected VGG16"):
        perceptual.load_features(path)


def test_the_log_says_what_stands_in_for_vgg(caplog):
    with caplog.at_level(logging.INFO):
        assert isinstance(perceptual.load_features(None), perceptual.EdgePyramid)
    assert "no VGG weights" in caplog.text
