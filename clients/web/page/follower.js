// @ts-check
/** The follower: keeps the end of a growing text in sight, until its reader scrolls elsewhere. */

const MARGIN_PX = 24;

export class Follower {
  #text;
  #below;
  #isFollowing = false;
  #isDue = false;

  /**
   * @param {HTMLElement} text what grows
   * @param {HTMLElement} below what covers the lower edge of the window
   */
  constructor(text, below) {
    this.#text = text;
    this.#below = below;
    for (const kind of ["wheel", "touchmove", "keydown"]) {
      addEventListener(kind, () => (this.#isFollowing &&= this.#excess() <= MARGIN_PX), { passive: true });
    }
  }

  /** Begin to follow: the text is being written. */
  start() {
    this.#isFollowing = true;
  }

  stop() {
    this.#isFollowing = false;
  }

  /** The text has grown. */
  grown() {
    if (!this.#isFollowing || this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      const excess = this.#excess();
      if (this.#isFollowing && excess > 0) scrollBy(0, excess);
    });
  }

  /** How many pixels of the text's end cannot be seen. */
  #excess() {
    const bottom = Math.min(innerHeight, this.#below.getBoundingClientRect().top);
    return this.#text.getBoundingClientRect().bottom + MARGIN_PX - bottom;
  }
}
