"""What can be asked: advisors and models."""

import enum
from dataclasses import dataclass

from mondrian._options import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisor:
    """A named voice: instructions and sampling defaults."""

    name: str
    """The resource name, `advisors/{id}`."""
    display_name: str
    """The name for people."""
    description: str
    """What this advisor looks at, in a sentence."""
    instructions: str
    """What the model is told, after the images and before the prompt."""
    sampling: Sampling
    """The defaults for fields of `Sampling` that a request leaves unset."""


class ModelState(enum.IntEnum):
    """Whether a model can answer."""

    UNKNOWN = 0
    """A state that this version of the client does not know."""
    LOADING = 1
    """It is being loaded; analyses wait for it."""
    READY = 2
    """It answers."""
    UNAVAILABLE = 3
    """Its engine is down or hung, and will be started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model. Numbers are 0 until it has been loaded once."""

    name: str
    """The resource name, `models/{id}`."""
    state: ModelState
    architecture: str
    """Its architecture, such as `smolvlm`."""
    context_tokens: int
    """The most tokens of prompt and output together."""
    slots: int
    """The analyses that it works on at once."""
    slots_in_use: int
    """The analyses that it works on now."""
    queue_length: int
    """The analyses that wait."""
    parameters: int
    """The number of parameters."""
    weights_bytes: int
    """The size of its weights, as loaded."""
    quantization_bits: int
    """The bits of a quantised weight. 0: not quantised."""
    peak_memory_bytes: int
    """The most memory that its engine has used."""
    loaded_bytes: int
    """How much is downloaded or loaded so far, while loading."""
    accepts_images: bool
    """Whether it can look at images."""
    total_bytes: int = 0
    """How much there is to download or load, while loading. 0: not known yet."""
    downloading: bool = False
    """Whether these bytes are downloaded, and not yet loaded."""
    active_memory_bytes: int = 0
    """The memory that its engine uses now."""
    kv_cache_bits: int = 0
    """The bits of a quantised number in its memory of what it has read. 0: not quantised."""
    kv_cache_group_size: int = 0
    """The numbers that share a scale there. 0: not quantised."""
    adapter: str = ""
    """The name of the LoRA adapter that it was loaded with. Empty: none."""
    thinking: bool = False
    """Whether it thinks before it answers, if it can. What it thinks is part of its text."""
    thinking_budget_tokens: int = 0
    """The tokens after which it is made to end its thinking. 0: none."""
    trusts_remote_code: bool = False
    """Whether Python files that come with the model may run on the server."""
