// @ts-check
/**
 * The plot: tokens a second over the whole writing, as bars. It is drawn from the tokens' own times, so that a replay
 * gives the same plot as the live stream. When there are too many bars, two become one.
 */

import { makeSvg } from "./elements.js";

const MOST_BARS = 48;
const FIRST_BAR_MS = 100;

export class Plot {
  #svg;
  #barMs = FIRST_BAR_MS;
  #beginMs = 0;
  /** @type {number[]} */
  #counts = [];
  #isDue = false;

  /** @param {SVGElement} svg */
  constructor(svg) {
    this.#svg = svg;
  }

  clear() {
    this.#barMs = FIRST_BAR_MS;
    this.#beginMs = 0;
    this.#counts = [];
    this.#svg.replaceChildren();
  }

  /**
   * @param {number} count tokens
   * @param {Date | null} time when the server recorded them
   */
  add(count, time) {
    const nowMs = time?.getTime() ?? Date.now();
    if (this.#counts.length === 0) this.#beginMs = nowMs;
    let bar = Math.max(0, Math.floor((nowMs - this.#beginMs) / this.#barMs));
    while (bar >= MOST_BARS) {
      this.#halve();
      bar = Math.floor((nowMs - this.#beginMs) / this.#barMs);
    }
    while (this.#counts.length <= bar) this.#counts.push(0);
    this.#counts[bar] += count;
    this.#drawSoon();
  }

  #halve() {
    this.#barMs *= 2;
    const counts = [];
    for (let bar = 0; bar < this.#counts.length; bar += 2) counts.push(this.#counts[bar] + (this.#counts[bar + 1] ?? 0));
    this.#counts = counts;
  }

  #drawSoon() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.#draw();
    });
  }

  #draw() {
    const highest = Math.max(1, ...this.#counts);
    const bars = Math.max(this.#counts.length, 16);
    this.#svg.setAttribute("viewBox", `0 0 ${bars} 100`);
    this.#svg.replaceChildren(...this.#counts.map((count, bar) => {
      const height = (100 * count) / highest;
      return makeSvg("rect", { x: bar + 0.08, y: 100 - height, width: 0.84, height });
    }));
  }
}
