"""How the stage's people move: routes over the ground, steps that stay where they are set, arms that reach.

Everything is computed at 60 Hz and then thinned out to the frames. Lengths are metres, z is up; a heading of 0 looks
along x. The side "r" is +1, "l" is -1.
"""

from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .bodies import Body

RATE = 60  # Hz
LEAD = 3 * RATE  # samples before and after the clip: steps are planned from where the person will be
SWING = 0.40  # part of a gait cycle that a foot is in the air
MIDDLE = SWING + (1 - SWING) / 2  # where in its cycle a foot stands under the hip
SEAT = 0.27  # height of a seat, as a fraction of body height
BACK = 0.24  # how far behind the feet a seated body is, likewise
SIDES = (("r", 1), ("l", -1))

ROUTES = ("stand", "walk", "stop", "start", "turn", "dance", "sidestep", "sit", "march")
ROUTE_SHARE = (0.14, 0.25, 0.08, 0.08, 0.13, 0.16, 0.05, 0.07, 0.04)


@dataclass
class Route:
    """Where the body goes: [S] samples at 60 Hz, the clip's first at index LEAD."""

    time: ndarray  # s
    position: ndarray  # [S, 2]
    heading: ndarray
    phase: ndarray  # gait cycles; the left foot is half a cycle behind
    sit: ndarray  # 0 stands, 1 sits
    bounce: ndarray  # m, downwards
    sway: ndarray  # rad, sideways
    wide: float = 1.0  # stance width


def ease(time: ndarray, start: float, end: float) -> ndarray:
    """0 before ``start``, 1 after ``end``, smooth between."""
    x = np.clip((time - start) / max(end - start, 1e-6), 0, 1)
    return x * x * (3 - 2 * x)


def wobble(rng: np.random.Generator, time: ndarray, slowest: float, fastest: float) -> ndarray:
    """Smooth noise of amplitude about 1: three sines between two frequencies in Hz."""
    rate, start = rng.uniform(slowest, fastest, 3), rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * rate * time[:, None] + start).sum(1) / 1.8


def draw_route(rng: np.random.Generator, kind: str, seconds: float, body: Body) -> Route:
    """A route of one of ``ROUTES`` around the origin, heading about 0."""
    time = (np.arange(round(seconds * RATE) + 1 + 2 * LEAD) - LEAD) / RATE
    zero = np.zeros_like(time)
    route = Route(time, np.zeros((len(time), 2)), zero.copy(), zero + 0.45, zero.copy(), zero.copy(), zero.copy())
    route.sway = 0.02 * wobble(rng, time, 0.1, 0.4)
    if kind in ("walk", "stop", "start", "march"):
        _walk(rng, route, kind, seconds, body)
    elif kind == "turn":
        _turn(rng, route, seconds)
    elif kind == "dance":
        _dance(rng, route, body)
    elif kind == "sidestep":
        route.wide = 1.5
        _go(route, np.full_like(time, rng.choice([-1, 1]) * rng.uniform(0.25, 0.5)), 0.9, across=True)
    elif kind == "sit":
        _sit(rng, route, seconds)
    return route


def _go(route: Route, speed: ndarray, cadence: float | ndarray, across: bool = False) -> None:
    """Fill position and phase from ``speed`` m/s (along the heading, or across it) and ``cadence`` cycles/s."""
    angle = route.heading - (np.pi / 2 if across else 0)
    step = np.stack([np.cos(angle), np.sin(angle)], 1) * speed[:, None] / RATE
    path = np.cumsum(step, 0)
    route.position = path - path[len(path) // 2]
    route.phase = np.cumsum(np.broadcast_to(cadence, speed.shape)) / RATE


def _walk(rng, route: Route, kind: str, seconds: float, body: Body) -> None:
    time = route.time
    pace = rng.uniform(0.65, 1.35)
    speed = pace * body.height / 1.7
    cadence = pace / (1.28 * (pace / 1.2) ** 0.45)
    route.heading = rng.normal(0, 0.2) * time + 0.15 * wobble(rng, time, 0.1, 0.3)
    go = cycle = np.ones_like(time)
    if kind == "stop":
        at = rng.uniform(0.2, 0.6) * seconds
        go, cycle = 1 - ease(time, at, at + 0.8), 1 - ease(time, at + 0.3, at + 1.2)
    elif kind == "start":
        at = rng.uniform(0.1, 0.5) * seconds
        go, cycle = ease(time, at, at + 0.8), ease(time, at - 0.4, at + 0.5)
    _go(route, speed * go * (kind != "march"), cadence * cycle)
    # Standing, both feet are on the ground and past the middle of their stance: cycles 0.45 and 0.95.
    if kind == "stop":
        route.phase += 0.45 - route.phase[-1]
    else:
        route.phase += 0.45 - route.phase[0] if kind == "start" else rng.random()


def _turn(rng, route: Route, seconds: float) -> None:
    turn = rng.choice([-1, 1]) * rng.uniform(1.2, 4.5)
    start = rng.uniform(-0.6, 0.2) * seconds
    end = start + max(abs(turn) / rng.uniform(1.2, 2.2), 0.8)
    route.heading = turn * ease(route.time, start, end) - turn / 2
    cadence = 1.1 * (ease(route.time, start - 0.2, start + 0.1) - ease(route.time, end, end + 0.5))
    _go(route, np.zeros_like(route.time), cadence)
    cycles = route.phase[-1]
    route.phase = 0.45 + route.phase * max(round(cycles), 1) / cycles  # begins and ends with both feet down


def _dance(rng, route: Route, body: Body) -> None:
    time, beat = route.time, rng.uniform(1.2, 2.2)  # beats a second
    swing = np.pi * beat * time + rng.uniform(0, 6)
    route.wide = rng.uniform(1.2, 2.2)
    route.heading = rng.uniform(0, 0.5) * np.sin(swing / 2) + rng.uniform(0, 0.7) * wobble(rng, time, 0.1, 0.3)
    reach = np.array([rng.uniform(0.02, 0.12), rng.uniform(0.0, 0.14)]) * body.height
    # Back in the middle long before and after the clip: feet that never step are set where the body is then.
    fade = ease(time, time[0], time[0] + 1) * (1 - ease(time, time[-1] - 1, time[-1]))
    route.position = reach * np.stack([np.sin(swing / 2 + 1), np.sin(swing)], 1) * fade[:, None]
    route.phase = beat / 2 * time + rng.random() if rng.random() < 0.75 else np.full_like(time, 0.45)
    route.bounce = rng.uniform(0.005, 0.04) * body.height * (0.5 - 0.5 * np.cos(2 * swing))
    route.sway = rng.uniform(0.03, 0.16) * np.sin(swing + rng.uniform(0, 6))


def _sit(rng, route: Route, seconds: float) -> None:
    kind = rng.choice(["stay", "up", "down"], p=[0.5, 0.2, 0.3])
    at = rng.uniform(0.1, 0.5) * seconds
    move = ease(route.time, at, at + 1.1)
    route.sit = {"stay": np.ones_like(move), "up": 1 - move, "down": move}[str(kind)]


def steps(route: Route, body: Body, side: int) -> dict[str, ndarray]:
    """A foot: "ball" [S, 3] (the part that stays on the ground), "yaw", "pitch" [S], "planted" [S] bool."""
    phase = route.phase + (0.5 if side < 0 else 0.0)
    number = np.floor(phase)
    part = phase - number
    # The tiny slope keeps the phase invertible while the person stands.
    ramp = phase + 1e-9 * np.arange(len(phase))

    def stance(step: ndarray) -> tuple[ndarray, ndarray]:
        when = np.interp(step + MIDDLE, ramp, route.time)
        yaw = np.interp(when, route.time, route.heading)
        root = np.stack([np.interp(when, route.time, route.position[:, axis]) for axis in (0, 1)], 1)
        out = body.height * body.hip * 1.05 * route.wide * side
        ahead = 0.055 * body.height
        right, forward = np.stack([np.sin(yaw), -np.cos(yaw)], 1), np.stack([np.cos(yaw), np.sin(yaw)], 1)
        return root + out * right + ahead * forward, yaw - 0.14 * side

    (before, yaw_before), (after, yaw_after) = stance(number - 1), stance(number)
    x = np.clip(part / SWING, 0, 1)
    blend = x**3 * (10 + x * (6 * x - 15))
    ground = before + (after - before) * blend[:, None]
    stride = np.linalg.norm(after - before, axis=1)
    moving = np.clip(np.gradient(route.phase) * RATE / 0.4, 0, 1)
    lift = np.sin(np.pi * x) ** 2 * (0.02 + 0.05 * np.clip(stride, 0, 1)) * body.height
    leaving = ease(part, 0.82, 1.0) * (part >= SWING) + (1 - ease(part, 0.0, 0.3)) * (part < SWING)
    pitch = 0.75 * leaving * moving * np.clip(stride / (0.5 * body.height), 0, 1)
    ball = np.concatenate([ground, lift[:, None]], 1)
    return {
        "ball": ball,
        "yaw": yaw_before + (yaw_after - yaw_before) * blend,
        "pitch": pitch,
        "planted": part >= SWING,
    }


def bend(root: ndarray, target: ndarray, first: float, second: float, pole: ndarray) -> tuple[ndarray, ndarray]:
    """Two bones from ``root`` towards ``target`` [S, 3]: the joint between them, bent towards ``pole``, and the end."""
    way = target - root
    far = np.linalg.norm(way, axis=1, keepdims=True)
    length = np.clip(far, abs(first - second) + 1e-3, (first + second) * 0.9995)
    along = way / np.maximum(far, 1e-6)
    cosine = (first**2 + length**2 - second**2) / (2 * first * length)
    side = pole - (pole * along).sum(1, keepdims=True) * along
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
    joint = root + first * (cosine * along + np.sqrt(np.maximum(1 - cosine**2, 0)) * side)
    return joint, root + along * length


def axes(heading: ndarray, pitch: ndarray, roll: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Right, forward and up [S, 3] of a body part; pitch leans forward, roll leans to the right."""
    zero = np.zeros_like(heading)
    forward = np.stack([np.cos(heading), np.sin(heading), zero], 1)
    right = np.stack([np.sin(heading), -np.cos(heading), zero], 1)
    up = np.stack([zero, zero, zero + 1], 1)
    sine, cosine = np.sin(pitch)[:, None], np.cos(pitch)[:, None]
    forward, up = forward * cosine - up * sine, up * cosine + forward * sine
    sine, cosine = np.sin(roll)[:, None], np.cos(roll)[:, None]
    return right * cosine - up * sine, forward, up * cosine + right * sine


def smooth(values: ndarray, seconds: float) -> ndarray:
    """Gaussian average over time of values [S, ...] at 60 Hz."""
    reach = max(int(3 * seconds * RATE), 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (seconds * RATE)) ** 2)
    flat = np.pad(values.reshape(len(values), -1), ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(column, kernel / kernel.sum(), "valid") for column in flat.T]
    return np.stack(columns, 1).reshape(values.shape)


def legs(route: Route, body: Body) -> dict[str, ndarray]:
    """Pelvis, hips, knees, ankles, feet, heels, toes [S, 3], the pelvis' axes and which feet are planted."""
    feet = {name: steps(route, body, side) for name, side in SIDES}
    pose = {}
    for name, foot in feet.items():
        _, ahead, above = axes(foot["yaw"], foot["pitch"], foot["pitch"] * 0)
        flat = np.stack([np.cos(foot["yaw"]), np.sin(foot["yaw"]), foot["yaw"] * 0], 1)
        pose[f"ball_{name}"] = foot["ball"]
        base = foot["ball"] + np.array([0, 0, 0.021]) * body.height * body.girth
        pose[f"ankle_{name}"] = base - ahead * (0.072 * body.height) + above * (0.022 * body.height)
        pose[f"heel_{name}"] = base - ahead * (0.080 * body.height)
        pose[f"toe_{name}"] = base + flat * (0.042 * body.height)
        pose[f"planted_{name}"] = foot["planted"]
        pose[f"yaw_{name}"] = foot["yaw"]
    _pelvis(route, body, pose)
    for name, side in SIDES:
        knee_yaw = 0.5 * pose[f"yaw_{name}"] + 0.5 * route.heading + (0.0 - 0.06 * side)
        pole = np.stack([np.cos(knee_yaw), np.sin(knee_yaw), 0 * knee_yaw + 0.02], 1)
        lengths = body.thigh * body.height, body.shin * body.height
        pose[f"knee_{name}"], _ = bend(pose[f"hip_{name}"], pose[f"ankle_{name}"], *lengths, pole)
    return pose


def _pelvis(route: Route, body: Body, pose: dict) -> None:
    """Put the pelvis as high as both legs reach, smoothed, or on the seat."""
    moving = np.clip(np.gradient(route.phase) * RATE / 0.6, 0, 1)
    twist = 0.10 * np.sin(2 * np.pi * (route.phase - 0.2)) * moving
    right, forward, up = axes(route.heading + twist, np.zeros_like(twist), route.sway * 0.4)
    lean = 0.012 * body.height * np.sin(2 * np.pi * (route.phase - 0.45)) * moving
    hip = body.hip * body.height
    back = -BACK * body.height * route.sit
    flat = route.position + right[:, :2] * lean[:, None] + forward[:, :2] * back[:, None]
    reach = []
    for name, side in SIDES:
        over = flat + side * hip * right[:, :2] - pose[f"ankle_{name}"][:, :2]
        slack = np.maximum((0.985 * body.leg) ** 2 - (over**2).sum(1), (0.3 * body.leg) ** 2)
        reach.append(pose[f"ankle_{name}"][:, 2] + np.sqrt(slack))
    limit = np.minimum(*reach)
    seated = (SEAT + 0.06) * body.height
    height = np.minimum(smooth(limit, 0.07) - 0.004 * body.height, limit) - route.bounce
    height += (seated - height) * route.sit
    pelvis = np.concatenate([flat, height[:, None]], 1)
    pose |= {"pelvis": pelvis, "pelvis_right": right, "pelvis_forward": forward, "pelvis_up": up}
    pose |= {f"hip_{name}": pelvis + side * hip * right for name, side in SIDES}


def torso(rng, route: Route, body: Body, pose: dict) -> None:
    """Add neck, shoulders, head and the chest's and head's axes to ``pose``."""
    time, phase = route.time, route.phase
    moving = np.clip(np.gradient(phase) * RATE / 0.6, 0, 1)
    rising = np.abs(np.gradient(route.sit)) * RATE
    twist = -0.13 * np.sin(2 * np.pi * (phase - 0.2)) * moving
    lean = 0.03 + 0.03 * moving + 0.03 * wobble(rng, time, 0.1, 0.5) + 0.5 * np.clip(rising, 0, 1) + 0.05 * route.sit
    right, forward, up = axes(route.heading + twist, lean, route.sway)
    h = body.height
    neck = pose["pelvis"] + up * body.torso * h
    pose |= {"neck": neck, "chest_right": right, "chest_forward": forward, "chest_up": up}
    pose |= {f"shoulder_{name}": neck + side * body.shoulder * h * right - up * 0.008 * h for name, side in SIDES}
    look = rng.normal(0, 0.35) + 0.35 * wobble(rng, time, 0.1, 0.5)
    nod = 0.08 * wobble(rng, time, 0.2, 0.8)
    sides = axes(route.heading + twist * 0.3 + np.clip(look, -1, 1), nod, route.sway * 0.5)
    pose |= dict(zip(("head_right", "head_forward", "head_up"), sides))
    size = h * body.head
    pose["head"] = neck + sides[2] * (0.022 * h + 0.062 * size) + sides[1] * 0.008 * h


ARMS = ("swing", "wave", "gesture", "dance", "akimbo", "lap", "carry", "front", "both")


def _arm_goal(rng, style: str, route: Route, side: int) -> ndarray:
    """Where a hand wants to be [S, 3], from the shoulder, in arm lengths: out, forward, up."""
    time = route.time
    moving = np.clip(np.gradient(route.phase) * RATE / 0.6, 0, 1)
    swing = 0.42 * moving * np.sin(2 * np.pi * (route.phase - 0.2 + (0.5 if side > 0 else 0.0))) + 0.06
    still = np.ones_like(time)
    beat = 2 * np.pi * rng.uniform(0.5, 1.3) * time + rng.uniform(0, 6)
    if style == "wave":
        beat = 2 * np.pi * rng.uniform(1.0, 2.0) * time
        return np.stack([0.38 + 0.2 * np.sin(beat), 0.25 * still, 0.62 + 0.08 * np.cos(beat)], 1)
    if style == "gesture":
        goal = np.array([rng.uniform(0.0, 0.4), rng.uniform(0.4, 0.6), rng.uniform(-0.5, 0.1)])
        return goal + np.stack([0.18 * wobble(rng, time, 0.3, 1.2) for _ in range(3)], 1)
    if style == "dance":
        goal = np.array([rng.uniform(0.2, 0.7), rng.uniform(0.0, 0.5), rng.uniform(-0.4, 0.6)])
        way = rng.uniform(0.1, 0.45, 3) * np.array([0.7, 0.7, 1.2])
        return goal + way * np.sin(beat[:, None] + rng.uniform(0, 6, 3))
    fixed = {
        "akimbo": (0.12, 0.08, -0.62),
        "lap": (-0.12, 0.52, -0.72),
        "carry": (0.16, 0.04, -0.97),
        "front": (0.06, 0.52, -0.30),
        "both": (-0.22, 0.58, -0.38),
    }
    if style in fixed:
        drift = np.stack([0.03 * wobble(rng, time, 0.2, 0.8) for _ in range(3)], 1)
        return np.array(fixed[style]) + drift + 0.3 * swing[:, None] * np.array([0, 0.3, 0])
    return np.stack([0.16 * still, 0.97 * np.sin(swing), -0.97 * np.cos(swing)], 1)


def arms(rng, route: Route, body: Body, pose: dict, styles: dict[str, str]) -> None:
    """Add elbows, wrists and fingers to ``pose``; ``styles`` names each side's."""
    h, time = body.height, route.time
    for name, side in SIDES:
        rest = _arm_goal(rng, "lap" if route.sit.mean() > 0.5 else "swing", route, side)
        goal = _arm_goal(rng, styles[name], route, side)
        if styles[name] == "wave" and rng.random() < 0.5:  # the arm goes up, or comes down, in mid-clip
            at = rng.uniform(0, time[-LEAD])
            weight = ease(time, at, at + 0.6)[:, None]
            goal = rest + (goal - rest) * (weight if rng.random() < 0.5 else 1 - weight)
        far = np.linalg.norm(goal, axis=1, keepdims=True)
        goal = goal * np.clip(far, 0.42, 0.985) / np.maximum(far, 1e-6)
        right, forward, up = (pose[f"chest_{axis}"] for axis in ("right", "forward", "up"))
        turn = goal[:, :1] * side * right + goal[:, 1:2] * forward + goal[:, 2:] * up
        shoulder = pose[f"shoulder_{name}"]
        pole = 0.45 * side * right - 0.75 * forward - 0.55 * up
        lengths = body.upper_arm * h, body.forearm * h
        elbow, wrist = bend(shoulder, shoulder + turn * body.arm, *lengths, pole)
        along = wrist - elbow
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        pose |= {f"elbow_{name}": elbow, f"wrist_{name}": wrist, f"fingers_{name}": wrist + along * body.hand * h}


def perform(rng, body: Body, route: Route, styles: dict[str, str], fps: int, frames: int) -> dict[str, ndarray]:
    """Play a route: points and axes [T, 3] by name, and "planted_r", "planted_l" [T] bool. ``fps`` divides 60."""
    pose = legs(route, body)
    torso(rng, route, body, pose)
    arms(rng, route, body, pose, styles)
    at = LEAD + np.arange(frames) * (RATE // fps)
    return {name: values[at] for name, values in pose.items()}
