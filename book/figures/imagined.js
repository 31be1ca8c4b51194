// A clip, what the encoder saw of it, and ways to fill in the rest: several films that play in step.
picojepa.define("imagined", (ui, data, figure) => {
  const state = { clip: 0, mask: 0, shown: 0, frame: 0, outline: false };
  const always = 2; // truth and what the encoder saw stand beside each filling
  const slices = data.hidden[0].length, frames = data.kinds[0].films[0][0].frames;
  const scale = Math.max(1, Math.round(160 / data.kinds[0].films[0][0].width));

  const outline = (context) => {
    if (!state.outline) return;
    const cells = data.hidden[state.mask][Math.floor(state.frame * slices / frames)];
    const [across, down] = [context.canvas.width / cells[0].length, context.canvas.height / cells.length];
    const edge = (x1, y1, x2, y2) => {
      for (const [colour, width] of [["#000", 4], ["#fff", 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        context.moveTo(x1 * across, y1 * down);
        context.lineTo(x2 * across, y2 * down);
        context.stroke();
      }
    };
    cells.forEach((row, y) => row.forEach((hidden, x) => {
      if (x + 1 < row.length && hidden !== row[x + 1]) edge(x + 1, y, x + 1, y + 1);
      if (y + 1 < cells.length && hidden !== cells[y + 1][x]) edge(x, y + 1, x + 1, y + 1);
    }));
  };

  const kinds = data.kinds.map((kind, number) => {
    const film = ui.film({ scale, paint: outline }), numbers = ui.element("span", { style: "white-space: pre-line" });
    film.style.width = "100%";
    const box = ui.element("div", { style: "flex: 0 1" }, film,
      ui.element("div", { style: "font-size: 0.9em; line-height: 1.4" }, ui.element("strong", {}, kind.name),
        ui.element("span", { style: "display: block" }, kind.says), numbers));
    return { ...kind, number, film, numbers, box };
  });
  const visible = ({ number }) => state.shown === 0 || number < always || number === state.shown + always - 1;
  const measured = ({ measures }) => Object.entries(measures)
    .map(([name, { values, digits, unit }]) => `${name} ${values[state.mask][state.clip].toFixed(digits)}${unit}`);

  const showFrame = () => {
    for (const { film } of kinds.filter(visible)) film.show(state.frame);
    const { clip, mask, shown, frame, outline: lines } = state;
    figure.dataset.state = `clip ${clip} mask ${mask} shown ${shown} frame ${frame} outline ${lines}`;
  };
  const show = () => {
    for (const kind of kinds) {
      kind.box.hidden = !visible(kind);
      if (kind.box.hidden) continue;
      kind.box.style.flexBasis = `min(${state.shown ? 13 : 9.5}rem, 46%)`;
      kind.numbers.textContent = measured(kind).join("\n");
      kind.film.setAttribute("aria-label", `${data.clips[state.clip]}, ${kind.name}: ${kind.says}`);
      kind.film.load(kind.films[Math.min(state.mask, kind.films.length - 1)][state.clip]);
    }
    const told = kinds.filter((kind) => visible(kind) && measured(kind).length);
    ui.say(`Clip of ${data.clips[state.clip]}; mask ${state.mask + 1}: ${data.masks[state.mask]}. Measured there: ` +
      told.map((kind) => `${kind.name}: ${measured(kind).join(", ")}`).join("; ") + ".");
    showFrame();
  };

  ui.select("Clip", data.clips, (value) => { state.clip = value; show(); });
  if (data.masks.length > 1) {
    ui.select("Mask", data.masks.map((_, number) => String(number + 1)), (value) => { state.mask = value; show(); });
  }
  ui.select("Beside the truth", ["all fillings", ...data.kinds.slice(always).map(({ name }) => name)],
    (value) => { state.shown = value; show(); });
  const range = ui.slider("Frame", { max: frames - 1, format: (value) => String(value + 1) },
    (value) => { state.frame = value; showFrame(); });
  ui.play(range);
  const lines = ui.button("Outline hidden cells", () => {
    state.outline = !state.outline;
    lines.setAttribute("aria-pressed", String(state.outline));
    showFrame();
  });
  lines.setAttribute("aria-pressed", "false");
  ui.place(ui.element("div", { class: "pj-row" }, ...kinds.map(({ box }) => box)));
  show();
});
