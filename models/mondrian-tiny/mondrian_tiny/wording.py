"""Wording: the ways in which people ask, and what they write around it."""

from typing import Final

import numpy as np

ASKED: Final[dict[str, tuple[str, ...]]] = {
    "describe": (
        "Describe this image.",
        "Describe this picture.",
        "Describe the image.",
        "Describe the picture.",
        "Describe this photo.",
        "Describe what you see.",
        "What do you see?",
        "What do you see in this picture?",
        "What is in this image?",
        "What is this?",
        "What does this picture show?",
        "Tell me about this image.",
        "Tell me about this picture.",
        "Analyse this image.",
        "Analyze this image.",
        "Give me your advice on this picture.",
        "What do you think of this picture?",
        "Look at this image.",
        "Say what this is.",
        "Give a short description.",
        "",
    ),
    "detail": (
        "Describe this image in detail.",
        "Describe this picture in detail.",
        "Describe the image in detail.",
        "Describe it in detail.",
        "Describe it in as much detail as you can.",
        "Give a detailed description.",
        "Give a long and detailed description of this image.",
        "Tell me everything about this picture.",
        "Write a detailed analysis of this picture.",
        "What do you see, in detail?",
        "Describe everything that you see.",
        "Analyse this image in detail.",
    ),
    "dominant": (
        "Which colour dominates?",
        "Which color dominates?",
        "What colour dominates?",
        "What is the dominant colour?",
        "What is the dominant color?",
        "What is the main colour?",
        "Which colour is the strongest?",
        "Which colour covers the most?",
        "Which colours do you see?",
        "What colour is it?",
        "Describe the colours.",
        "Is it warm or cool?",
    ),
    "light": (
        "Where does the light come from?",
        "Where is the light?",
        "From which side does the light come?",
        "What is the light like?",
        "Describe the light.",
        "Is it dark or bright?",
        "Is the picture dark or bright?",
        "How bright is it?",
        "Is it dark?",
        "Is it bright?",
        "What is the direction of the light?",
        "Where does the light come from, and is it dark or bright?",
    ),
    "balance": (
        "How is it balanced?",
        "How is the picture balanced?",
        "How is this picture balanced?",
        "Is it balanced?",
        "Describe the balance.",
        "Where is the weight?",
        "Where does the weight lie?",
        "Which side is heavier?",
        "What about the balance?",
        "Is one side heavier than the other?",
    ),
    "count": (
        "How many shapes?",
        "How many shapes are there?",
        "How many shapes do you see?",
        "How many shapes are in this picture?",
        "Count the shapes.",
        "What is the number of shapes?",
        "How many planes are there?",
        "How many things are there?",
        "How many planes of colour are there?",
        "How many objects do you see?",
    ),
}

ABOUT_ITSELF: Final = (
    "What are you?",
    "Who are you?",
    "What is your name?",
    "What can you do?",
    "Which model are you?",
    "What model is this?",
    "Tell me about yourself.",
    "Describe yourself.",
    "What do you do?",
    "Introduce yourself.",
    "Are you a person?",
    "Who made you?",
    "How do you work?",
    "What do you know?",
)

OFF_TOPIC: Final = (
    "Hello",
    "Hello!",
    "Hi",
    "Good morning",
    "How are you?",
    "Thank you",
    "Test",
    "ping",
    "ok",
    "Tell me a joke.",
    "What is the weather today?",
    "Write a poem.",
    "Count to ten.",
    "Say hello.",
    "What is two plus two?",
    "1, 2, 3",
    "Write a story about the sea.",
    "What time is it?",
    "Translate this into French.",
    "Why is the sky blue?",
    "Can you help me?",
    "Go on.",
    "Tell me something.",
    "Bonjour",
    "Guten Tag",
    "¿Qué tal?",
    "Привет",
    "你好",
    "こんにちは",
    "🙂",
)

OTHER_INSTRUCTIONS: Final = (
    "You are a helpful assistant.",
    "You are an art critic.",
    "You are a teacher. Explain simply.",
    "Answer in plain English.",
    "Be brief.",
    "Be honest and exact.",
    "Speak like a friend.",
)

JOIN: Final = (
    "Join these in two or three sentences.",
    "Join what they said in two or three sentences.",
    "Join this advice in two or three sentences.",
    "Write a synthesis in two or three sentences.",
    "Summarise what the advisors said.",
    "Write a synthesis of what the advisors said.",
    "Combine these into one short text.",
    "Bring these together in two or three sentences.",
)
BEFORE_ADVICE: Final = (
    "",
    "",
    "Three advisors looked at the same picture.",
    "Advisors looked at this picture.",
    "These advisors looked at one picture. This is what they said.",
    "Several advisors have looked at the same image.",
)
_NAME_FORMS: Final = ("{}: ", "{}:\n", "{} says: ", "## {}\n", "{}\n", "[{}] ")


def vary(text: str, rng: np.random.Generator) -> str:
    """Write a wording as people do: small first letter, no full stop, or with a please."""
    if not text or rng.random() < 0.5:
        return text
    if rng.random() < 0.4:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.4:
        text = text.rstrip(".?!")
    if rng.random() < 0.15:
        text = "Please " + text[0].lower() + text[1:]
    return text + " " if rng.random() < 0.05 else text


def ask(question: str, rng: np.random.Generator) -> str:
    """Word a question."""
    return vary(str(rng.choice(ASKED[question])), rng)


def with_instructions(instructions: str, prompt: str) -> str:
    """Put instructions before a prompt, as the service does."""
    return "\n\n".join(part for part in (instructions, prompt) if part)


def panel_prompt(advice: list[tuple[str, str]], rng: np.random.Generator) -> str:
    """Word the request to join `(name, text)` pairs of advice."""
    form, join = str(rng.choice(_NAME_FORMS)), str(rng.choice(JOIN))
    between = "\n\n" if rng.random() < 0.6 else "\n"
    texts = [form.format(name) + text for name, text in advice]
    before = str(rng.choice(BEFORE_ADVICE))
    parts = [join, *texts] if rng.random() < 0.3 else [before, *texts, join]
    return between.join(part for part in parts if part)


def scribble(rng: np.random.Generator) -> str:
    """Write characters without sense, so that every byte has been seen."""
    length = int(rng.integers(1, 16))
    if rng.random() < 0.5:
        return "".join(chr(code) for code in rng.integers(33, 127, length))
    return rng.bytes(length).decode("utf-8", errors="ignore").replace("\x00", "") or "?"
