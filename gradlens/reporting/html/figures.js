"use strict";
// A figure: panels in rows, with a legend that hides lines; or as it was drawn.

/** Fill a figure's element: as matplotlib drew it where it could not be read, else panels in rows. */
function fill(element, drawing) {
  const alt = element.getAttribute("aria-label");
  if (drawing.svg) {
    const image = make("img", {src: `data:image/svg+xml;base64,${drawing.svg}`, alt, class: "drawn"});
    return element.prepend(make("div", {class: "wide", tabindex: 0, role: "region", "aria-label": "Figure"}, image));
  }
  const off = new Set(),
    alone = drawing.rows.length === 1 && drawing.rows[0].panels.length === 1;
  const shown = drawing.rows.map((row) => row.panels.map((data) => new Panel(data, alone ? alt : "")));
  const parts = [legend(drawing.legend, shown.flat(), off), ...drawing.said.map((text) => make("p", {}, text))];
  shown.forEach((row, i) => {
    const place = make("div", {class: "row", "data-across": Math.min(row.length, 4)});
    row.forEach((panel, j) => {
      panel.off = off;
      const own = drawing.rows[i].panels[j],
        words = [legend(own.legend, [panel], off), key(own)].filter(Boolean);
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
  return make(
    "ul",
    {class: "legend", "aria-label": "Legend"},
    ...entries.map((entry) => {
      if (!shown.some((panel) => panel.data.marks.some((mark) => mark.name === entry.text)))
        return make("li", {}, swatch(entry), entry.text);
      const button = make(
        "button",
        {type: "button", "aria-pressed": "true", title: "Hide or show"},
        swatch(entry),
        entry.text,
      );
      button.addEventListener("click", () => {
        if (!off.delete(entry.text)) off.add(entry.text);
        button.setAttribute("aria-pressed", !off.has(entry.text));
        for (const panel of shown) panel.draw();
      });
      return make("li", {}, button);
    }),
  );
}

function swatch(entry) {
  const svg = make("svg", {width: 30, height: 12, viewBox: "0 0 30 12", "aria-hidden": "true"});
  const area = {kind: "area", frame: [0, 0], x: [0, 30, 30, 0], y: [1, 1, 11, 11], alpha: entry.fill, ...entry};
  const line = {kind: "line", frame: [0, 0], x: [1, 29], y: [6, 6], ...entry, marker: ""};
  const point = {...line, width: 0, x: [15], y: [6], marker: entry.marker};
  const here = {place: (_, x, y) => [x, y]};
  svg.append(
    ...(entry.fill === undefined ? [...MARKS.line(here, line), ...MARKS.line(here, point)] : MARKS.area(here, area)),
  );
  return svg;
}

/** The scale of a grid's colours. */
function key(data) {
  const grid = data.marks.find((mark) => mark.kind === "grid");
  if (!grid || !data.key) return null;
  const bar = make("span", {class: "bar", "aria-hidden": "true"});
  bar.style.background = `linear-gradient(to right, ${grid.shades.join(",")})`;
  return make(
    "p",
    {class: "key"},
    `${printed(grid.low, 3)} `,
    bar,
    ` ${printed(grid.high, 3)}  ${data.key}${grid.log ? ", logarithmic" : ""}`,
  );
}
