"""Pose -> JSON file and back."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

import nodes

from ..models import fingerprint
from ..vision import pose_file
from . import sockets

ENDING = ".json"
OUTPUT = " [output]"  # the host's mark for a file of the output folder


def _files() -> list[str]:
    """JSON files of the input folder, then those of the output folder, with the host's mark."""
    names = []
    for folder, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), OUTPUT)):
        found = (path.relative_to(folder).as_posix() for path in Path(folder).rglob(f"*{ENDING}") if path.is_file())
        names += [f"{name}{mark}" for name in sorted(found)]
    return names


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
                    default="AnimateAnywhere/pose",
                    tooltip="Where in the output folder, and how the name begins; a number is added.",
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
    def execute(cls, pose, filename_prefix="AnimateAnywhere/pose", fps=pose_file.DEFAULT_FPS) -> io.NodeOutput:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        file = f"{name}_{counter:05}_{ENDING}"
        pose_file.save_pose(Path(folder) / file, pose, fps)
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
        path = Path(folder_paths.get_annotated_filepath(file))
        if not path.is_file():
            raise ValueError(_missing(file))
        loaded = pose_file.load_pose(path, (width, height) if width and height else None)
        return io.NodeOutput(loaded.frames, loaded.fps or pose_file.DEFAULT_FPS)

    @classmethod
    def fingerprint_inputs(cls, file, **_) -> str | None:
        """A file that was changed is read again, and a series when one of its files was, or one more came."""
        path = Path(folder_paths.get_annotated_filepath(file))
        if not path.is_file():
            return None
        return fingerprint.of([(part.name, part.stat().st_mtime_ns) for part in pose_file.series(path)])

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        # The list is as old as the page: a file saved since then is fine, too.
        return folder_paths.exists_annotated_filepath(file) or _missing(file)


NODES = [SavePose, LoadPose]
