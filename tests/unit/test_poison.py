"""Poison: whoever crashes the engine again and again is found, and harms nobody else."""

from mondrian_server import errors
from mondrian_server.engine.interface import EngineState
from mondrian_server.events import Completed, Failed, Progress, Stage
from tests.conditions import eventually
from tests.unit.office import Office, Offices
from tests.unit.stand_ins import GatedDecoder, done, stage, tokens


def generate(office: Office, prompt: str, *ids: int) -> None:
    """Let the engine give one token for each id to the newest row of a prompt."""
    row = office.row_of(prompt)
    office.step(stage(row, Stage.PREFILL), stage(row, Stage.GENERATING))
    for id_ in ids:
        office.step(tokens(row, f"{id_} ", ids=(id_,)))


async def test_the_third_crash_alone_fails_it_and_the_others_complete(offices: Offices) -> None:
    """Beside others it crashes the engine twice, alone a third time; then it is over, and the others go on."""
    office = await offices.open(lookahead=1)
    names = {prompt: await office.create(prompt) for prompt in ("poison", "one", "two", "three")}
    generate(office, "poison")
    generate(office, "one", 1)
    office.crash()
    assert office.engine.prompts[3:] == ["poison", "one", "two"]
    generate(office, "poison")
    generate(office, "one", 2)
    office.crash()
    assert office.engine.prompts[6:] == ["poison"], "the suspect runs alone, though it was not the only one in hand"
    assert office.scheduler.rows_held == 1
    office.crash()
    failed = await office.last(names["poison"], Failed)
    assert isinstance(failed.error, errors.EngineCrashed)
    assert "3 times" in failed.error.message
    for prompt in ("one", "two", "three"):
        generate(office, prompt, 3)
        office.step(done(office.row_of(prompt)))
    texts = [(await office.last(names[prompt], Completed)).text for prompt in ("one", "two", "three")]
    assert texts == ["1 2 3 ", "3 ", "3 "]
    assert office.holds_nothing()


async def test_a_restart_of_the_server_forgets_no_crash(offices: Offices) -> None:
    """Two crashes before it and one after it are three; a token in between, or a restart by itself, counts for none."""
    office = await offices.open()
    names = {prompt: await office.create(prompt) for prompt in ("poison", "other")}
    for _ in range(2):
        generate(office, "poison")
        generate(office, "other", 1)
        office.crash()
    for _ in range(2):
        office = await offices.reopen()
    office.engine.become(EngineState.READY)
    assert office.engine.prompts == ["poison"], "the suspect runs alone"
    office.crash()
    failed = await office.last(names["poison"], Failed)
    assert isinstance(failed.error, errors.EngineCrashed)
    generate(office, "other", 3)
    office.step(done(office.row_of("other")))
    assert (await office.last(names["other"], Completed)).text == "1 1 3 "
    assert office.holds_nothing()


async def test_the_last_crash_says_nothing_of_a_continuation(office: Office) -> None:
    """Two crashes are told as two continuations; after the third comes the end."""
    name = await office.create()
    for _ in range(3):
        generate(office, "?")
        office.crash()
    payloads = await office.payloads(name)
    said = [p for p in payloads if isinstance(p, Progress) and p.message.startswith("Continuing")]
    assert [progress.continuations for progress in said] == [1, 2]
    before_the_end = payloads[-2]
    assert isinstance(before_the_end, Progress)
    assert before_the_end.stage is Stage.GENERATING
    assert office.holds_nothing()


async def test_a_token_in_each_life_is_progress_for_ever(office: Office) -> None:
    """One that gets a token further with each engine is neither a suspect nor ended, however often engines die."""
    name = await office.create("steady")
    for id_ in range(10):
        generate(office, "steady", id_)
        office.crash()
    await office.create("beside")
    assert office.engine.prompts[-2:] == ["steady", "beside"]
    assert office.engine.submitted[-2].prior_ids == tuple(range(10))
    office.step(done(office.row_of("steady")))
    assert (await office.last(name, Completed)).text == "".join(f"{id_} " for id_ in range(10))


async def test_a_suspect_that_gets_a_token_has_company_again(offices: Offices) -> None:
    """With its first kept token it is no suspect any more, and those who waited for it start at once."""
    office = await offices.open()
    await office.create("slow")
    await office.create("other")
    for _ in range(2):
        generate(office, "slow")
        generate(office, "other", 7)
        office.crash()
    assert office.engine.prompts[-1] == "slow"
    assert office.scheduler.rows_held == 1
    generate(office, "slow", 1)
    assert office.engine.prompts[-1] == "other"
    assert office.scheduler.rows_held == 2


async def test_failed_starts_are_nobodys_fault(office: Office) -> None:
    """An engine that is lost before it was ready had nothing in hand, however often that happens."""
    name = await office.create()
    office.engine.die()
    for failures in range(1, 6):
        office.engine.become(EngineState.LOADING)
        office.engine.die(failures=failures)
    office.engine.become(EngineState.READY)
    assert (await office.progress(name))[-1].continuations == 1
    assert office.engine.prompts == ["?", "?"]


async def test_a_row_whose_image_is_decoded_bears_no_guilt(offices: Offices) -> None:
    """The engine never had it, so its death is not its fault."""
    decoder = GatedDecoder(is_open=False)
    office = await offices.open(decoder=decoder)
    name = await office.create("pictured", b"x")
    for _ in range(4):
        office.crash()
    assert office.service.live == 1
    assert all(progress.continuations == 0 for progress in await office.progress(name))
    decoder.gate.set()
    await eventually(lambda: office.engine.prompts == ["pictured"])


async def test_pictures_go_to_every_engine(office: Office) -> None:
    """After a loss the next engine gets the pictures again, though they were decoded once."""
    await office.create("?", b"first", b"second")
    await eventually(lambda: office.engine.submitted)
    generate(office, "?")
    office.crash()
    await eventually(lambda: len(office.engine.submitted) == 2)
    assert [[picture.digest for picture in submit.pictures] for submit in office.engine.submitted] == [
        [b"first", b"second"],
        [b"first", b"second"],
    ]


async def test_what_the_engine_had_not_begun_with_is_not_to_blame(offices: Offices) -> None:
    """A crash counts for what the engine had begun with; if that was nothing, for the one that came first."""
    office = await offices.open()
    for prompt in ("first", "second"):
        await office.create(prompt)
    generate(office, "second")
    office.crash()
    assert crashes(office, "first", "second") == [0, 1]
    office.crash()
    assert crashes(office, "first", "second") == [1, 1]


async def test_an_engine_that_somebody_killed_is_nobodys_fault(office: Office) -> None:
    """However often the engine is killed from outside, what it had goes on, and stays no suspect."""
    name = await office.create("steady")
    for _ in range(5):
        generate(office, "steady")
        office.crash(killed_from_outside=True)
    assert crashes(office, "steady") == [0]
    generate(office, "steady", 1)
    office.step(done(office.row_of("steady")))
    assert (await office.last(name, Completed)).text == "1 "


def crashes(office: Office, *prompts: str) -> list[int]:
    """Return how often the engine has crashed over the analyses with these prompts, which it has in hand."""
    holders = [office.scheduler.holder(office.row_of(prompt)) for prompt in prompts]
    return [holder.crashes for holder in holders if holder]
