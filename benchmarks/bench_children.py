"""What `make bench` runs in a fresh Python process; each part imports only what it needs.

Usage: python -m benchmarks.bench_children published ENCODER HEADS VIDEO MEMBER
       python -m benchmarks.bench_children cold ENCODER HEADS VIDEO
       python -m benchmarks.bench_children memory STEPS BATCH
"""

import json
import re
import sys
from pathlib import Path

import torch
import torch.nn.functional as F


def published_clip(path: str, position: float) -> torch.Tensor:
    """A clip as the published code prepares it, (1, 3, 8, 224, 224): frames of full size, resized afterwards."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
    start = int(position * (decoder.metadata.num_frames - 8))
    frames = decoder.get_frames_in_range(start, start + 8).data.float() / 255  # (8, 3, H, W)
    frames = F.interpolate(frames, (224, 224), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((frames - mean.view(3, 1, 1)) / std.view(3, 1, 1)).transpose(0, 1).unsqueeze(0)


@torch.no_grad()
def published(encoder: str, heads: str, path: str, member: str) -> str:
    """One video, one head: the published inference script, which always runs on the CPU."""
    from safetensors.torch import load_file

    from picojepa.architecture import Encoder
    from picojepa.config import settings

    model, weights = Encoder(settings("paper", "published")).eval(), load_file(heads)
    model.load_state_dict(load_file(encoder))
    head = torch.nn.Linear(192, 4)
    head.load_state_dict({name: weights[f"{member}.linear.{name}"] for name in ("weight", "bias")})
    return str(head(model(published_clip(path, 0.5)).mean(1)).softmax(-1).tolist())


def cold(encoder: str, heads: str, path: str) -> str:
    """One video, all heads and votes."""
    from safetensors.torch import load_file

    from picojepa import config, ensemble
    from picojepa.features import load_encoder
    from picojepa.probing import LinearHead

    settings, weights, members = config.settings("paper", "vjepa"), load_file(heads), {}
    for member in ensemble.MEMBERS:
        members[member] = LinearHead(settings.model.width, len(config.LABELLED_CLASSES)).eval()
        state = {name: weights[f"{member}.{name}"] for name in members[member].state_dict()}
        members[member].load_state_dict(state)
    model = load_encoder(Path(encoder), settings)
    return str(ensemble.classify_file(path, settings, model, members, config.LABELLED_CLASSES).answer.to_dict())


def memory(steps: str, batch: str) -> str:
    """Train for some steps; resident memory in GB at the peak, after two steps and at the end."""
    import resource

    import psutil

    from benchmarks.bench_steps import Rung, Trainer
    from picojepa import config

    settings = config.settings("paper", "vjepa")
    clips = torch.randn(int(batch), 3, settings.clip.frames, settings.clip.size, settings.clip.size)
    trainer, resident = Trainer(Rung("", "", settings), clips), []
    for _ in range(int(steps)):
        trainer.step()
        resident.append(psutil.Process().memory_info().rss / 1e9)
    if (status := Path("/proc/self/status")).exists():  # getrusage would know the parent's memory too
        peak = int(re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)[1]) * 1024 / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts in bytes
    return json.dumps({"memory_gb_peak": peak, "memory_gb_first": resident[1], "memory_gb_last": resident[-1]})


if __name__ == "__main__":
    parts = {"published": published, "cold": cold, "memory": memory}
    print(parts[sys.argv[1]](*sys.argv[2:]))
