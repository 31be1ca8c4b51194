"""Run the experiments behind the book and write one small JSON card for each run to data/cards.

The five-seed figure of chapter 5 comes from here: pre-train and probe with seeds 0 to 4. Interrupt at
will; the next call goes on from the last checkpoint. About half an hour on two cores in `laptop`.
"""

import argparse
import json
import logging
import time
from dataclasses import replace

from tqdm.auto import tqdm

from picojepa import data, pretraining, probing, store
from picojepa.clips import Clips
from picojepa.config import CLASSES, LABELLED_CLASSES, Settings, settings
from picojepa.results import CARDS

SEEDS = range(5)


def primary(base: Settings, clips: Clips, seed: int) -> dict:
    """Pre-trained against random weights of the same seed: both tasks, every probe, per-video answers."""
    chosen = replace(base, training=replace(base.training, seed=seed))
    run = pretraining.run(chosen, clips)
    scores = []
    for classes, labelled in ((CLASSES, False), (LABELLED_CLASSES, True)):
        task = probing.make_task(clips, classes, labelled_only=labelled)
        table = probing.probe_run(chosen, clips, run, task)
        for (features, probe), group in table.groupby(["features", "probe"], sort=False):
            right = (group.predicted == group.label).astype(int)
            names = {"classes": len(classes), "features": features, "probe": probe}
            scores.append({**names, "right": int(right.sum()), "n": len(right), "by_video": "".join(map(str, right))})
    return {"experiment": "primary", "seed": seed, **store.card(run), "settings": chosen.as_dict(), "scores": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(SEEDS))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    base = settings()
    clips, start = data.load_clips(base), time.perf_counter()
    for seed in tqdm(arguments.seeds, desc="seeds", unit="run"):
        card = primary(base, clips, seed)
        CARDS.mkdir(exist_ok=True)
        store.write_atomically(
            CARDS / f"primary-{base.profile}-{seed}.json", json.dumps(card, indent=1, sort_keys=True)
        )
    logging.info("%d cards in %.0f s", len(arguments.seeds), time.perf_counter() - start)


if __name__ == "__main__":
    main()
