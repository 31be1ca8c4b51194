"""Whole runs against a slow reference; schedules, sampling, records, interruption, bad input."""

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import as_clips, other_geometries
from safetensors.torch import load_file
from test_jepa import moved, slow_step, some_clips, some_masks, with_training
from torch import nn

from picojepa import checkpoints, features, fitting, machine, pretraining, store
from picojepa.clips import crop, crop_boxes, normalise
from picojepa.config import adapted
from picojepa.fitting import TrainingConfig
from picojepa.jepa import JEPA
from picojepa.masking import MaskConfig, draw
from picojepa.spreading import TERMS

# ---------------------------------------------------------------- a run against its definition


def slow_cosine(progress, first, last):
    return (first + last) / 2 + (first - last) / 2 * math.cos(math.pi * progress)


def slow_run(settings, clips):
    """The whole training with AdamW, clipping, schedules and EMA written out."""
    config, model = settings.training, JEPA(settings, settings.training.seed)
    named = {
        f"{part}.{name}": p for part in ("encoder", "predictor") for name, p in getattr(model, part).named_parameters()
    }
    linear = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    first, second = ({name: torch.zeros_like(p) for name, p in named.items()} for _ in range(2))
    warmup = round(config.warmup * config.steps)
    rows = []
    for step in range(config.steps):
        videos, epochs = fitting.batch_numbers(step, len(clips), config)
        batch = torch.stack([torch.from_numpy(clips[v, e % 2]) for v, e in zip(videos, epochs, strict=True)])
        masks = draw(
            config.mask, settings.grid, config.batch, torch.Generator().manual_seed(step + 1_000_003 * config.seed)
        )
        loss, similarity = slow_step(model, normalise(batch), masks)
        gradients = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
        norm = math.sqrt(sum((g**2).sum().item() for g in gradients.values()))
        limit = config.gradient_clip if config.clip_warmup or step >= warmup else math.inf
        rate = config.learning_rate * (step + 1) / warmup
        if step >= warmup:
            progress = (step - warmup) / (config.steps - warmup)
            rate = slow_cosine(progress, config.learning_rate, config.final_learning_rate)
        decay = slow_cosine(step / config.steps, *config.weight_decay)
        with torch.no_grad():
            for name, p in named.items():
                g = gradients[name] * min(1.0, limit / (norm + 1e-6))
                own_rate = rate * (config.predictor_rate if name.startswith("predictor") else 1.0)
                if name in linear:
                    p -= own_rate * decay * p
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                corrected = second[name] / (1 - 0.999 ** (step + 1))
                p -= own_rate * first[name] / (1 - 0.9 ** (step + 1)) / (corrected.sqrt() + 1e-8)
            momentum = slow_cosine(step / config.steps, *config.ema)
            for old, new in zip(model.target_encoder.parameters(), model.encoder.parameters(), strict=True):
                old.copy_(momentum * old + (1 - momentum) * new)
        rows.append((loss.item(), similarity, norm, rate, momentum))
    return model, rows


COLUMNS = ["loss", "similarity", "gradient_norm", "learning_rate", "ema"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_clip": 0.05}, {"gradient_clip": 0.05, "clip_warmup": False, "predictor_rate": 2.0}],
    ids=["unclipped", "always clipped", "clipped after the warm-up"],
)
def test_a_run_is_that_of_a_slow_reference(double, tiny, noise, tmp_path, changes):
    training = TrainingConfig(
        clips=16, batch=4, warmup=0.5, ema=(0.5, 0.9), weight_decay=(0.1, 0.9), precision="float32", log_every=1, seed=3
    )
    settings, clips = replace(tiny, training=replace(training, **changes)), as_clips(noise.training[:5])
    model = pretraining.pretrain(settings, clips, tmp_path)
    wanted, rows = slow_run(settings, clips.training)
    metrics = checkpoints.read_metrics(tmp_path)
    np.testing.assert_allclose(metrics[COLUMNS], rows, rtol=1e-6)
    if changes:
        assert (metrics.gradient_norm > 0.05).all()
    for (name, ours), slow in zip(model.named_parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def test_a_step_returns_what_it_did(tiny):
    model, clips, masks = moved(JEPA(tiny, 0)).train(), some_clips(), some_masks()
    loss, similarity = model(clips, masks)
    loss.backward()
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None))
    optimizer = fitting.make_optimizer(model.parameter_groups(), tiny.training)
    facts = pretraining.training_step(model, optimizer, clips, masks, 1e9, "float32")
    assert facts == pytest.approx({"loss": loss.item(), "similarity": similarity.item(), "gradient_norm": norm}, 1e-5)


# ---------------------------------------------------------------- precision


def test_bfloat16_is_close_and_float32_is_not_touched(tiny, noise, tmp_path, monkeypatch):
    """Processors without instructions for it can still compute in bfloat16, slowly."""
    losses = {}
    for name, fast, precision in (
        ("float32", True, "float32"),
        ("bfloat16", True, "bfloat16"),
        ("slow", False, "bfloat16"),
    ):
        monkeypatch.setattr(machine, "fast_bfloat16", lambda fast=fast: fast)
        losses[name], weights = run(with_training(tiny, precision=precision), noise, tmp_path / name)
        assert all(value.dtype is torch.float32 for value in weights.values())
    assert losses["slow"] == losses["float32"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)


# ---------------------------------------------------------------- batches


def test_a_batch_holds_the_clip_of_its_epoch(noise):
    config = TrainingConfig(clips=40, batch=8)
    for step in range(5):
        videos, epochs = fitting.batch_numbers(step, 10, config)
        batch = pretraining.training_batch(step, noise.training, config)
        assert batch.shape == (8, 3, 8, 32, 32)
        for clip, video, epoch in zip(batch, videos, epochs, strict=True):
            assert torch.equal(clip, normalise(torch.from_numpy(noise.training[video, epoch % 2])[None])[0])
    assert set(epochs.tolist()) == {3}


def test_crops_are_drawn_anew_every_step_and_can_be_drawn_again(noise):
    config = TrainingConfig(clips=80, batch=8, crop=(0.3, 1.0))
    first, again, second = (pretraining.training_batch(step, noise.training, config) for step in (0, 0, 1))
    assert torch.equal(first, again)
    whole = pretraining.training_batch(0, noise.training, replace(config, crop=None))
    assert not torch.allclose(first, whole, atol=0.1)
    still = as_clips(noise.training[:1, :1])  # one clip only, so that nothing but the crop differs
    first, second = (pretraining.training_batch(step, still.training, config) for step in (0, 1))
    assert not torch.allclose(first, second, atol=0.1)
    boxes = crop_boxes(8, (0.3, 1.0), torch.Generator().manual_seed(~fitting.step_seed(0, config)))
    assert torch.equal(pretraining.training_batch(0, noise.training, config), crop(whole, boxes))


@pytest.mark.parametrize("area", [None, (0.3, 1.0)])
def test_processes_together_see_the_clips_of_one(noise, area):
    config = TrainingConfig(clips=80, batch=8, crop=area)
    whole = pretraining.training_batch(3, noise.training, config)
    parts = [pretraining.training_batch(3, noise.training, config, s) for s in (slice(0, 3), slice(3, 8))]
    assert torch.equal(torch.cat(parts), whole)


def test_prefetching_keeps_the_order_and_is_one_step_ahead():
    made = []
    batches = pretraining.prefetch(lambda step: made.append(step) or step, range(3, 9))
    assert next(batches) == 3
    assert list(batches) == [4, 5, 6, 7, 8]
    assert made == [3, 4, 5, 6, 7, 8]
    assert list(pretraining.prefetch(lambda step: step, range(0))) == []
    with pytest.raises(ZeroDivisionError):
        list(pretraining.prefetch(lambda step: 1 / step, range(2)))


# ---------------------------------------------------------------- records


def test_metrics_hold_what_was_watched(tiny, noise, tmp_path):
    seen = []

    def look(folder, model):
        spread, _ = features.spread_and_rank(features.encode(model.encoder, noise.centre))
        seen.append((len(checkpoints.read_metrics(folder)), spread))

    settings = with_training(tiny, clips=112, log_every=2, watch_every=4)
    model = pretraining.pretrain(settings, noise, tmp_path, look)
    metrics = checkpoints.read_metrics(tmp_path)
    assert metrics.step.tolist() == [0, 2, 4, 6]
    assert metrics.clips.tolist() == [16, 48, 80, 112]
    assert metrics.spread.notna().tolist() == [True, False, True, True]
    assert [rows for rows, _ in seen] == [1, 3, 4], "told after every look, when its row is on disk"
    assert [spread for _, spread in seen] == pytest.approx(metrics.spread.dropna().tolist()), (
        "with the model of the row"
    )
    assert metrics.ema.is_monotonic_increasing
    assert metrics.similarity.between(-1, 1).all()
    assert metrics.waiting.between(0, 1).all()
    assert (metrics.clips_per_second > 0).all()
    encoded = features.encode(model.encoder, noise.centre)
    last = metrics.iloc[-1]
    assert (last.spread, last.effective_rank) == pytest.approx(features.spread_and_rank(encoded))
    assert last.quick_probe == features.quick_probe(encoded, noise.videos.label)


def test_waiting_for_data_is_told_from_training(tiny, noise, tmp_path, monkeypatch):
    """By a clock of our own: 3 seconds for a batch, 1 for a step; what a look at the features takes is neither."""
    clock = SimpleNamespace(now=0.0)

    def after(seconds, make):
        def slow(*arguments):
            clock.now += seconds
            return make(*arguments)

        return slow

    ours = SimpleNamespace(perf_counter=lambda: clock.now, time=lambda: 0.0)
    monkeypatch.setattr(checkpoints, "time", ours)
    monkeypatch.setattr(pretraining, "time", ours)
    monkeypatch.setattr(pretraining, "prefetch", lambda make, steps: map(after(3, make), steps))
    monkeypatch.setattr(pretraining, "training_step", after(1, pretraining.training_step))
    settings = with_training(tiny, clips=96, log_every=2, watch_every=2)
    pretraining.pretrain(settings, noise, tmp_path, after(100, lambda folder, model: None))
    metrics = checkpoints.read_metrics(tmp_path)
    assert metrics.step.tolist() == [0, 2, 4, 5]
    assert metrics.waiting.tolist() == pytest.approx([0.75] * 4)
    assert metrics.clips_per_second.tolist() == pytest.approx([16 / 4] * 4)


def test_only_training_videos_are_watched(tiny, noise, tmp_path):
    """Whatever the validation videos show, no row changes."""
    videos = pd.concat([noise.videos, noise.videos.assign(split="validation", label="x")])
    more = replace(noise, centre=np.concatenate([noise.centre, 255 - noise.centre]), videos=videos)
    run(tiny, noise, tmp_path / "a")
    run(tiny, more, tmp_path / "b")
    a, b = (checkpoints.read_metrics(tmp_path / x)[["spread", "effective_rank", "quick_probe"]] for x in "ab")
    np.testing.assert_array_equal(a, b)


def test_one_clip_per_class_gives_no_quick_probe(tiny, noise, tmp_path):
    clips = as_clips(noise.training[:2])
    pretraining.pretrain(with_training(tiny, clips=32), clips, tmp_path)
    assert checkpoints.read_metrics(tmp_path).quick_probe.isna().all()


def test_a_torn_line_is_no_row(tmp_path, provoked):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert checkpoints.read_metrics(tmp_path).step.tolist() == [0]
    (tmp_path / "metrics.jsonl").write_text("")
    assert len(checkpoints.read_metrics(tmp_path)) == 0
    provoked("a line that is torn off", "training")


# ---------------------------------------------------------------- seeds, golden numbers, interruption


def run(settings, clips, folder):
    """Losses of all steps and the final weights."""
    folder.mkdir(exist_ok=True)
    model = pretraining.pretrain(settings, clips, folder)
    return checkpoints.read_metrics(folder).loss.tolist(), model.state_dict()


def same_bits(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_golden_losses_and_the_same_seed_twice(tiny, noise, tmp_path):
    """First, middle and last loss of 20 steps; other processors may round otherwise, so within 0.5 %."""
    losses, weights = run(tiny, noise, tmp_path / "a")
    again = run(tiny, noise, tmp_path / "b")
    assert losses == again[0]
    assert same_bits(weights, again[1])
    other, _ = run(with_training(tiny, seed=1), noise, tmp_path / "c")
    assert other != losses
    assert [losses[0], losses[10], losses[19]] == pytest.approx(GOLDEN, rel=5e-3)


GOLDEN = [0.81330, 0.78252, 0.75988]


def interrupt_after(patch, step, error=KeyboardInterrupt):
    """The plug is pulled when the row of a step has been written."""
    record = checkpoints.Recorder.record

    def pull_the_plug(self, now, *rest):
        record(self, now, *rest)
        if now == step:
            raise error

    patch.setattr(checkpoints.Recorder, "record", pull_the_plug)


OBJECTIVES = {f"{t}, {s}": {"target": t, "spreading": s} for t in ("all blocks", "minus clip mean") for s in TERMS}


@pytest.mark.parametrize("name", [*OBJECTIVES, "adapted"])
def test_runs_with_other_targets_and_terms_continue_bit_by_bit(tiny, noise, tmp_path, monkeypatch, name):
    settings = adapted(tiny) if name == "adapted" else with_training(tiny, **OBJECTIVES[name])
    whole = run(settings, noise, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 12)
        with pytest.raises(KeyboardInterrupt):
            run(settings, noise, tmp_path / "broken")
    resumed = run(settings, noise, tmp_path / "broken")
    assert resumed[0] == whole[0]
    assert same_bits(resumed[1], whole[1])


def test_every_choice_of_the_objective_has_a_key_of_its_own(tiny, noise):
    changed = [{"target": "all blocks"}, {"spreading": "SIGReg"}, {"spreading": "SIGReg", "spreading_weight": 0.5}]
    keys = {store.digest(pretraining.training_inputs(with_training(tiny, **more), noise)) for more in ({}, *changed)}
    assert len(keys) == 4


@pytest.mark.parametrize("after", [3, 12, 17])  # before the first checkpoint, between two, after the last
def test_an_interrupted_run_continues_bit_by_bit(tiny, noise, tmp_path, monkeypatch, after, provoked):
    whole = run(tiny, noise, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, after)
        with pytest.raises(KeyboardInterrupt, match="run this again, and it goes on from its last checkpoint"):
            run(tiny, noise, tmp_path / "broken")
    seen, make = [], pretraining.training_batch
    monkeypatch.setattr(pretraining, "training_batch", lambda step, *rest: seen.append(step) or make(step, *rest))
    resumed = run(tiny, noise, tmp_path / "broken")
    assert seen == list(range((after + 1) // 5 * 5, 20)), "it goes on from the last checkpoint"
    assert resumed[0] == whole[0]
    assert same_bits(resumed[1], whole[1])
    provoked("Ctrl-C", "training")


def test_kept_rows_are_kept_to_the_last_digit(tiny, noise, tmp_path, monkeypatch, provoked):
    """Also when a second run stopped before it wrote anything."""
    settings = with_training(tiny, learning_rate=1e-9 / 3)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            run(settings, noise, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(pretraining, "training_step", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(settings, noise, tmp_path)
        assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before[:5]
    (tmp_path / "checkpoint.pt").unlink()
    for _ in range(2):  # nothing to keep: the second time the file is there and empty
        with monkeypatch.context() as patch:
            patch.setattr(pretraining, "training_step", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                run(settings, noise, tmp_path)
        assert (tmp_path / "metrics.jsonl").read_text() == ""
    provoked("an error in a step", "training", 4)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_stops_early_is_the_beginning_of_the_whole_run(tiny, noise, tmp_path, monkeypatch, interrupted):
    """Bit by bit, with the schedules of all steps; and the whole run goes on from there."""
    states = []
    settings = with_training(tiny, watch_every=1)
    (tmp_path / "whole").mkdir()
    look = lambda _, model: states.append({name: x.clone() for name, x in model.state_dict().items()})  # noqa: E731
    whole = pretraining.pretrain(settings, noise, tmp_path / "whole", look)
    (tmp_path / "part").mkdir()
    if interrupted:
        with monkeypatch.context() as patch:
            interrupt_after(patch, 6)
            with pytest.raises(KeyboardInterrupt):
                pretraining.pretrain(settings, noise, tmp_path / "part", stop=8)
    part = pretraining.pretrain(settings, noise, tmp_path / "part", stop=8)
    wanted = checkpoints.read_metrics(tmp_path / "whole")
    found = checkpoints.read_metrics(tmp_path / "part")
    told = [*COLUMNS, "spread", "effective_rank", "quick_probe"]
    pd.testing.assert_frame_equal(found[told], wanted[told].iloc[:8])
    assert same_bits(part.state_dict(), states[7])
    again = pretraining.pretrain(settings, noise, tmp_path / "part")
    assert same_bits(again.state_dict(), whole.state_dict())
    pd.testing.assert_frame_equal(checkpoints.read_metrics(tmp_path / "part")[told], wanted[told])


def test_a_checkpoint_is_replaced_in_one_move(tiny, noise, tmp_path, monkeypatch, provoked):
    """A disk that fills up while a checkpoint is written leaves the one before, and nothing of the torn one."""
    write, written = Path.write_bytes, []

    def fill_the_disk(path, content):
        written.append(path)
        if len(written) == 1:
            return write(path, content)
        write(path, content[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/checkpoint.pt'"):
        pretraining.pretrain(tiny, noise, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 5
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "metrics.jsonl"}
    provoked("an error while a checkpoint is written", "training")


def test_a_stored_run_survives_an_interruption(pipelines, cache, monkeypatch, provoked):
    """Through the store: the finished folder is the one that an uninterrupted run leaves."""
    pipeline = pipelines[1]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            pretraining.run(pipeline.settings, pipeline.clips)
    seen = []
    folder = pretraining.run(pipeline.settings, pipeline.clips, lambda folder, model: seen.append(folder))
    assert set(seen) == {folder.with_name(folder.name + ".partial")}
    assert folder.name == pipeline.run.name
    for name in ("encoder.safetensors", "predictor.safetensors"):
        assert (folder / name).read_bytes() == (pipeline.run / name).read_bytes()
    assert not (folder / "checkpoint.pt").exists()
    card = store.card(folder)
    assert (card["steps"], card["clips"], card["seed"], card["processes"]) == (20, 320, 0, 1)
    provoked("Ctrl-C", "training")


def test_the_last_checkpoint_stays_until_the_result_is_in_its_place(pipelines, cache, monkeypatch, provoked):
    """A kill between the last step and the end must not cost the run."""
    pipeline = pipelines[1]
    with monkeypatch.context() as patch:
        patch.setattr(store, "_card", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretraining.run(pipeline.settings, pipeline.clips)
    monkeypatch.setattr(pretraining, "training_step", None)  # whoever trains again fails
    folder = pretraining.run(pipeline.settings, pipeline.clips)
    assert (folder / "encoder.safetensors").read_bytes() == (pipeline.run / "encoder.safetensors").read_bytes()
    provoked("an error after the last step", "training")


def test_a_stored_run_keeps_the_encoder_that_was_watched(pipelines):
    pipeline = pipelines[1]
    encoder = features.load_encoder(pipeline.run / "encoder.safetensors", pipeline.settings)
    last = checkpoints.read_metrics(pipeline.run).iloc[-1]
    watched = pipeline.clips.centre[: len(pipeline.clips.training)]
    wanted = features.spread_and_rank(features.encode(encoder, watched))
    assert (last.spread, last.effective_rank) == pytest.approx(wanted, rel=1e-5)


def test_any_setting_or_data_makes_another_key(pipelines):
    settings, clips = pipelines[1].settings, pipelines[1].clips
    keys = {
        store.digest(pretraining.training_inputs(s, c))
        for s, c in (
            (settings, clips),
            (settings, pipelines[2].clips),
            (with_training(settings, seed=9), clips),
            (with_training(settings, crop=(0.5, 1.0)), clips),
            (with_training(settings, mask=MaskConfig(ratio=0.5)), clips),
            (replace(settings, model=replace(settings.model, depth=2)), clips),
            (replace(settings, clip=replace(settings.clip, frames_per_second=4.0)), clips),
            (replace(settings, recipe="published"), clips),
            (replace(settings, recipe="published", published=("mask_runs",)), clips),
        )
    }
    assert len(keys) == 9


class HalfLoss(JEPA):
    """An objective of one's own."""

    version = 3

    def distance(self, predicted, wanted):
        return super().distance(predicted, wanted) / 2


def test_a_stop_and_an_objective_make_other_keys(tiny, noise):
    class Later(HalfLoss):
        version = 4

    Later.__name__ = "HalfLoss"
    variants = [{}, {"stop": 5}, {"stop": 6}, {"objective": HalfLoss}, {"objective": Later}]
    variants += [{"objective": type("Other", (HalfLoss,), {})}, {"stop": 5, "objective": HalfLoss}]
    keys = {store.digest(pretraining.training_inputs(tiny, noise, **more)) for more in variants}
    assert len(keys) == len(variants)


def test_an_objective_is_trained_and_found_again(tiny, noise, cache, monkeypatch):
    usual, own = pretraining.run(tiny, noise), pretraining.run(tiny, noise, objective=HalfLoss)
    losses, halves = (checkpoints.read_metrics(folder).loss for folder in (usual, own))
    assert halves[0] == pytest.approx(losses[0] / 2)
    assert store.card(own)["inputs"]["objective"] == ["HalfLoss", 3]
    early = pretraining.run(tiny, noise, stop=5, objective=HalfLoss)
    assert checkpoints.read_metrics(early).loss.tolist() == halves[:5].tolist()
    assert (store.card(early)["steps"], store.card(early)["clips"]) == (5, 80)
    monkeypatch.setattr(pretraining, "training_step", None)  # whoever trains again fails
    assert pretraining.run(tiny, noise) == usual
    assert pretraining.run(tiny, noise, objective=HalfLoss) == own
    assert pretraining.run(tiny, noise, stop=5, objective=HalfLoss) == early


# ---------------------------------------------------------------- threads


def test_the_choice_of_threads_is_in_the_card_and_not_in_the_weights(tiny, noise, cache, tmp_path, monkeypatch):
    """The real loop is measured with every number, on a model that is thrown away."""
    losses, weights = run(tiny, noise, tmp_path / "alone")
    rates = []

    def choose(rate):
        rates.extend([rate(), rate()])
        return torch.get_num_threads(), {"1": 10.0, "2": 20.0}

    monkeypatch.setattr(pretraining, "WORTH_MEASURING", tiny.training.steps)
    monkeypatch.setattr(machine, "best_threads", choose)
    folder = pretraining.run(tiny, noise)
    card = store.card(folder)
    assert (card["threads"], card["clips_per_second_by_threads"]) == (torch.get_num_threads(), {"1": 10.0, "2": 20.0})
    assert checkpoints.read_metrics(folder).loss.tolist() == losses
    saved = load_file(folder / "encoder.safetensors")
    assert all(torch.equal(value, weights[f"encoder.{name}"]) for name, value in saved.items())
    assert len(rates) == 2


def test_a_run_computes_with_the_threads_that_were_chosen(tiny, noise, cache, monkeypatch):
    before, seen, step = torch.get_num_threads(), set(), pretraining.training_step
    monkeypatch.setattr(pretraining, "WORTH_MEASURING", tiny.training.steps)
    monkeypatch.setattr(machine, "best_threads", lambda rate: (before + 1, {}))
    monkeypatch.setattr(pretraining, "training_step", lambda *given: seen.add(torch.get_num_threads()) or step(*given))
    assert store.card(pretraining.run(tiny, noise))["threads"] == before + 1
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_a_short_run_is_not_worth_measuring(tiny, noise, monkeypatch):
    monkeypatch.setattr(machine, "best_threads", None)  # whoever measures fails
    assert tiny.training.steps < pretraining.WORTH_MEASURING
    assert pretraining.chosen_threads(tiny, noise) == (torch.get_num_threads(), {})


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("which", [0, 1])
def test_a_checkpoint_of_another_geometry_is_refused(tiny, noise, tmp_path, which, provoked):
    settings = with_training(tiny, clips=80)
    pretraining.pretrain(settings, noise, tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}/checkpoint.pt: made for another geometry.*; .*delete") as error:
        pretraining.pretrain(other_geometries(settings)[which], noise, tmp_path)
    assert ("'width': 24", "positions is [64, 24], these settings want [256, 24]")[which] in str(error.value)
    provoked("a checkpoint of another network", "training")


class Malicious:
    """Whoever unpickles this runs a command."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_checkpoint_can_not_run_code(tiny, noise, tmp_path, provoked):
    trace = tmp_path / "trace"
    torch.save({"step": 5, "model": Malicious(trace)}, tmp_path / "checkpoint.pt")
    with pytest.raises(Exception, match="(?i)weights.only"):
        pretraining.pretrain(tiny, noise, tmp_path)
    assert not trace.exists()
    torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    assert trace.exists(), "a file that does nothing anyway would test nothing"
    provoked("a checkpoint that holds code", "training")


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_before_it_spoils_anything(
    tiny, noise, tmp_path, monkeypatch, what, provoked
):
    forward, models = JEPA.forward, []

    def break_down(self, *rest):
        models.append((self, {name: value.clone() for name, value in self.state_dict().items()}))
        loss, similarity = forward(self, *rest)
        if len(models) < 8:
            return loss, similarity
        no_slope = (self.encoder.norm.bias * 0).sqrt().sum()  # zero; its gradient is not a number
        return (loss * math.nan if what == "loss" else loss + no_slope), similarity

    monkeypatch.setattr(JEPA, "forward", break_down)
    with pytest.raises(FloatingPointError) as error:
        pretraining.pretrain(tiny, noise, tmp_path)
    message = str(error.value)
    assert message.startswith("step 7: loss nan" if what == "loss" else "step 7: loss 0.")
    assert f"the last good checkpoint is in {tmp_path}; lower training.learning_rate" in message
    videos, _ = fitting.batch_numbers(7, 10, tiny.training)
    assert f"; videos of this step: {', '.join(f'/videos/{number}.mp4' for number in videos)}; the last" in message
    model, before = models[-1]
    assert same_bits(model.state_dict(), before), "the bad step changed a weight"
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 5
    assert all(torch.isfinite(value).all() for value in state["model"].values())
    assert all(math.isfinite(json.loads(row)["loss"]) for row in (tmp_path / "metrics.jsonl").read_text().splitlines())
    provoked("a number that is not finite", "training")


def test_a_mask_that_hides_everything_stops_at_once(tiny, noise, tmp_path):
    settings = with_training(tiny, mask=MaskConfig(ratio=0.99))
    with pytest.raises(ValueError, match="share of 0.99 hides 16 of 16 cells"):
        pretraining.pretrain(settings, noise, tmp_path)


def test_what_is_prefetched_comes_in_order_and_from_a_thread_that_computes_alone():
    threads = torch.get_num_threads()
    found = list(pretraining.prefetch(lambda step: (step, torch.get_num_threads()), range(3, 6)))
    assert found == [(3, 1), (4, 1), (5, 1)]
    assert torch.get_num_threads() == threads
