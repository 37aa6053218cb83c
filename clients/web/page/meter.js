// @ts-check
/** The meter: the stages as a stepped scale, the progress bar, and the sentence that says where the analysis is. */

import { byId, make } from "./elements.js";
import { STAGES } from "./words.js";

export class Meter {
  #bar = byId("bar");
  #fill = /** @type {HTMLElement} */ (this.#bar.firstElementChild);
  #message = byId("message");
  #percent = byId("percent");
  #steps = STAGES.map(({ label }) => make("li", {}, label));
  /** @type {Set<number>} */
  #seen = new Set();
  #now = -1;

  constructor() {
    byId("stages").replaceChildren(...this.#steps);
  }

  /** @param {string} message what is being done before the server has said anything */
  clear(message) {
    this.#seen.clear();
    this.#now = -1;
    this.#mark("");
    this.#unknown();
    this.#message.textContent = message;
  }

  /**
   * Show where the analysis is.
   * @param {import("../mondrian.js").Progress} progress
   */
  show(progress) {
    const step = STAGES.findIndex(({ stage }) => stage === progress.stage);
    // After the engine was lost the stages begin again.
    if (step < this.#now) this.#seen.clear();
    this.#now = step;
    this.#seen.add(step);
    this.#mark("now");
    this.#message.textContent = progress.message;
    if (progress.fraction > 0) this.#known(progress.fraction);
    else this.#unknown();
  }

  /** The analysis is complete. */
  complete() {
    this.#now = STAGES.length;
    this.#mark("");
    this.#known(1);
    this.#message.textContent = "Finished.";
  }

  /**
   * It ended early: the bar stays where it was.
   * @param {string} message
   */
  breakOff(message) {
    this.#mark("broken");
    if (!this.#bar.hasAttribute("aria-valuenow")) this.#known(0);
    this.#message.textContent = message;
  }

  /** @param {string} current what the present step is */
  #mark(current) {
    this.#steps.forEach((step, index) => {
      const passed = this.#seen.has(index) ? "done" : "skipped";
      step.dataset.is = index < this.#now ? passed : index === this.#now ? current : "";
      if (index === this.#now && current) step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
    });
  }

  /** @param {number} fraction */
  #known(fraction) {
    const percent = Math.floor(fraction * 100);
    this.#bar.setAttribute("aria-valuenow", String(percent));
    this.#fill.style.transform = `scaleX(${fraction})`;
    this.#percent.textContent = `${percent} %`;
  }

  #unknown() {
    this.#bar.removeAttribute("aria-valuenow");
    this.#fill.style.transform = "";
    this.#percent.textContent = "";
  }
}
