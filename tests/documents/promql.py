"""PromQL as far as the documents use it: which metrics an expression names, with which labels."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"[^"]*")
    |(?P<range>\[[^\]]+\])
    |(?P<number>\d[\w.]*)
    |(?P<word>[a-zA-Z_:][\w:]*)
    |(?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},])""",
    re.VERBOSE,
)
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = _LISTS | {"and", "or", "unless", "bool", "offset"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """`label="value"`, by whichever operator."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric, and what its labels must be."""

    metric: str
    matchers: tuple[Matcher, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """What an expression names: metrics with matchers, the labels that it groups or joins by, and functions."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]
    functions: frozenset[str]


def parse(text: str) -> Expression:
    """Return what an expression names; raises ValueError for what is no token, and for brackets that do not match."""
    tokens = list(_tokens(text))
    if any(tokens.count(left) != tokens.count(right) for left, right in ("()", "{}")):
        raise ValueError(f"brackets do not match: {text}")
    selectors: list[Selector] = []
    labels: set[str] = set()
    functions: set[str] = set()
    place = 0
    while place < len(tokens):
        token, after = tokens[place], tokens[place + 1] if place + 1 < len(tokens) else ""
        place += 1
        if token in _LISTS and after == "(":
            end = tokens.index(")", place)
            labels.update(tokens[place + 1 : end : 2])
            place = end + 1
        elif not token[0].isalpha() or token in _WORDS:
            continue
        elif after == "(" or after in _LISTS:
            functions.add(token)
        else:
            end = tokens.index("}", place) if after == "{" else place
            selectors.append(Selector(token, tuple(_matchers(tokens[place + 1 : end]))))
            place = end
    return Expression(tuple(selectors), frozenset(labels), frozenset(functions))


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"no PromQL at {text[place:]!r}")
        place = found.end()
        if found.lastgroup != "space":
            yield found.group()


def _matchers(tokens: list[str]) -> Iterator[Matcher]:
    for place in range(0, len(tokens), 4):
        label, operator, value = tokens[place : place + 3]
        yield Matcher(label, operator, value.strip('"'))
