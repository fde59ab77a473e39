"""Render Shot in processes that are killed at one file operation after the other: no window that was done is lost."""

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest

HERE = Path(__file__).parent


def killed(folder, task, *numbers):
    """What render_toys.py prints of a ``task`` in ``folder``."""
    command = [sys.executable, str(HERE / "render_toys.py"), task, str(folder), *map(str, numbers)]
    printed = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, timeout=500, check=True).stdout
    return json.loads(printed.splitlines()[-1])


def packets_of(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.dts is not None]


@pytest.fixture(scope="module")
def each(tmp_path_factory):
    folder = tmp_path_factory.mktemp("each")
    return folder, killed(folder, "each", 9)


def test_a_render_that_is_killed_at_any_file_operation_goes_on_with_the_windows_done(each):
    _, found = each
    assert {done for done, _ in found.values()} == {0, 1, 2}
    for done, report in found.values():
        if "was there already" not in report:
            assert ("Went on after window" in report) == (done > 0)
            assert f"Went on after window {done} of 2." in report or not done
        assert "older film" not in report and "What there was" not in report


def test_a_render_that_was_killed_at_any_file_operation_gives_the_same_film(each):
    folder, found = each
    undisturbed = (folder / max(found, key=int) / "shot.mp4").read_bytes()  # the last one was not killed any more
    for operation in found:
        assert (folder / operation / "shot.mp4").read_bytes() == undisturbed, operation
        names = {path.name for path in (folder / operation).rglob("*") if path.is_file()}
        assert names == {"shot.mp4", "state.json", "lock"}, operation


def test_a_render_that_is_killed_twenty_times_gives_the_same_film(tmp_path):
    done = killed(tmp_path, "often", 37, 20)
    assert len(done) == 20 and done == sorted(done) and done[-1] > 5
    one, other = (tmp_path / name / "shot.mp4" for name in ("undisturbed", "disturbed"))
    assert packets_of(one) == packets_of(other) and one.read_bytes() == other.read_bytes()


def test_setting_a_film_aside_that_is_killed_at_any_file_operation_keeps_it_together(tmp_path):
    found = killed(tmp_path, "aside", 9)
    assert {name for name, _ in found.values()} == {"shot.mp4", "shot (1).mp4"}
    assert {problem for _, problem in found.values()} == {""}
