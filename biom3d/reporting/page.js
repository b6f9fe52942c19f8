"use strict";
// All of it is comfort: without this script the page shows the same.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Filter: rows and sections that carry words in data-key.
const box = document.getElementById("filter");
box.closest("label").hidden = false;
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const item of all("[data-key]")) {
    const key = item.dataset.key.toLowerCase();
    item.hidden = !words.every((word) => key.includes(word));
  }
  const left = all("#scores tbody tr").filter((row) => !row.hidden).length;
  document.getElementById("found").textContent = words.length ? `${left} rows of results` : "";
});

// Sort: a click on the head of a column; a second one turns the order round.
const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
const compare = (a, b) => {
  if (a === "" || b === "") return (a === "") - (b === ""); // what has no value comes last, either way
  return a !== "" && !isNaN(a) && !isNaN(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
};
for (const head of all("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const order = head.ariaSort === "ascending" ? "descending" : "ascending";
    for (const other of all("th", head.parentElement)) other.removeAttribute("aria-sort");
    head.ariaSort = order;
    const body = head.closest("table").tBodies[0];
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].sort((one, two) => {
      const [a, b] = [valueOf(one, head.cellIndex), valueOf(two, head.cellIndex)];
      return a === "" || b === "" ? compare(a, b) : sign * compare(a, b);
    });
    body.append(...rows);
  });
}

// Gallery: a picture opens in a dialog, with its neighbours to the left and right.
const dialog = document.getElementById("picture");
const shown = { buttons: [], place: 0 };
const show = (place) => {
  shown.place = (place + shown.buttons.length) % shown.buttons.length;
  const button = shown.buttons[shown.place];
  const [small, large] = [button.querySelector("img"), dialog.querySelector("img")];
  large.src = small.src;
  large.alt = small.alt;
  dialog.querySelector("p").textContent = `${button.dataset.title} (${shown.place + 1} of ${shown.buttons.length})`;
};
for (const button of all(".gallery button")) {
  button.addEventListener("click", () => {
    shown.buttons = all("button", button.closest(".gallery"));
    show(shown.buttons.indexOf(button));
    dialog.showModal();
  });
}
const step = (by) => show(shown.place + by);
document.getElementById("before").addEventListener("click", () => step(-1));
document.getElementById("after").addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
dialog.addEventListener("close", () => shown.buttons[shown.place].focus());

// Print: what is folded is printed too.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  for (const item of folded) item.open = true;
});
window.addEventListener("afterprint", () => {
  for (const item of folded) item.open = false;
});
