// Mondrian over HTTP for iOS 16, macOS 13 and newer, in Swift 6: upload a photo, follow its events over lost
// connections and a locked phone, stop it. One file, Foundation alone.
//
// NOT COMPILED HERE: the machines that test Mondrian have no Swift. What they do test is that the routes, headers, form
// fields, event names and JSON names of this file are those of the service (tests/examples/test_swift.py).
//
//     let mondrian = MondrianClient(baseURL: URL(string: "https://mondrian.example")!, apiKey: { keychain.key })
//     let photo = MondrianImage(data: try await item.loadTransferable(type: Data.self)!)   // JPEG or HEIC, as it is
//     let name = try await mondrian.create(prompt: "What is in this picture?", images: [photo])
//     for try await event in mondrian.events(of: name) {
//         switch event.payload {
//         case .progress(let progress): bar = progress.fraction; note = progress.message
//         case .token(let token):       text += token.text
//         case .failed(let failed):     note = failed.error.message
//         default:                      break
//         }
//         last = event.sequence   // keep name and last: after a relaunch, events(of: name, after: last) gives the rest
//     }
//
// Leaving the loop, or cancelling its task, ends the reading and cancels nothing on the server: `cancel(name)` does.
//
// What the app needs besides:
//
// - Plain http on the local network: `NSAppTransportSecurity` with `NSAllowsLocalNetworking` in Info.plist, the Mac by its
//   `.local` name, and `NSLocalNetworkUsageDescription`, because iOS asks the user first. Elsewhere https, which needs
//   neither. The server: `--keys-file`, `--http-address 0.0.0.0:8080`, `--http-allowed-hosts name.local`.
// - Background: iOS suspends the app, and with it the stream; the analysis goes on. The loop above goes on by itself when
//   the app does. Keep `name` and `last` where a relaunch finds them. To let an upload end after the app has left the
//   screen, begin it inside `UIApplication.beginBackgroundTask`.
// - Errors: `MondrianError.refused` has the HTTP status and `status.message`, a sentence for people; 401 and 403 want
//   another key, 400 and 413 another picture or prompt. 408, 429, 502, 503, 504 and lost connections are tried again here.

import Foundation

// MARK: - Values

/// An encoded image file, as the photo library gives it. Nothing is converted: the server reads JPEG, HEIC, PNG and more,
/// by content, and turns the picture upright itself.
public struct MondrianImage: Sendable {
    public var data: Data

    public init(data: Data) {
        self.data = data
    }
}

/// What is asked for besides the images: `AnalysisConfig` in proto3 JSON. What is nil is left to the server.
public struct AnalysisConfig: Encodable, Sendable {
    public var prompt: String
    public var advisor: String?
    public var instructions: String?
    public var sampling: Sampling?
    public var delivery: Delivery?
    /// The longest that the analysis may take, such as `"60s"`.
    public var timeLimit: String?

    public init(
        prompt: String, advisor: String? = nil, instructions: String? = nil,
        sampling: Sampling? = nil, delivery: Delivery? = nil, timeLimit: String? = nil
    ) {
        self.prompt = prompt
        self.advisor = advisor
        self.instructions = instructions
        self.sampling = sampling
        self.delivery = delivery
        self.timeLimit = timeLimit
    }
}

public struct Sampling: Encodable, Sendable {
    public var maxTokens: Int?
    public var temperature: Double?
    public var seed: UInt32?
    public var stop: [String]?

    public init(maxTokens: Int? = nil, temperature: Double? = nil, seed: UInt32? = nil, stop: [String]? = nil) {
        self.maxTokens = maxTokens
        self.temperature = temperature
        self.seed = seed
        self.stop = stop
    }
}

/// When events are sent; durations such as `"0.25s"`.
public struct Delivery: Encodable, Sendable {
    public var tokenInterval: String?
    public var progressInterval: String?

    public init(tokenInterval: String? = nil, progressInterval: String? = nil) {
        self.tokenInterval = tokenInterval
        self.progressInterval = progressInterval
    }
}

/// One entry of an analysis's log. Sequences are 1, 2, 3, … without a gap.
public struct AnalysisEvent: Decodable, Sendable {
    public let sequence: Int
    public let analysis: String
    public let payload: Payload

    public enum Payload: Sendable {
        case accepted(Accepted)
        case progress(AnalysisProgress)
        case token(Token)
        case completed(Completed)
        case failed(Failed)
        case cancelled(Cancelled)
        /// What a newer server tells; nothing is lost by leaving it out.
        case other
    }

    public var isTerminal: Bool {
        switch payload {
        case .completed, .failed, .cancelled: true
        case .accepted, .progress, .token, .other: false
        }
    }

    private enum CodingKeys: String, CodingKey {
        case sequence, analysis
        case accepted, progress, token, completed, failed, cancelled
    }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        sequence = try values.decode(Int.self, forKey: .sequence)
        analysis = try values.decode(String.self, forKey: .analysis)
        if values.contains(.accepted) {
            payload = .accepted(try values.decode(Accepted.self, forKey: .accepted))
        } else if values.contains(.progress) {
            payload = .progress(try values.decode(AnalysisProgress.self, forKey: .progress))
        } else if values.contains(.token) {
            payload = .token(try values.decode(Token.self, forKey: .token))
        } else if values.contains(.completed) {
            payload = .completed(try values.decode(Completed.self, forKey: .completed))
        } else if values.contains(.failed) {
            payload = .failed(try values.decode(Failed.self, forKey: .failed))
        } else if values.contains(.cancelled) {
            payload = .cancelled(try values.decode(Cancelled.self, forKey: .cancelled))
        } else {
            payload = .other
        }
    }
}

/// What was resolved. Always the first event.
public struct Accepted: Decodable, Sendable {
    public let model: String
    public let advisor: String
    public let queuePosition: Int
}

/// Where the analysis is. Numbers that are not known, or do not belong to the stage, are 0.
public struct AnalysisProgress: Decodable, Sendable {
    /// Such as `STAGE_GENERATING`.
    public let stage: String
    /// A sentence for people, in English.
    public let message: String
    /// From 0 to 1; it never falls.
    public let fraction: Double
    /// 1 is next.
    public let queuePosition: Int
    public let outputTokens: Int
    public let maxOutputTokens: Int
    public let outputTokensPerS: Double
    /// The longest that the rest will take, such as `"1.5s"`; nil: not known.
    public let estimatedTimeLeft: String?
    /// How often the analysis was interrupted and went on where it had stopped.
    public let continuations: Int
}

/// Text to append.
public struct Token: Decodable, Sendable {
    public let text: String
    public let firstIndex: Int
    public let tokenCount: Int
}

public struct Completed: Decodable, Sendable {
    /// All token texts together.
    public let text: String
    /// Such as `FINISH_REASON_STOP`.
    public let finishReason: String
    public let usage: Usage
}

public struct Failed: Decodable, Sendable {
    public let error: Status
    public let usage: Usage
}

public struct Cancelled: Decodable, Sendable {
    /// The stage in which it was.
    public let stage: String
    public let usage: Usage
}

public struct Usage: Decodable, Sendable {
    public let promptTokens: Int
    public let outputTokens: Int
}

/// The unit of work, as far as this file needs it.
public struct Analysis: Decodable, Sendable {
    /// `analyses/{id}`
    public let name: String
    /// Such as `ANALYSIS_STATE_ACTIVE`.
    public let state: String
    /// The text so far.
    public let text: String
}

/// `google.rpc.Status`: how a call, or an analysis, went wrong.
public struct Status: Decodable, Sendable {
    public let code: Int
    public let message: String
    public let details: [Detail]?

    public struct Detail: Decodable, Sendable {
        /// The stable reason, such as `INVALID_IMAGE`, where the detail is `google.rpc.ErrorInfo`.
        public let reason: String?
        /// When a retry may help, such as `"5s"`, where it is `google.rpc.RetryInfo`.
        public let retryDelay: String?
    }
}

public enum MondrianError: Error, Sendable {
    /// The server refused: its HTTP status and what it said, where that was to be understood.
    case refused(httpStatus: Int, status: Status?)
    /// For so long nothing came that there is no point in trying on.
    case gaveUp(last: (any Error)?)
    /// The answer is not what the protocol allows.
    case malformed(String)
}

// MARK: - The client

public struct MondrianClient: Sendable {
    /// How long to pause in all between tries, since anything new came, before giving up. The time that the phone sleeps
    /// through does not count.
    public var giveUpAfter: Duration = .seconds(120)

    private let baseURL: URL
    private let apiKey: @Sendable () -> String?
    private let session: URLSession

    /// - Parameters:
    ///   - baseURL: the gateway, such as `https://mondrian.example`.
    ///   - apiKey: gives the present key; nil where the server has none.
    public init(baseURL: URL, apiKey: @escaping @Sendable () -> String? = { nil }) {
        self.baseURL = baseURL
        self.apiKey = apiKey
        let configuration = URLSessionConfiguration.default
        // The gateway sends a comment at least every 15 s; a stream without a byte for three times as long is lost.
        configuration.timeoutIntervalForRequest = 45
        configuration.requestCachePolicy = .reloadIgnoringLocalCacheData
        configuration.urlCache = nil
        session = URLSession(configuration: configuration)
    }

    /// Start an analysis that outlives the app, and return its name, `analyses/{id}`.
    ///
    /// An answer that gets lost does no harm: the request is repeated under the same key, which is the same analysis.
    public func create(
        prompt: String, images: [MondrianImage], key: UUID = UUID()
    ) async throws -> String {
        try await create(AnalysisConfig(prompt: prompt), images: images, key: key)
    }

    /// Start an analysis with everything that can be asked for.
    public func create(
        _ config: AnalysisConfig, images: [MondrianImage], key: UUID = UUID()
    ) async throws -> String {
        let form = try MultipartForm(config: config, images: images)
        var request = makeRequest("v1/analyses", method: "POST")
        request.setValue(form.contentType, forHTTPHeaderField: "Content-Type")
        request.setValue(key.uuidString, forHTTPHeaderField: "Idempotency-Key")
        let data = try await send(request, body: form.body)
        return try JSONDecoder().decode(Analysis.self, from: data).name
    }

    /// The analysis as it stands now.
    public func analysis(_ name: String) async throws -> Analysis {
        let data = try await send(makeRequest("v1/\(name)"))
        return try JSONDecoder().decode(Analysis.self, from: data)
    }

    /// Stop an analysis, in whatever stage it is. One that has ended is left as it is.
    @discardableResult
    public func cancel(_ name: String) async throws -> Analysis {
        let data = try await send(makeRequest("v1/\(name):cancel", method: "POST"))
        return try JSONDecoder().decode(Analysis.self, from: data)
    }

    /// Delete an ended analysis with everything that is kept of it.
    public func delete(_ name: String) async throws {
        _ = try await send(makeRequest("v1/\(name)", method: "DELETE"))
    }

    /// The events after a sequence (0: from the first), each once and in order, to the terminal one.
    ///
    /// Lost connections, a locked phone and restarts of the server are bridged: the stream is taken up again after the
    /// last event that was handed out.
    public func events(of name: String, after sequence: Int = 0) -> AsyncThrowingStream<AnalysisEvent, any Error> {
        AsyncThrowingStream { continuation in
            let reading = Task {
                do {
                    try await follow(name, after: sequence) { continuation.yield($0) }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in reading.cancel() }
        }
    }

    // MARK: Streams

    private func follow(
        _ name: String, after sequence: Int, emit: @Sendable (AnalysisEvent) -> Void
    ) async throws {
        var last = sequence
        var retries = Retries(giveUpAfter: giveUpAfter)
        while true {
            do {
                if try await readConnection(name, last: &last, retries: &retries, emit: emit) { return }
                try await retries.wait(after: nil)  // The stream ended before the analysis did.
            } catch let error where isPassing(error) {
                try await retries.wait(after: error)
            }
        }
    }

    /// Read the events of one connection; return whether the analysis has ended.
    private func readConnection(
        _ name: String, last: inout Int, retries: inout Retries, emit: @Sendable (AnalysisEvent) -> Void
    ) async throws -> Bool {
        var request = makeRequest("v1/\(name)/events")
        request.setValue("text/event-stream", forHTTPHeaderField: "Accept")
        if last > 0 {
            request.setValue(String(last), forHTTPHeaderField: "Last-Event-ID")
        }
        let (bytes, response) = try await session.bytes(for: request)
        defer { bytes.task.cancel() }
        guard let http = response as? HTTPURLResponse else { throw MondrianError.malformed("no HTTP answer") }
        if http.statusCode == 204 { return true }  // It has ended, and its last event has been seen.
        guard http.statusCode == 200 else {
            retries.heard(http)
            throw try await refusal(http, body: bytes)
        }
        var parser = EventStreamParser()
        // Not `bytes.lines`: it leaves out empty lines, and those end the messages.
        for try await byte in bytes {
            guard let message = parser.push(byte) else { continue }
            if message.event == "interrupted" { return false }  // The gateway has lost the server; try again.
            let event = try decoded(message)
            guard event.sequence > last else { continue }
            guard event.sequence == last + 1 else { return false }  // A gap: read again from where we are.
            last = event.sequence
            retries.progressed()
            emit(event)
            if event.isTerminal { return true }
        }
        return false
    }

    private func decoded(_ message: EventStreamParser.Message) throws -> AnalysisEvent {
        do {
            return try JSONDecoder().decode(AnalysisEvent.self, from: Data(message.data.utf8))
        } catch {
            throw MondrianError.malformed("event \(message.event): \(error)")
        }
    }

    // MARK: Calls

    private func makeRequest(_ path: String, method: String = "GET") -> URLRequest {
        var request = URLRequest(url: baseURL.appending(path: path))
        request.httpMethod = method
        request.setValue("application/json", forHTTPHeaderField: "Accept")
        if let key = apiKey() {
            request.setValue("Bearer \(key)", forHTTPHeaderField: "Authorization")
        }
        return request
    }

    /// Make a call that may be repeated, and return the body of its answer.
    private func send(_ request: URLRequest, body: Data? = nil) async throws -> Data {
        var retries = Retries(giveUpAfter: giveUpAfter)
        while true {
            do {
                let (data, response) = try await answer(to: request, body: body)
                guard let http = response as? HTTPURLResponse else { throw MondrianError.malformed("no HTTP answer") }
                if (200..<300).contains(http.statusCode) { return data }
                retries.heard(http)
                throw refusal(http, body: data)
            } catch let error where isPassing(error) {
                try await retries.wait(after: error)
            }
        }
    }

    private func answer(to request: URLRequest, body: Data?) async throws -> (Data, URLResponse) {
        guard let body else { return try await session.data(for: request) }
        return try await session.upload(for: request, from: body)
    }

    private func refusal(_ http: HTTPURLResponse, body: URLSession.AsyncBytes) async throws -> MondrianError {
        var data = Data()
        for try await byte in body.prefix(64 * 1024) { data.append(byte) }
        return refusal(http, body: data)
    }

    private func refusal(_ http: HTTPURLResponse, body: Data) -> MondrianError {
        struct Answer: Decodable { let error: Status }
        let answer = try? JSONDecoder().decode(Answer.self, from: body)
        return .refused(httpStatus: http.statusCode, status: answer?.error)
    }

    /// Whether the same call may succeed later.
    private func isPassing(_ error: any Error) -> Bool {
        switch error {
        case MondrianError.refused(let httpStatus, _):
            return [408, 429, 502, 503, 504].contains(httpStatus)
        case let error as URLError:
            let lasting: Set<URLError.Code> = [
                .cancelled, .badURL, .unsupportedURL, .userAuthenticationRequired,
                .appTransportSecurityRequiresSecureConnection,
                .serverCertificateUntrusted, .serverCertificateHasBadDate, .serverCertificateHasUnknownRoot,
                .serverCertificateNotYetValid, .clientCertificateRejected, .clientCertificateRequired,
            ]
            return !lasting.contains(error.code)
        default:
            return false
        }
    }
}

// MARK: - Trying again

/// When to try again: at first soon, then twice as long each time, and never before the server asks for it.
private struct Retries {
    private static let longest: Duration = .seconds(5)

    private let giveUpAfter: Duration
    private var attempts = 0
    private var retryAfter: Duration = .zero
    private var waited: Duration = .zero

    init(giveUpAfter: Duration) {
        self.giveUpAfter = giveUpAfter
    }

    /// Something new has come: the next interruption is a first one.
    mutating func progressed() {
        attempts = 0
        retryAfter = .zero
        waited = .zero
    }

    /// Note when the server wants to be asked again.
    mutating func heard(_ http: HTTPURLResponse) {
        let seconds = http.value(forHTTPHeaderField: "Retry-After").flatMap(Int.init)
        retryAfter = .seconds(max(0, seconds ?? 0))
    }

    /// Wait before another try; throws when it is time to give up, or the task is cancelled.
    mutating func wait(after error: (any Error)?) async throws {
        let doubled = Duration.milliseconds(100) * (1 << min(attempts, 6))
        // Chance keeps phones that lost the same server from coming back all at once.
        let pause = max(retryAfter, min(Self.longest, doubled) * Double.random(in: 0.5...1))
        guard waited + pause <= giveUpAfter else { throw MondrianError.gaveUp(last: error) }
        waited += pause
        retryAfter = .zero
        attempts += 1
        try await Task.sleep(for: pause)
    }
}

// MARK: - Formats

/// A `text/event-stream`, byte by byte, after the HTML standard, section 9.2.6.
struct EventStreamParser {
    struct Message: Sendable {
        var id: String
        var event: String
        var data: String
    }

    private var line: [UInt8] = []
    private var followsCarriageReturn = false
    private var isFirstLine = true
    private var id = ""
    private var event = ""
    private var data: [String] = []

    /// Take the next byte and return the message that it completes.
    mutating func push(_ byte: UInt8) -> Message? {
        defer { followsCarriageReturn = byte == UInt8(ascii: "\r") }
        switch byte {
        case UInt8(ascii: "\n") where followsCarriageReturn:
            return nil  // The second half of a line's end.
        case UInt8(ascii: "\n"), UInt8(ascii: "\r"):
            defer { line.removeAll(keepingCapacity: true) }
            if isFirstLine {
                isFirstLine = false
                if line.starts(with: [0xEF, 0xBB, 0xBF]) { line.removeFirst(3) }
            }
            return end(String(decoding: line, as: UTF8.self))
        default:
            line.append(byte)
            return nil
        }
    }

    private mutating func end(_ line: String) -> Message? {
        if line.isEmpty {
            defer {
                event = ""
                data = []
            }
            return data.isEmpty ? nil : Message(id: id, event: event, data: data.joined(separator: "\n"))
        }
        let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        var value = parts.count > 1 ? parts[1] : ""
        if value.first == " " { value.removeFirst() }
        switch parts[0] {
        case "id": id = String(value)
        case "event": event = String(value)
        case "data": data.append(String(value))
        default: break  // A comment, whose name is empty; `retry`, for which `Retries` has rules of its own; or unknown.
        }
        return nil
    }
}

/// A `multipart/form-data` body: the config as JSON, then each image as a file.
private struct MultipartForm {
    let contentType: String
    let body: Data

    init(config: AnalysisConfig, images: [MondrianImage]) throws {
        let boundary = "mondrian-\(UUID().uuidString)"
        var body = Data()
        func part(_ disposition: String, type: String, content: Data) {
            body.append(Data("--\(boundary)\r\nContent-Disposition: form-data; \(disposition)\r\n".utf8))
            body.append(Data("Content-Type: \(type)\r\n\r\n".utf8))
            body.append(content)
            body.append(Data("\r\n".utf8))
        }
        part("name=\"config\"", type: "application/json", content: try JSONEncoder().encode(config))
        for (index, image) in images.enumerated() {
            // The server tells the format by the content; name and type are for proxies and logs.
            part("name=\"image\"; filename=\"image-\(index)\"", type: "application/octet-stream", content: image.data)
        }
        body.append(Data("--\(boundary)--\r\n".utf8))
        self.body = body
        contentType = "multipart/form-data; boundary=\(boundary)"
    }
}
