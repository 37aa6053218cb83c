"""Metrics: the page, the dashboard and the alerts speak of what a real scrape has, and of all of it."""

import json
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mondrian.v1 import analysis_pb2 as pb
from mondrian_server.metrics import process_metrics, versions
from tests.checkpoints import EMBEDDED
from tests.conditions import eventually
from tests.documents.promql import Expression, parse
from tests.service.calls import Running, settings_for, started
from tests.service.scrapes import parsed

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana" / "mondrian.json").read_text(encoding="utf-8"))
ALERTS = (DOCS / "prometheus" / "alerts.yml").read_text(encoding="utf-8")

PROMETHEUS_LABELS = {"job", "instance"}
"""What Prometheus adds to each sample."""

FUNCTIONS = {"histogram_quantile", "increase", "max", "min", "min_over_time", "rate", "sum"}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its kind, and the labels that its samples have beside a bucket's end."""

    kind: str
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Exposed:
    """A real scrape: families by the names that the page uses, and all values of each label of each sample's name."""

    families: dict[str, Family]
    values: dict[str, dict[str, set[str]]]


@pytest_asyncio.fixture(scope="module")
async def exposed(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Exposed]:
    """What a service exposes after a completed analysis of a picture, a failed one and a cancelled one."""
    picture = min((EMBEDDED / "samples").glob("*.jpg")).read_bytes()
    async with started(settings_for(tmp_path_factory.mktemp("data"))) as up:
        short = pb.Sampling(max_tokens=4)
        await up.ask(pb.AnalysisConfig(prompt="What is it?", images=[pb.Image(data=picture)], sampling=short))
        await up.ask(pb.AnalysisConfig(prompt="What is it?", images=[pb.Image(data=b"no picture")]))
        call = up.call(pb.AnalysisConfig(prompt="Go on.", sampling=pb.Sampling(min_tokens=900, max_tokens=900)))
        await call.until_token()
        call.cancel()
        await eventually(lambda: has_looked_around(up), within_s=30.0)
        yield read(up.service.metrics())


def has_looked_around(up: Running) -> bool:
    """Return whether the processes were looked at since the engine runs."""
    return b'resident_memory_bytes{process="engine"}' in up.service.metrics()


def read(text: bytes) -> Exposed:
    """Return the families of a scrape, named as in their TYPE lines."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text.decode(), re.MULTILINE))
    values: dict[str, dict[str, set[str]]] = {}
    for name, labels in parsed(text).samples:
        found = values.setdefault(name, {})
        for label, value in labels:
            found.setdefault(label, set()).add(value)
    families: dict[str, Family] = {}
    for name, kind in kinds.items():
        sample = f"{name}_count" if kind == "histogram" else name
        families[name] = Family(kind, frozenset(values[sample]))
    return Exposed(families, values)


def documented() -> dict[str, Family]:
    """Return the metrics of the page's tables."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|(.*?)\| .+ \|$", PAGE, re.MULTILINE)
    found = {name: Family(kind, frozenset(re.findall(r"`([a-z_]+)`", labels))) for name, kind, labels in rows}
    assert len(found) == len(rows), "a metric stands twice on the page"
    return found


def test_the_page_has_every_metric_and_no_other(exposed: Exposed) -> None:
    """Names, kinds and labels on the page are those of a real scrape."""
    page = documented()
    assert page.keys() == exposed.families.keys()
    assert page == exposed.families


def test_a_process_without_a_service_tells_of_itself_alone() -> None:
    """A gateway on its own exposes what the page says: what runs, and its own process."""
    names = set(read(process_metrics(versions())()).families)
    assert names - {name for name in documented() if name.startswith("process_")} == {"mondrian_build_info"}


def test_names_follow_the_conventions(exposed: Exposed) -> None:
    """Counters end in `_total`, nothing else does, and times and sizes are in seconds and bytes."""
    for name, family in exposed.families.items():
        assert name.endswith("_total") == (family.kind == "counter"), name
        assert family.kind != "histogram" or name.endswith("_seconds"), name
        assert not re.search(r"_(ms|s|milliseconds|kb|mb|mib|percent)(_|$)", name), name


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression of the dashboard and of the alerts, with where it stands."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for alert, text in re.findall(r"- alert: (\w+)\n +expr: (?:>-\n)?((?:.|\n)+?)\n +(?:for|labels):", ALERTS):
        yield alert, " ".join(text.split())


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard, headings of rows left out."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_every_expression_asks_for_what_there_is(exposed: Exposed) -> None:
    """Metrics, labels and the values that are asked for by name exist in a real scrape."""
    found = list(expressions())
    assert len(found) > 60
    for place, text in found:
        expression = parse(text)
        assert expression.selectors, place
        assert expression.functions <= FUNCTIONS, place
        check(place, expression, exposed)


def check(place: str, expression: Expression, exposed: Exposed) -> None:
    """Hold one expression against a scrape."""
    there = set(PROMETHEUS_LABELS)
    for selector in expression.selectors:
        if selector.metric == "up":
            continue  # Prometheus's own.
        assert selector.metric in exposed.values, f"{place}: {selector.metric}"
        labels = exposed.values[selector.metric]
        there |= labels.keys()
        for matcher in selector.matchers:
            assert matcher.label in labels.keys() | PROMETHEUS_LABELS, f"{place}: {matcher}"
            if matcher.operator == "=":
                assert matcher.value in labels[matcher.label], f"{place}: {matcher}"
    assert expression.labels <= there, f"{place}: {expression.labels - there}"


def test_every_metric_is_on_the_dashboard(exposed: Exposed) -> None:
    """Nothing is measured that nobody looks at, but for details of the process that the platform adds."""
    shown = {selector.metric for _, text in expressions() for selector in parse(text).selectors}
    names = {name for name in exposed.families if name.startswith("mondrian_")}
    hidden = {name for name in names if not any(metric.startswith(name) for metric in shown)}
    assert hidden == set()


def test_every_panel_says_what_it_shows_and_chooses_its_servers() -> None:
    """Each panel has a description and a unit, asks the chosen data source, and keeps to the chosen servers."""
    assert len(panels()) >= 30
    for panel in panels():
        assert len(panel["description"]) > 20, panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            for selector in parse(target["expr"]).selectors:
                chosen = {(matcher.label, matcher.operator, matcher.value) for matcher in selector.matchers}
                assert {("job", "=~", "$job"), ("instance", "=~", "$instance")} <= chosen, panel["title"]
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    """Each place of the grid has one panel at most, and each panel its own id."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        places = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not places & taken, panel["title"]
        taken |= places
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_the_page_leads_to_panels_and_alerts_that_there_are() -> None:
    """Every panel that the page names is on the dashboard, and every alert of the rules stands on the page."""
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    questions = PAGE.partition("| question | row, panel |")[2].partition("## Alerts")[0]
    places = [cells.split(" | ")[1] for cells in questions.splitlines() if cells.startswith("| ") and "?" in cells]
    assert len(places) >= 10
    for place in places:
        named = re.findall(r"\*([^*]+)\*", place) + [part.partition(":")[0].strip() for part in place.split(";")]
        assert set(named) <= titles, place
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert sorted(alerts) == sorted(re.findall(r"^\| (Mondrian\w+) \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "fault"), [("sum(rate(x[5m])", "brackets"), ("x{a=#}", "no PromQL"), ("a $ b", "no PromQL")]
)
def test_what_is_no_promql_is_refused(text: str, fault: str) -> None:
    """The parser of these tests refuses what it does not know."""
    with pytest.raises(ValueError, match=fault):
        parse(text)


def test_the_parser_finds_metrics_matchers_and_labels() -> None:
    """Of an expression it gives what stands in it, and takes neither functions nor labels for metrics."""
    expression = parse('sum by (le, job) (rate(a_bucket{x="1", y!~"b c"}[5m])) / on (z) group_left () b > 0.5')
    assert [selector.metric for selector in expression.selectors] == ["a_bucket", "b"]
    assert [matcher.label for matcher in expression.selectors[0].matchers] == ["x", "y"]
    assert expression.labels == {"le", "job", "z"}
    assert expression.functions == {"sum", "rate"}
