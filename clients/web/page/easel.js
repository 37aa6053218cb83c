// @ts-check
/** The easel: a picture chosen, dropped, pasted or taken from the samples, and shown before it is sent. */

import { byId, make, showText } from "./elements.js";
import { megabytes } from "./words.js";

/** What the server takes for one picture by default (`max_image_bytes`). */
export const MOST_BYTES = 20 * 2 ** 20;

export class Easel {
  #box = byId("easel");
  #input = byId("file");
  #preview = byId("preview");
  #error = byId("picture-error");
  /** @type {File | null} */
  #file = null;

  /** Called when another picture is there, or none. */
  onChange = () => {};

  constructor() {
    const input = /** @type {HTMLInputElement} */ (this.#input);
    input.addEventListener("change", () => {
      if (input.files?.[0]) this.take(input.files[0]);
      input.value = "";
    });
    byId("clear").addEventListener("click", () => {
      this.clear();
      input.focus();
    });
    this.#preview.addEventListener("error", () => this.#cannotShow());
    this.#takeDrops();
    document.addEventListener("paste", (event) => this.#takeFrom(event.clipboardData, event));
  }

  /** The picture to send. */
  get file() {
    return this.#file;
  }

  /**
   * Put a picture on the easel, or say why it cannot be sent.
   * @param {File} file
   * @param {HTMLElement | null} [sample] the sample's button, where it is one
   * @returns {boolean} whether it stands there
   */
  take(file, sample = null) {
    if (file.size > MOST_BYTES) {
      this.refuse(`This picture has ${megabytes(file.size)}. The server takes at most ${megabytes(MOST_BYTES)}; please choose a smaller one.`);
      return false;
    }
    if (file.type && !file.type.startsWith("image/")) {
      this.refuse(`“${file.name}” is not a picture.`);
      return false;
    }
    this.#file = file;
    this.#show(file, sample);
    return true;
  }

  clear() {
    this.#file = null;
    this.#show(null, null);
  }

  /**
   * Say why a picture was refused.
   * @param {string} why
   */
  refuse(why) {
    this.#error.textContent = why;
  }

  /**
   * Offer the server's samples, where it has some.
   * @param {string} base the folder's address
   */
  async offerSamples(base) {
    const answer = await fetch(`${base}facts.json`).catch(() => null);
    if (!answer?.ok) return;
    const names = Object.keys(await answer.json().catch(() => ({})));
    byId("sample-row").replaceChildren(...names.map((name) => this.#sample(base, name)));
    byId("samples").hidden = names.length === 0;
  }

  /**
   * @param {string} base
   * @param {string} name
   */
  #sample(base, name) {
    const title = name.replace(/\.\w+$/, "").replaceAll("-", " ");
    const image = make("img", { src: base + encodeURIComponent(name), alt: title, loading: "lazy" });
    const button = make("button", { type: "button", class: "sample", title, "aria-pressed": "false" }, image);
    button.addEventListener("click", async () => {
      const answer = await fetch(image.src).catch(() => null);
      if (!answer?.ok) return this.refuse("The sample could not be fetched.");
      const blob = await answer.blob();
      this.take(new File([blob], name, { type: blob.type }), button);
    });
    return button;
  }

  /**
   * @param {File | null} file
   * @param {HTMLElement | null} sample
   */
  #show(file, sample) {
    const preview = /** @type {HTMLImageElement} */ (this.#preview);
    if (preview.src) URL.revokeObjectURL(preview.src);
    preview.removeAttribute("src");
    if (file) preview.src = URL.createObjectURL(file);
    preview.alt = file ? `Your picture, ${file.name}` : "";
    preview.hidden = !file;
    showText(byId("file-name"), file?.name ?? "");
    byId("invitation").hidden = file !== null;
    byId("clear").hidden = !file;
    byId("file-label").textContent = file ? "Choose another" : "Choose a photo";
    this.#error.textContent = "";
    for (const one of byId("sample-row").children) one.setAttribute("aria-pressed", String(one === sample));
    this.onChange();
  }

  #cannotShow() {
    if (!this.#file) return;
    this.#preview.hidden = true;
    showText(byId("file-name"), `${this.#file.name}: this browser cannot show it, but it can be sent.`);
  }

  #takeDrops() {
    let depth = 0;
    const over = (/** @type {number} */ change) => {
      depth = Math.max(0, depth + change);
      this.#box.toggleAttribute("data-over", depth > 0);
    };
    this.#box.addEventListener("dragenter", () => over(1));
    this.#box.addEventListener("dragleave", () => over(-1));
    // A picture dropped beside the easel must not replace the page.
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      over(-depth);
      this.#takeFrom(event.dataTransfer, event);
    });
  }

  /**
   * @param {DataTransfer | null} transfer
   * @param {Event} event
   */
  #takeFrom(transfer, event) {
    const file = transfer?.files[0];
    if (!file || byId("compose").hidden) return;
    event.preventDefault();
    this.take(file);
  }
}

/**
 * Make a small copy of a picture, to be kept in this browser.
 * @param {Blob} blob
 * @param {number} [side] the longer side in pixels, at most
 * @returns {Promise<Blob | null>} null where this browser cannot show it
 */
export async function smallCopy(blob, side = 640) {
  try {
    const bitmap = await createImageBitmap(blob);
    const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    return await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
  } catch {
    return null;
  }
}
