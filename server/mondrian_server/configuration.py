"""Configuration: what each part gets of the settings, in its own terms."""

from mondrian_server.analyses.admission import AdmissionLimits
from mondrian_server.analyses.housekeeping import Retention
from mondrian_server.analyses.resolution import Defaults
from mondrian_server.analyses.validation import RequestLimits
from mondrian_server.callers import CallerLimits
from mondrian_server.engine.protocol import EngineConfig
from mondrian_server.engine.supervisor import SupervisionLimits
from mondrian_server.images.protocol import ImageLimits
from mondrian_server.log.sqlite import SqliteOptions
from mondrian_server.metrics import Limits
from mondrian_server.rpc.authentication import Authentication
from mondrian_server.rpc.reception import ReceptionLimits
from mondrian_server.rpc.tls import TlsFiles
from mondrian_server.settings import Settings


def metrics_limits(settings: Settings) -> Limits:
    """Return the bounds that metrics show beside what is used."""
    return Limits(
        slots=settings.slots,
        max_waiting=settings.max_waiting_analyses,
        max_waiting_bytes=settings.max_waiting_bytes,
        retention_bytes=settings.retention_bytes,
    )


def tls_files(settings: Settings) -> TlsFiles | None:
    """Return where the TLS files are, None without TLS."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return TlsFiles(
        certificate=settings.tls_certificate_file,
        key=settings.tls_key_file,
        client_ca=settings.tls_client_ca_file,
    )


def reception_limits(settings: Settings, authentication: Authentication) -> ReceptionLimits:
    """Return how requests are received; where everybody is local there is nobody to share with."""
    return ReceptionLimits(
        limit_s=settings.receive_limit_s,
        places=settings.max_receiving_requests,
        shared=authentication.is_needed,
    )


def has_reflection(settings: Settings, authentication: Authentication) -> bool:
    """Return whether reflection is served: by default where everybody is local."""
    return settings.reflection == "on" or (settings.reflection == "auto" and not authentication.is_needed)


def engine_config(settings: Settings) -> EngineConfig:
    """Return the engine's configuration."""
    return EngineConfig(
        model=settings.model_source,
        slots=settings.slots,
        prefill_step_tokens=settings.prefill_step_tokens,
        max_context_tokens=settings.max_context_tokens,
        vision_cache_entries=settings.vision_cache_entries,
        prefix_cache_bytes=settings.prefix_cache_bytes,
        kv_bits=settings.kv_cache_bits,
        kv_group_size=settings.kv_cache_group_size,
        adapter=str(settings.adapter_path or ""),
        thinking=settings.thinking,
        thinking_budget_tokens=settings.thinking_budget_tokens,
        trust_remote_code=settings.trust_remote_code,
        download_stall_limit_s=settings.download_stall_limit_s,
    )


def supervision_limits(settings: Settings) -> SupervisionLimits:
    """Return how long the engine may take for what."""
    return SupervisionLimits(
        beat_timeout_s=settings.engine_beat_timeout_s,
        operation_limit_s=settings.engine_operation_limit_s,
        load_limit_s=settings.engine_load_limit_s,
        backoff_s=settings.engine_restart_backoff_s,
        backoff_max_s=settings.engine_restart_backoff_max_s,
    )


def image_limits(settings: Settings) -> ImageLimits:
    """Return the bounds of the image process."""
    return ImageLimits(
        max_image_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_normalised_pixels=settings.max_normalised_pixels,
        decode_limit_s=settings.image_decode_limit_s,
        memory_limit_bytes=settings.image_memory_bytes,
    )


def log_options(settings: Settings) -> SqliteOptions:
    """Return the options of the log's store."""
    return SqliteOptions(
        full_synchronous=settings.log_synchronous == "full",
        keep_images=settings.keep_images,
        max_file_bytes=settings.log_max_bytes,
    )


def retention(settings: Settings) -> Retention:
    """Return how long ended analyses are kept."""
    return Retention(age_s=settings.retention_s, total_bytes=settings.retention_bytes)


def defaults(settings: Settings) -> Defaults:
    """Return what requests leave to the operator."""
    return Defaults(
        model=settings.model_id,
        max_tokens=settings.default_max_tokens,
        token_interval_s=settings.token_interval_s,
        progress_interval_s=settings.progress_interval_s,
    )


def admission_limits(settings: Settings) -> AdmissionLimits:
    """Return how much may wait, and what one request may hold."""
    return AdmissionLimits(
        max_waiting=settings.max_waiting_analyses,
        max_waiting_bytes=settings.max_waiting_bytes,
        deadline_margin_s=settings.deadline_margin_s,
        request=RequestLimits(
            max_prompt_characters=settings.max_prompt_characters,
            max_images=settings.max_request_images,
            max_image_bytes=settings.max_image_bytes,
            max_images_bytes=settings.max_request_image_bytes,
        ),
    )


def caller_limits(settings: Settings) -> CallerLimits:
    """Return the limits of a caller that has none of its own."""
    return CallerLimits(
        max_running_analyses=settings.max_caller_running_analyses,
        max_waiting_analyses=settings.max_caller_waiting_analyses,
        max_waiting_bytes=settings.max_caller_waiting_bytes,
        max_requests_per_minute=settings.max_caller_requests_per_minute,
    )
