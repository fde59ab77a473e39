"""Masks: the paper's blocks against a reading of its formula pixel by pixel, edges that move and soften, the nodes."""

import math

import folder_paths
import numpy as np
import pytest
import torch
from animate_anywhere.nodes import mask as nodes
from animate_anywhere.vision import mask as masks


def blocks_of_the_paper(mask, block_height, block_width):
    """Animate Anyone 2, eq. 2, pixel by pixel: M_f(i, j) = max of M_c over the block P_c^(k) that holds (i, j)."""
    out = torch.zeros_like(mask)
    for t in range(mask.shape[0]):
        pixels = [(i, j) for i in range(mask.shape[1]) for j in range(mask.shape[2]) if mask[t, i, j] > 0.5]
        if not pixels:
            continue
        top, left = min(i for i, _ in pixels), min(j for _, j in pixels)
        bottom, right = max(i for i, _ in pixels), max(j for _, j in pixels)
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                block = ((i - top) // block_height, (j - left) // block_width)
                out[t, i, j] = any(((y - top) // block_height, (x - left) // block_width) == block for y, x in pixels)
    return out


def random_masks(height, width, density):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return (torch.rand(4, height, width, generator=generator) < density).float()


@pytest.mark.parametrize("size", [(23, 31), (40, 20), (1, 17), (30, 30)])
@pytest.mark.parametrize("block", [(10, 10), (3, 7), (1, 1), (7, 64)])
@pytest.mark.parametrize("density", [0.004, 0.03])
def test_blocks_equal_the_papers_formula_on_random_masks(size, block, density):
    mask = random_masks(*size, density)
    assert torch.equal(masks.shape_agnostic(mask, *block), blocks_of_the_paper(mask, *block))


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 0), (0, 25, 0, 33), (7, 8, 9, 10), (0, 12, 0, 5), (14, 25, 20, 33), (0, 25, 32, 33)],
    ids=["empty", "full", "one pixel", "top left corner", "bottom right corner", "last column"],
)
def test_blocks_equal_the_papers_formula_on_boxes_up_to_the_border(box):
    mask = torch.zeros(1, 25, 33)
    mask[:, box[0] : box[1], box[2] : box[3]] = 1
    assert torch.equal(masks.shape_agnostic(mask), blocks_of_the_paper(mask, 10, 10))


def test_blocks_cover_the_character_and_stay_in_its_box():
    mask = torch.zeros(1, 64, 64)
    mask[0, 5:48, 11] = mask[0, 20, 11:50] = 1  # a cross, so that most of the box is not character
    blocks = masks.shape_agnostic(mask)
    assert (blocks >= mask).all()
    assert blocks[:, 5:48, 11:50].sum() == blocks.sum() > mask.sum()


def jittering(frames=8):
    """Somebody who stands still with a hand that trembles: the box changes by a pixel from frame to frame."""
    mask = torch.zeros(frames, 80, 70)
    mask[:, 10:70, 20:23] = mask[:, 30:34, 20:50] = mask[:, 66:70, 20:40] = 1
    mask[1::2, 9, 20] = mask[1::2, 30, 19] = 1
    return mask


def test_a_steady_grid_stays_where_it_is_when_the_box_moves_by_a_pixel():
    mask = jittering()
    blocks = masks.shape_agnostic(mask, steady=True)
    assert torch.equal(blocks[0], masks.shape_agnostic(mask)[0])  # the first frame is the paper's
    assert (blocks >= mask).all()
    inside = (slice(None), slice(10, 70), slice(20, 50))  # the box without its trembling pixel
    assert blocks.diff(dim=0)[inside].abs().sum() == 0
    assert masks.shape_agnostic(mask).diff(dim=0)[inside].abs().sum() > 100  # as the paper has it, the blocks jump


def test_a_steady_grid_follows_who_walks_and_never_leaves_the_box():
    mask = torch.zeros(6, 50, 120)
    for t in range(6):
        mask[t, 10 + t : 40, 7 * t : 7 * t + 13] = torch.eye(30 - t, 13)
    blocks = masks.shape_agnostic(mask, 10, 5, steady=True)
    for t in range(6):
        box = masks.bounding_box(mask[t].numpy() > 0)
        assert blocks[t].sum() == blocks[t][box].sum()
        lines = blocks[t].diff(dim=1).abs().sum(0).nonzero().ravel() + 1
        assert set((lines % 5).tolist()) <= {0, box[1].start % 5, box[1].stop % 5}


def test_random_blocks_depend_on_the_seed_alone_and_span_the_papers_range():
    mask = torch.zeros(3, 240, 120)
    mask[1, 20:220, 30:90] = 1  # 200×60 px
    sides = np.array([masks.random_block(np.random.default_rng(seed), mask) for seed in range(300)])
    assert masks.random_block(np.random.default_rng(7), mask) == tuple(sides[7])
    assert sides.min(0).tolist() == [5, 5]
    assert sides[:, 0].max() in range(95, 101) and sides[:, 1].max() in range(28, 31)  # two blocks a side
    # Even in the logarithm: half of the draws are coarser than the geometric mean of the two ends.
    assert np.median(sides[:, 0]) == pytest.approx(np.sqrt(5 * 100), rel=0.2)


def test_random_blocks_of_an_empty_or_tiny_mask_are_one_pixel_at_least():
    empty, dot = torch.zeros(2, 9, 9), torch.zeros(2, 9, 9)
    dot[1, 4, 4] = 1
    for mask in (empty, dot):
        sides = masks.random_block(np.random.default_rng(0), mask)
        assert min(sides) == 1
        assert torch.equal(masks.shape_agnostic(mask, *sides), mask)


def test_soft_edges_count_from_one_half():
    mask = torch.zeros(1, 30, 30)
    mask[0, 10:20, 10:20] = 0.4
    assert masks.shape_agnostic(mask).sum() == 0
    mask[0, 12, 12] = 0.6
    assert masks.shape_agnostic(mask).sum() == 1


@pytest.mark.parametrize(("height", "width", "named"), [(0, 10, "block_height"), (10, -3, "block_width")])
def test_a_block_below_one_pixel_is_named(height, width, named):
    with pytest.raises(ValueError, match=f"{named} is"):
        masks.shape_agnostic(torch.ones(1, 8, 8), height, width)


@pytest.mark.parametrize("pixels", [1, 4, 9])
def test_growing_one_pixel_gives_a_disc(pixels):
    mask = torch.zeros(1, 31, 31)
    mask[0, 15, 15] = 1
    y, x = torch.meshgrid(torch.arange(31), torch.arange(31), indexing="ij")
    disc = ((y - 15) ** 2 + (x - 15) ** 2 <= pixels**2).float()
    assert torch.equal(masks.grow(mask, pixels)[0], disc)


def test_shrinking_draws_the_outline_in_but_not_from_the_border():
    mask = torch.zeros(1, 20, 20)
    mask[0, 8:, 4:16] = 1
    expected = torch.zeros(1, 20, 20)
    expected[0, 10:, 6:14] = 1
    assert torch.equal(masks.grow(mask, -2), expected)


def test_an_empty_mask_stays_empty():
    mask = torch.zeros(2, 20, 20)
    for changed in (masks.shape_agnostic(mask), masks.grow(mask, 5), masks.grow(mask, -5), masks.feather(mask, 5)):
        assert torch.equal(changed, mask)


def test_a_trimap_is_unknown_along_the_outline_alone_and_may_take_the_masks_place():
    mask = torch.zeros(2, 40, 40)
    mask[1, 10:30, 10:30] = 0.8
    sure, maybe = masks.grow(mask, -3), masks.grow(mask, 3)
    trimap = masks.trimap(mask, 3, into=mask)
    assert trimap.data_ptr() == mask.data_ptr()
    assert torch.equal(trimap, (sure + maybe) / 2) and trimap.unique().tolist() == [0, 0.5, 1]


def test_zero_pixels_leave_a_soft_mask_as_it_is():
    mask = torch.rand(2, 9, 9)
    assert torch.equal(masks.grow(mask, 0), mask)
    assert torch.equal(masks.feather(mask, 0), mask)


@pytest.mark.parametrize("pixels", [1, 4, 12])
def test_feather_ramps_over_its_width_and_keeps_the_outline(pixels):
    mask = torch.zeros(1, 8, 80)
    mask[..., 40:] = 1
    row = masks.feather(mask, pixels)[0, 4]
    assert (row.diff() >= -1e-6).all()
    assert row[39] < 0.5 < row[40]
    # Nothing changes beyond `pixels` on either side, and the ramp does fill that width.
    assert torch.equal(row[: 40 - pixels], torch.zeros(40 - pixels))
    assert torch.allclose(row[40 + pixels :], torch.ones(40 - pixels), atol=1e-6)  # the kernel's sum, in float32
    assert 0 < row[40 - pixels] < row[39 + pixels] < 1
    assert math.isclose(row[39] + row[40], 1, abs_tol=1e-5)


def test_feather_leaves_the_border_of_the_picture_whole():
    assert torch.allclose(masks.feather(torch.ones(1, 16, 16), 4), torch.ones(1, 16, 16), atol=1e-6)


def test_a_lapse_between_two_good_masks_is_closed_and_a_longer_gap_is_not():
    seen = torch.tensor([1, 1, 0, 0, 0.8, 0, 0, 0, 1, 0]).reshape(10, 1, 1).repeat(1, 3, 4)
    closed, hard = seen.numpy().copy(), seen.numpy() > 0.5
    masks.close_lapses(closed, 2)
    assert np.allclose(closed[:, 0, 0], [1, 1, 0.8, 0.8, 0.8, 0, 0, 0, 1, 0])
    masks.close_lapses(hard, 2)
    assert np.array_equal(hard, closed > 0.5)


def test_negative_feather_is_named():
    with pytest.raises(ValueError, match="feather is -1"):
        masks.feather(torch.ones(1, 8, 8), -1)


def test_one_mask_serves_every_frame():
    frames = torch.rand(5, 8, 6, 3)
    for mask in (torch.rand(8, 6), torch.rand(1, 8, 6)):
        fitted = masks.fit_mask(mask, frames)
        assert fitted.shape == (5, 8, 6)
        assert torch.equal(fitted[4], mask.reshape(8, 6))


@pytest.mark.parametrize(
    ("mask", "frames", "message"),
    [
        ((3, 8, 6), (0, 8, 6, 3), "images: the video is empty"),
        ((3, 8, 6), (5, 8, 6, 3), "mask: it has 3 frames, but images have 5"),
        ((5, 8, 7), (5, 8, 6, 3), "mask: its size is 7×8 pixels, but images are 6×8"),
        ((0, 8, 6), (5, 8, 6, 3), "mask: it is empty"),
        ((5, 8, 6, 3), (5, 8, 6, 3), "mask: expected"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(mask, frames, message):
    with pytest.raises(ValueError, match=message):
        masks.fit_mask(torch.rand(mask), torch.rand(frames))


@pytest.mark.parametrize(
    "change", [lambda mask, **k: masks.shape_agnostic(mask, **k), lambda mask, **k: masks.grow(mask, 2, **k)]
)
def test_progress_counts_frames_and_can_cancel(change):
    done = []
    change(torch.ones(3, 8, 8), progress=done.append)
    assert done == [1, 2, 3]

    def cancel(count):
        done.append(count)
        raise InterruptedError

    done.clear()
    with pytest.raises(InterruptedError):
        change(torch.ones(3, 8, 8), progress=cancel)
    assert done == [1]


@pytest.fixture
def dancer(dance):
    return dance[:6:2]  # she hardly moves in these


def pose_on(images, *joints):
    """A POSE_KEYPOINT with one person with the given joints (x, y), the same in each frame of ``images``."""
    points = [[0.0, 0.0, 0.0]] * 18
    for number, (x, y) in joints:
        points[number] = [x, y, 1.0]
    person = {"pose_keypoints_2d": [value for point in points for value in point]}
    return [{"people": [person], "canvas_width": 350, "canvas_height": 350} for _ in images]


# Shoulders, hips and ankles of the dancer in the first frame, in px.
DANCER = [(2, (155, 115)), (5, (205, 118)), (8, (160, 210)), (11, (200, 210)), (10, (140, 310)), (13, (195, 312))]


def test_node_masks_the_dancer_with_and_without_a_pose(dancer):
    followed = nodes.SegmentCharacter.execute(dancer).result[0]
    posed = nodes.SegmentCharacter.execute(dancer, pose=pose_on(dancer, *DANCER)).result[0]
    for mask in (followed, posed):
        assert mask.shape == dancer.shape[:3]
        assert (mask[:, 160:180, 170:185] > 0.9).all()  # her shirt
        assert mask[:, :30].max() < 0.1  # the wall above her
        assert 0.05 < (mask > 0.5).float().mean() < 0.25
    overlap = ((followed > 0.5) & (posed > 0.5)).sum() / ((followed > 0.5) | (posed > 0.5)).sum()
    assert overlap > 0.9  # a rough pose frames her a little differently than BlazePose's own


def test_node_grows_before_it_feathers(dancer):
    plain, grown = (nodes.SegmentCharacter.execute(dancer[:1], feather=0, grow=n).result[0] for n in (0, 6))
    assert torch.equal(grown, masks.grow(plain, 6))
    soft = nodes.SegmentCharacter.execute(dancer[:1], feather=4, grow=6).result[0]
    assert torch.equal(soft, masks.feather(grown, 4))


def test_node_blocks_cover_the_grown_mask():
    mask = torch.zeros(2, 60, 60)
    mask[:, 20:33, 25:41] = 1
    blocks = nodes.ShapeAgnosticMask.execute(mask, 10, 10, grow=4).result[0]
    assert torch.equal(blocks, masks.shape_agnostic(masks.grow(mask, 4)))


def test_node_draws_training_blocks_from_the_seed_and_keeps_the_grid():
    mask = jittering()
    one, same, other = (
        nodes.ShapeAgnosticMask.execute(mask, blocks="training", seed=seed).result[0] for seed in (3, 3, 5)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    drawn = masks.random_block(np.random.default_rng(3), mask)
    assert torch.equal(one, masks.shape_agnostic(mask, *drawn, steady=True))
    paper = nodes.ShapeAgnosticMask.execute(mask, steady=False).result[0]
    assert torch.equal(paper, masks.shape_agnostic(mask))


@pytest.mark.parametrize(
    ("images", "pose", "message"),
    [
        (torch.zeros(0, 64, 64, 3), None, "images: there is no picture"),
        (torch.zeros(2, 64, 64, 3), None, "images: no person was found in any of the 2 frames"),
        (torch.zeros(3, 64, 64, 3), pose_on(range(2), *DANCER), "pose: it has 2 frames, but images have 3"),
        (torch.zeros(2, 64, 64, 3), pose_on(range(2)), "pose: there is nobody"),
        (torch.zeros(2, 64, 64, 3), pose_on(range(2), *DANCER), "pose: no person was found where it points"),
        (torch.zeros(2, 64, 64, 3), [], "pose: "),
        (torch.zeros(2, 64, 96, 3), pose_on(range(2), *DANCER), "pose: it was made for 350×350, but images are 96×64"),
    ],
)
def test_node_names_bad_input(images, pose, message):
    with pytest.raises(ValueError, match=message):
        nodes.SegmentCharacter.execute(images, pose=pose)


def test_node_steadies_and_refines_and_can_leave_both(dancer):
    plain, steady, both = (
        nodes.SegmentCharacter.execute(dancer, feather=0, steadiness=calm, refine=drawn).result[0]
        for calm, drawn in ((0, False), (1, False), (1, True))
    )
    assert not torch.equal(plain, steady) and not torch.equal(steady, both)
    for mask in (steady, both):
        overlap = ((plain > 0.5) & (mask > 0.5)).sum() / ((plain > 0.5) | (mask > 0.5)).sum()
        assert overlap > 0.93  # mended at the outline, and nowhere else
    assert steady.diff(dim=0).abs().mean() < plain.diff(dim=0).abs().mean()


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty models folder."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    for kind in (nodes.SAM2, nodes.VITMATTE):
        monkeypatch.delitem(folder_paths.folder_names_and_paths, kind.folder, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "sam2"}, r"weights: its weights are missing. Put sam2.1_hiera_base_plus.safetensors .*sam2\."),
        ({"model": "sam2", "weights": "sam2_x.safetensors"}, r"weights: there is no sam2_x.safetensors"),
        ({"matting": "vitmatte"}, r"matting: its weights are missing. Put vitmatte-small-composition-1k"),
        ({"objects": True}, "objects: blazepose knows the body alone"),
    ],
)
def test_node_says_which_weights_are_missing_and_where_they_go(options, message, dancer, models):
    with pytest.raises(ValueError, match=message):
        nodes.SegmentCharacter.execute(dancer[:1], **options)


def test_node_says_what_is_missing_before_it_works(models):
    with pytest.raises(ValueError, match="matting: its weights are missing"):  # and not that nobody is in the picture
        nodes.SegmentCharacter.execute(torch.zeros(1, 64, 64, 3), matting="vitmatte")


def test_node_sees_weights_of_either_kind(models):
    folder = models / "sam2"
    (folder / "sam2.1-hiera-tiny").mkdir(parents=True)
    (folder / "sam2.1-hiera-tiny" / "config.json").write_text("{}")
    (folder / "sam2.1_hiera_base_plus.safetensors").touch()
    (folder / "sam3.safetensors").touch()
    (folder / "notes.txt").touch()
    assert list(nodes.SAM2.found()) == ["sam2.1-hiera-tiny", "sam2.1_hiera_base_plus.safetensors"]
    assert nodes.SAM2.path() == folder / "sam2.1_hiera_base_plus.safetensors"
    assert nodes.SAM2.path("sam2.1-hiera-tiny") == folder / "sam2.1-hiera-tiny"


class Follows:
    """Stands where SAM 2 would: it gives back what it is told to have found."""

    def __init__(self, *found):
        self.found = torch.stack(found)

    def follow(self, frames, things, progress):
        self.things = things
        progress(len(frames))
        for number, thing in enumerate(self.found):
            yield from ((number, frame, mask) for frame, mask in enumerate(thing))


def test_node_takes_what_the_hands_hold_out_of_the_mask(dancer, models, monkeypatch):
    (models / "sam2").mkdir()
    (models / "sam2" / "sam2.safetensors").touch()
    person, thing, wall = (torch.zeros(dancer.shape[:3]) for _ in range(3))
    person[:, 100:300, 140:220] = thing[:, 100:130, 215:245] = wall[:, :, 220:] = 1
    network = Follows(person, thing, wall)
    monkeypatch.setattr(nodes.sam2, "load", lambda path: network)
    arms = [*DANCER, (3, (150, 150)), (4, (150, 180)), (6, (215, 150)), (7, (220, 180))]
    pose = pose_on(dancer, *arms)
    mask, objects = nodes.SegmentCharacter.execute(dancer, "sam2", 0, pose=pose, objects=True).result
    assert len(network.things) == 3 and network.things[0][0].inside.all()  # a person, and what is beyond two hands
    assert torch.equal(objects, thing)  # a wall is not held
    assert torch.equal(mask, person * (1 - thing))
