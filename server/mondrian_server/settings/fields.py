"""Fields: every setting with its meaning, unit, default and bounds."""

from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mondrian_server.settings.checks import (
    bits_of_keys_and_values,
    derived_model_id,
    group_of_keys_and_values,
    home_expanded,
    host_and_port,
    host_and_port_or_none,
    no_draft_model,
)
from mondrian_server.settings.embedded import embedded_model
from mondrian_server.settings.lists import Names

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
GIBIBYTE = 1024 * MEBIBYTE

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=1024 * GIBIBYTE)]
Folder = Annotated[Path, AfterValidator(home_expanded)]


def _default_data_dir() -> Path:
    return platformdirs.user_data_path("mondrian", appauthor=False)


class Settings(BaseModel):
    """Every setting of `mondrian serve`. Names carry their unit; relative paths start at the working directory."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    grpc_address: Annotated[str, AfterValidator(host_and_port)] = "127.0.0.1:50051"
    """Where gRPC listens, host:port; port 0 takes a free one. Without keys or client certificates, loopback only."""
    keys_file: Folder | None = None
    """The file of API keys, made by `mondrian keys add`. With it, every call needs a key or a client certificate."""
    tls_certificate_file: Folder | None = None
    """The server's certificate and its chain, PEM. With it, gRPC is spoken over TLS only. Files may be replaced."""
    tls_key_file: Folder | None = None
    """The private key of the certificate, PEM."""
    tls_client_ca_file: Folder | None = None
    """The authorities, PEM, whose client certificates are taken. With it, every connection must show one."""
    reflection: Literal["auto", "on", "off"] = "auto"
    """Whether anybody may ask for the contract by gRPC reflection. auto: on a server where everybody is local."""

    http_address: Annotated[str, AfterValidator(host_and_port_or_none)] = "127.0.0.1:8080"
    """Where the gateway listens for HTTP, host:port; port 0 takes a free one. Empty: there is no gateway."""
    http_allowed_hosts: Names = ()
    """Names in the Host header that are served beside those of loopback and http_address. *: all."""
    http_cors_origins: Names = ()
    """Origins whose pages may call the API from a browser, such as https://example.org. *: all. Empty: none."""
    http_max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """The most connections that the gateway serves at once, idle ones included; more are answered 503."""
    http_tls_certificate_file: Folder | None = None
    """A PEM file with the gateway's certificate and its chain: it then serves HTTPS."""
    http_tls_key_file: Folder | None = None
    """A PEM file with the private key of the gateway's certificate."""

    model: str = ""
    """The model: a local folder or a Hugging Face id. Empty: the embedded mondrian-tiny."""
    model_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = Field(
        default_factory=derived_model_id
    )
    """The name under which callers ask for the model. By default the last part of its path or id."""
    data_dir: Folder = Field(default_factory=_default_data_dir)
    """The folder for the service's own files, made at the start. By default the user's data folder."""
    retention_s: Annotated[float, Field(ge=0, le=10 * 365 * 86_400, allow_inf_nan=False)] = 7 * 86_400.0
    """How long ended analyses and their events are kept."""
    retention_bytes: Annotated[int, Field(ge=0, le=1024 * GIBIBYTE)] = GIBIBYTE
    """The most bytes of events of ended analyses that are kept; the oldest go first."""
    keep_images: bool = False
    """Whether an analysis's pictures are kept as long as its events, instead of until its end."""
    log_synchronous: Literal["normal", "full"] = "normal"
    """What an event survives before it is seen. normal: the end of the process. full: a power cut too, at a cost."""
    log_max_bytes: Bytes = 0
    """How large the log's file may grow. When it is full, new analyses are refused. 0: as large as the disk."""
    advisors_file: Folder | None = None
    """A TOML file with more advisors; one with the id of a built-in advisor replaces it."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that are logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """How log lines look on stderr. auto: console on a terminal, json elsewhere."""

    slots: Annotated[int, Field(ge=1, le=256)] = 32
    """Analyses generated at once, in one batch. Each costs memory for its context."""
    lookahead: Annotated[int, Field(ge=0, le=256)] = 4
    """Analyses prepared beyond the slots, so that a freed slot is filled at the next step."""
    max_waiting_analyses: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """The most analyses that may wait for a slot."""
    max_waiting_bytes: Annotated[int, Field(ge=MEBIBYTE, le=1024 * GIBIBYTE)] = GIBIBYTE
    """The most bytes of image files of analyses that have not started."""
    max_caller_running_analyses: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """The most analyses of one caller in the engine at once; the others wait. 0: no limit."""
    max_caller_waiting_analyses: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """The most analyses of one caller that may wait. 0: as many as the places that it leaves free."""
    max_caller_waiting_bytes: Bytes = 0
    """The most bytes of image files of one caller's waiting analyses. 0: as many as it leaves free."""
    max_caller_requests_per_minute: Annotated[int, Field(ge=0, le=100_000)] = 0
    """The most new analyses of one caller within any minute. 0: no limit."""

    max_receiving_requests: Annotated[int, Field(ge=1, le=65_536)] = 64
    """The most new analyses whose requests are received at once, and as many other requests; the others wait."""
    receive_limit_s: Seconds = 60.0
    """The longest that receiving one request over gRPC may take, and that it may wait for that."""

    max_request_images: Annotated[int, Field(ge=0, le=256)] = 8
    """The most images in one request."""
    max_request_image_bytes: Annotated[int, Field(ge=KIBIBYTE, le=GIBIBYTE)] = 24 * MEBIBYTE
    """The most bytes of one request's images in all."""
    max_image_bytes: Annotated[int, Field(ge=KIBIBYTE, le=GIBIBYTE)] = 20 * MEBIBYTE
    """The most bytes of one image, as encoded."""
    max_image_pixels: Annotated[int, Field(ge=1024, le=1_000_000_000)] = 50_000_000
    """The most pixels of one image, as encoded. More need more of image_memory_bytes."""
    max_normalised_pixels: Annotated[int, Field(ge=1024, le=100_000_000)] = 1024 * 1024
    """The most pixels of a picture that the model sees; larger ones are scaled down."""
    image_decode_limit_s: Seconds = 10.0
    """The longest that one image may take to decode."""
    image_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE, le=1024 * GIBIBYTE)] = 1536 * MEBIBYTE
    """The address space of the image process, where the platform can bound it."""
    max_prompt_characters: Annotated[int, Field(ge=1, le=10_000_000)] = 32_000
    """The most characters of a prompt, and of a caller's own instructions."""

    default_max_tokens: Annotated[int, Field(ge=1, le=1 << 24)] = 512
    """The most tokens to generate where neither the request nor its advisor says."""
    max_context_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    """A bound on prompt and output together, below the model's own. 0: the model's own."""
    prefill_step_tokens: Annotated[int, Field(ge=16, le=65_536)] = 256
    """Prompt tokens computed between two decode steps. More reads prompts faster and halts other analyses longer."""
    vision_cache_entries: Annotated[int, Field(ge=0, le=65_536)] = 64
    """Encoded pictures that the engine keeps. 0: none."""
    prefix_cache_bytes: Bytes = 256 * MEBIBYTE
    """Memory in which the engine keeps the computed starts of prompts. 0: none."""

    kv_cache_bits: Annotated[int, AfterValidator(bits_of_keys_and_values)] = 0
    """Bits of a key or value in the engine's memory of what it has read: 2, 3, 4, 6 or 8. 0: not quantised."""
    kv_cache_group_size: Annotated[int, AfterValidator(group_of_keys_and_values)] = 64
    """Numbers that share a scale, where keys and values are quantised: 32, 64 or 128; divides the model's head size."""
    adapter_path: Folder | None = None
    """The folder of a LoRA adapter for the model."""
    draft_model: Annotated[str, AfterValidator(no_draft_model)] = ""
    """Refused: mlx-vlm cannot let analyses join a batch that speculates with a draft model."""
    thinking: bool = False
    """Whether a model that can think before it answers does so. What it thinks is part of the text."""
    thinking_budget_tokens: Annotated[int, Field(ge=0, le=1 << 24)] = 0
    """After so many tokens a model that still thinks is made to answer. 0: it thinks as long as it likes."""
    trust_remote_code: bool = False
    """Whether Python files that come with the model are run. They can do whatever this user can."""
    download_stall_limit_s: Seconds = 120.0
    """How long the download of a model may bring nothing before it is given up. What has come is kept."""

    token_interval_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.1
    """How long tokens are collected before they are sent, where the request does not say. 0: each engine step."""
    progress_interval_s: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] = 5.0
    """The interval of progress events, where the request does not say."""
    deadline_margin_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.25
    """How long before a caller's deadline can come its analysis is ended, so that the last events arrive in time."""

    engine_beat_timeout_s: Annotated[float, Field(ge=0.5, le=3600, allow_inf_nan=False)] = 3.0
    """How long the engine may be silent before it is replaced."""
    engine_operation_limit_s: Seconds = 60.0
    """The longest that one operation of the engine may take, such as a decode step or the encoding of a picture."""
    engine_load_limit_s: Seconds = 600.0
    """The longest that loading and warming the model may take, once nothing more is downloaded."""
    engine_restart_backoff_s: Seconds = 0.5
    """The pause before a lost engine is started again; doubled after each failure in a row."""
    engine_restart_backoff_max_s: Seconds = 30.0
    """The longest of these pauses."""
    shutdown_grace_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 10.0
    """How long running analyses may go on after SIGTERM."""

    @property
    def model_source(self) -> str:
        """What the engine loads: `model`, or the folder of the embedded model."""
        return self.model or str(embedded_model())

    @property
    def model_name(self) -> str:
        """The model's resource name, `models/{id}`."""
        return f"models/{self.model_id}"

    @property
    def max_message_bytes(self) -> int:
        """The largest request that gRPC accepts: the images, both texts at 4 bytes a character, and 1 MiB besides."""
        return self.max_request_image_bytes + 2 * 4 * self.max_prompt_characters + MEBIBYTE
