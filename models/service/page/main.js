// The page: what is chosen, asked and shown.

import * as api from "./api.js";
import { player, record } from "./sound.js";
import { captionView, element, foundView, timelineView } from "./view.js";

const get = (id) => document.getElementById(id);
const filters = ["exclude", "name", "folder", "min_duration_s", "max_duration_s", "top_k"];
let limits = null; // what the service takes, once it has said so
let chosen = null; // the sound, and its player

function showError(place, error) {
  get(place).textContent = error?.message ?? "";
  get(place).hidden = !error;
}

/** Do something that takes a while, and show what comes of it. */
async function work(said, ask, show) {
  if (document.body.hasAttribute("aria-busy")) return; // one question at a time
  showError("answer-error", null);
  showError("sound-error", null);
  document.body.setAttribute("aria-busy", "true");
  get("status").textContent = `${said} …`;
  try {
    const nodes = show(await ask());
    get("answer-body").replaceChildren(...nodes.filter(Boolean));
    const done = `${said}: done.`;
    get("status").textContent = done;
    setTimeout(() => get("status").textContent === done && (get("status").textContent = ""), 4000);
  } catch (error) {
    get("answer-body").replaceChildren();
    showError("answer-error", error);
    get("status").textContent = "";
  }
  document.body.removeAttribute("aria-busy");
  get("answer").hidden = false;
  get("answer").focus();
}

// --- the sound ---

function choose(blob, name) {
  showError("sound-error", null);
  if (limits && blob.size > limits.max_upload_bytes) {
    const most = Math.round(limits.max_upload_bytes / 2 ** 20);
    showError("sound-error", new Error(`${name} is too large: the service takes ${most} MiB at most.`));
    return;
  }
  if (blob.type && !/^(audio|video)\//.test(blob.type) && blob.type !== "application/ogg") {
    showError("sound-error", new Error(`${name} is not audio, but ${blob.type}.`));
    return;
  }
  if (chosen) URL.revokeObjectURL(chosen.player.audio.src);
  chosen = { blob, name, player: player(blob, name) };
  get("chosen").replaceChildren(element("p", { class: "path" }, name), chosen.player);
  get("chosen").hidden = false;
  for (const id of ["caption", "similar", "add"]) get(id).disabled = false;
}

get("file").addEventListener("change", ({ target }) => target.files[0] && choose(target.files[0], target.files[0].name));

for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  get("drop").addEventListener(type, (event) => {
    event.preventDefault();
    get("drop").classList.toggle("over", type === "dragenter" || type === "dragover");
    const file = event.dataTransfer.files[0];
    if (type === "drop" && file) choose(file, file.name);
  });
}

let recording = null;

get("record").addEventListener("click", async () => {
  showError("sound-error", null);
  try {
    if (recording) {
      recording.stop();
      return;
    }
    recording = await record();
    recordingShown(true);
    choose(await recording.recorded, "recording.wav");
  } catch (error) {
    showError("sound-error", error);
  }
  recording = null;
  recordingShown(false);
});

function recordingShown(on) {
  get("record").setAttribute("aria-pressed", on);
  get("record").textContent = on ? "Stop recording" : "Record";
  get("status").textContent = on ? "Recording." : "";
}

// --- questions ---

get("caption-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { blob, player: shown } = chosen;
  if (get("timeline").checked) {
    const seconds = get("window").value;
    work("Captioning", () => api.timeline(blob, seconds), (answer) => timelineView(answer, shown.audio));
  } else {
    work("Captioning", () => api.caption(blob), captionView);
  }
});

const filled = () => Object.fromEntries(filters.map((name) => [name, get(name).value.trim()]));
const showFound = ({ files }) => foundView(files, listen);

get("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  work("Searching", () => api.retrieve({ query: get("query").value, ...filled() }), showFound);
});

get("similar").addEventListener("click", () => {
  const { exclude, ...others } = filled(); // a sound is searched by alone
  work("Searching", () => api.similar(chosen.blob, others), showFound);
});

get("add").addEventListener("click", () =>
  work("Adding", () => api.add(chosen.blob, chosen.name), (file) => {
    showIndexSize();
    return [element("p", {}, `${file.name} is in the index.`)];
  }),
);

async function listen(file, item) {
  const button = item.querySelector("button");
  button.disabled = true;
  try {
    const shown = player(await api.audio(file.id), file.name, file.start_s, file.end_s);
    button.replaceWith(shown);
    shown.audio.focus();
  } catch (error) {
    button.disabled = false;
    showError("answer-error", error);
  }
}

// --- the service ---

api.onTokenNeeded(
  (refused) =>
    new Promise((resolve) => {
      get("token-form").hidden = false;
      showError("token-error", refused ? new Error("The service does not take this token.") : null);
      get("token").focus();
      get("token-form").onsubmit = (event) => {
        event.preventDefault();
        api.setToken(get("token").value.trim());
        get("token-form").hidden = true;
        resolve();
      };
    }),
);

async function showIndexSize() {
  const files = await api.indexSize();
  const empty = "The index is empty: there is nothing to search in. Add files with enclap index.";
  get("index-size").textContent = files ? `${files} ${files === 1 ? "file" : "files"} in the index` : empty;
}

try {
  limits = await api.about();
  const members = [...limits.captioners, ...limits.retrievers].join(", ");
  get("about").textContent = `${members}. Sounds of up to ${limits.max_duration_s} s.`;
  get("window").max = limits.heard_s;
  get("window").value = Math.min(10, limits.heard_s);
  get("add").hidden = !limits.write_index;
  await showIndexSize();
} catch (error) {
  showError("sound-error", error);
}
