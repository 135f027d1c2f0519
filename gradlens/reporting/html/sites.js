"use strict";
// The map of places and steps: one quantity of one recording, the places whose name holds what is searched for.

function sites(root, maps) {
  const form = root.querySelector("form"),
    place = root.querySelector("[data-sites]");
  const {quantity, recording, search, count} = form.elements;
  const unique = (of) => [...new Set(maps.map((map) => map[of]))];
  const offer = (select, names) =>
    select.replaceChildren(...names.map((name) => make("option", {value: name}, name)));
  offer(quantity, unique("quantity"));
  const longest = maps.reduce((a, b) => (b.steps.length > a.steps.length ? b : a));

  function show() {
    const known = maps.filter((map) => map.quantity === quantity.value).map((map) => map.recording);
    const before = recording.value || longest.recording;
    offer(recording, known);
    if (known.includes(before)) recording.value = before;
    const map = maps.find((one) => one.quantity === quantity.value && one.recording === recording.value);
    const wanted = search.value.trim().toLowerCase();
    const rows = map.sites.map((_, i) => i).filter((i) => map.sites[i].toLowerCase().includes(wanted));
    count.value = `${rows.length} of ${map.sites.length} places`;
    if (!rows.length) return place.replaceChildren(make("p", {}, "No place of this quantity has that in its name."));
    const data = found(map, rows);
    const panel = new Panel(data, `${map.quantity}, ${map.recording}`);
    place.replaceChildren(panel.root, key(data));
    return panel.draw();
  }

  form.addEventListener("input", show); // not "change", which comes when the keyboard has gone on to the map
  form.addEventListener("submit", (event) => event.preventDefault());
  show();

  /** Look for a place in the quantity shown or, where that has none of it, the first that has. */
  return (site) => {
    const has = (map) => map.sites.some((name) => name.includes(site));
    if (!maps.some((map) => map.quantity === quantity.value && has(map)))
      quantity.value = maps.find(has)?.quantity ?? quantity.value;
    search.value = site;
    show();
  };
}

/** Some rows of a map as the data of a panel; steps that are not evenly apart are columns side by side. */
function found(map, rows) {
  const names = rows.map((i) => map.sites[i]),
    columns = map.steps.map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`));
  const firsts = map.steps.map(([first]) => first),
    gap = firsts[1] - firsts[0] || 1;
  const even = map.steps.every(([first, last], i) => first === last && first === firsts[0] + i * gap);
  const [from, to] = even ? [firsts[0] - gap / 2, firsts.at(-1) + gap / 2] : [0, columns.length];
  const axis = {scale: "linear", linear_below: 0};
  return {
    title: "",
    names,
    columns,
    hatched: true,
    legend: [],
    key: map.quantity,
    marks: [
      {
        ...map.grid,
        values: rows.map((i) => map.grid.values[i]),
        extent: [from, to, rows.length, 0],
        picture: undefined,
      },
    ],
    height: Math.min(Math.max(rows.length * 0.16, 0.6), Math.max(4.5, rows.length * 0.05)),
    x: {
      ...axis,
      label: map.axis,
      name: map.axis,
      ends: [from, to],
      ticks: even ? null : firsts.map((first, i) => [i + 0.5, String(first)]),
    },
    y: {...axis, label: "", ends: [rows.length, 0], ticks: names.map((name, i) => [i + 0.5, name])},
  };
}
