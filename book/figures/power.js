// Power of McNemar's test: sliders for the number of videos and the lead; the chance to tell it, from a table.
window.picojepa.define("power", (ui, data, figure) => {
  const [left, right, top, bottom, width, height] = [44, 350, 34, 214, 360, 254];
  const set = (made, attributes) => {
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const draw = (tag, attributes, ...children) => {
    const made = set(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes);
    made.append(...children);
    return made;
  };
  const [low, high] = [data.videos[0], data.videos.at(-1)].map(Math.log);
  const x = (n) => left + (right - left) * (Math.log(n) - low) / (high - low);
  const y = (percent) => bottom - (bottom - top) * percent / 100;
  const spaced = (n) => String(n).replace(/(?<=\d)(?=(\d{3})+$)/g, "\u00a0");
  const write = (text, at, more = {}) =>
    draw("text", { x: at[0], y: at[1], fill: "currentColor", "font-size": 11, "text-anchor": "middle", ...more }, text);
  const line = (from, to, more = {}) =>
    draw("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], stroke: "currentColor", ...more });

  const style = "width: 100%; max-width: 520px; height: auto";
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", style });
  for (const percent of [0, 20, 40, 60, 80, 100]) {
    picture.append(line([left, y(percent)], [right, y(percent)], { "stroke-opacity": percent ? 0.18 : 1 }));
    picture.append(write(`${percent}`, [left - 6, y(percent) + 4], { "text-anchor": "end" }));
  }
  for (const n of [20, 100, 1000, 10000].filter((n) => n >= data.videos[0] && n <= data.videos.at(-1))) {
    picture.append(line([x(n), bottom], [x(n), bottom + 4]), write(spaced(n), [x(n), bottom + 16]));
  }
  picture.append(write("videos", [(left + right) / 2, height - 6]));
  picture.append(write("told (% of cases)", [0, 0], { transform: `translate(11 ${(top + bottom) / 2}) rotate(-90)` }));
  for (const { n, name } of data.marks) {
    const inside = { "text-anchor": x(n) > right - 50 ? "end" : "middle" };
    picture.append(line([x(n), top], [x(n), bottom], { "stroke-dasharray": "4 3" }));
    picture.append(write(spaced(n), [x(n), top - 16], inside), write(name, [x(n), top - 4], inside));
  }
  const path = (values) => values.map((percent, index) => `${x(data.videos[index])},${y(percent)}`).join(" ");
  const curves = data.told.map((values) => draw("polyline", { points: path(values), fill: "none" }));
  const here = draw("circle", { r: 6, fill: data.palette.context, stroke: "currentColor", "stroke-width": 1.5 });
  const guide = line([0, 0], [0, 0], { stroke: data.palette.context, "stroke-width": 1.5 });
  picture.append(...curves, guide, here);

  let [lead, place] = data.start;
  const count = (at) => spaced(data.videos[at]);
  const videos = ui.slider("Videos", { max: data.videos.length - 1, value: place, format: count },
    (at) => { place = at; show(); });
  const points = (at) => `${data.leads[at]} ${data.leads[at] === 1 ? "point" : "points"}`;
  ui.slider("Lead", { max: data.leads.length - 1, value: lead, format: points },
    (at) => { lead = at; show(); });
  for (const { n, name } of data.marks) ui.button(`${spaced(n)}: ${name}`, () => videos.move(data.videos.indexOf(n)));
  ui.place(picture);

  const show = () => {
    const n = data.videos[place], percent = data.told[lead][place], needed = data.needed[lead];
    curves.forEach((curve, index) => {
      const [stroke, thick, opacity] = index === lead ? [data.palette.context, 3, 1] : ["currentColor", 1, 0.35];
      set(curve, { stroke, "stroke-width": thick, "stroke-opacity": opacity });
    });
    set(guide, { x1: x(n), x2: x(n), y1: bottom, y2: y(percent) });
    set(here, { cx: x(n), cy: y(percent) });
    const enough = needed ? `about ${spaced(needed)} videos` : "more videos than were counted";
    const text = `With ${spaced(n)} videos a lead of ${points(lead)} is told in ${Math.round(percent)} % of cases. `
      + `Four cases in five take ${enough}.`;
    ui.say(text);
    picture.setAttribute("aria-label", `Curves of the chance to tell a lead over the number of videos. ${text}`);
    figure.dataset.state = `${n} videos; ${data.leads[lead]} points; ${percent} %`;
  };
  show();
});
