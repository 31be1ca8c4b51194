// Masks over a clip that plays: kind, ratio, draw, and whether what is hidden can be seen.
picojepa.define("masks", (ui, data, figure) => {
  const [slices, rows, columns] = data.grid;
  const chosen = { kind: 0, ratio: Math.min(2, data.kinds[0].ratios.length - 1), draw: 0, frame: 0, opaque: false };

  const mask = () => {
    const drawn = data.kinds[chosen.kind].masks;
    return drawn[Math.min(chosen.ratio, drawn.length - 1)][chosen.draw];
  };
  // Token numbers run by slice, row, column; four of them share a hexadecimal digit, the first in its highest bit.
  const hidden = (token) => (parseInt(mask().bits[token >> 2], 16) >> (3 - (token & 3))) & 1;
  const slice = () => Math.floor((chosen.frame * slices) / data.clip.frames);

  const film = ui.film({
    scale: Math.max(1, Math.round(448 / data.clip.width)),
    paint(context) {
      const width = film.width / columns;
      const height = film.height / rows;
      for (let cell = 0; cell < rows * columns; cell++) {
        const left = (cell % columns) * width;
        const top = Math.floor(cell / columns) * height;
        const covered = hidden(slice() * rows * columns + cell);
        context.globalAlpha = covered ? (chosen.opaque ? 1 : 0.55) : (chosen.opaque ? 0 : 0.18);
        context.fillStyle = covered ? data.palette.target : data.palette.context;
        context.fillRect(left, top, width, height);
        context.globalAlpha = 1;
        if (covered) {
          context.strokeStyle = "rgba(0, 0, 0, 0.5)";
          context.beginPath();
          context.moveTo(left, top + height);
          context.lineTo(left + width, top);
          context.stroke();
        }
      }
    },
  });
  film.style.width = "22rem";

  const tellFrame = () => {
    const cells = rows * columns;
    let covered = 0;
    for (let cell = 0; cell < cells; cell++) covered += hidden(slice() * cells + cell);
    film.setAttribute("aria-label", `Frame ${chosen.frame} of the clip, time slice ${slice()}: `
      + `${covered} of ${cells} cells are hidden (orange), ${cells - covered} are seen.`);
    const { name, ratios: known } = data.kinds[chosen.kind];
    figure.dataset.state = `${name}; ratio ${known[chosen.ratio] ?? "none"}; draw ${chosen.draw}; `
      + `frame ${chosen.frame}; ${chosen.opaque ? "opaque" : "tint"}`;
  };
  const tell = () => {
    const { name, ratios: known } = data.kinds[chosen.kind];
    const { context, target, constant } = mask();
    const share = (100 * (1 - context / (slices * rows * columns))).toFixed(1);
    const asked = known.length ? `, ratio ${known[chosen.ratio]}` : "";
    ui.say(`${name}${asked}, draw ${chosen.draw}: ${share} % of the tokens are hidden. `
      + `Context: ${context} tokens, target: ${target}. `
      + (constant ? "The same cells are hidden in every time slice." : "What is hidden changes from slice to slice."));
    film.redraw();
    tellFrame();
  };

  ui.select("Mask", data.kinds.map(({ name }) => name), (index) => {
    chosen.kind = index;
    ratios.disabled = !data.kinds[index].ratios.length;
    tell();
  });
  const ratios = ui.select("Ratio", data.kinds[0].ratios, (index) => { chosen.ratio = index; tell(); });
  ratios.selectedIndex = chosen.ratio;
  ui.button("New draw", () => {
    chosen.draw = (chosen.draw + 1) % data.kinds[0].masks[0].length;
    tell();
  });
  const cover = ui.button("Hide what is hidden", () => {
    chosen.opaque = !chosen.opaque;
    cover.setAttribute("aria-pressed", String(chosen.opaque));
    tell();
  });
  cover.setAttribute("aria-pressed", "false");
  const frame = ui.slider("Frame", {
    max: data.clip.frames - 1,
    format: (number) => `${number}, time slice ${Math.floor((number * slices) / data.clip.frames)}`,
  }, (number) => {
    chosen.frame = number;
    film.show(number);
    tellFrame();
  });
  ui.play(frame, { start: true });
  ui.place(film);
  film.load(data.clip);
  tell();
});
