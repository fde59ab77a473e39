"""What a run tells: a line of progress, a table of figures, and TensorBoard where it is installed."""

import csv
import importlib.util
import logging
import time
from collections.abc import Mapping
from pathlib import Path

COLUMNS = ("step", "loss", "latent", "perceptual", "epipolar", "gradient", "rate", "seconds", "held_out")
TABLE = "metrics.csv"

log = logging.getLogger(__name__)


class Journal:
    """Figures of the steps since the last line are averaged into one line.

    ``start``: the step that the run begins or goes on with; lines of the table that an earlier run wrote beyond it are
    taken out, so that the table shows every step once.
    """

    def __init__(self, folder: Path, name: str, start: int, steps: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.start = start
        self.steps = steps
        self.table = folder / TABLE
        self._keep_until(start)
        self.board = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder), purge_step=start + 1)
        self.sums: dict[str, float] = {}
        self.count = 0
        self.clock = time.monotonic()
        self.speed = 0.0  # seconds a step, lately

    def _keep_until(self, step: int) -> None:
        rows = []
        if self.table.exists():
            with self.table.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with self.table.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def add(self, figures: Mapping[str, float]) -> None:
        """The figures of one step."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def skip_time(self, seconds: float) -> None:
        """Time that was not spent on steps."""
        self.clock += seconds

    def line(self, step: int, extra: Mapping[str, float]) -> None:
        """Write down the mean of what was added, and ``extra``; ``step``: how many are done."""
        if not self.count:
            return
        now = time.monotonic()
        seconds = (now - self.clock) / self.count
        self.clock = now
        self.speed = seconds if not self.speed else 0.7 * self.speed + 0.3 * seconds
        means = {name: total / self.count for name, total in self.sums.items()}
        row = {"step": step, **means, "seconds": seconds, **extra}
        self.sums, self.count = {}, 0
        with self.table.open("a", newline="") as file:
            shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            csv.DictWriter(file, COLUMNS, extrasaction="ignore").writerow(shown)
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, step)
        self._say(step, row)

    def _say(self, step: int, row: Mapping[str, float]) -> None:
        parts = [f"{name} {row[name]:.4f}" for name in ("perceptual", "epipolar", "held_out") if row.get(name)]
        detail = f" ({', '.join(parts)})" if parts else ""
        left = span((self.steps - step) * self.speed)
        log.info(
            "%s %d/%d  loss %.4f%s  %.2f steps/s  %s left",
            self.name, step, self.steps, row["loss"], detail, 1 / max(row["seconds"], 1e-9), left,
        )  # fmt: skip

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def span(seconds: float) -> str:
    """A time as people say it: 45 s, 12 min, 3 h 20 min, 5 days 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
