"""One video file through encoder and heads in a fresh Python process; each part imports only what it needs.

Usage: python -m benchmarks.processes published ENCODER HEADS VIDEO MEMBER
       python -m benchmarks.processes cold ENCODER HEADS VIDEO
"""

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

    paper, weights = settings("paper", "published"), load_file(heads)
    model = Encoder(paper.model, paper.grid).eval()
    model.load_state_dict(load_file(encoder))
    head = torch.nn.Linear(192, 4)
    head.load_state_dict({name: weights[f"{member}.linear.{name}"] for name in ("weight", "bias")})
    return str(head(model(published_clip(path, 0.5)).mean(1)).softmax(-1).tolist())


def cold(encoder: str, heads: str, path: str) -> str:
    """One video, all heads and votes."""
    from safetensors.torch import load_file

    from picojepa import config, ensemble
    from picojepa.classify import classify_file
    from picojepa.features import load_encoder
    from picojepa.probing import LinearHead
    from standin import LABELLED_CLASSES

    settings, weights, members = config.settings("paper", "vjepa"), load_file(heads), {}
    for member in ensemble.MEMBERS:
        members[member] = LinearHead(settings.model.width, len(LABELLED_CLASSES)).eval()
        state = {name: weights[f"{member}.{name}"] for name in members[member].state_dict()}
        members[member].load_state_dict(state)
    model = load_encoder(Path(encoder), settings)
    return str(classify_file(path, settings, model, members, LABELLED_CLASSES).answer.to_dict())


if __name__ == "__main__":
    parts = {"published": published, "cold": cold}
    print(parts[sys.argv[1]](*sys.argv[2:]))
