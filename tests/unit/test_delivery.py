"""Delivery: when collected tokens are due, and what one token event covers."""

import pytest

from mondrian_server.analyses.delivery import DeliveryPolicy, TokenBuffer


def buffer(
    *, interval_s: float = 1.0, max_tokens: int = 0, at_sentence_end: bool = False, details: bool = False
) -> TokenBuffer:
    """Return an empty buffer."""
    policy = DeliveryPolicy(interval_s=interval_s, max_tokens=max_tokens, at_sentence_end=at_sentence_end)
    return TokenBuffer(policy, details=details)


def started(
    *, interval_s: float = 1.0, max_tokens: int = 0, at_sentence_end: bool = False, details: bool = False
) -> TokenBuffer:
    """Return a buffer whose first token was sent at second 10."""
    b = buffer(interval_s=interval_s, max_tokens=max_tokens, at_sentence_end=at_sentence_end, details=details)
    b.add("The", 1, (3,), ())
    b.take(10.0)
    return b


def test_nothing_is_due_where_there_is_nothing() -> None:
    """An empty buffer has no due time."""
    assert buffer().due_in_s(10.0) is None
    assert buffer().is_empty


def test_the_first_token_is_due_at_once() -> None:
    """Nobody waits for an interval to see the first word."""
    b = buffer(interval_s=60.0)
    b.add("The", 1, (), ())
    assert b.due_in_s(10.0) == 0.0


def test_later_tokens_are_due_an_interval_after_the_last_event() -> None:
    """The interval counts from the last token event, not from the token."""
    b = started()
    b.add(" picture", 1, (), ())
    assert b.due_in_s(10.3) == pytest.approx(0.7)
    assert b.due_in_s(11.0) == pytest.approx(0.0)
    assert b.due_in_s(15.0) == pytest.approx(-4.0)


def test_an_interval_of_zero_is_each_engine_step() -> None:
    """Every addition is due at once."""
    b = started(interval_s=0.0)
    b.add(" picture", 1, (), ())
    due_in_s = b.due_in_s(10.0)
    assert due_in_s is not None and due_in_s <= 0


def test_so_many_tokens_are_due_at_once() -> None:
    """The limit counts tokens since the last event, those without text too."""
    b = started(max_tokens=3)
    b.add(" a", 1, (), ())
    b.add("", 1, (), ())
    assert b.due_in_s(10.1) == pytest.approx(0.9)
    b.add(" b", 1, (), ())
    assert b.due_in_s(10.1) == 0.0
    b.take(10.1)
    b.add(" c", 1, (), ())
    assert b.due_in_s(10.1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text",
    [
        "red.",
        "red!",
        "red?",
        "red… ",
        'red." ',
        "red.)",
        "red. And",
        "red.\nAnd",
        "a line\n",
        "根據您的問題。",
        "真的？是",
    ],
)
def test_the_end_of_a_sentence_is_due_at_once(text: str) -> None:
    """Sentence ends of several scripts, and ends of lines, count wherever they stand in what was collected."""
    b = started(at_sentence_end=True)
    b.add(text, 1, (), ())
    assert b.due_in_s(10.1) == 0.0


@pytest.mark.parametrize("text", ["red", "3.14 metres", "e.g, red", "a;b", "根據"])
def test_no_end_of_a_sentence_waits(text: str) -> None:
    """A full stop inside a number or a word ends no sentence."""
    b = started(at_sentence_end=True)
    b.add(text, 1, (), ())
    assert b.due_in_s(10.1) == pytest.approx(0.9)


def test_a_sentence_end_that_straddles_tokens_counts() -> None:
    """The full stop may come in one token and the quotation mark in the next."""
    b = started(at_sentence_end=True)
    b.add(" said 'red", 1, (), ())
    b.add(".", 1, (), ())
    b.add("' Then", 1, (), ())
    assert b.due_in_s(10.1) == 0.0


def test_sentence_ends_are_nothing_unless_asked_for() -> None:
    """Without the policy a sentence waits for its interval."""
    b = started()
    b.add("red.", 1, (), ())
    assert b.due_in_s(10.1) == pytest.approx(0.9)


def test_indices_have_no_gap() -> None:
    """Each event begins with the index after the last one of the event before, empty texts included."""
    b = buffer()
    covered: list[int] = []
    for texts in (["The"], [" pic", "", "ture"], [""], [" shows"]):
        for text in texts:
            b.add(text, 1, (), ())
        token = b.take(10.0)
        covered += range(token.first_index, token.first_index + token.token_count)
        assert token.text == "".join(texts)
    assert covered == list(range(6))


def test_text_that_was_held_back_covers_no_token() -> None:
    """Text without a token has the next index and a count of 0."""
    b = started()
    b.add("!", 0, (), ())
    token = b.take(11.0)
    assert (token.text, token.first_index, token.token_count) == ("!", 1, 0)


def test_a_token_without_text_is_due_only_with_details() -> None:
    """Half of a character is nothing to send, unless its id was asked for; the engine tells its id all the same."""
    plain = started(interval_s=0.0)
    plain.add("", 1, (7,), ())
    assert plain.due_in_s(10.0) is None
    assert not plain.is_empty
    detailed = started(interval_s=0.0, details=True)
    detailed.add("", 1, (7,), (-0.5,))
    due_in_s = detailed.due_in_s(10.0)
    assert due_in_s is not None and due_in_s <= 0


def test_a_token_without_text_goes_with_the_next_text() -> None:
    """The halves of a character come in one event, which covers both tokens."""
    b = started(interval_s=0.0)
    b.add("", 1, (), ())
    b.add("é", 1, (), ())
    token = b.take(10.0)
    assert (token.text, token.first_index, token.token_count) == ("é", 1, 2)


def test_details_keep_the_order_of_the_tokens() -> None:
    """Ids and log-probabilities of all tokens since the last event come in one event, and only once."""
    b = started()
    b.add("a", 1, (5,), (-0.1,))
    b.add("", 2, (6, 7), (-0.2, -0.3))
    token = b.take(11.0)
    assert token.ids == (5, 6, 7)
    assert token.log_probabilities == (-0.1, -0.2, -0.3)
    b.add("b", 1, (8,), (-0.4,))
    assert b.take(12.0).ids == (8,)


def test_a_restart_drops_what_was_not_sent_and_goes_on_with_the_next_index() -> None:
    """Text, count, ids and log-probabilities that were collected are gone; nothing is due until more comes."""
    b = started(interval_s=0.0)
    b.add(" pic", 2, (5, 6), (-0.1, -0.2))
    b.restart(1)
    assert b.is_empty
    assert b.due_in_s(20.0) is None
    b.add(" picture", 1, (8,), (-0.3,))
    assert b.due_in_s(20.0) == pytest.approx(-10.0)
    token = b.take(20.0)
    assert (token.text, token.first_index, token.token_count) == (" picture", 1, 1)
    assert (token.ids, token.log_probabilities) == ((8,), (-0.3,))
