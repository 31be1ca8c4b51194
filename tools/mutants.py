"""Break the package on purpose, one fault at a time, and show that the tests notice: ``make mutants``.

Each fault is a replacement of text in a temporary copy of the project; the tests that should notice run
against the copy. Before that they must pass on an unbroken copy. Exit code 1 if a fault survives.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("picojepa", "tests", "tools", "data", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "cache", ".*")


@dataclass(frozen=True)
class Mutant:
    """One fault: what it is, where, the text before and after, and the test files that should notice."""

    fault: str
    module: str
    old: str
    new: str
    tests: str  # names without test_ and .py, separated by spaces; default: the module's own

    def mutate(self, source: str) -> str:
        """The broken source; the text to replace must be there exactly once."""
        if (found := source.count(self.old)) != 1:
            raise ValueError(f"{self.fault}: the text is found {found} times in {self.module}.py: {self.old!r}")
        return source.replace(self.old, self.new)


EMBED = "        x = self.embed(x) + positions\n        for block in self.blocks:\n            x = block(x)\n        return self.norm(x)"
KEEP = """        if keep is not None:
            x, positions = gather_tokens(x, keep), gather_tokens(positions, keep)  # (B, M, ...)
"""
STEP = "        optimizer.step()\n        momentum = cosine(step / config.steps, *config.ema)\n"
FOLLOW = "        follow(model.target_encoder, model.encoder, momentum)\n"


def mutant(fault: str, module: str, old: str, new: str, tests: str = "") -> Mutant:
    """Shorthand for a row of `MUTANTS`."""
    return Mutant(fault, module, old, new, tests or module)


MUTANTS = (
    mutant(
        "mask in another order than the tokens",
        "masking",
        "return _split(visible.unsqueeze(1).expand(-1, slices, -1))",
        "return _split(visible.unsqueeze(2).expand(-1, -1, slices))",
    ),
    mutant(
        "tube not constant in time",
        "masking",
        "return _split(visible.unsqueeze(1).expand(-1, slices, -1))",
        "return _split(torch.stack([visible.roll(s, 1) for s in range(slices)], 1))",
    ),
    mutant(
        "context and target swapped",
        "masking",
        "Mask(order[:, :shown].contiguous(), order.gather(1, first_hidden))",
        "Mask(order.gather(1, first_hidden), order[:, :shown].contiguous())",
    ),
    mutant("six blocks for eight", "masking", "SHORT_RANGE = (8, 0.15)", "SHORT_RANGE = (6, 0.15)"),
    mutant(
        "hidden tokens are encoded too",
        "architecture",
        KEEP + EMBED,
        EMBED.replace("return self.norm(x)", "return self.norm(x if keep is None else gather_tokens(x, keep))"),
    ),
    mutant(
        "mask token is not trained",
        "architecture",
        "nn.Parameter(torch.zeros(model.predictor_width))",
        "nn.Parameter(torch.zeros(model.predictor_width), requires_grad=False)",
        "pretraining",
    ),
    mutant(
        "predictor is not told where",
        "architecture",
        "self.positions[target_numbers]",
        "self.positions[0 * target_numbers]",
    ),
    mutant(
        "no stop-gradient", "pretraining", "torch.is_grad_enabled() and not stop_gradient", "torch.is_grad_enabled()"
    ),
    mutant(
        "EMA the wrong way round",
        "pretraining",
        "list(source.parameters()), 1 - momentum)",
        "list(source.parameters()), momentum)",
    ),
    mutant(
        "EMA before the optimiser step",
        "pretraining",
        STEP + FOLLOW,
        STEP.split("\n", 1)[1] + FOLLOW + STEP.split("\n", 1)[0] + "\n",
    ),
    mutant(
        "targets are not normalised",
        "pretraining",
        "features = F.layer_norm(features, features.shape[-1:])",
        "features = features * 1.0",
    ),
    mutant("squared for absolute error", "pretraining", "F.l1_loss(", "F.mse_loss("),
    mutant("weight decay on biases", "pretraining", '"decays": False, "weight_decay": 0.0}', '"decays": True}'),
    mutant(
        "gradients are not clipped",
        "pretraining",
        'for p in group["params"]], config.gradient_clip',
        'for p in group["params"]], 1e9',
    ),
    mutant(
        "sampler ignores the epoch",
        "pretraining",
        "np.random.default_rng([config.seed, epoch])",
        "np.random.default_rng([config.seed])",
    ),
    mutant(
        "always the same clip of a video",
        "pretraining",
        "clips[videos, epochs % clips.shape[1]]",
        "clips[videos, 0 * epochs]",
    ),
    mutant("optimiser forgotten on resuming", "pretraining", 'optimizer.load_state_dict(state["optimizer"])', "pass"),
    mutant(
        "labels shifted by one",
        "data",
        "[classes.index(label) for label in labels]",
        "[(classes.index(label) + 1) % len(classes) for label in labels]",
    ),
    mutant(
        "quarters dealt like cards", "data", "np.arange(len(of_class)) // run + 1", "np.arange(len(of_class)) % 4 + 1"
    ),
    mutant(
        "normalised without deviation",
        "data",
        "(clips.permute(0, 2, 1, 3, 4) - mean) / std",
        "clips.permute(0, 2, 1, 3, 4) - mean",
    ),
    mutant(
        "padded by the last frame but one",
        "data",
        "np.arange(clip.frames), end - 0.5 / own_rate)",
        "np.arange(clip.frames), end - 1.5 / own_rate)",
    ),
    mutant(
        "clip half a second late",
        "data",
        "first = start + position * (last_start - start) + 0.5 / own_rate",
        "first = start + position * (last_start - start) + 0.5",
    ),
    mutant(
        "unreadable videos become black clips",
        "data",
        'np.load(folder / "done.npy") == READ',
        'np.load(folder / "done.npy") >= READ',
    ),
    mutant(
        "probe learns from validation videos",
        "probing",
        'train = clips.select(ours & (videos.split == "pretrain")',
        'train = clips.select(ours & (videos.split != "")',
    ),
    mutant("majority vote sums probabilities", "ensemble", "counts = ballots(scores)", "counts = scores.sum(0)"),
    mutant("another rule for ties", "ensemble", "return scores.sum(0)", "return scores.max(0)"),
    mutant(
        "General learns from one quarter",
        "ensemble",
        'quarter > 0 if member == "General"',
        'quarter == 1 if member == "General"',
    ),
    mutant(
        "a point is its own neighbour", "tsne", "np.fill_diagonal(distance, np.inf)", "np.fill_diagonal(distance, 0.0)"
    ),
    mutant("another interval than Wilson's", "results", 'method="wilson"', 'method="exact"'),
    mutant("key without code", "store", '"code": code_digest(stage.split(".")[0])', '"code": ""'),
    mutant("docstrings count as code", "store", "node.body = node.body[1:] or [ast.Pass()]", "pass"),
    mutant("no lock between processes", "store", 'with FileLock(f"{folder}.lock"):', "if True:"),
)


def run_tests(names: str, change: Mutant | None = None, stop: bool = True) -> tuple[int, str]:
    """Run test files against a copy of the project, broken if asked; return pytest's exit code and its last lines."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            shutil.copytree(source, copy / name, ignore=LEFT_OUT) if source.is_dir() else shutil.copy(
                source, copy / name
            )
        if change:
            path = copy / "picojepa" / f"{change.module}.py"
            path.write_text(change.mutate(path.read_text()))
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PICOJEPA_")}
        environment |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        check = "import sys, picojepa; sys.exit(picojepa.__file__ != sys.argv[1])"
        command = [sys.executable, "-c", check, str(copy / "picojepa" / "__init__.py")]
        subprocess.run(command, env=environment, cwd=copy, check=True)  # the copy is what is tested
        files = [f"tests/test_{name}.py" for name in names.split()]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", *["-x"] * stop, *files]
        done = subprocess.run(command, env=environment, cwd=copy, capture_output=True, text=True)
    return done.returncode, done.stdout


def trial(change: Mutant) -> tuple[Mutant, bool, str]:
    """Whether a fault is noticed, and by which test."""
    code, output = run_tests(change.tests, change)
    failed = re.findall(r"^(?:FAILED|ERROR) tests/(\S+)", output, re.MULTILINE)
    return change, code == 1 and bool(failed), failed[0] if failed else f"pytest's exit code {code}"


def main() -> int:
    """Run all mutants, or those whose description holds the words given on the command line."""
    chosen = [m for m in MUTANTS if " ".join(sys.argv[1:]) in m.fault]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        names = sorted({name for m in chosen for name in m.tests.split()})
        for code, output in pool.map(lambda name: run_tests(name, stop=False), names):
            if code:
                print(output[-2000:], "The tests fail without any fault: mend that first.", sep="\n")
                return 2
        survivors = 0
        for change, caught, by in pool.map(trial, chosen):
            survivors += not caught
            print(f"{'caught  ' if caught else 'SURVIVED'}  {change.fault:40} {by}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} faults are caught.")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
