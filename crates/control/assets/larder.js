// What makes the dashboard's pages livelier. Every page works without it.
"use strict";

// Buttons that only a script can do appear.
for (const button of document.querySelectorAll("[data-copy], [data-copy-from]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    const text = button.dataset.copy ?? document.getElementById(button.dataset.copyFrom).textContent;
    await navigator.clipboard.writeText(text);
    const said = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = said; }, 1500);
  });
}

// Checkboxes are saved as they are changed, in the order in which they are.
for (const form of document.querySelectorAll("form[data-autosave]")) {
  const button = form.querySelector("button");
  if (!button) continue;
  button.hidden = true;
  const said = form.querySelector("output");
  let last = Promise.resolve();
  form.addEventListener("change", () => {
    const body = new URLSearchParams(new FormData(form));
    last = last.then(() => save(form, body, said));
  });
}

async function save(form, body, said) {
  said.textContent = "Saving …";
  said.classList.remove("wrong");
  try {
    const answer = await fetch(form.action, { method: "POST", body });
    if (!answer.ok) throw new Error(answer.statusText);
    said.textContent = "Saved";
  } catch {
    said.textContent = "Not saved; load the page again";
    said.classList.add("wrong");
  }
}

// Figures are asked for again every few seconds, while someone can see them.
for (const panel of document.querySelectorAll("[data-live]")) {
  setInterval(() => refresh(panel), Number(panel.dataset.every) * 1000);
  prepare(panel);
}

// What someone is using is left alone.
function isInUse(panel) {
  return panel.contains(document.activeElement) || panel.querySelector(".chart:hover");
}

async function refresh(panel) {
  if (document.hidden || isInUse(panel)) return;
  try {
    const answer = await fetch(panel.dataset.live);
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = await answer.text();
    if (isInUse(panel)) return;
    const open = [...panel.querySelectorAll("details[open]")].map((details) => details.id);
    panel.innerHTML = fresh;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    prepare(panel);
  } catch {
    const said = panel.querySelector(".asof");
    if (said && !said.textContent.includes("no answer")) said.textContent += ", no answer since";
  }
}

// Pointing at a chart reads its values.
function prepare(panel) {
  for (const chart of panel.querySelectorAll(".chart[data-times]")) {
    const times = chart.dataset.times.split("|");
    const texts = chart.dataset.texts.split("|").map((line) => line.split(";"));
    const svg = chart.querySelector("svg");
    const cursor = chart.querySelector(".cursor");
    const readout = chart.querySelector(".readout");
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const at = Math.round(part * (times.length - 1));
      const x = times.length > 1 ? (at / (times.length - 1)) * 600 : 0;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.style.visibility = "visible";
      readout.textContent = `${times[at]}: ${texts.map((line) => line[at]).join(", ")}`;
    });
    svg.addEventListener("pointerleave", () => {
      cursor.style.visibility = "hidden";
      readout.textContent = "";
    });
  }
}
