"use strict";
// What is told of a place in a panel.

// Lines that are drawn paler than this are told to be faint.
const FAINT = 0.6;

/** Places of the horizontal axis at which something is recorded, in order. */
function stops(panel) {
  const found = panel.data.marks.flatMap((mark) => {
    if (mark.kind === "grid")
      return mark.values[0].map(
        (_, i) => mark.extent[0] + ((i + 0.5) * (mark.extent[1] - mark.extent[0])) / mark.values[0].length,
      );
    return mark.kind === "line" && !mark.frame[0] && !mark.frame[1] ? mark.x.filter((x) => x !== null) : [];
  });
  return [...new Set(found)].sort((a, b) => a - b);
}

function nearest(sorted, scale, x) {
  return sorted.reduce(
    (best, one) => (Math.abs(scale.to(one) - scale.to(x)) < Math.abs(scale.to(best) - scale.to(x)) ? one : best),
    sorted[0],
  );
}

/** What is drawn at a place: its head, and a part for each line or cell. */
function values(panel, x, y) {
  panel.stops ??= stops(panel);
  if (!panel.stops.length) return null;
  const {data} = panel,
    at = nearest(panel.stops, panel.x, x);
  const grid = data.marks.find((mark) => mark.kind === "grid");
  if (grid) return ofCell(panel, grid, at, y);
  if (data.y.ticks?.length) return ofRow(panel, y);
  const lines = data.marks.filter(
    (mark) => mark.kind === "line" && !mark.frame[0] && !mark.frame[1] && !panel.off?.has(mark.name),
  );
  const told = new Map();
  for (const mark of lines) {
    const i = mark.x.indexOf(at);
    if (i < 0) continue;
    const text = `${mark.alpha < FAINT ? "faint " : ""}${printed(mark.y[i])}${interval(data, mark, at)}`,
      key = mark.name || mark.colour;
    const before = told.get(key)?.texts ?? [];
    told.set(key, {
      colour: mark.colour,
      name: mark.name,
      texts: [...before.filter((one) => one !== text), text],
      far: y === undefined ? 0 : Math.abs(panel.y.to(mark.y[i]) - panel.y.to(y)),
    });
  }
  const parts = [...told.values()].sort((a, b) => a.far - b.far).slice(0, 12);
  for (const part of parts)
    part.text = part.texts.sort((a, b) => a.startsWith("faint") - b.startsWith("faint")).join(", ");
  return {x: at, head: `${data.x.name || "x"} ${named(data.x, at)}`, parts};
}

/** The band in a line's colour at one of its places, as the report writes intervals. */
function interval(data, line, at) {
  const band = data.marks
    .filter((mark) => mark.kind === "area" && !mark.frame[0] && mark.colour === line.colour)
    .flatMap((mark) => mark.y.filter((_, i) => mark.x[i] === at))
    .filter((value) => value !== null);
  return band.length > 1 ? ` [${printed(Math.min(...band))}, ${printed(Math.max(...band))}]` : "";
}

function ofCell(panel, grid, at, y) {
  const [left, right, bottom, top] = grid.extent,
    count = grid.values.length;
  const row = (value) => Math.floor(((value - top) / (bottom - top)) * count);
  panel.row = Math.min(Math.max(y === undefined ? (panel.row ?? 0) : row(y), 0), count - 1);
  const column = Math.floor(((at - left) / (right - left)) * grid.values[0].length);
  const middle = top + ((panel.row + 0.5) * (bottom - top)) / count;
  const name = panel.data.names?.[panel.row] ?? named(panel.data.y, middle);
  return {
    x: at,
    head: `${panel.data.x.name || "x"} ${panel.data.columns?.[column] ?? printed(at)}`,
    under: top + ((panel.row + 1) * (bottom - top)) / count,
    parts: [{name: `${name}:`, text: printed(grid.values[panel.row][column])}],
  };
}

/** Of a panel whose rows have names: all that is drawn in one. */
function ofRow(panel, y) {
  const {data} = panel,
    ticks = data.y.ticks;
  if (y !== undefined)
    panel.row = ticks.findIndex(
      (one) => one === ticks.reduce((a, b) => (Math.abs(b[0] - y) < Math.abs(a[0] - y) ? b : a)),
    );
  const [place, name] = ticks[(panel.row = Math.min(Math.max(panel.row ?? 0, 0), ticks.length - 1))];
  const parts = data.marks
    .filter((mark) => mark.kind === "line" && !mark.frame[0] && !mark.frame[1])
    .flatMap((mark) =>
      mark.x
        .filter((x, i) => x !== null && Math.abs(mark.y[i] - place) < 0.5)
        .map((x) => ({colour: mark.colour, name: mark.name, text: printed(x)})),
    );
  return {x: panel.stops[0], head: name, parts: parts.slice(0, 12)};
}

function named(axis, value) {
  const own = axis.ticks?.find(([place]) => Math.abs(place - value) < 0.01);
  return own ? own[1] : printed(value);
}
