"""Attention of the attentive probe: the weights are the head's own, and the figure tells what the head says."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from figures import attention
from safetensors.torch import save_file

from picojepa import probing
from picojepa.architecture import new_encoder
from picojepa.features import encode
from picojepa.probing import AttentiveHead, Task, head_scores

CLASSES = ("archery", "air_drumming", "with_none")


@pytest.fixture
def head():
    """A head of three attention heads whose parameters, biases too, are far from their start."""
    torch.manual_seed(0)
    head = AttentiveHead(12, len(CLASSES), heads=3).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter))
    return head


@pytest.fixture
def task():
    """Six test videos of two classes; the third class has none."""
    answers = torch.tensor([0, 0, 0, 1, 1, 1])
    return Task(CLASSES, np.arange(4), np.arange(4, 10), torch.tensor([0, 1, 0, 1]), answers)


def data_of(figure) -> dict:
    """What the script of a figure gets."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', figure.data, re.DOTALL)[1])


def test_weights_times_values_are_the_heads_output(head):
    tokens = torch.randn(5, 7, 12)
    weights = attention.attention_weights(head, tokens)
    assert weights.shape == (5, 3, 7)
    to_value, add_value = head.attention.in_proj_weight.chunk(3)[2], head.attention.in_proj_bias.chunk(3)[2]
    values = (head.norm(tokens) @ to_value.T + add_value).unflatten(-1, (3, 4)).transpose(1, 2)  # (n, H, N, D / H)
    pooled = (weights.unsqueeze(2) @ values).flatten(1)
    logits = head.linear(head.attention.out_proj(pooled))
    assert torch.allclose(logits, head(tokens), atol=1e-5)


def test_weights_are_those_of_the_module(head):
    tokens = torch.randn(5, 7, 12)
    x = head.norm(tokens)
    _, wanted = head.attention(head.query.expand(5, -1, -1), x, x, average_attn_weights=False)
    assert torch.allclose(attention.attention_weights(head, tokens), wanted.squeeze(2), atol=1e-6)


def test_the_heads_are_those_of_the_stored_probes(tiny, noise, task, cache, tmp_path, monkeypatch):
    """What they say of the test videos is what the tables of predictions hold, and none is trained again."""
    settings, run = replace(tiny, probe=replace(tiny.probe, attentive_epochs=3)), tmp_path / "run"
    task = replace(task, train_labels=torch.tensor([0, 1, 0, 2]))
    run.mkdir()
    pretrained = new_encoder(settings.model, settings.grid, 3)
    save_file(pretrained.state_dict(), run / "encoder.safetensors")
    encoders = {"random weights": new_encoder(settings.model, settings.grid, 0), "pre-trained": pretrained}
    probing.probe_run(settings, noise, run, task)
    monkeypatch.setattr(probing, "probe_encoder", None)  # whoever trains again fails
    heads = attention.trained_heads(settings, noise, run, task)
    assert list(heads) == list(encoders)
    table = probing.probe_run(settings, noise, run, task)
    for name, encoder in encoders.items():
        wanted = table[(table.features == name) & (table.probe == "attentive")].filter(regex="^p_").to_numpy()
        scores = head_scores(heads[name], encode(encoder, noise.centre[task.test], pool=False))
        np.testing.assert_allclose(scores, wanted, atol=1e-6)
    assert not torch.equal(heads["random weights"].query, heads["pre-trained"].query)


def test_right_and_wrong_clips_are_chosen_by_turns(task):
    right = [False, True, True, True, False, False]
    assert attention.chosen(task, right).tolist() == [1, 4]
    assert attention.chosen(task, [False] * 6).tolist() == [0, 3]  # none is right: the first video
    assert attention.chosen(task, right, most=1).tolist() == [1]


def test_what_is_told_of_a_clip(head, task):
    tokens = torch.randn(2, 8, 12)
    told = attention.looked(head, tokens, ["archery", "air_drumming"], task, slices=4)
    for x, answer, name in zip(tokens, told, ("archery", "air_drumming"), strict=True):
        scores = head(x[None])[0].softmax(-1)
        assert answer["said"] == CLASSES[scores.argmax()].replace("_", " ")
        assert answer["right"] == (CLASSES[scores.argmax()] == name)
        assert answer["certainty"] == pytest.approx(100 * scores.max().item(), abs=0.06)
        assert np.shape(answer["weights"]) == (4, 8)  # the mean, and three heads
        assert np.sum(answer["weights"], 1) == pytest.approx([1e6] * 4, abs=8)
        assert np.sum(answer["slices"], 1) == pytest.approx([100] * 4, abs=0.3)
        pairs = np.reshape(answer["weights"], (4, 4, 2)).sum(2) / 1e4
        assert np.allclose(pairs, answer["slices"], atol=0.06)
        kept = [i for i in range(8) if i != np.argmax(answer["weights"][0])]
        assert answer["less"] == pytest.approx(100 * head(x[None, kept]).softmax(-1).max().item(), abs=0.06)


def test_the_figure_holds_all_choices_and_a_text(tiny, noise, task):
    encoders = {
        name: new_encoder(tiny.model, tiny.grid, seed) for seed, name in enumerate(("random weights", "pre-trained"))
    }
    heads = {name: AttentiveHead(tiny.model.width, len(CLASSES), tiny.model.heads).eval() for name in encoders}
    figure = attention.explorer(tiny, noise, task, encoders, heads, np.array([0, 3]))
    data = data_of(figure)
    assert [clip["name"] for clip in data["clips"]] == ["archery", "air drumming"]
    assert [encoder["name"] for encoder in data["encoders"]] == ["random weights", "pre-trained"]
    assert len(data["views"]) == 1 + tiny.model.heads
    first = data["encoders"][1]["clips"][0]
    assert np.shape(first["weights"]) == (len(data["views"]), np.prod(tiny.grid))
    assert data["start"] == np.argmax(first["weights"][0]) // 16 * tiny.model.tubelet
    assert f"archery: answered {first['said']}" in re.search(r'<img alt="([^"]*)"', figure.data)[1]
