// Requests to the API. Every failure is an Error whose message is one sentence for the page.

const KEY = "recsys-key";

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The key is kept for this tab only, and is sent to this server only. */
export const setKey = (key) => sessionStorage.setItem(KEY, key);

/** Whether another key would help: none was sent, or not one that may do this. */
export const wantsKey = (error) => error.status === 401 || (error.status === 403 && sessionStorage.getItem(KEY) !== null);

export async function request(method, path, body) {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
  } catch {
    throw new Refused("The server does not answer: check that it runs, and ask again.", 0);
  }
  const text = await response.text();
  if (response.ok) return response.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : text;
  throw new Refused(sentence(response, text), response.status);
}

function sentence(response, text) {
  let said = "";
  try {
    said = JSON.parse(text).error;
  } catch {
    // no body of ours: a proxy in between, or a server that broke
  }
  if (typeof said === "string" && said) return said[0].toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? "" : ".");
  if (response.status === 401) return "This server wants an API key.";
  if (response.status === 403) return "This API key may not do that.";
  if (response.status === 429) return "Too many requests: wait a moment, and ask again.";
  return `The server answered ${response.status} without a reason: its log has more.`;
}

export const recommend = (query) => request("POST", "/recommend", query);
export const similar = (query) => request("POST", "/similar", query);
export const info = () => request("GET", "/info");
export const metrics = () => request("GET", "/metrics");
export const forget = (user) => request("DELETE", `/users/${encodeURIComponent(user)}`);

/** Post one event, with an id made here so that a repeated post counts once. */
export const post = (user_id, item_id, event, request_id) =>
  request("POST", "/events", { events: [{ id: identifier(), user_id, item_id, event, request_id }] });

/** 128 random bits; crypto.randomUUID is missing where the page does not come over TLS or from this machine. */
function identifier() {
  return "page-" + [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
