"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const metric = JSON.parse(document.getElementById("metric").textContent);
const PAGE = 25;
const SENTENCES = ["caption", "candidate", "errors"]; // columns of tables
const [NAME, DURATION, REFERENCES, CAPTIONS, VALUES] = [0, 1, 2, 3, 4];
const controls = document.getElementById("controls");
const list = document.getElementById("list");
const searched = data.clips.map((clip) => [clip[NAME], ...clip[REFERENCES], ...clip[CAPTIONS]].join("\n").toLowerCase());
const shuffled = data.clips.map(() => Math.random());
let shown = [];
let page = 0;

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...[content].flat());
  return made;
}

const number = (value, digits = 3) => (value === null ? "–" : value.toFixed(digits).replace("-", "−"));

// The errors of a system's caption.
const errorsOf = (clip, system) => data.errors[clip][system].map(([type, about]) => `${data.types[type]}: ${about}`);

function option(select, value, text) {
  select.append(element("option", text, { value }));
}

// What each order sorts by, the lowest first.
function key(order, first, second) {
  const value = (clip, system) => data.clips[clip][VALUES][system];
  return {
    gain: (clip) => value(clip, second) - value(clip, first),
    loss: (clip) => value(clip, first) - value(clip, second),
    best: (clip) => -value(clip, first),
    worst: (clip) => value(clip, first),
    spread: (clip) => Math.min(...data.clips[clip][VALUES]) - Math.max(...data.clips[clip][VALUES]),
    lost: (clip) => data.retrieval[clip],
    random: (clip) => shuffled[clip],
  }[order];
}

function choose() {
  const asked = Object.fromEntries(new FormData(controls));
  const words = asked.text.toLowerCase().split(/\s+/).filter(Boolean);
  const type = asked.type === "" ? null : Number(asked.type);
  shown = [...data.clips.keys()].filter(
    (clip) =>
      words.every((word) => searched[clip].includes(word)) &&
      (type === null || data.errors[clip][Number(asked.first)].some((error) => error[0] === type)) &&
      (!asked.sound || data.heard[clip].includes(asked.sound)),
  );
  const by = key(asked.order, Number(asked.first), Number(asked.second));
  if (by) {
    const keys = new Map(shown.map((clip) => [clip, by(clip)]));
    shown.sort((one, other) => keys.get(one) - keys.get(other));
  } else {
    shown.sort((one, other) => (data.clips[one][NAME] < data.clips[other][NAME] ? -1 : 1));
  }
  page = 0;
  draw();
}

function draw() {
  const [first, second] = [Number(controls.elements.first.value), Number(controls.elements.second.value)];
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  document.getElementById("count").textContent = `${shown.length} of ${data.clips.length} clips`;
  document.getElementById("page").textContent = `Page ${page + 1} of ${pages}`;
  document.querySelector("[name=back]").disabled = page === 0;
  document.querySelector("[name=on]").disabled = page + 1 >= pages;
  list.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map((clip) => row(clip, first, second)));
}

function row(clip, first, second) {
  const [name, , , captions, values] = data.clips[clip];
  const compared = first === second ? "" : ` (${data.systems[second]} ${number(values[second])})`;
  const errors = errorsOf(clip, first).map((error) => element("span", error, { class: "error" }));
  const made = element("details", [
    element("summary", [
      element("span", captions[first], { class: "said" }),
      element("br", []),
      element("span", `${name} · ${metric} ${number(values[first])}${compared} `, { class: "values" }),
      ...errors,
    ]),
  ]);
  // Nothing of a clip is loaded or laid out before it is opened.
  made.addEventListener("toggle", () => made.children.length > 1 || made.append(details(clip)), { once: true });
  return made;
}

function details(clip) {
  const scores = data.scores.map((name) => name.replaceAll("/", "/\u200b")); // where the line may break
  const [name, duration, references, captions, values] = data.clips[clip];
  const sound = element("audio", [], { controls: "", preload: "none", src: `clips/${clip}.mp3`, "aria-label": `Audio of ${name}` });
  sound.addEventListener("error", () => sound.replaceWith(element("p", "The recording is not there.", { class: "note" })));
  const picture = element("img", [], {
    src: `clips/${clip}.png`,
    alt: `Log-mel spectrogram of ${name}: time from left to right over ${duration} seconds, pitch upwards, louder is brighter`,
  });
  const facts = [`${duration} s`, `retrieved by its captions with mAP@10 ${number(data.retrieval[clip])}`];
  if (data.heard[clip].length) facts.push(`heard: ${data.heard[clip].join(", ")}`);
  return element(
    "div",
    [
      element("div", [
        element("div", [sound, picture, element("p", facts.join(" · "), { class: "note" })]),
        element("div", [element("h3", "References"), element("ul", references.map((text) => element("li", text)))]),
      ], { class: "two" }),
      table(`Captions of ${name} by system`, ["system", "caption", metric, "errors"], captions.map((text, system) => [
        data.systems[system], text, number(values[system]), errorsOf(clip, system).join("; "),
      ]), (at) => at === 0),
      table(`Candidates of ${name}`, ["captioner", "candidate", "total", ...scores], data.candidates[clip].map(
        ([text, captioner, , ...found]) => [captioner, text, ...found.map((score) => number(score))],
      ), (at) => data.candidates[clip][at][2] === 1),
    ],
    { class: "clip" },
  );
}

function table(caption, head, rows, own) {
  const kind = (at) => (at === 0 ? { class: "text" } : SENTENCES.includes(head[at]) ? { class: "text wide" } : {});
  return element("div", element("table", [
    element("thead", element("tr", head.map((text, at) => element("th", text, { scope: "col", ...kind(at) })))),
    element("tbody", rows.map((cells, line) => element("tr", cells.map(
      (text, at) => (at ? element("td", text, kind(at)) : element("th", text, { scope: "row", ...kind(at) })),
    ), own(line) ? { class: "own" } : {}))),
  ]), { class: "scroll", tabindex: "0", role: "region", "aria-label": caption });
}

data.types.forEach((type, at) => option(controls.elements.type, at, type));
data.classes.forEach((name) => option(controls.elements.sound, name, name));
document.getElementById("of-class").hidden = !data.classes.length;
data.systems.forEach((system, at) => {
  option(controls.elements.first, at, system);
  option(controls.elements.second, at, system);
});
controls.elements.second.value = data.single;
controls.addEventListener("input", choose);
controls.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("pages").addEventListener("click", (event) => {
  if (event.target.name !== "back" && event.target.name !== "on") return;
  page += event.target.name === "on" ? 1 : -1;
  draw();
  list.querySelector("summary")?.focus();
});
choose();
