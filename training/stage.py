"""The synthetic stage: people who act in front of cameras that move, with everything known exactly.

    clip = stage.render(stage.draw_plan(seed))

One seed is one clip, to the bit on one machine and device. What is drawn: ``scenes`` (where), ``bodies`` (who),
``motion`` (what they do), ``cameras`` (how it is filmed), ``render`` (pixels).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ..models import latents
from ..vision import drawing
from ..vision import pose as poses
from . import bodies, cameras, furniture, motion, people, render, scenes
from .cameras import Camera

SIZES = ((128, 128), (160, 96), (96, 160))  # width, height
FPS = (10, 12, 15, 20)
POINTS = 64  # background tracks of a clip
HELD_OUT = 10**9  # seeds from here on are for looking and measuring, never for training

# OpenPose's 18 joints, by the names of training.motion.
BODY = ["neck", *(f"{joint}_{side}" for side in "rl" for joint in ("shoulder", "elbow", "wrist"))]
BODY += [f"{joint}_{side}" for side in "rl" for joint in ("hip", "knee", "ankle")]
JOINTS = ["nose", *BODY, "eye_r", "eye_l", "ear_r", "ear_l"]


@dataclass(frozen=True)
class Plan:
    """What a clip is to be, before it is drawn. ``whole``: the feet are in the frame."""

    seed: int
    width: int
    height: int
    frames: int
    fps: int
    route: str
    arms: tuple[str, str]  # right, left
    camera: str
    whole: bool
    outdoors: bool
    holds: bool


@dataclass(frozen=True, eq=False)
class Clip:
    """T frames of H×W pixels with their ground truth; float32 in 0…1 and metres where not said otherwise.

    Pixel coordinates have the centre of the top left pixel at (0.5, 0.5). ``camera`` holds K, R, t.
    """

    plan: Plan
    frames: Tensor  # [T, H, W, 3]
    background: Tensor  # [T, H, W, 3] the same without the person, the thing held and their shadow
    mask: Tensor  # [T, H, W] the person
    hands: Tensor  # [T, H, W] the part of ``mask`` that is hands
    thing: Tensor  # [T, H, W] something held, not in ``mask``
    shadow: Tensor  # [T, H, W] where and how much the person darkens the background
    pose: poses.PoseTrack
    depth: Tensor  # [T, H, W] along the optical axis
    background_depth: Tensor  # [T, H, W]
    camera: Camera
    tracks: Tensor  # [T, N, 2] px: points of the background
    visibility: Tensor  # [T, N] bool
    character: Tensor  # [H, W, 3] the same person, another pose, another background
    character_mask: Tensor  # [H, W]
    joints: ndarray  # [T, 18, 3] in the world
    feet: ndarray  # [T, 2, 3] balls of the right and left foot, in the world
    planted: ndarray  # [T, 2] bool: the foot stands
    body: bodies.Body

    @property
    def drawn_pose(self) -> Tensor:
        """[T, H, W, 3] the pose as the nodes draw it."""
        return drawing.draw(self.pose, self.plan.width, self.plan.height)

    @property
    def told(self) -> bool:
        return told(self.pose, self.planted)


def told(pose: poses.PoseTrack, planted: ndarray) -> bool:
    """Whether the pose tells the background's motion: a ``planted`` [T, 2] foot is in the frame nearly always."""
    feet = pose.keypoints[:, 0, [10, 13], 2] > 0
    return bool((feet & planted).any(1).mean() > 0.85)


def draw_plan(seed: int, frames: int = 29, size: tuple[int, int] | None = None, **fixed) -> Plan:
    """The plan of a seed. ``frames``: 8k+5, or 1 for a picture; ``size``: width, height px; ``fixed``: any other field
    of Plan."""
    if frames != 1:
        latents.check_length(frames, "frames")
    rng = np.random.default_rng([seed, 0])
    route = str(rng.choice(motion.ROUTES, p=np.array(motion.ROUTE_SHARE) / sum(motion.ROUTE_SHARE)))
    width, height = size or SIZES[rng.choice(3, p=[0.4, 0.3, 0.3])]
    chosen = {
        "seed": seed,
        "width": width,
        "height": height,
        "frames": frames,
        "fps": int(rng.choice(FPS)),
        "route": route,
        "arms": _draw_arms(rng, route),
        "camera": str(rng.choice(cameras.KINDS, p=np.array(cameras.SHARE) / sum(cameras.SHARE))),
        "whole": bool(rng.random() < 0.75),
        "outdoors": bool(rng.random() < 0.45),
        "holds": False,
    }
    if rng.random() < 0.3 and route != "dance":
        chosen |= {"holds": True, "arms": ("front", chosen["arms"][1])}
    return Plan(**(chosen | fixed))


def _draw_arms(rng: np.random.Generator, route: str) -> tuple[str, str]:
    if route == "dance":
        return ("dance", "dance")
    usual = "lap" if route == "sit" else "swing"
    other = [str(rng.choice(["wave", "gesture", "akimbo", usual], p=[0.3, 0.3, 0.1, 0.3])) for _ in range(2)]
    arms = [usual if rng.random() < 0.55 else style for style in other]
    if arms.count("wave") == 2:
        arms[1] = usual
    return tuple(arms)


@dataclass
class Actor:
    """A person with what it does: ``pose`` of ``motion.perform``, ``shapes`` to draw, ``subject`` [S, 3] at 60 Hz."""

    body: bodies.Body
    pose: dict[str, ndarray]
    shapes: bodies.Shapes
    subject: ndarray
    seat: ndarray | None

    @property
    def planted(self) -> ndarray:
        """[T, 2] bool: the right and the left foot stand."""
        return np.stack([self.pose["planted_r"], self.pose["planted_l"]], 1)


def _act(rng, plan: Plan, body: bodies.Body, outfit: bodies.Outfit) -> Actor:
    seconds = (plan.frames - 1) / plan.fps
    route = motion.draw_route(rng, plan.route, seconds, body)
    styles = list(plan.arms)
    if outfit.thing in ("bag", "case"):
        styles[0] = "carry"
    elif outfit.thing in ("ball", "book"):
        styles = ["both", "both"]
    pose = motion.perform(rng, body, route, dict(zip("rl", styles)), plan.fps, plan.frames)
    inside = slice(motion.LEAD, len(route.time) - motion.LEAD)
    subject = np.concatenate([route.position, np.full((len(route.position), 1), 0.5 * body.height)], 1)[inside]
    seat = None
    if plan.route == "sit":
        forward = np.array([np.cos(route.heading[0]), np.sin(route.heading[0])])
        place = route.position[0] - forward * (motion.BACK * body.height + 0.04)
        seat = np.array([*place, route.heading[0], motion.SEAT * body.height])
    return Actor(body, pose, bodies.dress(body, outfit, pose), subject, seat)


def _film(rng, plan: Plan, actor: Actor, side: float = np.pi, room: float = 1.0) -> Camera:
    """``side``: how far the camera may stand from straight in front, in rad; ``room``: space around the person."""
    size, tall = (plan.width, plan.height), actor.body.height * room
    if plan.route == "sit":  # from the front, where the seat hides nothing
        side, tall = 1.4, tall * 0.78
    shot = cameras.film(rng, plan.camera, actor.subject, tall, size, plan.whole, side)
    at = np.arange(plan.frames) * (motion.RATE // plan.fps)
    return cameras.fix(shot, at, size)


def _build(rng, plan: Plan, actor: Actor, camera: Camera) -> scenes.Scene:
    person = actor.subject[::6]
    scene, site = scenes.draw_scene(rng, np.concatenate([person, camera.centre]), plan.outdoors)
    clear = np.concatenate([person[:, :2], camera.centre[::4, :2]])
    furniture.furnish(rng, scene, site, clear, plan.outdoors)
    if actor.seat is not None:
        furniture.seat(rng, scene, actor.seat)
    return scene


@dataclass
class Setting:
    """A plan with everything chosen and nothing drawn; ``place`` goes on with what chance decides about the scene."""

    body: bodies.Body
    outfit: bodies.Outfit
    actor: Actor
    camera: Camera
    scene: scenes.Scene
    place: np.random.Generator


def set_up(plan: Plan) -> Setting:
    """Who does what, where, before which camera: a thousandth of the time of drawing it."""
    who, act, film, place = (np.random.default_rng([plan.seed, part]) for part in range(1, 5))
    body = bodies.Body.draw(who)
    outfit = bodies.Outfit.draw(who, plan.holds)
    actor = _act(act, plan, body, outfit)
    camera = _film(film, plan, actor)
    return Setting(body, outfit, actor, camera, _build(place, plan, actor, camera), place)


def render_clip(plan: Plan, device: str | torch.device = "cpu") -> Clip:
    """Draw a plan."""
    device = torch.device(device)
    setting = set_up(plan)
    body, actor, camera, scene = setting.body, setting.actor, setting.camera, setting.scene
    backdrop = render.draw_backdrop(scene, camera, actor.pose["pelvis"] * [1, 1, 0], device)
    person = people.draw_person(actor.shapes, camera, scene, device)
    layers = _compose(backdrop, person, actor, camera)
    tracks, visibility = _track(setting.place, backdrop, layers["mask"] + layers["thing"], camera)
    other = np.random.default_rng([plan.seed, 5])
    character, character_mask = _picture(other, plan, body, setting.outfit, device)
    joints = joints_of(actor)
    return Clip(
        plan=plan,
        background=backdrop.colour.permute(0, 2, 3, 1),
        background_depth=1 / backdrop.inverse,
        pose=pose_of(joints, actor, camera, _hidden(joints, camera, backdrop)),
        camera=camera,
        tracks=tracks,
        visibility=visibility,
        character=character,
        character_mask=character_mask,
        joints=joints,
        feet=np.stack([actor.pose["ball_r"], actor.pose["ball_l"]], 1),
        planted=actor.planted,
        body=body,
        **layers,
    )


def _compose(backdrop: render.Backdrop, person: people.Person, actor: Actor, camera: Camera) -> dict[str, Tensor]:
    """The person with its shadow before the backdrop: the pictures and masks of a Clip."""
    shadow = torch.zeros_like(backdrop.inverse)
    h = actor.body.height
    spots = [("pelvis", 0.30, 0.35), ("ball_r", 0.11, 0.45), ("ball_l", 0.11, 0.45)]
    for place, reach, dark in spots:
        render.cast(shadow, actor.pose[place], reach * h, dark, backdrop, camera)
    free = 1 - backdrop.cover
    opacity, thing = person.opacity * free, person.thing * free
    frames = backdrop.colour * (1 - shadow)[:, None]
    frames = frames.mul_((1 - opacity)[:, None]).addcmul_(person.colour, free[:, None])
    return {
        "frames": frames.clamp_(0, 1).permute(0, 2, 3, 1),
        "mask": opacity - thing,
        "hands": person.hand * free,
        "thing": thing,
        "shadow": shadow,
        "depth": torch.where(opacity > 0.5, person.depth, 1 / backdrop.inverse),
    }


def joints_of(actor: Actor) -> ndarray:
    """[T, 18, 3] in the world, in OpenPose's order."""
    pose, size = actor.pose, actor.body.height * actor.body.head
    up, forward, right = (pose[f"head_{axis}"] * size for axis in ("up", "forward", "right"))
    face = {"nose": pose["head"] - up * 0.012 + forward * 0.044}
    for side, sign in motion.SIDES:
        face[f"eye_{side}"] = pose["head"] + up * 0.004 + forward * 0.036 + sign * right * 0.018
        face[f"ear_{side}"] = pose["head"] - up * 0.006 + sign * right * 0.042
    return np.stack([(pose | face)[name] for name in JOINTS], 1)


def _hidden(joints: ndarray, camera: Camera, backdrop: render.Backdrop) -> ndarray:
    """[T, 18] bool: which joints stand behind furniture."""
    size = np.array([camera.width, camera.height])
    pixel = np.clip(np.floor(camera.project(joints)[0]), 0, size - 1).astype(int)
    cover = backdrop.cover.cpu().numpy()
    return cover[np.arange(len(joints))[:, None], pixel[..., 1], pixel[..., 0]] >= 0.5


def pose_of(joints: ndarray, actor: Actor, camera: Camera, hidden: ndarray) -> poses.PoseTrack:
    """Projected joints; zero where out of the frame, ``hidden`` [T, 18], or a face's seen from behind."""
    at, depth = camera.project(joints)
    size = np.array([camera.width, camera.height])
    seen = (depth > 0.1) & (at > 0).all(-1) & (at < size).all(-1)
    toward = camera.centre[:, None] - joints
    toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
    forward = (toward * actor.pose["head_forward"][:, None]).sum(-1)
    right = (toward * actor.pose["head_right"][:, None]).sum(-1)
    seen[:, [0, 14, 15]] &= forward[:, [0, 14, 15]] > -0.05
    seen[:, 16] &= right[:, 16] > -0.45
    seen[:, 17] &= right[:, 17] < 0.45
    seen &= ~hidden
    points = np.concatenate([at, np.ones_like(depth)[..., None]], -1) * seen[..., None]
    return poses.PoseTrack(points[:, None], camera.width, camera.height)


def _track(rng, backdrop: render.Backdrop, covered: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Points of the background [T, N, 2] px through all frames, and where they are seen [T, N]."""
    inverse = backdrop.inverse.cpu().double().numpy()
    frames, height, width = inverse.shape
    frame = rng.integers(frames, size=6 * POINTS)
    y, x = rng.integers(1, height - 1, 6 * POINTS), rng.integers(1, width - 1, 6 * POINTS)
    flat = np.flatnonzero(_flat(inverse, frame, y, x))
    keep = np.resize(flat, POINTS) if len(flat) else np.arange(POINTS)
    frame, y, x = frame[keep], y[keep], x[keep]
    at, seen = _through(frame, y, x, np.stack([x, y], 1) + 0.5, inverse, covered.cpu().numpy(), camera)
    return torch.from_numpy(at), torch.from_numpy(seen)


def _flat(inverse: ndarray, frame: ndarray, y: ndarray, x: ndarray) -> ndarray:
    """Whether a pixel is on one surface and not across an edge; not for the picture's outermost pixels."""
    here = inverse[frame, y, x]
    bent = [np.abs(inverse[frame, y + a, x + b] + inverse[frame, y - a, x - b] - 2 * here) for a, b in ((0, 1), (1, 0))]
    return np.maximum(*bent) < 1e-4 * here


def _through(
    frame: ndarray, y: ndarray, x: ndarray, pixels: ndarray, inverse: ndarray, covered: ndarray, camera: Camera
) -> tuple[ndarray, ndarray]:
    """Points that ``frame`` [N] shows at ``pixels`` [N, 2], on the surface of its pixel y, x, in all frames: [T, N, 2]
    px, and where they are seen [T, N]."""
    frames, height, width = inverse.shape
    ray = np.einsum("nij,nj->ni", camera.rays[frame], np.column_stack([pixels, np.ones(len(pixels))]))
    points = camera.centre[frame] + ray / inverse[frame, y, x][:, None]
    at, depth = camera.project(np.broadcast_to(points, (frames, *points.shape)))
    inside = (depth > 0.05) & (at >= 0).all(-1) & (at < [width, height]).all(-1)
    cell = np.clip(np.floor(np.nan_to_num(at)), 0, [width - 1, height - 1]).astype(int)
    index = np.arange(frames)[:, None], cell[..., 1], cell[..., 0]
    return at, inside & (np.abs(inverse[index] * depth - 1) < 0.03) & (covered[index] < 0.5)


def background_paths(clip: Clip, pixels: ndarray) -> tuple[ndarray, ndarray]:
    """Where the background at ``pixels`` [N, 2] of the first frame goes: [T, N, 2] px, and where it is seen [T, N].
    Pixels across an edge, where what is seen goes two ways, are never seen."""
    inverse = 1 / clip.background_depth.cpu().double().numpy()
    size = np.array([clip.plan.width, clip.plan.height])
    x, y = np.clip(np.floor(pixels), 1, size - 2).astype(int).T
    first = np.zeros(len(pixels), int)
    covered = (clip.mask + clip.thing).cpu().numpy()
    at, seen = _through(first, y, x, pixels, inverse, covered, clip.camera)
    return at, seen & _flat(inverse, first, y, x)


def _picture(rng, plan: Plan, body: bodies.Body, outfit: bodies.Outfit, device) -> tuple[Tensor, Tensor]:
    """The character standing somewhere else: picture [H, W, 3] and mask [H, W]."""
    seed = int(rng.integers(2**40))
    arms = ("front" if outfit.thing else "swing", "swing")
    new = {"seed": seed, "frames": 1, "fps": 10, "route": "stand", "arms": arms, "camera": "stand", "whole": True}
    still = replace(plan, **new, outdoors=bool(rng.random() < 0.5))
    actor = _act(rng, still, body, outfit)
    camera = _film(rng, still, actor, side=0.9, room=1.15)
    scene = _build(rng, still, actor, camera)
    backdrop = render.draw_backdrop(scene, camera, actor.pose["pelvis"] * [1, 1, 0], device, free=True)
    person = people.draw_person(actor.shapes, camera, scene, device)
    layers = _compose(backdrop, person, actor, camera)
    return layers["frames"][0], layers["mask"][0]
