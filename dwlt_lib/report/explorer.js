"use strict";
// The report's explorer: the curves of one share of the data, and the level under the slider.
// Texts go in as text, never as markup.
(() => {
  const shares = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  if (!shares.length) return;
  const CRITERIA = { ST_SA: "SA after ST", AT_SA: "SA after AT", AT_RA: "RA after AT" };
  const WIDTH = 340, HEIGHT = 230, LEFT = 40, BOTTOM = 34, TOP = 10, RIGHT = 10;
  const FIRST = ["IMP-ST", "RP"]; // the methods that are drawn at first

  function add(parent, name, attributes = {}, text = "") {
    const svg = ["svg", "path", "line", "text", "circle", "g", "title"].includes(name);
    const made = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    parent.append(made);
    return made;
  }
  const signed = (value) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1));
  const shown = (value) => (value === null ? "–" : value.toFixed(1));
  const named = (curve) => `θ ${curve.pretraining}, ${curve.method}`;

  const controls = add(root, "div", { class: "controls" });
  const choice = add(add(controls, "label", {}, "Data "), "select");
  shares.forEach((share, i) => add(choice, "option", { value: i }, share.name));
  const sliderLabel = add(controls, "label", {}, "Sparsity ");
  const slider = add(sliderLabel, "input", { type: "range", min: 0, step: 1 });
  const level = add(sliderLabel, "output");
  const curvesBox = add(root, "fieldset");
  const panels = add(root, "div", { class: "panels" });
  const below = add(root, "div", { class: "scroll", tabindex: 0 });

  let share, levels, off;
  function choose(index) {
    share = shares[index];
    levels = [...new Set(share.curves.flatMap((c) => c.points.map((p) => p.sparsity)))]
      .filter((s) => s !== null)
      .sort((a, b) => a - b);
    off = new Set(share.curves.filter((c) => !FIRST.includes(c.method)));
    slider.max = levels.length - 1;
    slider.value = Math.min(levels.length - 1, Math.max(1, levels.findIndex((s) => s > 70)));
    curvesBox.replaceChildren();
    add(curvesBox, "legend", {}, "Tickets");
    share.curves.forEach((curve) => {
      const label = add(curvesBox, "label");
      const box = add(label, "input", { type: "checkbox" });
      box.checked = !off.has(curve);
      box.addEventListener("change", () => {
        if (box.checked) off.delete(curve);
        else off.add(curve);
        draw();
      });
      const key = add(label, "svg", { viewBox: "0 0 30 10", width: 30, height: 10, "aria-hidden": "true" });
      add(key, "line", { x1: 0, x2: 30, y1: 5, y2: 5, stroke: curve.color, "stroke-width": 2, "stroke-dasharray": curve.dash });
      label.append(named(curve));
    });
    draw();
  }

  function panel(criterion, curves) {
    const box = add(panels, "figure");
    add(box, "figcaption", {}, `${CRITERIA[criterion]} (%)`);
    const svg = add(box, "svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": `${CRITERIA[criterion]} along sparsity, mean and standard deviation over seeds`,
    });
    const values = curves.flatMap((c) => c.points.flatMap((p) => {
      const { mean, sd } = p[criterion];
      return mean === null ? [] : [mean - (sd || 0), mean + (sd || 0)];
    }));
    if (!values.length) return;
    const low = Math.floor(Math.min(...values)), high = Math.max(low + 1, Math.ceil(Math.max(...values)));
    const x = (s) => LEFT + ((levels.indexOf(s) + 0.5) / levels.length) * (WIDTH - LEFT - RIGHT);
    const y = (v) => HEIGHT - BOTTOM - ((v - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
    const at = levels[slider.value];
    add(svg, "line", { x1: x(at), x2: x(at), y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor" });
    for (let i = 0; i <= 4; i += 1) {
      const value = low + ((high - low) * i) / 4;
      add(svg, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" });
      add(svg, "text", { x: LEFT - 4, y: y(value) + 4, "text-anchor": "end" }, value.toFixed((high - low) % 4 ? 1 : 0));
    }
    for (const s of levels) add(svg, "text", { x: x(s), y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, s.toFixed(s % 1 && levels.length < 8 ? 1 : 0));
    add(svg, "text", { x: (WIDTH + LEFT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "sparsity (%)");
    for (const curve of curves) {
      const points = curve.points.filter((p) => p[criterion].mean !== null);
      const path = points.map((p, i) => `${i ? "L" : "M"}${x(p.sparsity)} ${y(p[criterion].mean)}`).join("");
      add(svg, "path", { d: path, fill: "none", stroke: curve.color, "stroke-width": 2, "stroke-dasharray": curve.dash });
      for (const p of points) {
        const { mean, sd, seeds, ids } = p[criterion];
        const group = add(svg, "g");
        add(group, "title", {}, `${named(curve)}, ${shown(p.sparsity)} %: ${shown(mean)} ± ${shown(sd)} (${seeds} seeds), ${p.verdict}\nrecords ${ids.join(" ")}`);
        if (sd) add(group, "line", { x1: x(p.sparsity), x2: x(p.sparsity), y1: y(mean - sd), y2: y(mean + sd), stroke: curve.color, "stroke-width": 1 });
        add(group, "circle", { cx: x(p.sparsity), cy: y(mean), r: 4, fill: curve.color });
        add(group, "circle", { cx: x(p.sparsity), cy: y(mean), r: 10, fill: "transparent" });
      }
    }
  }

  function draw() {
    const curves = share.curves.filter((c) => !off.has(c)), at = levels[slider.value];
    level.textContent = ` ${shown(at)} %`;
    panels.replaceChildren();
    for (const criterion of Object.keys(CRITERIA)) panel(criterion, curves);
    below.replaceChildren();
    const table = add(below, "table", { class: "who" });
    const head = add(add(table, "thead"), "tr");
    for (const name of ["ticket", ...Object.values(CRITERIA), "verdict"]) add(head, "th", { scope: "col" }, name);
    const body = add(table, "tbody");
    for (const curve of curves) {
      const point = curve.points.find((p) => p.sparsity === at);
      if (!point) continue;
      const row = add(body, "tr");
      add(row, "th", { scope: "row" }, named(curve));
      for (const criterion of Object.keys(CRITERIA)) {
        const { mean, difference } = point[criterion];
        const change = difference ? ` (${signed(difference[0])} [${signed(difference[1])}, ${signed(difference[2])}])` : "";
        add(row, "td", {}, shown(mean) + change);
      }
      add(row, "td", { class: point.verdict.replace(" ", "-") }, point.verdict);
    }
    add(below, "p", { class: "note" }, "Accuracy in %, and in brackets the difference to dense in points with its one-sided 95 % bounds.");
  }

  choice.addEventListener("change", () => choose(choice.value));
  slider.addEventListener("input", draw);
  choose(0);
})();
