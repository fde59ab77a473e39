"""The tiny VAE: narrow and embedded compute the same, the host's own loader takes it, training resumes to the bit."""

import dataclasses
import errno
from pathlib import Path

import comfy.sd
import numpy as np
import pytest
import safetensors.torch
import torch
import train_vae as script
from animate_anywhere.models import latents
from animate_anywhere.training import stage
from animate_anywhere.training import vae_samples as samples
from animate_anywhere.training import vae_training as training
from animate_anywhere.training.train import TrainingError
from animate_anywhere.training.vae import VAE, Conv, Grow, Widths, embed, extract
from comfy.taesd.taehv import TAEHV

WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "vae" / "aa_tiny_vae.safetensors"
TOY = Widths((8, 8, 16, 16), (1, 2, 1), (24, 16, 8, 8), (1, 2, 1))
OPTIONS = samples.Options(steps=40, batch=2, crop=32, frames=5, pool=2, renew=2, clip_frames=13, stills=3, warmup=2)


def toy_vae(widths=TOY):
    vae = VAE(widths)
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.1)  # fresh biases are zero and would hide a wrong place
    return vae.requires_grad_(False)


@pytest.fixture(scope="module")
def material():
    return samples.draw_material(3, 13, (96, 96))


@pytest.fixture
def trainer(tmp_path):
    return training.Trainer(tmp_path / "run", OPTIONS, widths=TOY)


def test_growing_first_and_last_is_the_same():
    grow = Grow(3, 5)
    x = torch.randn(2, 3, 6, 4)
    plain = torch.nn.functional.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), grow.kernel, padding=1)
    assert torch.allclose(grow(x), plain, atol=1e-5)


@pytest.mark.parametrize("widths", [TOY, Widths(), Widths((64,) * 4, (3, 3, 3), (256, 128, 64, 64), (3, 3, 3))])
def test_embedding_changes_nothing(widths):
    vae, full = toy_vae(widths), TAEHV(latent_channels=16)
    full.load_state_dict(embed(vae))
    frames = torch.rand(1, 9, 3, 32, 48)
    padded = torch.cat([frames[:, :1].expand(-1, 3, -1, -1, -1), frames], 1)
    narrow, wide = vae.encode(frames), full.encode(padded.movedim(1, 2)).movedim(1, 2)
    assert narrow.shape == wide.shape == (1, 3, 16, 4, 6)
    assert torch.allclose(narrow, wide, atol=2e-5)  # float32 sums in another order
    assert torch.allclose(vae.decode(narrow), full.decode(wide.movedim(1, 2)).movedim(1, 2), atol=2e-5)


def test_what_was_embedded_is_given_back():
    vae = toy_vae()
    again = extract(embed(vae), TOY)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    with pytest.raises(ValueError, match=r"encoder.0.weight .* beyond .*: choose the widths"):
        extract(embed(vae), dataclasses.replace(TOY, encoder=(4, 4, 16, 16)))


def test_training_goes_on_from_what_ships(tmp_path):
    state, widths = training.read_weights(WEIGHTS)
    vae = extract(state, widths)
    training.write_weights(tmp_path / "vae.safetensors", vae, {"step": 3, "options": {"seed": 0}})
    again, _ = training.read_weights(tmp_path / "vae.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    safetensors.torch.save_file(state, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign.safetensors does not say how wide"):
        training.read_weights(tmp_path / "foreign.safetensors")


def test_a_wider_network_computes_the_same_and_has_more_to_learn_with():
    vae = toy_vae()
    wider = extract(embed(vae), dataclasses.replace(TOY, decoder=(32, 24, 16, 8), decoder_blocks=(2, 2, 2)))
    frames = torch.rand(2, 5, 3, 32, 32)
    assert torch.equal(vae.encode(frames), wider.encode(frames))
    assert torch.allclose(vae.decode(vae.encode(frames)), wider.decode(wider.encode(frames)), atol=1e-5)
    wider.requires_grad_(True)
    for _ in range(2):  # a new block or channel is first read at all, and then what is in it learns
        wider.zero_grad()
        (wider.decode(wider.encode(frames)) - frames).square().mean().backward()
        with torch.no_grad():
            for parameter in wider.parameters():
                parameter -= 0.1 * parameter.grad
    assert all(parameter.grad.any() for parameter in wider.decoder.parameters())
    assert wider.decoder.first.weight.grad[vae.widths.decoder[0] :].any()


def test_the_hosts_loader_takes_the_file_and_codes_alike(tmp_path):
    vae = toy_vae()
    training.write_weights(tmp_path / "vae.safetensors", vae, {"step": 3, "options": {"seed": 0}})
    host = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tmp_path / "vae.safetensors")))
    latents.check_vae(host)
    frames = torch.rand(13, 32, 48, 3)
    coded = latents.encode_frames(host, frames)
    narrow = vae.encode(frames.permute(0, 3, 1, 2)[None])
    assert coded.shape == (1, 16, 4, 4, 6)
    # Weights of 8 bits' precision through twenty layers: a few hundredths of the spread.
    assert (coded[0].transpose(0, 1) - narrow[0]).abs().max() < 0.05 * narrow.abs().max()
    back = latents.decode_latents(host, coded)
    expected = vae.decode(narrow)[0].permute(0, 2, 3, 1).clamp(0, 1)
    assert back.shape == frames.shape
    assert (back - expected).abs().mean() < 0.02


def test_each_latent_frame_holds_its_own_four_frames():
    """Frames 4k-3…4k belong to latent frame k: what changes there changes no earlier latent."""
    vae = toy_vae()
    frames = torch.rand(1, 13, 3, 32, 32)
    changed = frames.clone()
    changed[:, 5:] += 0.3
    difference = (vae.encode(frames) - vae.encode(changed)).abs().amax((0, 2, 3, 4))
    assert (difference[:2] == 0).all() and (difference[2:] > 1e-4).all()


def test_moments_are_nothing_for_what_the_model_wants():
    wanted = torch.randn(4, 8, 16, 24, 24) / training.SCALE
    assert training.moments(wanted) < 1e-3  # the spread of 18,000 draws a channel
    assert training.moments(wanted * 1.3) > 0.08
    assert training.moments(wanted + 0.5) > 0.1
    assert training.moments(wanted[:, :, :1].expand_as(wanted)) > 0.1


def test_samples_are_what_the_options_say_and_come_from_the_step_alone():
    pool = samples.Pool(OPTIONS).at(0)
    moving, still = samples.cut_batch(pool, OPTIONS, 0), samples.cut_batch(pool, OPTIONS, 2)
    assert moving.shape == (2, 5, 3, 32, 32) and still.shape == (2, 1, 3, 96, 96)
    assert moving.min() >= 0 and moving.max() <= 1
    assert torch.equal(moving, samples.cut_batch(pool, OPTIONS, 0))
    assert not torch.equal(moving, samples.cut_batch(pool, OPTIONS, 1))


def test_the_pool_renews_itself_and_never_holds_held_out_clips():
    pool = samples.Pool(OPTIONS)
    pool.at(0)
    assert set(pool.clips) == {0, 1}
    pool.at(4)
    assert set(pool.clips) == {2, 3}
    assert samples.FIRST + OPTIONS.pool + 10**8 < stage.HELD_OUT


def test_a_resumed_run_equals_an_uninterrupted_one(trainer, tmp_path):
    for _ in range(3):
        trainer.train_step()
    trainer.save()
    for _ in range(3):
        trainer.train_step()
    again = training.Trainer(tmp_path / "run", OPTIONS, widths=TOY)
    again.load()
    assert again.step == 3
    for _ in range(3):
        again.train_step()
    for name in ("network", "average"):
        expected, found = getattr(trainer, name).state_dict(), getattr(again, name).state_dict()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_a_run_takes_its_widths_from_its_checkpoint(trainer, tmp_path):
    trainer.train_step()
    trainer.save()
    again = training.Trainer.resumed(tmp_path / "run", OPTIONS)
    assert again.network.widths == TOY and again.step == 1


def test_what_was_trained_on_its_latents_stays_valid(tmp_path):
    """A decoder alone goes on from weights, without the first step's rescaling of the latents."""
    start = toy_vae()
    trainer = training.Trainer(tmp_path, dataclasses.replace(OPTIONS, encoder=False, steps=2), start=start)
    training.train(trainer, 10, tmp_path / "none", 2, lambda sheet, step: None)
    for network in (trainer.network, trainer.average):
        kept, moved = (
            [
                torch.equal(value, getattr(start, part).state_dict()[name])
                for name, value in getattr(network, part).state_dict().items()
            ]
            for part in ("encoder", "decoder")
        )
        assert all(kept) and not any(moved)


def test_training_brings_the_loss_down(tmp_path):
    """On the mean of four batches: a single one lies by the bound, and processors round differently."""
    options = dataclasses.replace(OPTIONS, steps=100)
    trainer = training.Trainer(tmp_path / "run", options, widths=TOY)
    targets = [samples.cut_batch(trainer.pool.at(0), options, number) for number in range(4)]

    def mean_losses():
        coded = [trainer.network.encode(target) for target in targets]
        parts = [training.losses(trainer.network.decode(c), c, target) for c, target in zip(coded, targets)]
        return {name: sum(float(part[name]) for part in parts) / len(parts) for name in ("squares", "moments")}

    before = mean_losses()
    trainer.begin()
    for _ in range(options.steps):
        trainer.train_step()
    after = mean_losses()
    assert after["squares"] < 0.8 * before["squares"]
    assert after["moments"] < 0.5 * before["moments"]


def test_a_loss_that_is_no_number_stops_and_leaves_the_network(trainer):
    with torch.no_grad():
        trainer.network.encoder.first.bias[0] = float("nan")
    before = trainer.network.decoder.first.weight.clone()
    with pytest.raises(TrainingError, match="Step 0: the loss is nan.*There is no checkpoint yet"):
        trainer.train_step()
    assert torch.equal(before, trainer.network.decoder.first.weight) and trainer.step == 0


def test_a_gradient_that_is_no_number_stops_and_leaves_the_network(trainer):
    trainer.save()
    trainer.network.decoder.last.bias.register_hook(lambda gradient: gradient * torch.nan)
    before = trainer.network.decoder.first.weight.clone()
    with pytest.raises(TrainingError, match=rf"its gradient nan.* good checkpoint is .*{training.CHECKPOINT}"):
        trainer.train_step()
    assert torch.equal(before, trainer.network.decoder.first.weight) and trainer.step == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"crop": 48, "pool": 3}, "crop was 32, is 48; pool was 2, is 3"),
        ({"encoder": False}, "encoder was True, is False"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(trainer, changes, told):
    trainer.save()
    with pytest.raises(ValueError, match=f"other options: {told}. Set them back"):
        training.Trainer.resumed(trainer.folder, dataclasses.replace(OPTIONS, **changes))


def test_a_decoder_alone_does_not_go_on_with_the_encoder(tmp_path):
    training.Trainer(tmp_path, dataclasses.replace(OPTIONS, encoder=False), start=toy_vae()).save()
    with pytest.raises(ValueError, match="encoder was False, is True"):
        training.Trainer.resumed(tmp_path, OPTIONS)


def test_steps_may_grow_until_the_rates_fall(trainer):
    longer = dataclasses.replace(OPTIONS, steps=60)
    trainer.step = 26  # 0.65 of 40
    trainer.save()
    assert training.Trainer.resumed(trainer.folder, longer).step == 26
    trainer.step = 27
    trainer.save()
    with pytest.raises(ValueError, match="steps was 40, is 60"):
        training.Trainer.resumed(trainer.folder, longer)


def test_a_checkpoint_of_other_widths_is_refused(trainer, tmp_path):
    trainer.save()
    other = training.Trainer(tmp_path / "run", OPTIONS, widths=Widths((8, 8, 8, 8), (1, 1, 1), (8, 8, 8, 8), (1, 1, 1)))
    with pytest.raises(ValueError, match="holds a network"):
        other.load()


def test_a_broken_save_leaves_the_last_checkpoint(trainer, monkeypatch):
    trainer.save()
    path = trainer.folder / training.CHECKPOINT
    before = path.read_bytes()

    def full(_state, target, **_):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        trainer.save()
    assert {file.name: file.read_bytes() for file in trainer.folder.iterdir()} == {training.CHECKPOINT: before}


def test_rates_rise_stay_and_fall(trainer):
    def factor(step):
        trainer.step = step
        return trainer.factor()

    assert factor(0) == 0.5 and factor(10) == 1.0 and factor(40) == 0.0
    assert factor(35) == pytest.approx(5 / 14)


def test_calibrated_latents_have_variance_one():
    clips = [samples.draw_material(seed, 5, (48, 48)) for seed in range(2)]
    vae = toy_vae()
    before = training.measure(vae, clips)["latent_variance"]
    training.calibrate(vae, clips)
    assert abs(before - 1) > 0.1
    assert training.measure(vae, clips)["latent_variance"] == pytest.approx(1, abs=1e-3)


def test_training_logs_and_shows_until_the_steps_are_done(trainer, material, monkeypatch):
    monkeypatch.setattr(training, "draw_material", lambda *_: material)
    shown = []
    training.train(trainer, 1e9, trainer.folder / "PAUSE", 20, lambda sheet, step: shown.append((step, sheet.shape)))
    assert trainer.step == OPTIONS.steps
    lines = (trainer.folder / "log.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("step,loss,") and "psnr_pose" in lines[0]
    assert shown[0][0] == 20 and (trainer.folder / training.CHECKPOINT).is_file()


@pytest.fixture
def command(trainer, material, monkeypatch, capsys):
    """command(*words): goes on with the run of ``trainer``; the exit code, what it says, and its errors."""
    trainer.save()
    monkeypatch.setattr(script.pack, "ROOT", trainer.folder)  # away from a runs/PAUSE that is meant for others
    monkeypatch.setattr(training, "draw_material", lambda *_: material)
    names = ("steps", "batch", "crop", "frames", "pool", "renew", "stills", "warmup", "clip_frames")
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", getattr(OPTIONS, name))]

    def run(*words):
        line = ["train_vae.py", "train", "--run", trainer.folder, "--every", 1, *options, *words]
        monkeypatch.setattr("sys.argv", [str(word) for word in line])
        code = script.main()
        told = capsys.readouterr()
        return code, told.out, [line for line in told.err.splitlines() if line.startswith("train_vae:")]

    return run


def test_nan_is_one_line_and_keeps_the_last_good_checkpoint(command, trainer, monkeypatch):
    moments = training.moments
    monkeypatch.setattr(training, "moments", lambda latents: moments(latents) * torch.nan)
    before = (trainer.folder / training.CHECKPOINT).read_bytes()
    code, _, errors = command()
    assert code == 1 and len(errors) == 1
    assert "Step 0: the loss is nan" in errors[0] and str(trainer.folder / training.CHECKPOINT) in errors[0]
    assert (trainer.folder / training.CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), safetensors.SafetensorError("I/O error: No space left")]
)
def test_a_full_disk_is_one_line_and_keeps_the_last_good_checkpoint(command, trainer, monkeypatch, error):
    before = (trainer.folder / training.CHECKPOINT).read_bytes()

    def full(*_, **__):
        raise error

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    code, _, errors = command()
    assert code == 1 and len(errors) == 1
    assert f"{training.CHECKPOINT} could not be written" in errors[0] and "No space left" in errors[0]
    # No log.csv either: the step would be in it twice when the run goes on.
    assert {file.name: file.read_bytes() for file in trainer.folder.iterdir()} == {training.CHECKPOINT: before}


def test_a_run_that_goes_on_says_that_it_does_not_begin_with_start(command):
    code, said, _ = command("--minutes", 0, "--start", WEIGHTS)
    assert code == 0 and f"going on from step 0 of the run's checkpoint, not from {WEIGHTS}" in said
    code, _, errors = command("--start", WEIGHTS, "--decoder", 64, 32, 16, 16)
    assert code == 1 and len(errors) == 1 and "--decoder" in errors[0] and "(24, 16, 8, 8)" in errors[0]


def test_a_file_that_is_no_checkpoint_is_one_line(command, trainer):
    (trainer.folder / training.CHECKPOINT).write_bytes(b"half of a header")
    code, _, errors = command()
    assert code == 1 and len(errors) == 1 and "is damaged" in errors[0]


def test_a_pause_file_holds_training(trainer, material, monkeypatch):
    pause = trainer.folder / "PAUSE"
    pause.parent.mkdir(parents=True)
    pause.touch()
    slept = []

    def sleep(seconds):
        slept.append((seconds, trainer.step))
        pause.unlink()

    monkeypatch.setattr(training.time, "sleep", sleep)
    monkeypatch.setattr(training, "draw_material", lambda *_: material)
    trainer.options = samples.Options(**{**vars(OPTIONS), "steps": 1})
    training.train(trainer, 1e9, pause, 20, lambda sheet, step: None)
    assert slept == [(5, 0)] and trainer.step == 1


def test_psnr_of_a_known_error():
    assert training.psnr(torch.zeros(4), torch.full((4,), 0.1)) == pytest.approx(20, abs=1e-4)
    assert np.isfinite(training.psnr(torch.zeros(4), torch.zeros(4)))


def test_weights_are_matrices_for_muon(trainer):
    named = dict(trainer.network.named_parameters())
    matrices = set(trainer.parts["muon"].parameters)
    assert {"encoder.first.weight", "decoder.last.weight"}.isdisjoint(matrices)
    assert "decoder.blocks.0.0.first.weight" in matrices
    assert matrices | set(trainer.parts["adamw"].parameters) == set(named)
    assert Conv(3, 4).weight.shape == (4, 27)
