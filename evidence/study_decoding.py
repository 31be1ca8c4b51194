"""What the predictor imagines, as pictures (V9).

A linear decoder turns a token's features into its pixels. As in V-JEPA's own figure it is fitted to what the
frozen predictor says of hidden tokens of training clips, and sees nothing else. (It cannot be fitted to the targets:
the slow target encoder of a run is not kept. A decoder of the encoder's own layer-normalised features of the whole
clip stands beside it, as the ceiling and as a second way to read predictions.) All is measured on validation clips,
with four tube masks that are the same for every clip and seed. These tests were fixed before any result was seen (what
was changed after the first look is listed on the page):

- content: error of the best of five baselines minus that of decoded predictions, in percent of the mean clip's error;
- space: the step across the border to visible neighbours, with predictions of another clip (same mask) minus with
  the clip's own, and random weights minus pre-trained, in grey levels of 0 to 255;
- time: the step from the last frame of a token to the first frame of the next one in its cell, that one from another
  clip minus the clip's own; since a frozen picture passes this, also the correlation of the imagined with the true
  change from slice to slice, pre-trained minus random weights.

Letters: n clips, S time slices, C hidden cells, N tokens, P pixels of a token, D width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from evidence.experiments import run_of
from evidence.studies import Study
from picojepa import data, probing
from picojepa.architecture import Encoder, Predictor, gather_tokens, patchify
from picojepa.clips import Clips, normalise
from picojepa.config import Settings
from picojepa.features import encode, load_encoder
from picojepa.jepa import JEPA
from picojepa.masking import Mask, tube

MASKS = 4  # on every validation clip
BASELINES = ("mean clip", "mean clip, recoloured", "nearest visible token", "line from visible pixels")
PREDICTED, RANDOM, FEATURES = "predictions", "random weights: predictions", "features"  # of pre-trained weights, if not
OWN = ("error", "space", "time", "motion")
STORED = {  # what is kept video by video, where it is more than the error
    PREDICTED: (*OWN, "space, another clip's", "time, another clip's"),
    **dict.fromkeys((RANDOM, FEATURES, "mean clip, recoloured", "line from visible pixels"), OWN),
}


def tokens_of(clips: np.ndarray, settings: Settings) -> Tensor:
    """Pixels of every token, float32 (n, N, P), grey levels 0 to 255, from uint8 (n, T, 3, H, W)."""
    model = settings.model
    return patchify(torch.from_numpy(np.array(clips)).permute(0, 2, 1, 3, 4).float(), model.tubelet, model.patch)


def frames_of(tokens: Tensor, settings: Settings) -> Tensor:
    """The way back: (n, N, P) -> (n, 3, T, H, W)."""
    slices, rows, columns = settings.grid
    tubelet, patch = settings.model.tubelet, settings.model.patch
    grid = tokens.reshape(-1, slices, rows, columns, 3, tubelet, patch, patch)
    return grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(len(tokens), 3, slices * tubelet, rows * patch, columns * patch)


def pasted(tokens: Tensor, inside: Tensor, mask: Mask) -> Tensor:
    """Tokens (n, N, P) with the hidden ones, (n, K, P), in their places; one mask (1, K) for all clips."""
    whole = tokens.clone()
    whole[:, mask.target[0]] = inside
    return whole


@dataclass(frozen=True)
class Imagination:
    """A frozen encoder with its predictor."""

    encoder: Encoder
    predictor: Predictor
    shared: bool  # predictions leave out what all tokens of a clip share: the visible ones' mean is put beside them

    @torch.no_grad()
    def features(self, clips: np.ndarray) -> Tensor:
        """Layer-normalised features of all tokens of whole clips, (n, N, D)."""
        found = encode(self.encoder, clips, pool=False)
        return F.layer_norm(found, found.shape[-1:])

    @torch.no_grad()
    def predictions(self, clips: np.ndarray, mask: Mask) -> Tensor:
        """What is predicted of hidden tokens, (n, K, D), with what is shared (n, K, 2 D); one mask for all, or each."""
        parts = []
        for rows in torch.arange(len(clips)).split(64):
            context, target = (m[rows] if len(m) > 1 else m.expand(len(rows), -1) for m in (mask.context, mask.target))
            seen = self.encoder(normalise(torch.from_numpy(np.array(clips[rows.numpy()]))), context)
            told = self.predictor(seen, context, target)
            parts.append(torch.cat([told, seen.mean(1, keepdim=True).expand_as(told)], -1) if self.shared else told)
        return torch.cat(parts)


def shares(settings: Settings) -> bool:
    """Whether the target leaves out what all tokens of a clip share."""
    return settings.training.target == "minus clip mean"


def trained_imagination(settings: Settings, run: Path) -> Imagination:
    """Encoder and predictor of a finished run."""
    predictor = JEPA(settings, 0).predictor
    predictor.load_state_dict(load_file(run / "predictor.safetensors"))
    return Imagination(load_encoder(run / "encoder.safetensors", settings).cpu(), predictor.eval(), shares(settings))


def random_imagination(settings: Settings) -> Imagination:
    """Encoder and predictor as the training of the same seed found them."""
    model = JEPA(settings, settings.training.seed).eval()
    return Imagination(model.encoder, model.predictor, shares(settings))


def fit_decoders(model: Imagination, settings: Settings, clips: np.ndarray) -> tuple[Pipeline, Pipeline]:
    """Linear maps from features, and from predictions, to pixels; each training clip has a mask of its own."""
    pixels, mask = tokens_of(clips, settings), masks(settings, len(clips), seed=1)
    hidden = gather_tokens(pixels, mask.target)
    return fit_decoder(model.features(clips), pixels), fit_decoder(model.predictions(clips, mask), hidden)


def fit_decoder(features: Tensor, pixels: Tensor) -> Pipeline:
    """Ridge regression from features (n, K, D) to pixels (n, K, P).

    Features are whitened first: those of random weights differ so little between clips that a penalty on features as
    they are would wipe out what is in them. Directions in which they do not differ at all are left out.
    """
    known = PCA(1 - 1e-9, whiten=True, svd_solver="covariance_eigh").fit(features.flatten(0, 1).double().numpy())
    white = known.transform(features.flatten(0, 1).double().numpy()).astype(np.float32)
    return make_pipeline(known, Ridge().fit(white, pixels.flatten(0, 1).numpy()))


def decode(decoder: Pipeline, features: Tensor) -> Tensor:
    """Pixels (n, K, P) of features (n, K, D)."""
    found = decoder.predict(features.flatten(0, 1).double().numpy())
    return torch.from_numpy(found).float().clamp(0, 255).reshape(*features.shape[:2], -1)


def masks(settings: Settings, count: int, seed: int = 0) -> Mask:
    """Tube masks of the training's ratio, (count, ...)."""
    return tube(settings.grid, settings.training.mask.ratio, count, torch.Generator().manual_seed(seed))


def nearest_visible(settings: Settings, mask: Mask) -> Tensor:
    """For each hidden token the number of the visible one that is nearest in its time slice, (K,)."""
    slices, rows, columns = settings.grid
    where = torch.stack(torch.unravel_index(torch.arange(slices * rows * columns), settings.grid), 1).float()
    far = torch.tensor([1e3, 1.0, 1.0])  # another slice is never the nearest
    distance = torch.cdist(where[mask.target[0]] * far, where[mask.context[0]] * far)
    return mask.context[0][distance.argmin(1)]


def from_pixels(train: Tensor, tokens: Tensor, settings: Settings, mask: Mask) -> dict[str, Tensor]:
    """What `BASELINES` say of the hidden tokens, each (n, K, P), from training clips and visible pixels (n, N, P)."""
    context, target = mask.context[0], mask.target[0]
    mean = train.mean(0)  # (N, P)
    colours = (tokens - mean)[:, context].reshape(len(tokens), -1, 3, mean.shape[1] // 3).mean((1, 3))  # (n, 3)
    shift = colours.repeat_interleave(mean.shape[1] // 3, 1).unsqueeze(1)  # (n, 1, P)

    def coarse(x: Tensor) -> np.ndarray:
        side = settings.model.patch
        seen = x[:, context].reshape(-1, 3, settings.model.tubelet, side, side).mean(2)
        return F.adaptive_avg_pool2d(seen, 2).reshape(len(x), -1).numpy()

    line = make_pipeline(StandardScaler(), Ridge(alpha=100.0)).fit(coarse(train), train[:, target].flatten(1).numpy())
    said = torch.from_numpy(line.predict(coarse(tokens))).float().reshape(len(tokens), len(target), -1)
    copied = tokens[:, nearest_visible(settings, mask)]
    found = (mean[target].expand(len(tokens), -1, -1), mean[target] + shift, copied, said)
    return {name: x.clamp(0, 255) for name, x in zip(BASELINES, found, strict=True)}


def space_step(whole: Tensor, settings: Settings, mask: Mask) -> Tensor:
    """Mean absolute step across the borders between hidden and visible cells, (n,), from tokens (n, N, P)."""
    frames, patch = frames_of(whole, settings), settings.model.patch
    hidden = torch.zeros(settings.grid).flatten()
    hidden[mask.target[0]] = 1
    cells, steps = hidden.reshape(settings.grid)[0], []
    for image, grid in ((frames, cells), (frames.transpose(-1, -2), cells.T)):
        step = (image[..., patch::patch] - image[..., patch - 1 : -1 : patch]).abs()  # (n, 3, T, H, columns - 1)
        by_cell = step.mean((1, 2)).unflatten(1, (-1, patch)).mean(2)  # (n, rows, columns - 1)
        steps.append(by_cell[:, grid[:, 1:] != grid[:, :-1]])
    return torch.cat(steps, 1).mean(1)


def in_cells(inside: Tensor, settings: Settings) -> Tensor:
    """Hidden tokens (n, K, P) of a tube as (n, S, C, 3, tubelet, pixels of a patch)."""
    return inside.reshape(len(inside), settings.grid[0], -1, 3, settings.model.tubelet, settings.model.patch**2)


def time_step(inside: Tensor, later: Tensor, settings: Settings) -> Tensor:
    """Mean absolute step from the last frame of hidden tokens to the first frame of the next slice's, (n,)."""
    before, after = in_cells(inside, settings)[:, :-1, :, :, -1], in_cells(later, settings)[:, 1:, :, :, 0]
    return (before - after).abs().flatten(1).mean(1)


def motion(inside: Tensor, truth: Tensor, settings: Settings) -> Tensor:
    """Correlation of imagined and true change from slice to slice, over all hidden pixels, (n,)."""
    imagined, real = (in_cells(x, settings).diff(dim=1).flatten(1) for x in (inside, truth))
    return F.cosine_similarity(imagined - imagined.mean(1, keepdim=True), real - real.mean(1, keepdim=True), dim=1)


def measured(inside: Tensor, tokens: Tensor, settings: Settings, mask: Mask, other: Tensor) -> dict[str, Tensor]:
    """All measures of one way to fill in hidden tokens, (n,) each; `other` says whose filling is tried instead."""
    truth, swapped = tokens[:, mask.target[0]], inside[other]
    return {
        "error": (inside - truth).square().flatten(1).mean(1),
        "space": space_step(pasted(tokens, inside, mask), settings, mask),
        "space, another clip's": space_step(pasted(tokens, swapped, mask), settings, mask),
        "time": time_step(inside, inside, settings),
        "time, another clip's": time_step(inside, swapped, settings),
        "motion": motion(inside, truth, settings),
    }


def fillings(models: dict[str, Any], clips: np.ndarray, train: Tensor, settings: Settings, mask: Mask) -> dict:
    """Every way to fill in the hidden tokens of clips: name -> pixels (n, K, P)."""
    tokens = tokens_of(clips, settings)
    found = {"truth": tokens[:, mask.target[0]], **from_pixels(train, tokens, settings, mask)}
    for prefix, (model, of_features, of_predictions) in models.items():
        features, predictions = model.features(clips)[:, mask.target[0]], model.predictions(clips, mask)
        found[prefix + FEATURES] = decode(of_features, features)
        found[prefix + PREDICTED] = decode(of_predictions, predictions)
        found[prefix + "predictions, read as features"] = decode(
            of_features, predictions[..., : of_features.n_features_in_]
        )
    return found


def decoding(base: Settings, clips: Clips, seed: int) -> dict[str, Any]:
    """V9: measures of every way to fill in hidden tokens of validation clips, means and video by video."""
    settings, run = run_of("primary", base, clips, seed)
    task = probing.make_task(clips, data.classes(clips.videos))
    train, test = clips.centre[task.train], clips.centre[task.test]
    imagined = {"": trained_imagination(settings, run), "random weights: ": random_imagination(settings)}
    models = {name: (model, *fit_decoders(model, settings, train)) for name, model in imagined.items()}
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    other = torch.empty_like(order).scatter_(0, order, order.roll(1))  # nobody is paired with itself
    drawn, pixels, truth = masks(settings, MASKS), tokens_of(train, settings), tokens_of(test, settings)
    sums: dict[str, dict[str, Tensor]] = {}
    for number in range(MASKS):
        mask = Mask(drawn.context[number : number + 1], drawn.target[number : number + 1])
        for name, inside in fillings(models, test, pixels, settings, mask).items():
            for key, values in measured(inside, truth, settings, mask, other).items():
                of = sums.setdefault(name, {})
                of[key] = of.get(key, torch.zeros(len(test))) + values / MASKS
    unit = sums["mean clip"]["error"].mean() / 100
    for of in sums.values():
        of["error"] = of["error"] / unit
    told = {
        name: {key: of[key] for key in STORED.get(name, ("error",))} for name, of in sums.items() if name != "truth"
    }
    mean = {name: {key: round(float(v.mean()), 4) for key, v in of.items()} for name, of in sums.items()}
    by_video = {name: {key: compact(v) for key, v in of.items()} for name, of in told.items()}
    facts = {"n": len(test), "masks": MASKS, "run": run.name}
    return {**facts, "mean": mean, "by_video": by_video, "claims": decoding_claims(mean)}


def compact(values: Tensor) -> str:
    """Three digits of each number, in one line."""
    return " ".join(f"{value:.3g}" for value in values.tolist())


def decoding_claims(mean: dict[str, dict[str, float]]) -> dict[str, float]:
    """The tests of V9 that can fail for a frozen or a pleasant picture, as differences that should be above 0."""
    predicted, random = mean[PREDICTED], mean[RANDOM]
    return {
        "V9 space": min(predicted["space, another clip's"], random["space"]) - predicted["space"],
        "V9 time": 100 * (predicted["motion"] - random["motion"]),
        "V9 content": min(mean[name]["error"] for name in BASELINES) - predicted["error"],
    }


STUDIES = {"decoding": Study("V9: what the predictor says of hidden tokens, decoded", decoding, (0, 1, 2))}
