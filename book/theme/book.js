// For every page: names for controls that the theme leaves without one, videos that play while they are seen, light paper.
document.addEventListener("DOMContentLoaded", () => {
  for (const control of document.querySelectorAll("button[title]:not([aria-label]), a.btn[title]:not([aria-label])")) {
    if (!control.textContent.trim()) control.setAttribute("aria-label", control.title);
  }

  for (const figure of document.querySelectorAll(".bd-article figure, .bd-article .output.image_png")) {
    if (figure.scrollWidth > figure.clientWidth) figure.tabIndex = 0; // what scrolls can be reached by keyboard
  }

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !calm.matches) target.play().catch(() => {}); // a browser may refuse: the controls are there
      else target.pause();
    }
  });
  document.querySelectorAll(".book-videos video, .landing video").forEach((video) => seen.observe(video));

  const root = document.documentElement;
  let mode = root.dataset.theme;
  addEventListener("beforeprint", () => {
    mode = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => { root.dataset.theme = mode; });
});
