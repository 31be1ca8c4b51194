"""Make the film of the book's first page, its card for social networks, and its icon: ``book/assets``.

Run it after `make book`, whose run it shows: ``python -m tools.landing``. The film holds the first validation video
of each labelled class, as chosen on the page "What the predictor imagines": the clip, what the encoder sees, what
the predictor says of the rest, decoded into pixels.
"""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from figures import imagined, plots
from PIL import Image, ImageColor, ImageDraw
from torchcodec.encoders import VideoEncoder

from evidence import study_decoding as study
from picojepa import config, data, pretraining, probing, store
from picojepa.masking import Mask

ASSETS = store.ROOT / "book" / "assets"
LOGO = store.ROOT / "book" / "logo.svg"
SIDE, GAP, PACE, TIMES = 240, 12, 6, 3  # pixels of a clip and between clips; frames a second; rounds of each clip
PAPER, INK = "#ffffff", "#1f2328"


def triptychs() -> list[np.ndarray]:
    """For each labelled class the clip, what is seen of it and what is imagined: uint8 (3, T, 3, H, W)."""
    settings = config.settings()
    clips = data.load_clips(settings)
    model = study.trained_imagination(settings, pretraining.run(settings, clips))
    task = probing.make_task(clips, data.classes(clips.videos))
    train = clips.centre[task.train[:: max(1, len(task.train) // 400)]]
    labels = clips.videos.label[task.test]
    shown = [labels.index[labels == name][0] for name in data.labelled_classes(clips.videos)]
    drawn = study.masks(settings, study.MASKS)
    mask = Mask(drawn.context[:1], drawn.target[:1])
    tokens = study.tokens_of(clips.centre[shown], settings)
    _, decoder = study.fit_decoders(model, settings, train)
    said = study.decode(decoder, model.predictions(clips.centre[shown], mask))
    filled = study.frames_of(study.pasted(tokens, said, mask), settings)
    filled = filled.permute(0, 2, 1, 3, 4).round().to(torch.uint8).numpy()
    hidden = plots.hidden_grid(mask.target[0], settings.grid)
    orange = np.array(ImageColor.getrgb(plots.TARGET), np.uint8).reshape(3, 1, 1)
    (seen,) = imagined.seen(clips.centre[shown][None], hidden[None], orange)
    return [np.stack(three) for three in zip(clips.centre[shown], seen, filled, strict=True)]


def side_by_side(three: np.ndarray, time: int) -> Image.Image:
    """One moment of a triptych, (3, T, 3, H, W), as a picture."""
    picture = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE), PAPER)
    for place, clip in enumerate(three):
        frame = Image.fromarray(np.ascontiguousarray(clip[time].transpose(1, 2, 0)))
        picture.paste(frame.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (place * (SIDE + GAP), 0))
    return picture


def write_film(path: Path, threes: list[np.ndarray]) -> None:
    """All triptychs one after the other, as H.264 without sound."""
    order = [(three, time) for three in threes for _ in range(TIMES) for time in range(three.shape[1])]
    video = torch.from_numpy(np.stack([np.asarray(side_by_side(*moment)) for moment in order]))
    VideoEncoder(video.permute(0, 3, 1, 2).contiguous(), frame_rate=PACE).to_file(
        str(path), codec="libx264", pixel_format="yuv420p", crf=27, preset="slow"
    )


def card(strip: Image.Image) -> Image.Image:
    """A card of 1200 x 630 pixels: the book's name, its question, a triptych."""
    figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    left, width = 0.08, 0.84
    figure.text(left, 0.89, "pico-JEPA by running it", size=42, weight="bold", color=INK, va="center")
    question = "Hide most of a video. Can a network say what is behind the cover?\n"
    question += "A paper on learning without labels, reproduced by a book that runs."
    figure.text(left, 0.755, question, size=18.5, color=INK, va="center", linespacing=1.5)
    figure.add_axes((left, 0.105, width, width * strip.height / strip.width * 12 / 6.3)).imshow(strip)
    figure.gca().set_axis_off()
    names = {"the video": INK, "what the network sees": plots.TARGET, "what it imagines": plots.PREDICTED}
    for place, (name, colour) in enumerate(names.items()):
        x = left + width * (place * (SIDE + GAP) + SIDE / 2) / strip.width
        figure.text(x, 0.06, name, size=17, weight="bold", color=colour, ha="center", va="center")
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def icon(size: int) -> Image.Image:
    """The logo's grid of cells as a picture, for browsers that do not take SVG."""
    large = 64 * 8
    picture = Image.new("RGB", (large, large), PAPER)
    draw = ImageDraw.Draw(picture)
    for colour, cells in re.findall(r'<path fill="(#\w+)" d="([^"]+)"', LOGO.read_text(encoding="utf-8")):
        for x, y, side in re.findall(r"M(\d+) (\d+)h(\d+)", cells):
            box = [int(x) * 8, int(y) * 8, (int(x) + int(side)) * 8 - 1, (int(y) + int(side)) * 8 - 1]
            draw.rectangle(box, fill=colour)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def main() -> None:
    """Write everything."""
    ASSETS.mkdir(exist_ok=True)
    threes = triptychs()
    write_film(ASSETS / "landing.mp4", threes)
    still = side_by_side(threes[0], threes[0].shape[1] // 2)
    still.save(ASSETS / "landing.webp", quality=80, method=6)
    card(still).save(ASSETS / "social-card.png", optimize=True)
    icon(180).save(ASSETS / "icon.png", optimize=True)


if __name__ == "__main__":
    main()
