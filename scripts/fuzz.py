"""Give every node odd values on every input, through the host's own validation and execution.

    $(scripts/host.py --python) scripts/fuzz.py                  3,000 inputs, from the seed 0
    $(scripts/host.py --python) scripts/fuzz.py --inputs 300 --seed 7 --node AA_Shot

A result is right where it is a correct output, or ONE error that names an input of the node: a ValueError whose text
begins with it, or the host's own refusal. Any other error is "raw", any other output is "silent"; both end this program
with status 1.
"""

import argparse
import math
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import in_process
import torch
from in_process import Host, Linked, Outcome

INPUTS, SECONDS_FOR_ONE, MEMORY_BYTES = 3000, 20, 6 << 30
# One in so many turns of these is taken: they take as long as all others together.
SELDOM = {"AA_SampleShot": 4, "AA_RenderShot": 4, "AA_PlanShot": 8, "AA_EncodeShot": 2, "AA_LoadAdapter": 2}
CORRECT, REFUSED, RAW, SILENT = "correct", "refused in words", "raw", "silent"
TOLERANCE = 1e-3  # beyond 0…1, by rounding


@dataclass
class Trial:
    """One run of ``node`` with some of its inputs ``changed`` (name -> how), what became of it, and a word about it."""

    node: str
    changed: dict[str, str]
    verdict: str
    why: str = ""
    seconds: float = 0.0


@dataclass
class Tally:
    trials: list[Trial] = field(default_factory=list)

    def count(self, verdict: str) -> int:
        return sum(trial.verdict == verdict for trial in self.trials)

    def wrong(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.verdict in (RAW, SILENT)]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in (CORRECT, REFUSED, RAW, SILENT))
        return f"{len(self.trials)} tried: {counts}"


class TooLongError(Exception):
    """One run took longer than SECONDS_FOR_ONE."""


class Fuzz:
    """Runs the pack's nodes with odd values, the same ones for the same seed."""

    def __init__(self) -> None:
        self.nodes = in_process.register()
        import fuzz_values  # not at the top: it asks for the host's folders, which are known now

        self.values, self.materials = fuzz_values, fuzz_values.Materials()
        self.host = Host()
        self.schemas = {name: node.GET_SCHEMA() for name, node in self.nodes.items()}
        self.good = {name: self.materials.of(name, schema.inputs) for name, schema in self.schemas.items()}

    def unchanged(self, node: str) -> Trial:
        """``node`` with good values only: it must work, or nothing is learned from odd ones."""
        return self._run(node, self.good[node], {})

    def trial(self, node: str, draw: random.Random) -> Trial:
        """``node`` with one or two of its inputs changed."""
        inputs, changed = dict(self.good[node]), {}
        kinds = {each.id: each.io_type for each in self.schemas[node].inputs if each.io_type != "COMFY_AUTOGROW_V3"}
        kinds |= {name: "IMAGE" for name in inputs if name not in kinds}
        for name in draw.sample(sorted(kinds), k=min(len(kinds), draw.choice((1, 1, 1, 2)))):
            value = self.values.odd(self.materials, kinds[name], draw)
            linked = kinds[name] not in self.values.WIDGETS or draw.random() < 0.6 or not _is_json(value)
            inputs[name] = Linked(value) if linked else value
            changed[name] = f"{'link' if linked else 'widget'} {_shown(value)}"
        return self._run(node, inputs, changed)

    def _run(self, node: str, inputs: dict, changed: dict[str, str]) -> Trial:
        started = time.monotonic()
        outputs = self.schemas[node].outputs
        signal.setitimer(signal.ITIMER_REAL, SECONDS_FOR_ONE)
        try:
            outcome = self.host.run(node, inputs, len(outputs))
        except Exception as error:  # noqa: BLE001, whatever comes out of the host itself is a finding
            outcome = Outcome(kind=f"host {type(error).__name__}", error=str(error))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        names = [each.id for each in self.schemas[node].inputs] + [f"clip{index}" for index in range(2)]
        verdict, why = judge(outcome, names, outputs)
        return Trial(node, changed, verdict, why, time.monotonic() - started)


def judge(outcome: Outcome, inputs: list[str], outputs: list) -> tuple[str, str]:
    """The verdict on ``outcome`` of a node with these ``inputs`` and ``outputs``, and a word about it."""
    if outcome.kind == "validation":
        return REFUSED, outcome.error
    if outcome.kind == "ValueError" and any(_begins_with(outcome.error, name) for name in inputs):
        return REFUSED, outcome.error
    if outcome.kind:
        return RAW, f"{outcome.kind}: {outcome.error[:160]} ({outcome.where})"
    for socket, value in zip(outputs, outcome.outputs):
        problem = problem_of(socket.io_type, value)
        if problem:
            return SILENT, f"output {socket.id}: {problem}"
    return CORRECT, ""


def _begins_with(text: str, name: str) -> bool:
    """Whether an error ``text`` begins with an input's ``name``, alone or in a list of several."""
    head = text.split(":")[0]
    return name in [part.strip() for part in head.replace(" and ", ",").split(",")]


def problem_of(io_type: str, value: object) -> str:
    """What is wrong with an output ``value`` of a socket of ``io_type``; "" for nothing."""
    checks = {"IMAGE": (4, (3, 4)), "MASK": (3, None)}
    if io_type in checks:
        return _problem_of_frames(value, *checks[io_type])
    if io_type == "STRING":
        return "" if isinstance(value, str) and value else f"not a text but {_shown(value)}"
    if io_type in ("INT", "FLOAT"):
        return "" if isinstance(value, int | float) and math.isfinite(value) else f"not a number but {_shown(value)}"
    if value is None:
        return "nothing"
    if io_type in ("POSE_KEYPOINT", "CONDITIONING") and not value:
        return "empty"
    return next((f"{where} is not finite" for where, each in _leaves(value, 0) if not _is_finite(each)), "")


def _problem_of_frames(value: object, dimensions: int, channels: tuple | None) -> str:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return f"not frames but {_shown(value)}"
    if value.dim() != dimensions or 0 in value.shape or (channels and value.shape[-1] not in channels):
        return f"of shape {list(value.shape)}"
    if value.is_meta or value.layout != torch.strided:
        return "without numbers of its own"
    if value.shape.numel() > 1 << 28:
        return ""  # a view of few numbers that are all the same
    low, high = (float(each) for each in value.float().aminmax())
    if not -TOLERANCE <= low <= high <= 1 + TOLERANCE:
        return f"between {low} and {high}"
    return ""


def _leaves(value: object, depth: int):
    """(where, tensor, array or number) in ``value`` and its parts."""
    if isinstance(value, torch.Tensor | float) or hasattr(value, "dtype"):
        yield "it", value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from ((str(name), leaf) for _, leaf in _leaves(each, depth + 1))
    elif isinstance(value, list | tuple):
        for each in value[:64]:
            yield from _leaves(each, depth + 1)
    elif hasattr(value, "__dataclass_fields__") and depth < 3:
        for name in value.__dataclass_fields__:
            yield from ((name, leaf) for _, leaf in _leaves(getattr(value, name), depth + 1))


def _is_finite(value: object) -> bool:
    value = torch.as_tensor(value)
    if value.is_meta or value.layout != torch.strided:
        return False
    return not value.is_floating_point() or value.shape.numel() > 1 << 28 or bool(value.isfinite().all())


def _is_json(value: object) -> bool:
    """Whether a widget can have ``value``: what a prompt can hold, and no link."""
    return isinstance(value, int | float | str | None) or (isinstance(value, list | dict) and not value)


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{type(value).__name__} {repr(value)[:60]}"


def fuzz(folder: Path, inputs: int, seed: int, only: list[str] | None = None, tick=None) -> Tally:
    """Try ``inputs`` values, drawn from ``seed``, on every node in turn, or on those named ``only``.

    folder: where the nodes may write.
    """
    import folder_paths  # the host's, which in_process has put in reach

    for name, use in (("output", folder_paths.set_output_directory), ("user", folder_paths.set_user_directory)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        use(str(folder / name))
    signal.signal(signal.SIGALRM, _raise_too_long)
    tally, machine = Tally(), Fuzz()
    names, turn = only or sorted(machine.nodes), Counter()
    for node in names:
        trial = machine.unchanged(node)
        # LoadDynamiCtrl and LoadPose have no good value without files: refused in words is all that they can do.
        if trial.verdict != CORRECT and machine.good[node] and trial.verdict != REFUSED:
            raise AssertionError(f"{node} does not work with good values: {trial.why}")
    while len(tally.trials) < inputs:
        for node in names:
            turn[node] += 1
            if turn[node] % SELDOM.get(node, 1) == 0 and len(tally.trials) < inputs:
                tally.trials.append(machine.trial(node, random.Random(f"{seed} {node} {turn[node]}")))
                if tick:
                    tick(tally)
    return tally


def _raise_too_long(*_) -> None:
    raise TooLongError(f"it took more than {SECONDS_FOR_ONE} s")


def report(tally: Tally) -> str:
    """The totals, and the kinds of faults with an example of each, the most frequent first."""
    kinds = Counter((trial.verdict, trial.node, _kind(trial.why)) for trial in tally.wrong())
    lines = []
    for (verdict, node, kind), count in kinds.most_common():
        example = next(trial for trial in tally.wrong() if trial.node == node and _kind(trial.why) == kind)
        lines.append(f"{count:5} {verdict} {node}: {kind}\n        e.g. {example.changed}")
    slowest = max(tally.trials, key=lambda trial: trial.seconds)
    lines.append(f"slowest: {slowest.seconds:.1f} s, {slowest.node} {slowest.changed}")
    return "\n".join([*lines, str(tally)])


def _kind(why: str) -> str:
    return "".join("#" if character.isdigit() else character for character in why)[:140]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--node", action="append", help="only this one; may come several times")
    options = parser.parse_args()
    torch.set_num_threads(1)
    statm = Path("/proc/self/statm")
    if statm.exists():  # so that what is too large is a finding, and not the end of the machine
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(Path(folder), options.inputs, options.seed, options.node, _tick)
    print(report(tally))
    return 1 if tally.wrong() else 0


def _tick(tally: Tally) -> None:
    if len(tally.trials) % 100 == 0:
        print(tally, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
