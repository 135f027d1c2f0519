"use strict";
// What pointers and keys do with a panel.

/** Let pointers and keys move over a panel. */
function listen(panel) {
  const {svg} = panel;
  let from = null;
  const share = (event) => {
    const {left, top, width, height} = panel.box,
      frame = svg.getBoundingClientRect();
    return [(event.clientX - frame.left - left) / width, 1 - (event.clientY - frame.top - top) / height].map((v) =>
      Math.min(Math.max(v, 0), 1),
    );
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
    const to = share(event),
      start = from;
    from = null;
    panel.brush.setAttribute("visibility", "hidden");
    if (!start) return panel.tell(...[panel.x, panel.y].map((scale, i) => scale.from(to[i])));
    const [x, y] = spans(panel, start, to);
    if (x) panel.show(panel.x.between(...x), y ? panel.y.between(...y) : panel.y);
  });
  svg.addEventListener("pointercancel", () => (from = null));
  svg.addEventListener("pointerleave", ({pointerType}) => {
    // A finger that is lifted leaves too; what it asked for stays.
    if (pointerType === "mouse" && !from && document.activeElement !== svg) panel.hush();
  });
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
  const pan = (by) => {
    const [low, high] = [by, 1 + by].map((share) => panel.home[0].to(panel.x.from(share)));
    const back = Math.max(0, -low) - Math.max(0, high - 1);
    panel.show(panel.home[0].between(low + back, high + back), panel.y);
  };
  const row = (by) => {
    panel.row = (panel.row ?? 0) + by;
    panel.tell(panel.at ?? panel.stops[0]);
  };
  return {
    ArrowLeft: () => (shiftKey ? pan(-0.25) : go(-1)),
    ArrowRight: () => (shiftKey ? pan(0.25) : go(1)),
    PageDown: () => go(-Math.ceil(panel.stops.length / 20)),
    PageUp: () => go(Math.ceil(panel.stops.length / 20)),
    Home: () => go(-Infinity),
    End: () => go(Infinity),
    ...(panel.data.y.ticks?.length && {ArrowUp: () => row(-1), ArrowDown: () => row(1)}),
    "+": () => panel.zoom(0.5),
    "=": () => panel.zoom(0.5),
    "-": () => panel.zoom(2),
    0: () => panel.reset(),
    Escape: () => panel.reset(),
  };
}

/** The shares between two corners of a brush, [low, high] each: none across for a click, none down where it is flat. */
function spans(panel, from, to) {
  const {width, height} = panel.box;
  const [x, y] = [0, 1].map((i) => [Math.min(from[i], to[i]), Math.max(from[i], to[i])]);
  return [(x[1] - x[0]) * width > 6 ? x : null, (y[1] - y[0]) * height > 24 ? y : null];
}

function brushed(panel, from, to) {
  const {left, top, width, height} = panel.box,
    [x, y] = spans(panel, from, to);
  panel.brush.setAttribute("visibility", x ? "visible" : "hidden");
  if (!x) return;
  const [low, high] = y ?? [0, 1];
  for (const [name, value] of Object.entries({
    x: left + x[0] * width,
    width: (x[1] - x[0]) * width,
    y: top + (1 - high) * height,
    height: (high - low) * height,
  })) {
    panel.brush.setAttribute(name, value);
  }
}
