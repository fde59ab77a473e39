"""What a render leaves beside its film NAME.mp4, so that it can go on after a stop: the folder NAME.parts.

    state.json          what the film is made from, which windows are done, and their figures
    0000.mp4, …         the windows done
    0000.safetensors    what the last of them hands over
    lock                held by the render at work; the system opens it when that ends, however it ends

state.json is written last: what it does not name is not done. Nothing here is ever overwritten by another film.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import comfy.model_management
import filelock
from safetensors.torch import load_file, save_file

from ..models.whole_file import whole
from ..models.windows import Plan, Window
from . import film
from .long_shot import Handover

STATE, LOCK, HANDED = "state.json", "lock", ".safetensors"
VERSION = 1


@dataclass
class State:
    """How far a film is."""

    inputs: dict[str, str]  # what it is made from, name -> value or hash
    plan: dict  # windows.Plan, as JSON has it
    rows: list[dict] = field(default_factory=list)  # of the report, one a window done
    sizes: list[int] = field(default_factory=list)  # bytes of each window's file
    film: int = 0  # bytes of the film that lies there: the whole one, or one of the windows done
    is_whole: bool = False
    version: int = VERSION


class Unfinished:
    """The film ``folder``/``name`` in the format ``kind``, and what there is of it."""

    def __init__(self, folder: Path, name: str, kind: film.Format) -> None:
        self.folder, self.name, self.kind = folder, name, kind
        self.film = folder / f"{name}{kind.ending}"
        self.parts = folder / f"{name}.parts"

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs nobody else renders to this name. ValueError where somebody does, or where nothing can
        be written."""
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            with whole(self.parts / "probe") as probe:
                probe.write_bytes(b"0")
            (self.parts / "probe").unlink()
        except OSError as error:
            raise ValueError(
                f"filename: nothing can be written to {self.folder} ({error.strerror}). Choose another name, or free "
                "that folder."
            ) from error
        try:
            lock = filelock.FileLock(self.parts / LOCK, timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise ValueError(
                f"filename: another render is writing {self.film.name} just now. Wait until it is done, or choose "
                "another name."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_whole(self) -> bool:
        """Whether the film is there, as it was finished."""
        state = self._read()
        return state is not None and state.is_whole and self._size() == state.film

    def plan_before(self, inputs: Mapping[str, str]) -> Plan | None:
        """How the film of the same ``inputs`` was begun, if it was."""
        state = self._read()
        if state is None or state.inputs != inputs or not state.rows:
            return None
        return Plan(**state.plan | {"windows": tuple(Window(*each) for each in state.plan["windows"])})

    def find(self, inputs: Mapping[str, str], plan: Plan) -> tuple[State, str]:
        """What is done of the film that is made from ``inputs`` by ``plan``, and a sentence about it for the report.

        What was made from others moves away, to the first free name: "NAME (1)".
        """
        state = self._read()
        windows, fresh = len(plan.windows), State(dict(inputs), asdict(plan))
        if state is None:
            return fresh, self._set_aside()
        changed = sorted(name for name in {*state.inputs, *inputs} if state.inputs.get(name) != inputs.get(name))
        if changed:
            why = f"Started afresh, because of other inputs than before: {', '.join(changed)}."
        elif state.is_whole:
            if self._size() == state.film:
                return state, "The film was there already, made from the same inputs; nothing was sampled."
            why = "Made again: the film was no longer as it had been finished."
        elif not state.rows:
            why = ""
        elif self._parts_are_there(state, windows):
            moved = self._set_aside_film(self._free_name()) if self._size() not in (0, state.film) else ""
            return state, " ".join(filter(None, [f"Went on after window {len(state.rows)} of {windows}.", moved]))
        else:
            why = "Started afresh: windows of the render before are missing."
        return fresh, " ".join(filter(None, [why, self._set_aside()]))

    def part(self, window: int) -> Path:
        return self.parts / f"{window:04}{self.kind.ending}"

    def handover(self, state: State) -> Handover | None:
        """What the last window done leaves to the next one; None before the first, and after the last."""
        path = self._handed(len(state.rows) - 1)
        if not path.is_file():
            return None
        tensors = load_file(path, device=str(comfy.model_management.intermediate_device()))
        return Handover(**({"latents": None} | tensors))

    def save(self, state: State, row: Mapping, handover: Handover | None) -> None:
        """One more window is done; its part is written already."""
        window = len(state.rows)
        if handover is not None:
            tensors = {name: value.contiguous() for name, value in vars(handover).items() if value is not None}
            with whole(self._handed(window)) as partial:
                save_file(tensors, partial)
        state.rows.append(dict(row))
        state.sizes.append(self.part(window).stat().st_size)
        self._write(state)
        self._handed(window - 1).unlink(missing_ok=True)

    def left(self, state: State, size: int) -> None:
        """A film of the windows done, of ``size`` bytes, lies there."""
        state.film = size
        self._write(state)

    def finished(self, state: State, size: int) -> None:
        """The whole film lies there, of ``size`` bytes; its parts are no longer needed."""
        state.film, state.is_whole = size, True
        self._write(state)
        for path in self._leftovers():
            if path.name != STATE:
                path.unlink()

    def check_space(self, state: State, frames: int, done: int, pixels: int, estimate: float) -> None:
        """ValueError unless the disk has room for the rest of ``frames``, of which ``done`` are done: twice, as parts
        and in the film. estimate: bytes a pixel, as long as no window tells."""
        each = sum(state.sizes) / done if done else estimate * pixels
        needed = 2 * each * (frames - done) + sum(state.sizes)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"filename: {self.folder} has {free / 1e6:,.0f} MB left, and the rest of the film needs about "
                f"{needed / 1e6:,.0f} MB. Make room there, or choose another place, a higher crf or h264."
            )

    def _handed(self, window: int) -> Path:
        return self.parts / f"{window:04}{HANDED}"

    def _size(self) -> int:
        return self.film.stat().st_size if self.film.is_file() else 0

    def _read(self) -> State | None:
        """None where there is no state that this version wrote."""
        try:
            found = json.loads((self.parts / STATE).read_text(encoding="utf-8"))
            return State(**found) if found["version"] == VERSION else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, state: State) -> None:
        with whole(self.parts / STATE) as partial:
            partial.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")

    def _parts_are_there(self, state: State, windows: int) -> bool:
        paths = [self.part(window) for window in range(len(state.rows))]
        sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
        return sizes == state.sizes and (len(paths) == windows or self._handed(len(paths) - 1).is_file())

    def _leftovers(self) -> list[Path]:
        """All files in the folder but the lock; state.json last, so that what is moved before it is still known."""
        paths = [path for path in self.parts.iterdir() if path.is_file() and path.name != LOCK]
        return sorted(paths, key=lambda path: path.name == STATE)

    def _set_aside(self) -> str:
        """Move films and parts of this name away, where there are any that show something; a sentence about it."""
        leftovers = self._leftovers()
        pictures = {path.suffix for path in leftovers} & {kind.ending for kind in film.FORMATS.values()}
        if not pictures and not self._films(self.name):
            for path in leftovers:
                path.unlink()
            return ""
        free = self._free_name()
        if leftovers:
            (self.folder / f"{free}.parts").mkdir()
        for path in leftovers:
            path.rename(self.folder / f"{free}.parts" / path.name)
        return self._set_aside_film(free) or f"What there was of it is now {free}.parts."

    def _set_aside_film(self, free: str) -> str:
        """Only what is a film; a sentence about it, or none."""
        moved = []
        for path in self._films(self.name):
            moved.append(f"{free}{path.suffix}")
            path.rename(self.folder / moved[-1])
        return f"The older film is now {' and '.join(moved)}." if moved else ""

    def _films(self, name: str) -> list[Path]:
        paths = [self.folder / f"{name}{kind.ending}" for kind in film.FORMATS.values()]
        return [path for path in paths if path.exists()]

    def _free_name(self) -> str:
        """The first of "NAME (1)", "NAME (2)", … of which there is nothing."""
        names = (f"{self.name} ({number})" for number in count(1))
        return next(name for name in names if not self._films(name) and not (self.folder / f"{name}.parts").exists())
