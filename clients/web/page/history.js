// @ts-check
/** The history: this caller's analyses on the server, with the pictures that this browser has kept. */

import { byId, make } from "./elements.js";
import { composition } from "./composition.js";
import { ago, explanation } from "./words.js";

const PAGE = 12;
const STATES = Object.freeze({ ACTIVE: "running", COMPLETED: "", FAILED: "failed", CANCELLED: "stopped" });

export class History {
  #mondrian;
  #keeper;
  #list = byId("history-list");
  #more = byId("history-more");
  #nextPageToken = "";
  #current = "";
  #count = 0;
  /** @type {string[]} */
  #addresses = [];

  /**
   * Called with an error that the page should tell.
   * @type {(error: unknown) => void}
   */
  onError = () => {};
  /**
   * Called with the name of an analysis that was deleted.
   * @type {(name: string) => void}
   */
  onDelete = () => {};

  /**
   * @param {import("../mondrian.js").Mondrian} mondrian
   * @param {import("./keeper.js").Keeper} keeper
   */
  constructor(mondrian, keeper) {
    this.#mondrian = mondrian;
    this.#keeper = keeper;
    this.#more.addEventListener("click", () => void this.#append());
  }

  /** Read the first page again. */
  async refresh() {
    const count = (this.#count += 1);
    try {
      const page = await this.#mondrian.list({ pageSize: PAGE, giveUpAfterS: 0 });
      const items = await Promise.all(page.analyses.map((one) => this.#item(one)));
      if (count !== this.#count) return;
      this.#forgetAddresses(items.length);
      this.#show(items, page.nextPageToken, true);
    } catch (error) {
      if (count === this.#count) this.onError(error); // Else it was asked with what counted before, such as another key.
    }
  }

  /**
   * Mark the analysis that is shown.
   * @param {string} name
   */
  select(name) {
    this.#current = name;
    for (const link of this.#list.querySelectorAll("a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  async #append() {
    try {
      const page = await this.#mondrian.list({ pageSize: PAGE, pageToken: this.#nextPageToken });
      const items = await Promise.all(page.analyses.map((one) => this.#item(one)));
      this.#show(items, page.nextPageToken, false);
      items[0]?.querySelector("a")?.focus();
    } catch (error) {
      this.onError(error);
    }
  }

  /**
   * @param {HTMLElement[]} items
   * @param {string} nextPageToken
   * @param {boolean} isFirst
   */
  #show(items, nextPageToken, isFirst) {
    if (isFirst) this.#list.replaceChildren(...items);
    else this.#list.append(...items);
    this.#nextPageToken = nextPageToken;
    this.#more.hidden = nextPageToken === "";
    byId("history").hidden = this.#list.children.length === 0;
    this.select(this.#current);
  }

  /** @param {import("../mondrian.js").Analysis} analysis */
  async #item(analysis) {
    const what = analysis.config?.prompt || (analysis.expired ? "Expired" : "A picture");
    const advisor = (analysis.config?.advisor ?? "").replace("advisors/", "");
    const facts = [advisor, ago(analysis.createTime), STATES[analysis.state]].filter(Boolean).join(" · ");
    const words = make("span", {}, make("span", { class: "what" }, what), make("span", { class: "when" }, facts));
    const link = make("a", { href: `#${analysis.name}` }, await this.#thumb(analysis.name), words);
    const item = make("li", { "data-state": analysis.state }, link);
    if (analysis.state !== "ACTIVE") item.append(this.#delete(analysis.name, what, item));
    return item;
  }

  /** @param {string} name */
  async #thumb(name) {
    const picture = await this.#keeper.picture(name);
    if (!picture) return composition(name);
    const address = URL.createObjectURL(picture);
    this.#addresses.push(address);
    return make("img", { class: "thumb", src: address, alt: "" });
  }

  /** @param {number} fresh how many of the newest addresses are in use */
  #forgetAddresses(fresh) {
    for (const address of this.#addresses.splice(0, Math.max(0, this.#addresses.length - fresh))) URL.revokeObjectURL(address);
  }

  /**
   * @param {string} name
   * @param {string} what
   * @param {HTMLElement} item
   */
  #delete(name, what, item) {
    const button = make("button", { type: "button", class: "delete", "aria-label": `Delete “${what}”`, title: "Delete" }, "×");
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await this.#mondrian.delete(name);
        await this.#keeper.dropPicture(name);
        const next = item.nextElementSibling ?? item.previousElementSibling;
        item.remove();
        /** @type {HTMLElement} */ (next?.querySelector("a") ?? byId("main")).focus();
        byId("history").hidden = this.#list.children.length === 0;
        this.onDelete(name);
      } catch (error) {
        button.disabled = false;
        button.title = explanation(error);
        this.onError(error);
      }
    });
    return button;
  }
}
