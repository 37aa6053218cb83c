// @ts-check
/**
 * The keeper: what this browser keeps for itself. Small copies of the pictures, for the history, and the question that is
 * on its way, so that a reload sends it again under the same id. Where the browser keeps nothing, the page does without.
 */

const NAME = "mondrian";
const MOST_PICTURES = 80;
/** A question older than this is not sent again on its own. */
const PENDING_FOR_MS = 10 * 60 * 1000;

/**
 * A question on its way.
 * @typedef {{requestId: string, prompt: string, advisor: string, image: Blob | null, madeMs: number}} Pending
 */

export class Keeper {
  /** @type {Promise<IDBDatabase> | null} */
  #database = null;

  /**
   * @param {string} analysis
   * @returns {Promise<Blob | null>}
   */
  async picture(analysis) {
    const kept = await this.#do("pictures", "readonly", (store) => store.get(analysis));
    return kept?.blob ?? null;
  }

  /**
   * Keep an analysis's picture, and let the oldest go where there are too many.
   * @param {string} analysis
   * @param {Blob} blob
   */
  async keepPicture(analysis, blob) {
    await this.#do("pictures", "readwrite", (store) => store.put({ analysis, blob, madeMs: Date.now() }));
    const all = await this.#do("pictures", "readonly", (store) => store.getAll());
    const old = (all ?? []).sort((/** @type {any} */ a, /** @type {any} */ b) => b.madeMs - a.madeMs).slice(MOST_PICTURES);
    for (const one of old) await this.dropPicture(one.analysis);
  }

  /** @param {string} analysis */
  async dropPicture(analysis) {
    await this.#do("pictures", "readwrite", (store) => store.delete(analysis));
  }

  /** @returns {Promise<Pending | null>} */
  async pending() {
    const kept = await this.#do("pending", "readonly", (store) => store.get(tabId()));
    return kept && Date.now() - kept.madeMs < PENDING_FOR_MS ? kept : null;
  }

  /** @param {Pending} pending */
  async keepPending(pending) {
    await this.#do("pending", "readwrite", (store) => store.put({ ...pending, tab: tabId() }));
  }

  async dropPending() {
    await this.#do("pending", "readwrite", (store) => store.delete(tabId()));
  }

  /**
   * @param {string} name
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest} work
   * @returns {Promise<any>} what the request gave, or null where nothing can be kept
   */
  async #do(name, mode, work) {
    try {
      this.#database ??= opened();
      const transaction = (await this.#database).transaction(name, mode);
      return await result(work(transaction.objectStore(name)));
    } catch {
      return null;
    }
  }
}

/** A name of this tab that outlives a reload: each tab sends its own question again. */
function tabId() {
  let id = sessionStorage.getItem("mondrian.tab");
  if (!id) {
    id = Math.random().toString(36).slice(2);
    sessionStorage.setItem("mondrian.tab", id);
  }
  return id;
}

/** @returns {Promise<IDBDatabase>} */
function opened() {
  const request = indexedDB.open(NAME, 1);
  request.addEventListener("upgradeneeded", () => {
    request.result.createObjectStore("pictures", { keyPath: "analysis" });
    request.result.createObjectStore("pending", { keyPath: "tab" });
  });
  return result(request);
}

/**
 * @param {IDBRequest} request
 * @returns {Promise<any>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });
}
