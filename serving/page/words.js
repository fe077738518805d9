// What the API says in names, in words.

export const FLAGS = {
  unknown_user: "Neither the model nor the state knows this user, so that the list is made of what stands in for the model.",
  empty_history: "There is no history to go by, so that the list is made of what stands in for the model.",
  state_unavailable: "The state could not be reached in time: recent events are missing from this answer, or were only put in the journal.",
  model_failed: "A graph of the model failed or took too long; the list is made without it.",
  filters_relaxed: "Too few items were left, so that seen, expired or sold-out items stand at the end.",
  short: "There are fewer items than were asked for.",
};

export const SOURCES = {
  generation: ["generator", "found by the generator"],
  retrieval: ["retriever", "found by the retriever: near the history in the space of item vectors"],
  session: ["co-visits", "others had it together with items of this history"],
  segment: ["segment", "popular with users like this one"],
  popularity: ["popular", "popular with everybody"],
};

export const RUNGS = {
  retrieval: "the retriever, where the generator found too few",
  session: "co-visits, where the model found too few",
  segment: "what is popular with users like this one",
  popularity: "what is popular with everybody",
};

export const ARMS = {
  live: ["live", "the live model answered"],
  canary: ["canary", "this user is in the share that the canary answers"],
  pinned: ["pinned", "the version that was asked for"],
};

export const EVENTS = ["click", "like", "purchase"];

/** The name of a source or an arm and its meaning; one that is not known here is shown as it is. */
export const named = (names, key) => names[key] || [key, ""];

export const flag = (name) => FLAGS[name] || name;
