"""Schedules, the order of the videos, and the loop of heads and classifiers against one that is written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evidence.supervision import supervised
from picojepa import fitting, machine, probing
from picojepa.architecture import Encoder
from picojepa.clips import normalise
from picojepa.fitting import TrainingConfig
from picojepa.probing import LinearHead

# ---------------------------------------------------------------- schedules


def test_learning_rate_warms_up_and_falls():
    config = TrainingConfig(clips=1000, batch=10, learning_rate=2.0, final_learning_rate=0.5, warmup=0.2)
    rates = [fitting.learning_rate(step, config) for step in range(100)]
    assert rates[:20] == pytest.approx([2.0 * (s + 1) / 20 for s in range(20)])
    assert rates[20:] == pytest.approx([1.25 + 0.75 * math.cos(math.pi * s / 80) for s in range(80)])


def test_cosine_goes_half_way_and_no_further():
    assert [fitting.cosine(x, 1.0, 3.0) for x in (0, 0.5, 1, 2)] == pytest.approx([1, 2, 3, 3])


def test_gradients_may_be_clipped_after_the_warm_up_only():
    config = TrainingConfig(clips=1000, batch=10, warmup=0.2, gradient_clip=0.7)
    assert {fitting.gradient_limit(step, config) for step in range(100)} == {0.7}
    config = replace(config, clip_warmup=False)
    assert [fitting.gradient_limit(step, config) for step in (0, 19, 20, 99)] == [math.inf, math.inf, 0.7, 0.7]


def test_decay_groups_take_any_module():
    groups = fitting.decay_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), rate=0.5)
    assert [(group["decays"], group["rate"], len(group["params"])) for group in groups] == [
        (True, 0.5, 1),
        (False, 0.5, 3),
    ]


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("batch", [3, 4, 25])
def test_every_epoch_shows_every_video_once(batch):
    config = TrainingConfig(clips=10 * 4 * batch, batch=batch)
    drawn = [fitting.batch_numbers(step, 10, config) for step in range(40)]
    videos, epochs = (np.concatenate(part) for part in zip(*drawn, strict=True))
    assert epochs.tolist() == [place // 10 for place in range(40 * batch)]
    orders = [tuple(videos[epochs == epoch].tolist()) for epoch in range(40 * batch // 10)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(orders)) > 0.9 * len(orders), "every epoch is shuffled anew"
    other = fitting.batch_numbers(0, 10, replace(config, seed=1))[0]
    assert other.tolist() != drawn[0][0].tolist()


def test_a_step_has_a_seed_of_its_own():
    config = TrainingConfig()
    seeds = {fitting.step_seed(step, replace(config, seed=seed)) for step in range(200) for seed in range(5)}
    assert len(seeds) == 1000


# ---------------------------------------------------------------- classifiers


def slow_fit(model, batches, config):
    """AdamW with warm-up, cosine, clipping, and weight decay on the weights of linear layers, written out."""
    named = dict(model.named_parameters())
    matrices = {f"{name}.weight".lstrip(".") for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    first, second = ({name: torch.zeros_like(p) for name, p in named.items()} for _ in range(2))
    warmup = round(config.warmup * config.steps)
    for step, (inputs, labels) in enumerate(batches):
        loss = F.cross_entropy(model(inputs), labels)
        gradients = torch.autograd.grad(loss, list(named.values()))
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        half = math.cos(math.pi * (step - warmup) / (config.steps - warmup))
        rate = config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * (1 + half) / 2
        rate = config.learning_rate * (step + 1) / warmup if step < warmup else rate
        low, high = config.weight_decay
        decay = (low + high) / 2 + (low - high) / 2 * math.cos(math.pi * step / config.steps)
        with torch.no_grad():
            for (name, p), gradient in zip(named.items(), gradients, strict=True):
                g = gradient * min(1.0, config.gradient_clip / (norm + 1e-6))
                p -= rate * decay * p * (name in matrices)
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                corrected = second[name] / (1 - 0.999 ** (step + 1))
                p -= rate * first[name] / (1 - 0.9 ** (step + 1)) / (corrected.sqrt() + 1e-8)


@pytest.mark.parametrize("clip", [1e9, 0.1])
def test_a_classifier_is_fitted_as_a_slow_reference_does(double, clip):
    config = TrainingConfig(clips=12, batch=1, learning_rate=0.1, warmup=0.25, gradient_clip=clip)
    config = replace(config, weight_decay=(0.1, 0.9), precision="float32")
    batches = [(torch.randn(5, 6), torch.randint(3, (5,))) for _ in range(config.steps)]
    ours, slow = (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Dropout(0.0), nn.Linear(4, 3)) for _ in range(2))
    slow.load_state_dict(ours.state_dict())
    before = ours[0].weight.clone()
    assert fitting.fit(ours.eval(), iter(batches), config) is ours
    slow_fit(slow, batches, config)
    for (name, value), wanted in zip(ours.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")
    assert (ours[0].weight - before).abs().min() > 1e-3, "weights that do not move would test nothing"


def test_a_classifier_learns_in_training_mode_and_leaves_in_evaluation_mode():
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            seen.append(self.training)
            return super().forward(x)

    config = TrainingConfig(clips=2, batch=1)
    model = fitting.fit(Watched(3, 2).eval(), [(torch.zeros(1, 3), torch.tensor([0]))] * 2, config)
    assert seen == [True, True]
    assert not model.training


def test_matrix_products_have_the_precision_of_the_settings_and_the_loss_has_float32(monkeypatch):
    monkeypatch.setattr(machine, "fast_bfloat16", lambda: True)
    said, cross_entropy = [], F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda x, y: said.append((made[-1], x.dtype)) or cross_entropy(x, y))
    made = []

    class Watched(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            made.append(out.dtype)
            return out

    for precision in fitting.PRECISIONS:
        config = TrainingConfig(clips=1, batch=1, precision=precision)
        fitting.fit(Watched(3, 2), [(torch.zeros(1, 3), torch.tensor([0]))], config)
    assert said == [(torch.float32, torch.float32), (torch.bfloat16, torch.float32)]


def test_supervised_training_is_that_loop_over_the_clips_of_each_epoch(tiny, noise, monkeypatch):
    """From scratch, with the seed of the probes; rows of the task, not of the list."""
    rows, labels = np.array([7, 2, 5, 4, 9]), torch.tensor([0, 1, 1, 0, 1])
    task = probing.Task(("a", "b"), rows, rows, labels, labels)
    settings = replace(tiny, probe=replace(tiny.probe, supervised_epochs=20, seed=3))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = Encoder(tiny.model, tiny.grid)
        torch.manual_seed(3)
        model = nn.Sequential(encoder, LinearHead(tiny.model.width, 2))
    config = TrainingConfig(clips=96, batch=16, learning_rate=tiny.training.learning_rate, seed=3)
    batches = []
    for step in range(6):
        chosen, epochs = fitting.batch_numbers(step, 5, config)
        clips = np.stack([noise.training[rows[i], epoch % 2] for i, epoch in zip(chosen, epochs, strict=True)])
        batches.append((normalise(torch.from_numpy(clips)), labels[chosen]))
    slow_fit(model, batches, config)
    with torch.no_grad():
        wanted = model(normalise(torch.from_numpy(noise.centre[rows]))).softmax(-1)
    np.testing.assert_allclose(supervised(settings, noise, task), wanted, atol=1e-5)


@pytest.mark.parametrize("steps", [375, 3000])
def test_a_scaled_momentum_leaves_a_hundredth_of_the_random_start(steps):
    first, last = fitting.scaled_momentum(steps)
    left = math.prod(fitting.cosine(step / steps, first, last) for step in range(steps))
    assert last == 1
    assert left == pytest.approx(0.01, rel=0.2)
    assert fitting.scaled_momentum(5) == (0.0, 1.0), "a run too short for any memory"
    config = TrainingConfig(clips=32 * steps, batch=32)
    assert config.momenta == (first, last)
    assert replace(config, ema=(0.5, 0.9)).momenta == (0.5, 0.9)
