"""A table of jobs for one workflow: read, held against the workflow and the server, all problems told at once.

CSV: a column "name" and one a widget, "NODE.INPUT", its node by title or id; an empty cell leaves the workflow's value.
JSON: a list of objects with the same keys. Both are UTF-8. Files are named relative to the table, and lie in its folder
or below; --files-from names another folder.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import client
import pack
import prompts
import strict_json
from answers import is_number, one_line
from strict_json import shown

UPLOADS = ("image_upload", "video_upload", "audio_upload")  # of an input in /object_info: it takes a file from outside
NAME = re.compile(r"[\w .+-]*\w[\w .+-]*")  # becomes a folder
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
INT_RANGE = (-(2**63), 2**64 - 1)  # what the host's seeds and counts fit into
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class JobsError(Exception):
    """All that is wrong with a table or a workflow, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Job:
    """One run. ``values``: by "NODE.INPUT" of the table; ``prompt`` and ``files`` are what check() makes of them."""

    name: str
    row: int
    values: dict[str, object]
    prompt: dict = field(default_factory=dict)
    files: dict[tuple[str, str], Path] = field(default_factory=dict)  # (node id, input) -> what is to be uploaded

    @cached_property
    def key(self) -> str:
        """Tells whether a result is this job's: it changes with the workflow, the values and the files' contents."""
        content = {f"{node}.{name}": digest(path) for (node, name), path in self.files.items()}
        return hashlib.sha256(json.dumps([self.prompt, content], sort_keys=True).encode()).hexdigest()[:16]

    def contents(self) -> dict[tuple[str, str], tuple[str, bytes]]:
        """(node id, input) -> name and content. The name is of the content: jobs cannot overwrite each other's files on
        a server, and a picture that ten jobs share is one to its cache."""
        return {place: (_upload_name(path), path.read_bytes()) for place, path in self.files.items()}


def _upload_name(path: Path) -> str:
    """The digest of the content and as much of the name as a file system takes, its ending included."""
    room = pack.load_file("models/safe_path.py").MAX_NAME_BYTES - 17  # the digest and a dash
    ending = path.suffix if len(path.suffix) < 10 else ""
    stem = path.name.removesuffix(ending).encode("utf-8", "replace")[: room - len(ending.encode())]
    return f"{digest(path)}-{stem.decode('utf-8', 'ignore')}{ending}"


def uploaded(connection: client.Client, prompt: dict, contents: dict) -> dict:
    """``prompt`` with its files (Job.contents) on the server."""
    prompt = json.loads(json.dumps(prompt))
    for (node, key), (name, content) in contents.items():
        prompt[node]["inputs"][key] = connection.put_input(name, content)
    return prompt


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read(workflow: Path, table: Path) -> tuple[dict, list[Job]]:
    """The workflow and the table's jobs. Raises JobsError with what is wrong with either."""
    found, problems = [], []
    for reader, path in ((read_workflow, workflow), (read_table, table)):
        try:
            found.append(reader(path))
        except JobsError as error:
            problems += error.problems
    if problems:
        raise JobsError(problems)
    return found[0], found[1]


def read_workflow(path: Path) -> dict:
    """A workflow in the API form. Raises JobsError, for the form that the page saves with where the other one is."""
    try:
        return prompts.read(path)
    except client.ClientError as error:
        raise JobsError([str(error)]) from None


def read_table(path: Path) -> list[Job]:
    """The table's jobs, their names not yet looked at. Raises JobsError when it is none."""
    try:
        rows = list(_rows(path))
    except (OSError, ValueError, csv.Error) as error:
        raise JobsError([f"{path}: no table of jobs ({error})"]) from None
    if not rows:
        raise JobsError([f"{path}: there is no job in it"])
    problems = [
        f"{path}: row {number}, {shown(column)}: {shown(value)} is neither text nor a finite number"
        for number, row in rows
        for column, value in row.items()
        if not (value is None or isinstance(value, str | bool | int) or is_number(value))
    ]
    if problems:
        raise JobsError(problems)
    return [_job(number, row) for number, row in rows]


def _job(number: int, row: dict) -> Job:
    filled = {column: value for column, value in row.items() if value not in ("", None)}
    name = str(filled.pop("name", "")).strip()
    return Job(name, number, filled)


def _names(jobs: list[Job]) -> Iterator[str]:
    """What is wrong with them."""
    seen, path_inside = set(), pack.load_file("models/safe_path.py").path_inside
    for job in jobs:
        if not NAME.fullmatch(job.name):
            allowed = "letters, digits and . + - _"
            yield f"row {job.row}: its name is {shown(job.name)}; every job needs one, of {allowed}"
        elif job.name.casefold() in seen:  # two folders that differ in case are one on many disks
            yield f"row {job.row}: the name {shown(job.name)} is taken by a row above"
        else:
            try:
                path_inside(Path(), job.name, f"row {job.row}, name")
            except ValueError as error:
                yield str(error)
        seen.add(job.name.casefold())


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(line or place, cells)"""
    if path.suffix.lower() == ".json":
        table = strict_json.read(path)
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise ValueError("expected a list of objects")
        yield from ((number, dict(row)) for number, row in enumerate(table, 1))
        return
    # Without newline="" a line break within a cell would end the row.
    reader = csv.DictReader(io.StringIO(strict_json.decode(path.read_bytes()), newline=""), strict=True)
    columns = [column.strip() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    if "name" not in columns:
        raise ValueError(f'there is no column "name"; there are: {", ".join(columns) or "none"}')
    twice = [column for column, count in Counter(columns).items() if column and count > 1]
    if twice:
        raise ValueError(f"the column {shown(twice[0])} is there twice")
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than there are columns")
        if any(row.values()):  # spreadsheets leave rows of empty cells at the end
            yield reader.line_num, row


def check(jobs: list[Job], prompt: dict, known: dict, folder: Path) -> list[Job]:
    """The jobs with their prompts. Raises JobsError with every problem of every row.

    known: the server's /object_info; folder: what files are named relative to, and lie in.
    """
    missing = sorted({node["class_type"] for node in prompt.values()} - set(known))
    problems = [f"the server has no node {name}: install its pack there, or update it" for name in missing]
    problems += _names(jobs)
    checked = [_fill(job, prompt, known, folder, problems) for job in jobs]
    if problems:
        raise JobsError(list(dict.fromkeys(problems)))  # a wrong column is wrong in every row, and told once
    return checked


def _fill(job: Job, workflow: dict, known: dict, folder: Path, problems: list[str]) -> Job:
    prompt, files, given = json.loads(json.dumps(workflow)), {}, set()
    for column, value in job.values.items():
        title, _, key = column.rpartition(".")
        try:
            node = client.find(prompt, title)
        except client.ClientError as error:
            problems.append(f"column {shown(column)}: {error}")
            continue
        inputs = prompt[node]["inputs"]
        if key not in inputs or isinstance(inputs[key], list):
            widgets = ", ".join(name for name, there in inputs.items() if not isinstance(there, list))
            problems.append(f"column {column!r}: {title} has no widget {key!r}; it has: {widgets or 'none'}")
            continue
        given.add((node, key))
        declared = _declared(known.get(prompt[node]["class_type"]), key)
        try:
            path, inputs[key] = _value(value, declared, folder)
        except ValueError as error:
            problems.append(f"row {job.row} ({job.name}), {column}: {error}")
            continue
        if path is not None:
            files[node, key] = path
    for node, key in [unchosen for unchosen in prompts.unchosen(prompt) if unchosen not in given]:
        problems.append(f"row {job.row} ({job.name}): {client.title(prompt, node)} has no {key}; give it a column")
    return Job(job.name, job.row, job.values, prompt, files)


def _declared(node: object, key: str) -> tuple[str | list, dict]:
    """Type and options of an input, as /object_info tells them; "*" where it does not tell."""
    sections = node.get("input") if isinstance(node, dict) else None
    for section in sections.values() if isinstance(sections, dict) else ():
        told = section.get(key) if isinstance(section, dict) else None
        if isinstance(told, list) and told and isinstance(told[0], str | list):
            options = told[1] if len(told) > 1 and isinstance(told[1], dict) else {}
            return told[0], options
    return "*", {}


def _value(value: object, declared: tuple[str | list, dict], folder: Path) -> tuple[Path | None, object]:
    """(file to be uploaded, value of the input). Raises ValueError in words for the table's author."""
    kind, options = declared
    listed = kind if isinstance(kind, list) else options.get("options")
    choices = listed if isinstance(listed, list) else []
    if any(options.get(upload) for upload in UPLOADS):
        return _file(value, choices, folder)
    if kind == "BOOLEAN":
        word = str(value).strip().lower()
        if word not in WORDS:
            raise ValueError(f"{shown(value)} is neither true nor false")
        return None, WORDS[word]
    if kind == "INT":
        return None, _within(_whole_number(value), options, INT_RANGE)
    if kind == "FLOAT":
        return None, _within(_number(value), options, (-math.inf, math.inf))
    if choices:
        return None, _choice(value, choices)
    if kind == "STRING":
        if isinstance(value, bool):
            raise ValueError(f"{value} is not text")
        return None, str(value)
    return None, value


def _file(value: object, choices: list, folder: Path) -> tuple[Path | None, object]:
    """The file of this name in ``folder``, or else the one that the server has."""
    try:
        path = pack.load_file("models/safe_path.py").path_inside(folder, value, "file")
    except ValueError as error:
        if value in choices:
            return None, value
        raise ValueError(f"{error} Files lie in {folder}/ or below; --files-from names another folder.") from None
    if path.is_file():
        with contextlib.suppress(OSError), path.open("rb"):
            return path.resolve(), path.name
        raise ValueError(f"{path} cannot be read")
    if value in choices:
        return None, value
    raise ValueError(f"there is no file {path}, and the server has none of that name")


def _choice(value: object, choices: list) -> object:
    """The choice that ``value`` is: the same, or of the same text as the table's."""
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return choice
    if isinstance(value, str):
        for choice in choices:
            if str(choice) == value:
                return choice
    raise ValueError(f"{shown(value)} is none of: {one_line(', '.join(map(str, choices)))}")


def _whole_number(value: object) -> int:
    text = value.strip() if isinstance(value, str) else ""
    try:
        if WHOLE_NUMBER.fullmatch(text):
            return int(text)
        if is_number(value) and value == int(value):
            return int(value)
    except (ValueError, OverflowError):  # of thousands of digits
        pass
    raise ValueError(f"{shown(value)} is not a whole number")


def _number(value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{shown(value)} is not a number")
    return number


def _within(number: float, options: dict, limits: tuple[float, float]) -> float:
    """``number``, if it lies within what the server declares, and else within ``limits``."""
    low, high = (
        options[name] if is_number(options.get(name)) else limit for name, limit in zip(("min", "max"), limits)
    )
    if not low <= number <= high:
        raise ValueError(f"{shown(number)} is not within {low} and {high}")
    return number
