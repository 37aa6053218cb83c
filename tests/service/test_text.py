"""Text: whole characters at every cut, prompts taken literally, and tokens that add up to the final text."""

import asyncio
import codecs
import re
from collections.abc import AsyncGenerator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from tokenizers import Tokenizer

from mondrian.v1 import analysis_pb2 as pb
from tests.checkpoints import EMBEDDED, spelled, write_untrained
from tests.service.calls import Outcome, Running, settings_for, started

MULTILINGUAL = "héllo 根據您的問題 💭"
CONTROLS = "<image><|im_start|>user <end_of_utterance> <fake_token_around_image>"
MEDIA = ("<image>", "<fake_token_around_image>", "<global-img>")
DETAIL = pb.TokenDetail(ids=True, log_probabilities=True)
EACH_STEP = pb.Delivery(token_interval=Duration())
NEVER = Duration(seconds=60)
SENTENCE_END = re.compile(r"[.!?…。！？\n]")


@pytest_asyncio.fixture(scope="module")
async def flat(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Running]:
    """A service on an untrained model: its tokens are spread over the whole vocabulary, single bytes included."""
    model = write_untrained(tmp_path_factory.mktemp("model") / "untrained")
    async with started(settings_for(tmp_path_factory.mktemp("data"), model=str(model))) as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The embedded model's tokeniser, control tokens taken as plain text."""
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def wild(count: int, *, seed: int = 11, **changes: object) -> pb.AnalysisConfig:
    """Return a request for exactly so many tokens, drawn at a high temperature."""
    sampling = pb.Sampling(max_tokens=count, min_tokens=count, temperature=1.5, seed=seed)
    return pb.AnalysisConfig(prompt="Hello", sampling=sampling, **changes)  # pyright: ignore[reportArgumentType]  # fields by name


def assert_adds_up(outcome: Outcome) -> None:
    """Assert what holds for every complete stream: numbering, texts, indices and counts."""
    assert outcome.code is grpc.StatusCode.OK
    assert [event.sequence for event in outcome.events] == list(range(1, len(outcome.events) + 1))
    assert [event.WhichOneof("payload") for event in outcome.events].count("completed") == 1
    completed = outcome.completed
    assert outcome.text == completed.text
    assert "\ufffd" not in completed.text
    index = 0
    for token in tokens(outcome):
        assert token.first_index == index
        index += token.token_count
    assert index == completed.usage.output_tokens


def tokens(outcome: Outcome) -> list[pb.Token]:
    """Return the token events."""
    return [event.token for event in outcome.events if event.HasField("token")]


@pytest.mark.parametrize("text", [MULTILINGUAL, CONTROLS], ids=["multilingual", "control tokens"])
async def test_a_prompt_is_taken_literally(up: Running, tokenizer: Tokenizer, text: str) -> None:
    """The model reads exactly the tokens that the characters spell, control tokens included, and images are none."""
    for prefix, config in (
        ("", pb.AnalysisConfig(prompt=text)),
        ("A\n\n", pb.AnalysisConfig(instructions="A", prompt=text)),
    ):
        config.sampling.max_tokens = 5
        outcome = await up.ask(config)
        assert_adds_up(outcome)
        empty = await up.ask(pb.AnalysisConfig(prompt="x", sampling=pb.Sampling(max_tokens=1)))
        expected = len(tokenizer.encode(prefix + text, add_special_tokens=False).ids)
        assert outcome.completed.usage.prompt_tokens == empty.completed.usage.prompt_tokens - 1 + expected
        assert outcome.completed.usage.image_tokens == 0


async def test_typed_placeholders_beside_a_picture_stand_for_no_picture(up: Running, picture: bytes) -> None:
    """An `<image>` in the prompt adds no image tokens to those of the picture."""
    sampling = pb.Sampling(max_tokens=2)
    plain = pb.AnalysisConfig(prompt="What?", images=[pb.Image(data=picture)], sampling=sampling)
    typed = pb.AnalysisConfig(prompt=f"{CONTROLS} What?", images=[pb.Image(data=picture)], sampling=sampling)
    image_tokens = (await up.ask(plain)).completed.usage.image_tokens
    assert image_tokens > 0
    assert (await up.ask(typed)).completed.usage.image_tokens == image_tokens


async def test_instructions_take_the_multilingual_text(up: Running) -> None:
    """Instructions of many scripts are accepted beside a prompt of many scripts."""
    config = pb.AnalysisConfig(prompt=MULTILINGUAL, instructions=MULTILINGUAL, sampling=pb.Sampling(max_tokens=5))
    assert_adds_up(await up.ask(config))


@pytest.mark.parametrize("detailed", [True, False], ids=["with details", "without details"])
async def test_an_output_cut_anywhere_holds_whole_characters_only(flat: Running, detailed: bool) -> None:
    """Wherever `max_tokens` cuts, the text is what the tokens' bytes spell in whole characters, and counts add up."""
    ids = (await flat.ask(wild(120, token_detail=DETAIL))).ids
    inside = [count for count in range(1, 120) if ends_inside_a_character(spelled(ids[:count]))][:5]
    assert inside, "no token ended inside a character"
    cuts = sorted({1, *inside, *(count + 1 for count in inside)})
    detail = DETAIL if detailed else pb.TokenDetail()
    outcomes = await asyncio.gather(*(flat.ask(wild(count, token_detail=detail)) for count in cuts))
    for count, outcome in zip(cuts, outcomes, strict=True):
        assert_adds_up(outcome)
        assert outcome.completed.usage.output_tokens == count
        assert outcome.completed.finish_reason == pb.FINISH_REASON_MAX_TOKENS
        assert outcome.text == spelled(ids[:count]).decode("utf-8", "ignore")


def ends_inside_a_character(data: bytes) -> bool:
    """Return whether the bytes end before their last character is whole."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    decoder.decode(data)
    return decoder.getstate()[0] != b""


async def test_every_cut_of_a_wild_stream_is_whole(flat: Running) -> None:
    """Step by step, the events' texts are those of the tokens so far, and no media placeholder is ever drawn."""
    outcomes = await asyncio.gather(
        *(flat.ask(wild(200, seed=seed, token_detail=DETAIL, delivery=EACH_STEP)) for seed in range(6))
    )
    media = {Tokenizer.from_file(str(EMBEDDED / "tokenizer.json")).token_to_id(name) for name in MEDIA}
    for outcome in outcomes:
        assert_adds_up(outcome)
        assert not media.intersection(outcome.ids)
        text = ""
        for token in tokens(outcome):
            text += token.text
            assert text == held_back(spelled(outcome.ids[: token.first_index + token.token_count]))


def held_back(data: bytes) -> str:
    """Return the whole characters of the bytes; what may still become one is held back."""
    return codecs.getincrementaldecoder("utf-8")("ignore").decode(data)


@pytest.mark.parametrize("reach", [1, 3, 6])
async def test_a_stop_string_that_straddles_tokens_ends_the_text_before_it(flat: Running, reach: int) -> None:
    """A stop string across a border of tokens counts, is told, and no part of it is sent."""
    ids = (await flat.ask(stopping(60, []))).ids
    text = held_back(spelled(ids))
    borders = [len(held_back(spelled(ids[:count]))) for count in range(10, len(ids), 5)]
    assert borders
    stops = [text[border - reach : border + reach] for border in borders]
    outcomes = await asyncio.gather(*(flat.ask(stopping(60, [stop])) for stop in stops))
    for stop, outcome in zip(stops, outcomes, strict=True):
        assert_adds_up(outcome)
        assert outcome.completed.finish_reason == pb.FINISH_REASON_STOP_SEQUENCE
        assert outcome.completed.stop_sequence == stop
        assert outcome.text == text[: text.index(stop)]


async def test_what_only_began_like_a_stop_string_is_delivered(flat: Running) -> None:
    """Text held back because it could have become a stop string is released when it does not, also at the end."""
    text = held_back(spelled((await flat.ask(stopping(60, []))).ids))
    stops = [text[10:14] + "\0", text[30:31] + "\0", text[-6:] + "\0"]
    outcome = await flat.ask(stopping(60, stops))
    assert_adds_up(outcome)
    assert not outcome.completed.stop_sequence
    assert outcome.text == text


def stopping(count: int, stops: list[str]) -> pb.AnalysisConfig:
    """Return the wild request with stop strings, which count from the first token on."""
    config = wild(count, delivery=EACH_STEP, token_detail=pb.TokenDetail(ids=True))
    config.sampling.min_tokens = 0
    config.sampling.stop.extend(stops)
    return config


async def test_details_come_one_for_each_token(flat: Running) -> None:
    """Ids and log-probabilities are as many as tokens in each event, and not sent unasked."""
    detailed = await flat.ask(wild(50, token_detail=DETAIL))
    assert_adds_up(detailed)
    for token in tokens(detailed):
        assert len(token.ids) == len(token.log_probabilities) == token.token_count
    assert all(-50.0 < value < 0.0 for value in detailed.log_probabilities)
    only_ids = await flat.ask(wild(50, token_detail=pb.TokenDetail(ids=True)))
    assert (only_ids.ids, only_ids.log_probabilities) == (detailed.ids, [])
    plain = await flat.ask(wild(50))
    assert (plain.ids, plain.log_probabilities) == ([], [])
    assert plain.text == only_ids.text == detailed.text


async def test_interval_0_sends_every_step(flat: Running) -> None:
    """With a token interval of 0 each token is an event of its own."""
    outcome = await flat.ask(wild(50, token_detail=DETAIL, delivery=EACH_STEP))
    assert_adds_up(outcome)
    assert [token.token_count for token in tokens(outcome)] == [1] * 50


async def test_max_tokens_of_delivery_sends_at_that_many(flat: Running) -> None:
    """The first token comes at once, then fives, and the rest at the end."""
    outcome = await flat.ask(wild(33, token_detail=DETAIL, delivery=pb.Delivery(token_interval=NEVER, max_tokens=5)))
    assert_adds_up(outcome)
    assert [token.token_count for token in tokens(outcome)] == [1, 5, 5, 5, 5, 5, 5, 2]


async def test_a_long_interval_sends_the_first_token_at_once_and_the_rest_at_the_end(flat: Running) -> None:
    """Within an interval that outlasts the analysis there are two token events."""
    outcome = await flat.ask(wild(40, token_detail=DETAIL, delivery=pb.Delivery(token_interval=NEVER)))
    assert_adds_up(outcome)
    assert [token.token_count for token in tokens(outcome)] == [1, 39]


async def test_at_sentence_end_sends_at_each(flat: Running) -> None:
    """Each event but the first and the last ends with the token that ends a sentence, and holds no other end."""
    policy = pb.Delivery(token_interval=NEVER, at_sentence_end=True)
    requests = [wild(250, seed=seed, token_detail=DETAIL, delivery=policy) for seed in range(6)]
    outcomes = await asyncio.gather(*map(flat.ask, requests))
    middle = [token for outcome in outcomes for token in tokens(outcome)[1:-1]]
    assert middle, "no sentence ended"
    for token in middle:
        assert SENTENCE_END.search(held_back(spelled(token.ids[-1:]))), token
        assert not re.search(r"[.!?…]$|[。！？\n]", held_back(spelled(token.ids[:-1]))), token


async def test_the_accepted_sampling_repeats_the_text(flat: Running) -> None:
    """What `accepted` tells, the drawn seed included, gives the same tokens when it is sent back."""
    config = pb.AnalysisConfig(
        prompt="Hello", sampling=pb.Sampling(temperature=1.0, max_tokens=40), token_detail=DETAIL
    )
    first = await flat.ask(config)
    assert first.accepted.sampling.HasField("seed")
    config.sampling.CopyFrom(first.accepted.sampling)
    again = await flat.ask(config)
    assert again.accepted.sampling == first.accepted.sampling
    assert (again.ids, again.text) == (first.ids, first.text)


async def test_without_a_seed_texts_differ(flat: Running) -> None:
    """Two requests without a seed are drawn apart."""
    config = pb.AnalysisConfig(prompt="Hello", sampling=pb.Sampling(temperature=1.0, max_tokens=40, min_tokens=40))
    one, other = await asyncio.gather(flat.ask(config), flat.ask(config))
    assert one.accepted.sampling.seed != other.accepted.sampling.seed
    assert one.text != other.text
