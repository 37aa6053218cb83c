"""Advisors: the built-in ones, the operator's own, and one clear line for each fault of a file."""

from pathlib import Path

import pytest

from mondrian_server.advisors import Advisors
from mondrian_server.errors import StartupError
from mondrian_server.sampling import Sampling

BUILTIN = ["albers", "ansel", "mondrian"]
SHORT = """
[[advisors]]
id = "{id}"
instructions = "Look."
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """Where the test writes the operator's file."""
    return tmp_path / "advisors.toml"


def ids(advisors: Advisors) -> list[str]:
    """Return the ids in the order of the list."""
    return [advisor.id for advisor in advisors.list()]


def test_three_advisors_ship_with_mondrian() -> None:
    """Each built-in advisor has a name, a description and instructions."""
    advisors = Advisors.load()
    assert ids(advisors) == BUILTIN
    for advisor in advisors.list():
        assert advisor.display_name and advisor.description and advisor.instructions


def test_an_advisor_is_found_by_id_and_by_resource_name() -> None:
    """`ansel` and `advisors/ansel` are the same."""
    advisors = Advisors.load()
    assert advisors.get("ansel") is advisors.get("advisors/ansel")
    for name in ("", "advisors/", "Ansel", "advisors/advisors/ansel", "models/ansel"):
        with pytest.raises(KeyError):
            advisors.get(name)


def test_own_advisors_join_the_list_in_order(own_file: Path) -> None:
    """The operator's advisors stand among the others by their id; what they leave out is unset."""
    own_file.write_text(SHORT.format(id="zorn") + SHORT.format(id="avedon"))
    advisors = Advisors.load(own_file)
    assert ids(advisors) == ["albers", "ansel", "avedon", "mondrian", "zorn"]
    assert advisors.get("zorn").display_name == "zorn"
    assert advisors.get("zorn").sampling == Sampling()


def test_own_advisors_replace_built_in_ones(own_file: Path) -> None:
    """Of two advisors with one id the operator's counts, as a whole."""
    own_file.write_text(SHORT.format(id="ansel"))
    advisors = Advisors.load(own_file)
    assert ids(advisors) == BUILTIN
    assert (advisors.get("ansel").instructions, advisors.get("ansel").description) == ("Look.", "")


def test_every_sampling_default_can_be_set(own_file: Path) -> None:
    """An advisor may set all that a request may set."""
    own_file.write_text(
        SHORT.format(id="a")
        + "[advisors.sampling]\nmax_tokens = 9\nmin_tokens = 2\ntemperature = 1\ntop_p = 0.5\ntop_k = 3\nmin_p = 0.25\n"
        'repetition_penalty = 1.5\nseed = 7\nstop = ["\\n", "END"]\n'
    )
    assert Advisors.load(own_file).get("a").sampling == Sampling(
        max_tokens=9,
        min_tokens=2,
        temperature=1.0,
        top_p=0.5,
        top_k=3,
        min_p=0.25,
        repetition_penalty=1.5,
        seed=7,
        stop=("\n", "END"),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "advisors: is missing"),
        ("advisors = 1", "advisors: must be a valid array, not 1"),
        (SHORT.format(id="a") + 'mood = "calm"', "advisors[0].mood: there is no such setting"),
        (SHORT.format(id="a") + "[advisors.sampling]\nheat = 1", "advisors[0].sampling.heat: there is no such setting"),
        ('[[advisors]]\nid = "a"', "advisors[0].instructions: is missing"),
        (SHORT.format(id="A b"), "advisors[0].id: must match pattern"),
        (SHORT.format(id="a") + SHORT.format(id="a"), "advisors: the id 'a' is there twice"),
        (SHORT.format(id="a") + "[advisors.sampling]\ntop_p = 0", "advisors[0].sampling.top_p: must be greater than 0"),
        (SHORT.format(id="a") + "[advisors.sampling]\ntemperature = nan", "sampling.temperature: must be a finite"),
        (SHORT.format(id="a") + '[advisors.sampling]\nseed = "1"', "sampling.seed: must be a valid integer, not '1'"),
        (
            SHORT.format(id="a") + "[advisors.sampling]\nmax_tokens = 1\nmin_tokens = 2",
            "advisors[0].sampling: min_tokens must be at most max_tokens",
        ),
        ("[[advisors]", "is not TOML: "),
    ],
    ids=[
        "empty",
        "no table",
        "unknown key",
        "unknown sampling key",
        "no instructions",
        "bad id",
        "id twice",
        "out of bounds",
        "not a number",
        "mistyped",
        "contradiction",
        "malformed",
    ],
)
def test_faults_are_told_with_file_and_key(own_file: Path, text: str, fault: str) -> None:
    """A file with a fault is refused in one line."""
    own_file.write_text(text)
    with pytest.raises(StartupError) as caught:
        Advisors.load(own_file)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{own_file}: ") and fault in line


def test_a_missing_file_is_refused_by_its_setting(own_file: Path) -> None:
    """The line names the setting that named the file."""
    with pytest.raises(StartupError, match=r"^advisors_file: .* cannot be read: No such file or directory$"):
        Advisors.load(own_file)
