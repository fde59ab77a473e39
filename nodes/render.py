"""A shot of any length into a video file, window by window, so that nothing piles up and nothing is lost."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

import av
import comfy.model_management
import folder_paths
from comfy.cli_args import args
from comfy_api.latest import InputImpl, io, ui

from ..models import clips, fingerprint
from ..models.safe_path import path_inside
from ..models.windows import LAST_FRAME, Plan
from . import film, save_names, sockets
from . import shot as shots
from .audio import read_audio
from .long_shot import LongShot, handover_bytes
from .render_state import State
from .sampling import SAME, Sampling, plan_windows
from .sampling_inputs import long_shot_inputs, report_outputs, sampling_inputs
from .shot_report import ShotReport
from .unfinished import Unfinished

FILENAME = "animate_anywhere/shot"
FPS = 16.0  # of CogVideoX 1.5
CRF = 18.0


def _inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "fps",
            default=FPS,
            min=0.01,
            max=1000.0,
            step=0.01,
            tooltip="Frames a second: those of the driving video, from Get Video Components.",
        ),
        io.String.Input(
            "filename",
            default=FILENAME,
            tooltip="Where in the output folder, and the film's name. Queued again with the same name and inputs, an "
            "interrupted film goes on; with other inputs, the older film gets a number. %date:yyyy-MM-dd%, %width% and "
            "ComfyUI's other tokens are filled in.",
        ),
        io.Combo.Input(
            "format",
            options=list(film.FORMATS),
            tooltip="h264 mp4 plays anywhere. ffv1 mkv is without loss, for editing, and large.",
        ),
        io.Float.Input(
            "crf",
            default=CRF,
            min=0.0,
            max=51.0,
            step=1.0,
            tooltip="Quality of h264: 18 looks like the original, 23 is half the size, 0 the best. ffv1 has none.",
        ),
        io.Audio.Input(
            "audio", optional=True, tooltip="The film's sound, cut to its length. Load Audio, or Get Video Components."
        ),
    ]


class RenderShot(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}RenderShot",
            display_name="Render Shot",
            category=sockets.SAMPLING,
            description="Animates a shot of any length into a video file: like Sample Shot, but each window is written "
            "as soon as it is done. Memory does not grow with the length, and an interrupted film goes on when it is "
            "queued again.",
            inputs=[*sampling_inputs(io.ControlAfterGenerate.fixed), *long_shot_inputs(), *_inputs()],
            outputs=[
                io.Video.Output("video", tooltip="The film, as it lies in the output folder."),
                io.String.Output("report", tooltip="What was made, with which settings, in what time."),
                *report_outputs(),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
            search_aliases=["save video", "long video", "export video", "resume", "generate video"],
        )

    @classmethod
    def execute(
        cls, model, vae, shot, positive, negative, seed, steps=25, cfg=2.5, method="cogvideox_dpm",
        image_latent_scale=shots.AUTO, fps=FPS, filename=FILENAME, format=film.H264, crf=CRF, window=0,
        handover=LAST_FRAME, overlap=5, blend=0, seeds=SAME, drift_control=1.0, audio=None,
    ) -> io.NodeOutput:  # fmt: skip
        clips.Shot.check(shot)
        how = film.encoding(format, fps, crf)
        place = _place(filename, format, shot.width, shot.height)
        audio = None if audio is None else read_audio(audio)
        taking = {
            "seed": seed, "steps": steps, "cfg": cfg, "method": method, "image_latent_scale": image_latent_scale,
            "seeds": seeds,
        }  # fmt: skip
        cutting = {"window": window, "handover": handover, "overlap": overlap, "blend": blend}
        sampling = Sampling(model, vae, shot, positive, negative, **taking)
        plan = plan_windows(model, shot, cfg, **cutting)
        settings = taking | cutting | {"drift_control": drift_control, "fps": fps, "format": format, "crf": crf}
        inputs = {name: str(value) for name, value in settings.items()}
        inputs |= _fingerprints(model, vae, shot, positive, negative, audio)
        place = _begun_before(filename, format, shot, inputs) or place
        with place.held():
            plan = place.plan_before(inputs, shot.length) or plan  # the free memory may have chosen other windows then
            sampling.windows = len(plan.windows)
            state, note = place.find(inputs, plan)
            report = ShotReport(shot, plan, str(sampling), getattr(cls.hidden, "unique_id", None))
            for row in state.rows:
                report.add_row(row)
            if not state.is_whole:
                work = _Render(place, state, plan, how, audio, _metadata(cls.hidden))
                work.run(LongShot(shot, plan, vae, sampling, drift_control), report)
        text = "\n".join([f"{place.film.name}, {how}. {note}".rstrip(), report.text(sampling.times())])
        shown = _shown(place, text) | {"aa_timeline": [report.timeline()]}
        video = InputImpl.VideoFromFile(str(place.film))
        return io.NodeOutput(video, text, report.json(), report.plot(), ui=shown)

    @classmethod
    def fingerprint_inputs(cls, filename=FILENAME, format=film.H264, **_) -> object:
        """A film that is not there, or not whole, is rendered: NaN is never equal to what it was before.

        It is a new NaN each time, because the host takes one and the same object for equal. A value that comes by a
        link is None here, and the size of the shot is not known.
        """
        try:
            if filename is None or save_names.has_size_token(filename):
                return float("nan")
            place = _place(filename, format)
            return place.film.stat().st_mtime_ns if place.is_whole() else float("nan")
        except (OSError, ValueError):
            return float("nan")

    @classmethod
    def validate_inputs(cls, filename=FILENAME) -> bool | str:
        if filename is None:  # it comes by a link
            return True
        try:
            _place(filename, film.H264)
        except ValueError as error:
            return str(error)
        return True


def _place(filename: object, format: str, width: int = 0, height: int = 0) -> Unfinished:
    """Where a film called ``filename`` lies, inside the output folder. ValueError where it would not.

    width, height: px of the film, for the tokens in the name.
    """
    kind = film.format_of(format)
    if not isinstance(filename, str):
        raise ValueError(f"filename: {filename!r} is not a file name. Give a name such as {FILENAME}.")
    return _place_of(save_names.expand_tokens(filename, width, height), filename, kind)


def _place_of(expanded: str, filename: object, kind: film.Format) -> Unfinished:
    asked = PureWindowsPath(expanded.strip())  # takes both kinds of slashes
    name = asked.name.removesuffix(kind.ending).rstrip(". ")
    if asked.anchor or ".." in asked.parts or not name:
        raise ValueError(
            f"filename: {filename!r} is no name inside the output folder. Give a name such as {FILENAME}, with folders "
            "before it or without."
        )
    path = path_inside(Path(folder_paths.get_output_directory()), "/".join([*asked.parent.parts, name]), "filename")
    return Unfinished(path.parent, name, kind)


def _begun_before(filename: str, format: str, shot: clips.Shot, inputs: dict[str, str]) -> Unfinished | None:
    """The latest unfinished film of the same ``inputs`` and of this name at any time; None without a time in it."""
    if not save_names.has_time_token(filename):
        return None
    kind, output = film.FORMATS[format], Path(folder_paths.get_output_directory())
    place = _place(filename, format, shot.width, shot.height)
    pattern = save_names.pattern_of(filename.strip(), shot.width, shot.height).replace("\\", "/")
    found = [place]
    for parts in output.glob(f"{pattern.removesuffix(kind.ending).rstrip('. ')}.parts"):
        name = parts.relative_to(output).as_posix().removesuffix(".parts")
        with suppress(ValueError):  # a link that leads outside
            found.append(_place_of(name, filename, kind))
    begun = [each for each in found if each.is_begun(inputs)]
    return max(begun, key=lambda each: each.parts.stat().st_mtime_ns, default=None)


def _shown(place: Unfinished, text: str) -> dict:
    """The film in its node, and ``text`` under it."""
    inside = place.folder.relative_to(folder_paths.get_output_directory()).as_posix()
    saved = ui.SavedResult(place.film.name, "" if inside == "." else inside, io.FolderType.output)
    return ui.PreviewVideo([saved]).as_dict() | ui.PreviewText(text).as_dict()


def _fingerprints(model, vae, shot: clips.Shot, positive, negative, audio) -> dict[str, str]:
    """Name -> hash of everything beside plain settings that the frames come from."""
    check = comfy.model_management.throw_exception_if_processing_interrupted
    found = {f"shot's {name}": fingerprint.of(value, check) for name, value in vars(shot).items()}
    return found | {
        "model": fingerprint.of_model(model, check),
        "vae": fingerprint.of_model(vae.patcher, check),
        "positive": fingerprint.of(positive, check),
        "negative": fingerprint.of(negative, check),
        "audio": fingerprint.of(audio, check),
        "PyAV": av.__version__,  # parts of two encoders cannot be joined
    }


def _metadata(hidden) -> dict:
    """What ComfyUI's own Save Video writes into a file: the workflow, so that dropping the file opens it."""
    if args.disable_metadata or hidden is None:
        return {}
    prompt = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return (hidden.extra_pnginfo or {}) | prompt


class _Render:
    """Makes what is missing of a film."""

    def __init__(self, place: Unfinished, state: State, plan: Plan, how: film.Encoding, audio, metadata: dict) -> None:
        self.place, self.state, self.plan, self.how = place, state, plan, how
        self.audio, self.metadata = audio, metadata
        self.check = comfy.model_management.throw_exception_if_processing_interrupted

    def run(self, long_shot: LongShot, report: ShotReport) -> None:
        """Whatever stops it, a film of the windows done is left."""
        place, first = self.place, len(self.state.rows)
        self.pixels = long_shot.shot.width * long_shot.shot.height
        self.handover_bytes = handover_bytes(self.plan, long_shot.shot.width, long_shot.shot.height)
        place.check_space(self._needed())
        with self._film(index_first=False) as growing:  # Cancel closes it, and is not to wait for a second pass
            try:
                self._join(growing, first)
                for made in long_shot.windows(place.handover(self.state), first):
                    report.add(made)
                    part = place.part(made.window.index)
                    with self._writing():
                        film.write(part, made.frames, self.how, self.check)
                        self.state = place.save(self.state, report.rows[-1], made.handover)
                        growing.append(part)
            except BaseException:
                with suppress(OSError):  # no room for it; its parts are there
                    if growing.frames:
                        place.left(self.state, self._close(growing))
                raise
        with self._film(index_first=True) as whole:
            self._join(whole, len(self.plan.windows))
            with self._writing():
                place.finished(self.state, self._close(whole))

    def _film(self, index_first: bool) -> film.Film:
        with self._writing():
            return film.Film(self.place.film, self.how, self.audio, self.metadata, index_first, self.check)

    def _close(self, closing: film.Film) -> int:
        return closing.close(lambda size: self.place.announce(self.state, size))

    def _join(self, whole: film.Film, parts: int) -> None:
        with self._writing():
            for window in range(parts):
                whole.append(self.place.check_part(self.state, window))

    def _needed(self) -> float:
        """Bytes that the rest of the film takes on the disk."""
        done = sum(len(self.plan.finished(window)) for window in self.plan.windows[: len(self.state.rows)])
        return self.place.bytes_needed(
            self.state, self.plan.total, done, self.pixels, self.how.bytes_a_pixel, self.handover_bytes
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            after = (
                f"{len(self.state.rows)} of {len(self.plan.windows)} windows are kept. Make room, queue it again, and "
                "it goes on from there."
            )
            raise save_names.cannot_write("filename", self.place.film.name, error, self._needed(), after) from error


NODES = [RenderShot]
