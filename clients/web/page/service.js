// @ts-check
/** The service line: which model answers, and whether it can. */

import { byId } from "./elements.js";
import { needsKey } from "./words.js";

const READY_EVERY_MS = 30_000;
const WAITING_EVERY_MS = 3_000;

export class Service {
  #mondrian;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** Called when the server can be reached again after it could not. */
  onReturn = () => {};
  #isGone = false;

  /** @param {import("../mondrian.js").Mondrian} mondrian */
  constructor(mondrian) {
    this.#mondrian = mondrian;
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") void this.refresh();
    });
    addEventListener("online", () => void this.refresh());
    addEventListener("offline", () => void this.refresh());
  }

  /** Ask now, and again in a while. */
  async refresh() {
    clearTimeout(this.#timer);
    const isReady = await this.#ask();
    clearTimeout(this.#timer);
    if (document.visibilityState === "visible") {
      this.#timer = setTimeout(() => void this.refresh(), isReady ? READY_EVERY_MS : WAITING_EVERY_MS);
    }
  }

  async #ask() {
    try {
      const [model] = await this.#mondrian.models({ giveUpAfterS: 0 });
      const name = model?.name.replace("models/", "") ?? "no model";
      if (this.#isGone) this.onReturn();
      this.#isGone = false;
      if (model?.state === "READY") return this.#tell("ready", name);
      if (model?.state === "LOADING") return this.#tell("loading", `${name}, loading`);
      return this.#tell("gone", `${name}, not available`);
    } catch (error) {
      if (needsKey(error)) return this.#tell("loading", "A key is needed");
      this.#isGone = true;
      return this.#tell("gone", navigator.onLine === false ? "Offline" : "Server not reached");
    }
  }

  /**
   * @param {"ready" | "loading" | "gone"} state
   * @param {string} text
   */
  #tell(state, text) {
    byId("service").dataset.state = state;
    byId("service-text").textContent = text;
    return state === "ready";
  }
}
