// What is shown of answers. Texts of the service are set as text, never as HTML.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = ((tenths % 600) / 10).toFixed(tenths % 10 ? 1 : 0);
  return `${Math.floor(tenths / 600)}:${rest.padStart(rest.includes(".") ? 4 : 2, "0")}`;
}

const span = (from_s, to_s) => `${clock(from_s)}–${clock(to_s)}`;
const number = (value) => (value == null ? "" : value.toFixed(3));

/** The caption of a sound, with all candidates and their scores. */
export function captionView({ caption, duration_s, heard_s }) {
  const part = heard_s < duration_s - 0.1;
  return [
    element("p", { class: "text" }, caption.text),
    part ? element("p", { class: "quiet" }, heardInPart(heard_s, duration_s)) : null,
    element("h3", {}, `${caption.candidates.length} candidates`),
    candidates(caption),
  ];
}

const heardInPart = (heard_s, duration_s) =>
  `Of ${duration_s.toFixed(1)} s, the first ${heard_s.toFixed(1)} s were heard. A timeline hears all of it.`;

function candidates({ text, candidates: all }) {
  const names = Object.keys(all[0].scores);
  const cell = (value) => element("td", { class: "number" }, number(value));
  const head = (name, kind) => element("th", { scope: "col", class: kind }, name);
  const rows = all.map((one) =>
    element(
      "tr",
      { class: one.text === text ? "best" : null },
      element("td", {}, one.text),
      cell(one.score),
      element("td", {}, one.captioner),
      cell(one.fluency_error),
      ...names.map((name) => cell(one.scores[name])),
    ),
  );
  const heads = ["fluency error", ...names].map((name) => head(name, "number"));
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Candidates and their scores" },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, head("caption"), head("score", "number"), head("captioner"), ...heads)),
      element("tbody", {}, ...rows),
    ),
  );
}

/** The captions of a long sound; each plays its window, and that which is heard is marked. */
export function timelineView({ duration_s, segments }, audio) {
  const items = segments.map(({ start_s, end_s, caption }) => {
    const play = () => {
      audio.currentTime = start_s;
      audio.play();
    };
    const times = element("time", {}, span(start_s, end_s));
    return element("li", {}, element("button", { class: "segment", type: "button", onclick: play }, times, caption.text));
  });
  audio.addEventListener("timeupdate", () => {
    items.forEach((item, n) => {
      const { start_s, end_s } = segments[n];
      item.classList.toggle("now", audio.currentTime >= start_s && audio.currentTime < end_s);
    });
  });
  const many = `${segments.length} captions for ${clock(duration_s)}`;
  return [element("p", { class: "quiet" }, many), element("ol", { class: "list" }, ...items)];
}

/** What a search found; `listen(file, item)` is called where a file can be heard. */
export function foundView(files, listen) {
  if (!files.length) return [element("p", {}, "No indexed file passes the filters.")];
  const items = files.map((file) => {
    const item = element("li");
    const at = file.start_s == null ? "" : `, at ${span(file.start_s, file.end_s)}`;
    const play = { type: "button", "aria-label": `Listen to ${file.name}`, onclick: () => listen(file, item) };
    item.append(
      element("p", { class: "path" }, file.name),
      element("p", { class: "quiet" }, `similarity ${number(file.similarity)}${at}`),
    );
    if (file.audio) item.append(element("button", play, "Listen"));
    return item;
  });
  return [element("ol", { class: "list" }, ...items)];
}
