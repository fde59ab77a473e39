"""From the figures of clips (training/evaluate.py) to those of a family: means, spreads, and what they are to reach."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy import ndarray

from ..vision.metrics import RIGHT
from .evaluate import BLOCKS, MOVING, UNITS

DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Figure:
    """``value`` over ``clips`` clips; in 95 of 100 other choices of clips it would lie between ``low`` and ``high``."""

    name: str
    value: float
    low: float
    high: float
    clips: int
    goal: float | None = None
    least: bool = True  # whether the goal is the least, or the most, that it may be

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.least else self.value <= self.goal


def rows_of(clips: Sequence[dict]) -> dict[str, dict[str, dict[str, float]]]:
    """{row: {figure: {"mean", "spread" (standard deviation over clips), "clips"}}}, without what no clip tells."""
    rows = {}
    for row in clips[0]["rows"]:
        figures = {name: _column(clips, row, name) for name in UNITS}
        rows[row] = {
            name: {"mean": float(values.mean()), "spread": float(values.std()), "clips": len(values)}
            for name, column in figures.items()
            if len(values := column[np.isfinite(column)])
        }
    return rows


def _column(clips: Sequence[dict], row: str, figure: str) -> ndarray:
    """A figure of all clips, nan where a clip has none."""
    return np.array([clip["rows"].get(row, {}).get(figure, np.nan) for clip in clips], float)


def figures_of(clips: Sequence[dict]) -> list[Figure]:
    """What is asked of a family. Figures of conditions that were left out are left out."""
    still = np.array([clip["still"] for clip in clips], float)
    person = {row: _column(clips, row, "person") for row in clips[0]["rows"]}
    found = []

    def add(name: str, columns: Sequence[ndarray], figure: Callable, goal: float | None = None, least: bool = True):
        """``figure`` takes the columns' finite places."""
        table = np.stack([np.asarray(column, float) for column in columns], 1)  # [clips, columns]
        table = table[np.isfinite(table).all(1)]
        if len(table):
            found.append(Figure(name, *_with_range(table, figure), len(table), goal, least))

    if "pose" in person:
        add("person above the empty background, dB", [person["pose"] - person["empty"]], _mean, 4.0)
    for row in ("wrong pose", "wrong reference"):
        if "pose" in person and row in person:
            add(f"a {row} costs, dB", [person["pose"] - person[row]], _mean, 2.0)
    for row, goal in (("environment", 0.5), ("pose", 0.7), ("two-stage", None), ("through the VAE", None)):
        motion, cosine = _column(clips, row, "motion"), _column(clips, row, "direction")
        moving = np.where(still > MOVING, cosine, np.nan)
        add(f"background error of a still one's, {row}", [motion, still], _ratio, goal, least=False)
        right_goal = 0.8 if row == "pose" else None
        add(f"direction right within 45°, share of moving clips, {row}", [moving >= RIGHT, moving], _first, right_goal)
        add(f"direction right within 90°, share of moving clips, {row}", [moving > 0, moving], _first)
    for side, (key, where) in product(BLOCKS, (("blocks", ""), ("person_blocks", " in the person"))):
        for row in ("pose", "through the VAE"):
            columns = [_column(clips, of, f"{key}{side}") for of in (row, "truth")]
            add(f"pattern of {side} px of the truth's{where}, {row}", columns, _ratio)
    for key, name in (("attention", "attention outside the epipolar bands"), ("even", "an even attention there")):
        add(name, [[clip.get(key, np.nan) for clip in clips]], _mean)
    return found


def _mean(table: ndarray) -> float:
    return float(table.mean())


def _first(table: ndarray) -> float:
    return float(table[:, 0].mean())


def _ratio(table: ndarray) -> float:
    """Of the sums: a clip whose background stands has nothing to be divided by."""
    return float(table[:, 0].sum() / max(table[:, 1].sum(), 1e-9))


def _with_range(table: ndarray, figure: Callable[[ndarray], float]) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    drawn = [figure(table[rng.integers(len(table), size=len(table))]) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return figure(table), float(low), float(high)


def summary(clips: Sequence[dict]) -> dict:
    """For a JSON file."""
    figures = [{**asdict(figure), "met": figure.met} for figure in figures_of(clips)]
    return {"figures": figures, "rows": rows_of(clips), "units": UNITS}


def text(clips: Sequence[dict]) -> str:
    """The same to be read."""
    rows = rows_of(clips)
    lines = [f"{len(clips)} clips, mean ± spread over clips", ""]
    lines.append(f"{'':16}" + "".join(f"{name:>16}" for name in UNITS))
    for row, figures in rows.items():
        cells = [
            f"{figures[name]['mean']:.2f} ± {figures[name]['spread']:.2f}" if name in figures else "" for name in UNITS
        ]
        lines.append(f"{row:16}" + "".join(f"{cell:>16}" for cell in cells))
    lines += ["", *(f"{name}: {unit}" for name, unit in UNITS.items()), ""]
    for figure in figures_of(clips):
        goal = "" if figure.goal is None else f"  {'at least' if figure.least else 'at most'} {figure.goal:g}: "
        verdict = {None: "", True: "reached", False: "not reached"}[figure.met]
        spread = f"{figure.value:7.3f}  ({figure.low:.3f} … {figure.high:.3f}, {figure.clips} clips)"
        lines.append(f"{figure.name:72}{spread}{goal}{verdict}")
    return "\n".join(lines)
