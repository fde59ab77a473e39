"""The host's context windows on shots, through its own nodes."""

import pytest
import torch
import toys
from animate_anywhere.models import attach, checkpoint, clips, latents
from animate_anywhere.nodes import sample as nodes
from animate_anywhere.nodes import shot as shots
from comfy_extras import nodes_context_windows as host
from comfy_extras import nodes_custom_sampler as stock

pytestmark = pytest.mark.usefixtures("no_gradients")

FRAMES, LATENTS, WIDTH, HEIGHT = 29, 8, 32, 16
LENGTH, OVERLAP = 4, 2  # latent frames
WINDOWS = [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]


@pytest.fixture(scope="module")
def vae():
    return toys.taehv_vae()


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    base = toys.cogvideox_patcher()
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    checkpoint.save(path, checkpoint.Base.of(base.model.diffusion_model), toys.trained_groups(base))
    return checkpoint.load(path)


@pytest.fixture(scope="module")
def model(adapter):
    return attach.attach(toys.cogvideox_patcher(), adapter)


@pytest.fixture
def shot(adapter):
    character = attach.encode_reference(adapter, torch.randn(1, 16, 1, 2, 4))
    return clips.make_shot(torch.rand(FRAMES, HEIGHT, WIDTH, 3), torch.rand(1, HEIGHT, WIDTH, 3), character)


def windowed(model, length=LENGTH, overlap=OVERLAP, schedule="standard_static", retain="0", **more):
    settings = {
        "context_stride": 1, "closed_loop": False, "fuse_method": "overlap-linear", "dim": 2, "freenoise": True,
        "causal_window_fix": False,
    }  # fmt: skip
    node = host.ContextWindowsManualNode.execute(
        model, length, overlap, schedule, cond_retain_index_list=retain, **settings | more
    )
    return node.result[0]


def watched(model):
    """A clone of ``model``, and a list of what its transformer is given."""
    seen, model = [], model.clone()

    def watch(apply_model, given):
        conditions = given["c"]
        window = conditions["transformer_options"]["context_window"]
        reference = conditions.get("aa_reference")
        seen.append((list(window.index_list), conditions["c_concat"], conditions.get("aa_pose"), reference))
        return apply_model(given["input"], given["timestep"], **conditions)

    model.set_model_unet_function_wrapper(watch)
    return model, seen


def windows_of(seen, controlled):
    return [places for places, _, pose, _ in seen if (pose is not None) == controlled]


def encoded(vae, shot, model):
    text = shots.no_prompt(model)
    return shots.EncodeShot.execute(shot, vae, text, text).result


def run(model, conditions, steps=2, method="ddim"):
    """The stock nodes: latents [1, 16, t, h, w]."""
    positive, negative, latent = conditions
    return stock.SamplerCustomAdvanced.execute(
        stock.RandomNoise.execute(5).result[0],
        stock.CFGGuider.execute(model, positive, negative, 2.5).result[0],
        nodes.Sampler.execute(method).result[0],
        nodes.Schedule.execute(model, steps).result[0],
        latent,
    ).result[0]["samples"]


@pytest.mark.parametrize("retain", ["", "0"])
def test_each_window_sees_its_pose_its_start_picture_and_the_whole_reference(model, vae, shot, retain):
    model, seen = watched(windowed(model, retain=retain))
    conditions = encoded(vae, shot, model)
    assert run(model, conditions, steps=1).isfinite().all()
    scaled = model.model.process_latent_in
    pose, start = (scaled(conditions[0][0][1][key]) for key in ("aa_pose", "concat_latent_image"))
    assert windows_of(seen, controlled=True) == windows_of(seen, controlled=False) == WINDOWS
    for places, picture, given, reference in seen:
        expected = start[:, :, places].clone()
        if retain:
            expected[:, :, 0] = start[:, :, 0]
        assert torch.equal(picture, expected.to(picture))
        if given is not None:
            assert torch.equal(given, pose[:, :, places].to(given))
            assert reference.width == 128


@pytest.mark.parametrize("schedule", ["standard_static", "standard_uniform", "looped_uniform", "batched"])
def test_every_schedule_of_the_host_samples_every_frame(model, vae, shot, schedule):
    fuse = "pyramid" if schedule == "batched" else "overlap-linear"  # batches have nothing in common
    samples = run(windowed(model, schedule=schedule, fuse_method=fuse), encoded(vae, shot, model))
    assert samples.shape == (1, 16, LATENTS, 2, 4)
    assert samples.isfinite().all() and samples.std(dim=(0, 1, 3, 4)).min() > 0.01


def test_a_later_pose_changes_only_the_windows_that_have_it(model, vae, shot):
    """In one step; in the next, what windows have in common carries it on."""
    positive, *rest = encoded(vae, shot, model)
    text, more = positive[0]
    pose = more["aa_pose"].clone()
    pose[:, :, 6:] += 1
    model = windowed(model)
    before, after = (run(model, (part, *rest), steps=1) for part in (positive, [[text, {**more, "aa_pose": pose}]]))
    changed = (before - after).abs().amax(dim=(0, 1, 3, 4))
    assert changed[:4].max() == 0  # up to where the last window, [4, 5, 6, 7], begins
    assert changed[5:].min() > 1e-4


def test_a_context_as_long_as_the_shot_is_the_plain_run(model, vae, shot):
    conditions = encoded(vae, shot, model)
    plain, same, other = (
        run(each, conditions, method="cogvideox_dpm")
        for each in (model, windowed(model, LATENTS, freenoise=False), windowed(model, freenoise=False))
    )
    assert torch.equal(plain, same)
    assert not torch.allclose(plain, other)


def test_sample_shot_takes_a_window_longer_than_the_context(model, vae, shot):
    model, seen = watched(windowed(model))
    text = shots.no_prompt(model)
    images, report, *_ = nodes.SampleShot.execute(model, vae, shot, text, text, 5, 2, window=FRAMES).result
    assert images.shape == (FRAMES, HEIGHT, WIDTH, 3) and "windows" not in report
    assert windows_of(seen, controlled=True) == windows_of(seen, controlled=False) == WINDOWS * 2  # two steps


def test_text_as_wide_as_the_shot_is_long_stays_whole(model, vae, adapter):
    """The toy's is 24 wide; the embedded default's is 64, and 64 latent frames are 253 frames."""
    frames = latents.frames_of(toys.CONFIG["text_embed_dim"])
    shot = clips.make_shot(torch.rand(1, HEIGHT, WIDTH, 3).expand(frames, -1, -1, -1), torch.rand(1, HEIGHT, WIDTH, 3))
    assert run(windowed(model), encoded(vae, shot, model), steps=1).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 5}, "model: its context windows have 5 latent frames.*an even number"),
        (
            {"overlap": 4, "freenoise": False},
            "model: its context windows have 4 latent frames, 4 of them in common.*to less",
        ),
        ({"causal_window_fix": True}, "model: causal_window_fix puts one latent frame in front"),
        ({"dim": 0}, "model: its context windows cut dimension 0, and time is 2"),
    ],
)
def test_windows_of_which_the_host_would_spoil_the_end_are_refused_before_the_first_step(
    model, vae, shot, settings, message
):
    model, seen = watched(windowed(model, **settings))
    with pytest.raises(ValueError, match=message):
        run(model, encoded(vae, shot, model))
    assert not seen
