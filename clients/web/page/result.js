// @ts-check
/** The result: one analysis from the moment it is asked for to its end, live or replayed. */

import { isTerminal, NotFound } from "../mondrian.js";
import { composition } from "./composition.js";
import { byId, make, showText } from "./elements.js";
import { smallCopy } from "./easel.js";
import { Follower } from "./follower.js";
import { Meter } from "./meter.js";
import { Notice } from "./notice.js";
import { Plot } from "./plot.js";
import { duration, ending, explanation, interruption, needsKey, ordinal, rate, STAGES } from "./words.js";

/** How often the server shall tell where it is: often enough for a bar that moves. */
const PROGRESS_INTERVAL_S = 0.5;

/** @typedef {import("../mondrian.js").AnalysisEvent} AnalysisEvent */
/** @typedef {import("./keeper.js").Pending} Pending */

export class Result {
  #mondrian;
  #keeper;
  #announce;
  #meter = new Meter();
  #plot = new Plot(/** @type {any} */ (byId("plot")));
  #notice;
  #text = byId("text");
  #follower = new Follower(byId("text"), byId("actions"));
  /**
   * The text of each voice, by its advisor.
   * @type {Map<string, Text>}
   */
  #voices = new Map();
  /** What is being read; another one takes its place when another analysis is shown. */
  #reading = new AbortController();
  #name = "";
  #requestId = "";
  #spokenStage = "";
  #tokens = 0;
  /** @type {string} */
  #address = "";

  /**
   * Called when the analysis has a name.
   * @type {(name: string) => void}
   */
  onStart = () => {};
  /**
   * Called when it has ended.
   * @type {(name: string) => void}
   */
  onEnd = () => {};
  /**
   * Called when it could not be started, with what was asked.
   * @type {(error: unknown, pending: Pending) => void}
   */
  onRefuse = () => {};
  /**
   * Called when the server wants a key, with what to do once there is one.
   * @type {(error: import("../mondrian.js").MondrianError, again: () => void) => void}
   */
  onKeyNeeded = () => {};

  /**
   * @param {import("../mondrian.js").Mondrian} mondrian
   * @param {import("./keeper.js").Keeper} keeper
   * @param {(text: string) => void} announce
   */
  constructor(mondrian, keeper, announce) {
    this.#mondrian = mondrian;
    this.#keeper = keeper;
    this.#announce = announce;
    this.#notice = new Notice(byId("result-notice"), byId("result-notice-text"), byId("result-notice-action"), announce);
    byId("stop").addEventListener("click", () => void this.#stop());
    byId("copy").addEventListener("click", () => void this.#copy());
  }

  /** The text as it stands. */
  get text() {
    return [...this.#voices.values()].map((text) => text.data).join("\n\n");
  }

  /** Show nothing any more, and read no further. What runs goes on; what is still being sent is stopped. */
  leave() {
    if (this.#requestId && !this.#name) void this.#stopSending().catch(() => {});
    this.#reading.abort();
    this.#name = "";
    this.#requestId = "";
  }

  /**
   * Ask the question, and show what comes of it.
   * @param {Pending} pending
   */
  async begin(pending) {
    const what = pending.image ? "Sending the picture" : "Sending the question";
    const signal = this.#reset(`${what}…`);
    this.#follower.start();
    this.#requestId = pending.requestId;
    this.#showQuestion(pending.prompt, pending.advisor);
    this.#showPicture(pending.image, pending.requestId);
    byId("result-heading").focus();
    this.#announce(what);
    await this.#keeper.keepPending(pending);
    try {
      const analysis = await this.#mondrian.create(requestOf(pending), { requestId: pending.requestId, signal, onConnection: this.#onConnection });
      await this.#keeper.dropPending();
      const copy = pending.image && (await smallCopy(pending.image));
      if (copy) await this.#keeper.keepPicture(analysis.name, copy);
      if (signal.aborted) return;
      this.#name = analysis.name;
      this.#requestId = "";
      this.onStart(analysis.name);
      await this.#follow(analysis.name, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (needsKey(error)) return this.onKeyNeeded(/** @type {import("../mondrian.js").MondrianError} */ (error), () => void this.begin(pending));
      this.#requestId = "";
      await this.#keeper.dropPending();
      this.onRefuse(error, pending);
    }
  }

  /**
   * Show an analysis that the server knows, from its first event on.
   * @param {string} name
   */
  async open(name) {
    if (name === this.#name) return;
    const signal = this.#reset("Opening…");
    this.#name = name;
    this.#showQuestion("", "");
    this.#showPicture(await this.#keeper.picture(name), name);
    if (signal.aborted) return;
    void this.#describe(name, signal);
    await this.#follow(name, signal);
  }

  /**
   * @param {string} name
   * @param {AbortSignal} signal
   */
  async #describe(name, signal) {
    try {
      const analysis = await this.#mondrian.get(name, { signal, giveUpAfterS: Infinity });
      if (signal.aborted) return;
      this.#showQuestion(analysis.config?.prompt ?? "", analysis.config?.advisor ?? "");
      if (analysis.state === "ACTIVE") this.#follower.start();
    } catch {
      // Watching the same analysis says why.
    }
  }

  /**
   * @param {string} name
   * @param {AbortSignal} signal
   */
  async #follow(name, signal) {
    try {
      const events = this.#mondrian.watch(name, { signal, giveUpAfterS: Infinity, onConnection: this.#onConnection });
      for await (const event of events) this.#show(event);
    } catch (error) {
      if (signal.aborted) return;
      if (needsKey(error)) {
        this.#name = "";
        return this.onKeyNeeded(/** @type {import("../mondrian.js").MondrianError} */ (error), () => void this.open(name));
      }
      this.#end("The answer cannot be shown.", false);
      this.#notice.show(explanation(error), { kind: "error" });
      if (error instanceof NotFound) showText(byId("result-heading"), "Not here");
    }
  }

  /** @param {AnalysisEvent} event */
  #show(event) {
    switch (event.type) {
      case "accepted":
        if (event.accepted.queuePosition > 1) this.#showPlace(event.accepted.queuePosition);
        break;
      case "progress":
        this.#showProgress(event.progress);
        break;
      case "token":
        this.#append(event.advisor, event.token.text);
        this.#plot.add(event.token.tokenCount, event.createTime);
        this.#tokens += event.token.tokenCount;
        byId("tokens").textContent = String(this.#tokens);
        break;
      case "completed":
        this.#complete(event.completed);
        break;
      case "failed":
        this.#end("It could not be finished.", true);
        this.#notice.show(explanation(event.failed.error), { kind: "error" });
        break;
      case "cancelled":
        this.#end("Stopped.", true);
        this.#announce("Stopped");
        break;
    }
    if (isTerminal(event)) this.onEnd(event.analysis);
  }

  /** @param {import("../mondrian.js").Progress} progress */
  #showProgress(progress) {
    this.#meter.show(progress);
    this.#text.toggleAttribute("data-writing", progress.stage === "GENERATING");
    if (progress.outputTokensPerS > 0) byId("rate").textContent = rate(progress.outputTokensPerS);
    if (progress.stage === "QUEUED" && progress.queuePosition > 0) this.#showPlace(progress.queuePosition);
    else this.#showFigure("Time left", progress.estimatedTimeLeftS === null ? "–" : `≤ ${duration(progress.estimatedTimeLeftS)}`);
    document.title = `${Math.floor(progress.fraction * 100)} % · Mondrian`;
    if (progress.stage !== this.#spokenStage) {
      this.#spokenStage = progress.stage;
      this.#announce(STAGES.find(({ stage }) => stage === progress.stage)?.spoken ?? "");
    }
  }

  /** @param {number} position */
  #showPlace(position) {
    this.#showFigure("In the queue", position === 1 ? "next" : ordinal(position));
  }

  /**
   * @param {string} heading
   * @param {string} value
   */
  #showFigure(heading, value) {
    byId("time-heading").textContent = heading;
    byId("time").textContent = value;
  }

  /** @param {import("../mondrian.js").Completed} completed */
  #complete(completed) {
    // All token texts together are the final text; this is the same text, and costs nothing to hold to.
    if (this.#voices.size <= 1 && this.text !== completed.text) {
      this.#clearText();
      this.#append("", completed.text);
    }
    this.#meter.complete();
    byId("tokens").textContent = String(completed.usage.outputTokens);
    if (completed.timings.outputTokensPerS > 0) byId("rate").textContent = rate(completed.timings.outputTokensPerS);
    this.#end("Finished.", false);
    showText(byId("ending"), ending(completed.finishReason));
    if (completed.timings.totalS !== null) this.#showFigure("Time", duration(completed.timings.totalS));
    this.#announce(`Finished. ${this.text}`);
  }

  /**
   * @param {string} message
   * @param {boolean} isBroken
   */
  #end(message, isBroken) {
    if (isBroken) this.#meter.breakOff(message);
    else if (message !== "Finished.") this.#meter.breakOff(message);
    this.#notice.hide();
    this.#text.removeAttribute("data-writing");
    this.#follower.stop();
    byId("answer").setAttribute("aria-busy", "false");
    this.#showFigure("Time left", "–");
    document.title = `${message} Mondrian`;
    const hadFocus = document.activeElement === byId("stop");
    byId("stop").hidden = true;
    byId("again").hidden = false;
    byId("copy").hidden = this.text === "";
    if (hadFocus) byId("again").focus();
  }

  /**
   * @param {string} advisor
   * @param {string} text
   */
  #append(advisor, text) {
    let voice = this.#voices.get(advisor);
    if (!voice) {
      voice = document.createTextNode("");
      if (advisor) this.#text.append(make("h3", {}, advisor.replace("advisors/", "")));
      this.#text.append(voice);
      this.#voices.set(advisor, voice);
    }
    voice.appendData(text);
    this.#follower.grown();
  }

  #clearText() {
    this.#voices.clear();
    this.#text.replaceChildren();
  }

  /** @param {import("../mondrian.js").Connection} connection */
  #onConnection = (connection) => {
    if (connection.state === "open") this.#notice.hide();
    // A first quick try mends most interruptions before anybody can read of them.
    if (connection.state !== "waiting" || (connection.attempt === 0 && connection.retryInS < 0.5)) return;
    this.#notice.countDown(interruption(connection.error), connection.retryInS, connection.retryNow);
  };

  /**
   * @param {string} message
   * @returns {AbortSignal} ends when something else is shown
   */
  #reset(message) {
    this.#reading.abort();
    this.#reading = new AbortController();
    this.#follower.stop();
    this.#name = "";
    this.#requestId = "";
    this.#spokenStage = "";
    this.#tokens = 0;
    this.#clearText();
    this.#plot.clear();
    this.#notice.hide();
    this.#meter.clear(message);
    this.#showFigure("Time left", "–");
    showText(byId("ending"), "");
    byId("rate").textContent = "–";
    byId("tokens").textContent = "0";
    byId("answer").setAttribute("aria-busy", "true");
    byId("stop").hidden = false;
    /** @type {HTMLButtonElement} */ (byId("stop")).disabled = false;
    byId("again").hidden = true;
    byId("copy").hidden = true;
    byId("copy").textContent = "Copy text";
    return this.#reading.signal;
  }

  /**
   * @param {string} prompt
   * @param {string} advisor
   */
  #showQuestion(prompt, advisor) {
    byId("result-heading").textContent = prompt || "The picture";
    const id = advisor.replace("advisors/", "");
    showText(byId("result-by"), id ? `asked of ${id[0].toUpperCase()}${id.slice(1)}` : "");
  }

  /**
   * @param {Blob | null} picture
   * @param {string} name what a picture is made of where there is none
   */
  #showPicture(picture, name) {
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#address = picture ? URL.createObjectURL(picture) : "";
    const figure = byId("picture");
    const instead = () => {
      figure.dataset.made = "";
      figure.replaceChildren(composition(name));
    };
    if (!picture) return instead();
    delete figure.dataset.made;
    const image = make("img", { src: this.#address, alt: "The picture that was asked about" });
    image.addEventListener("error", instead);
    figure.replaceChildren(image);
  }

  async #stop() {
    const stop = /** @type {HTMLButtonElement} */ (byId("stop"));
    stop.disabled = true;
    byId("message").textContent = "Stopping…";
    try {
      if (this.#name) await this.#mondrian.cancel(this.#name, { signal: this.#reading.signal });
      else await this.#stopSending();
    } catch (error) {
      stop.disabled = false;
      if (!this.#reading.signal.aborted) this.#notice.show(explanation(error), { kind: "error" });
    }
  }

  /** Stop a question that is on its way. It may have arrived already, without an answer. */
  async #stopSending() {
    const requestId = this.#requestId;
    this.#requestId = "";
    this.#reading.abort();
    await this.#keeper.dropPending();
    this.#end("Stopped.", true);
    const { analyses } = await this.#mondrian.list({ states: ["ACTIVE"], giveUpAfterS: 30 });
    const arrived = analyses.find((one) => one.requestId === requestId);
    if (arrived) await this.#mondrian.cancel(arrived.name);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.text);
    } catch {
      // Without a secure context there is no clipboard: the text is selected, and the old command copies it.
      getSelection()?.selectAllChildren(this.#text);
      document.execCommand("copy");
    }
    byId("copy").textContent = "Copied";
    this.#announce("Copied");
  }
}

/**
 * @param {Pending} pending
 * @returns {import("../mondrian.js").AnalysisRequest}
 */
function requestOf({ prompt, advisor, image }) {
  return {
    ...(prompt ? { prompt } : {}),
    ...(advisor ? { advisor } : {}),
    images: image ? [image] : [],
    progressIntervalS: PROGRESS_INTERVAL_S,
  };
}
