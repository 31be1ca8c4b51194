// Members and their votes: pick a video, see its clip, each member's answer and how the vote comes about.
window.picojepa.define("votes", (ui, data, figure) => {
  const kinds = Object.keys(data.kinds);
  let kind = 0, place = 0;
  const rows = () => data.kinds[kinds[kind]];
  const option = (text, index) => ui.element("option", { value: String(index) }, text);

  const which = ui.select("Which", kinds.map((name) => `${name} (${data.kinds[name].length})`), (chosen) => {
    kind = chosen;
    fill();
    go(0);
  });
  which.style.maxWidth = "min(78vw, 24rem)";
  const video = ui.select("Video", [], (chosen) => go(chosen));
  video.style.maxWidth = "min(60vw, 20rem)";
  const back = ui.button("Previous", () => go(place - 1));
  const forth = ui.button("Next", () => go(place + 1));

  const film = ui.player(data.films);

  const head = (text, scope) => ui.element("th", { scope }, text);
  const columns = ["Member", "Answer, certainty", "Next best"];
  const body = ui.element("tbody");
  const table = ui.element("table", { style: "font-size: 0.85rem; margin: 0" },
    ui.element("caption", { style: "caption-side: top; text-align: left" }, "What each member says"),
    ui.element("thead", {}, ui.element("tr", {}, ...columns.map((text) => head(text, "col")))),
    body);
  const counted = ui.element("ol", { style: "margin: 0.5rem 0 0; padding-left: 1.4rem" });
  const beside = ui.element("div", { style: "flex: 1 1 18rem; min-width: 0; overflow-x: auto" }, table, counted);
  const missing = ui.element("p", {}, "The page holds no film of this video.");
  ui.place(ui.element("div", { class: "pj-row" }, ui.element("div", {}, film, missing), beside));

  const fill = () => {
    video.replaceChildren(...rows().map((row, index) => option(`${index + 1}: ${data.names[row]}`, index)));
  };

  // The bar under a certainty is as long as it.
  const share = (number, percent) => `${data.classes[number]} ${percent}\u00a0%`;
  const bar = (percent) => ui.element("span", { "aria-hidden": "true", style: "display: block; height: 4px; "
    + `margin-top: 2px; width: ${percent}%; background: currentColor; opacity: 0.6` });

  const member = (name, [[answer, certainty], ...others], truth) => ui.element("tr", {},
    head(name.replace(" ", "\u00a0"), "row"),
    ui.element("td", {}, `${answer === truth ? "✓ right:" : "✗ wrong:"} ${share(answer, certainty)}`, bar(certainty)),
    ui.element("td", {}, others.map((other) => share(...other)).join(", ")));

  const go = (to) => {
    const empty = rows().length === 0;
    place = Math.max(0, Math.min(to, rows().length - 1));
    back.disabled = place === 0;
    forth.disabled = place >= rows().length - 1;
    body.replaceChildren();
    counted.replaceChildren();
    film.hidden = missing.hidden = empty;
    if (empty) {
      ui.say(`No video is of this kind: ${kinds[kind]}.`);
      figure.dataset.state = `${kinds[kind]}; none`;
      return;
    }
    const row = rows()[place], { truth, vote, top, steps } = data.videos[row], made = data.films[row];
    video.selectedIndex = place;
    film.hidden = !made;
    missing.hidden = Boolean(made);
    film.setAttribute("aria-label", `Clip of ${data.classes[truth]}, ${data.names[row]}`);
    if (made) film.load(made);
    body.append(...data.members.map((name, index) => member(name, top[index], truth)));
    counted.append(...steps.map((step) => ui.element("li", {}, step)));
    const judged = (answer) => `${data.classes[answer]}, ${answer === truth ? "right" : "wrong"}`;
    ui.say(`Video ${place + 1} of ${rows().length} (${kinds[kind]}). The truth is ${data.classes[truth]}. `
      + `The vote: ${judged(vote)}. General: ${judged(top[0][0][0])}.`);
    figure.dataset.state = `${kinds[kind]}; ${data.names[row]}; vote ${data.classes[vote]}`;
  };

  fill();
  go(0);
});
