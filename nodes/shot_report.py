"""What came of a shot, window by window: for the eye, for programs, and for the timeline while it is being made."""

import json

from server import PromptServer
from torch import Tensor

from ..models.clips import Shot
from ..models.windows import Plan
from ..vision import seams
from .long_shot import Made

EVENT = "animate_anywhere.timeline"  # js/animate_anywhere.js listens to it


class ShotReport:
    """Collects what is said of each window. ``settings``: the report's first line, after the size."""

    def __init__(self, shot: Shot, plan: Plan, settings: str, node_id: str | None = None) -> None:
        self.shot = shot
        self.plan = plan
        self.settings = settings
        self.node_id = node_id
        self.rows: list[dict] = []
        self._send()

    def add(self, made: Made) -> None:
        """The next window is done."""
        self.add_row({"index": made.window.index, "start": made.window.start, "length": made.window.length}
                     | made.figures)  # fmt: skip

    def add_row(self, row: dict) -> None:
        """The same, from what was written down before."""
        self.rows.append(row)
        self._send()

    def timeline(self) -> dict:
        """Windows, hand-overs, conditions and figures so far, for the widget of the node."""
        windows = []
        for window in self.plan.windows:
            row = self.rows[window.index] if window.index < len(self.rows) else {}
            windows.append(
                {
                    "index": window.index,
                    "start": window.start,
                    "length": min(window.length, self.plan.total - window.start),
                    "first_new": self.plan.finished(window).start,
                    "done": bool(row),
                    **{key: row.get(key) for key in ("seam", "drift", "seconds")},
                }
            )
        return {
            "node": self.node_id,
            "total": self.plan.total,
            "windows": windows,
            "conditions": self.shot.conditions(),
        }

    def text(self, timing: str = "") -> str:
        lines = [f"{self.plan.total} frames of {self.shot.width}×{self.shot.height} px, {self.settings}"]
        if timing:
            lines.append(timing)
        if len(self.plan.windows) > 1:
            lines.append(str(self.plan))
            lines += [_line(row) for row in self.rows]
        return "\n".join(lines)

    def json(self) -> str:
        """The same for programs: see the help of Sample Shot."""
        plan = {key: getattr(self.plan, key) for key in ("total", "handover", "shared", "blend")}
        size = {"width": self.shot.width, "height": self.shot.height}
        return json.dumps(size | plan | {"windows": self.rows})

    def plot(self) -> Tensor:
        """Drift over time, [1, H, W, 3]."""
        return seams.plot(self.rows)

    def _send(self) -> None:
        server = getattr(PromptServer, "instance", None)  # none in a script that runs nodes by itself
        if server is not None and self.node_id is not None:
            server.send_sync(EVENT, self.timeline(), server.client_id)


def _line(row: dict) -> str:
    def value(key: str, unit: str) -> str:
        return "not known" if row[key] is None else f"{row[key]:.2g} {unit}".rstrip()

    parts = [f"frames {row['start']}-{row['start'] + row['length'] - 1}"]
    if row["index"]:
        parts.append(f"seam {value('seam', '/255')}, motion across it {value('flow', 'px')}")
    parts.append(f"motion inside {value('flow_inside', 'px')}")
    parts.append(f"drift ΔE {value('drift', '')} ({value('drift_before', '')} before control)")
    parts.append(f"{row['seconds']:.1f} s, {row['memory']:.0f} MB")
    return f"Window {row['index'] + 1}: " + ", ".join(parts)
