"""The paper's future work, small machines: one member and the whole ensemble, exported, on one core.

A *member* is encoder + General's head, the *ensemble* encoder once + the heads of the four quarters + their vote. Each
takes the uint8 pixels of one clip and is exported by torch.export, in float32, in bfloat16, and with weights kept as
int8 (one scale a row, multiplied back before use, so that only the file shrinks). PyTorch's own int8, where matrix
products are done in integers too, is tried as well: what cannot be exported is run as it is, and the card says why.

Every number is that of a fresh process with one thread. On a machine that does other work the times mean nothing (the
card keeps the load average):

OMP_NUM_THREADS=1 python -m evidence.studies edge --again
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evidence.experiments import run_of
from evidence.studies import Study
from picojepa import data, ensemble, probing
from picojepa.architecture import Encoder
from picojepa.clips import Clips, normalise
from picojepa.config import Settings
from picojepa.features import load_encoder
from picojepa.probing import LinearHead

WARM, CALLS = 30, 300  # calls before the clock starts, and on the clock
CHILD = """
import json, pathlib, re, resource, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
def memory():  # peak, MB; Linux's getrusage counts from the size of the process that started this one
    if (status := pathlib.Path("/proc/self/status")).exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS, in bytes
path, clips, warm, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
bare, start = memory(), time.perf_counter()
with torch.no_grad():
    model = torch.export.load(path).module() if path.endswith(".pt2") else torch.load(path, weights_only=False)
    clips, seconds = torch.load(clips), []
    model(clips[:1])
    first = time.perf_counter() - start
    for call in range(warm + calls):
        clip, begin = clips[call % len(clips)][None], time.perf_counter()
        model(clip)
        seconds.append(time.perf_counter() - begin)
    answers = [[x.tolist() for x in model(clip[None])] for clip in clips]
print(json.dumps({"seconds": seconds[warm:], "first": first, "memory": memory(), "bare": bare, "answers": answers}))
"""


class Committee(nn.Module):
    """Encoder and one or several heads: uint8 clip (1, T, 3, H, W) -> decision (1,) and certainty (1, classes).

    One head decides alone. Several vote; ties go to the larger sum of probabilities, as in `ensemble.majority_vote`.
    """

    def __init__(self, encoder: Encoder, heads: list[LinearHead]) -> None:
        super().__init__()
        self.encoder, self.heads = copy.deepcopy(encoder), nn.ModuleList(copy.deepcopy(heads))

    def forward(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The class that is chosen, and the mean of the heads' probabilities."""
        features = self.encoder(normalise(clip).to(self.encoder.positions.dtype)).mean(1)
        scores = torch.stack([head(features).float().softmax(-1) for head in self.heads])  # (members, 1, classes)
        votes = nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).sum(0)
        preferred = scores.sum(0).masked_fill(votes < votes.max(), -1.0)
        return preferred.argmax(-1), scores.mean(0)


class Int8Linear(nn.Module):
    """A linear layer whose weights are kept as int8, with one scale for each output."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.detach().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("weight", (layer.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., outputs)."""
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def int8_weights(model: nn.Module) -> nn.Module:
    """A copy in which every linear layer keeps its weights as int8."""
    found = copy.deepcopy(model)
    for parent in list(found.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, Int8Linear(layer))
    return found


def int8_products(model: nn.Module) -> nn.Module:
    """A copy whose matrix products PyTorch does in int8, with the scale of each input found as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated; its successor is another package, torchao
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float32": copy.deepcopy,
    "bfloat16": lambda model: copy.deepcopy(model).bfloat16(),
    "int8 weights": int8_weights,
    "int8 products": int8_products,
}


def saved(model: nn.Module, clip: Tensor, folder: Path) -> tuple[Path, str]:
    """Export a model to a file; where that fails, pickle it, and say why."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            example = clip.clone()  # the file keeps it, and a view would bring all clips along
            torch.export.save(torch.export.export(model, (example,)), folder / "model.pt2")
        return folder / "model.pt2", "exported"
    except Exception as error:  # any kind: what an exporter cannot do, it says in many ways
        torch.save(model, folder / "model.pt")
        return folder / "model.pt", f"not exported: {type(error).__name__}: {str(error).splitlines()[0]}"


def fresh_process(path: Path, clips: Path, calls: int = CALLS) -> dict[str, Any]:
    """Load and run a saved model in a process of its own, with one thread."""
    command = [sys.executable, "-c", CHILD, str(path), str(clips), str(WARM), str(calls)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if run.returncode:
        raise RuntimeError(f"{path.name} does not run in a fresh process:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def measure(model: nn.Module, change: str, clips: Tensor, calls: int = CALLS) -> tuple[dict, np.ndarray, np.ndarray]:
    """One variant of a model: facts, decisions (n,), and probabilities (n, classes), as a fresh process gave them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(clips, folder / "clips.pt")
        path, how = saved(VARIANTS[change](model).eval(), clips[:1], folder)
        found, size = fresh_process(path, folder / "clips.pt", calls), path.stat().st_size
    median, late = np.quantile(1000 * np.array(found["seconds"]), (0.5, 0.95))
    facts = {
        "precision": change,
        "how": how,
        "file_mb": round(size / 1e6, 3),
        "median_ms": round(float(median), 3),
        "p95_ms": round(float(late), 3),
        "load_and_first_s": round(found["first"], 3),
        "memory_mb": round(found["memory"], 1),
        "memory_of_torch_mb": round(found["bare"], 1),
    }
    decisions, scores = (np.array([answer[i][0] for answer in found["answers"]]) for i in (0, 1))
    return facts, decisions, scores


@torch.no_grad()
def reference(model: nn.Module, clips: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Decisions (n,) and probabilities (n, classes) of the float32 model, not exported."""
    decisions, scores = zip(*(model(clip[None]) for clip in clips), strict=True)
    return torch.cat(decisions).numpy(), torch.cat(scores).numpy()


def edge(base: Settings, clips: Clips, seed: int, calls: int = CALLS) -> dict[str, Any]:
    """Size, latency, memory and decisions of a member and of the ensemble, exported in several precisions."""
    settings, run = run_of("primary", base, clips, seed)
    task = probing.make_task(clips, data.labelled_classes(clips.videos), labelled_only=True)
    pixels, labels = torch.from_numpy(np.array(clips.centre[task.test])), task.test_labels.numpy()
    encoder = load_encoder(run / "encoder.safetensors", settings).cpu()
    heads, rows = ensemble.train_members(settings, clips, run), []
    for name, members in {"member": ("General",), "ensemble": ensemble.PARTIALS}.items():
        model = Committee(encoder, [heads[member] for member in members]).eval()
        wanted, certain = reference(model, pixels)
        same = {"model": name, "parameters": sum(p.numel() for p in model.parameters()), "n": len(labels)}
        for change in VARIANTS:
            facts, decisions, scores = measure(model, change, pixels, calls)
            right, changed = int((decisions == labels).sum()), int((decisions != wanted).sum())
            facts |= {"right": right, "changed_decisions": changed, "decisions": "".join(map(str, decisions))}
            rows.append(same | facts | {"largest_change_of_probability": float(np.abs(scores - certain).max())})
    return {"run": run.name, "calls": calls, "load_average": round(os.getloadavg()[0], 2), "rows": rows}


STUDIES = {"edge": Study("one member and the ensemble, exported, on one core", edge, seeds=(0,))}
