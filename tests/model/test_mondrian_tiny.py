"""The embedded model sees: its greedy answers through mlx-vlm are held against drawn pictures' facts."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_vlm.generate.dispatch import generate
from PIL import Image

from mondrian_tiny import answers, wording
from mondrian_tiny.advisors import advisors
from mondrian_tiny.ask import Asker
from mondrian_tiny.bounds import shortcomings
from mondrian_tiny.evaluate import ask_question, right_answer
from mondrian_tiny.facts import FAMILIES, facts_from
from mondrian_tiny.pictures import Picture, draw_picture
from mondrian_tiny.report import Table
from mondrian_tiny.score import Score
from mondrian_tiny.sentences import write

MODEL_FOLDER = Path(__file__).parents[2] / "models" / "mondrian-tiny"
TEST_SEED = 7_041_944


@pytest.fixture(scope="module")
def asker() -> Asker:
    """Load the committed checkpoint."""
    return Asker(MODEL_FOLDER)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """Draw thirty pictures that the model has never seen, the families in turn."""
    return [draw_picture(family, TEST_SEED, n) for n in range(10) for family in FAMILIES]


def scored(asker: Asker, pictures: list[Picture], *questions: str) -> Table:
    """Score questions about pictures, by family and question."""
    seen, table = asker.look([picture.image for picture in pictures]), Table()
    for question in questions:
        for picture, reply in zip(pictures, ask_question(asker, seen, question), strict=True):
            score = table.setdefault((picture.facts.family, question), Score())
            score.add(reply, right_answer(picture.facts, question))
    return table


def test_the_committed_checkpoint_meets_the_bounds(asker: Asker, pictures: list[Picture]) -> None:
    """The facts are right, each answer ends by itself, and none repeats a sentence."""
    voices = [f"describe as {advisor}" for advisor in answers.ADVISORS]

    table = scored(asker, pictures, "describe", "dominant", "light", "balance", "count", *voices)

    assert shortcomings(table) == []


def test_a_detailed_description_meets_the_bounds(asker: Asker, pictures: list[Picture]) -> None:
    """The long answer is right too; three pictures, since it takes as long as all others together."""
    assert shortcomings(scored(asker, pictures[:3], "detail")) == []


def test_an_untrained_checkpoint_misses_the_bounds(tmp_path: Path, pictures: list[Picture]) -> None:
    """Weights of the same shape drawn at random fail the same bounds: the score can tell."""
    folder = tmp_path / "untrained"
    shutil.copytree(MODEL_FOLDER, folder, ignore=shutil.ignore_patterns("mondrian_tiny", "samples"))
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    mx.random.seed(0)
    drawn = {name: mx.random.normal(w.shape, w.dtype) * 0.02 for name, w in weights.items()}
    path = str(folder / "model.safetensors")
    mx.save_safetensors(path, drawn, metadata={"format": "pt"})  # pyright: ignore[reportUnknownMemberType] # no result type

    missed = shortcomings(scored(Asker(folder, most_tokens=20), pictures, "count"))

    assert len(missed) > len(FAMILIES)


def test_describing_takes_40_to_120_tokens_and_detail_at_least_150(asker: Asker, pictures: list[Picture]) -> None:
    """A description is short, and a detailed one is long enough for a stream to last."""
    images = [picture.image for picture in pictures[:3]]
    tokenizer = asker.processor.tokenizer

    short = [len(tokenizer.encode(r.text)) for r in asker.ask(images, "Describe this image.")]
    long = [len(tokenizer.encode(r.text)) for r in asker.ask(images, "Describe it in detail.")]

    assert all(40 <= tokens <= 120 for tokens in short)
    assert all(tokens >= 150 for tokens in long)


def test_each_sample_is_described_as_it_is(asker: Asker) -> None:
    """The pictures for the README and the demo are described as `facts.json` says."""
    folder = MODEL_FOLDER / "samples"
    known = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    images = [Image.open(folder / name).convert("RGB") for name in known]

    replies = asker.ask(images, "Describe this image.")

    score = Score()
    for reply, facts in zip(replies, known.values(), strict=True):
        score.add(reply, answers.answer(facts_from(facts), "describe"))
    assert score.answers == 6
    assert score.share >= 0.95


def test_the_three_voices_differ(asker: Asker, pictures: list[Picture]) -> None:
    """One picture, three advisors: each says what only this one looks for."""
    image = pictures[0].image
    said = {
        name: asker.ask([image], wording.with_instructions(a.instructions, "Describe this image."))
        for name, a in advisors().items()
    }

    assert len({replies[0].text for replies in said.values()}) == 3


def test_a_synthesis_joins_what_the_advisors_said(asker: Asker) -> None:
    """Two or three texts in the prompt become one sentence each, with their facts."""
    facts = draw_picture("photo", TEST_SEED, 0).facts
    texts = [
        f"{advisors()[name].display_name}: {write(answers.answer(facts, 'describe', name)).text}"
        for name in answers.ADVISORS
    ]
    prompt = "\n\n".join([*texts, "Join these in two or three sentences."])

    reply = asker.ask_without_picture(prompt)

    assert reply.ended
    assert reply.text == write(answers.synthesis(facts, answers.ADVISORS)).text


@pytest.mark.parametrize("asked", ["What are you?", "Who are you?", "What can you do?"])
def test_it_says_what_it_is(asker: Asker, asked: str) -> None:
    """A text-only question about the model itself has an answer."""
    assert asker.ask_without_picture(asked).text == write(answers.about_itself()).text


def test_any_utf_8_prompt_encodes(asker: Asker) -> None:
    """Byte-level tokens: nothing that a caller writes is lost or unknown."""
    text = "Grüße, 你好, שלום, 🙂, \x01, <image>"
    tokenizer = asker.processor.tokenizer

    ids = tokenizer.encode(text, split_special_tokens=True)

    assert tokenizer.decode(ids) == text


def test_many_at_once_say_what_mlx_vlm_generates_alone(asker: Asker, pictures: list[Picture], tmp_path: Path) -> None:
    """The scorer's rows give the text of mlx-vlm's own `generate`."""
    content = [{"type": "image"}, {"type": "text", "text": "Describe this image."}]
    turns = [{"role": "user", "content": content}]
    prompt = str(asker.processor.apply_chat_template(turns, add_generation_prompt=True))
    images: list[Image.Image] = [picture.image for picture in pictures[:3]]
    together = [reply.text for reply in asker.ask(images, "Describe this image.")]

    alone: list[str] = []
    for number, image in enumerate(images):
        path = tmp_path / f"{number}.png"
        image.save(path)
        result = generate(asker.model, asker.processor, prompt, image=[str(path)], max_tokens=320, temperature=0.0)
        alone.append(result.text)

    assert together == alone
