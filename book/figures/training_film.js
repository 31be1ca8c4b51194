// Two training runs step by step: curves so far, and the features of a clip as colours.
picojepa.define("training_film", (ui, data, figure) => {
  const { element } = ui;
  const [slices, rows, columns] = data.grid;
  const tokens = slices * rows * columns;
  const colours = Uint8Array.from(atob(data.colours), (letter) => letter.charCodeAt(0)); // run, look, clip, token, 3
  const last = data.steps.length - 1;
  const styles = [
    { colour: data.palette.context, dash: "", mark: "circle" },
    { colour: "var(--pj-text)", dash: "5 3", mark: "square" },
  ];
  const note = { style: "color:var(--pj-muted);margin:0.6rem 0 0.2rem" };
  let clip = 0;
  let look = 0;

  // ---- curves: all of the run faint, what lies behind bold, a mark at this step
  const mark = (run, x, y) => (styles[run].mark === "circle"
    ? `<circle cx="${x}" cy="${y}" r="4.5" fill="${styles[run].colour}"/>`
    : `<rect x="${x - 4}" y="${y - 4}" width="8" height="8" fill="${styles[run].colour}"/>`);
  const line = (run, points, opacity) => `<polyline points="${points.join(" ")}" fill="none" stroke-width="2" `
    + `stroke="${styles[run].colour}" stroke-dasharray="${styles[run].dash}" opacity="${opacity}"/>`;
  const chart = (values) => {
    const top = Math.max(...values.flat());
    const x = (index) => 38 + 172 * (data.steps[index] / Math.max(1, data.steps[last]));
    const y = (value) => 100 - 88 * (value / top);
    const drawn = values.map((of, run) => {
      const points = of.map((value, index) => `${x(index)},${y(value)}`);
      return line(run, points, 0.3) + line(run, points.slice(0, look + 1), 1) + mark(run, x(look), y(of[look]));
    });
    return `<svg viewBox="0 0 220 122" aria-hidden="true" style="width:100%;font-size:11px">`
      + `<path d="M38 8V100H212" fill="none" stroke="var(--pj-muted)"/>${drawn.join("")}<g fill="var(--pj-text)">`
      + `<text x="30" y="16" text-anchor="end">${top.toPrecision(2)}</text>`
      + `<text x="30" y="103" text-anchor="end">0</text><text x="38" y="116">0</text>`
      + `<text x="212" y="116" text-anchor="end">step ${data.steps[last]}</text></g></svg>`;
  };
  const charts = Object.keys(data.measures).map((name) => {
    const place = element("div");
    return { name, place, box: element("div", { style: "flex:1 1 12rem;max-width:16rem" }, name, place) };
  });
  const sample = (run) => {
    const box = element("span", { "aria-hidden": "true" });
    box.innerHTML = `<svg width="44" height="12">${line(run, ["0,6", "44,6"], 1)}${mark(run, 22, 6)}</svg> `;
    return box;
  };

  // ---- rows of pictures, one for each time slice
  const across = {
    style: `display:grid;grid-template-columns:repeat(${slices},minmax(0,1fr));gap:4px;max-width:26rem`,
  };
  const frames = Array.from({ length: slices }, () => ui.film());
  const maps = data.runs.map(() => Array.from({ length: slices }, () => element("canvas", {
    class: "pj-film", role: "img", width: columns, height: rows, style: "width:100%;image-rendering:pixelated",
  })));
  for (const canvas of frames) canvas.style.width = "100%";
  const paint = (canvas, run, slice) => {
    const picture = new ImageData(columns, rows);
    const start = ((run * (last + 1) + look) * data.clips.length + clip) * tokens + slice * rows * columns;
    for (let cell = 0; cell < rows * columns; cell++) {
      for (let part = 0; part < 3; part++) picture.data[4 * cell + part] = colours[3 * (start + cell) + part];
      picture.data[4 * cell + 3] = 255;
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
    canvas.setAttribute("aria-label", `${data.runs[run]}, step ${data.steps[look]}, time slice ${slice}, as colours`);
  };

  const show = () => {
    for (const { name, place } of charts) place.innerHTML = chart(data.measures[name]);
    maps.forEach((row, run) => row.forEach((canvas, slice) => paint(canvas, run, slice)));
    const numbers = data.runs.map((name, run) => `${name}: `
      + Object.entries(data.measures).map(([what, of]) => `${what} ${of[run][look].toPrecision(3)}`).join(", "));
    const when = look ? "" : ", the first: its loss is that of random weights, all else is seen just after it";
    const where = `Clip ${data.clips[clip].name}. Step ${data.steps[look]} of ${data.steps[last]}`;
    ui.say(`${where}${when}. ${numbers.join("; ")}.`);
    figure.dataset.state = `clip ${clip}; step ${data.steps[look]}`;
  };
  const choose = (index) => {
    clip = index;
    frames.forEach((canvas, slice) => {
      canvas.load(data.clips[clip].film);
      canvas.show(slice);
      canvas.setAttribute("aria-label", `${data.clips[clip].name}, first frame of time slice ${slice}`);
    });
    show();
  };

  ui.select("Clip", data.clips.map(({ name }) => name), choose);
  const step = ui.slider("Step", { max: last, format: (index) => `${data.steps[index]}` }, (index) => {
    look = index;
    show();
  });
  ui.play(step, { milliseconds: 700 });
  ui.place(
    element("div", { class: "pj-row" }, ...charts.map(({ box }) => box)),
    element("p", note, "The clip, one frame of each time slice"), element("div", across, ...frames),
    ...data.runs.flatMap((name, run) => [
      element("p", note, sample(run), name), element("div", across, ...maps[run]),
    ]),
    element("p", note, `The three directions of the colours hold ${Math.round(100 * data.share)} % `
      + "of the variance."),
  );
  choose(0);
});
