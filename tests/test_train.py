"""Training's stages at toy size: five narrow blocks, 13 frames of 64×48 px, clips of noise."""

import csv
import errno
import logging
import multiprocessing
import os
import socket
import time
from dataclasses import replace
from functools import partial

import cv2
import pytest
import safetensors.torch
import torch
from accelerate.state import AcceleratorState, PartialState
from animate_anywhere.training import checkpoint, configuration, journal, supply, train
from training_toys import ALONE, LADDER, TINY

pytest_plugins = ["training_toys"]
pytestmark = pytest.mark.usefixtures("quick_clips")


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def table(folder) -> list[dict]:
    with (folder / journal.TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "kind"), [("joint", "adamw"), ("joint", "muon"), ("pada_ln", "adamw")])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(joint, stage, kind):
    joint = partial(joint, f"optimiser.kind={kind}", stage=stage)
    whole, first = joint(), joint(name="two")
    whole.run()
    stops = train.Stops()
    step = first.step

    def stop_after_two(number, pieces):
        stops.asked = number == 1
        return step(number, pieces)

    first.step = stop_after_two
    assert not first.run(stops)
    torch.rand(7)  # whatever else happened in between
    assert joint(name="two", resume=True).run()
    ends = [contents(trainer.folder / checkpoint.folder_of(4)) for trainer in (whole, first)]
    assert ends[0] == ends[1]
    same = [[{**row, "seconds": ""} for row in table(trainer.folder)] for trainer in (whole, first)]
    assert same[0] == same[1]


def test_tensorboard_shows_what_the_table_says(joint):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = joint()
    trainer.run()
    board = EventAccumulator(str(trainer.folder)).Reload()
    drawn = [(event.step, pytest.approx(event.value, rel=1e-5)) for event in board.Scalars("loss")]
    assert [(int(row["step"]), float(row["loss"])) for row in table(trainer.folder)] == drawn


def test_stage_base_resumes_to_the_bit(toy, tmp_path):
    long, short = toy("base", "run.steps=4"), toy("base", "run.steps=2", "optimiser.schedule=constant")
    long = replace(long, optimiser=short.optimiser)
    train.Trainer(long, tmp_path, "whole").run()
    train.Trainer(short, tmp_path, "parts").run()
    train.Trainer(long, tmp_path, "parts", resume=True).run()
    ends = [contents(tmp_path / name / "base" / checkpoint.folder_of(4)) for name in ("whole", "parts")]
    assert ends[0] == ends[1]


def test_loss_falls_on_one_repeated_sample(joint):
    """What 30 steps of AdamW at 1e-2 do to one clip at one noise level; a network that learns nothing stays above 0.9
    of where it began."""
    trainer = joint("optimiser.kind=adamw", "optimiser.learning_rate=1e-2", "optimiser.schedule=constant")
    pieces = next(trainer.supply.steps(0, 1))
    losses = [trainer.step(step, pieces)["latent"] for step in range(30)]
    assert losses[-1] < 0.75 * losses[0]


def test_a_step_that_shows_nothing_to_what_is_trained_changes_nothing(joint):
    trainer = joint("model.rank=0", "conditions.drop_all=1.0")  # without LoRA the base alone is at work
    before = {name: value.clone() for name, value in trainer.family.state_dict().items()}
    assert trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in trainer.family.state_dict().items())
    assert all(float(row["gradient"]) == 0 and float(row["loss"]) > 0 for row in table(trainer.folder))


@pytest.mark.parametrize(("name", "stages"), [*((name, LADDER) for name in TINY), ("dynamictrl-tiny", ALONE)])
def test_smoke_of_every_stage(name, stages, vae_file, tmp_path):
    """The networks at their real size, three steps each, with sheet, kept clips and checkpoints."""
    begun = time.process_time()  # other work on the machine hardly changes it
    changes = [*train.SMOKE, f"model.vae={vae_file}"]
    # bfloat16 takes its time on a CPU; where all networks of a family are there, is enough
    plain = {stage: [] if stage in ("joint", *ALONE) else ["run.autocast=false"] for stage in stages}
    assert configuration.stages_of(name) == list(stages)
    loaded = [configuration.load(name, stage, changes + plain[stage]) for stage in stages]
    assert train.train_all(loaded, tmp_path, "smoke", False, train.Stops())
    for stage in stages:
        folder = tmp_path / "smoke" / stage
        assert (folder / (checkpoint.BASE if stage == "base" else checkpoint.ADAPTER)).exists()
        assert [path.name for path in checkpoint.complete(folder)] == [checkpoint.folder_of(step) for step in (2, 3)]
        assert len(table(folder)) == 3
        assert table(folder)[-1]["held_out"]
        assert cv2.imread(str(folder / "sheets" / "00000003.png")).shape == (3 * 3 * 64, 6 * 64, 3)
    assert all((float(row["epipolar"]) > 0) == (stage == "joint") for row in table(folder))
    assert time.process_time() - begun < 30  # s; 7 as a rule. So all, with the 5B's of test_plan.py, take two minutes


def test_the_base_goes_on_from_a_file(toy, ladder, quick_clips, tmp_path):
    """As from the shipped weights, when the run that made them is gone."""
    shipped = ladder / "toy" / "base" / checkpoint.BASE
    trainer = train.Trainer(toy("base"), tmp_path, "again", start=shipped)
    seen = trainer.family.base.state_dict()["proj_out.weight"]
    torch.testing.assert_close(seen, safetensors.torch.load_file(shipped)["proj_out.weight"].float(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="--start: there is no file .*gone"):
        train.Trainer(toy("base"), tmp_path, "other", start=tmp_path / "gone.safetensors")


def test_finished_stages_are_passed_over(toy, ladder, caplog):
    stages = [toy(stage, "run.steps=2") for stage in LADDER[:3]]
    with caplog.at_level(logging.INFO):
        assert train.train_all(stages, ladder, "toy", True, train.Stops())
    assert caplog.text.count("is finished") == 3


@pytest.mark.parametrize("stage", ALONE)
def test_a_way_to_follow_a_pose_begins_as_the_identity_and_learns_alone(joint, stage):
    """The base stays as it is to the bit. PadaLN's blocks wake up one after the other, a step each."""
    trainer = joint("run.steps=8", stage=stage)
    family = trainer.family
    base = {name: value.clone() for name, value in family.base.state_dict().items()}
    first = {name: value.clone() for name, value in family.pose_network.state_dict().items()}
    _, batch = trainer.supply.held_out(2)
    values = batch.video, torch.tensor([700, 100]), batch.start(("own", "own"))
    with torch.no_grad():
        torch.testing.assert_close(family(*values, batch.pose), family(*values), rtol=1e-6, atol=1e-6)
    assert trainer.run()
    assert all(torch.equal(value, base[name]) for name, value in family.base.state_dict().items())
    still = {name for name, value in family.pose_network.state_dict().items() if torch.equal(value, first[name])}
    assert not still
    with torch.no_grad():
        assert (family(*values, batch.pose) - family(*values)).abs().max() > 1e-3


@pytest.mark.parametrize("stage", ALONE)
def test_the_epipolar_loss_reaches_a_way_to_follow_a_pose(joint, stage):
    """Whose blocks run without the hooks that a module has."""
    trainer = joint("loss.epipolar=1.0", "loss.probed_blocks=[1, 3]", "run.checkpointing=true", stage=stage)
    figures = trainer.step(0, next(trainer.supply.steps(0, 1)))
    assert figures["epipolar"] > 0


def test_an_adapter_that_has_nothing_of_the_stage_is_refused(toy, ladder, tmp_path):
    changed = toy("pada_ln", f"model.base={ladder / 'toy' / 'base' / checkpoint.BASE}")
    with pytest.raises(ValueError, match="--start: .* has pose_control, reference; stage pada_ln has nothing of it"):
        train.Trainer(changed, tmp_path, "other", start=ladder / "toy" / "reference")


def test_minutes_stop_with_a_checkpoint(joint):
    trainer = joint()
    stops = train.Stops(minutes=1)
    stops.begun -= 61
    assert not trainer.run(stops)
    assert checkpoint.complete(trainer.folder)[-1].name == checkpoint.folder_of(1)


def test_a_file_pauses_training(joint, monkeypatch):
    trainer = joint()
    pause = trainer.runs / train.PAUSE
    pause.touch()
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(checkpoint.complete(trainer.folder)[-1].name)
        pause.unlink()

    monkeypatch.setattr(train.time, "sleep", sleep)
    assert trainer.run()
    assert slept == [checkpoint.folder_of(1)]


# --- what stops a run, and what does not ------------------------------------------------------------------------------


def test_nan_stops_before_the_update_and_keeps_the_last_good_checkpoint(joint):
    trainer = joint()
    backward, before = trainer.objective.backward, {}

    def break_at_step_3(family, batch, draw, share):
        losses = backward(family, batch, draw, share)
        if draw.step < 3:
            return losses
        before.update({name: value.clone() for name, value in family.state_dict().items()})
        return losses._replace(total=losses.total * torch.nan)

    trainer.objective.backward = break_at_step_3
    with pytest.raises(train.TrainingError, match=r"Step 3: the loss is nan.*checkpoint-00000002"):
        trainer.run()
    assert checkpoint.complete(trainer.folder)[-1].name == checkpoint.folder_of(2)
    assert all(torch.equal(value, before[name]) for name, value in trainer.family.state_dict().items())


def fill_disk(monkeypatch, from_step: int, what: str):
    """Let files whose path holds ``what`` fail half written from ``from_step`` on."""
    write = safetensors.torch.save_file

    def save_file(tensors, path, metadata=None):
        if what in str(path) and checkpoint.folder_of(from_step) <= os.path.basename(os.path.dirname(path)):
            with open(path, "wb") as file:
                file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)


@pytest.mark.parametrize("what", ["optimiser", "adapter"])
def test_a_full_disk_in_mid_checkpoint_keeps_the_old_one(joint, monkeypatch, caplog, what):
    trainer = joint("run.checkpoint_every=1", "run.steps=4")
    with monkeypatch.context() as patch:
        fill_disk(patch, 2, what)
        with pytest.raises(train.TrainingError, match=r"step 4.*No space left.*checkpoint-00000001"):
            trainer.run()
    assert [path.name for path in trainer.folder.glob("checkpoint-*")] == [checkpoint.folder_of(1)]
    assert "step 2 could not be written" in caplog.text
    assert joint("run.checkpoint_every=1", "run.steps=4", resume=True).run()


def test_safetensors_own_error_counts_as_a_full_disk(joint, monkeypatch):
    trainer = joint("run.steps=1")

    def save_file(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    with pytest.raises(train.TrainingError, match="No space left"):
        trainer.run()


def test_a_checkpoint_of_another_configuration_is_refused(joint):
    joint("run.steps=1").run()
    with pytest.raises(ValueError, match=r"data.frames was 13, is 21.*optimiser.learning_rate was 0.001, is 0.5"):
        joint("run.steps=1", "data.frames=21", "optimiser.learning_rate=0.5", resume=True)


def test_a_checkpoint_on_another_base_is_refused(joint, tmp_path):
    trainer = joint("run.steps=1")
    trainer.run()
    with torch.no_grad():
        trainer.family.base.proj_out.weight += 0.1
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(trainer.family.base.state_dict(), other)
    with pytest.raises(ValueError, match="was trained on another base"):
        joint("run.steps=1", f"model.base={other}", resume=True)


def test_what_changes_no_step_may_differ(toy):
    changes = ("run.log_every=7", "data.workers=3", "run.micro_batch=2", "hardware.devices=2")
    assert toy("base").fixed() == toy("base", *changes).fixed()


def test_checkpoints_are_not_overwritten_unasked(joint):
    joint("run.steps=1").run()
    with pytest.raises(ValueError, match="has checkpoints already. Go on with --resume"):
        joint("run.steps=1")


def test_resume_without_a_checkpoint_says_so(joint):
    with pytest.raises(ValueError, match="there is no checkpoint in"):
        joint(resume=True)


def test_a_stage_without_the_stage_before_says_which(toy, ladder):
    changes = [f"model.base={ladder / 'toy' / 'base' / checkpoint.BASE}"]
    with pytest.raises(ValueError, match="Train pose_control first"):
        train.Trainer(toy("reference", *changes), ladder, "nothing-there")


def test_a_base_of_another_size_is_refused(joint):
    with pytest.raises(ValueError, match=r"model.base: base.safetensors is not .* 6 blocks"):
        joint("model.blocks=6")


def test_a_batch_that_the_processes_cannot_share_is_refused(toy):
    with pytest.raises(ValueError, match="run.batch is 2; 3 processes cannot share it"):
        supply.Supply(toy("base"), None, torch.device("cpu"), 0, 3)


# --- processes --------------------------------------------------------------------------------------------------------


def _process(rank: int, world: int, port: int, work, out) -> None:
    """A forked process that ``accelerate launch`` would have started."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"}
    PartialState._reset_state()
    AcceleratorState._reset_state()
    torch.save(work(), out / f"{rank}.pt")


def in_processes(world: int, work, out) -> list:
    """What ``work()`` gives in each of ``world`` processes that form a gloo group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    team = [context.Process(target=_process, args=(rank, world, port, work, out)) for rank in range(world)]
    for process in team:
        process.start()
    for process in team:
        process.join(60)
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in team] == [0] * world
    return [torch.load(out / f"{rank}.pt") for rank in range(world)]


def test_two_processes_give_the_gradients_of_the_doubled_batch(joint, tmp_path):
    def gradients() -> dict:
        trainer = joint("run.batch=4", "run.micro_batch=2", "loss.queries=4")
        pieces = next(trainer.supply.steps(3, 4))
        found = trainer.gradients(pieces)
        norm = trainer.optimiser.reduce()
        parameters = trainer.optimiser.parameters
        return {"": found, "norm": torch.tensor(norm), **{name: value.grad for name, value in parameters.items()}}

    alone = gradients()
    for both in in_processes(2, gradients, tmp_path):
        assert both.keys() == alone.keys()
        for name, gradient in alone.items():
            assert (gradient is None) == (both[name] is None)
            if gradient is not None:  # sums in another order: some float32 roundings
                torch.testing.assert_close(both[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("changes", [(), ("model.dtype=bfloat16", "optimiser.offload=true")])
def test_two_processes_update_alike_and_their_checkpoint_serves_one(joint, tmp_path, changes):
    changes = ("optimiser.kind=adamw", "run.steps=2", *changes)

    def end() -> dict:
        trainer = joint(*changes, name="two")
        trainer.run()
        return {name: value.clone() for name, value in trainer.family.state_dict().items()}

    first, second = in_processes(2, end, tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    resumed = joint(*changes, name="two", resume=True)
    assert all(torch.equal(value, first[name]) for name, value in resumed.family.state_dict().items())
    moments = resumed.optimiser.state()
    assert len([name for name in moments if name.endswith(".exp_avg")]) == len(resumed.optimiser.parameters)
