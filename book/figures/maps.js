// A map of clips: the dot that is pointed at or focused plays its clip and names its class and its neighbours.
window.picojepa.define("maps", (ui, data, figure) => {
  const size = 400, margin = 22, scale = size - 2 * margin;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const draw = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const mark = (kind, width) => draw("path", { d: kind.shape, fill: kind.colour, stroke: "currentColor",
    "stroke-width": 0.6 / width, transform: `scale(${width})` });
  const named = (row) => data.classes[data.labels[row]].name;
  const place = (row) => data.places[map][row].map((part) => margin + scale * part);
  let map = 0, current = 0, lit = null;

  const choice = ui.select("Map", data.maps, (chosen) => { map = chosen; move(); go(current); });
  choice.style.maxWidth = "min(74vw, 22rem)";
  const film = ui.player(data.films);

  const legend = ui.element("div", { class: "pj-controls", role: "group", "aria-label": "Highlight one class" });
  const keys = data.classes.map((kind, index) => {
    const shape = draw("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, mark(kind, 12));
    shape.style.verticalAlign = "-3px";
    const key = ui.element("button", { type: "button", "aria-pressed": "false" }, shape, ` ${kind.name}`);
    key.addEventListener("click", () => { lit = lit === index ? null : index; shine(); go(current); });
    return key;
  });
  legend.append(...keys);

  const links = draw("g", { "aria-hidden": "true", stroke: "currentColor", "stroke-opacity": 0.6 });
  const ring = draw("circle", { r: 15, fill: "none", stroke: "currentColor", "stroke-width": 2 });
  const dots = data.labels.map((label, row) => {
    const dot = draw("g", { role: "option", tabindex: -1, "aria-selected": "false" }, mark(data.classes[label], 9));
    dot.setAttribute("aria-label", `clip ${row + 1}: ${named(row)}`);
    if (!calm) dot.style.transition = "transform 0.7s, opacity 0.2s";
    dot.addEventListener("focus", () => { if (row !== current) go(row); });
    return dot;
  });
  const style = "flex: 1 1 16rem; min-width: 0; max-width: 520px; cursor: pointer; border: 1px solid var(--pj-line)";
  const picture = draw("svg", { viewBox: `0 0 ${size} ${size}`, role: "listbox", style });
  picture.append(links, ...dots);

  const played = ui.element("div", { style: "flex: 1 1 12rem; max-width: 20rem" });
  const missing = ui.element("p", {}, "The page holds no film of this clip.");
  played.append(film, missing);
  ui.place(legend, ui.element("div", { class: "pj-row" }, picture, played));

  // The dot nearest to the pointer, so that small dots need no sure hand.
  const pointed = (event) => {
    const box = picture.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top].map((part) => part * size / box.width);
    const far = dots.map((_, row) => (lit !== null && data.labels[row] !== lit ? Infinity
      : Math.hypot(place(row)[0] - at[0], place(row)[1] - at[1])));
    const row = far.indexOf(Math.min(...far));
    return far[row] < 20 ? row : current;
  };
  picture.addEventListener("pointermove", (event) => { if (pointed(event) !== current) go(pointed(event)); });
  picture.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    go(pointed(event));
    dots[current].focus({ preventScroll: true });
  });

  // The next dot in a direction: near, and rather ahead than aside.
  const ahead = ([right, down]) => {
    const [x, y] = place(current);
    let best = current, least = Infinity;
    dots.forEach((_, row) => {
      const [dx, dy] = [place(row)[0] - x, place(row)[1] - y];
      const along = dx * right + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * right);
      const cost = along + 2 * aside + (aside > along ? size : 0);
      if (row !== current && along > 0 && cost < least) [best, least] = [row, cost];
    });
    return best;
  };
  const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const last = dots.length - 1;
  const within = (row) => Math.max(0, Math.min(row, last));
  picture.addEventListener("keydown", (event) => {
    const jumps = { Home: 0, End: last, PageDown: within(current + 1), PageUp: within(current - 1) };
    const to = ways[event.key] ? ahead(ways[event.key]) : jumps[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
    dots[current].focus({ preventScroll: true });
  });

  const move = () => dots.forEach((dot, row) => {
    const [x, y] = place(row);
    dot.style.transform = `translate(${x}px, ${y}px)`;
  });
  const shine = () => {
    dots.forEach((dot, row) => { dot.style.opacity = lit === null || data.labels[row] === lit ? 1 : 0.15; });
    keys.forEach((key, index) => key.setAttribute("aria-pressed", String(index === lit)));
  };

  const go = (row) => {
    dots[current].setAttribute("tabindex", "-1");
    dots[current].setAttribute("aria-selected", "false");
    current = row;
    dots[row].setAttribute("tabindex", "0");
    dots[row].setAttribute("aria-selected", "true");
    dots[row].append(ring);
    const near = data.neighbours[map][row], counts = new Map(), made = data.films[row];
    near.forEach((other) => counts.set(named(other), (counts.get(named(other)) ?? 0) + 1));
    const line = ([x1, y1], [x2, y2]) => draw("line", { x1, y1, x2, y2 });
    links.replaceChildren(...near.map((other) => line(place(row), place(other))));
    film.hidden = !made;
    missing.hidden = Boolean(made);
    film.setAttribute("aria-label", `Clip ${row + 1}: ${named(row)}`);
    if (made) film.load(made);
    const most = [...counts].sort((one, other) => other[1] - one[1]);
    const words = most.map(([name, count]) => `${name} ${count}`).join(", ");
    ui.say(`Clip ${row + 1}: ${named(row)}. Its ${near.length} nearest in the features: ${words}. `
      + `Map: ${data.maps[map]}.${lit === null ? "" : ` Highlighted: ${data.classes[lit].name}.`}`);
    picture.setAttribute("aria-label", `Map of ${dots.length} clips: ${data.maps[map]}. Arrow keys go to the next dot `
      + "in that direction, Page Up and Page Down to the one before or after in the list.");
    const shown = lit === null ? "all" : data.classes[lit].name;
    figure.dataset.state = `${data.maps[map]}; clip ${row + 1}; ${named(row)}; ${shown}`;
  };

  move();
  shine();
  go(0);
});
