// What all interactive figures share: finding them on the page, and accessible controls.
window.picojepa ??= (() => {
  const kinds = {};
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in made && typeof value !== "string") made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };

  let numbered = 0;
  const labelled = (text, control, ...more) => {
    control.id = `pj-${++numbered}`;
    return element("span", { class: "pj-control" }, element("label", { for: control.id }, text), control, ...more);
  };

  // Controls for one figure; each call adds to its row of controls. `changed` is called with every later value.
  const controls = (live) => {
    const row = element("div", { class: "pj-controls" });
    const status = element("p", { class: "pj-status", role: "status" });
    return {
      element,
      row,
      // Where a figure says in words what it shows: its text alternative while it changes.
      say(text) { status.textContent = text; },
      place(...parts) { live.append(row, ...parts, status); },
      select(label, names, changed) {
        const box = element("select", {}, ...names.map((name, index) => element("option", { value: String(index) }, name)));
        box.addEventListener("change", () => changed(box.selectedIndex));
        row.append(labelled(label, box));
        return box;
      },
      // A range input; `format` turns its value into the words beside it.
      slider(label, { min = 0, max, step = 1, value = min, format = String }, changed) {
        const range = element("input", { type: "range", min: String(min), max: String(max), step: String(step), value: String(value) });
        const output = element("output");
        const show = () => {
          output.textContent = format(range.valueAsNumber);
          range.setAttribute("aria-valuetext", output.textContent);
        };
        range.addEventListener("input", () => { show(); changed(range.valueAsNumber); });
        row.append(labelled(label, range, output));
        show();
        range.move = (to) => { range.value = String(to); show(); changed(range.valueAsNumber); };
        return range;
      },
      button(label, pressed) {
        const made = element("button", { type: "button" }, label);
        made.addEventListener("click", pressed);
        row.append(made);
        return made;
      },
      // A button that moves a slider on by itself, in a loop; still at first if the reader asked for less motion.
      play(range, { milliseconds = 250, start = false } = {}) {
        let timer = null;
        const made = this.button("Play", () => set(timer === null));
        const next = () => range.move(range.valueAsNumber >= Number(range.max) ? Number(range.min) : range.valueAsNumber + Number(range.step));
        const set = (playing) => {
          clearInterval(timer);
          timer = playing ? setInterval(() => (made.isConnected ? next() : set(false)), milliseconds) : null;
          made.textContent = playing ? "Pause" : "Play";
        };
        range.addEventListener("pointerdown", () => set(false));
        range.addEventListener("keydown", () => set(false));
        set(start && !calm.matches);
        return made;
      },
      // A canvas for one frame of a film made by `figures.film`; `paint(context, frame)` draws over it.
      // It shows the film before until the next one is here, and is `aria-busy` meanwhile.
      film({ scale = 1, paint = () => {} } = {}) {
        const canvas = element("canvas", { class: "pj-film", role: "img" });
        const context = canvas.getContext("2d");
        const picture = new Image();
        let film = null, frame = 0;
        const draw = () => {
          if (!film || !picture.complete || !picture.naturalWidth) return;
          context.imageSmoothingEnabled = false;
          context.drawImage(picture, 0, frame * film.height, film.width, film.height, 0, 0, canvas.width, canvas.height);
          paint(context, frame);
        };
        const came = () => { canvas.ariaBusy = "false"; draw(); };
        picture.addEventListener("load", came);
        picture.addEventListener("error", came);
        return Object.assign(canvas, {
          load(other) {
            film = other;
            const [width, height] = [film.width * scale, film.height * scale];
            if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
            canvas.ariaBusy = "true";
            picture.src = film.src;
          },
          show(number) { frame = number; draw(); },
          redraw: draw,
        });
      },
      // A canvas for one of many small films (made by `figures.films`), with its slider and a Play button.
      player(films) {
        const canvas = this.film({ scale: 3 });
        canvas.style.width = "192px";
        const some = films.find((one) => one);
        const format = (frame) => String(frame + 1);
        if (some) this.play(this.slider("Frame", { max: some.frames - 1, format }, canvas.show), { start: true });
        return canvas;
      },
    };
  };

  const build = (figure) => {
    const live = figure.querySelector(".pj-live");
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    kinds[figure.dataset.kind](controls(live), data, figure);
    figure.classList.add("pj-ready");
  };

  // A figure is built when it comes near the window, so that a page loads only the media that are looked at.
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) { near.unobserve(target); build(target); }
    }
  }, { rootMargin: "400px" });

  return {
    define(kind, make) { kinds[kind] ??= make; },
    scan() {
      for (const figure of document.querySelectorAll(".pj:not([data-found])")) {
        figure.dataset.found = "";
        near.observe(figure);
      }
    },
  };
})();
