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
const LINES = [0, -14, 14, -28, 28], APART = 13;
function name(place) {
  const taken = [], ends = [...place.querySelectorAll(".ends_marks text")];
  const at = ends.map((text) => new DOMMatrix(getComputedStyle(text).transform).f);
  spread(at, APART, Number(place.dataset.height)).forEach((y, i) => (ends[i].style.translate = `0px ${y - at[i]}px`));
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

// Places in the same order and so far apart at least, with the least squared moves (pictures.py says the same in Python).
function spread(places, apart, height) {
  const order = places.map((_, i) => i).sort((a, b) => places[a] - places[b]), blocks = [], out = [];
  order.forEach((i, k) => {
    let total = places[i] - k * apart, count = 1;
    while (blocks.length && blocks.at(-1)[0] / blocks.at(-1)[1] > total / count) {
      const before = blocks.pop();
      total += before[0];
      count += before[1];
    }
    blocks.push([total, count]);
  });
  const last = Math.max(0, height - (places.length - 1) * apart);
  const means = blocks.flatMap(([total, count]) => Array(count).fill(Math.min(Math.max(total / count, 0), last)));
  order.forEach((i, k) => (out[i] = means[k] + k * apart));
  return out;
}

function run(view) {
  return view.runAsync().then(() => name(view.container()));
}

function draw(place) {
  place.dataset.drawn = "begun";
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  place.dataset.height = spec.height;
  if (JSON.stringify(spec).includes('"field":"family"')) place.dataset.families = "yes";
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

// The colours of the families, which on the page its filter tells, below a chart that is saved.
function legend(svg, place) {
  const shown = chips.filter((c) => c.ariaPressed === "true");
  if (shown.length < 2 || place.querySelector(".ends_marks") || !place.dataset.families) return;
  const width = Number(svg.getAttribute("width")), height = Number(svg.getAttribute("height"));
  let x = 12, y = height + 14;
  for (const chip of shown) {
    const step = 26 + 6.4 * chip.dataset.family.length;
    if (x + step > width && x > 12) [x, y] = [12, y + 18];
    const [dot, text] = ["circle", "text"].map((tag) => svg.appendChild(document.createElementNS(svg.namespaceURI, tag)));
    for (const [key, value] of Object.entries({ cx: x, cy: y, r: 4.5, fill: chip.style.getPropertyValue("--family") })) dot.setAttribute(key, value);
    for (const [key, value] of Object.entries({ x: x + 9, y: y + 4, fill: INK, "font-size": 11, "font-family": FONT })) text.setAttribute(key, value);
    text.textContent = chip.dataset.family;
    x += step;
  }
  svg.setAttribute("height", y + 12);
  svg.setAttribute("viewBox", `0 0 ${width} ${y + 12}`);
}

// Saves a chart as it is shown: its own ink and font, names where they have been moved to.
const INK = "#1b1f24", FONT = "Helvetica, Arial, sans-serif", SCALE = 2.5;
function drawing(place) {
  const copy = place.querySelector("svg").cloneNode(true);
  for (const text of copy.querySelectorAll("text")) {
    if (text.style.visibility === "hidden") text.remove();
    else if (text.style.translate) text.setAttribute("transform", `translate(${text.style.translate.replaceAll("px", "")}) ${text.getAttribute("transform") ?? ""}`);
    text.removeAttribute("style");
  }
  legend(copy, place);
  const text = new XMLSerializer().serializeToString(copy).replaceAll("currentColor", INK).replaceAll('"inherit"', `"${FONT}"`);
  return { text, width: Number(copy.getAttribute("width")), height: Number(copy.getAttribute("height")) };
}

function picture({ text, width, height }) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas"), paper = canvas.getContext("2d");
      canvas.width = width * SCALE;
      canvas.height = height * SCALE;
      paper.fillStyle = "white";
      paper.fillRect(0, 0, canvas.width, canvas.height);
      paper.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(resolve, "image/png");
    };
    image.onerror = reject;
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  });
}

async function save(button) {
  const place = button.closest("figure").querySelector(".chart"), made = drawing(place);
  const choice = document.querySelector(`select[data-charts~="${place.dataset.spec}"]`);
  const named = [place.dataset.spec, choice?.selectedOptions[0].textContent].filter(Boolean).join("-");
  const blob = button.dataset.save === "svg" ? new Blob([made.text], { type: "image/svg+xml" }) : await picture(made);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${named.replace(/[^A-Za-z0-9._]+/g, "-").replace(/-$/, "").toLowerCase()}.${button.dataset.save}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => save(button));

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
