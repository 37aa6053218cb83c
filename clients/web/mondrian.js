// @ts-check
/**
 * The Mondrian client for browsers: pictures and text in, live progress and every token out.
 *
 * One file without dependencies. It needs `fetch`, streams and modules: any browser since 2022, and Node 20.
 *
 *     import { Mondrian } from "https://mondrian.example/mondrian.js";
 *
 *     const mondrian = new Mondrian();
 *     for await (const event of mondrian.analyze({ prompt: "Describe this image.", images: [file] })) {
 *       switch (event.type) {
 *         case "progress": bar.value = event.progress.fraction; note.textContent = event.progress.message; break;
 *         case "token": text.append(event.token.text); break;
 *         case "failed": note.textContent = event.failed.error.message; break;
 *       }
 *     }
 *
 * What it promises:
 *
 * - Every event comes once and in order, 1, 2, 3, …, however often the connection is lost: the client takes the stream up
 *   again after the last sequence that it has handed out, drops what it knows, and never skips a number.
 * - A start that got lost is repeated under the same `Idempotency-Key`, so that it makes one analysis and not two.
 * - It waits before it tries again: at first 0.1 s, then twice as long each time up to 5 s, less up to a half by chance;
 *   never shorter than the server's `Retry-After`, and from the second try on never shorter than its `retry:`. When the
 *   device says that it is online again, it tries at once.
 * - An `AbortSignal` ends the reading and cancels nothing. `cancel()` cancels.
 *
 * Values are those of `mondrian/v1/*.proto` in camel case, made easy to use: what the wire omits because it is zero or
 * empty is there; 64-bit integers are numbers; times are `Date`s; durations are numbers of seconds whose names end in `S`;
 * enum values have lost their prefix (`"GENERATING"`, not `"STAGE_GENERATING"`).
 */

// ------------------------------------------------------------------------------------------------ values

/**
 * @typedef {"QUEUED" | "LOADING_MODEL" | "PREPARING" | "ENCODING" | "PREFILL" | "GENERATING" | "FINALIZING"} Stage
 *   Where an analysis is, in this order. `UNSPECIFIED` is never sent.
 * @typedef {"STOP" | "MAX_TOKENS" | "STOP_SEQUENCE" | "DEADLINE"} FinishReason
 * @typedef {"ACTIVE" | "COMPLETED" | "FAILED" | "CANCELLED"} AnalysisState
 */

/**
 * How tokens are chosen; what is left out takes the advisor's default, then the server's.
 * @typedef {object} Sampling
 * @property {number} [maxTokens]
 * @property {number} [minTokens]
 * @property {number} [temperature] from 0 (always the likeliest token) to 2
 * @property {number} [topP]
 * @property {number} [topK]
 * @property {number} [minP]
 * @property {number} [repetitionPenalty]
 * @property {number} [seed]
 * @property {string[]} [stop]
 */

/**
 * What to analyse, and how. It needs a prompt, an image or both.
 * @typedef {object} AnalysisRequest
 * @property {string} [prompt] the question or task
 * @property {Blob[]} [images] the encoded files, in the order in which the model sees them; a `File` is a `Blob`
 * @property {string} [advisor] an advisor, such as `ansel`; excludes `instructions`
 * @property {string} [instructions] instructions of your own
 * @property {string} [model] the model; left out: the server's default
 * @property {Sampling} [sampling] how tokens are chosen
 * @property {{ids?: boolean, logProbabilities?: boolean}} [tokenDetail] what to tell about each token
 * @property {number} [tokenIntervalS] collect tokens for this long before they are sent; the server's default is 0.1
 * @property {number} [progressIntervalS] send progress at this interval, from 0.1 to 60; the server's default is 5
 * @property {number} [timeLimitS] the longest that the analysis may take, the queue included
 * @property {Record<string, unknown>} [config] further fields of `AnalysisConfig`, in proto3 JSON
 */

/**
 * Where the analysis is. Numbers that are not known, or do not belong to the stage, are 0.
 * @typedef {object} Progress
 * @property {Stage} stage
 * @property {string} message a sentence for people, in English
 * @property {number} fraction how much is done, from 0 to 1; it never falls
 * @property {number} queuePosition 1 is next
 * @property {number} loadedBytes
 * @property {number} modelBytes
 * @property {number} promptTokensDone
 * @property {number} promptTokensTotal
 * @property {number} promptTokensCached
 * @property {number} outputTokens
 * @property {number} maxOutputTokens
 * @property {number} outputTokensPerS
 * @property {number} promptTokensPerS
 * @property {number} peakMemoryBytes
 * @property {number} elapsedS
 * @property {number | null} estimatedTimeLeftS the longest that the rest will take at the present rate; null: not known
 * @property {number} continuations how often the analysis was interrupted and went on where it had stopped
 */

/**
 * @typedef {object} Accepted
 * @property {string} model
 * @property {string} advisor
 * @property {Sampling} sampling every default and the seed filled in
 * @property {number} contextTokens
 * @property {number} queuePosition
 * @property {Date | null} deadlineTime
 */

/**
 * Text to append.
 * @typedef {object} Token
 * @property {string} text
 * @property {number} firstIndex
 * @property {number} tokenCount
 * @property {number[]} ids
 * @property {number[]} logProbabilities
 */

/**
 * @typedef {object} Usage
 * @property {number} promptTokens
 * @property {number} imageTokens
 * @property {number} cachedTokens
 * @property {number} outputTokens
 */

/**
 * Where the time went. A duration that does not belong to this analysis is null.
 * @typedef {object} Timings
 * @property {number | null} queueS
 * @property {number | null} prepareS
 * @property {number | null} encodeS
 * @property {number | null} prefillS
 * @property {number | null} timeToFirstTokenS
 * @property {number | null} decodeS
 * @property {number | null} totalS
 * @property {number} promptTokensPerS
 * @property {number} outputTokensPerS
 * @property {number} peakMemoryBytes
 */

/**
 * @typedef {{text: string, finishReason: FinishReason, stopSequence: string, usage: Usage, timings: Timings}} Completed
 * @typedef {{error: MondrianError, usage: Usage, timings: Timings}} Failed
 * @typedef {{stage: Stage, usage: Usage, timings: Timings}} Cancelled
 */

/**
 * What every event has. `advisor` is the advisor whose voice it is; empty where the analysis has one voice.
 * @typedef {{sequence: number, analysis: string, createTime: Date | null, advisor: string}} EventBase
 */

/**
 * One entry of an analysis's log. `completed`, `failed` and `cancelled` are terminal: exactly one of them comes, last.
 * @typedef {(EventBase & {type: "accepted", accepted: Accepted})
 *   | (EventBase & {type: "progress", progress: Progress})
 *   | (EventBase & {type: "token", token: Token})
 *   | (EventBase & {type: "advice", advice: Record<string, any>})
 *   | (EventBase & {type: "completed", completed: Completed})
 *   | (EventBase & {type: "failed", failed: Failed})
 *   | (EventBase & {type: "cancelled", cancelled: Cancelled})} AnalysisEvent
 */

/**
 * The unit of work: a request, and everything that came of it.
 * @typedef {object} Analysis
 * @property {string} name `analyses/{id}`
 * @property {AnalysisState} state
 * @property {Record<string, any> | null} config what was asked for, in proto3 JSON without the images; null: expired
 * @property {string} requestId the key under which it was started
 * @property {Date | null} createTime
 * @property {Date | null} endTime null while it is active
 * @property {Progress | null} progress the newest, while it is active
 * @property {string} text so far; the final one where it is complete
 * @property {Completed | null} completed
 * @property {Failed | null} failed
 * @property {Cancelled | null} cancelled
 * @property {boolean} expired its events, text and config have been deleted
 * @property {number} imageCount
 */

/**
 * @typedef {object} Advisor
 * @property {string} name `advisors/{id}`
 * @property {string} displayName
 * @property {string} description
 * @property {string} instructions
 */

/**
 * @typedef {object} Model
 * @property {string} name `models/{id}`
 * @property {"LOADING" | "READY" | "UNAVAILABLE"} state
 * @property {string} architecture
 * @property {number} contextTokens
 * @property {number} slots
 * @property {number} slotsInUse
 * @property {number} queueLength
 * @property {number} parameters
 * @property {number} weightsBytes
 * @property {number} loadedBytes
 * @property {boolean} acceptsImages
 */

/**
 * How it stands with the connection: `connecting`, `open` (the server has answered), or `waiting` before another try.
 * @typedef {object} Connection
 * @property {"connecting" | "open" | "waiting"} state
 * @property {number} attempt tries since the server last told something new; 0 is the first
 * @property {number} retryInS `waiting`: the seconds until the next try
 * @property {MondrianError | null} error `waiting`: why
 * @property {() => void} retryNow `waiting`: do not wait any longer
 */

/**
 * @typedef {object} CallOptions
 * @property {AbortSignal} [signal] ends the call, and cancels nothing
 * @property {(connection: Connection) => void} [onConnection] is told how it stands with the connection
 * @property {number} [giveUpAfterS] for how long to try again; the client's own value where it is left out
 */

// ------------------------------------------------------------------------------------------------ errors

/** A field of the request that was refused. @typedef {{field: string, description: string}} FieldViolation */

/**
 * What an error is made of.
 * @typedef {object} ErrorParts
 * @property {string} [code]
 * @property {string} [reason]
 * @property {number} [httpStatus]
 * @property {FieldViolation[]} [fieldViolations]
 * @property {number | null} [retryAfterS]
 * @property {unknown} [cause]
 */

/** A call that failed, or an analysis that did. `message` is a sentence for people. */
export class MondrianError extends Error {
  /**
   * @param {string} message
   * @param {ErrorParts} [parts]
   */
  constructor(message, parts = {}) {
    super(message, { cause: parts.cause });
    this.name = new.target.name;
    /** The canonical code, such as `UNAVAILABLE`. */
    this.code = parts.code ?? "UNKNOWN";
    /** The stable reason, such as `ENGINE_UNAVAILABLE`; empty where the server gave none. */
    this.reason = parts.reason ?? "";
    /** The HTTP status; 0 where there was no answer. */
    this.httpStatus = parts.httpStatus ?? 0;
    /** The fields that were refused. */
    this.fieldViolations = parts.fieldViolations ?? [];
    /** The seconds after which a retry may help; null where it will not, or nobody knows. */
    this.retryAfterS = parts.retryAfterS ?? null;
  }
}

/** Something in the request is missing, out of range or no picture; `fieldViolations` names it. */
export class InvalidRequest extends MondrianError {}
/** The server asks for an API key, or does not know this one. */
export class Unauthenticated extends MondrianError {}
/** This key may not do that. */
export class PermissionDenied extends MondrianError {}
/** There is no such analysis, or it is not this caller's. */
export class NotFound extends MondrianError {}
/** Not in this state: the analysis is still active, or what is kept of it has expired. */
export class FailedPrecondition extends MondrianError {}
/** The server is busy, or the request too large; `retryAfterS` tells when to come back, where that helps. */
export class ResourceExhausted extends MondrianError {}
/** No token had been generated when the time was over. */
export class DeadlineExceeded extends MondrianError {}
/** The server cannot work at present. */
export class Unavailable extends MondrianError {}
/** No server was reached, or the connection to it was lost. */
export class ConnectionFailed extends Unavailable {}
/** A defect of the server, or of the model's generation. */
export class InternalError extends MondrianError {}
/** The server sent what the protocol does not allow, such as a gap in the sequence. */
export class ProtocolError extends MondrianError {}

const CODES = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
  "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
];

/** @type {Record<string, typeof MondrianError>} */
const ERRORS = {
  INVALID_ARGUMENT: InvalidRequest,
  OUT_OF_RANGE: InvalidRequest,
  UNAUTHENTICATED: Unauthenticated,
  PERMISSION_DENIED: PermissionDenied,
  NOT_FOUND: NotFound,
  FAILED_PRECONDITION: FailedPrecondition,
  RESOURCE_EXHAUSTED: ResourceExhausted,
  DEADLINE_EXCEEDED: DeadlineExceeded,
  UNAVAILABLE: Unavailable,
  INTERNAL: InternalError,
};

/**
 * What an HTTP status means where a proxy answered and not Mondrian.
 * @type {Record<number, string>}
 */
const CODE_OF_STATUS = {
  400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 408: "UNAVAILABLE",
  410: "FAILED_PRECONDITION", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT", 422: "INVALID_ARGUMENT",
  429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "UNAVAILABLE",
};

/** The answers after which the same call may succeed. */
const PASSING = new Set([408, 429, 502, 503, 504]);

/**
 * @param {any} status a `google.rpc.Status` in JSON
 * @param {{httpStatus?: number, retryAfterS?: number | null}} [answer]
 * @returns {MondrianError}
 */
function toError(status, { httpStatus = 0, retryAfterS = null } = {}) {
  /** @type {any[]} */
  const details = Array.isArray(status?.details) ? status.details : [];
  const detail = (/** @type {string} */ kind) => details.find((one) => String(one?.["@type"]).endsWith(`.${kind}`)) ?? {};
  const code = (typeof status?.code === "string" ? status.code : CODES[status?.code]) ?? CODE_OF_STATUS[httpStatus] ?? "UNKNOWN";
  return new (ERRORS[code] ?? MondrianError)(status?.message || `The server answered with HTTP status ${httpStatus}.`, {
    code,
    reason: detail("ErrorInfo").reason,
    httpStatus,
    fieldViolations: (detail("BadRequest").fieldViolations ?? []).map((/** @type {any} */ one) => ({
      field: one.field ?? "",
      description: one.description ?? "",
    })),
    retryAfterS: retryAfterS ?? toSeconds(detail("RetryInfo").retryDelay),
  });
}

/**
 * @param {Response} response an answer that is no success
 * @returns {Promise<MondrianError>}
 */
async function errorOf(response) {
  const body = await response.json().catch(() => null);
  return toError(body?.error, { httpStatus: response.status, retryAfterS: retryAfter(response) });
}

/** @param {Response} response */
function retryAfter(response) {
  const value = response.headers.get("Retry-After");
  if (!value) return null;
  const seconds = /^\d+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** @param {MondrianError} error */
const isPassing = (error) => error instanceof Unavailable || PASSING.has(error.httpStatus);

// ------------------------------------------------------------------------------------------------ the stream's format

/** One message of an event stream. @typedef {{id: string, event: string, data: string}} StreamMessage */

/**
 * Reads the bytes of a `text/event-stream`, however they are cut.
 *
 * After the HTML standard, section 9.2.6: UTF-8 with an optional byte order mark; lines end in CR, LF or both; a colon
 * begins a comment; `data` lines are joined by LF; an empty line ends a message; one without data, or without an end,
 * is none.
 */
export class EventStreamParser {
  #decoder = new TextDecoder(); // strips a byte order mark, keeps halves of characters
  #rest = "";
  #skipsLineFeed = false;
  #id = "";
  #event = "";
  /** @type {string[]} */
  #data = [];

  /**
   * The last `retry:`, in milliseconds; null where none came.
   * @type {number | null}
   */
  retryMs = null;

  /**
   * Take the next bytes and give the messages that they complete.
   * @param {Uint8Array} bytes
   * @returns {Generator<StreamMessage, void>}
   */
  *push(bytes) {
    for (const line of this.#lines(this.#decoder.decode(bytes, { stream: true }))) {
      if (line !== "") {
        this.#field(line);
      } else {
        const message = { id: this.#id, event: this.#event || "message", data: this.#data.join("\n") };
        const isMessage = this.#data.length > 0;
        this.#event = "";
        this.#data = [];
        if (isMessage) yield message;
      }
    }
  }

  /**
   * @param {string} text
   * @returns {Generator<string, void>}
   */
  *#lines(text) {
    // The LF of a CR LF that was cut between the two.
    if (this.#skipsLineFeed && text !== "") {
      if (text[0] === "\n") text = text.slice(1);
      this.#skipsLineFeed = false;
    }
    if (text.endsWith("\r")) this.#skipsLineFeed = true;
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0];
    this.#rest = /** @type {string} */ (lines.pop());
    yield* lines;
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}

// ------------------------------------------------------------------------------------------------ the client

const FIRST_DELAY_S = 0.1;
const LONGEST_DELAY_S = 5;
/** A stream that leaves a gap this often, without anything new in between, is broken. */
const MOST_GAPS = 5;

/** A connection to a Mondrian gateway. It holds nothing open between calls. */
export class Mondrian {
  #base;
  #apiKey;
  #fetch;
  #giveUpAfterS;
  #idleTimeoutS;

  /**
   * @param {object} [options]
   * @param {string | URL} [options.baseUrl] the gateway; left out: where this file came from
   * @param {string | (() => string | null | undefined)} [options.apiKey] the API key, or a function that gives the present one
   * @param {number} [options.giveUpAfterS] for how long calls are tried again after an interruption; 120
   * @param {number} [options.idleTimeoutS] a stream without a byte for so long counts as lost; 45. The server sends one
   *   at least every 15 s
   * @param {typeof fetch} [options.fetch] another `fetch`
   */
  constructor({ baseUrl = new URL(".", import.meta.url), apiKey, giveUpAfterS = 120, idleTimeoutS = 45, fetch } = {}) {
    const base = String(baseUrl);
    this.#base = base.endsWith("/") ? base : `${base}/`;
    this.#apiKey = apiKey;
    this.#giveUpAfterS = giveUpAfterS;
    this.#idleTimeoutS = idleTimeoutS;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
  }

  /**
   * Start an analysis and read its events to the end, in one request.
   *
   * It belongs to this reading: when nobody has watched it for the server's grace (30 s), it is cancelled. For one that
   * outlives the page, use `create` and `watch`.
   * @param {AnalysisRequest} request
   * @param {CallOptions & {requestId?: string}} [options] `requestId`: the same id is the same analysis, however often it is
   *   started; made up where it is left out
   * @returns {AsyncGenerator<AnalysisEvent, void, undefined>}
   */
  async *analyze(request, { requestId = newRequestId(), ...options } = {}) {
    let name = "";
    const events = this.#follow(0, options, (last, connection) =>
      name
        ? this.#openEvents(name, last, connection)
        : this.#send("v1/analyze", {
            method: "POST",
            body: toForm(request),
            headers: { Accept: "text/event-stream", "Idempotency-Key": requestId },
            signal: connection.signal,
          }),
    );
    for await (const event of events) {
      name ||= event.analysis;
      yield event;
    }
  }

  /**
   * Start an analysis and return at once. It outlives this page, and is read by `watch`.
   *
   * Where an answer got lost, or the server is busy, the start is repeated; that makes no second analysis.
   * @param {AnalysisRequest} request
   * @param {CallOptions & {requestId?: string}} [options] `requestId` as in `analyze`
   * @returns {Promise<Analysis>}
   */
  async create(request, { requestId = newRequestId(), ...options } = {}) {
    const body = toForm(request);
    return toAnalysis(await this.#call("v1/analyses", { method: "POST", body, headers: { "Idempotency-Key": requestId } }, options));
  }

  /**
   * Read the events of an analysis: first those that have been, then live ones, to the terminal event.
   *
   * It goes on over lost connections and restarts of the server. Leaving the loop cancels nothing.
   * @param {string} name `analyses/{id}`, or the id alone
   * @param {CallOptions & {after?: number}} [options] `after`: the last sequence that you have; 0 or left out: none
   * @returns {AsyncGenerator<AnalysisEvent, void, undefined>}
   */
  watch(name, { after = 0, ...options } = {}) {
    return this.#follow(after, options, (last, connection) => this.#openEvents(name, last, connection));
  }

  /**
   * Get an analysis as it stands now.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Promise<Analysis>}
   */
  async get(name, options) {
    return toAnalysis(await this.#call(pathOf(name), {}, options));
  }

  /**
   * List this caller's analyses, newest first.
   * @param {CallOptions & {pageSize?: number, pageToken?: string, states?: AnalysisState[]}} [options] `pageToken`: the
   *   `nextPageToken` of the page before; `states`: only these
   * @returns {Promise<{analyses: Analysis[], nextPageToken: string}>} `nextPageToken` is empty on the last page
   */
  async list({ pageSize = 0, pageToken = "", states = [], ...options } = {}) {
    const query = new URLSearchParams();
    if (pageSize) query.set("pageSize", String(pageSize));
    if (pageToken) query.set("pageToken", pageToken);
    for (const state of states) query.append("states", `ANALYSIS_STATE_${state}`);
    const page = await this.#call(`v1/analyses?${query}`, {}, options);
    return { analyses: (page.analyses ?? []).map(toAnalysis), nextPageToken: page.nextPageToken ?? "" };
  }

  /**
   * Cancel an analysis, whatever stage it is in. One that has ended is left as it is.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Promise<Analysis>} the analysis after the cancel
   */
  async cancel(name, options) {
    return toAnalysis(await this.#call(`${pathOf(name)}:cancel`, { method: "POST" }, options));
  }

  /**
   * Delete an ended analysis with everything that is kept of it.
   * @param {string} name
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  async delete(name, options) {
    let tries = 0;
    try {
      await this.#call(pathOf(name), { method: "DELETE" }, { ...options, onConnection: (now) => {
        tries += now.state === "connecting" ? 1 : 0;
        options?.onConnection?.(now);
      } });
    } catch (error) {
      // The first try did it, and its answer got lost.
      if (!(error instanceof NotFound && tries > 1)) throw error;
    }
  }

  /**
   * List the advisors.
   * @param {CallOptions} [options]
   * @returns {Promise<Advisor[]>}
   */
  async advisors(options) {
    return (await this.#all("v1/advisors", "advisors", options)).map(toAdvisor);
  }

  /**
   * List the models, the default one first.
   * @param {CallOptions} [options]
   * @returns {Promise<Model[]>}
   */
  async models(options) {
    return (await this.#all("v1/models", "models", options)).map(toModel);
  }

  /**
   * @param {string} path
   * @param {string} field
   * @param {CallOptions} [options]
   */
  async #all(path, field, options) {
    /** @type {any[]} */
    const found = [];
    let token = "";
    do {
      const page = await this.#call(token ? `${path}?pageToken=${encodeURIComponent(token)}` : path, {}, options);
      found.push(...(page[field] ?? []));
      token = page.nextPageToken ?? "";
    } while (token);
    return found;
  }

  /**
   * Read a stream of events to its end, over as many connections as it takes.
   * @param {number} after
   * @param {CallOptions} options
   * @param {(last: number, connection: AbortController) => Promise<Response>} open
   * @returns {AsyncGenerator<AnalysisEvent, void, undefined>}
   */
  async *#follow(after, options, open) {
    const retries = new Retries(options, options.giveUpAfterS ?? this.#giveUpAfterS);
    let last = after;
    let gaps = 0;
    for (;;) {
      const connection = new AbortController();
      const leave = () => connection.abort(options.signal?.reason);
      options.signal?.throwIfAborted();
      options.signal?.addEventListener("abort", leave);
      try {
        retries.connecting();
        const response = await open(last, connection);
        if (response.status === 204) return;
        retries.open();
        for await (const event of this.#events(response, connection, retries)) {
          if (event.sequence <= last) continue;
          if (event.sequence > last + 1) {
            throw new ProtocolError(`The stream went from event ${last} to ${event.sequence}.`, { code: "DATA_LOSS" });
          }
          last = event.sequence;
          gaps = 0;
          retries.progressed();
          yield event;
          if (isTerminal(event)) return;
        }
        throw new ConnectionFailed("The stream ended before the analysis did.", { code: "UNAVAILABLE" });
      } catch (error) {
        options.signal?.throwIfAborted();
        if (!(error instanceof MondrianError)) throw error;
        gaps += error instanceof ProtocolError ? 1 : 0;
        const isOver = error instanceof ProtocolError ? gaps >= MOST_GAPS : !isPassing(error);
        if (isOver) throw error;
        await retries.wait(error);
      } finally {
        options.signal?.removeEventListener("abort", leave);
        connection.abort();
      }
    }
  }

  /**
   * The events of one connection.
   * @param {Response} response
   * @param {AbortController} connection
   * @param {Retries} retries
   */
  async *#events(response, connection, retries) {
    if (!response.body || !response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      throw new ProtocolError("The server did not answer with an event stream.", { httpStatus: response.status });
    }
    const parser = new EventStreamParser();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await this.#read(reader, connection);
      if (done) return;
      for (const message of parser.push(value)) yield toEvent(message);
      retries.serverDelayS = (parser.retryMs ?? 0) / 1000;
    }
  }

  /**
   * @param {ReadableStreamDefaultReader<Uint8Array>} reader
   * @param {AbortController} connection
   */
  async #read(reader, connection) {
    try {
      return await this.#inTime(connection, reader.read());
    } catch (cause) {
      throw new ConnectionFailed("The connection to the server was lost.", { code: "UNAVAILABLE", cause });
    }
  }

  /**
   * Give up a connection on which nothing comes.
   * @template T
   * @param {AbortController} connection
   * @param {Promise<T>} answer
   * @returns {Promise<T>}
   */
  async #inTime(connection, answer) {
    const timer = setTimeout(() => connection.abort(), this.#idleTimeoutS * 1000);
    try {
      return await answer;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param {string} name
   * @param {number} last
   * @param {AbortController} connection
   */
  #openEvents(name, last, connection) {
    /** @type {Record<string, string>} */
    const headers = { Accept: "text/event-stream" };
    if (last > 0) headers["Last-Event-ID"] = String(last);
    return this.#inTime(connection, this.#send(`${pathOf(name)}/events`, { headers, signal: connection.signal }));
  }

  /**
   * Make a call that may be repeated, and return what its JSON says.
   * @param {string} path
   * @param {RequestInit} init
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  async #call(path, init, options = {}) {
    const retries = new Retries(options, options.giveUpAfterS ?? this.#giveUpAfterS);
    for (;;) {
      const connection = new AbortController();
      const leave = () => connection.abort(options.signal?.reason);
      options.signal?.throwIfAborted();
      options.signal?.addEventListener("abort", leave);
      try {
        retries.connecting();
        const answer = this.#text(path, { ...init, signal: connection.signal });
        // Sending a photo takes as long as it takes.
        const text = await (init.body ? answer : this.#inTime(connection, answer));
        retries.open();
        return text ? parseJson(text) : {};
      } catch (error) {
        options.signal?.throwIfAborted();
        if (!(error instanceof MondrianError) || !isPassing(error)) throw error;
        await retries.wait(error);
      } finally {
        options.signal?.removeEventListener("abort", leave);
      }
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   * @returns {Promise<string>}
   */
  async #text(path, init) {
    const response = await this.#send(path, init);
    return response.text().catch((cause) => {
      throw new ConnectionFailed("The connection to the server was lost.", { code: "UNAVAILABLE", cause });
    });
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   * @returns {Promise<Response>} a success
   */
  async #send(path, init) {
    const headers = new Headers(init.headers);
    const key = typeof this.#apiKey === "function" ? this.#apiKey() : this.#apiKey;
    if (key) headers.set("Authorization", `Bearer ${key}`);
    if (!headers.has("Accept")) headers.set("Accept", "application/json");
    let response;
    try {
      response = await this.#fetch(this.#base + path, { ...init, headers, cache: "no-store" });
    } catch (cause) {
      throw new ConnectionFailed("The server cannot be reached.", { code: "UNAVAILABLE", cause });
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

/** Decides for one call or stream whether and when to try again, and waits. */
class Retries {
  #options;
  #giveUpAfterS;
  #attempts = 0;
  /**
   * When the first try failed since something new came.
   * @type {number | null}
   */
  #interruptedMs = null;

  /** What the stream's `retry:` asked for. */
  serverDelayS = 0;

  /**
   * @param {CallOptions} options
   * @param {number} giveUpAfterS
   */
  constructor(options, giveUpAfterS) {
    this.#options = options;
    this.#giveUpAfterS = giveUpAfterS;
  }

  connecting() {
    this.#tell({ state: "connecting" });
  }

  open() {
    this.#tell({ state: "open" });
  }

  /** Something new has come: the next interruption is a first one. */
  progressed() {
    this.#attempts = 0;
    this.#interruptedMs = null;
  }

  /**
   * Wait before another try; throws `error` where it is time to give up.
   * @param {MondrianError} error
   */
  async wait(error) {
    const delayS = this.#delayS(error);
    this.#interruptedMs ??= Date.now();
    if (Date.now() + delayS * 1000 - this.#interruptedMs > this.#giveUpAfterS * 1000) throw error;
    const pause = new Pause(delayS, this.#options.signal, error.retryAfterS === null);
    this.#tell({ state: "waiting", retryInS: delayS, error, retryNow: () => pause.end() });
    this.#attempts += 1;
    await pause.ended;
    this.#options.signal?.throwIfAborted();
  }

  /** @param {MondrianError} error */
  #delayS(error) {
    const longest = Math.min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** Math.min(this.#attempts, 16));
    const ownS = longest * (0.5 + Math.random() / 2);
    // Callers that were told the same time do not all come back at once.
    const askedS = error.retryAfterS === null ? 0 : error.retryAfterS + Math.random() * 0.25;
    return Math.max(ownS, askedS, this.#attempts > 0 ? this.serverDelayS : 0);
  }

  /** @param {Partial<Connection> & {state: Connection["state"]}} now */
  #tell(now) {
    this.#options.onConnection?.({ attempt: this.#attempts, retryInS: 0, error: null, retryNow: () => {}, ...now });
  }
}

/** A wait that a signal, the caller, or the device's coming online can end. */
class Pause {
  /** @type {() => void} */
  end = () => {};

  /**
   * @param {number} seconds
   * @param {AbortSignal} [signal]
   * @param {boolean} [endsOnline]
   */
  constructor(seconds, signal, endsOnline = true) {
    /** @type {Promise<void>} */
    this.ended = new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", end);
        globalThis.removeEventListener?.("online", end);
        resolve();
      };
      const timer = setTimeout(end, Math.min(seconds * 1000, 2 ** 31 - 1));
      signal?.addEventListener("abort", end);
      if (endsOnline) globalThis.addEventListener?.("online", end);
      this.end = end;
    });
  }
}

// ------------------------------------------------------------------------------------------------ conversion

/** A random UUID, also where the page is not served securely and `crypto.randomUUID` is missing. */
export function newRequestId() {
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID();
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/**
 * Tell whether an event is an analysis's last.
 * @param {AnalysisEvent} event
 */
export function isTerminal(event) {
  return event.type === "completed" || event.type === "failed" || event.type === "cancelled";
}

/** @param {string} name */
function pathOf(name) {
  const id = name.replace(/^analyses\//, "");
  if (!id || id === "." || id === "..") throw new TypeError("an analysis's name is `analyses/{id}`");
  return `v1/analyses/${encodeURIComponent(id)}`;
}

/**
 * @param {AnalysisRequest} request
 * @returns {FormData}
 */
function toForm({ images = [], tokenIntervalS, progressIntervalS, timeLimitS, config = {}, ...fields }) {
  const delivery = {
    ...(tokenIntervalS === undefined ? {} : { tokenInterval: toDuration(tokenIntervalS) }),
    ...(progressIntervalS === undefined ? {} : { progressInterval: toDuration(progressIntervalS) }),
  };
  const form = new FormData();
  const whole = {
    ...config,
    ...fields,
    ...(Object.keys(delivery).length ? { delivery } : {}),
    ...(timeLimitS === undefined ? {} : { timeLimit: toDuration(timeLimitS) }),
  };
  form.append("config", JSON.stringify(whole));
  for (const image of images) form.append("image", image);
  return form;
}

/** @param {number} seconds */
const toDuration = (seconds) => `${Number(seconds.toFixed(9))}s`;

/**
 * @param {unknown} duration such as "0.706575926s"
 * @returns {number | null}
 */
const toSeconds = (duration) => (typeof duration === "string" ? Number.parseFloat(duration) : null);

/**
 * @param {unknown} time
 * @returns {Date | null}
 */
const toDate = (time) => (typeof time === "string" ? new Date(time) : null);

/** @param {unknown} value */
const toNumber = (value) => Number(value ?? 0);

/**
 * @param {unknown} value such as "STAGE_GENERATING"
 * @param {string} prefix such as "STAGE_"
 * @returns {any}
 */
const toName = (value, prefix) => String(value ?? `${prefix}UNSPECIFIED`).replace(prefix, "");

/**
 * @param {string} text
 * @returns {any}
 */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ProtocolError("The server's answer is no JSON.", { cause });
  }
}

const PAYLOADS = { accepted: toAccepted, progress: toProgress, token: toToken, completed: toCompleted, failed: toFailed, cancelled: toCancelled };

/**
 * @param {StreamMessage} message
 * @returns {AnalysisEvent}
 */
function toEvent(message) {
  const json = parseJson(message.data);
  // The gateway says why it ends a stream before the analysis does.
  if (message.event === "interrupted") throw toError(json.error);
  const type = /** @type {keyof typeof PAYLOADS} */ (message.event);
  const convert = PAYLOADS[type] ?? ((/** @type {any} */ payload) => payload);
  return /** @type {any} */ ({
    type,
    sequence: toNumber(json.sequence ?? message.id),
    analysis: json.analysis ?? "",
    createTime: toDate(json.createTime),
    advisor: json.advisor ?? "",
    [type]: convert(json[type] ?? {}),
  });
}

/**
 * @param {any} json
 * @returns {Accepted}
 */
function toAccepted(json) {
  return {
    model: json.model ?? "",
    advisor: json.advisor ?? "",
    sampling: json.sampling ?? {},
    contextTokens: toNumber(json.contextTokens),
    queuePosition: toNumber(json.queuePosition),
    deadlineTime: toDate(json.deadlineTime),
  };
}

/**
 * @param {any} json
 * @returns {Progress}
 */
function toProgress(json) {
  return {
    stage: toName(json.stage, "STAGE_"),
    message: json.message ?? "",
    fraction: toNumber(json.fraction),
    queuePosition: toNumber(json.queuePosition),
    loadedBytes: toNumber(json.loadedBytes),
    modelBytes: toNumber(json.modelBytes),
    promptTokensDone: toNumber(json.promptTokensDone),
    promptTokensTotal: toNumber(json.promptTokensTotal),
    promptTokensCached: toNumber(json.promptTokensCached),
    outputTokens: toNumber(json.outputTokens),
    maxOutputTokens: toNumber(json.maxOutputTokens),
    outputTokensPerS: toNumber(json.outputTokensPerS),
    promptTokensPerS: toNumber(json.promptTokensPerS),
    peakMemoryBytes: toNumber(json.peakMemoryBytes),
    elapsedS: toSeconds(json.elapsed) ?? 0,
    estimatedTimeLeftS: toSeconds(json.estimatedTimeLeft),
    continuations: toNumber(json.continuations),
  };
}

/**
 * @param {any} json
 * @returns {Token}
 */
function toToken(json) {
  return {
    text: json.text ?? "",
    firstIndex: toNumber(json.firstIndex),
    tokenCount: toNumber(json.tokenCount),
    ids: json.ids ?? [],
    logProbabilities: (json.logProbabilities ?? []).map(Number),
  };
}

/**
 * @param {any} json
 * @returns {Completed}
 */
function toCompleted(json) {
  return {
    text: json.text ?? "",
    finishReason: toName(json.finishReason, "FINISH_REASON_"),
    stopSequence: json.stopSequence ?? "",
    usage: toUsage(json.usage ?? {}),
    timings: toTimings(json.timings ?? {}),
  };
}

/**
 * @param {any} json
 * @returns {Failed}
 */
function toFailed(json) {
  return { error: toError(json.error), usage: toUsage(json.usage ?? {}), timings: toTimings(json.timings ?? {}) };
}

/**
 * @param {any} json
 * @returns {Cancelled}
 */
function toCancelled(json) {
  return { stage: toName(json.stage, "STAGE_"), usage: toUsage(json.usage ?? {}), timings: toTimings(json.timings ?? {}) };
}

/**
 * @param {any} json
 * @returns {Usage}
 */
function toUsage(json) {
  return {
    promptTokens: toNumber(json.promptTokens),
    imageTokens: toNumber(json.imageTokens),
    cachedTokens: toNumber(json.cachedTokens),
    outputTokens: toNumber(json.outputTokens),
  };
}

/**
 * @param {any} json
 * @returns {Timings}
 */
function toTimings(json) {
  return {
    queueS: toSeconds(json.queue),
    prepareS: toSeconds(json.prepare),
    encodeS: toSeconds(json.encode),
    prefillS: toSeconds(json.prefill),
    timeToFirstTokenS: toSeconds(json.timeToFirstToken),
    decodeS: toSeconds(json.decode),
    totalS: toSeconds(json.total),
    promptTokensPerS: toNumber(json.promptTokensPerS),
    outputTokensPerS: toNumber(json.outputTokensPerS),
    peakMemoryBytes: toNumber(json.peakMemoryBytes),
  };
}

/**
 * @param {any} json
 * @returns {Analysis}
 */
function toAnalysis(json) {
  return {
    name: json.name ?? "",
    state: toName(json.state, "ANALYSIS_STATE_"),
    config: json.config ?? null,
    requestId: json.requestId ?? "",
    createTime: toDate(json.createTime),
    endTime: toDate(json.endTime),
    progress: json.progress ? toProgress(json.progress) : null,
    text: json.text ?? "",
    completed: json.completed ? toCompleted(json.completed) : null,
    failed: json.failed ? toFailed(json.failed) : null,
    cancelled: json.cancelled ? toCancelled(json.cancelled) : null,
    expired: json.expired ?? false,
    imageCount: toNumber(json.imageCount),
  };
}

/**
 * @param {any} json
 * @returns {Advisor}
 */
function toAdvisor(json) {
  return {
    name: json.name ?? "",
    displayName: json.displayName ?? "",
    description: json.description ?? "",
    instructions: json.instructions ?? "",
  };
}

/**
 * @param {any} json
 * @returns {Model}
 */
function toModel(json) {
  return {
    name: json.name ?? "",
    state: toName(json.state, "MODEL_STATE_"),
    architecture: json.architecture ?? "",
    contextTokens: toNumber(json.contextTokens),
    slots: toNumber(json.slots),
    slotsInUse: toNumber(json.slotsInUse),
    queueLength: toNumber(json.queueLength),
    parameters: toNumber(json.parameters),
    weightsBytes: toNumber(json.weightsBytes),
    loadedBytes: toNumber(json.loadedBytes),
    acceptsImages: json.acceptsImages ?? false,
  };
}
