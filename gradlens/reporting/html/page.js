"use strict";
// The page: its figures are drawn, tables sorted, the colours changed, the data saved.

/** What was packed with zlib into base64. */
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

/** Let a table be sorted by each of its columns. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells],
    body = table.tBodies[0];
  if (body.rows.length < 2) return;
  const first = [...body.rows];
  const collator = new Intl.Collator("en", {numeric: true});
  heads.forEach((head, column) => {
    const button = make("button", {type: "button"}, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = {none: "ascending", ascending: "descending", descending: "none"}[
        head.getAttribute("aria-sort") ?? "none"
      ];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next !== "none") head.setAttribute("aria-sort", next);
      const text = (row) => row.cells[column].dataset.order ?? row.cells[column].textContent;
      const numeric =
        first.some((row) => Number.isFinite(read(text(row)))) &&
        first.every((row) => /^(–|)$/.test(text(row).trim()) || !Number.isNaN(read(text(row))));
      const compare = (a, b) => {
        if (!numeric) return collator.compare(text(a), text(b));
        const [x, y] = [read(text(a)), read(text(b))];
        return Number.isNaN(x) || Number.isNaN(y) ? Number.isNaN(x) - Number.isNaN(y) : x === y ? 0 : x < y ? -1 : 1;
      };
      const rows =
        next === "none" ? first : [...first].sort((a, b) => (next === "descending" ? -compare(a, b) : compare(a, b)));
      body.append(...rows);
    });
  });
}

/** Let the reader choose light or dark; until then the page is as the system is. */
function themed() {
  const button = document.getElementById("theme"),
    root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const told = () => button.setAttribute("aria-pressed", dark());
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    told();
  });
  system.addEventListener("change", told);
  told();
}

/** Let buttons save what the page holds: the document, and the tables behind its figures. */
function saved(tables) {
  const contents = {...tables, "findings.json": document.getElementById("document").textContent};
  for (const button of document.querySelectorAll("[data-save]")) {
    const name = button.dataset.save;
    button.hidden = false;
    button.addEventListener("click", () => {
      const link = make("a", {download: name, href: URL.createObjectURL(new Blob([contents[name]]))});
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
}

/** A link opens what its place is folded in; of a place in the model the map is asked. */
function followed(look) {
  const unfold = (hash) => {
    const folded = document.getElementById(decodeURIComponent(hash.slice(1)))?.closest("details");
    if (folded) folded.open = true;
  };
  for (const link of document.links) link.addEventListener("click", () => unfold(link.hash));
  for (const link of document.querySelectorAll("[data-site]"))
    link.addEventListener("click", () => look(link.dataset.site));
  unfold(location.hash);
  if (matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").open = false;
}

async function start() {
  themed();
  document.querySelectorAll("table[data-sort]").forEach(sortable);
  addEventListener("beforeprint", () =>
    document.querySelectorAll("details").forEach((folded) => (folded.open = true)),
  );
  const {figures, maps, tables} = await unpacked("drawings");
  saved(tables);
  for (const element of document.querySelectorAll("[data-figure]")) {
    fill(element, figures[element.dataset.figure]);
    await new Promise((next) => setTimeout(next)); // the page can be read and moved meanwhile
  }
  const map = document.getElementById("sites");
  followed(map && sites(map, maps));
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  for (const place of document.querySelectorAll("[data-figure], [data-sites]"))
    place.prepend(`This browser cannot draw it: ${error}`);
  throw error;
});
