// Where the attentive probe looks: a clip, the same clip under its attention, and a bar for each time slice.
picojepa.define("attention", (ui, data, figure) => {
  const [slices, rows, columns] = data.grid;
  const state = { clip: 0, encoder: data.encoders.length - 1, view: 0, frame: data.start };
  const scale = Math.max(1, Math.round(200 / data.clips[0].film.width));
  const heat = [255, 212, 0];
  const percent = (share) => `${share.toFixed(share < 10 ? 1 : 0)} %`;
  const slice = () => Math.floor(state.frame / data.tubelet);
  const answer = () => data.encoders[state.encoder].clips[state.clip];
  const weights = () => answer().weights[state.view];
  const span = (number) => data.tubelet === 1 ? `frame ${number + 1}`
    : `frames ${number * data.tubelet + 1} to ${(number + 1) * data.tubelet}`;

  // Grey and dark below, so that the heat is readable over any clip.
  const paint = (context) => {
    const { width, height } = context.canvas;
    const shown = weights(), most = Math.max(...shown), strongest = shown.indexOf(most);
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "#808080";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
    context.fillStyle = "rgba(0, 0, 0, 0.45)";
    context.fillRect(0, 0, width, height);
    const [across, down] = [width / columns, height / rows];
    for (let cell = 0; cell < rows * columns; cell++) {
      const number = slice() * rows * columns + cell;
      const [x, y] = [(cell % columns) * across, Math.floor(cell / columns) * down];
      context.fillStyle = `rgba(${heat}, ${0.9 * shown[number] / most})`;
      context.fillRect(x, y, across, down);
      if (number === strongest) {
        context.lineWidth = 3;
        context.strokeStyle = "#fff";
        context.strokeRect(x + 1.5, y + 1.5, across - 3, down - 3);
        context.font = `bold ${Math.round(width / 12)}px sans-serif`;
        context.textAlign = "center";
        context.textBaseline = "middle";
        const text = percent(most / 1e4), half = context.measureText(text).width / 2 + 4;
        const [left, top] = [Math.min(Math.max(x + across / 2, half), width - half), y + down / 2];
        context.strokeStyle = "#000";
        context.strokeText(text, left, top);
        context.fillStyle = "#fff";
        context.fillText(text, left, top);
      }
    }
  };

  const plain = ui.film({ scale }), hot = ui.film({ scale, paint });
  const caption = ui.element("div"), ramp = ui.element("span");
  const bars = Array.from({ length: slices }, (_, number) => {
    const bar = ui.element("span", { style: "display: block; height: 100%; background: #b58900" });
    const even = ui.element("span", {
      style: `position: absolute; left: ${100 / slices}%; top: 0; bottom: 0; border-left: 2px dashed currentColor` });
    const box = ui.element("span", {
      style: "position: relative; flex: 1; height: 1.1rem; border: 1px solid var(--pj-line)" }, bar, even);
    const name = ui.element("span", { style: "width: 8.5em" }), share = ui.element("span", { style: "width: 4em" });
    const line = ui.element("li", { style: "display: flex; gap: 0.4rem; align-items: center; margin: 0.3rem 0" },
      name, box, share);
    return { bar, name, share, line, number };
  });

  const showFrame = () => {
    plain.show(state.frame);
    hot.show(state.frame);
    for (const { name, line, number } of bars) {
      name.textContent = `${number === slice() ? "▸ " : ""}${span(number)}`;
      line.style.fontWeight = number === slice() ? "bold" : "normal";
    }
    const { name } = data.clips[state.clip];
    caption.textContent = `attention, ${span(slice())}`;
    plain.setAttribute("aria-label", `${name}, frame ${state.frame + 1}`);
    hot.setAttribute("aria-label", `${name}, ${caption.textContent}: ${percent(answer().slices[state.view][slice()])}`);
    const { clip, encoder, view, frame } = state;
    figure.dataset.state = `clip ${clip} encoder ${encoder} view ${view} frame ${frame}`;
  };

  const showClip = () => {
    const { said, certainty, right, other, less, slices: shares } = answer(), shown = weights();
    const most = Math.max(...shown), strongest = shown.indexOf(most), cell = strongest % (rows * columns);
    const top = shares[state.view].indexOf(Math.max(...shares[state.view]));
    for (const { bar, share, number } of bars) {
      bar.style.width = `${shares[state.view][number]}%`;
      share.textContent = percent(shares[state.view][number]);
    }
    ramp.textContent = percent(most / 1e4);
    const removed = state.view ? "" : ` Without that token the answer is ${other}, ${percent(less)} certain.`;
    ui.say(`Clip of ${data.clips[state.clip].name}; encoder: ${data.encoders[state.encoder].name}. The probe ` +
      `answers ${said}, which is ${right ? "right" : "wrong"}, ${percent(certainty)} certain. ` +
      `Attention, ${data.views[state.view]}: ${span(top)} get most, ${percent(shares[state.view][top])} ` +
      `(even: ${percent(100 / slices)}). Strongest token: row ${Math.floor(cell / columns) + 1}, column ` +
      `${cell % columns + 1} of ${span(Math.floor(strongest / rows / columns))}, ${percent(most / 1e4)} ` +
      `(even: ${percent(100 / shown.length)}).${removed}`);
    showFrame();
  };

  ui.select("Clip", data.clips.map(({ name }, number) => {
    const first = data.encoders.at(-1);
    return `${name} (${first.name}: ${first.clips[number].right ? "right" : "wrong"})`;
  }), (value) => { state.clip = value; load(); });
  const names = data.encoders.map(({ name }) => name);
  ui.select("Encoder", names, (value) => { state.encoder = value; showClip(); }).selectedIndex = state.encoder;
  ui.select("Attention", data.views, (value) => { state.view = value; showClip(); });
  const range = ui.slider("Frame", { max: slices * data.tubelet - 1, value: data.start, format: (value) => String(value + 1) },
    (value) => { state.frame = value; showFrame(); });
  ui.play(range);

  const load = () => {
    for (const film of [plain, hot]) film.load(data.clips[state.clip].film);
    showClip();
  };
  const scaled = "display: inline-block; width: 5rem; height: 0.8rem; border: 1px solid var(--pj-line); " +
    `background: linear-gradient(to right, #333, rgb(${heat}))`;
  const half = "flex: 0 1 min(12rem, 46%)";
  for (const film of [plain, hot]) film.style.width = "100%";
  ui.place(ui.element("div", { class: "pj-row" },
    ui.element("div", { style: half }, plain, ui.element("div", {}, "the clip")),
    ui.element("div", { style: half }, hot, caption,
      ui.element("div", { style: "font-size: 0.85em; white-space: nowrap" }, "0 ", ui.element("span", { style: scaled }), " ", ramp)),
    ui.element("div", { style: "flex: 1; min-width: min(17rem, 100%)" }, "attention by time slice",
      ui.element("ol", { style: "list-style: none; padding: 0; margin: 0.2rem 0" }, ...bars.map(({ line }) => line)),
      ui.element("div", { style: "font-size: 0.85em" }, "dashed: the same for every slice"))));
  load();
});
