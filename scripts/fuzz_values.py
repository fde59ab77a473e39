"""Values for the fuzz: good ones for every input of every node, and odd ones for every type of socket."""

import copy
import importlib.util
import math
import random
from functools import partial
from pathlib import Path

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.cogvideo
import comfy.text_encoders.t5
import numpy as np
import torch
from animate_anywhere.nodes import adapter, shot
from animate_anywhere.vision.camera_path import CameraPath
from in_process import Linked
from PIL import Image, ImageSequence

import nodes

FRAMES, SIZE, STEPS = 5, 64, 1
HUGE = 1 << 18  # px a side: no machine has memory for such a picture; a view of one number has
BODY = 18  # joints
TOY_T5 = {
    "d_ff": 48, "d_kv": 8, "d_model": 24, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "num_heads": 3,
    "model_type": "t5", "num_layers": 2, "vocab_size": 32128, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


class ToyT5(comfy.sd1_clip.SDClipModel):
    """The host's T5 at toy size."""

    def __init__(self, device="cpu", dtype=None, model_options=None) -> None:
        super().__init__(
            device=device, dtype=torch.float32, textmodel_json_config=TOY_T5, model_options=model_options or {},
            special_tokens={"end": 1, "pad": 0}, model_class=comfy.text_encoders.t5.T5, layer="last",
        )  # fmt: skip


def toy_clip() -> comfy.sd.CLIP:
    target = comfy.supported_models_base.ClipTarget(
        comfy.text_encoders.cogvideo.CogVideoXTokenizer,
        partial(comfy.sd1_clip.SD1ClipModel, name="t5xxl", clip_model=ToyT5),
    )
    clip, generator = comfy.sd.CLIP(target), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in clip.cond_stage_model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return clip


class Materials:
    """What the inputs of a node take when all is well, by the type of the socket; made once."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.frames = torch.rand(FRAMES, SIZE, SIZE, 3, generator=generator)
        self.mask = torch.zeros(FRAMES, SIZE, SIZE)
        self.mask[:, 20:44, 24:40] = 1
        self.person = person()
        with torch.inference_mode():
            (self.model,) = nodes.UNETLoader().load_unet("aa_tiny_base.safetensors", "default")
            (self.vae,) = nodes.VAELoader().load_vae("aa_tiny_vae.safetensors")
            (self.adapter,) = adapter.LoadAdapter.execute("aa_tiny_adapter.safetensors").result
            (self.patched,) = adapter.ApplyAdapter.execute(self.model, self.adapter, 1.0, 1.0, 1.0).result
            (self.reference,) = adapter.EncodeReference.execute(
                self.adapter, self.vae, self.frames[:1], width=SIZE, height=SIZE
            ).result
            self.shot = shot.Shot.execute(self.frames, self.frames[:1], self.reference).result[0]
            self.text = shot.no_prompt(self.model)
        self.clip = toy_clip()

    def of(self, node: str, inputs: list) -> dict[str, object]:
        """The inputs of ``node``, all good: required ones, and those optional ones that are not alternatives."""
        made = {each.id: self._good(node, each) for each in inputs}
        if node == "AA_MoveBackground":
            del made["camera_path"]
        if node == "AA_StitchClips":
            del made["clips"]
            made |= {f"clips.clip{index}": Linked(self.frames) for index in range(2)}
        if node in ("AA_ApplyAdapter", "AA_NoPrompt"):
            made["model"] = Linked(self.model)
        if node == "AA_DrawPose":
            del made["images"]
        if node == "AA_TrackBackground":
            del made["placed_points"]
        return {name: value for name, value in made.items() if value is not None}

    def _good(self, node: str, each) -> object:
        pictures = self.person if node in ("AA_ExtractPose", "AA_SegmentCharacter") else self.frames
        own = {
            "background": self.frames[:1], "character": self.frames[:1], "start": self.frames[:1],
            "start_pose": self.frames[:1], "depth": self.frames[:1], "reference": poses(1),
        }  # fmt: skip
        by_type = {
            "IMAGE": lambda: own.get(each.id, pictures),
            "MASK": lambda: self.mask[:1] if node == "AA_EncodeReference" else self.mask,
            "POSE_KEYPOINT": lambda: None if node == "AA_SegmentCharacter" else own.get(each.id, poses(FRAMES)),
            "TRACKS": tracks, "AA_CAMERA_PATH": camera_path, "AUDIO": audio, "MODEL": lambda: self.patched,
            "VAE": lambda: self.vae, "AA_ADAPTER": lambda: self.adapter, "AA_REFERENCE": lambda: self.reference,
            "AA_SHOT": lambda: self.shot, "CONDITIONING": lambda: self.text, "CLIP": lambda: self.clip,
        }  # fmt: skip
        if each.io_type in by_type:
            value = by_type[each.io_type]()
            return None if value is None else Linked(value)
        small = {"steps": STEPS, "cfg": 1.0, "length": 0, "width": 0, "height": 0, "window": 5, "points": 12}
        if each.io_type == "COMBO":
            options = getattr(each, "options", None) or [""]
            return each.default if each.default is not None else options[0]
        if each.id in small and node != "AA_DrawPose":
            return small[each.id]
        if each.id in ("width", "height"):
            return SIZE
        if each.io_type == "STRING":
            return each.default or ("fuzz" if each.id in ("filename", "filename_prefix") else "")
        return getattr(each, "default", None)


def person() -> torch.Tensor:
    """Two frames of somebody who dances, [2, 350, 350, 3], from the host's template package."""
    package = importlib.util.find_spec("comfyui_workflow_templates_media_api").submodule_search_locations[0]
    with Image.open(next(Path(package).rglob("api_kling_omni_v2v-2.webp"))) as clip:
        first = [np.array(frame.convert("RGB")) for _, frame in zip(range(2), ImageSequence.Iterator(clip))]
    return torch.from_numpy(np.stack(first)).float() / 255


def poses(frames: int) -> list[dict]:
    """Somebody who walks to the right, on a canvas of SIZE px."""
    draw = np.random.default_rng(1)
    body = np.column_stack([draw.uniform(-10, 10, (BODY, 2)) + SIZE / 2, np.ones(BODY)])
    steps = (body + np.array([2.0 * frame, 0, 0]) for frame in range(frames))
    return [
        {
            "people": [{"pose_keypoints_2d": step.ravel().tolist()}],
            "canvas_width": SIZE,
            "canvas_height": SIZE,
        }
        for step in steps
    ]


def tracks() -> dict:
    path = torch.rand(1, 12, 2) * SIZE + torch.arange(FRAMES)[:, None, None]
    return {"track_path": path, "track_visibility": torch.ones(FRAMES, 12, dtype=torch.bool)}


def camera_path() -> CameraPath:
    return CameraPath.from_steps(np.full((FRAMES - 1, 4), [1.0, 0, 0, 0]), SIZE, SIZE)


def audio() -> dict:
    return {"waveform": torch.zeros(1, 2, 4410), "sample_rate": 44100}


# --- odd ones

NUMBERS = [
    math.nan, math.inf, -math.inf, 1e308, -1e308, -1, 0, 2**70, -(2**70), 0.5, -0.001, True, False, None, "7", "x", "",
    [], {}, 3 + 4j, b"7", torch.tensor(1.0),
]  # fmt: skip
TEXTS = [
    "", " ", "../../x", "/etc/passwd", "C:\\x", "a\0b", "x" * 5000, "日本語", "nan", "-1", "1-", "0-99999999999", "a,b",
    "\n", "%date%", "{}", "[[]]", "CON", "x.part", "NaN,NaN", None, 7, True, [], {}, b"x", math.nan,
]  # fmt: skip


def tensors(good: torch.Tensor) -> list:
    """Frames or masks like ``good`` with everything wrong that a tensor can have."""
    holed, endless = good.clone(), good.clone()
    holed.view(-1)[0], endless.view(-1)[-1] = math.nan, math.inf
    last = good.shape[-1]
    return [
        good.bfloat16(), good.half(), good.double(), (good * 255).byte(), good.bool(), good.to(torch.complex64), holed,
        endless, good * 255, -good, good[:0], good[:, :0], good[..., :0], good[0], good[0, 0], good[None],
        good.reshape(-1), torch.tensor(0.5), good[:1], good[:, :1, :1], good[:, :3], good.movedim(-1, 1),
        good[..., :1], torch.cat([good, good[..., :1]], -1), good[..., : last // 2 or 1],
        torch.zeros(()).expand(1, HUGE, HUGE, *good.shape[3:]), torch.zeros(()).expand(HUGE * 64, *good.shape[1:]),
        good.to_sparse(), good.to("meta"), torch.zeros_like(good), torch.ones_like(good), good.numpy(), good.tolist(),
        None, "x", 7, [], {}, [good],
    ]  # fmt: skip


def odd_poses() -> list:
    good = poses(FRAMES)
    person_of, made = good[0]["people"][0], []
    for changes in (
        {"canvas_width": 0}, {"canvas_width": -5}, {"canvas_width": math.nan}, {"canvas_height": "64"},
        {"canvas_height": None}, {"canvas_width": 2**70}, {"people": None}, {"people": {}}, {"people": [7]},
        {"people": [{}]}, {"people": []}, {"people": [person_of] * 64},
    ):  # fmt: skip
        made.append([{**good[0], **changes}, *good[1:]])
    for points in (
        [], [1.0], None, "x", 7, [math.nan] * 54, [math.inf] * 54, [1e308] * 54, [-1e9] * 54, [0.0] * 54, ["a"] * 54,
        [0.5] * 53, [0.5] * 5400, [[1, 2, 3]] * 18, [None] * 54,
    ):  # fmt: skip
        made.append([{**good[0], "people": [{**person_of, "pose_keypoints_2d": points}]}, *good[1:]])
    lacking = copy.deepcopy(good)
    del lacking[0]["canvas_width"]
    return [*made, lacking, [], [{}], [None], good[:1], [7], good[0], "x", None, 7, {}, [good], torch.zeros(2, 18, 3)]


def odd_tracks() -> list:
    good = tracks()
    path = good["track_path"]
    paths = [
        path[:0], path[:, :0], path[..., :1], path[0], path * math.nan, path * math.inf, path * 1e30, path.bfloat16(),
        path.numpy(), path.tolist(), None, "x", path.to("meta"), path.long(), torch.zeros(()).expand(HUGE, HUGE, 2),
    ]  # fmt: skip
    seen = good["track_visibility"]
    visible = [seen[:0], seen[:, :1], seen.float() * math.nan, None, "x", seen[0], ~seen, seen.tolist()]
    sizes = [{"width": value, "height": value} for value in (-1, math.nan, "x", 2**70, None, 1e308, True)]
    made = [{**good, "track_path": each} for each in paths] + [{**good, "track_visibility": each} for each in visible]
    return [*made, *({**good, **each} for each in sizes), {}, [], None, "x", 7, path, {"track_path": path}]


def odd_camera_paths() -> list:
    good = camera_path()
    matrices = good.homographies
    sure = good.confidence
    made = [
        CameraPath(each, SIZE, SIZE, sure)
        for each in (matrices * math.nan, matrices * math.inf, matrices * 0, matrices * 1e308, matrices * -1)
    ]
    sizes = ((0, 0), (-5, 5), (math.nan, 1), (2**70, 4), ("64", "64"), (None, None))
    made += [CameraPath(matrices, *size, sure) for size in sizes]
    return [*made, CameraPath(matrices, SIZE, SIZE, sure * math.nan), None, "x", 7, {}, [], matrices]


def odd_audio() -> list:
    wave = audio()["waveform"]
    waves = [wave[:0], wave[..., :0], wave[0], wave * math.nan, wave + math.inf, wave.bfloat16(), None, "x", wave[0, 0]]
    rates = [0, -1, math.nan, None, "44100", 2**70, 1e308, True]
    made = [{"waveform": each, "sample_rate": 44100} for each in waves]
    return [*made, *({"waveform": wave, "sample_rate": rate} for rate in rates), {}, None, "x", 7, [], wave]


OBJECTS = [None, "x", 7, 1.5, True, [], {}, (), torch.zeros(2), object(), [[None, {}]], [[torch.zeros(1), None]], [[]]]


def odd(materials: Materials, io_type: str, draw: random.Random) -> object:
    """An odd value for a socket of the type ``io_type``; one in eight is meant for another type."""
    if draw.random() < 1 / 8:
        io_type = draw.choice(["IMAGE", "MASK", "POSE_KEYPOINT", "TRACKS", "INT", "STRING", "OTHER"])
    makers = {
        "IMAGE": lambda: tensors(materials.frames), "MASK": lambda: tensors(materials.mask),
        "POSE_KEYPOINT": odd_poses, "TRACKS": odd_tracks, "AA_CAMERA_PATH": odd_camera_paths, "AUDIO": odd_audio,
        "INT": lambda: NUMBERS, "FLOAT": lambda: NUMBERS, "BOOLEAN": lambda: NUMBERS, "STRING": lambda: TEXTS,
        "COMBO": lambda: TEXTS,
    }  # fmt: skip
    return draw.choice(makers.get(io_type, lambda: OBJECTS)())
