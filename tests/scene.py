"""A stage for tests: a textured wall, a virtual camera that moves over it exactly as told, and somebody in front."""

import cv2
import numpy as np
import torch
from torch import Tensor

RED = torch.tensor([0.9, 0.1, 0.2])


def wall(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture [height, width, 3] in 0…1 with texture of several sizes."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for size, share in ((1.5, 0.3), (5, 0.5), (20, 1.0)):
        noise = cv2.GaussianBlur(random.standard_normal((height, width, 3)).astype(np.float32), (0, 0), size)
        picture += share * noise / noise.std()
    picture -= picture.min()
    return picture / picture.max()


def camera(kind: str, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Homographies [T, 3, 3] from pixels of a frame of ``size`` (height, width) to a wall twice as large."""
    height, width = size
    path = np.tile(np.eye(3), (frames, 1, 1))
    path[:, :2, 2] = width / 2, height / 2
    for t, place in enumerate(path):
        if kind == "pan":  # in fractions of a pixel, and never back to the same place
            place[:2, 2] += 1.7 * t, 3 * np.sin(t / 4)
        elif kind == "zoom":
            zoom = 1 + 0.012 * t
            place[:2] = [[zoom, 0, width - zoom * width / 2], [0, zoom, height - zoom * height / 2]]
        elif kind == "roll":
            turn = np.radians(0.4 * t)
            about = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
            place[:2, :2] = about
            place[:2, 2] = (width, height) - np.array(about) @ (width / 2, height / 2)
        elif kind != "still":
            raise ValueError(kind)
    return path


def film(picture: np.ndarray, path: np.ndarray, size: tuple[int, int]) -> Tensor:
    """What a camera on ``path`` [T, 3, 3] sees of the wall: [T, H, W, 3]."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    frames = [cv2.warpPerspective(picture, place, size[::-1], flags=flags) for place in path]
    return torch.from_numpy(np.clip(np.stack(frames), 0, 1))


def past_posts(frames: int, size: tuple[int, int], near: float = 1.6) -> Tensor:
    """A camera walks by a wall, and by posts before it that move ``near`` times as fast: [T, H, W, 3]."""
    height, width = size
    path = np.tile(np.eye(3), (frames, 1, 1))
    path[:, 0, 2] = 40 + 2.0 * np.arange(frames)
    path[:, 1, 2] = height / 4 + 1.5 * np.sin(np.arange(frames) / 5)
    closer = path.copy()
    closer[:, :2, 2] *= near
    tall, wide = 2 * height, 4 * width
    posts = np.zeros((tall, wide), np.float32)
    for x in range(20, wide, 80):
        posts[3 * height // 4 :, x : x + 28] = 1
    cover = film(np.repeat(posts[..., None], 3, 2), closer, size)
    return film(wall(tall, wide), path, size) * (1 - cover) + film(wall(tall, wide, seed=50), closer, size) * cover


def walker(frames: int, size: tuple[int, int], start: float = 0.25, end: float = 0.75) -> Tensor:
    """Mask [T, H, W] of somebody who walks from ``start`` to ``end`` of the picture's width."""
    height, width = size
    masks = np.zeros((frames, height, width), np.uint8)
    for mask, place in zip(masks, np.linspace(start, end, frames)):
        cv2.ellipse(mask, (round(place * width), height // 2), (width // 14, height // 3), 0, 0, 360, 1, -1)
    return torch.from_numpy(masks).float()


def step_in(background: Tensor, mask: Tensor) -> Tensor:
    """Put somebody red in front of ``background`` [T, H, W, 3] where ``mask`` [T, H, W] is."""
    return torch.where(mask[..., None] > 0, RED, background)


def psnr(one: Tensor, other: Tensor, where: Tensor) -> float:
    """dB between two videos [T, H, W, 3] over the pixels ``where`` [T, H, W] is nonzero."""
    error = ((one - other)[where > 0] ** 2).mean().item()
    return float(-10 * np.log10(error + 1e-12))
