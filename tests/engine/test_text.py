"""Text is whole at every cut and ends before its stop string, however tokens cut it."""

import random
from collections.abc import Sequence

import pytest

from mondrian_server.engine.process.text import TextAssembler

SAMPLE = "héllo 根據您的問題 💭, naïve façade — конец"


def _cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Cut bytes into pieces of 0 to 5."""
    pieces: list[bytes] = []
    while data:
        size = chance.randrange(6)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def _assemble(pieces: Sequence[bytes], stops: Sequence[str] = ()) -> tuple[str, str]:
    """Return the whole text and the stop string."""
    assembler, text = TextAssembler(stops), ""
    for piece in pieces:
        result = assembler.push(piece)
        text += result.text
        if result.stop:
            return text, result.stop
    return text + assembler.finish(), ""


def _by_character(text: str, stops: Sequence[str]) -> tuple[str, str]:
    """Say what is right, in the simplest way: read characters until a stop string is complete."""
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, ""


def test_any_cut_gives_the_same_text() -> None:
    """Characters cut in half by tokens come out whole."""
    chance = random.Random(1)
    for _ in range(300):
        assert _assemble(_cut(SAMPLE.encode(), chance)) == (SAMPLE, "")


def test_each_piece_is_valid_when_it_comes() -> None:
    """Half a character is held back, not replaced."""
    assembler = TextAssembler(())
    assert [assembler.push(bytes([byte])).text for byte in "💭é".encode()] == ["", "", "", "💭", "", "é"]


def test_an_incomplete_last_character_is_dropped() -> None:
    """A text that ends inside a character ends before it."""
    for cut in range(1, 4):
        assert _assemble([b"so " + "💭".encode()[:cut]]) == ("so ", "")


def test_random_bytes_never_give_a_replacement_character() -> None:
    """Bytes that are no text are dropped; what is left encodes to a subsequence of them."""
    chance = random.Random(2)
    for _ in range(300):
        data = chance.randbytes(40)
        text, _ = _assemble(_cut(data, chance))
        assert "\ufffd" not in text
        rest = iter(data)
        assert all(byte in rest for byte in text.encode())


def test_a_replacement_character_that_was_spelled_stays() -> None:
    """U+FFFD that the model wrote itself is text like any other."""
    assert _assemble([b"a", "\ufffd".encode(), b"b"]) == ("a\ufffdb", "")


@pytest.mark.parametrize(
    ("stops", "spelled", "text", "stop"),
    [
        (("END",), "so it is END of it", "so it is ", "END"),
        (("",), "all of it", "all of it", ""),
        (("aab",), "aaab", "a", "aab"),
        (("abc", "b"), "abc", "a", "b"),
        (("xabc", "abc"), "xabc", "", "xabc"),
        (("abcd", "bc"), "zabcd", "za", "bc"),
        (("\n\n",), "one\ntwo\n\nthree", "one\ntwo", "\n\n"),
        (("💭",), "so 💭 it", "so ", "💭"),
        (("END",), "EN", "EN", ""),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_the_text_ends_before_the_first_stop_string_to_be_complete(
    stops: tuple[str, ...], spelled: str, text: str, stop: str
) -> None:
    """The match that is complete first counts, and the longest of those complete at once, at any cut."""
    chance = random.Random(3)
    for _ in range(50):
        assert _assemble(_cut(spelled.encode(), chance), stops) == (text, stop)


def test_any_cut_gives_the_same_stop() -> None:
    """Where a text stops depends on its characters alone."""
    chance = random.Random(4)
    for _ in range(3000):
        spelled = "".join(chance.choices("abé", k=chance.randrange(1, 14)))
        stops = ["".join(chance.choices("abé", k=chance.randrange(1, 5))) for _ in range(chance.randrange(4))]
        assert _assemble(_cut(spelled.encode(), chance), stops) == _by_character(spelled, stops)


def test_no_text_comes_that_a_stop_string_would_take_back() -> None:
    """Whatever has been let go of is part of the final text, and no more is held back than could be taken."""
    chance = random.Random(5)
    for _ in range(1000):
        spelled = "".join(chance.choices("ab", k=12))
        stops = ["".join(chance.choices("ab", k=chance.randrange(2, 5))) for _ in range(2)]
        final, _ = _by_character(spelled, stops)
        assembler, text = TextAssembler(stops), ""
        for n, character in enumerate(spelled):
            result = assembler.push(character.encode())
            text += result.text
            assert final.startswith(text)
            if result.stop:
                break
            held = spelled[len(text) : n + 1]
            assert not held or any(stop.startswith(held) for stop in stops)


def test_a_stop_string_does_not_count_before_it_may() -> None:
    """A match that is complete while stopping is forbidden is text; a later one counts."""
    assembler = TextAssembler(["ab"])
    assert assembler.push(b"xab", may_stop=False).text == "xab"
    assert (piece := assembler.push(b"yabz")).text == "y"
    assert piece.stop == "ab"


def test_a_stop_string_that_began_before_it_may_count_is_found() -> None:
    """What matters is when a match is complete."""
    assembler = TextAssembler(["ab"])
    assert assembler.push(b"xa", may_stop=False).text == "x"
    assert assembler.push(b"b").stop == "ab"


def test_a_short_stop_string_inside_what_is_held_back_does_not_count_later() -> None:
    """A match that was complete while stopping was forbidden stays text, also while it is held back."""
    assembler = TextAssembler(["ab", "xaby"])
    assert assembler.push(b"xab", may_stop=False).text == ""
    assert (piece := assembler.push(b"z")).stop == ""
    assert piece.text == "xabz"
