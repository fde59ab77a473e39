"""Tables of jobs from outside: read field by field, each problem one line with the file and the row."""

import json
from pathlib import Path

import jobs
import pytest
import toy_comfyui

KNOWN = {
    "LoadImage": {"input": {"required": {"image": [["there.png", "../there.png"], {"image_upload": True}]}}},
    "SaveImage": {
        "input": {
            "required": {
                "width": ["INT", {"min": 1, "max": 512}],
                "seed": ["INT", {}],
                "scale": ["FLOAT", {"min": 0.0, "max": "much"}],
                "on": ["BOOLEAN", {}],
                "text": ["STRING", {}],
                "batch": ["COMBO", {"options": [1, 2, "auto"]}],
            }
        }
    },
}
INPUTS = {"width": 32, "seed": 0, "scale": 1.0, "on": True, "text": "", "batch": 1}
WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "there.png"}, "_meta": {"title": "Picture"}},
    "2": {"class_type": "SaveImage", "inputs": INPUTS, "_meta": {"title": "Save"}},
}


def taken(value, column: str, folder: Path = Path()):
    """What the server would get for the cell."""
    (job,) = jobs.check([jobs.Job("a", 3, {f"Save.{column}": value})], WORKFLOW, KNOWN, folder)
    return job.prompt["2"]["inputs"][column]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("width", "24", 24), ("width", " 24 ", 24), ("width", 24.0, 24), ("width", "+24", 24),
        ("seed", 2**64 - 1, 2**64 - 1), ("seed", "-1", -1),
        ("scale", "0.5", 0.5), ("scale", "1e-3", 0.001), ("scale", 2, 2.0),
        ("on", "yes", True), ("on", False, False), ("on", 0, False),
        ("text", "two\nlines", "two\nlines"), ("text", 7, "7"), ("text", "日本", "日本"),
        ("batch", "2", 2), ("batch", 2, 2), ("batch", "auto", "auto"),
    ],
)  # fmt: skip
def test_a_cell_is_read_as_the_server_declares_its_input(column, value, expected):
    found = taken(value, column)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("width", "24.9", "not a whole number"), ("width", 24.9, "not a whole number"),
        ("width", True, "not a whole number"), ("width", "1_0", "not a whole number"),
        ("width", "9" * 5000, "not a whole number"), ("width", 10**400, "not a whole number"),
        ("width", "inf", "not a whole number"), ("width", 513, "not within"), ("seed", 2**64, "not within"),
        ("scale", "nan", "not a number"), ("scale", "1e999", "not a number"), ("scale", True, "not a number"),
        ("scale", 10**400, "not a number"), ("scale", "1_0", "not a number"), ("scale", -1, "not within"),
        ("on", "maybe", "neither true nor false"), ("on", 2, "neither true nor false"),
        ("text", True, "not text"), ("batch", True, "none of"), ("batch", "3", "none of"), ("batch", 1.0, "none of"),
    ],
)  # fmt: skip
def test_a_cell_of_another_kind_is_refused_with_its_row(column, value, message):
    with pytest.raises(jobs.JobsError, match=rf"^row 3 \(a\), Save\.{column}: .*{message}") as error:
        taken(value, column)
    assert len(str(error.value)) < 300


def table(folder: Path, content: bytes | str, name: str = "jobs.csv") -> list[jobs.Job]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return jobs.read_table(folder / name)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_table_is_utf_8_with_line_breaks_in_its_cells(tmp_path, mark, ending):
    text = ending.join(["name,Save.text", 'a,"ä', 'b"', "c,日本", ",", ""])
    first, second = table(tmp_path, mark + text.encode())
    assert first.values == {"Save.text": f"ä{ending}b"} and second.values == {"Save.text": "日本"}
    assert (first.name, first.row, second.row) == ("a", 3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", 'no column "name"'),
        ("name,a\n".encode("utf-16"), "is not UTF-8"),
        (b"name,S.x\na,\xff\n", "is not UTF-8"),
        (b"name,S.x,S.x\na,1,2\n", "'S.x' is there twice"),
        (b"name,S.x\na,1,2\n", "line 2 has more cells"),
        (b'name,S.x\na,"never closed\n', "unexpected end of data"),
        (b"name,S.x\na," + b"x" * 200_000 + b"\n", "field larger than"),
        (b"name,S.x\n,,\n,\n", "more cells"),
        (b"name,S.x\n,\n", "there is no job"),
    ],
)
def test_a_csv_table_that_is_none(tmp_path, content, message):
    with pytest.raises(jobs.JobsError, match=rf"jobs\.csv: .*{message}"):
        table(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("{}", "expected a list of objects"),
        ("[7]", "expected a list of objects"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"name": "a", "S.x": NaN}]', "NaN is not a finite number"),
        ('[{"name": "a", "S.x": 1e999}]', "1e999.* is not a finite number"),
        ('[{"name": "a", "S.x": ' + "9" * 5000 + "}]", "integer string conversion"),
        ('[{"name": "a", "name": "b"}]', "the key 'name' twice"),
        ('[{"name": "a"}, {"name": "b", "S.x": [1]}]', r"row 2, 'S.x': \[1\] is neither text nor"),
        ('[{"name": {"a": 1}}]', "row 1, 'name': {'a': 1} is neither text nor"),
    ],
)
def test_a_json_table_that_is_none(tmp_path, content, message):
    with pytest.raises(jobs.JobsError, match=rf"jobs\.json: .*{message}") as error:
        table(tmp_path, content, "jobs.json")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "con", "state.json", "lock", "a.part", "ends in dot.", "x" * 201, "a\nb", "\ud800"]
)
def test_a_name_that_is_no_folder_is_told_with_its_row(name):
    with pytest.raises(jobs.JobsError, match="^row 3"):
        jobs.check([jobs.Job(name, 3, {})], WORKFLOW, KNOWN, Path())


def test_two_names_that_differ_in_case_are_one_folder():
    with pytest.raises(jobs.JobsError, match="^row 4: the name 'A' is taken"):
        jobs.check([jobs.Job("a", 3, {}), jobs.Job("A", 4, {})], WORKFLOW, KNOWN, Path())


@pytest.mark.parametrize("value", [7, True, "", "gone.png", "../secret.png", "a\0b", "x" * 5000])
def test_a_file_that_is_none_is_told(tmp_path, value):
    with pytest.raises(jobs.JobsError, match=r"^row 3 \(a\), Picture\.image: "):
        jobs.check([jobs.Job("a", 3, {"Picture.image": value})], WORKFLOW, KNOWN, tmp_path)


def test_a_file_of_the_server_may_have_any_name(tmp_path):
    (job,) = jobs.check([jobs.Job("a", 3, {"Picture.image": "../there.png"})], WORKFLOW, KNOWN, tmp_path)
    assert job.files == {} and job.prompt["1"]["inputs"]["image"] == "../there.png"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"7", b"[" * 100_000, b"\xff", b'{"1": 7}', b'{"1": {"class_type": 7, "inputs": {}}}',
        b'{"1": {"class_type": [], "inputs": {}}}', b'{"1": {"class_type": "A", "inputs": []}}',
        b'{"1": {"class_type": "A", "inputs": {"x": NaN}}}',
    ],
)  # fmt: skip
def test_a_workflow_that_is_none(tmp_path, content):
    (tmp_path / "w.json").write_bytes(content)
    with pytest.raises(jobs.JobsError, match=r"w\.json: ") as error:
        jobs.read_workflow(tmp_path / "w.json")
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("meta", [7, [], {"title": 7}, {"title": {}}, None])
def test_a_title_that_is_none_is_the_type(tmp_path, meta):
    workflow = {"1": {**toy_comfyui.WORKFLOW["1"], "_meta": meta}}
    (tmp_path / "w.json").write_text(json.dumps(workflow))
    prompt = jobs.read_workflow(tmp_path / "w.json")
    with pytest.raises(jobs.JobsError, match="there are: LoadImage"):
        jobs.check([jobs.Job("a", 3, {"Nobody.x": 1})], prompt, KNOWN, tmp_path)
