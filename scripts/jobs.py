"""A table of jobs for one workflow: read, held against the workflow and the server, all problems told at once.

CSV: a column "name" and one a widget, "NODE.INPUT", its node by title or id; an empty cell leaves the workflow's value.
JSON: a list of objects with the same keys. Files are named relative to the table.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import client

UPLOADS = ("image_upload", "video_upload", "audio_upload")  # of an input in /object_info: it takes a file from outside
NAME = re.compile(r"[\w .+-]*\w[\w .+-]*")  # becomes a folder
# What the server says of an input -> what a cell must be, in words and as a reader of its text.
KINDS = {"INT": ("a whole number", int), "FLOAT": ("a number", float)}
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
        return {place: (f"{digest(path)}-{path.name}", path.read_bytes()) for place, path in self.files.items()}


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
        prompt = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise JobsError([f"{path}: no workflow ({error})"]) from None
    if isinstance(prompt, dict) and isinstance(prompt.get("nodes"), list):
        other = path.parent / "api" / path.name
        where = f"It is there: {other}" if other.is_file() else "In ComfyUI's menu: Workflow, Export (API)"
        raise JobsError([f"{path} is a workflow in the form that the page shows; the API form is needed. {where}"])
    if not isinstance(prompt, dict) or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        for node in prompt.values()
    ):
        raise JobsError([f"{path}: expected nodes with class_type and inputs; this is no workflow in the API form"])
    return prompt


def read_table(path: Path) -> list[Job]:
    """The table's jobs, their names not yet looked at. Raises JobsError when it is none."""
    try:
        rows = list(_rows(path))
    except (OSError, ValueError, csv.Error) as error:
        raise JobsError([f"{path}: no table of jobs ({error})"]) from None
    if not rows:
        raise JobsError([f"{path}: there is no job in it"])
    return [
        Job(
            str(row.pop("name", "") or "").strip(),
            number,
            {key: value for key, value in row.items() if value not in ("", None)},
        )
        for number, row in rows
    ]


def _names(jobs: list[Job]) -> Iterator[str]:
    """What is wrong with them."""
    seen = set()
    for job in jobs:
        if not NAME.fullmatch(job.name):
            yield f"row {job.row}: its name is {job.name!r}; every job needs one, of letters, digits and . + - _"
        elif job.name in seen:
            yield f"row {job.row}: the name {job.name!r} is taken by a row above"
        seen.add(job.name)


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """(line or place, cells)"""
    text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a mark in front
    if path.suffix.lower() == ".json":
        table = json.loads(text)
        if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise ValueError("expected a list of objects")
        yield from ((number, dict(row)) for number, row in enumerate(table, 1))
        return
    reader = csv.DictReader(text.splitlines())
    if "name" not in (reader.fieldnames or ()):
        raise ValueError(f'there is no column "name"; there are: {", ".join(reader.fieldnames or ["none"])}')
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num} has more cells than there are columns")
        yield reader.line_num, row


def check(jobs: list[Job], prompt: dict, known: dict, folder: Path) -> list[Job]:
    """The jobs with their prompts. Raises JobsError with every problem of every row.

    known: the server's /object_info; folder: what files are named relative to.
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
            problems.append(f"column {column!r}: {error}")
            continue
        inputs = prompt[node]["inputs"]
        if key not in inputs or isinstance(inputs[key], list):
            widgets = ", ".join(name for name, there in inputs.items() if not isinstance(there, list))
            problems.append(f"column {column!r}: {title} has no widget {key!r}; it has: {widgets or 'none'}")
            continue
        given.add((node, key))
        try:
            path, inputs[key] = _value(value, _declared(known.get(prompt[node]["class_type"], {}), key), folder)
        except ValueError as error:
            problems.append(f"row {job.row} ({job.name}), {column}: {error}")
            continue
        if path is not None:
            files[node, key] = path
    for node, key in [unchosen for unchosen in client.unchosen(prompt) if unchosen not in given]:
        problems.append(f"row {job.row} ({job.name}): {client.title(prompt, node)} has no {key}; give it a column")
    return Job(job.name, job.row, job.values, prompt, files)


def _declared(node: dict, key: str) -> tuple[str | list, dict]:
    """Type and options of an input, as /object_info tells them."""
    for section in node.get("input", {}).values():
        if key in section:
            kind, *options = section[key]
            return kind, options[0] if options else {}
    return "*", {}


def _value(value: object, declared: tuple[str | list, dict], folder: Path) -> tuple[Path | None, object]:
    """(file to be uploaded, value of the input). Raises ValueError in words for the table's author."""
    kind, options = declared
    choices = kind if isinstance(kind, list) else options.get("options", [])
    if any(options.get(upload) for upload in UPLOADS):
        path = folder / str(value)
        if path.is_file():
            return path.resolve(), path.name
        if value not in choices:
            raise ValueError(f"there is no file {path}, and the server has none of that name")
        return None, value
    if kind == "BOOLEAN":
        word = str(value).strip().lower()
        if word not in WORDS:
            raise ValueError(f"{value!r} is neither true nor false")
        return None, WORDS[word]
    if kind in KINDS:
        return None, _number(value, kind, options)
    if choices and value not in choices:
        raise ValueError(f"{value!r} is none of: {', '.join(map(str, choices))}")
    return None, value


def _number(value: object, kind: str, options: dict) -> float:
    words, read_as = KINDS[kind]
    try:
        number = read_as(value.strip() if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not {words}") from None
    low, high = options.get("min", float("-inf")), options.get("max", float("inf"))
    if not low <= number <= high:
        raise ValueError(f"{number} is not within {low} and {high}")
    return number
