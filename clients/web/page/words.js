// @ts-check
/** Words: what the page calls things, and how it tells numbers, times and errors to people. */

import { ConnectionFailed, InvalidRequest, MondrianError, NotFound, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable } from "../mondrian.js";

/** The stages in their order: a short name for the scale, and a sentence to be read out. */
export const STAGES = Object.freeze([
  { stage: "QUEUED", label: "Queue", spoken: "Waiting in the queue" },
  { stage: "LOADING_MODEL", label: "Load", spoken: "Loading the model" },
  { stage: "PREPARING", label: "Prepare", spoken: "Preparing the picture" },
  { stage: "ENCODING", label: "Look", spoken: "Looking at the picture" },
  { stage: "PREFILL", label: "Read", spoken: "Reading the question" },
  { stage: "GENERATING", label: "Write", spoken: "Writing the answer" },
  { stage: "FINALIZING", label: "Finish", spoken: "Finishing" },
]);

/** Questions that a person may start from. */
export const QUESTIONS = Object.freeze([
  "Describe this image.",
  "Describe this image in detail.",
  "Which colour dominates?",
  "Where does the light come from?",
  "How is it balanced?",
]);

const ENDINGS = Object.freeze({
  MAX_TOKENS: "The answer ends here because it reached its limit of tokens.",
  DEADLINE: "The answer ends here because its time was over.",
});

/**
 * Say why a completed answer ended, where it did not end by itself.
 * @param {string} finishReason
 * @returns {string}
 */
export const ending = (finishReason) => ENDINGS[/** @type {keyof typeof ENDINGS} */ (finishReason)] ?? "";

/**
 * @param {number} seconds
 * @returns {string} such as "0.4 s", "12 s", "3 min"
 */
export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}

/**
 * @param {number} number
 * @returns {string} such as "9.4" or "312"
 */
export const rate = (number) => (number < 9.95 ? number.toFixed(1) : String(Math.round(number)));

/**
 * @param {number} bytes
 * @returns {string}
 */
export const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/**
 * @param {Date | null} time
 * @returns {string} such as "2 minutes ago"
 */
export function ago(time) {
  if (!time) return "";
  const seconds = (Date.now() - time.getTime()) / 1000;
  if (seconds < 45) return "just now";
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  if (seconds < 3600) return words.format(-Math.max(1, Math.round(seconds / 60)), "minute");
  if (seconds < 86_400) return words.format(-Math.round(seconds / 3600), "hour");
  return words.format(-Math.round(seconds / 86_400), "day");
}

/**
 * @param {number} number
 * @returns {string} such as "3rd"
 */
export function ordinal(number) {
  const ending = new Intl.PluralRules("en", { type: "ordinal" }).select(number);
  return `${number}${{ one: "st", two: "nd", few: "rd" }[/** @type {"one"} */ (ending)] ?? "th"}`;
}

/**
 * Say why the page waits before it tries again, without the time.
 * @param {unknown} error
 * @returns {string}
 */
export function interruption(error) {
  if (error instanceof ResourceExhausted) return "The server is busy.";
  if (error instanceof ConnectionFailed) return navigator.onLine === false ? "This device is offline." : "The server cannot be reached.";
  if (error instanceof Unavailable) return "The server cannot work at present.";
  return "The connection was interrupted.";
}

/**
 * Tell whether another API key is what is needed.
 * @param {unknown} error
 * @returns {boolean}
 */
export function needsKey(error) {
  return error instanceof Unauthenticated || (error instanceof PermissionDenied && error.reason === "KEY_REVOKED");
}

/**
 * Say what went wrong and what to do about it.
 * @param {unknown} error
 * @returns {string}
 */
export function explanation(error) {
  if (!(error instanceof MondrianError)) return "Something went wrong on this page. Reload it and try again.";
  if (needsKey(error)) return `The server asks for another API key: ${error.message}.`;
  if (error instanceof PermissionDenied) return `This key may not do that. ${error.message}`;
  if (error instanceof NotFound) return "There is no such analysis here. It may have been deleted, or belong to another key.";
  if (error.reason === "EVENTS_EXPIRED") return "What was kept of this analysis has expired.";
  if (error instanceof InvalidRequest && error.fieldViolations.length > 0) {
    return error.fieldViolations.map((one) => one.description).join(" ");
  }
  return error.message;
}

/**
 * Tell whether it is the picture that was refused.
 * @param {unknown} error
 * @returns {boolean}
 */
export function isAboutPicture(error) {
  if (!(error instanceof MondrianError)) return false;
  const isField = error.fieldViolations.some((one) => /image/.test(one.field));
  return error.reason === "INVALID_IMAGE" || isField || error.httpStatus === 413;
}
