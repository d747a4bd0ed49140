// The service's operations. Every failure is an Error whose message can be shown, with the problem's code.

let token = sessionStorage.getItem("token");
let askToken = () => Promise.reject(new Error("the service asks for a token"));

export const setToken = (value) => {
  token = value;
  sessionStorage.setItem("token", value);
};

/** Take the function that asks the user for a token, and returns when there is one. */
export const onTokenNeeded = (ask) => (askToken = ask);

export class ServiceError extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

async function send(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new ServiceError("The service does not answer. Is it still running?", "down");
  }
  if (response.status === 401) {
    await askToken(Boolean(token));
    return send(path, options);
  }
  if (response.ok) return response;
  throw await explained(response);
}

async function explained(response) {
  const problem = await response.json().catch(() => ({}));
  const wait = response.headers.get("Retry-After");
  const said = problem.detail ?? `The service answered with status ${response.status}.`;
  return new ServiceError(sentence(said) + (wait ? ` Try again in ${wait} s.` : ""), problem.code ?? "failed");
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

const query = (fields) => new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== "" && value != null));

async function post(path, body, type) {
  return (await send(path, { method: "POST", body, headers: { "Content-Type": type } })).json();
}

const postSound = (path, sound, fields = {}) =>
  post(`${path}?${query(fields)}`, sound, sound.type || "application/octet-stream");

export const about = async () => (await send("v1/about")).json();
export const indexSize = async () => (await (await send("v1/index?limit=0")).json()).total;
export const caption = (sound) => postSound("v1/caption", sound);
export const timeline = (sound, window_s) => postSound("v1/timeline", sound, { window_s });
export const similar = (sound, filters) => postSound("v1/similar", sound, filters);
export const add = (sound, name) => postSound("v1/index", sound, { name });
export const retrieve = (fields) =>
  post("v1/retrieve", JSON.stringify(Object.fromEntries(query(fields))), "application/json");
export const audio = async (id) => (await send(`v1/index/${id}/audio`)).blob();
