// One filter for the whole page: families and text. Tables, pictures and charts show what passes it.
const views = [];
const chips = [...document.querySelectorAll(".chip[data-family]")];
const search = document.getElementById("search");

const families = () => chips.filter((c) => c.ariaPressed === "true").map((c) => c.dataset.family);

function filter() {
  const chosen = families(), needle = search.value.trim().toLowerCase();
  if (needle || chosen.length < chips.length) document.querySelectorAll("tr.rest").forEach((row) => unfold(row.closest("table")));
  for (const item of document.querySelectorAll("[data-variant]")) {
    item.hidden = !chosen.includes(item.dataset.family) || !item.dataset.variant.toLowerCase().includes(needle);
  }
  for (const view of views) run(view.signal("families", chosen).signal("needle", needle));
}

// Rows between the best and the worst are shown when they are asked for, or when they are sorted or filtered.
function unfold(table) {
  table.classList.add("whole");
  const button = table.parentElement.nextElementSibling;
  if (button?.classList.contains("more")) button.hidden = true;
}
for (const button of document.querySelectorAll("button.more")) {
  button.addEventListener("click", () => unfold(button.previousElementSibling.querySelector("table")));
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
  unfold(table);
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

// Names in a chart never cover one another: the first, best ranked ones stay, others move a line or are left to the pointer.
const LINES = [0, -14, 14, -28, 28];
function name(place) {
  const taken = [];
  for (const text of place.querySelectorAll(".names_marks text, .names_edge_marks text")) {
    text.style.visibility = "visible";
    const free = LINES.some((shift) => {
      text.style.translate = `0px ${shift}px`;
      const box = text.getBoundingClientRect();
      if (taken.some((o) => box.left < o.right && o.left < box.right && box.top < o.bottom && o.top < box.bottom)) return false;
      taken.push(box);
      return true;
    });
    if (!free) text.style.visibility = "hidden";
  }
}

function run(view) {
  return view.runAsync().then(() => name(view.container()));
}

function draw(place) {
  place.dataset.drawn = "begun";
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } }).then(({ view }) => {
    views.push(view);
    const choice = document.querySelector(`select[data-charts~="${place.dataset.spec}"]`);
    const show = () => run(view.signal("at", Number(choice.value)));
    if (choice) choice.addEventListener("change", show);
    run(view.signal("families", families()).signal("needle", search.value.trim().toLowerCase()))
      .then(() => choice && show())
      .then(() => (place.dataset.drawn = "yes"));
    new ResizeObserver(() => setTimeout(() => name(place), 100)).observe(place);
  });
}

// A chart has no width before it is shown: what is folded is drawn when it is opened.
const hidden = (place) => place.parentElement.closest("details:not([open])");
const drawShown = () => {
  for (const place of document.querySelectorAll(".chart:not([data-drawn])")) if (!hidden(place)) draw(place);
};
document.querySelectorAll("details").forEach((details) => details.addEventListener("toggle", drawShown));
drawShown();

// A link into what is folded opens it.
function open() {
  let place = location.hash && document.getElementById(location.hash.slice(1));
  for (const target = place; place; place = place.parentElement.closest("details")) {
    if (place.tagName === "DETAILS") place.open = true;
    if (!place.parentElement.closest("details")) target.scrollIntoView();
  }
}
window.addEventListener("hashchange", open);
open();
