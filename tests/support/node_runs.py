"""One run or more of every node, on whatever device the host has: what tests compare between devices.

A run is a function that takes a World and returns what the node gave. Its name is "node", "node/how" or "node+node".
"""

import asyncio
import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import comfy_extras.nodes_custom_sampler as stock
import dwpose_toys
import folder_paths
import numpy as np
import released
import scene
import torch
import toys
from animate_anywhere.models import checkpoint
from animate_anywhere.nodes import detection, files
from animate_anywhere.nodes.dynamictrl import FOLDER as BASES
from animate_anywhere.vision import levels
from PIL import Image, ImageSequence
from torch import Tensor

from . import toy_networks

WIDTH, HEIGHT, FRAMES, STEPS = 48, 32, 9, 2  # of shots
FILMED = (90, 120)  # height and width, px, of clips whose background is followed
EVERY_DEVICE = ("cpu", "normal", "gpu_only", "mixed")


def load_nodes() -> dict[str, type]:
    """The pack's nodes by id."""
    extension = sys.modules["animate_anywhere"].AnimateAnywhere()
    asyncio.run(extension.on_load())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


def set_up_files(folder: Path) -> None:
    """Models folder, output folder and so on in `folder`, with files of networks of others at toy size."""
    folder_paths.models_dir = str(folder / "models")
    for name in ("inpaint", "sam2", "vitmatte"):
        folder_paths.folder_names_and_paths.pop(name, None)
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    toy_networks.save_lama(folder / "models" / "inpaint" / "big-lama.safetensors")
    toy_networks.sam2().save_pretrained(folder / "models" / "sam2" / "sam2-toy")
    toy_networks.vitmatte().save_pretrained(folder / "models" / "vitmatte" / "vitmatte-toy")
    (folder / "models" / "detection").mkdir()
    networks = dwpose_toys.standing(170, 175, 300)
    for source, network in zip((detection.PEOPLE[0], detection.POINTS[0]), networks):
        network.save(folder / "models" / "detection" / source.name)
    folder_paths.folder_names_and_paths["detection"] = ([str(folder / "models" / "detection")], {".pt"})
    released.save(folder / "models" / BASES / "DynamiCtrl" / "transformer", released.weights(2))
    folder_paths.folder_names_and_paths[BASES] = ([str(folder / "models" / BASES)], {".safetensors"})
    folder_paths.filename_list_cache.clear()
    for name in ("output", "user", "temp", "input"):
        (folder / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(folder / name))
    trust_programs(folder / "models" / "detection")


def trust_programs(folder: Path) -> None:
    """Let the TorchScript files in `folder` be opened, as an artist does it."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in folder.glob("*.pt")]
    files.allow_list().write_text("\n".join(lines), encoding="utf-8")


class World:
    """What nodes are given on one kind of device. `kind`: one of EVERY_DEVICE.

    cpu, normal: tensors between nodes lie on the CPU. gpu_only: on the device. mixed: on the device, but every second
    one, as where a pack's CPU results meet the host's.
    """

    def __init__(self, kind: str, folder: Path, nodes: dict[str, type], first: "World | None" = None) -> None:
        """first: the world on the CPU, which the others share what they only read with."""
        self.kind, self.folder, self.nodes, self.first = kind, folder, nodes, first or self
        self.called: set[str] = set()
        self.turn = 0  # tensors placed so far

    def node(self, name: str, **inputs) -> tuple:
        """Execute the node AA_`name`, tensors among its `inputs` moved to where this world has them."""
        self.called.add(f"AA_{name}")
        with torch.inference_mode():
            placed = {key: self._place(value) for key, value in inputs.items()}
            return self.nodes[f"AA_{name}"].execute(**placed).result

    def _place(self, value: object) -> object:
        if isinstance(value, dict):
            return {key: self._place(part) for key, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        self.turn += 1
        on_device = self.kind == "gpu_only" or (self.kind == "mixed" and self.turn % 2)
        return value.to("cuda:0") if on_device else value.cpu() if self.kind == "mixed" else value

    # --- pictures

    @cached_property
    def dance(self) -> Tensor:
        """Three frames of a woman who dances, [3, 350, 350, 3]."""
        package = importlib.util.find_spec("comfyui_workflow_templates_media_api").submodule_search_locations[0]
        with Image.open(next(Path(package).rglob("api_kling_omni_v2v-2.webp"))) as clip:
            frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)][:3]
        return torch.from_numpy(np.stack(frames)).float() / 255

    @cached_property
    def filmed(self) -> tuple[Tensor, Tensor]:
        """Somebody walks through a view of a wall [8, H, W, 3], and the mask of that person [8, H, W]."""
        mask = scene.walker(8, FILMED)
        shot = scene.film(scene.wall(2 * FILMED[0], 2 * FILMED[1]), scene.camera("pan", 8, FILMED), FILMED)
        return scene.step_in(shot, mask), mask

    @cached_property
    def pose(self) -> list[dict]:
        if self.first is not self:
            return self.first.pose
        return self.node("ExtractPose", images=self.dance, detector="blazepose", smoothing=0.3)[0]

    # --- models

    @cached_property
    def base(self) -> object:
        return toys.cogvideox_patcher()

    @cached_property
    def adapter(self) -> checkpoint.Adapter:
        path = self.folder / f"{self.kind}.safetensors"
        checkpoint.save(path, checkpoint.Base.of(self.base.model.diffusion_model), self.groups)
        return checkpoint.load(path)

    @cached_property
    def groups(self) -> dict:
        """The same weights on every device."""
        return toys.trained_groups(self.base) if self.first is self else self.first.groups

    @cached_property
    def model(self) -> object:
        return self.node(
            "ApplyAdapter", model=self.base, adapter=self.adapter, pose_strength=1.0, reference_strength=0.7,
            background_motion=1.0,
        )[0]  # fmt: skip

    @cached_property
    def vae(self) -> object:
        return toys.taehv_vae()

    @cached_property
    def text(self) -> list:
        return self.node("NoPrompt", model=self.model)[0]

    # --- shots

    def pictures(self, count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        small = torch.rand(count, 3, HEIGHT // 8, WIDTH // 8, generator=generator)
        return torch.nn.functional.interpolate(small, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1).movedim(1, -1)

    @cached_property
    def reference(self) -> object:
        mask = torch.ones(1, HEIGHT, WIDTH)
        mask[:, :, :8] = 0
        return self.node(
            "EncodeReference", adapter=self.adapter, vae=self.vae, character=self.pictures(1, 1), mask=mask
        )[0]

    def shot(self, environment: bool = False, reference: bool = True, **more) -> object:
        mask = torch.zeros(FRAMES, HEIGHT, WIDTH)
        mask[:, :, 16:32] = 1
        return self.node(
            "Shot", pose=self.pictures(FRAMES, 2), background=self.pictures(FRAMES if environment else 1, 3),
            reference=self.reference if reference else None, mask=mask if environment else None, **more,
        )[0]  # fmt: skip

    @property
    def sampling(self) -> dict:
        return {"model": self.model, "vae": self.vae, "positive": self.text, "negative": self.text}

    def sampled(self, model: object, **more) -> tuple:
        taken = {**self.sampling, "model": model, "seed": 5, "steps": STEPS} | more
        return self.node("SampleShot", **taken)


def extract_pose(world: World, detector: str = "blazepose") -> tuple:
    return world.node("ExtractPose", images=world.dance, detector=detector, smoothing=0.3)


def segment(world: World, with_pose: bool, **inputs) -> tuple:
    pose = {"pose": world.pose} if with_pose else {}
    return world.node("SegmentCharacter", images=world.dance, grow=2, **pose, **inputs)


def inpaint(world: World, method: str) -> tuple:
    frames, mask = world.filmed
    return world.node("InpaintBackground", images=frames[:4], mask=mask[:4], method=method, shadow=2, invent="telea")


def inpaint_by_lama(world: World) -> tuple:
    """A place that no frame shows."""
    frames, mask = world.filmed[0][:2], torch.zeros(2, *FILMED)
    mask[:, 30:60, 40:70] = 1
    return world.node("InpaintBackground", images=frames, mask=mask, invent="lama")


def retarget(world: World) -> tuple:
    return world.node("RetargetPose", driving=world.pose, reference=world.pose, arms=1.2)


def save_and_load_pose(world: World) -> tuple:
    named = world.node("SavePose", pose=world.pose, filename_prefix=f"{world.kind}/pose")[0]
    return world.node("LoadPose", file=named)


def draw_over(world: World) -> tuple:
    return world.node("DrawPose", pose=world.pose, images=world.dance, opacity=0.5)


def shape_agnostic(world: World, **inputs) -> tuple:
    return world.node("ShapeAgnosticMask", mask=world.filmed[1], grow=3, feather=2, **inputs)


def black_out(world: World) -> tuple:
    frames, mask = world.filmed
    return world.node("BlackOut", images=frames, mask=mask, blank="background")


def track(world: World) -> tuple:
    frames, mask = world.filmed
    return world.node("TrackBackground", images=frames, mask=mask, points=9)[:2]


def draw_tracks(world: World) -> tuple:
    tracks, _ = track(world)
    return world.node("DrawTracks", tracks=tracks, mask=world.filmed[1], trail=2)


def move_background(world: World) -> tuple:
    tracks, _ = track(world)
    picture = world.filmed[0][:1]
    return world.node("MoveBackground", background=picture, tracks=tracks, depth=picture)[:2]


def stitch(world: World) -> tuple:
    frames, _ = world.filmed
    lit = levels.apply(frames, *[levels.Level(np.array([0.9, 1.05, 1.1]), np.zeros(3))] * 2)
    return world.node("StitchClips", clips={"clip1": frames[:5], "clip2": lit[3:]}, overlap=2)[:1]


def draft_shot(world: World) -> tuple:
    """Every part that reads a picture: the mask is found, and the place moves."""
    return world.node(
        "DraftShot", character=world.dance[:1], pose=world.pose, background=world.pictures(1, 3), width=160, height=160
    )


def shot_with_start(world: World) -> tuple:
    """Its own first frame and that frame's pose; encoded, so that they meet."""
    shot = world.shot(start=world.pictures(1, 4), start_pose=world.pictures(FRAMES, 2)[:1])
    return shot, world.node("EncodeShot", shot=shot, **world.sampling)


def apply_adapter(world: World) -> tuple:
    return world.sampled(world.model, shot=world.shot())


def sample_long(world: World, **inputs) -> tuple:
    return world.sampled(world.model, shot=world.shot(environment=True), blend=1, **{"window": 5} | inputs)


def encode_shot(world: World, **inputs) -> tuple:
    return world.node("EncodeShot", shot=world.shot(environment=True), **world.sampling, **inputs)


def decode_shot(world: World) -> tuple:
    *_, latent = encode_shot(world)
    return world.node("DecodeShot", samples=latent, vae=world.vae)


def custom_sampler(world: World, method: str) -> tuple:
    """Through the host's own SamplerCustom, as Encode Shot, CogVideoX Sampler and CogVideoX Schedule are meant."""
    positive, negative, latent = encode_shot(world)
    (sampler,), (sigmas,) = world.node("Sampler", method=method), world.node("Schedule", model=world.model, steps=STEPS)
    with torch.inference_mode():
        sampled = stock.SamplerCustom.execute(
            world.model, True, 5, 2.5, positive, negative, sampler, sigmas, latent
        ).result
    return (sampled[0]["samples"],)


def plan(world: World) -> tuple:
    return world.node("PlanShot", shot=world.shot(), **world.sampling)[:1]


def render(world: World) -> tuple:
    sound = {"waveform": world._place(torch.rand(1, 2, 8000) - 0.5), "sample_rate": 8000}
    place = {"filename": f"{world.kind}/film", "crf": 1, "audio": sound}
    return world.node("RenderShot", shot=world.shot(), seed=5, steps=STEPS, window=5, **place, **world.sampling)[:1]


def load_adapter(world: World) -> tuple:
    """Loaded by its name from the models folder, and put to use."""
    folder = Path(folder_paths.get_folder_paths("animate_anywhere")[0])
    folder.mkdir(parents=True, exist_ok=True)
    assert world.adapter
    shutil.copy(world.folder / f"{world.kind}.safetensors", folder / "runs.safetensors")
    (adapter,) = world.node("LoadAdapter", adapter="runs.safetensors")
    assert adapter.header == world.adapter.header
    return world.node("EncodeReference", adapter=adapter, vae=world.vae, character=world.pictures(1, 1))[0].states


def dynamictrl(world: World) -> tuple:
    (model,) = world.node("LoadDynamiCtrl", checkpoint="DynamiCtrl/transformer/")
    return world.sampled(model, shot=world.shot(reference=False), negative=world.text)


def encode_prompt(world: World) -> tuple:
    return world.node("EncodePrompt", clip=toy_networks.clip(), text="a woman dances")


RUNS: dict[str, Callable[[World], tuple]] = {
    "AA_ExtractPose": extract_pose,
    "AA_ExtractPose/dwpose": partial(extract_pose, detector="dwpose"),
    "AA_DrawPose": draw_over,
    "AA_DrawPose/black": lambda world: world.node("DrawPose", pose=world.pose),
    "AA_SavePose+AA_LoadPose": save_and_load_pose,
    "AA_RetargetPose": retarget,
    "AA_SegmentCharacter": partial(segment, with_pose=True),
    "AA_SegmentCharacter/alone": partial(segment, with_pose=False),
    "AA_SegmentCharacter/sam2": partial(segment, with_pose=True, model="sam2", objects=True),
    "AA_SegmentCharacter/vitmatte": partial(segment, with_pose=True, matting="vitmatte", feather=0),
    "AA_ShapeAgnosticMask": shape_agnostic,
    "AA_ShapeAgnosticMask/training": partial(shape_agnostic, blocks="training", steady=False),
    "AA_InpaintBackground": partial(inpaint, method="temporal"),
    "AA_InpaintBackground/telea": partial(inpaint, method="telea"),
    "AA_InpaintBackground/lama": inpaint_by_lama,
    "AA_TrackBackground": track,
    "AA_DrawTracks": draw_tracks,
    "AA_MoveBackground": move_background,
    "AA_PoseToTracks": lambda world: world.node("PoseToTracks", pose=world.pose, method="learned", points=9)[:2],
    "AA_DraftShot": draft_shot,
    "AA_StitchClips": stitch,
    "AA_BlackOut": black_out,
    "AA_EncodePrompt": encode_prompt,
    "AA_LoadAdapter": load_adapter,
    "AA_ApplyAdapter": apply_adapter,
    "AA_EncodeReference": lambda world: (world.reference.states,),
    "AA_NoPrompt": lambda world: (world.text[0][0],),
    "AA_Shot": lambda world: (world.shot(environment=True),),
    "AA_Shot/start": shot_with_start,
    "AA_EncodeShot": encode_shot,
    "AA_EncodeShot/unscaled": partial(encode_shot, image_latent_scale="1.0"),
    "AA_DecodeShot": decode_shot,
    "AA_Sampler+AA_Schedule": partial(custom_sampler, method="cogvideox_dpm"),
    "AA_SampleShot": sample_long,
    "AA_SampleShot/overlap": partial(sample_long, handover="overlap", window=13, overlap=1),
    "AA_PlanShot": plan,
    "AA_RenderShot": render,
    "AA_LoadDynamiCtrl": dynamictrl,
}
