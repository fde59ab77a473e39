"""Pose -> JSON file and back."""

import os
from itertools import islice
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

import nodes

from ..models import fingerprint
from ..models.whole_file import whole
from ..vision import pose_file
from . import save_names, sockets

ENDING = ".json"
OUTPUT = " [output]"  # the host's mark for a file of the output folder
PREFIX = "AnimateAnywhere/pose"
# The list is made anew whenever a page asks for the nodes, and people keep tens of thousands of files in these folders.
MAX_LISTED_ENTRIES = 4_000  # files and folders looked at in one folder
MAX_LISTED_FOLDERS = 20  # folders in the input folder that are looked into


def _files() -> list[str]:
    """JSON files of the input folder, then those where Save Pose writes by default, with the host's mark."""
    inputs = _json_files(Path(folder_paths.get_input_directory()), MAX_LISTED_FOLDERS)
    saved = Path(PREFIX).parent.as_posix()
    outputs = _json_files(Path(folder_paths.get_output_directory(), saved), 0)
    return inputs + [f"{saved}/{name}{OUTPUT}" for name in outputs]


def _json_files(folder: Path, max_folders: int) -> list[str]:
    """Names relative to ``folder`` of JSON files in it and in at most ``max_folders`` folders in it, sorted."""
    names, inside = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, MAX_LISTED_ENTRIES):
                if entry.name.endswith(ENDING):
                    names += [entry.name] * entry.is_file()
                elif len(inside) < max_folders and entry.is_dir(follow_symlinks=False):
                    inside.append(entry.name)
    except OSError:  # not there yet, or not to be read
        return []
    for name in inside:
        names += [f"{name}/{file}" for file in _json_files(folder / name, 0)]
    return sorted(names)


def _path(file: object) -> Path:
    """Where ``file`` is. Raises ValueError, naming the input, where that is no file in a folder of the host's."""
    if not isinstance(file, str):
        raise ValueError(f"file: {file!r} is not a file name. Choose one from the list.")
    try:
        path = Path(folder_paths.get_annotated_filepath(file))
    except ValueError as error:  # it leaves the folder by "..", a link or a drive
        raise ValueError(f"file: {error}. Only files in ComfyUI's input, output and temp folders are read.") from error
    if not path.is_file():
        raise ValueError(_missing(file))
    return path


def _missing(file: str) -> str:
    name, folder = folder_paths.annotated_filepath(file)
    kinds = {folder_paths.get_output_directory(): "output", folder_paths.get_temp_directory(): "temp"}
    return f"file: there is no {name} in the {kinds.get(folder, 'input')} folder."


class SavePose(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{sockets.PREFIX}SavePose",
            display_name="Save Pose",
            category=sockets.POSE,
            description="Writes a pose into a JSON file in the output folder: to edit by hand, to keep, or to use in "
            "another workflow. Load Pose brings it back to the last digit.",
            inputs=[
                sockets.PoseKeypoint.Input(
                    "pose", tooltip="From Extract Pose and Mask, or any OpenPose-style detector."
                ),
                io.String.Input(
                    "filename_prefix",
                    default=PREFIX,
                    tooltip="Where in the output folder, and how the name begins; a number is added. "
                    "%date:yyyy-MM-dd%, %width% and ComfyUI's other tokens are filled in.",
                ),
                io.Float.Input(
                    "fps",
                    default=pose_file.DEFAULT_FPS,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="Frames a second of the video that the pose was taken from; from Get Video Components.",
                ),
            ],
            outputs=[io.String.Output("file", tooltip="Name of the file, as Load Pose takes it.")],
            is_output_node=True,
            search_aliases=["export pose", "pose json", "openpose json", "save keypoints"],
        )

    @classmethod
    def execute(cls, pose, filename_prefix=PREFIX, fps=pose_file.DEFAULT_FPS) -> io.NodeOutput:
        text = pose_file.to_json(pose, fps)
        size = (int(pose[0][side]) for side in pose_file.CANVAS)
        prefix = save_names.output_prefix(filename_prefix, *size)
        try:
            folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
                prefix, folder_paths.get_output_directory()
            )
            file = f"{name}_{counter:05}_{ENDING}"
            with whole(Path(folder) / file) as partial:
                partial.write_text(text, encoding="utf-8")
        except OSError as error:
            after = "Make room, or choose another name, and queue it again."
            raise save_names.cannot_write("filename_prefix", prefix, error, len(text), after) from error
        named = f"{Path(subfolder, file).as_posix()}{OUTPUT}"
        return io.NodeOutput(named, ui=ui.PreviewText(named))


class LoadPose(sockets.Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"default": 0, "min": 0, "max": nodes.MAX_RESOLUTION, "optional": True, "advanced": True}
        return io.Schema(
            node_id=f"{sockets.PREFIX}LoadPose",
            display_name="Load Pose",
            category=sockets.POSE,
            description="Reads a pose from a JSON file in the input or output folder: one that Save Pose wrote, one of "
            "another tool (OpenPose, ControlNet preprocessors), or one made by hand.",
            inputs=[
                sockets.FileInput(
                    "file",
                    options=_files(),
                    tooltip="A JSON file from ComfyUI's input folder, or, with [output], from its output folder.",
                ),
                io.Int.Input(
                    "width",
                    **size,
                    tooltip="Width in px of the video the pose belongs to, for files that do not say it (OpenPose's "
                    "own). A file that says it is read as it is.",
                ),
                io.Int.Input("height", **size, tooltip="Height in px, likewise."),
            ],
            outputs=[
                sockets.PoseKeypoint.Output("pose", tooltip="The skeletons, one a frame."),
                io.Float.Output("fps", tooltip="Frames a second, 24 where the file does not say."),
            ],
            search_aliases=["import pose", "pose json", "openpose json", "load keypoints"],
        )

    @classmethod
    def execute(cls, file, width=0, height=0) -> io.NodeOutput:
        loaded = pose_file.load_pose(_path(file), (width, height) if width and height else None)
        return io.NodeOutput(loaded.frames, loaded.fps or pose_file.DEFAULT_FPS)

    @classmethod
    def fingerprint_inputs(cls, file, **_) -> object:
        """A file that was changed is read again, and a series when one of its files was, or one more came."""
        try:
            parts = pose_file.series(_path(file))
            return fingerprint.of([(part.name, part.stat().st_mtime_ns) for part in parts])
        except (OSError, ValueError):
            return float("nan")  # not the same as before, so that execute() says what is wrong

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        if file is None:  # it comes by a link
            return True
        if not isinstance(file, str):
            return f"file: {file!r} is not a file name. Choose one from the list."
        # The list is short, and as old as the page: any other file is fine, too.
        return folder_paths.exists_annotated_filepath(file) or _missing(file)


NODES = [SavePose, LoadPose]
