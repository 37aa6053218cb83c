// @ts-check
/** The API key: asked for when the server wants one, and kept in this tab until it is closed. */

import { byId } from "./elements.js";

const PLACE = "mondrian.key";

export class Key {
  #dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  #input = /** @type {HTMLInputElement} */ (byId("key"));

  /** Called when there is another key. */
  onChange = () => {};
  /** Called when the question for a key was left unanswered. */
  onDismiss = () => {};

  constructor() {
    byId("key-open").hidden = !this.value;
    byId("key-open").addEventListener("click", () => this.ask("Change the key, or leave it empty to send none."));
    this.#dialog.addEventListener("close", () => {
      if (this.#dialog.returnValue !== "save") return this.onDismiss();
      this.#keep(this.#input.value.trim());
      this.onChange();
    });
  }

  /** The key, or an empty string. */
  get value() {
    return sessionStorage.getItem(PLACE) ?? "";
  }

  /**
   * Ask for a key.
   * @param {string} why
   */
  ask(why) {
    byId("key-open").hidden = false;
    byId("key-why").textContent = why;
    if (this.#dialog.open) return; // Several refusals may come for one visit; what is being typed stays.
    this.#input.value = this.value;
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    this.#input.focus();
  }

  /** @param {string} key */
  #keep(key) {
    if (key) sessionStorage.setItem(PLACE, key);
    else sessionStorage.removeItem(PLACE);
    this.#input.value = "";
  }
}
