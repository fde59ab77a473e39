"""SAM 2 at toy size: files of both kinds, and what it remembers against transformers' own way through a video."""

import re

import pytest
import torch
from animate_anywhere.models import sam2
from safetensors.torch import save_file
from support import toy_networks
from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

# transformers' names -> the names in Meta's files, read off the modules of facebookresearch/sam2.
ORIGINAL = [
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"(blocks\.\d+|transformer\.layers\.\d+)\.mlp\.proj_in\.", r"\1.mlp.layers.0."),
    (r"(blocks\.\d+|transformer\.layers\.\d+)\.mlp\.proj_out\.", r"\1.mlp.layers.1."),
    (r"(mlps\.\d|_head|object_pointer_proj)\.proj_out\.", r"\1.layers.2."),
    (r"(mlps\.\d|_head|object_pointer_proj)\.layers\.0\.", r"\1.layers.1."),
    (r"(mlps\.\d|_head|object_pointer_proj)\.proj_in\.", r"\1.layers.0."),
    (r"mask_embed\.conv1\.", "mask_downscaling.0."),
    (r"mask_embed\.layer_norm1\.", "mask_downscaling.1."),
    (r"mask_embed\.conv2\.", "mask_downscaling.3."),
    (r"mask_embed\.layer_norm2\.", "mask_downscaling.4."),
    (r"mask_embed\.conv3\.", "mask_downscaling.6."),
    (r"upscale_conv1\.", "output_upscaling.0."),
    (r"upscale_layer_norm\.", "output_upscaling.1."),
    (r"upscale_conv2\.", "output_upscaling.3."),
    (r"^prompt_encoder\.shared_embedding\..*", "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.", "sam_prompt_encoder."),
    (r"^mask_decoder\.", "sam_mask_decoder."),
    (r"mask_downsampler\.layers\.(\d)\.conv\.", lambda m: f"mask_downsampler.encoder.{3 * int(m[1])}."),
    (r"mask_downsampler\.layers\.(\d)\.layer_norm\.", lambda m: f"mask_downsampler.encoder.{3 * int(m[1]) + 1}."),
    (r"mask_downsampler\.final_conv\.", "mask_downsampler.encoder.12."),
    (r"^memory_encoder\.projection\.", "memory_encoder.out_proj."),
    (r"feature_projection", "pix_feat_proj"),
    (r"memory_fuser", "fuser"),
    (r"depthwise_conv", "dwconv"),
    (r"pointwise_conv", "pwconv"),
    (r"\.scale$", ".gamma"),
    (r"o_proj", "out_proj"),
    (r"layer_norm", "norm"),
    (r"patch_embed\.projection", "patch_embed.proj"),
    (r"^object_pointer_proj", "obj_ptr_proj"),
    (r"^temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
    (r"^occlusion_spatial_embedding_parameter$", "no_obj_embed_spatial"),
    (r"^memory_temporal_positional_encoding$", "maskmem_tpos_enc"),
    (r"^no_object_pointer$", "no_obj_ptr"),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"^no_memory_positional_encoding$", "no_mem_pos_enc"),
]


def original(state):
    """``state`` as Meta's files have it."""
    out = {}
    for key, value in state.items():
        for pattern, name in ORIGINAL:
            key = re.sub(pattern, name, key)
        out[key] = value.clone()
    out.pop("shared_image_embedding.positional_embedding")
    points = out.pop("sam_prompt_encoder.point_embed.weight")
    return out | {f"sam_prompt_encoder.point_embeddings.{i}.weight": points[i : i + 1].clone() for i in range(4)}


@pytest.fixture(scope="module")
def toy():
    return toy_networks.sam2()


@pytest.fixture(scope="module")
def video():
    frames = torch.rand(9, 48, 80, 3, generator=torch.Generator().manual_seed(1)) * 0.2
    for t, frame in enumerate(frames):
        frame[14:34, 10 + 5 * t : 26 + 5 * t] = torch.tensor([0.9, 0.4, 0.2])
    return frames


def prompt(frame, x, y):
    return sam2.Prompt(frame, torch.tensor([[x, y], [2.0, 40.0]]), torch.tensor([True, False]))


def followed(tracker, frames, things, progress=None):
    """Masks [N, T, H, W]; each frame of each thing comes once."""
    masks = torch.full((len(things), *frames.shape[:3]), torch.nan)
    for number, frame, mask in tracker.follow(frames, things, progress):
        assert masks[number, frame].isnan().all()
        masks[number, frame] = mask
    assert not masks.isnan().any()
    return masks


def by_transformers(network, frames, frame, x, y):
    """The same question answered by transformers' own loop, the whole video prepared before."""
    pixels = torch.nn.functional.interpolate(frames.movedim(-1, 1), (64, 64), mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor(sam2.MEAN)[:, None, None]) / torch.tensor(sam2.STD)[:, None, None]
    session = Sam2VideoInferenceSession(pixels, video_height=48, video_width=80, dtype=torch.float32)
    points = torch.tensor([[[[x, y], [2.0, 40.0]]]]) * torch.tensor([64 / 80, 64 / 48])
    inputs = {"point_coords": points, "point_labels": torch.tensor([[[1, 0]]], dtype=torch.int32)}
    session.add_point_inputs(session.obj_id_to_idx(1), frame, inputs)
    session.obj_with_new_inputs = [1]
    network(session, frame_idx=frame)
    masks = torch.zeros(len(frames), 48, 80)
    for reverse in (False, True):
        for output in network.propagate_in_video_iterator(session, start_frame_idx=frame, reverse=reverse):
            logits = torch.nn.functional.interpolate(output.pred_masks, (48, 80), mode="bilinear")
            masks[output.frame_idx] = logits[0, 0].sigmoid()
    return masks


def test_a_video_is_followed_both_ways_as_transformers_does_it(toy, video):
    expected = by_transformers(toy, video, 5, 43.0, 24.0)
    done = []
    masks = followed(sam2.Sam2(toy), video, [[prompt(5, 43.0, 24.0)]], done.append)
    assert expected.std() > 0.01  # a network of random weights has something to say, too
    assert torch.allclose(masks[0], expected, atol=1e-5)
    assert done == sorted(done) and done[-1] == 9


def test_things_pointed_at_in_different_frames_do_not_disturb_each_other(toy, video):
    tracker = sam2.Sam2(toy)
    one, two = [prompt(5, 43.0, 24.0)], [prompt(2, 28.0, 24.0)]
    together = followed(tracker, video, [one, two])
    assert torch.allclose(together[0], followed(tracker, video, [one])[0], atol=1e-5)
    assert torch.allclose(together[1], followed(tracker, video, [two])[0], atol=1e-5)


def test_memory_does_not_grow_with_the_video(toy, video):
    memory = sam2._Memory(toy, video.repeat(4, 1, 1, 1), [prompt(0, 18.0, 24.0)], torch.device("cpu"))
    for frame in range(1, 36):
        memory.step(frame, False)
    remembered = memory.session.output_dict_per_obj[0]["non_cond_frame_outputs"]
    assert len(remembered) <= memory.kept + 1 == 5
    assert not any("high_res_masks" in output for output in remembered.values())


def test_cancelling_stops_at_once(toy, video):
    def cancel(done):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        followed(sam2.Sam2(toy), video, [[prompt(0, 18.0, 24.0)]], cancel)


def test_a_folder_in_the_hugging_face_layout_loads_to_the_bit(toy, tmp_path):
    toy.save_pretrained(tmp_path)
    loaded = sam2.load(tmp_path).placed.network
    assert loaded.config.image_size == 64
    assert all(torch.equal(value, toy.state_dict()[key]) for key, value in loaded.state_dict().items())


def narrow(**changes):
    """The tiny one's blocks at a twelfth of its width: what a single file can be recognised by is all there."""
    backbone = {"model_type": "sam2_hiera_det_model", "hidden_size": 8, "embed_dim_per_stage": [8, 16, 32, 64]}
    vision = {"model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8]}
    return Sam2VideoModel(Sam2VideoConfig(vision_config=vision, **changes))


@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_a_single_file_in_the_original_names_loads_to_the_bit(version, tmp_path):
    newer = version == "2.1"
    network = narrow(enable_temporal_pos_encoding_for_object_pointers=newer, enable_occlusion_spatial_embedding=newer)
    state = network.state_dict()
    file = original(state)
    assert ("obj_ptr_tpos_proj.weight" in file) == newer
    assert not set(file) & {key for key in state if "norm" in key or key.startswith(("vision_", "mask_decoder"))}
    save_file(file, tmp_path / "sam2_toy.safetensors")
    loaded = sam2.load(tmp_path / "sam2_toy.safetensors").placed.network.state_dict()
    expected = dict(state)  # the one weight that the original holds once and transformers twice
    expected["shared_image_embedding.positional_embedding"] = state[
        "prompt_encoder.shared_embedding.positional_embedding"
    ]
    assert set(loaded) == set(expected)
    assert all(torch.equal(loaded[key], value) for key, value in expected.items())


# Blocks, heads, blocks that see the whole picture, windows, background: transformers' own conversion of the four sizes.
SIZES = {
    "tiny": (96, [1, 2, 7, 2], 1, [5, 7, 9], [8, 4, 14, 7], [7, 7]),
    "small": (96, [1, 2, 11, 2], 1, [7, 10, 13], [8, 4, 14, 7], [7, 7]),
    "base plus": (112, [2, 3, 16, 3], 2, [12, 16, 20], [8, 4, 14, 7], [14, 14]),
    "large": (144, [2, 6, 36, 4], 2, [23, 33, 43], [8, 4, 16, 8], [7, 7]),
}


@pytest.mark.parametrize("size", SIZES)
def test_the_size_is_read_from_the_weights(size):
    width, blocks, heads, whole, windows, background = SIZES[size]
    trunk = "vision_encoder.backbone"
    state = {
        f"{trunk}.patch_embed.projection.weight": torch.empty(width, 3, 7, 7, device="meta"),
        f"{trunk}.pos_embed": torch.empty(1, width, *background, device="meta"),
    }
    starts = torch.tensor(blocks).cumsum(0).tolist()
    state |= {f"{trunk}.blocks.{i}.layer_norm1.weight": torch.empty(1, device="meta") for i in range(sum(blocks))}
    state |= {f"{trunk}.blocks.{i}.proj.weight": torch.empty(1, device="meta") for i in starts[:3]}
    found = sam2.configuration(state).vision_config.backbone_config
    assert (found.hidden_size, found.blocks_per_stage, found.num_attention_heads_per_stage[0]) == (width, blocks, heads)
    assert (found.global_attention_blocks, found.window_size_per_stage) == (whole, windows)
    assert list(found.window_positional_embedding_background_size) == background


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("sam2.pt", b"pickle", "convert.py unpickle sam2.pt sam2.safetensors"),
        ("sam2.safetensors", b"cut off", "sam2.safetensors is damaged, or no SAM 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(name, content, told, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        sam2.load(tmp_path / name)


@pytest.mark.parametrize("weights", ["cut off", "pickled", "of another network"])
def test_a_folder_that_cannot_be_read_is_named_with_what_it_needs(toy, weights, tmp_path):
    toy.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    if weights == "pickled":
        file.unlink()
        torch.save(toy.state_dict(), tmp_path / "pytorch_model.bin")
    elif weights == "cut off":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        save_file({"blocks.0.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="weights: .* does not hold SAM 2 .*config.json and model.safetensors"):
        sam2.load(tmp_path)


def test_another_network_is_refused(tmp_path):
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / "sam2.safetensors")
    with pytest.raises(ValueError, match="sam2.safetensors is damaged, or no SAM 2"):
        sam2.load(tmp_path / "sam2.safetensors")
