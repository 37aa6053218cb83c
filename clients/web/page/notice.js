// @ts-check
/**
 * A notice: a line about the connection or an error, with at most one thing to do. It is read out when it appears; the
 * seconds of a countdown are not.
 */

import { showText } from "./elements.js";

export class Notice {
  #box;
  #text;
  #button;
  /** @type {(() => void) | null} */
  #action = null;
  #announce;
  #spoken = "";
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #clock;

  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} text
   * @param {HTMLButtonElement} button
   * @param {(text: string) => void} announce
   */
  constructor(box, text, button, announce) {
    this.#announce = announce;
    this.#box = box;
    this.#text = text;
    this.#button = button;
    button.addEventListener("click", () => this.#action?.());
  }

  /**
   * @param {string} text
   * @param {{kind?: "error" | "wait", label?: string, action?: (() => void) | null}} [options]
   */
  show(text, { kind = "wait", label = "", action = null } = {}) {
    clearInterval(this.#clock);
    this.#box.dataset.kind = kind;
    this.#action = action;
    showText(this.#button, action ? label : "");
    showText(this.#text, text);
    this.#box.hidden = false;
    if (text !== this.#spoken) this.#announce(text);
    this.#spoken = text;
  }

  /**
   * Count down the seconds to another try.
   * @param {string} why
   * @param {number} seconds
   * @param {() => void} retryNow
   */
  countDown(why, seconds, retryNow) {
    const due = Date.now() + seconds * 1000;
    const tell = () => {
      const left = Math.ceil((due - Date.now()) / 1000);
      showText(this.#text, left > 1 ? `${why} Trying again in ${left} s.` : `${why} Trying again.`);
    };
    this.show(why, { label: "Try now", action: retryNow });
    tell();
    this.#clock = setInterval(tell, 1000);
  }

  hide() {
    clearInterval(this.#clock);
    this.#action = null;
    this.#spoken = "";
    this.#box.hidden = true;
    this.#text.textContent = "";
  }
}
