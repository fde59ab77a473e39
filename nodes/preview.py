"""What a node shows of its work: latents while they are sampled, and what js/animate_anywhere.js draws afterwards, as
small files in the host's temp folder."""

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import comfy.utils
import folder_paths
import latent_preview
import numpy as np
from comfy.cli_args import LatentPreviewMethod, args
from comfy_api.latest import io, ui
from torch import Tensor

from ..models import preview
from ..vision import contact_sheet
from ..vision.background_tracks import Tracked
from ..vision.pose import PoseTrack

FOLDER = "animate_anywhere"  # in the host's temp folder, which it empties when it starts


def write(content: bytes, ending: str) -> ui.SavedResult:
    """A file for the page alone, under a name of its own."""
    folder = Path(folder_paths.get_temp_directory()) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{uuid.uuid4().hex}.{ending}"
    (folder / name).write_bytes(content)
    return ui.SavedResult(name, FOLDER, io.FolderType.temp)


def pose_player(
    shown: PoseTrack, confidence: np.ndarray, filled: np.ndarray, images: Tensor | None = None,
    ghost: PoseTrack | None = None,
) -> ui.SavedResult:  # fmt: skip
    """The pose ``shown``, over ``images`` [T, H, W, 3 or 4] or over the outline of another pose, ``ghost``.

    confidence [T]: of the lead in 0…1, as it was found; filled [T] bool: frames whose lead comes from those around.
    """
    content = {
        "width": shown.width,
        "height": shown.height,
        "poses": _whole_numbers(shown),
        "ghosts": None if ghost is None else _whole_numbers(ghost.resized(shown.width, shown.height)),
        "confidence": np.rint(confidence * 100).astype(int).tolist(),
        "filled": np.flatnonzero(filled).tolist(),
    }
    if images is not None:
        content["layout"] = asdict(contact_sheet.layout(images.shape[2], images.shape[1]))
        content["sheets"] = [write(sheet, "jpg") for sheet in contact_sheet.sheets(images)]
    return write(json.dumps(content, separators=(",", ":")).encode(), "json")


def _whole_numbers(track: PoseTrack) -> list[list[list[int]]]:
    """Frame by frame, of each person who is there, x px, y px, confidence in %, of 18 joints: flat lists."""
    points = np.rint(track.keypoints * [1, 1, 100]).astype(int)  # [T, P, 18, 3]
    there = track.seen.any(axis=2)
    return [[person.flatten().tolist() for person in people[known]] for people, known in zip(points, there)]


def background_points(images: Tensor, found: Tracked, placed: np.ndarray) -> dict:
    """The first frame, and the points that are followed from it; ``placed`` [N, 2], in 0…1, are those of the artist,
    of which ``found`` says which were lost."""
    tiles = contact_sheet.layout(images.shape[2], images.shape[1])
    picture = write(contact_sheet.jpeg(contact_sheet.small(images[0], tiles.width * 2, tiles.height * 2)), "jpg")
    tracks = found.tracks
    at_first = np.flatnonzero(tracks.visible[0]) if len(tracks.visible) else []
    places = tracks.path[0, at_first] / [tracks.width, tracks.height]
    seen = tracks.visible[:, at_first].mean(axis=0)
    return {
        "picture": picture,
        "aspect": tracks.width / tracks.height,
        "points": [
            [round(float(x), 4), round(float(y), 4), round(float(part), 3)] for (x, y), part in zip(places, seen)
        ],
        "lost": [[round(float(x), 4), round(float(y), 4)] for x, y in placed[list(found.lost)]],
    }


class _Previewer(latent_preview.LatentPreviewer):
    """Some frames of a clip side by side, by a map fitted to its VAE."""

    def __init__(self, model, vae, pictures: Tensor) -> None:
        self.latent_format = model.model.latent_format
        self.colours = preview.fit(vae, pictures)

    def decode_latent_to_preview(self, x0: Tensor):
        picture = preview.picture(self.colours, self.latent_format.process_out(x0))
        return latent_preview.preview_to_image(picture, do_scale=False)


def sampling_callback(model, vae, pictures: Tensor, steps: int) -> Callable[[int, Tensor, Tensor, int], None]:
    """latent_preview.prepare_callback() for latents that the host has no previews of: CogVideoX's.

    pictures: [n, H, W, 3], about what the video is going to look like. The host's settings say whether there are
    previews; where there are none, nothing is fitted.
    """
    wanted = args.preview_method != LatentPreviewMethod.NoPreviews
    if not wanted or latent_preview.get_previewer(model.load_device, model.model.latent_format) is not None:
        return latent_preview.prepare_callback(model, steps)
    previewer, bar = _Previewer(model, vae, pictures), comfy.utils.ProgressBar(steps)

    def show(step: int, x0: Tensor, x: Tensor, total: int) -> None:
        bar.update_absolute(step + 1, total, previewer.decode_latent_to_preview_image("JPEG", x0))

    return show
