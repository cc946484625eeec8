// One filter for the whole page: families and text. Tables, pictures and charts show what passes it.
const views = [];
const chips = [...document.querySelectorAll(".chip[data-family]")];
const search = document.getElementById("search");

const families = () => chips.filter((c) => c.ariaPressed === "true").map((c) => c.dataset.family);

function filter() {
  const chosen = families(), needle = search.value.trim().toLowerCase();
  for (const item of document.querySelectorAll("[data-variant]")) {
    item.hidden = !chosen.includes(item.dataset.family) || !item.dataset.variant.toLowerCase().includes(needle);
  }
  for (const view of views) view.signal("families", chosen).signal("needle", needle).runAsync();
}

for (const chip of chips) {
  chip.addEventListener("click", () => {
    // the first click shows one family alone; clicks then add and remove; the last removal brings all back
    const all = chips.every((c) => c.ariaPressed === "true");
    if (all) for (const c of chips) c.ariaPressed = String(c === chip);
    else chip.ariaPressed = String(chip.ariaPressed !== "true");
    if (!families().length) for (const c of chips) c.ariaPressed = "true";
    filter();
  });
}
search.addEventListener("input", filter);
document.getElementById("all").addEventListener("click", () => {
  for (const c of chips) c.ariaPressed = "true";
  search.value = "";
  filter();
});

function sort(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const up = header.ariaSort !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  header.ariaSort = up ? "ascending" : "descending";
  const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
  const value = (row) => (header.classList.contains("n") ? parseFloat(key(row)) : key(row));
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // empty cells stay last
    return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
  });
  body.append(...rows);
}

for (const header of document.querySelectorAll("th[data-sort]")) {
  header.tabIndex = 0;
  header.addEventListener("click", () => sort(header));
  header.addEventListener("keydown", (event) => event.key === "Enter" && sort(header));
}

for (const place of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } }).then(({ view }) => {
    views.push(view);
    filter();
    place.dataset.drawn = "yes";
    const choice = document.querySelector(`select[data-charts~="${place.dataset.spec}"]`);
    if (choice) {
      const show = () => view.signal("at", Number(choice.value)).runAsync();
      choice.addEventListener("change", show);
      show();
    }
  });
}
