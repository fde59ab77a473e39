"""Draw clips of the synthetic stage as a contact sheet, to see what the networks are trained on.

    $(python3 scripts/host.py --python) scripts/stage.py --out sheet.png [--clips 8] [--seed 0] [--frames 29]

One row a clip: the character's picture, frames through time, the clean background of the middle frame, its pose,
person mask with hands and thing, depth.
"""

import argparse
import time
from pathlib import Path

import pack


def row(clip, shown: int):
    """One clip as a picture [H, W * (shown + 5), 3]."""
    import torch

    middle = len(clip.frames) // 2
    at = torch.linspace(0, len(clip.frames) - 1, shown).round().long()
    mask = torch.stack([clip.mask[middle], clip.hands[middle], clip.thing[middle]], -1)
    near = clip.depth[middle].amin() / clip.depth[middle]
    pictures = [clip.character, *clip.frames[at], clip.background[middle], clip.drawn_pose[middle], mask]
    return torch.cat([*pictures, near[..., None].expand_as(mask)], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=pack.ROOT / "output" / "stage.png")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the first clip; the others follow")
    parser.add_argument("--frames", type=int, default=29, help="8k+5")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shown", type=int, default=5, help="frames of each clip on the sheet")
    arguments = parser.parse_args()
    pack.load()
    import numpy as np
    import torch
    from animate_anywhere.training import stage
    from PIL import Image

    rows, start = [], time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.clips):
        plan = stage.draw_plan(seed, arguments.frames, (arguments.width, arguments.height))
        clip = stage.render_clip(plan, arguments.device)
        print(f"{seed}: {plan.route}, arms {'/'.join(plan.arms)}, camera {plan.camera}{', told' * clip.told}")
        rows.append(row(clip, arguments.shown).cpu())
    seconds = time.monotonic() - start
    print(f"{arguments.clips / seconds:.1f} clips a second on {torch.get_num_threads()} threads, sheet included")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
    Image.fromarray(np.ascontiguousarray(sheet)).save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
