import pytest
from animate_anywhere.models import latents, windows
from animate_anywhere.models.windows import HANDOVERS, NONE, OVERLAP


@pytest.mark.parametrize("handover", HANDOVERS)
@pytest.mark.parametrize("length", [5, 13, 29])
def test_every_length_is_made_exactly_each_frame_once(handover, length):
    for total in [*range(1, 101), 200, 1000]:
        plan = windows.plan(total, length, handover, overlap=1 if length == 5 else 5, blend=3)
        assert [frame for window in plan.windows for frame in plan.finished(window)] == list(range(total))


@pytest.mark.parametrize("handover", HANDOVERS)
def test_windows_have_valid_lengths_and_none_is_idle(handover):
    for total in range(1, 101):
        plan = windows.plan(total, 29, handover, blend=2)
        for window in plan.windows:
            assert latents.valid_length(window.length) == window.length <= 29
            assert window.start + window.shared < total  # it brings something new
            frames = plan.finished(window)
            assert len(frames) and frames.stop <= window.start + window.length


def test_neighbours_share_what_the_handover_says():
    for handover, shared in (("last frame", 1), (OVERLAP, 9), (NONE, 0)):
        plan = windows.plan(200, 29, handover, overlap=10)  # 10: rounded down to whole latent frames
        for before, after in zip(plan.windows, plan.windows[1:]):
            assert before.start + before.length - after.start == shared == after.shared


def test_200_frames_in_windows_of_29():
    plan = windows.plan(200, 29)
    assert [window.length for window in plan.windows] == [29] * 5 + [21] * 3
    assert plan.windows[-1] == windows.Window(7, 180, 21, 1)  # its last frame is number 200, the 201st: cut off
    assert str(plan) == "200 frames in 8 windows of 29 and 21 frames; each begins with the last frame of the one before"


def test_a_short_rest_shortens_all_windows_instead_of_leaving_a_stump():
    assert [window.length for window in windows.plan(30, 29).windows] == [21, 13]


def test_frames_that_are_blended_wait_for_the_next_window():
    plan = windows.plan(40, 29, OVERLAP, overlap=5, blend=3)
    first, second = plan.windows
    assert plan.finished(first) == range(0, first.length - 3)
    assert plan.finished(second) == range(second.start + 2, 40)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ((0, 29), "length: a shot has at least one frame"),
        ((10, 4), "window: 4 frames are too few; .* at least 5"),
        ((10, 29, "glue"), "handover: 'glue' is not known. Choose one of last frame, overlap, none"),
        ((40, 13, OVERLAP, 13), "overlap: windows of 13 frames that share 13 bring nothing new"),
        ((40, 13, OVERLAP, 0), "overlap and blend: 0 and 0 frames are not possible"),
    ],
)
def test_what_cannot_be_planned(inputs, message):
    with pytest.raises(ValueError, match=message):
        windows.plan(*inputs)
