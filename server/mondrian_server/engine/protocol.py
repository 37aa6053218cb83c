"""Engine protocol: the frames between the server and the engine process.

The server sends `Configure` once, then `Submit` and `Cancel`. The engine answers `Loading` frames, then `Ready` or
`LoadFailed`; after that one `Step` for each turn of its loop that has something to tell. A second thread sends `Beat`
all the while. Every submitted row gets exactly one closing update: `RowDone`, `RowFailed`, `RowCancelled` or
`RowGaveWay`; its slot is free when the closing update is sent.
"""

from typing import TypeAlias

from msgspec import Struct

from mondrian_server.events import FinishReason, Stage
from mondrian_server.pictures import Picture


class EngineConfig(Struct, frozen=True, kw_only=True):
    """What the engine is told at its start.

    model: a local folder or a Hugging Face id.
    slots: rows generated at once.
    prefill_step_tokens: prompt tokens computed between two decode steps.
    max_context_tokens: a bound below the model's own; 0: the model's own.
    vision_cache_entries, prefix_cache_bytes: sizes of the two caches; 0 turns one off.
    kv_bits, kv_group_size: how keys and values are quantised; 0 bits: not at all.
    adapter: the folder of a LoRA adapter; empty: none.
    thinking, thinking_budget_tokens: whether the model thinks before it answers, and for how many tokens; 0: any.
    trust_remote_code: whether Python files that come with the model are run.
    download_stall_limit_s: how long a download may bring nothing.
    beat_interval_s: seconds between two `Beat` frames.
    """

    model: str
    slots: int
    prefill_step_tokens: int
    max_context_tokens: int = 0
    vision_cache_entries: int = 64
    prefix_cache_bytes: int = 256 * 1024 * 1024
    kv_bits: int = 0
    kv_group_size: int = 64
    adapter: str = ""
    thinking: bool = False
    thinking_budget_tokens: int = 0
    trust_remote_code: bool = False
    download_stall_limit_s: float = 120.0
    beat_interval_s: float = 0.25


class Configure(Struct, frozen=True, kw_only=True, tag=True):
    """The first frame to the engine."""

    config: EngineConfig


class RowSampling(Struct, frozen=True, kw_only=True):
    """Sampling of one row, fully resolved.

    `max_tokens` is None where the caller left it open and `default_max_tokens` applies as far as the context goes; an
    explicit `max_tokens` that does not fit the context fails the row (CONTEXT_EXCEEDED).
    """

    max_tokens: int | None
    default_max_tokens: int
    min_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int
    stop: tuple[str, ...]


class Submit(Struct, frozen=True, kw_only=True, tag=True):
    """One generation to make.

    Rows of one scope start in the order in which they are submitted. A free slot goes to the scope that holds the
    fewest; where there is none, a row of the scope that holds the most gives way to one of a scope that holds less than
    its share, which is the number of slots divided among the scopes.

    row: a number that is never used twice with one engine.
    cache_scope: whose caches it may read and fill; never shared between scopes.
    details: whether log-probabilities are wanted for each token.
    prior_ids: tokens that the row generated in an earlier life of the engine; it goes on after them, and tells neither
        their ids nor the text that they made certain again.
    """

    row: int
    instructions: str
    prompt: str
    pictures: tuple[Picture, ...]
    sampling: RowSampling
    cache_scope: str
    details: bool = False
    prior_ids: tuple[int, ...] = ()


class Cancel(Struct, frozen=True, kw_only=True, tag=True):
    """Nobody wants the row any more. Unknown and closed rows are ignored."""

    row: int


ToEngine: TypeAlias = Configure | Submit | Cancel


class ModelDescription(Struct, frozen=True, kw_only=True):
    """What the engine knows of its model, and how it runs it.

    context_tokens: counts prompt and output together.
    quantization_bits, kv_cache_bits: of the weights, and of keys and values; 0: not quantised.
    adapter: the name of the adapter's folder; empty: none.
    trusts_remote_code: whether Python files that come with the model may run.
    """

    architecture: str
    context_tokens: int
    slots: int
    parameters: int
    weights_bytes: int
    quantization_bits: int
    accepts_images: bool
    kv_cache_bits: int = 0
    kv_cache_group_size: int = 0
    adapter: str = ""
    thinking: bool = False
    thinking_budget_tokens: int = 0
    trusts_remote_code: bool = False


class Loading(Struct, frozen=True, kw_only=True, tag=True):
    """The model is being downloaded, loaded or warmed up: bytes done and in all.

    downloading: whether these are bytes of the network. They come only when there are more than before.
    """

    message: str
    done_bytes: int
    total_bytes: int
    downloading: bool = False


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The model is loaded and warm. The bytes are the memory that MLX uses, and the most that it has used."""

    model: ModelDescription
    peak_memory_bytes: int = 0
    active_memory_bytes: int = 0


class LoadFailed(Struct, frozen=True, kw_only=True, tag=True):
    """The model cannot be loaded, and trying again will not help. The engine ends after this frame."""

    message: str


IDLE = "idle"
"""The operation of an engine that waits for work, which may take for ever while it holds no row."""


class Beat(Struct, frozen=True, kw_only=True, tag=True):
    """A sign of life: the operation that runs (or IDLE), and for how long. `rows_held` counts rows not yet closed."""

    operation: str
    operation_s: float
    rows_held: int


class RowStage(Struct, frozen=True, kw_only=True, tag=True):
    """A row entered a stage, or came further in PREFILL. It holds a slot from the first of these on."""

    row: int
    stage: Stage
    prompt_tokens_done: int = 0
    prompt_tokens_total: int = 0
    prompt_tokens_cached: int = 0
    image_tokens: int = 0
    max_output_tokens: int = 0


class RowTokens(Struct, frozen=True, kw_only=True, tag=True):
    """New tokens of a row. `text` is what became certain with them, which may be empty, or more than they spell.

    `ids` are always there, `log_probabilities` only when asked for.
    """

    row: int
    text: str
    count: int
    ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()


class RowDone(Struct, frozen=True, kw_only=True, tag=True):
    """A row is complete. `text` is what had been held back; times are the engine's own."""

    row: int
    text: str
    finish_reason: FinishReason
    stop_sequence: str
    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    output_tokens: int
    prepare_s: float
    encode_s: float
    prefill_s: float


class RowFailed(Struct, frozen=True, kw_only=True, tag=True):
    """A row cannot go on. `reason` is one of errors.py: CONTEXT_EXCEEDED, INVALID_REQUEST or GENERATION_FAILED."""

    row: int
    reason: str
    message: str
    field: str = ""


class RowCancelled(Struct, frozen=True, kw_only=True, tag=True):
    """A cancelled row has left its slot."""

    row: int


class RowGaveWay(Struct, frozen=True, kw_only=True, tag=True):
    """A row has left its slot to another scope; submitted again with its tokens, it goes on."""

    row: int


RowUpdate: TypeAlias = RowStage | RowTokens | RowDone | RowFailed | RowCancelled | RowGaveWay


class Step(Struct, frozen=True, kw_only=True, tag=True):
    """Everything that one turn of the engine's loop has to tell.

    rows: the updates, in order.
    slots_in_use: rows that hold a slot after the step.
    peak_memory_bytes, active_memory_bytes: the most memory that MLX has used in this process, and what it uses now.
    """

    rows: tuple[RowUpdate, ...]
    slots_in_use: int
    peak_memory_bytes: int
    active_memory_bytes: int = 0


FromEngine: TypeAlias = Loading | Ready | LoadFailed | Beat | Step
