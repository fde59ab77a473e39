"""What a render leaves beside its film NAME.mp4, so that it can go on after a stop: the folder NAME.parts.

    state.json          what the film is made from, which windows are done, and their figures
    0000.mp4, …         the windows done
    0000.safetensors    what the last of them hands over
    lock                held by the render at work; the system opens it when that ends, however it ends
    moving              there while all this is being set aside: the name it goes to

state.json is written last: what it does not name is not done. It has a checksum of each file that it names. Nothing
here is ever overwritten by another film.
"""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

import comfy.model_management
import filelock
import safetensors.torch

from ..models.whole_file import whole
from ..models.windows import Plan
from . import film
from .long_shot import Handover
from .render_state import State, checksum, plan_of, read_state, write_state

STATE, LOCK, HANDED = "state.json", "lock", ".safetensors"
MOVE = "moving"  # while files are being set aside: the name they go to, so that a killed move is finished


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
            with self._moving():
                self._finish_move()
            yield
        finally:
            lock.release()

    def is_whole(self) -> bool:
        """Whether the film is there, as it was finished."""
        state = self._read()
        return state is not None and state.is_whole and self._size() == state.film

    def is_begun(self, inputs: Mapping[str, str]) -> bool:
        """Whether a film of the same ``inputs`` was begun and not finished."""
        state = self._read()
        return state is not None and state.inputs == inputs and bool(state.rows) and not state.is_whole

    def plan_before(self, inputs: Mapping[str, str], total: int) -> Plan | None:
        """How the film of the same ``inputs``, of ``total`` frames, was begun, if it was."""
        state = self._read()
        if state is None or state.inputs != inputs or not state.rows or state.plan["total"] != total:
            return None
        return plan_of(state)

    def find(self, inputs: Mapping[str, str], plan: Plan) -> tuple[State, str]:
        """What is done of the film that is made from ``inputs`` by ``plan``, and a sentence about it for the report.

        What was made from others, or is damaged, moves away, to the first free name: "NAME (1)". ValueError where it
        cannot.
        """
        with self._moving():
            return self._find(inputs, plan)

    def _find(self, inputs: Mapping[str, str], plan: Plan) -> tuple[State, str]:
        fresh = State(dict(inputs), asdict(plan))
        try:
            state = read_state(self.parts / STATE)
        except ValueError as error:
            why = f"Started afresh: {STATE} of the render before cannot be used, {error}."
            return fresh, " ".join(filter(None, [why, self._set_aside()]))
        if state is None:
            return fresh, self._set_aside()
        changed = sorted(name for name in {*state.inputs, *inputs} if state.inputs.get(name) != inputs.get(name))
        windows = len(plan.windows)
        if changed:
            why = f"Started afresh, because of other inputs than before: {', '.join(changed)}."
        elif not state.rows:
            why = ""
        elif plan_of(state) != plan:
            why = f"Started afresh: {STATE} of the render before tells of other windows."
        elif state.is_whole:
            if self._size() == state.film:
                self._clear_parts()
                return state, "The film was there already, made from the same inputs; nothing was sampled."
            why = "Made again: the film was no longer as it had been finished."
        elif problem := self._problem(state, windows):
            why = f"Started afresh: {problem}."
        else:
            moved = self._set_aside_film(self._free_name()) if self._size() not in {0, *state.film_sizes} else ""
            return state, " ".join(filter(None, [f"Went on after window {len(state.rows)} of {windows}.", moved]))
        return fresh, " ".join(filter(None, [why, self._set_aside()]))

    def part(self, window: int) -> Path:
        return self.parts / f"{window:04}{self.kind.ending}"

    def check_part(self, state: State, window: int) -> Path:
        """The file of ``window``. ValueError unless its bytes are as they were written."""
        path = self.part(window)
        if checksum(path) != state.checksums[window]:
            raise ValueError(
                f"filename: window {window + 1} in {self.parts.name} was damaged while the film was being made. Queue "
                "it again, and it starts afresh."
            )
        return path

    def handover(self, state: State) -> Handover | None:
        """What the last window done leaves to the next one; None before the first, and after the last."""
        if not state.handover:
            return None
        path = self._handed(len(state.rows) - 1)
        tensors = safetensors.torch.load_file(path, device=str(comfy.model_management.intermediate_device()))
        return Handover(**({"latents": None} | tensors))

    def save(self, state: State, row: Mapping, handover: Handover | None) -> State:
        """One more window is done; its part is written already. Returns the state with it."""
        window = len(state.rows)
        handed = ""
        if handover is not None:
            tensors = {name: value.contiguous() for name, value in vars(handover).items() if value is not None}
            with whole(self._handed(window)) as partial:
                partial.write_bytes(safetensors.torch.save(tensors))  # save_file() raises no OSError
            handed = checksum(self._handed(window))
        path = self.part(window)
        done = replace(
            state,
            rows=[*state.rows, dict(row)],
            sizes=[*state.sizes, path.stat().st_size],
            checksums=[*state.checksums, checksum(path)],
            handover=handed,
        )
        self._write(done)
        with suppress(OSError):  # it is no longer needed, and goes with the folder
            self._handed(window - 1).unlink(missing_ok=True)
        return done

    def announce(self, state: State, size: int) -> None:
        """A film of ``size`` bytes is about to lie there: whatever happens then, it is known as this one's."""
        state.next_film = size
        self._write(state)

    def left(self, state: State, size: int) -> None:
        """A film of the windows done, of ``size`` bytes, lies there."""
        state.film = size
        self._write(state)

    def finished(self, state: State, size: int) -> None:
        """The whole film lies there, of ``size`` bytes; its parts are no longer needed."""
        state.film, state.is_whole = size, True
        self._write(state)
        self._clear_parts()

    def bytes_needed(self, state: State, frames: int, done: int, pixels: int, estimate: float, handover: int) -> float:
        """Bytes that the rest of ``frames``, of which ``done`` are done, takes on the disk: twice, as parts and in the
        film, and two hand-overs of ``handover`` bytes. estimate: bytes a pixel, as long as no window tells."""
        each = sum(state.sizes) / done if done else estimate * pixels
        return 2 * each * (frames - done) + sum(state.sizes) + 2 * handover

    def check_space(self, needed: float) -> None:
        """ValueError unless the disk has room for ``needed`` bytes."""
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
        """None where there is no state that this version can go on from."""
        with suppress(ValueError):
            return read_state(self.parts / STATE)
        return None

    def _write(self, state: State) -> None:
        write_state(self.parts / STATE, state)

    def _problem(self, state: State, windows: int) -> str:
        """What keeps the windows done from being used; nothing where all is as it was written."""
        paths = [self.part(window) for window in range(len(state.rows))]
        sums = list(state.checksums)
        if len(paths) < windows:
            if not state.handover:
                return f"its {STATE} lacks what the last window hands over"
            paths.append(self._handed(len(state.rows) - 1))
            sums.append(state.handover)
        if not all(path.is_file() for path in paths):
            return "windows of the render before are missing"
        for path, expected in zip(paths, sums, strict=True):
            try:
                is_right = checksum(path) == expected
            except OSError:
                is_right = False
            if not is_right:
                return f"{path.name} of the render before is damaged"
        return ""

    def _clear_parts(self) -> None:
        """Remove what a whole film no longer needs, as far as that is possible."""
        for path in self._leftovers():
            if path.name != STATE:
                with suppress(OSError):
                    path.unlink()

    def _leftovers(self) -> list[Path]:
        """All files in the folder but the lock; state.json last, so that what is moved before it is still known."""
        paths = [path for path in self.parts.iterdir() if path.is_file() and path.name != LOCK]
        return sorted(paths, key=lambda path: path.name == STATE)

    def _set_aside(self) -> str:
        """Move films and parts of this name away, where there are any that show something; a sentence about it."""
        leftovers = self._leftovers()
        endings = {kind.ending for kind in film.FORMATS.values()}
        pictures = [path for path in leftovers if path.suffix in endings]
        if self.parts / STATE not in leftovers:  # the first window may have been at work when a render was killed
            pictures = [path for path in pictures if path.stem != self.part(0).stem]
        if not pictures and not self._films(self.name):
            for path in leftovers:
                path.unlink()
            return ""
        free = self._free_name()
        with whole(self.parts / MOVE) as partial:
            partial.write_text(free, encoding="utf-8")
        return self._finish_move()

    def _finish_move(self) -> str:
        """Carry on with _set_aside(), which may have been killed; a sentence about it, or none."""
        note = self.parts / MOVE
        if not note.is_file():
            return ""
        free = note.read_text(encoding="utf-8", errors="replace")
        if not re.fullmatch(rf"{re.escape(self.name)} \([0-9]{{1,9}}\)", free):
            free = self._free_name()
        target = self.folder / f"{free}.parts"
        leftovers = [path for path in self._leftovers() if path != note]
        if leftovers:
            target.mkdir(exist_ok=True)
        for path in leftovers:
            path.rename(target / path.name)
        moved = self._set_aside_film(free)
        note.unlink()
        return moved or f"What there was of it is now {free}.parts."

    def _set_aside_film(self, free: str) -> str:
        """Only what is a film; a sentence about it, or none."""
        moved = []
        for path in self._films(self.name):
            moved.append(f"{free}{path.suffix}")
            path.rename(self.folder / moved[-1])
        return f"The older film is now {' and '.join(moved)}." if moved else ""

    @contextmanager
    def _moving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"filename: what an earlier render left of {self.name} in {self.folder} cannot be moved away "
                f"({error.strerror}). Choose another name, or free that folder."
            ) from error

    def _films(self, name: str) -> list[Path]:
        paths = [self.folder / f"{name}{kind.ending}" for kind in film.FORMATS.values()]
        return [path for path in paths if path.exists()]

    def _free_name(self) -> str:
        """The first of "NAME (1)", "NAME (2)", … of which there is nothing."""
        names = (f"{self.name} ({number})" for number in count(1))
        return next(name for name in names if not self._films(name) and not (self.folder / f"{name}.parts").exists())
