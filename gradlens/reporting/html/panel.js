"use strict";
// One panel of a figure: drawn from its marks, zoomed, and asked for the values at a place.

const SVG = "http://www.w3.org/2000/svg";
const POINT = 4 / 3; // pixels in a point, as figures are sized in
/** Make an element; text is never read as markup. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "text", "clipPath", "image", "pattern", "title"].includes(name);
  const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== null && value !== false) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

let panels = 0;

class Panel {
  /** @param {object} data a panel as the report packed it; its element is `this.root`. */
  constructor(data, alt) {
    this.data = data;
    this.id = `panel-${(panels += 1)}`;
    for (const axis of [data.x, data.y]) axis.whole = wholeNumbers(data, axis === data.x ? "x" : "y");
    this.home = [new Scale(data.x), new Scale(data.y)];
    [this.x, this.y] = this.home;
    this.said = make("p", {class: "said", "aria-live": "polite"});
    this.svg = make("svg", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "panel, read with the arrow keys",
      "aria-label": [data.title, data.y.label, alt].filter(Boolean).join(". "),
      "aria-keyshortcuts": "ArrowLeft ArrowRight + - 0",
    });
    this.tools = make(
      "div",
      {class: "zoom"},
      ...[
        ["+", "Zoom in", () => this.zoom(0.5)],
        ["−", "Zoom out", () => this.zoom(2)],
        ["↺", "Show all", () => this.reset()],
      ].map(([sign, name, act]) => {
        const button = make(
          "button",
          {type: "button", "aria-label": `${name}${data.title ? `: ${data.title}` : ""}`, title: name},
          sign,
        );
        button.addEventListener("click", act);
        return button;
      }),
    );
    this.head = make("div", {class: "head"}, make("b", {}, data.title), make("span", {class: "soft"}), this.tools);
    this.foot = make("p", {class: "foot"}, data.x.label);
    this.root = make("div", {class: "panel"}, this.head, this.svg, this.foot, this.said);
    listen(this);
    new ResizeObserver(() => this.root.clientWidth === this.width || this.draw()).observe(this.root);
  }

  /** Draw all of it anew in the width there is. */
  draw() {
    const width = (this.width = this.root.clientWidth);
    if (!width) return;
    const {data} = this;
    const height = Math.max(data.height * 96 * 1.15, 70);
    const ticks = this.y.ticks(data.y.ticks ? Math.floor(height / 13) : Math.max(2, Math.floor(height / 34)));
    const widest = Math.max(0, ...ticks.map(([, text]) => text.length));
    const beside = data.y.label && data.y.label.length * 6.2 < height;
    this.head.children[1].textContent = beside ? "" : data.y.label;
    this.gap = beside ? 17 : 4;
    const left = Math.min(widest * 6.4 + 8, width * 0.42) + this.gap,
      top = 8;
    this.box = {left, top, width: Math.max(width - left - 12, 30), height};
    const all = top + height + 22;
    this.foot.style.paddingLeft = `${left}px`;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${all}`);
    this.svg.setAttribute("height", all);
    const clip = `${this.id}-clip`;
    this.inner = make("g", {"clip-path": `url(#${clip})`});
    this.svg.replaceChildren(
      make("clipPath", {id: clip}, make("rect", {x: left, y: top - 1, width: this.box.width, height: height + 2})),
      ...this.frame(ticks),
      this.inner,
    );
    for (const mark of data.marks) this.inner.append(...MARKS[mark.kind](this, mark));
    this.hand = make("line", {class: "hand", y1: top, y2: top + height, visibility: "hidden"});
    this.brush = make("rect", {class: "brush", visibility: "hidden"});
    this.svg.append(this.hand, this.brush);
    this.root.classList.toggle("zoomed", this.x !== this.home[0] || this.y !== this.home[1]);
    if (this.at !== undefined) this.tell(this.at);
  }

  /** Ticks, grid and words around the panel. */
  frame(ticks) {
    const {left, top, width, height} = this.box,
      {data} = this,
      bottom = top + height;
    const parts = [make("rect", {class: "paper", x: left, y: top, width, height})];
    if (data.hatched)
      parts.push(make("rect", {class: "hatched", x: left, y: top, width, height, fill: "url(#hatch)"}));
    const long = Math.max(3, Math.floor((left - this.gap - 8) / 6.4));
    for (const [value, text] of ticks) {
      const y = top + height * (1 - this.y.to(value));
      const shown = text.length > long ? `…${text.slice(1 - long)}` : text;
      parts.push(
        make("line", {class: "rule", x1: left, x2: left + width, y1: y, y2: y}),
        make(
          "text",
          {x: left - 6, y: y + 4, "text-anchor": "end"},
          shown,
          ...(shown === text ? [] : [make("title", {}, text)]),
        ),
      );
    }
    for (const [value, text] of this.x.ticks(Math.max(2, Math.floor(width / 62)))) {
      const x = left + width * this.x.to(value);
      parts.push(
        make("line", {class: "rule", x1: x, x2: x, y1: top, y2: bottom}),
        make("text", {x, y: bottom + 15, "text-anchor": "middle"}, text),
      );
    }
    parts.push(make("path", {class: "edge", d: `M${left},${top}V${bottom}H${left + width}`}));
    if (this.gap > 10) {
      const middle = top + height / 2;
      parts.push(
        make(
          "text",
          {x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})`},
          data.y.label,
        ),
      );
    }
    return parts;
  }

  /** Where a mark's point is drawn. */
  place(mark, x, y) {
    const {left, top, width, height} = this.box;
    return [
      left + width * (mark.frame[0] ? x : this.x.to(x)),
      top + height * (1 - (mark.frame[1] ? y : this.y.to(y))),
    ];
  }

  /** Show another part of the axes. */
  show(x, y) {
    [this.x, this.y] = [x, y];
    this.draw();
  }

  reset() {
    this.show(...this.home);
  }

  /** Zoom around the place that is told, or the middle. */
  zoom(times) {
    const told = this.at === undefined ? NaN : this.x.to(this.at);
    const middle = told >= 0 && told <= 1 ? told : 0.5;
    if (times > 1) {
      const [low, high] = [middle - times / 2, middle + times / 2].map((share) =>
        this.home[0].to(this.x.from(share)),
      );
      return high - low >= 1
        ? this.reset()
        : this.show(this.home[0].between(Math.max(0, low), Math.min(1, high)), this.y);
    }
    return this.show(this.x.between(middle - times / 2, middle + times / 2), this.y);
  }

  /** Tell nothing any more. */
  hush() {
    this.said.replaceChildren();
    this.hand.setAttribute("visibility", "hidden");
    this.at = undefined;
  }

  /** Say what is drawn at the recorded place that is nearest to a value of the horizontal axis. */
  tell(x, y) {
    const told = values(this, x, y);
    if (!told) return;
    this.at = told.x;
    const place = this.box.left + this.box.width * this.x.to(told.x);
    this.hand.setAttribute("x1", place);
    this.hand.setAttribute("x2", place);
    this.hand.setAttribute("visibility", this.x.to(told.x) >= 0 && this.x.to(told.x) <= 1 ? "visible" : "hidden");
    const down = 1 - Math.max(this.y.to(told.under), 0); // below the row that is told; of lines, below the panel
    this.said.style.top =
      told.under === undefined ? "" : `${this.head.offsetHeight + this.box.top + this.box.height * down + 6}px`;
    this.said.replaceChildren(
      make("b", {}, told.head),
      ...told.parts.flatMap(({colour, name, text}) => {
        const swatch = make("i", {"aria-hidden": "true"});
        if (colour) swatch.style.background = colour;
        return [" ", make("span", {}, ...(colour ? [swatch] : []), name ? `${name} ` : "", make("b", {}, text))];
      }),
    );
  }
}

function wholeNumbers(data, axis) {
  return data.marks
    .filter((mark) => mark.kind === "line")
    .every((mark) => mark[axis].every((v) => v === null || Number.isInteger(v)));
}
