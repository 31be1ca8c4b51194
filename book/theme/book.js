// Small mends for every page: names for controls that the theme leaves without one, and videos that play while they are seen.
document.addEventListener("DOMContentLoaded", () => {
  for (const control of document.querySelectorAll("button[title]:not([aria-label]), a.btn[title]:not([aria-label])")) {
    if (!control.textContent.trim()) control.setAttribute("aria-label", control.title);
  }

  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting && !calm.matches) target.play().catch(() => {}); // a browser may refuse: the controls are there
      else target.pause();
    }
  });
  document.querySelectorAll(".book-videos video").forEach((video) => seen.observe(video));
});
