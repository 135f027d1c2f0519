"use strict";
// How each kind of mark is drawn and read, what hands do with a panel, and a figure of many panels with its legend.

const MARKS = {
  line(panel, mark) {
    if (panel.off?.has(mark.name)) return [];
    const points = mark.x.map((x, i) => (x === null || mark.y[i] === null ? null : panel.place(mark, x, mark.y[i])));
    const parts = [];
    if (mark.width) {
      const path = make("path", {d: joined(points), fill: "none", "stroke-width": mark.width * POINT, "stroke-opacity": mark.alpha});
      path.style.stroke = mark.colour;
      if (mark.dashes.length) path.style.strokeDasharray = mark.dashes.map((dash) => dash * POINT).join(" ");
      parts.push(path);
    }
    if (mark.marker) {
      const at = points.filter((point) => point?.every(Number.isFinite));
      const path = make("path", {d: at.map(([x, y]) => `M${(x / POINT).toFixed(1)},${(y / POINT).toFixed(1)}${mark.marker}`).join(""),
        transform: `scale(${POINT})`, "fill-opacity": mark.alpha, class: `marker ${mark.filled}`});
      if (mark.filled === "colour") path.style.fill = mark.inside;
      else path.style.stroke = mark.colour;
      parts.push(path);
    }
    return parts;
  },
  area(panel, mark) {
    const points = mark.x.map((x, i) => (x === null || mark.y[i] === null ? null : panel.place(mark, x, mark.y[i])));
    const path = make("path", {d: `${joined(points)}Z`, "fill-opacity": mark.alpha});
    path.style.fill = mark.colour;
    return [path];
  },
  text(panel, mark) {
    const [x, y] = panel.place(mark, mark.x[0], mark.y[0]).map((at, i) => at + mark.shift[i] * POINT);
    const size = mark.size * POINT * 1.1, lines = mark.text.split("\n");
    const above = {top: 0.8, center: 0.35, baseline: 0, bottom: -0.2}[mark.down] - (mark.down === "top" ? 0 : (lines.length - 1) * (mark.down === "center" ? 0.6 : 1.2));
    return lines.map((line, i) => {
      const text = make("text", {"text-anchor": mark.across, "font-size": size, class: mark.boxed ? "boxed" : null,
        transform: `translate(${x} ${y}) rotate(${mark.turn}) translate(0 ${(above + 1.2 * i) * size})`}, line);
      text.style.fill = mark.colour;
      return text;
    });
  },
  grid(panel, mark) {
    mark.picture ??= painted(mark);
    const [left, right, bottom, top] = mark.extent;
    const [x, y] = panel.place(mark, left, top), [x2, y2] = panel.place(mark, right, bottom);
    return [make("image", {href: mark.picture, x, y, width: Math.max(x2 - x, 0), height: Math.max(y2 - y, 0), preserveAspectRatio: "none", class: "grid"})];
  },
};

function joined(points) {
  let pen = "M";
  return points.map((point) => {
    if (!point || !point.every(Number.isFinite)) {
      pen = "M";
      return "";
    }
    const part = `${pen}${point[0].toFixed(1)},${point[1].toFixed(1)}`;
    pen = "L";
    return part;
  }).join("");
}

/** A grid as a picture of one pixel a cell; what was not recorded stays clear. */
function painted(mark) {
  const canvas = make("canvas", {width: mark.values[0].length, height: mark.values.length});
  const pen = canvas.getContext("2d"), picture = pen.createImageData(canvas.width, canvas.height);
  const shades = mark.shades.map((shade) => [1, 3, 5].map((at) => Number.parseInt(shade.slice(at, at + 2), 16)));
  const [of] = SCALES[mark.log ? "log" : "linear"]({}), low = of(mark.low), span = of(mark.high) - low || 1;
  mark.values.flat().forEach((value, i) => {
    if (value === null) return;
    const share = Math.min(Math.max((of(value) - low) / span, 0), 1) || 0;
    picture.data.set([...shades[Math.round(share * (shades.length - 1))], 255], 4 * i);
  });
  pen.putImageData(picture, 0, 0);
  return canvas.toDataURL();
}

// Lines that are drawn paler than this are told to be faint.
const FAINT = 0.6;

// ── What is told of a place ──────────────────────────────────────────────────────────────────────────────────────

/** Places of the horizontal axis at which something is recorded, in order. */
function stops(panel) {
  const found = panel.data.marks.flatMap((mark) => {
    if (mark.kind === "grid") return mark.values[0].map((_, i) => mark.extent[0] + (i + 0.5) * (mark.extent[1] - mark.extent[0]) / mark.values[0].length);
    return mark.kind === "line" && !mark.frame[0] && !mark.frame[1] ? mark.x.filter((x) => x !== null) : [];
  });
  return [...new Set(found)].sort((a, b) => a - b);
}

function nearest(sorted, scale, x) {
  return sorted.reduce((best, one) => (Math.abs(scale.to(one) - scale.to(x)) < Math.abs(scale.to(best) - scale.to(x)) ? one : best), sorted[0]);
}

/** What is drawn at a place: its head, and a part for each line or cell. */
function values(panel, x, y) {
  panel.stops ??= stops(panel);
  if (!panel.stops.length) return null;
  const {data} = panel, at = nearest(panel.stops, panel.x, x);
  const grid = data.marks.find((mark) => mark.kind === "grid");
  if (grid) return ofCell(panel, grid, at, y);
  if (data.y.ticks?.length) return ofRow(panel, y);
  const lines = data.marks.filter((mark) => mark.kind === "line" && !mark.frame[0] && !mark.frame[1] && !panel.off?.has(mark.name));
  const told = new Map();
  for (const mark of lines) {
    const i = mark.x.indexOf(at);
    if (i < 0) continue;
    const text = `${mark.alpha < FAINT ? "faint " : ""}${printed(mark.y[i])}${interval(data, mark, at)}`, key = mark.name || mark.colour;
    const before = told.get(key)?.texts ?? [];
    told.set(key, {colour: mark.colour, name: mark.name, texts: [...before.filter((one) => one !== text), text],
      far: y === undefined ? 0 : Math.abs(panel.y.to(mark.y[i]) - panel.y.to(y))});
  }
  const parts = [...told.values()].sort((a, b) => a.far - b.far).slice(0, 12);
  for (const part of parts) part.text = part.texts.sort((a, b) => a.startsWith("faint") - b.startsWith("faint")).join(", ");
  return {x: at, head: `${data.x.name || "x"} ${named(data.x, at)}`, parts};
}

/** The band in a line's colour at one of its places, as the report writes intervals. */
function interval(data, line, at) {
  const band = data.marks.filter((mark) => mark.kind === "area" && !mark.frame[0] && mark.colour === line.colour)
    .flatMap((mark) => mark.y.filter((_, i) => mark.x[i] === at)).filter((value) => value !== null);
  return band.length > 1 ? ` [${printed(Math.min(...band))}, ${printed(Math.max(...band))}]` : "";
}

function ofCell(panel, grid, at, y) {
  const [left, right, bottom, top] = grid.extent, count = grid.values.length;
  const row = (value) => Math.floor((value - top) / (bottom - top) * count);
  panel.row = Math.min(Math.max(y === undefined ? panel.row ?? 0 : row(y), 0), count - 1);
  const column = Math.floor((at - left) / (right - left) * grid.values[0].length);
  const middle = top + (panel.row + 0.5) * (bottom - top) / count;
  const name = panel.data.names?.[panel.row] ?? named(panel.data.y, middle);
  return {x: at, head: `${panel.data.x.name || "x"} ${panel.data.columns?.[column] ?? printed(at)}`, under: top + (panel.row + 1) * (bottom - top) / count,
    parts: [{name: `${name}:`, text: printed(grid.values[panel.row][column])}]};
}

/** Of a panel whose rows have names: all that is drawn in one. */
function ofRow(panel, y) {
  const {data} = panel, ticks = data.y.ticks;
  if (y !== undefined) panel.row = ticks.findIndex((one) => one === ticks.reduce((a, b) => (Math.abs(b[0] - y) < Math.abs(a[0] - y) ? b : a)));
  const [place, name] = ticks[(panel.row = Math.min(Math.max(panel.row ?? 0, 0), ticks.length - 1))];
  const parts = data.marks.filter((mark) => mark.kind === "line" && !mark.frame[0] && !mark.frame[1]).flatMap((mark) =>
    mark.x.filter((x, i) => x !== null && Math.abs(mark.y[i] - place) < 0.5).map((x) => ({colour: mark.colour, name: mark.name, text: printed(x)})));
  return {x: panel.stops[0], head: name, parts: parts.slice(0, 12)};
}

function named(axis, value) {
  const own = axis.ticks?.find(([place]) => Math.abs(place - value) < 0.01);
  return own ? own[1] : printed(value);
}

// ── Hands ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Let pointers and keys move over a panel. */
function listen(panel) {
  const {svg} = panel;
  let from = null;
  const share = (event) => {
    const {left, top, width, height} = panel.box, frame = svg.getBoundingClientRect();
    return [(event.clientX - frame.left - left) / width, 1 - (event.clientY - frame.top - top) / height].map((v) => Math.min(Math.max(v, 0), 1));
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch") from = share(event);
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = share(event);
    panel.tell(panel.x.from(x), panel.y.from(y));
    if (from) brushed(panel, from, [x, y]);
  });
  svg.addEventListener("pointerup", (event) => {
    const to = share(event), start = from;
    from = null;
    panel.brush.setAttribute("visibility", "hidden");
    if (!start) return panel.tell(...[panel.x, panel.y].map((scale, i) => scale.from(to[i])));
    const [x, y] = spans(panel, start, to);
    if (x) panel.show(panel.x.between(...x), y ? panel.y.between(...y) : panel.y);
  });
  svg.addEventListener("pointercancel", () => (from = null));
  svg.addEventListener("pointerleave", () => from || document.activeElement === svg || panel.hush());
  svg.addEventListener("blur", () => panel.hush());
  svg.addEventListener("dblclick", () => panel.reset());
  svg.addEventListener("keydown", (event) => {
    const act = keys(panel, event)[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
}

function keys(panel, {shiftKey}) {
  panel.stops ??= stops(panel);
  const go = (by) => {
    const i = panel.at === undefined ? -1 : panel.stops.indexOf(panel.at);
    panel.tell(panel.stops[Math.min(Math.max(i + by, 0), panel.stops.length - 1)]);
  };
  const pan = (by) => panel.x !== panel.home[0] && panel.show(panel.x.between(by, 1 + by), panel.y);
  const row = (by) => {
    panel.row = (panel.row ?? 0) + by;
    panel.tell(panel.at ?? panel.stops[0]);
  };
  return {
    ArrowLeft: () => (shiftKey ? pan(-0.25) : go(-1)), ArrowRight: () => (shiftKey ? pan(0.25) : go(1)),
    PageDown: () => go(-Math.ceil(panel.stops.length / 20)), PageUp: () => go(Math.ceil(panel.stops.length / 20)),
    Home: () => go(-Infinity), End: () => go(Infinity), ArrowUp: () => row(-1), ArrowDown: () => row(1),
    "+": () => panel.zoom(0.5), "=": () => panel.zoom(0.5), "-": () => panel.zoom(2), 0: () => panel.reset(), Escape: () => panel.reset(),
  };
}

/** The shares between two corners of a brush, [low, high] each; none across where it is but a click, none down where flat. */
function spans(panel, from, to) {
  const {width, height} = panel.box;
  const [x, y] = [0, 1].map((i) => [Math.min(from[i], to[i]), Math.max(from[i], to[i])]);
  return [(x[1] - x[0]) * width > 6 ? x : null, (y[1] - y[0]) * height > 24 ? y : null];
}

function brushed(panel, from, to) {
  const {left, top, width, height} = panel.box, [x, y] = spans(panel, from, to);
  panel.brush.setAttribute("visibility", x ? "visible" : "hidden");
  if (!x) return;
  const [low, high] = y ?? [0, 1];
  for (const [name, value] of Object.entries({x: left + x[0] * width, width: (x[1] - x[0]) * width, y: top + (1 - high) * height, height: (high - low) * height})) {
    panel.brush.setAttribute(name, value);
  }
}

// ── A figure ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Fill a figure's element: as matplotlib drew it where it could not be read, else panels in rows. */
function fill(element, drawing) {
  const alt = element.getAttribute("aria-label");
  if (drawing.svg) {
    const image = make("img", {src: `data:image/svg+xml;base64,${drawing.svg}`, alt, class: "drawn"});
    return element.prepend(make("div", {class: "wide", tabindex: 0, role: "region", "aria-label": "Figure"}, image));
  }
  const off = new Set(), alone = drawing.rows.length === 1 && drawing.rows[0].panels.length === 1;
  const shown = drawing.rows.map((row) => row.panels.map((data) => new Panel(data, alone ? alt : "")));
  const parts = [legend(drawing.legend, shown.flat(), off), ...drawing.said.map((text) => make("p", {}, text))];
  shown.forEach((row, i) => {
    const place = make("div", {class: "row", "data-across": Math.min(row.length, 4)});
    row.forEach((panel, j) => {
      panel.off = off;
      const own = drawing.rows[i].panels[j], words = [legend(own.legend, [panel], off), key(own)].filter(Boolean);
      place.append(make("div", {}, panel.root, ...words));
    });
    parts.push(legend(drawing.rows[i].legend, row, off), place);
  });
  element.prepend(...parts.filter(Boolean));
  for (const panel of shown.flat()) panel.draw();
}

/** A legend whose entries hide and show their lines. */
function legend(entries, shown, off) {
  if (!entries.length) return null;
  return make("ul", {class: "legend", "aria-label": "Legend"}, ...entries.map((entry) => {
    if (!shown.some((panel) => panel.data.marks.some((mark) => mark.name === entry.text))) return make("li", {}, swatch(entry), entry.text);
    const button = make("button", {type: "button", "aria-pressed": "true", title: "Hide or show"}, swatch(entry), entry.text);
    button.addEventListener("click", () => {
      if (!off.delete(entry.text)) off.add(entry.text);
      button.setAttribute("aria-pressed", !off.has(entry.text));
      for (const panel of shown) panel.draw();
    });
    return make("li", {}, button);
  }));
}

function swatch(entry) {
  const svg = make("svg", {width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": "true"});
  const area = {kind: "area", frame: [0, 0], x: [0, 30, 30, 0], y: [1, 1, 11, 11], alpha: entry.fill, ...entry};
  const line = {kind: "line", frame: [0, 0], x: [1, 29], y: [6, 6], ...entry, marker: ""};
  const point = {...line, width: 0, x: [15], y: [6], marker: entry.marker};
  const here = {place: (_, x, y) => [x, y]};
  svg.append(...(entry.fill === undefined ? [...MARKS.line(here, line), ...MARKS.line(here, point)] : MARKS.area(here, area)));
  return svg;
}

/** The scale of a grid's colours. */
function key(data) {
  const grid = data.marks.find((mark) => mark.kind === "grid");
  if (!grid || !data.key) return null;
  const bar = make("span", {class: "bar", "aria-hidden": "true"});
  bar.style.background = `linear-gradient(to right, ${grid.shades.join(",")})`;
  return make("p", {class: "key"}, `${printed(grid.low, 3)} `, bar, ` ${printed(grid.high, 3)}  ${data.key}${grid.log ? ", logarithmic" : ""}`);
}
