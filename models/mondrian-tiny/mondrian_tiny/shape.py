"""The shape of the model: sizes, special tokens, and the configuration files that state them."""

from typing import Any, Final

IMAGE_SIZE: Final = 128
PATCH_SIZE: Final = 8
SCALE_FACTOR: Final = 4
IMAGE_TOKENS: Final = (IMAGE_SIZE // PATCH_SIZE) ** 2 // SCALE_FACTOR**2
CONTEXT_TOKENS: Final = 4096
VOCABULARY: Final = 1024
ROPE_THETA: Final = 10_000.0

HIDDEN: Final = 160
LAYERS: Final = 4
TEXT_HEADS: Final = 5
VISION_HEADS: Final = 4
MLP: Final = 480

PAD: Final = "<|pad|>"
START: Final = "<|im_start|>"
END: Final = "<end_of_utterance>"
AROUND_IMAGE: Final = "<fake_token_around_image>"
GLOBAL_IMAGE: Final = "<global-img>"
IMAGE: Final = "<image>"
SPECIAL_TOKENS: Final = (PAD, START, END, AROUND_IMAGE, GLOBAL_IMAGE, IMAGE)
PAD_ID, START_ID, END_ID, AROUND_IMAGE_ID, GLOBAL_IMAGE_ID, IMAGE_ID = range(len(SPECIAL_TOKENS))

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] if part['text'] else part['content'] }}"
    "{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def text_config() -> dict[str, Any]:
    """State the language half; `rope_theta` is flat because mlx-vlm 0.7.10 reads it there."""
    return {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": TEXT_HEADS,
        "num_key_value_heads": TEXT_HEADS,
        "head_dim": HIDDEN // TEXT_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "pad_token_id": PAD_ID,
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
    }


def vision_config() -> dict[str, Any]:
    """State the vision half; the norm's epsilon is mlx-vlm's own for the last norm."""
    return {
        "model_type": "smolvlm_vision",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": VISION_HEADS,
        "num_channels": 3,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
    }


def model_config() -> dict[str, Any]:
    """State the whole model as `config.json` holds it."""
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": "smolvlm",
        "dtype": "bfloat16",
        "image_token_id": IMAGE_ID,
        "scale_factor": SCALE_FACTOR,
        "vocab_size": VOCABULARY,
        "pad_token_id": PAD_ID,
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "tie_word_embeddings": False,
        "use_cache": True,
        "text_config": text_config(),
        "vision_config": vision_config(),
    }


def image_processor_config() -> dict[str, Any]:
    """State how a picture becomes pixels: one Lanczos resize to a square, values in -1..1."""
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return {
        "image_processor_type": "SmolVLMImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square,
        "resample": 1,
        "do_image_splitting": False,
        "max_image_size": {"longest_edge": IMAGE_SIZE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_pad": True,
    }


def processor_config() -> dict[str, Any]:
    """State the processor that joins tokenizer and image processor."""
    return {"processor_class": "SmolVLMProcessor", "image_seq_len": IMAGE_TOKENS}


def tokenizer_config() -> dict[str, Any]:
    """State the tokenizer's role tokens; the template stands in `chat_template.json` as well."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "SmolVLMProcessor",
        "pad_token": PAD,
        "bos_token": START,
        "eos_token": END,
        "image_token": IMAGE,
        "fake_image_token": AROUND_IMAGE,
        "global_image_token": GLOBAL_IMAGE,
        "end_of_utterance_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_TOKENS,
        "chat_template": CHAT_TEMPLATE,
    }


def generation_config() -> dict[str, Any]:
    """State where generation ends."""
    return {"bos_token_id": START_ID, "eos_token_id": END_ID, "pad_token_id": PAD_ID}
