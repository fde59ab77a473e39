"""Measure how much of a person's outline the masks of Shot show, beside what training draws.

    $(python3 scripts/host.py --python) scripts/bench_masks.py [CLIP ...]

The IoU of mask and outline at the shot's size, for sources of several heights and shots of several widths: from
Segment Character and Shape-Agnostic Mask through Shot, and the mean over the masks that training draws at that size.
CLIP: videos or animated pictures of one person; without any, the dance clip of the host's template package.
"""

import argparse
from pathlib import Path

import demo
import pack

SOURCE_HEIGHTS = (480, 720, 1080)
SHOT_WIDTHS = (128, 256, 512, 832, 1360)
FRAMES_PER_CLIP = 4
TRAINING_DRAWS = 200


def read_frames(path: Path):
    """FRAMES_PER_CLIP frames spread over the clip at ``path``: [T, H, W, 3] in 0…1."""
    import numpy as np
    import torch
    from comfy_api.latest import InputImpl
    from PIL import Image, ImageSequence

    if path.suffix.lower() == ".webp":  # which PyAV cannot read animated
        with Image.open(path) as clip:
            frames = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)])
        frames = torch.from_numpy(frames).float() / 255
    else:
        frames = InputImpl.VideoFromFile(str(path)).get_components().images
    return frames[:: max(1, len(frames) // FRAMES_PER_CLIP)][:FRAMES_PER_CLIP]


def scaled(mask, width: int, height: int, method: str):
    """``mask`` [T, H, W] at another size, of 0 and 1 again."""
    import comfy.utils

    return (comfy.utils.common_upscale(mask[:, None], width, height, method, "center")[:, 0] > 0.5).float()


def iou(one, other) -> float:
    one, other = one > 0.5, other > 0.5
    return float((one & other).sum() / (one | other).sum())


def measure(path: Path) -> float:
    """Print the table of one clip; the largest difference from training in it."""
    import numpy as np
    import torch
    from animate_anywhere.nodes import mask as mask_nodes
    from animate_anywhere.nodes.shot import Shot
    from animate_anywhere.vision import mask as masks

    frames, rng, differences = read_frames(path), np.random.default_rng(0), []
    person = (mask_nodes.SegmentCharacter.execute(frames, feather=0).result[0] > masks.INSIDE).float()
    count, height, width = person.shape
    print(f"\n{path.name}\n{'shot':>6} {'training':>9} " + " ".join(f"{source:>6}p" for source in SOURCE_HEIGHTS))
    for shot_width in SHOT_WIDTHS:
        shot_height = round(shot_width * height / width / 16) * 16
        outline = scaled(person, shot_width, shot_height, "bilinear")
        draws = (
            masks.shape_agnostic(outline, *masks.random_block(rng, outline), steady=True) for _ in range(TRAINING_DRAWS)
        )
        trained, row = float(np.mean([iou(outline, draw) for draw in draws])), []
        pose = torch.zeros(count, shot_height, shot_width, 3)
        for source in SOURCE_HEIGHTS:
            large = scaled(person, round(width * source / height), source, "bilinear")
            blocks = mask_nodes.ShapeAgnosticMask.execute(large).result[0]
            background = torch.zeros(1, 1, 1, 3).expand(*large.shape, 3)
            shot = Shot.execute(pose, background, mask=blocks, width=shot_width, height=shot_height).result[0]
            row.append(iou(outline, shot.mask))
        differences += [abs(value - trained) for value in row]
        print(f"{shot_width:>6} {trained:>9.3f} " + " ".join(f"{value:>7.3f}" for value in row))
    return max(differences)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP")
    clips = parser.parse_args().clips or [demo.template(*demo.DANCE)]
    pack.load()
    import torch

    torch.set_num_threads(1)
    with torch.inference_mode():
        worst = max(measure(path) for path in clips)
    print(f"\nLargest difference from training: {worst:.3f}")


if __name__ == "__main__":
    main()
