"""What a render left behind was damaged: it is said in a sentence, and done again rather than copied."""

import json
import os
import shutil

import av
import folder_paths
import pytest
import render_toys
import torch
from animate_anywhere.nodes import film, render_state, unfinished

FRAMES, WINDOWS, DONE = 13, 3, 2  # in windows of 5 that share one
pytestmark = pytest.mark.usefixtures("no_gradients")


class Stopped(Exception):
    pass


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]


@pytest.fixture(scope="module")
def toy():
    with torch.inference_mode():
        return render_toys.make(FRAMES)


@pytest.fixture(scope="module")
def left(toy, tmp_path_factory):
    """The output folder of a render that stopped after two of three windows, and the packets of the whole film."""
    whole, stopped = (tmp_path_factory.mktemp(name) for name in ("whole", "stopped"))
    write, calls = film.write, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) > DONE:
            raise Stopped
        write(*arguments)

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(folder_paths, "get_output_directory", lambda: str(whole))
        render_toys.render(toy, filename="shot", steps=1)
        patch.setattr(folder_paths, "get_output_directory", lambda: str(stopped))
        patch.setattr(film, "write", fail)
        with pytest.raises(Stopped):
            render_toys.render(toy, filename="shot", steps=1)
    return stopped, packets_of(whole / "shot.mp4")


@pytest.fixture
def output(left, tmp_path, monkeypatch):
    """A copy of the stopped render to be damaged."""
    shutil.copytree(left[0], tmp_path / "output")
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    return tmp_path / "output"


def go_on(toy, output, left):
    """The report of the render that is queued again; its film must be the undisturbed one."""
    report = render_toys.render(toy, filename="shot", steps=1).result[1]
    assert packets_of(output / "shot.mp4") == left[1]
    return report.splitlines()[0]


def test_what_is_whole_goes_on(toy, output, left):
    assert "Went on after window 2 of 3." in go_on(toy, output, left)


def flip(path, place):
    """Right size, wrong bytes."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["0000.mp4", "0001.mp4", "0001.safetensors"])
def test_a_damaged_part_is_never_used(toy, output, left, name, place):
    flip(output / "shot.parts" / name, place)
    report = go_on(toy, output, left)
    assert f"Started afresh: {name} of the render before is damaged." in report


@pytest.mark.parametrize("name", ["0000.mp4", "0001.safetensors"])
def test_a_part_that_was_cut_off_is_never_used(toy, output, left, name):
    path = output / "shot.parts" / name
    os.truncate(path, path.stat().st_size // 2)
    assert f"Started afresh: {name} of the render before is damaged." in go_on(toy, output, left)


def test_a_part_that_is_damaged_while_the_film_is_made_is_not_copied(toy, output, left, monkeypatch):
    write = film.write

    def damage(path, *arguments):
        write(path, *arguments)
        flip(output / "shot.parts" / "0000.mp4", 0.5)

    with monkeypatch.context() as patch:
        patch.setattr(film, "write", damage)
        with pytest.raises(ValueError, match=r"^filename: window 1 in shot\.parts was damaged .* Queue it again"):
            render_toys.render(toy, filename="shot", steps=1)
    assert "Started afresh: 0000.mp4 of the render before is damaged." in go_on(toy, output, left)


def changed(**fields):
    return lambda state: {**state, **fields}


def in_row(**fields):
    return lambda state: {**state, "rows": [state["rows"][0], state["rows"][1] | fields]}


def in_plan(**fields):
    return lambda state: {**state, "plan": state["plan"] | fields}


def in_window(place, value):
    def change(state):
        windows = [list(window) for window in state["plan"]["windows"]]
        windows[1][place] = value
        return {**state, "plan": state["plan"] | {"windows": windows}}

    return change


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


def row_without_figure(state):
    return {**state, "rows": [{"index": 0}, state["rows"][1]]}


DEEP = "[" * 100_000 + "]" * 100_000
DAMAGED = [
    lambda _: "",
    lambda _: "null",
    lambda _: "[]",
    lambda _: '{"version": 2',
    lambda _: DEEP,
    lambda _: '{"version": 2, "rows": ' + DEEP + "}",
    lambda _: b"\xff\xfe\x00",
    changed(version=3),
    changed(version=True),
    changed(more=1),
    changed(inputs=[]),
    changed(inputs={"seed": 5}),
    changed(plan=None),
    changed(rows={}),
    changed(rows=[1, 2]),
    changed(sizes="12"),
    changed(sizes=[1]),
    changed(sizes=[-1, 5]),
    changed(sizes=[True, 5]),
    changed(sizes=[1.5, 5]),
    changed(checksums=None),
    changed(checksums=["", ""]),
    changed(checksums=[7, 8]),
    changed(handover=None),
    changed(handover="x"),
    changed(film=-1),
    changed(film=True),
    changed(film=None),
    changed(next_film="1"),
    changed(is_whole=1),
    changed(is_whole=True),
    changed(is_whole="no"),
    *[without(name) for name in ("inputs", "plan", "rows", "sizes", "checksums", "film", "is_whole", "version")],
    in_row(index=0),
    in_row(length=13),
    in_row(seconds=None),
    in_row(seconds="1"),
    in_row(memory=True),
    in_row(drift=[1]),
    in_row(seam=float("nan")),
    in_row(flow=float("inf")),
    in_row(flow=10**400),
    in_row(more=1),
    row_without_figure,
    in_plan(total="13"),
    in_plan(total=10**30),
    in_plan(handover="magic"),
    in_plan(handover=["last frame"]),
    in_plan(shared=-1),
    in_plan(shared=2),
    in_plan(blend=9),
    in_plan(blend=True),
    in_plan(windows=[]),
    in_plan(windows=[[0, 0, 5]]),
    in_plan(windows={}),
    *[in_window(place, value) for place in range(4) for value in (-1, 7, 1.5, None, True, 10**30)],
]


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_a_record_with_a_damaged_field_is_not_believed(output, number):
    path = output / "shot.parts" / unfinished.STATE
    state = DAMAGED[number](json.loads(path.read_text()))
    text = json.dumps(state) if isinstance(state, dict) else state
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    place = unfinished.Unfinished(output, "shot", film.FORMATS[film.H264])
    assert not place.is_whole()
    with pytest.raises(ValueError, match="it is not|its field|do not belong|another version"):
        render_state.read_state(path)


@pytest.mark.parametrize(
    "damage", [lambda _: DEEP, changed(rows=[1, 2]), changed(handover=""), in_plan(total=12), in_row(seam=[])]
)
def test_with_a_damaged_record_the_film_is_made_again(toy, output, left, damage):
    path = output / "shot.parts" / unfinished.STATE
    state = damage(json.loads(path.read_text()))
    path.write_text(json.dumps(state) if isinstance(state, dict) else state)
    report = go_on(toy, output, left)
    assert "Started afresh: " in report and "state.json" in report
    assert (output / "shot (1).mp4").is_file()


def test_a_record_of_an_older_version_starts_afresh(toy, output, left):
    path = output / "shot.parts" / unfinished.STATE
    state = json.loads(path.read_text())
    old = {name: state[name] for name in ("inputs", "plan", "rows", "sizes", "film", "is_whole")} | {"version": 1}
    path.write_text(json.dumps(old))
    assert "an older version of the pack wrote it" in go_on(toy, output, left)


def test_a_whole_film_of_an_older_version_is_given_back(toy, output, left):
    go_on(toy, output, left)
    path = output / "shot.parts" / unfinished.STATE
    state = json.loads(path.read_text())
    old = {name: state[name] for name in ("inputs", "plan", "rows", "sizes", "film", "is_whole")} | {"version": 1}
    path.write_text(json.dumps(old))
    assert "The film was there already" in go_on(toy, output, left)
