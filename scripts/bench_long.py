"""What drift control does to a long shot, and what plans come to, printed with the promise beside it.

    $(python3 scripts/host.py --python) scripts/bench_long.py

In the model's place stands a double that takes the shade of its start picture and adds to it in the course of every
window: the drift of a real model, of known size. VAE, hand-over, reading and correction are the real ones.
"""

import pack
from bench import report

WINDOWS, LENGTH, SIDE = 20, 5, 128
STEP = (0.012, -0.004, 0.004)  # sRGB values a window adds: rather much, one that is seen after three windows
CORNER = 24  # px at the lower edge, where the figure does not come; the shade is read at its left end
REACH = 24  # px between the two: the VAE's blur reaches that far


def plans() -> None:
    """Every length comes out exactly."""
    from animate_anywhere.models import windows

    exact = [
        all(
            [frame for window in plan.windows for frame in plan.finished(window)] == list(range(total))
            for total in (*range(1, 101), 200)
            for plan in [windows.plan(total, 29, handover, 5)]
        )
        for handover in windows.HANDOVERS
    ]
    report("1 to 100 and 200 frames in windows of 29, exact", f"{sum(exact)} of {len(exact)}", "every hand-over")
    print(windows.plan(200, 29))


def double(shot, vae, figure: bool):
    """A film of ``shot``'s background, through ``vae``, whose shade goes on from the start picture's; with a ``figure``
    dressed in red that crosses it."""
    import torch
    from animate_anywhere.models import latents

    clean = shot.background[0]

    def take(part, window, kept):
        begin = clean if part.start is None else part.start[0]
        shade = (begin[-CORNER:, :CORNER] - clean[-CORNER:, :CORNER]).mean((0, 1))
        course = torch.linspace(0, 1, window.length).view(-1, 1, 1, 1)
        frames = clean + shade + course * torch.tensor(STEP)
        for place, frame in enumerate(frames if figure else ()):
            left = (window.start + place) * SIDE // shot.length
            frame[SIDE // 8 : -CORNER - REACH, left : left + SIDE // 4] = torch.tensor([0.8, 0.1, 0.1])
        return latents.encode_frames(vae, frames.clamp(0, 1))

    return take


def drift() -> None:
    import comfy.sd
    import comfy.utils
    import folder_paths
    import torch
    from animate_anywhere.models import clips, windows
    from animate_anywhere.nodes import adapter
    from animate_anywhere.nodes.long_shot import LongShot
    from animate_anywhere.vision import metrics
    from demo import dance_frames

    adapter.register_folders()
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(folder_paths.get_full_path("vae", "aa_tiny_vae.safetensors")))
    place = torch.nn.functional.interpolate(dance_frames()[:1].movedim(-1, 1), (SIDE, SIDE), mode="area").movedim(1, -1)
    ground, everywhere = slice(-CORNER, None), torch.ones(1, CORNER, SIDE)

    def film(control: float, figure: bool) -> tuple[torch.Tensor, list[dict]]:
        plan = windows.plan(WINDOWS * (LENGTH - 1) + 1, LENGTH)
        shot = clips.Shot(length=plan.total, background=place)
        made = list(LongShot(shot, plan, vae, double(shot, vae, figure), control).windows())
        return torch.cat([each.frames for each in made]), [each.figures for each in made]

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        return metrics.colour_error(one[None, ground], everywhere, other[None, ground], everywhere)

    with torch.inference_mode():
        free, _ = film(0.0, False)
        held, figures = film(1.0, False)
        crossed, _ = film(1.0, True)
    report(f"colour drift after {WINDOWS} windows, without control", f"ΔE {apart(free[-1], free[0]):.2f}", "above 5")
    report("the same with control", f"ΔE {apart(held[-1], held[0]):.2f}", "below 1")
    moved = max(apart(one, other) for one, other in zip(held, crossed))
    report("what a red figure that crosses changes of the ground", f"ΔE {moved:.2f}", "below 0.5")
    report("seams, mean difference to the frame handed over", f"{max(f['seam'] or 0 for f in figures):.1f}/255", "")


def main() -> None:
    pack.load()
    plans()
    drift()


if __name__ == "__main__":
    main()
