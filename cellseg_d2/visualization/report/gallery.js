"use strict";
// The gallery and its enlarged view. Pictures are made when they come near the window.
const payload = JSON.parse(document.getElementById("payload").textContent);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  if (parent) parent.append(made);
  return made;
}

const page = document.documentElement;
const gallery = document.getElementById("gallery");
const cards = gallery ? [...gallery.children] : [];
const box = document.getElementById("lightbox");
const stage = document.getElementById("lightbox-stage");
let current = null;

function fill(target, name) {
  const picture = payload.pictures[name];
  const image = element("img", { src: picture.src, alt: "", decoding: "async", draggable: false });
  const outlines = svg("svg", { viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true" });
  // Outlines run through the centres of pixels.
  const shifted = svg("g", { transform: "translate(.5 .5)" }, outlines);
  for (const [layer, path] of Object.entries(picture.layers)) {
    if (path) svg("path", { class: layer, d: path, "fill-rule": "nonzero" }, shifted);
  }
  target.replaceChildren(image, outlines);
}

function setLayer(layer) {
  page.dataset.layer = layer;
  for (const button of document.querySelectorAll("[data-layer-button]")) {
    button.setAttribute("aria-pressed", String(button.dataset.layerButton === layer));
  }
}

function visibleCards() {
  return [...gallery.children].filter((card) => !card.hidden);
}

function arrange() {
  const filter = document.getElementById("filter");
  const order = document.getElementById("order").value;
  const down = order.startsWith("-");
  const key = order.replace("-", "");
  const sorted = [...cards].sort((a, b) => {
    const names = a.dataset.name < b.dataset.name ? -1 : 1;
    if (key === "name") return names;
    return (down ? -1 : 1) * (a.dataset[key] - b.dataset[key]) || names;
  });
  for (const card of cards) card.hidden = Boolean(filter && filter.value && card.dataset.type !== filter.value);
  gallery.append(...sorted);
  document.getElementById("shown-count").textContent = `${visibleCards().length} of ${cards.length} pictures`;
}

function zoom(on, event) {
  const view = stage.parentElement;
  const before = stage.getBoundingClientRect();
  box.classList.toggle("zoomed", on);
  document.getElementById("zoom").setAttribute("aria-pressed", String(on));
  const after = stage.getBoundingClientRect();
  const [x, y] = event
    ? [(event.clientX - before.left) / before.width, (event.clientY - before.top) / before.height]
    : [0.5, 0.5];
  view.scrollTo(x * after.width - view.clientWidth / 2, y * after.height - view.clientHeight / 2);
}

function enlarge(card) {
  current = card;
  const { name } = card.dataset;
  const picture = payload.pictures[name];
  stage.style.setProperty("--w", picture.width);
  stage.style.setProperty("--h", picture.height);
  fill(stage, name);
  zoom(false);
  document.getElementById("lightbox-name").textContent = name;
  const place = visibleCards().indexOf(card);
  const score = card.querySelector(".caption b");
  const facts = [score ? `score ${score.textContent}` : "", card.querySelector(".facts").textContent.trim()];
  facts.push(`${place + 1} of ${visibleCards().length}`);
  document.getElementById("lightbox-facts").textContent = facts.filter(Boolean).join(" · ");
  if (!box.open) box.showModal();
  stage.parentElement.focus({ preventScroll: true });
}

function step(by) {
  const all = visibleCards();
  const place = all.indexOf(current) + by;
  if (all[place]) enlarge(all[place]);
}

if (gallery) {
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      fill(target.querySelector(".stage"), target.dataset.name);
    }
  }, { rootMargin: "800px" });
  for (const card of cards) near.observe(card);
  gallery.addEventListener("click", (event) => {
    const card = event.target.closest(".stage")?.closest(".card");
    if (card) enlarge(card);
  });
  for (const select of document.querySelectorAll("#filter, #order")) select.addEventListener("change", arrange);
  arrange();
}
for (const button of document.querySelectorAll("[data-layer-button]")) {
  button.addEventListener("click", () => setLayer(button.dataset.layerButton));
}
setLayer(page.dataset.layer);
function openPicture(name) {
  const card = cards.find((candidate) => candidate.dataset.name === name);
  if (card) enlarge(card);
}
// Points of charts are links to pictures.
document.addEventListener("click", (event) => {
  const address = event.target.closest?.(".chart a")?.getAttribute("xlink:href") ?? "";
  if (!address.startsWith("#picture:")) return;
  event.preventDefault();
  openPicture(decodeURIComponent(address.slice("#picture:".length)));
});

document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
document.getElementById("close").addEventListener("click", () => box.close());
document.getElementById("zoom").addEventListener("click", () => zoom(!box.classList.contains("zoomed")));
stage.addEventListener("click", (event) => zoom(!box.classList.contains("zoomed"), event));
box.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const layers = [...box.querySelectorAll("[data-layer-button]")];
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key.toLowerCase() === "z") zoom(!box.classList.contains("zoomed"));
  else if (layers[event.key - 1]) setLayer(layers[event.key - 1].dataset.layerButton);
  else return;
  event.preventDefault();
});
box.addEventListener("close", () => {
  stage.replaceChildren();
  // Back to where the eye is now, not to the picture that was opened first.
  current?.querySelector("button").focus();
});
let touched = null;
stage.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch" ? event.clientX : null; });
stage.addEventListener("pointerup", (event) => {
  if (touched === null || box.classList.contains("zoomed")) return;
  const by = event.clientX - touched;
  if (Math.abs(by) > 60) step(by < 0 ? 1 : -1);
});
