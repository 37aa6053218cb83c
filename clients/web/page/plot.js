// @ts-check
/**
 * The plot: tokens a second over the whole writing, as bars. It is drawn from the tokens' own times, so that a replay
 * gives the same plot as the live stream. When there are too many bars, two become one.
 */

import { makeSvg } from "./elements.js";

const LEAST_BARS = 10;
const MOST_BARS = 48;
const FIRST_BAR_MS = 100;

export class Plot {
  #svg;
  #barMs = FIRST_BAR_MS;
  #beginMs = 0;
  #lastMs = 0;
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
   * @param {number} count tokens, generated since the last ones
   * @param {Date | null} time when the server recorded them
   */
  add(count, time) {
    const nowMs = time?.getTime() ?? Date.now();
    if (this.#counts.length === 0) this.#beginMs = this.#lastMs = nowMs;
    while (this.#barOf(nowMs) >= MOST_BARS) this.#halve();
    this.#spread(count, Math.min(this.#lastMs, nowMs), nowMs);
    this.#lastMs = nowMs;
    this.#drawSoon();
  }

  /** @param {number} ms */
  #barOf(ms) {
    return Math.max(0, Math.floor((ms - this.#beginMs) / this.#barMs));
  }

  /**
   * Lay tokens evenly over the time in which they came.
   * @param {number} count
   * @param {number} fromMs
   * @param {number} toMs
   */
  #spread(count, fromMs, toMs) {
    const last = this.#barOf(toMs);
    while (this.#counts.length <= last) this.#counts.push(0);
    for (let bar = this.#barOf(fromMs); bar <= last; bar += 1) {
      const beginMs = this.#beginMs + bar * this.#barMs;
      const sharedMs = Math.min(toMs, beginMs + this.#barMs) - Math.max(fromMs, beginMs);
      this.#counts[bar] += toMs > fromMs ? (count * sharedMs) / (toMs - fromMs) : count;
    }
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
    const bars = Math.max(this.#counts.length, LEAST_BARS);
    this.#svg.setAttribute("viewBox", `0 0 ${bars} 100`);
    this.#svg.replaceChildren(...this.#counts.map((count, bar) => {
      const height = (100 * count) / highest;
      return makeSvg("rect", { x: bar + 0.08, y: 100 - height, width: 0.84, height });
    }));
  }
}
