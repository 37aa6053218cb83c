// @ts-check
/** Composing: the picture, the advisor and the question, until they are sent. */

import { newRequestId } from "../mondrian.js";
import { Easel } from "./easel.js";
import { byId, make } from "./elements.js";
import { explanation, isAboutPicture, QUESTIONS } from "./words.js";

const TONES = ["red", "blue", "yellow"];
const CHOICE = "mondrian.advisor";

export class Compose {
  #form = /** @type {HTMLFormElement} */ (byId("compose"));
  #prompt = /** @type {HTMLTextAreaElement} */ (byId("prompt"));
  #promptError = byId("prompt-error");
  easel = new Easel();

  /**
   * Called with the question.
   * @type {(pending: import("./keeper.js").Pending) => void}
   */
  onAsk = () => {};

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    // Return sends, as in a message; with Shift it is a new line.
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    this.#prompt.addEventListener("input", () => this.#complain(""));
    this.easel.onChange = () => this.#complain("");
    byId("chips").replaceChildren(...QUESTIONS.map((question) => this.#chip(question)));
    this.showAdvisors([]);
  }

  /**
   * Offer the advisors, and nobody in particular.
   * @param {import("../mondrian.js").Advisor[]} advisors
   */
  showAdvisors(advisors) {
    const chosen = localStorage.getItem(CHOICE) ?? "";
    const cards = advisors.map((one, index) => card(one.name.replace("advisors/", ""), one.displayName, one.description, TONES[index % 3]));
    byId("advisors").replaceChildren(card("", "No advisor", "The model, as it is.", ""), ...cards);
    const radios = /** @type {NodeListOf<HTMLInputElement>} */ (this.#form.querySelectorAll("[name=advisor]"));
    (Array.from(radios).find((radio) => radio.value === chosen) ?? radios[0]).checked = true;
  }

  /**
   * Say why the question was refused, where it can be mended.
   * @param {unknown} error
   * @param {import("./keeper.js").Pending} pending
   */
  refuse(error, pending) {
    this.#prompt.value = pending.prompt;
    if (isAboutPicture(error)) this.easel.refuse(`The picture was refused. ${explanation(error)}`);
    else this.#complain(explanation(error));
    (isAboutPicture(error) ? byId("file") : this.#prompt).focus();
  }

  focus() {
    this.#prompt.focus();
  }

  #ask() {
    const prompt = this.#prompt.value.trim();
    const image = this.easel.file;
    if (!prompt && !image) {
      this.#complain("Choose a picture or ask a question first.");
      this.#prompt.focus();
      return;
    }
    const advisor = String(new FormData(this.#form).get("advisor") ?? "");
    localStorage.setItem(CHOICE, advisor);
    this.onAsk({ requestId: newRequestId(), prompt, advisor, image, madeMs: Date.now() });
  }

  /** @param {string} why */
  #complain(why) {
    this.#promptError.textContent = why;
    if (why) this.#prompt.setAttribute("aria-invalid", "true");
    else this.#prompt.removeAttribute("aria-invalid");
  }

  /** @param {string} question */
  #chip(question) {
    const button = make("button", { type: "button", class: "chip" }, question);
    button.addEventListener("click", () => {
      this.#prompt.value = question;
      this.#complain("");
      this.#prompt.focus();
    });
    return button;
  }
}

/**
 * @param {string} id
 * @param {string} name
 * @param {string} about
 * @param {string} tone
 */
function card(id, name, about, tone) {
  const words = make("span", { class: "words" }, make("strong", {}, name), make("span", { class: "about" }, about));
  const radio = make("input", { type: "radio", name: "advisor", value: id });
  return make("label", { class: "card", "data-tone": tone || null }, radio, make("span", { class: "swatch" }), words);
}
