"use strict";
// Numbers as they are printed, and axes: from values to places between 0 and 1, back, and where ticks stand.

const SUPERSCRIPTS = {"-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹"};

/** Print a number as the report does: a few significant digits, a dash for none. */
function printed(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value),
    sign = value < 0 ? "−" : "";
  if (Number.isInteger(value) && size < 1e15) return sign + spaced(String(size));
  const rounded = Number(size.toPrecision(digits)),
    exponent = Math.floor(Math.log10(rounded));
  if (exponent < -4 || exponent >= 6) {
    const mantissa = Number((rounded / 10 ** exponent).toPrecision(digits));
    return `${sign}${mantissa}×${power(exponent)}`;
  }
  return sign + spaced(rounded.toFixed(Math.max(0, digits - 1 - exponent)));
}

function power(exponent) {
  return `10${[...String(exponent)].map((letter) => SUPERSCRIPTS[letter]).join("")}`;
}

function spaced(text) {
  const [whole, ...rest] = text.split(".");
  return [whole.replace(/\B(?=(\d{3})+$)/g, "\u202f"), ...rest].join(".");
}

/** Read what `printed`, ticks and the report's own tables say; NaN where no number stands in front. */
function read(text) {
  const plain = text
    .trim()
    .replace(/[\u202f\u00a0]/g, "")
    .replace(/−/g, "-")
    .replace(/∞/, "Infinity")
    .replace(/(×|^-?)10(?=[⁻⁰¹²³⁴⁵⁶⁷⁸⁹])/, (_, before) => (before === "×" ? "e" : `${before}1e`))
    .replace(/[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]/g, (sign) => Object.keys(SUPERSCRIPTS).find((letter) => SUPERSCRIPTS[letter] === sign));
  const letter = /^-?[\d.]+ ([kMG])\b/.exec(plain);
  return Number.parseFloat(plain) * (letter ? {k: 1e3, M: 1e6, G: 1e9}[letter[1]] : 1);
}

// What each kind of axis does to a value before it is drawn evenly, and the way back.
const SCALES = {
  linear: () => [(v) => v, (u) => u],
  log: () => [(v) => (v > 0 ? Math.log10(v) : NaN), (u) => 10 ** u],
  symlog: ({linear_below: c}) => [
    (v) => (Math.abs(v) <= c ? v / c : Math.sign(v) * (1 + Math.log10(Math.abs(v) / c))),
    (u) => (Math.abs(u) <= 1 ? u * c : Math.sign(u) * c * 10 ** (Math.abs(u) - 1)),
  ],
};

/** An axis that shows all between its ends; `to` gives a share of its length, `from` the value there. */
class Scale {
  constructor(axis, ends = axis.ends) {
    this.axis = axis;
    this.ends = ends;
    [this.forth, this.back] = SCALES[axis.scale](axis);
    [this.first, this.last] = ends.map(this.forth);
  }

  to(value) {
    return (this.forth(value) - this.first) / (this.last - this.first);
  }

  from(share) {
    return this.back(this.first + share * (this.last - this.first));
  }

  /** The same axis, showing what lies between two shares of it. */
  between(low, high) {
    const next = new Scale(this.axis, [this.from(low), this.from(high)]);
    const narrow = Math.abs(next.last - next.first) < 1e-9 * Math.max(1, Math.abs(next.first));
    return narrow || !Number.isFinite(next.first + next.last) ? this : next;
  }

  /** Ticks, at most so many: places and words. */
  ticks(most) {
    const [low, high] = [...this.ends].sort((a, b) => a - b);
    const within = (value) => value >= low - 1e-9 * (high - low) && value <= high + 1e-9 * (high - low);
    if (this.axis.ticks) {
      const shown = this.axis.ticks.filter(([value]) => within(value));
      const stride = Math.ceil(shown.length / most);
      return shown.filter((_, i) => i % stride === 0);
    }
    return places(this.axis, low, high, Math.max(2, most))
      .filter(within)
      .map((value) => [value, tick(value)]);
  }
}

function places(axis, low, high, most) {
  if (axis.scale === "log" && high / low > 20) return decades(low, high, most);
  if (axis.scale === "symlog") {
    const c = axis.linear_below;
    return [
      ...(low < -2 * c ? decades(2 * c, -low, most / 2).map((v) => -v) : []),
      0,
      ...(high > 2 * c ? decades(2 * c, high, most - 1) : []),
    ];
  }
  const rough = (high - low) / most,
    base = 10 ** Math.floor(Math.log10(rough));
  const wide = [1, 2, 5, 10].findIndex((times) => times * base >= rough * 0.999);
  const tried = [10, 5, 2, 1, 0.5, 0.2, 0.1]
    .slice(3 - wide)
    .map((times) => (axis.whole ? Math.max(1, times * base) : times * base));
  return tried.map((step) => multiples(step, low, high)).find((found) => found.length > 1) ?? [low];
}

function multiples(step, low, high) {
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

function decades(low, high, most) {
  const first = Math.floor(Math.log10(low)),
    last = Math.ceil(Math.log10(high));
  const within = (factors, stride) => {
    const found = [];
    for (let power = Math.ceil(first / stride) * stride; power <= last; power += stride) {
      found.push(
        ...factors.map((factor) => Number(`${factor}e${power}`)).filter((value) => value >= low && value <= high),
      );
    }
    return found;
  };
  const tried = [within([1, 2, 5], 1), within([1, 3], 1), within([1], 1)];
  for (let stride = 2; stride <= last - first; stride += 1) tried.push(within([1], stride));
  return (
    tried.find((found) => found.length <= most && found.length > 1) ??
    tried.findLast((found) => found.length > 1) ?? [low, high]
  );
}

/** Write a tick in plain digits where they are few, else as a multiple of a power of ten. */
function tick(value) {
  const size = Math.abs(value),
    sign = value < 0 ? "−" : "";
  if (size === 0 || (size >= 1e-4 && size < 1e5)) return sign + String(size);
  const [factor, exponent] = size.toExponential().split("e");
  return sign + (factor === "1" ? "" : `${factor}×`) + power(Number(exponent));
}
