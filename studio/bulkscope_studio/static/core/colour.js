// The colours of app.css for what is drawn on a canvas, as they are now: light or dark.

/** @param {string} name of a custom property, as "work" for --work @returns {string} rgb(...) */
export function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
