"""Which part of the body each pixel of the character belongs to.

Every pixel goes to the bone that is nearest through the character: the length of the shortest way
within the mask, where a change of color makes a step longer, over the limb's radius.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import dijkstra

from .body import SIDES
from .character import Character
from .vectors import length, perpendicular, pixel_grid, project_on_segment, unit

INSIDE_ALPHA = 0.4
GRAPH_HEIGHT_PX = 230  # of the body: ways are found on a smaller picture
COLOR_COST = 6.0  # how much longer a step gets where colors change from black to white
FAR = 60.0  # radii: a greater distance is all the same
SEED = 0.35  # of a limb's radius: what is as near to its bone is the limb's
TRUNK_INSET = 0.72  # of its breadth: the trunk's seed
# A limb's radius by default, in half heights of the body, and the part of its bone that seeds it.
ARM_PARTS = {
    "upper_arm": ("shoulder", "elbow", 0.055, (0.25, 1.0)),
    "forearm": ("elbow", "wrist", 0.045, (0.0, 1.0)),
    "hand": ("wrist", "hand", 0.045, (0.15, 1.35)),
}
LEG_PARTS = {
    "thigh": ("hip", "knee", 0.085, (0.3, 1.0)),
    "shin": ("knee", "ankle", 0.06, (0.0, 1.0)),
    "foot": ("ankle", "toe", 0.05, (0.5, 1.0)),
}
TRUNKS_TALL = 3.6  # a body in trunks, where it is not seen whole
RADIUS_SAMPLES = np.linspace(0.35, 0.85, 9)  # along a bone
RADIUS_RANGE = (0.6, 1.7)  # of the default
RADIUS_MARGIN = 1.15  # clothes end a little beyond the shorter ray


@dataclass(frozen=True, eq=False)
class Parts:
    """``names`` of N parts ("head", "trunk", "right_thigh", …), ``distance`` [N, h, w] in radii of
    the part, ``label`` [h, w] the nearest one's number, and ``radius`` px by name."""

    names: tuple[str, ...]
    distance: ndarray
    label: ndarray
    radius: dict[str, float]

    def are(self, *names: str) -> ndarray:
        """[h, w] bool: where one of the parts ``names`` is nearest."""
        return np.isin(self.label, [self.names.index(n) for n in names if n in self.names])

    def of(self, name: str) -> ndarray:
        """[h, w] distance in radii to one part."""
        return self.distance[self.names.index(name)]

    @property
    def nearest(self) -> ndarray:
        """[h, w] distance in radii to the nearest part."""
        return self.distance.min(axis=0)


def find_parts(character: Character) -> Parts:
    """The part of the body of each pixel of ``character``."""
    scale = min(1.0, GRAPH_HEIGHT_PX / character.height)
    rows, columns = character.alpha.shape
    size = max(8, round(columns * scale)), max(8, round(rows * scale))
    picture, alpha = (
        cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        for part in (character.picture, character.alpha)
    )
    inside = alpha > INSIDE_ALPHA
    grid = (pixel_grid(size[1], size[0]) + 0.5) * (columns / size[0], rows / size[1]) - 0.5
    seeds, radius = _seeds(character, grid, 0.8 / scale)
    graph, index = step_graph(inside, picture, COLOR_COST)
    small = np.full((len(seeds), *inside.shape), FAR, np.float32)
    for number, (name, seed) in enumerate(seeds.items()):
        if (seed & inside).any():
            way = dijkstra(graph, directed=False, indices=index[seed & inside], min_only=True)
            small[number][inside] = np.minimum(way / scale / radius[name], FAR)
    if inside.any():
        near = distance_transform_edt(~inside, return_distances=False, return_indices=True)
        small = small[:, near[0], near[1]]
    whole = [cv2.resize(part, (columns, rows), interpolation=cv2.INTER_LINEAR) for part in small]
    distance = np.stack(whole)
    return Parts(tuple(seeds), distance, distance.argmin(axis=0), radius)


def step_graph(inside: ndarray, picture: ndarray, color_cost: float) -> tuple[csr_matrix, ndarray]:
    """The graph of steps to the 8 neighbors within ``inside`` [h, w] bool, and each pixel's number
    in it [h, w] (-1 outside). A step costs its length times 1 + ``color_cost`` · |Δ color|."""
    rows, columns = inside.shape
    index = np.full(inside.shape, -1)
    index[inside] = np.arange(inside.sum())
    starts, ends, costs = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = slice(0, rows - down), slice(max(0, -right), columns - max(0, right))
        there = slice(down, rows), slice(max(0, right), columns - max(0, -right))
        both = inside[here] & inside[there]
        change = np.linalg.norm(picture[here] - picture[there], axis=-1)
        starts.append(index[here][both])
        ends.append(index[there][both])
        costs.append((np.hypot(down, right) * (1 + color_cost * change))[both])
    start, end, cost = (np.concatenate(part) for part in (starts, ends, costs))
    count = int(inside.sum())
    return coo_matrix((cost, (start, end)), shape=(count, count)).tocsr(), index


def _seeds(character: Character, grid: ndarray, least: float) -> tuple[dict, dict]:
    """Where each part certainly is, [h, w] bool by name, and its radius px by name.

    ``grid`` [h, w, 2]: the pixels' places in the picture; ``least`` px, so that no seed is empty.
    """
    points, trunk = character.points, character.trunk
    tall = max(0.9 * character.height, 2.6 * trunk) if character.legs else TRUNKS_TALL * trunk
    inside = character.alpha > INSIDE_ALPHA
    seeds, radius = {}, {}

    def line(start: ndarray, end: ndarray, reach: float, part: tuple = (0.0, 1.0)) -> ndarray:
        ends = (start + share * (end - start) for share in part)
        return project_on_segment(grid, *ends)[1] <= max(reach, least)

    limbs = [(side, ARM_PARTS) for side in character.arms]
    limbs += [(side, LEG_PARTS) for side in SIDES if character.legs]
    for side, parts in limbs:
        for part, (one, other, share, reach) in parts.items():
            start, end = points[f"{side}_{one}"], points[f"{side}_{other}"]
            default = share * tall / 2
            name = f"{side}_{part}"
            if part in ("hand", "foot"):
                radius[name] = default * (1.3 if part == "hand" else 1.0)
            else:
                radius[name] = _limb_radius(inside, start, end, 1.1 * default)
            seeds[name] = line(start, end, SEED * radius[name], reach)
            if part == "foot":
                seeds[name] |= line(points[f"{side}_heel"], end, SEED * radius[name])
    arms = np.zeros(grid.shape[:2], bool)
    for side in character.arms:
        arms |= seeds[f"{side}_upper_arm"]
        for part in ("forearm", "hand"):
            start, end = (points[f"{side}_{joint}"] for joint in ARM_PARTS[part][:2])
            arms |= line(start, end, radius[f"{side}_{part}"])
    head, round_head = points["head"], character.head_radius
    radius["head"], radius["trunk"] = 0.5 * round_head, 0.12 * trunk
    crown = head + 0.8 * round_head * character.up
    seeds["head"] = np.linalg.norm(grid - head, axis=-1) < 0.8 * round_head
    seeds["head"] |= line(head, crown, 0.5 * round_head)
    seeds["trunk"] = _trunk_seed(character, grid)
    seeds["trunk"] |= line(points["neck"], points["hips"], 0.1 * trunk)
    seeds["trunk"] &= ~arms  # an arm before the trunk is the arm
    return seeds, radius


def _trunk_seed(character: Character, grid: ndarray) -> ndarray:
    """[h, w] bool: the quad of shoulders and hips, narrowed."""
    points = character.points
    drop = -0.05 * character.trunk * character.trunk_up
    corners = np.array(
        [
            points["right_shoulder"],
            points["left_shoulder"],
            points["left_hip"] + drop,
            points["right_hip"] + drop,
        ]
    )
    middle = np.array([points["neck"]] * 2 + [points["hips"]] * 2)
    inset = np.array([TRUNK_INSET, TRUNK_INSET, 0.95, 0.95])[:, None]
    inner = middle + (corners - middle) * inset
    step = grid[1, 1] - grid[0, 0]
    quad = np.zeros(grid.shape[:2], np.uint8)
    cv2.fillPoly(quad, [np.round((inner - grid[0, 0]) / step).astype(np.int32)], 1)
    return quad > 0


def _limb_radius(inside: ndarray, start: ndarray, end: ndarray, default: float) -> float:
    """The median of the shorter of two rays across the bone within ``inside`` [h, w], px."""
    across = unit(perpendicular(end - start))
    if length(end - start) < 1:
        return default
    reach = np.arange(int(3 * default) + 1)
    shorter = []
    for share in RADIUS_SAMPLES:
        rays = [
            _ray_length(inside, start + share * (end - start), s * across, reach) for s in (1, -1)
        ]
        if min(rays) > 0:
            shorter.append(min(rays))
    radius = RADIUS_MARGIN * np.median(shorter) if len(shorter) >= 3 else default
    return float(np.clip(radius, RADIUS_RANGE[0] * default, RADIUS_RANGE[1] * default))


def _ray_length(inside: ndarray, start: ndarray, direction: ndarray, reach: ndarray) -> int:
    """How many steps of 1 px along a ray stay within ``inside`` [h, w]."""
    x, y = np.rint(start + reach[:, None] * direction).astype(int).T
    rows, columns = inside.shape
    within = (x >= 0) & (y >= 0) & (x < columns) & (y < rows)
    free = within & inside[y.clip(0, rows - 1), x.clip(0, columns - 1)]
    return len(reach) if free.all() else int(free.argmin())
