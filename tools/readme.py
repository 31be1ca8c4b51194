"""Write the results block of README.md and its two pictures from the last build of the book.

Tables are recomputed from the stored predictions; pictures are copied out of the built pages.
Run it after `make book`.
"""

from typing import Any

import pandas as pd
from bs4 import BeautifulSoup
from PIL import Image

from evidence import baselines, records
from evidence.control import MEAN
from picojepa import data, ensemble, pretraining, probing, results
from picojepa.config import settings
from picojepa.store import ROOT
from standin import CLASSES

START, END = "<!-- results -->", "<!-- /results -->"
BUILT = ROOT / "_build" / "html"
PICTURES = {"fig-masking-occlusion": "02_masking", "fig-probing-seeds": "05_probing"}


def picture(name: str, chapter: str) -> Image.Image:
    """The figure with this name on a built page; opaque, so it needs no alpha channel."""
    page = BeautifulSoup((BUILT / f"{chapter}.html").read_text(encoding="utf-8"), "html.parser")
    figure = page.find(id=name)
    if figure is None:
        raise LookupError(f"no figure {name} in {chapter}; run `make book` first")
    return Image.open(BUILT / figure.find("img")["src"]).convert("RGB")


def beside(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Two tables in one, cell by cell: ours (paper)."""
    shared = [c for c in paper.columns if c in ours.columns]
    digits = "{:.1f}".format
    return ours.loc[paper.index, shared].map(digits) + " (" + paper[shared].map(digits) + ")"


def markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    lines = ["| | " + " | ".join(map(str, table.columns)) + " |", "|---" * (len(table.columns) + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in table.iterrows()])


def speed(record: dict[str, Any]) -> str:
    """What `make bench` found, in a paragraph."""
    published, ours = record["published_clips_per_second"], record["tube75_clips_per_second"]
    hours, minutes = record["published_pretraining_hours"], 60 * record["pretraining_hours"]
    five, cold, warm = record["published_file_seconds"], record["file_cold_seconds"], 1000 * record["file_seconds"]
    return f"""
**How fast?** Clips a second in training, the paper's geometry, tube masks of 75 %, measured side by side by
`make bench` ({records.measured_on(record)}): the published step {published:.2f}, this package's
{ours:.1f}, which is **{record["train_step_speedup_tube75"]:.0f} times as many**.
The paper's whole pre-training of 28 800 clips would take {hours:.0f} hours with the one and {minutes:.0f} minutes
with the other. One video file through the encoder and five heads takes {five:.1f} s as published (a process for
each head), {warm:.0f} ms in a running program and {cold:.1f} s with the program's start.
""".strip()


def block() -> str:
    """The text between the two marks."""
    base = settings()
    clips = data.load_clips(base)
    run = pretraining.run(base, clips)
    votes = ensemble.predictions(base, clips, run)
    task = probing.make_task(clips, CLASSES)
    probes = pd.concat([probing.probe_run(base, clips, run, task), baselines.probe_baselines(base, clips, task)])
    scores = results.score_table(probes, ["features", "probe"])
    scores["95 % interval"] = [f"{low:.1f}-{high:.1f}" for low, high in zip(scores.low, scores.high, strict=True)]
    scores["accuracy"] = scores.accuracy.map("{:.1f}".format)
    leads = records.control()
    whole, tenth = (leads[(leads.readout == MEAN) & (leads.labels == share)].iloc[0] for share in (1.0, 0.1))
    n = int((votes.member == "General").sum())
    return f"""
Everything below was written by `python tools/readme.py` from a build of the `{base.profile}` profile. The data is the
stand-in, not Kinetics.

**Does pre-training help?** Ten classes, four ways to read frozen features, {len(whole.by_seed["random"])} pre-training
seeds, on data on which nothing was tuned. Pre-trained minus random weights of the same seed, on average:
**{whole.lead:+.1f} points** (95 % interval over seeds {whole.lead_low:+.1f} to {whole.lead_high:+.1f}), with a tenth of
the labels {tenth.lead:+.1f} ({tenth.lead_low:+.1f} to {tenth.lead_high:+.1f}). One seed beside its baselines,
{scores.n.iloc[0]} videos, 95 % interval over videos, chance {100 / len(CLASSES):.0f} %:

{markdown(scores.set_index("features")[["probe", "accuracy", "95 % interval"]])}

![Accuracy of random and pre-trained weights for five seeds](book/images/fig-probing-seeds.png)

**Table 1**, instances:

{markdown(results.table1(base, clips))}

**Table 2**, accuracy in percent on {n} validation videos of four classes: stand-in (paper, on Kinetics).
Chance is 25 %.

{markdown(beside(ensemble.accuracy_table(votes), results.paper_table(2)))}

**Table 3**, certainty in percent: stand-in (paper, on Kinetics).

{markdown(beside(ensemble.certainty_table(votes), results.paper_table(3)))}

{speed(records.benchmark())}

![What is hidden: masks painted over eight frames](book/images/fig-masking-occlusion.png)
"""


def main() -> None:
    if data.source():
        raise SystemExit("README.md is about the stand-in: unset PICOJEPA_DATA, run `make book`, and call this again")
    folder = ROOT / "book" / "images"
    folder.mkdir(exist_ok=True)
    for name, chapter in PICTURES.items():
        picture(name, chapter).save(folder / f"{name}.png", optimize=True)
    path = ROOT / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(START)
    path.write_text(before + START + block() + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
