"""Cameras, and where a point of one view can lie in another (AnimateAnywhere III-C, eq. 3, fig. 3).

A world point X is seen at x = K (R X + t), in pixels that count from the picture's upper left corner (the first
pixel's centre is at 0.5, 0.5). Everything is computed in float64: a fundamental matrix multiplies pixels by pixels, and
differences of nearly equal poses are what matters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Tokens: half a token's diagonal, because the query is a whole token and not its centre, and half a diagonal, because
# the match lies anywhere in its token; a little more, so that rounding does not part a resting token from its diagonal
# neighbours. CamI2V, which the paper builds on, grants the second half only: between random cameras that calls 8 % of
# the true matches impossible, on the stage 9 %; this 0.05 % and 0.1 %.
HALF_WIDTH = 1.45
# A baseline whose parallax is below this share of the cameras' distance from the origin is rounding, not motion: poses
# come as float32 (6e-8), through sums and products. It moves nothing by a hundredth of a token.
PARALLAX = 1e-5


@dataclass(frozen=True)
class Cameras:
    """One camera a frame. Raises ValueError where the three parts do not belong together."""

    intrinsics: Tensor  # K [..., 3, 3], px
    rotation: Tensor  # R [..., 3, 3], world to camera
    translation: Tensor  # t [..., 3], world to camera

    def __post_init__(self) -> None:
        shapes = [tuple(part.shape) for part in (self.intrinsics, self.rotation, self.translation)]
        frames = shapes[2][:-1]
        if shapes != [(*frames, 3, 3), (*frames, 3, 3), (*frames, 3)]:
            raise ValueError(
                "cameras: K, R and t must be [..., 3, 3], [..., 3, 3] and [..., 3] of the same frames; got "
                f"{', '.join(map(str, shapes))}."
            )

    def __getitem__(self, index) -> "Cameras":
        """The cameras at ``index`` of the leading dimensions."""
        return Cameras(self.intrinsics[index], self.rotation[index], self.translation[index])

    def double(self) -> "Cameras":
        return Cameras(self.intrinsics.double(), self.rotation.double(), self.translation.double())

    def to(self, device) -> "Cameras":
        return Cameras(self.intrinsics.to(device), self.rotation.to(device), self.translation.to(device))

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World ``points`` [..., 3] -> pixels [..., 2] and depth [...]; what is not before the camera has depth ≤ 0."""
        seen = _apply(self.rotation.double(), points.double()) + self.translation.double()
        pixels = _apply(self.intrinsics.double(), seen)
        return pixels[..., :2] / pixels[..., 2:], seen[..., 2]


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    """[..., 3, 3] times [..., 3] -> [..., 3]."""
    return (matrix @ vector[..., None])[..., 0]


def relative_pose(source: Cameras, target: Cameras) -> tuple[Tensor, Tensor]:
    """R [..., 3, 3] and t [..., 3] from the source's camera space to the target's: x_j = R_ij x_i + t_ij."""
    source, target = source.double(), target.double()
    rotation = target.rotation @ source.rotation.mT
    return rotation, target.translation - _apply(rotation, source.translation)


def rotation_homography(source: Cameras, target: Cameras) -> Tensor:
    """K_j R_ij K_i⁻¹ [..., 3, 3]: where the target sees what is infinitely far, or anything if only the camera turned
    or zoomed."""
    rotation, _ = relative_pose(source, target)
    return target.intrinsics.double() @ rotation @ torch.linalg.inv(source.intrinsics.double())


def fundamental_matrix(source: Cameras, target: Cameras) -> Tensor:
    """F_ij = K_j⁻ᵀ [t_ij]ₓ R_ij K_i⁻¹ [..., 3, 3]: x_jᵀ F_ij x_i = 0. It is zero where the camera did not travel."""
    rotation, translation = relative_pose(source, target)
    essential = torch.linalg.cross(translation[..., None].expand_as(rotation), rotation, dim=-2)
    inverses = [torch.linalg.inv(camera.intrinsics.double()) for camera in (target, source)]
    return inverses[0].mT @ essential @ inverses[1]


def epipolar_lines(source: Cameras, target: Cameras, points: Tensor) -> Tensor:
    """Pixels ``points`` [..., 2] of the source -> lines (a, b, c) [..., 3] in the target, ax + by + c = 0 (eq. 3).

    a² + b² = 1, so that ax + by + c is a distance in pixels.
    """
    lines = _apply(fundamental_matrix(source, target), _homogeneous(points))
    return lines / lines[..., :2].norm(dim=-1, keepdim=True).clamp_min(torch.finfo(lines.dtype).tiny)


def _homogeneous(points: Tensor) -> Tensor:
    points = points.double()
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)


def matched_at_a_point(source: Cameras, target: Cameras, points: Tensor) -> Tensor:
    """Whether depth makes no difference to where the target sees pixels ``points`` [..., 2] of the source: [...] bool.

    So it is when the camera did not travel, and at the epipole (the place that a dolly drives towards), where the ray
    runs along the baseline. F x is zero there, or rounding.
    """
    rotation, translation = relative_pose(source, target)
    rays = _apply(rotation @ torch.linalg.inv(source.intrinsics.double()), _homogeneous(points))
    parallax = torch.linalg.cross(translation.expand_as(rays), rays).norm(dim=-1) / rays.norm(dim=-1)
    reach = sum(camera.translation.double().norm(dim=-1) for camera in (source, target))
    return parallax <= PARALLAX * reach


def epipolar_mask(
    cameras: Cameras, queries: Tensor, grid: tuple[int, int, int], token_size: float, half_width: float = HALF_WIDTH
) -> Tensor:
    """M of eq. 4 at token resolution: which tokens can show what the query tokens show -> bool [B, Q, t, h, w].

    A token counts when its centre is within ``half_width`` tokens of the epipolar line of the query's centre, or of
    the point K_j R_ij K_i⁻¹ x where the match is a point (camera at rest, turning, zooming; see matched_at_a_point).
    The whole line counts, as in the paper, also where only depths behind the cameras reach it. The mask is empty where
    line or point lies outside the picture. In the query's own frame it is the neighbourhood of the query.

    cameras: [B, t], one a token frame, K in pixels of the video.
    queries: [B, Q], places in the t·h·w tokens of ``grid``.
    token_size: the side of a token in pixels of the video.
    """
    frames, height, width = grid
    if cameras.translation.shape[:-1] != (len(queries), frames):
        raise ValueError(
            f"cameras: expected one for each of {len(queries)} clips × {frames} token frames; got "
            f"{tuple(cameras.translation.shape[:-1])}."
        )
    frame, place = queries // (height * width), queries % (height * width)  # [B, Q]
    centres = torch.stack([place % width, place // width], dim=-1) + 0.5  # [B, Q, 2], tokens
    clip = torch.arange(len(queries), device=queries.device)[:, None]
    source, target = cameras[clip, frame][:, :, None], cameras[:, None]  # [B, Q, 1] and [B, 1, t]
    points = centres[:, :, None] * token_size  # [B, Q, 1, 2], px
    lines = epipolar_lines(source, target, points)  # [B, Q, t, 3]
    matches = _apply(rotation_homography(source, target), _homogeneous(points))  # [B, Q, t, 3]
    x, y = ((torch.arange(side, device=queries.device) + 0.5).double() * token_size for side in (width, height))
    reach = half_width * token_size  # px
    on_line = _near_line(lines, x, y, reach)
    at_point = _near_point(matches, x, y, reach)
    return torch.where(matched_at_a_point(source, target, points)[..., None, None], at_point, on_line)


def _near_line(lines: Tensor, x: Tensor, y: Tensor, reach: float) -> Tensor:
    """lines [..., 3] in pixels -> bool [..., len(y), len(x)]."""
    a, b, c = lines[..., None].unbind(-2)  # [..., 1]
    return (a[..., None] * x + (b * y + c)[..., None]).abs_() <= reach


def _near_point(points: Tensor, x: Tensor, y: Tensor, reach: float) -> Tensor:
    """points [..., 3], homogeneous pixels -> bool [..., len(y), len(x)]; none behind the camera, where w is not > 0."""
    w = points[..., 2:]
    u, v = (points[..., :2] / w.where(w > 0, torch.nan))[..., None].unbind(-2)  # [..., 1]
    return (x - u).square()[..., None, :] + (y - v).square()[..., None] <= reach**2
