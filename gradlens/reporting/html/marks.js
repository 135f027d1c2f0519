"use strict";
// How each kind of mark is drawn.

const MARKS = {
  line(panel, mark) {
    if (panel.off?.has(mark.name)) return [];
    const points = mark.x.map((x, i) => (x === null || mark.y[i] === null ? null : panel.place(mark, x, mark.y[i])));
    const parts = [];
    if (mark.width) {
      const path = make("path", {
        d: joined(points),
        fill: "none",
        "stroke-width": mark.width * POINT,
        "stroke-opacity": mark.alpha,
      });
      path.style.stroke = mark.colour;
      if (mark.dashes.length) path.style.strokeDasharray = mark.dashes.map((dash) => dash * POINT).join(" ");
      parts.push(path);
    }
    if (mark.marker) {
      const at = points.filter((point) => point?.every(Number.isFinite));
      const path = make("path", {
        d: at.map(([x, y]) => `M${(x / POINT).toFixed(1)},${(y / POINT).toFixed(1)}${mark.marker}`).join(""),
        transform: `scale(${POINT})`,
        "fill-opacity": mark.alpha,
        class: `marker ${mark.filled}`,
      });
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
    const size = mark.size * POINT * 1.1,
      lines = mark.text.split("\n");
    const above =
      {top: 0.8, center: 0.35, baseline: 0, bottom: -0.2}[mark.down] -
      (mark.down === "top" ? 0 : (lines.length - 1) * (mark.down === "center" ? 0.6 : 1.2));
    return lines.map((line, i) => {
      const text = make(
        "text",
        {
          "text-anchor": mark.across,
          "font-size": size,
          class: mark.boxed ? "boxed" : null,
          transform: `translate(${x} ${y}) rotate(${mark.turn}) translate(0 ${(above + 1.2 * i) * size})`,
        },
        line,
      );
      text.style.fill = mark.colour;
      return text;
    });
  },
  grid(panel, mark) {
    mark.picture ??= painted(mark);
    const [left, right, bottom, top] = mark.extent;
    const [x, y] = panel.place(mark, left, top),
      [x2, y2] = panel.place(mark, right, bottom);
    return [
      make("image", {
        href: mark.picture,
        x,
        y,
        width: Math.max(x2 - x, 0),
        height: Math.max(y2 - y, 0),
        preserveAspectRatio: "none",
        class: "grid",
      }),
    ];
  },
};

function joined(points) {
  let pen = "M";
  return points
    .map((point) => {
      if (!point || !point.every(Number.isFinite)) {
        pen = "M";
        return "";
      }
      const part = `${pen}${point[0].toFixed(1)},${point[1].toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}

/** A grid as a picture of one pixel a cell; what was not recorded stays clear. */
function painted(mark) {
  const canvas = make("canvas", {width: mark.values[0].length, height: mark.values.length});
  const pen = canvas.getContext("2d"),
    picture = pen.createImageData(canvas.width, canvas.height);
  const shades = mark.shades.map((shade) => [1, 3, 5].map((at) => Number.parseInt(shade.slice(at, at + 2), 16)));
  const [of] = SCALES[mark.log ? "log" : "linear"]({}),
    low = of(mark.low),
    span = of(mark.high) - low || 1;
  mark.values.flat().forEach((value, i) => {
    if (value === null) return;
    const share = Math.min(Math.max((of(value) - low) / span, 0), 1) || 0;
    picture.data.set([...shades[Math.round(share * (shades.length - 1))], 255], 4 * i);
  });
  pen.putImageData(picture, 0, 0);
  return canvas.toDataURL();
}
