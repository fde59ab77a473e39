"""Triangle meshes over a layer, and where each pixel of a frame lies in a bent one."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray

from ..mask import grow_frame

CELLS = 48  # squares of the mesh along the body's height
SMALLEST_CELL_PX = 4
VISIBLE = 0.02  # alpha
MARGIN_PX = 2  # of transparent pixels that the mesh takes along
OUTSIDE = -10.0  # what the map of a frame holds where there is no mesh
EDGE = 1e-3  # of a triangle: how far beyond its edge a pixel still counts, so that none is missed
FLATTEST_PX2 = 1e-3  # twice the area below which a triangle covers nothing


@dataclass(frozen=True, eq=False)
class Mesh:
    """``vertices`` [N, 2] px of the texture and ``triangles`` [M, 3], drawn in their order."""

    vertices: ndarray
    triangles: ndarray

    def sampled(self, field: ndarray) -> ndarray:
        """``field`` [h, w] at the pixels nearest to the vertices, [N]."""
        rows, columns = field.shape[:2]
        x, y = np.rint(self.vertices).astype(int).T
        return field[y.clip(0, rows - 1), x.clip(0, columns - 1)]


def cell_size(height: int) -> int:
    """Side of a mesh's squares for a body of ``height`` px, px."""
    return max(SMALLEST_CELL_PX, round(height / CELLS))


def make_mesh(alpha: ndarray, cell: int) -> Mesh:
    """Squares of ``cell`` px, two triangles each, over everything visible in ``alpha`` [h, w]."""
    rows, columns = alpha.shape
    solid = grow_frame(alpha > VISIBLE, MARGIN_PX).astype(np.uint8)
    down, across = -(-rows // cell), -(-columns // cell)
    sums = cv2.integral(solid)
    y = np.minimum(np.arange(down + 1) * cell, rows)
    x = np.minimum(np.arange(across + 1) * cell, columns)
    corner = sums[np.ix_(y, x)]
    used = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1] > 0
    first = (np.arange(down)[:, None] * (across + 1) + np.arange(across))[used]
    second, third, fourth = first + 1, first + across + 1, first + across + 2
    triangles = np.concatenate(
        [np.stack([first, second, third], 1), np.stack([second, fourth, third], 1)]
    )
    grid_y, grid_x = np.mgrid[: down + 1, : across + 1] * cell
    vertices = np.stack([grid_x, grid_y], axis=-1).reshape(-1, 2).astype(np.float64)
    kept = np.unique(triangles)
    number = np.zeros(len(vertices), int)
    number[kept] = np.arange(len(kept))
    return Mesh(vertices[kept], number[triangles])


def texture_map(
    mesh: Mesh, positions: ndarray, box: tuple[int, int, int, int], longest_edge: float
) -> ndarray:
    """Where in the texture each pixel of ``box`` (left, top, right, bottom) comes from.

    ``positions`` [N, 2] px: where the vertices are in the frame. Triangles with an edge beyond
    ``longest_edge`` px are torn and left out; of several at one pixel the last one counts.
    Returns [h, w, 2] float32, `OUTSIDE` where there is none.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    out = np.full((height * width, 2), OUTSIDE, np.float32)
    corners = (positions - (left, top))[mesh.triangles]  # [M, 3, 2]
    table, first, size = _triangle_table(
        corners, mesh.vertices[mesh.triangles], (width, height), longest_edge
    )
    count = size[:, 0] * size[:, 1]
    if not count.sum():
        return out.reshape(height, width, 2)
    # One row for each pixel of each triangle's bounding box.
    triangle = np.repeat(np.arange(len(count)), count)
    step = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    down, across = np.divmod(step, size[triangle, 0])
    x, y = first[triangle, 0] + across, first[triangle, 1] + down
    row = table[triangle]
    dx, dy = x - row[:, 0], y - row[:, 1]
    b = dx * row[:, 2] + dy * row[:, 3]  # barycentric
    c = dx * row[:, 4] + dy * row[:, 5]
    hit = (b >= -EDGE) & (c >= -EDGE) & (b + c <= 1 + EDGE)
    row, b, c = row[hit], b[hit, None], c[hit, None]
    out[y[hit] * width + x[hit]] = row[:, 6:8] + b * row[:, 8:10] + c * row[:, 10:12]
    return out.reshape(height, width, 2)


def _triangle_table(
    corners: ndarray, sources: ndarray, size: tuple[int, int], longest_edge: float
) -> tuple[ndarray, ndarray, ndarray]:
    """What the pixels of each triangle need, [M', 12] float32, and its bounding box: the first
    pixel and the size, [M', 2] each; only triangles that cover something of ``size``."""
    first = np.maximum(np.ceil(corners.min(axis=1) - EDGE).astype(int), 0)
    last = np.minimum(np.floor(corners.max(axis=1) + EDGE).astype(int) + 1, size)
    extent = np.maximum(last - first, 0)
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    longest = np.max([(e**2).sum(axis=1) for e in (one, other, other - one)], axis=0)
    good = (extent.prod(axis=1) > 0) & (np.abs(area) > FLATTEST_PX2) & (longest < longest_edge**2)
    corners, sources, one, other = (part[good] for part in (corners, sources, one, other))
    area = area[good, None]
    table = np.concatenate(
        [
            corners[:, 0],
            other[:, 1:] / area,
            -other[:, :1] / area,
            -one[:, 1:] / area,
            one[:, :1] / area,
            sources[:, 0],
            sources[:, 1] - sources[:, 0],
            sources[:, 2] - sources[:, 0],
        ],
        axis=1,
    )
    return table.astype(np.float32), first[good], extent[good]
