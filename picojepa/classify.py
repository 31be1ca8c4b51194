"""Ask the trained model about any video: what each member says, what they vote, and how often they are right.

From the shell: ``python -m picojepa.classify VIDEO ...``, or ``make classify VIDEO=...``.

Book: chapter 6.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from footage.folders import find_videos
from picojepa import config, data, ensemble, pretraining, store
from picojepa.architecture import Encoder
from picojepa.config import Settings
from picojepa.data import VideoError, read_clips
from picojepa.ensemble import MEMBERS, VOTES
from picojepa.features import encode, load_encoder
from picojepa.machine import device
from picojepa.probing import LinearHead
from picojepa.stats import wilson

BUNDLED = store.BUNDLED / "heads"  # of the book's own encoder: heads.safetensors and door.json
DOOR = "door.json"  # what is known of the heads: run, classes, right answers on held-out videos
FIGURES = (
    "It has only ever seen drawn stick figures. Any other video still gets one of these classes, and means nothing."
)
OWN = "For classes of your own, put videos into a folder of classes and name it: PICOJEPA_DATA=FOLDER in front of this."


@dataclass(frozen=True)
class Door:
    """A trained model that can be asked, and how many of ``n`` held-out videos each member got right."""

    settings: Settings
    encoder: Encoder
    heads: dict[str, LinearHead]
    classes: tuple[str, ...]
    right: dict[str, int]
    n: int
    about: str


def bundled() -> Door:
    """The model that comes with the book; it opens in a second and needs no videos."""
    settings, known = config.settings("laptop", "adapted"), json.loads((BUNDLED / DOOR).read_text(encoding="utf-8"))
    encoder = load_encoder(store.BUNDLED / known["run"] / "encoder.safetensors", settings)
    heads = ensemble.load_heads(BUNDLED, settings.model.width, len(known["classes"]))
    about = f"The book's own encoder. {FIGURES} {OWN}"
    return Door(settings, encoder, heads, tuple(known["classes"]), known["right"], known["n"], about)


def trained(settings: Settings) -> Door:
    """The model of the settings' videos, one's own or the stand-in; what is not there yet is trained."""
    clips = data.load_clips(settings)
    run = pretraining.run(settings, clips)
    table = ensemble.predictions(settings, clips, run)
    right = (table.predicted == table.label).groupby(table.member).sum().astype(int).to_dict()
    encoder, heads = load_encoder(run / "encoder.safetensors", settings), ensemble.train_members(settings, clips, run)
    own, n = data.source(), int((table.member == MEMBERS[0]).sum())
    about = f"Trained on {own}. Any video gets one of these classes." if own else f"{FIGURES} {OWN}"
    return Door(settings, encoder, heads, data.labelled_classes(clips.videos), right, n, about)


def classify_file(
    path: str | Path, settings: Settings, encoder: Encoder, heads: dict[str, LinearHead], classes: Sequence[str]
) -> pd.DataFrame:
    """What each member (of `train_members`) and the votes say of any video file, in one encoder pass.

    Returns one row per member and vote: answer, certainty, and the probability of every class.

    Raises:
        VideoError: the file can not be read.
    """
    return classify_clip(read_clips(path, settings.clip, [0.5]).numpy(), encoder, heads, classes)


def classify_clip(
    clip: np.ndarray, encoder: Encoder, heads: dict[str, LinearHead], classes: Sequence[str]
) -> pd.DataFrame:
    """As `classify_file`, of one stored clip, uint8 (1, T, 3, H, W)."""
    scores = ensemble.member_scores(heads, encode(encoder.to(device()), clip))  # (5, 1, classes)
    mean = ensemble.soft_vote(scores[1:])  # (1, classes)
    answers = [*scores.argmax(-1)[:, 0], ensemble.majority_vote(scores[1:])[0], mean.argmax()]
    members = pd.Index([*MEMBERS, *VOTES], name="member")
    table = pd.DataFrame([*scores[:, 0], mean[0], mean[0]], members, list(classes))
    table.insert(0, "certainty", table.to_numpy()[np.arange(len(table)), answers], allow_duplicates=True)
    table.insert(0, "answer", [classes[i] for i in answers], allow_duplicates=True)  # a class may be called so
    return table


def strip(clip: np.ndarray, path: Path, height: int = 96) -> None:
    """Save the frames of a clip, (T, 3, H, W), side by side as a picture."""
    row = np.concatenate([*clip.transpose(0, 2, 3, 1)], axis=1)  # (H, T W, 3)
    scale = max(1, height // row.shape[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(row.repeat(scale, 0).repeat(scale, 1)).save(path)


def reliability(door: Door) -> str:
    """How often the members were right, with 95 % intervals over videos, and what chance gives."""
    parts = []
    for name in (MEMBERS[0], *VOTES):
        low, high = wilson(door.right[name], door.n)
        parts.append(f"{name} {100 * door.right[name] / door.n:.0f} % ({100 * low:.0f} to {100 * high:.0f})")
    return f"Right on {door.n} held-out videos: {', '.join(parts)}; chance is {100 / len(door.classes):.0f} %."


def main() -> int:
    """Answer for every video named; 1 if one could not be read."""
    parser = argparse.ArgumentParser(prog="python -m picojepa.classify", description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="+", type=Path, help="files, or folders whose videos are all asked about")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each video")
    parser.add_argument("--frames", type=Path, help="folder for pictures of the frames that were looked at")
    parser.add_argument("--profile", help="ask a model of this profile in place of the one that comes with the book")
    asked = parser.parse_args()
    files = [Path(v, f) for v in asked.videos if v.is_dir() for f in find_videos(v)[0]]
    files = [*(v for v in asked.videos if not v.is_dir()), *files]
    door = trained(config.settings(asked.profile)) if asked.profile or data.source() else bundled()
    where, failed = asked.frames or store.cache_folder() / "classified", 0
    for path in files:
        try:
            clip = read_clips(path, door.settings.clip, [0.5]).numpy()
        except VideoError as error:
            failed += 1
            line = json.dumps({"video": str(path), "error": str(error)}) if asked.json else f"{error}\n"
            sys.stdout.write(f"{line}\n")
            continue
        table = classify_clip(clip, door.encoder, door.heads, door.classes)
        picture = where / f"{store.digest(str(path.resolve()))}.png"
        strip(clip[0], picture)
        said = {"video": str(path), "frames": str(picture), "right": door.right, "held_out": door.n}
        line = json.dumps(said | {"members": json.loads(table.to_json(orient="index"))})
        shown = f"{path}\n{table.rename_axis(None).round(2).to_string()}\nframes: {picture}\n"
        sys.stdout.write((line if asked.json else shown) + "\n")
    if not asked.json:
        sys.stdout.write(f"{reliability(door)}\n{door.about}\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
