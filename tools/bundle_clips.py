"""Make the five bundled stand-in videos in data/clips again, for tests and `make doctor`.

One short training video of each labelled class and of applauding, drawn with the current
`StandInConfig` (data seed 0) and listed in data/clips/manifest.csv with all that `standin.render` needs.
"""

from pathlib import Path

import pandas as pd

import standin
from picojepa.store import DATA
from standin.files import claim

CONFIG = standin.StandInConfig(seed=0, scale=0.01, validation_scale=0.1)
BUNDLED = (*standin.LABELLED_CLASSES, "applauding")
FOLDER = DATA / "clips"


def rows() -> list[dict]:
    """The first training video of each class, encoded at a modest quality to stay near 15 kB."""
    plan = standin.plan(CONFIG)
    first = plan[plan.split == "pretrain"].drop_duplicates("label").set_index("label", drop=False)
    return [{**first.loc[label], "path": f"{label}.mp4", "gop": 30, "crf": 26} for label in BUNDLED]


def bundle(folder: Path = FOLDER) -> pd.DataFrame:
    """Replace the videos, ``generator.json`` and ``manifest.csv`` in a folder; return the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.mp4"), folder / "generator.json", folder / "manifest.csv"):
        old.unlink(missing_ok=True)
    claim(CONFIG, folder)
    table = pd.DataFrame(rows())
    table["sha256"] = [standin.write_video(row, CONFIG, folder) for row in table.to_dict("records")]
    table.to_csv(folder / "manifest.csv", index=False)
    return table


if __name__ == "__main__":
    made = bundle()
    size = sum((FOLDER / path).stat().st_size for path in made.path)
    print(f"{len(made)} videos, {size / 1000:.0f} kB, in {FOLDER}")
