// @ts-check
/**
 * The page: makes its parts and connects them.
 *
 * What is shown stands in the address: `#analyses/{id}` is one analysis, an empty one is a new question. So a reload, the
 * Back button and a link all lead to the same place.
 */

import { Mondrian } from "../mondrian.js";
import { Compose } from "./compose.js";
import { byId } from "./elements.js";
import { History } from "./history.js";
import { Keeper } from "./keeper.js";
import { Key } from "./key.js";
import { Notice } from "./notice.js";
import { Result } from "./result.js";
import { Service } from "./service.js";
import { explanation, needsKey } from "./words.js";

const key = new Key();
const keeper = new Keeper();
const mondrian = new Mondrian({ apiKey: () => key.value, idleTimeoutS: 30 });
const compose = new Compose();
const result = new Result(mondrian, keeper, announce);
const past = new History(mondrian, keeper);
const service = new Service(mondrian);
const banner = new Notice(byId("banner"), byId("banner-text"), byId("banner-action"), announce);
/** What waits for a key. */
let onceThereIsAKey = () => {};
/** Whether the question for a key was left unanswered: then only what somebody asks for puts it again. */
let isKeyDeclined = false;

/** @param {string} text */
function announce(text) {
  byId("announcer").textContent = text;
}

/** @param {"compose" | "result"} view */
function show(view) {
  byId("compose").hidden = view !== "compose";
  byId("result").hidden = view !== "result";
}

/** Show what the address says. */
function route() {
  const name = placeOf(location.hash);
  banner.hide();
  if (name.startsWith("analyses/")) {
    show("result");
    void result.open(name);
  } else {
    result.leave();
    show("compose");
    document.title = "Mondrian";
  }
  past.select(name);
}

/**
 * @param {string} hash
 * @returns {string} what it names; nothing where it is no text
 */
function placeOf(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return "";
  }
}

/** @param {import("./keeper.js").Pending} pending */
function ask(pending) {
  banner.hide();
  show("result");
  scrollTo({ top: 0 });
  void result.begin(pending);
}

/** @param {unknown} error */
function tell(error) {
  if (needsKey(error) && !isKeyDeclined) askForKey(/** @type {import("../mondrian.js").MondrianError} */ (error), start);
}

/**
 * @param {import("../mondrian.js").MondrianError} error
 * @param {() => void} again
 */
function askForKey(error, again) {
  onceThereIsAKey = again;
  const isRevoked = error.reason === "KEY_REVOKED";
  const refused = isRevoked ? "This key was revoked. Please use another one." : "The server does not know this key.";
  key.ask(key.value ? refused : "This server answers to callers with a key.");
}

/** Ask the server for what the page offers. */
async function start() {
  void service.refresh();
  void past.refresh();
  const asked = key.value;
  try {
    compose.showAdvisors(await mondrian.advisors({ giveUpAfterS: Infinity }));
  } catch (error) {
    if (key.value !== asked) return; // There is another key since, and with it another start.
    if (needsKey(error)) tell(error);
    else banner.show(`The advisors could not be read. ${explanation(error)}`, { kind: "error", label: "Try again", action: () => location.reload() });
  }
}

compose.onAsk = ask;
result.onStart = (/** @type {string} */ name) => {
  history.pushState(null, "", `#${name}`);
  past.select(name);
  void past.refresh();
};
result.onEnd = () => {
  void past.refresh();
  void service.refresh();
};
result.onRefuse = (/** @type {unknown} */ error, /** @type {import("./keeper.js").Pending} */ pending) => {
  show("compose");
  document.title = "Mondrian";
  compose.refuse(error, pending);
};
result.onKeyNeeded = askForKey;
past.onError = tell;
past.onDelete = (/** @type {string} */ name) => {
  if (location.hash === `#${name}`) location.hash = "";
};
key.onChange = () => {
  const again = onceThereIsAKey;
  onceThereIsAKey = () => {};
  isKeyDeclined = false;
  void start();
  if (again !== start) again();
};
key.onDismiss = () => {
  onceThereIsAKey = () => {};
  isKeyDeclined = true;
  // What was to be sent is not sent; what was open stays as it is.
  if (!location.hash) route();
};
service.onReturn = () => void start();
byId("again").addEventListener("click", () => {
  if (location.hash) history.pushState(null, "", location.pathname + location.search);
  route();
  compose.focus();
});
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  if (location.hash) history.pushState(null, "", location.pathname + location.search);
  route();
});
addEventListener("hashchange", route);
addEventListener("popstate", route);

const pending = location.hash ? null : await keeper.pending();
if (pending) ask(pending);
else route();
void start();
void compose.easel.offerSamples(new URL("samples/", document.baseURI).href);
