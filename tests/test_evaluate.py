import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from animate_anywhere.models import checkpoint as adapters
from animate_anywhere.models import pose_motion
from animate_anywhere.models.checkpoint import Base
from animate_anywhere.training import checkpoint, evaluate, figures, networks, tables, train
from animate_anywhere.training.autoencoder import Autoencoder
from safetensors.torch import save_file
from training_toys import TOY as TOY_CONFIGURATION

pytest_plugins = ["training_toys"]

BASE = Base(64, 1, 5, 16, 24)
TOY = {"steps": 1, "frames": 13, "size": (64, 48), "batch": 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A base and an adapter on it as training begins with it: the adapter's networks are there and say nothing."""
    folder = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    base = networks.build_base(BASE)
    save_file({key: value.contiguous() for key, value in base.state_dict().items()}, folder / checkpoint.BASE)
    adapters.save(folder / checkpoint.ADAPTER, BASE, networks.Family(base, "joint", 4).file_groups())
    return folder


@pytest.fixture(scope="module")
def make(files, vae_file):
    def evaluation(head=None, **options) -> evaluate.Evaluation:
        family = evaluate.load_family(files / checkpoint.BASE, files, torch.device("cpu"))
        vae = Autoencoder(vae_file, BASE, torch.device("cpu"))
        return evaluate.Evaluation(family, vae, evaluate.Options(**{**TOY, **options}), head)

    return evaluation


@pytest.fixture(scope="module")
def measured(make):
    """Four clips under all conditions."""
    return list(make(clips=4, batch=4).clips())


def test_every_row_has_its_figures(measured):
    assert [clip["clip"] for clip in measured] == list(range(evaluate.FIRST, evaluate.FIRST + 4))
    for clip in measured:
        assert clip["rows"].keys() == {"pose", "environment", "wrong pose", "wrong reference", *evaluate.GIVEN}
        assert clip["rows"]["wrong pose"].keys() == set(evaluate.PICTURE)
        assert clip["rows"]["pose"].keys() == {*evaluate.PICTURE, *evaluate.MOTION}
        assert 0 <= clip["attention"] <= 1


def test_the_truth_is_as_good_as_can_be(measured):
    for clip in measured:
        truth = clip["rows"]["truth"]
        assert truth["psnr"] == truth["person"] == 100
        assert truth["ssim"] == pytest.approx(1)
        assert not truth["motion"] > evaluate.TRACKED  # by choice of points, or nan without points


def test_a_still_background_is_its_own_measure(measured):
    for clip in measured:
        if np.isfinite(clip["still"]):
            assert clip["rows"]["still"]["motion"] == pytest.approx(clip["still"], abs=1e-4)


def test_an_adapter_that_says_nothing_loses_nothing_by_a_wrong_pose(measured):
    costs = {figure.name: figure.value for figure in figures.figures_of(measured) if "costs" in figure.name}
    assert costs["a wrong pose costs, dB"] == 0


def test_a_clip_has_the_same_figures_whatever_is_beside_it(make, measured):
    alone = list(make(clips=2, conditions=("pose",), attention=False, first=evaluate.FIRST + 2).clips())
    for one, other in zip(alone, measured[2:]):
        assert one["rows"]["pose"]["psnr"] == pytest.approx(other["rows"]["pose"]["psnr"], abs=1e-3)


def test_what_was_measured_is_not_measured_again(make, tmp_path):
    options = {"conditions": ("pose",), "attention": False}
    begun = evaluate.run(make(clips=2, **options), tmp_path, {})
    path = tmp_path / "clips.jsonl"
    path.write_text(path.read_text() + '{"clip": 10')  # a line that was cut off
    marked = {**begun[0], "still": 77.0}
    path.write_text(path.read_text().replace(json.dumps(begun[0]), json.dumps(marked)))
    found = evaluate.run(make(clips=4, **options), tmp_path, {})
    assert [clip["still"] == 77.0 for clip in found] == [True, False, False, False]
    assert len(path.read_text().splitlines()) == 5


def test_figures_of_other_options_are_kept_apart(make, tmp_path):
    (tmp_path / "clips.jsonl").write_text('{"steps": 3}\n')
    with pytest.raises(ValueError, match="other files or options"):
        evaluate.run(make(clips=2), tmp_path, {})


@pytest.mark.parametrize("wrong", [{"clips": 3}, {"batch": 1}, {"conditions": ("poze",)}])
def test_options_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=r"clips and batch|poze is not known"):
        evaluate.Options(**wrong)


def test_an_adapter_without_a_reference_is_refused(files, tmp_path):
    header, groups = adapters.read(files / checkpoint.ADAPTER)
    adapters.save(tmp_path / "poor.safetensors", header.base, {"pose_control": groups["pose_control"]})
    with pytest.raises(ValueError, match="no reference"):
        evaluate.load_family(files / checkpoint.BASE, tmp_path / "poor.safetensors", torch.device("cpu"))


def clip_of(row, **values):
    plain = {
        "psnr": 20.0,
        "ssim": 0.5,
        "person": 15.0,
        "motion": 2.0,
        "direction": 0.9,
        "blocks8": 1.0,
        "blocks16": 1.0,
    }
    rows = {"truth": plain, "empty": {**plain, "person": 10.0}, row: {**plain, **values}}
    return {"clip": 0, "still": 4.0, "rows": rows}


def test_figures_say_whether_they_are_reached():
    clips = [
        clip_of("pose", motion=2.0),
        clip_of("pose", motion=3.0, direction=0.1),
        clip_of("pose", motion=float("nan")),
    ]
    found = {figure.name: figure for figure in figures.figures_of(clips)}
    error, right = (
        found["background error of a still one's, pose"],
        found["direction right within 45°, share of moving clips, pose"],
    )
    assert (error.value, error.clips, error.met) == (pytest.approx(5 / 8), 2, True)
    assert right.value == pytest.approx(2 / 3)
    assert right.met is False
    assert found["person above the empty background, dB"].value == pytest.approx(5)
    assert "not reached" in figures.text(clips)


def test_the_explicit_way_asks_for_a_motion_head(make):
    with pytest.raises(ValueError, match="needs a motion head"):
        make(conditions=("two-stage",))


def test_a_table_tells_the_order():
    psnr = {"without epipolar loss": 15.8, "1 - M": 14.7, "ours: (1 - M) ∧ (A < δ)": 16.0}
    found = {row: [[clip_of("pose", psnr=value + seed)] for seed in (0.0, 0.1)] for row, value in psnr.items()}
    told = tables.summary("II", found)
    assert told["as in the paper"]
    assert told["ours best"]
    assert told["beyond the spread"]
    assert "The order is the paper's" in tables.text("II", found)
    found["1 - M"] = [[clip_of("pose", psnr=17.0)], [clip_of("pose", psnr=19.0)]]
    told = tables.summary("II", found)
    assert not told["ours best"]
    assert told["rows"]["1 - M"]["PSNR"] == {"mean": 18.0, "spread": pytest.approx(2**0.5)}


def test_a_table_compares_seed_by_seed_and_gives_no_star_to_equals():
    names = [row.name for row in tables.TABLES["II"]]
    found = {
        name: [[clip_of("pose", psnr=16 + seed + gain, ssim=0.5)] for seed in (0, 4)]
        for name, gain in zip(names, (-0.5, -1, 0))
    }
    told = tables.summary("II", found)
    assert told["rows"][names[0]][tables.AGAINST] == {"mean": pytest.approx(-0.5), "spread": pytest.approx(0)}
    assert told["best"]["SSIM"] is None and told["best"]["PSNR"] == names[2]
    assert "-0.500 ± 0.000" in tables.text("II", found)


def test_a_table_tells_where_attention_goes_and_leaves_it_out_where_nobody_looked():
    looked = {"explicit two-stage": None, "without BML": 0.4, "ours": 0.2}
    found = {
        name: [[clip_of("pose" if share else "two-stage", psnr=1.0) | ({"attention": share} if share else {})]]
        for name, share in looked.items()
    }
    assert tables.summary("III", found)["best"]["outside bands"] == "ours"
    assert "0.200 ± 0.000*" in tables.text("III", found)
    assert next(line for line in tables.text("III", found).splitlines() if line.startswith("explicit")).count("—") == 1


@pytest.fixture
def plan(files, vae_file, quick_clips, tmp_path):
    header, groups = adapters.read(files / checkpoint.ADAPTER)
    groups.pop("background_motion")
    start = tmp_path / "start.safetensors"
    adapters.save(start, header.base, groups)
    changes = (
        *TOY_CONFIGURATION,
        f"model.vae={vae_file}",
        f"model.base={files / checkpoint.BASE}",
        "run.steps=1",
        "run.checkpoint_every=1",
    )
    options = evaluate.Options(**{**TOY, "clips": 2})
    return tables.Plan("tiny-cpu", changes, tmp_path / "runs", start, (0,), options)


def test_a_table_is_trained_and_measured_once(plan, monkeypatch):
    found = tables.make("II", plan, train.Stops())
    assert {row: len(seeds) for row, seeds in found.items()} == {row.name: 1 for row in tables.TABLES["II"]}
    monkeypatch.setattr(tables, "Trainer", None)  # nothing is left to train
    monkeypatch.setattr(evaluate.Evaluation, "_batch", None)  # nor to measure
    assert tables.make("II", plan, train.Stops()) == found


def test_a_table_takes_no_figures_of_another_motion_head(plan, tmp_path):
    row = next(row for row in tables.TABLES["III"] if row.condition == "two-stage")
    heads = [tmp_path / f"{name}.safetensors" for name in ("one", "other")]
    for head in heads:
        pose_motion.save(head, pose_motion.PoseMotion(pose_motion.Size(width=32, blocks=1, heads=2)), {})
    assert tables.train(plan, row.run, 0, train.Stops())
    found = tables.measure(replace(plan, head=heads[0]), row, 0)
    assert tables.measure(replace(plan, head=heads[0]), row, 0) == found
    with pytest.raises(ValueError, match="figures of other files"):
        tables.measure(replace(plan, head=heads[1]), row, 0)


def test_a_table_begins_without_background_motion(plan, files):
    with pytest.raises(ValueError, match="learned background motion already"):
        tables.check("II", tables.Plan(plan.configuration, plan.changes, plan.runs, files, (0,), plan.options))


def test_table_iii_asks_for_a_motion_head(plan):
    with pytest.raises(ValueError, match="needs a motion head"):
        tables.check("III", plan)
