"""What is nothing to a clinician changes no card: order, pages, repetition, company, ids, the year
and the unit. Held for every chart there is.

In a plain run each vignette meets all changes at once, every tenth in pages too, and apart from
them another unit; with `--each-relation` every vignette meets each of them alone as well.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from random import Random
from urllib.parse import quote

import msgspec
import pytest

from cds_service.call_record import Reader
from cds_service.fhir_client import FhirClient, open_servers
from cds_service.fhir_endpoint import FhirEndpoint
from tests.charts import (
    Chart,
    exchange_charts,
    fixture_charts,
    foreign_charts,
    resources,
    templates,
    vignette_charts,
)
from tests.exchanges import Json
from tests.invariants import cards_of
from tests.loopback import serving
from tests.relations import IN_OTHER_UNITS, TO_THE_LETTER, Relation

requirement = pytest.mark.requirement
_NUMBER = re.compile(r"\d+(\.\d+)?")
_UNIT = re.compile(r"\[?IU\]?/L|U/L|ukat/L?")  # cut to its width
# A limit that was printed earlier counts "in the same unit" (section 3.3, line 19 of the clinical
# specification): in a chart of two units, one unit for all of it brings an older limit in.
BY_ITS_UNITS: Mapping[str, Sequence[str]] = {"limit-other-unit": ("lowAlpUnconfirmed info",)}


@cache
def charts() -> tuple[Chart, ...]:
    return (*fixture_charts(), *exchange_charts(), *foreign_charts())


@cache
def vignettes() -> tuple[Chart, ...]:
    return tuple(vignette_charts())


@pytest.fixture
def each_relation(pytestconfig: pytest.Config) -> bool:
    """Whether the vignettes meet the changes one by one."""
    return bool(pytestconfig.getoption("each_relation"))


# -- what is compared ------------------------------------------------------------------------------


def told(answer: Json) -> str:
    """The cards to the letter but for their uuids, and every verdict with its reason."""
    return msgspec.json.format(msgspec.json.encode(answer), indent=1).decode()


def without_amounts(said: str) -> str:
    """The same where amounts, which are shown in the unit of the report, are left out."""
    return _UNIT.sub("@", _NUMBER.sub("#", said))


_expected: dict[str, str] = {}


def expected(chart: Chart) -> str:
    """What is told of a chart as it is."""
    if chart.name not in _expected:
        _expected[chart.name] = told(chart.answer(chart.body))
    return _expected[chart.name]


def after(chart: Chart, relations: Sequence[Relation], fetcher: Reader | None = None) -> str:
    """What is told of a chart after some changes, in the chart's own names and years."""
    body, random = chart.body, Random(chart.name)
    steps = []
    for relation in relations:
        steps.append((relation, body))
        body = relation.change(body, random)
    reader = fetcher if body.get("fhirServer") != chart.body.get("fhirServer") else None
    said = told(chart.answer(body, reader, sum(x.years for x in relations)))
    for relation, before in reversed(steps):
        said = relation.back(said, before)
    return said


# -- to the letter ---------------------------------------------------------------------------------


class Pages(FhirEndpoint):
    """The Bundles of one call, each in two pages; of anything else there is nothing here."""

    def __init__(self, base_url: str) -> None:
        super().__init__([], base_url)
        self._base = base_url
        self._pages: dict[str, Json] = {}

    def split(self, chart: Chart, body: Json, most: int) -> Json:
        """The call with the first page of the longest Bundles, and where the rest is."""
        self._pages.clear()
        owner = quote(str(body["context"]["patientId"]).removeprefix("Patient/"), safe="")
        prefetch = dict(body.get("prefetch", {}))
        asked = templates(chart.service)
        long = [x for x in asked if isinstance(prefetch.get(x), dict) and _is_long(prefetch[x])]
        if not long:
            return body
        for key in sorted(long, key=lambda x: len(prefetch[x]["entry"]), reverse=True)[:most]:
            query = asked[key].replace("{{context.patientId}}", owner)
            rest = f"{query.partition('?')[0]}?rest={key}"
            prefetch[key] = self._put(query, rest, prefetch[key])
        return {**body, "prefetch": prefetch, "fhirServer": self._base}

    def _put(self, query: str, rest: str, found: Json) -> Json:
        half = len(found["entry"]) // 2
        first = {**found, "entry": found["entry"][:half]}
        first["link"] = [{"relation": "next", "url": f"{self._base}/{rest}"}]
        self._pages[query] = first
        self._pages[rest] = {**found, "entry": found["entry"][half:]}
        return first

    def answer(
        self, method: str, path: str, query: str, body: bytes = b"", prefer: str = ""
    ) -> tuple[int, bytes]:
        """A page that was put here; all else is not found."""
        page = self._pages.get(f"{path}?{query}")
        return (404, b"{}") if page is None else (200, json.dumps(page).encode())


def _is_long(value: Json) -> bool:
    """Whether a prefetch value is a whole Bundle of more than one entry."""
    entries = value.get("entry")
    links = [x.get("relation") for x in value.get("link", [])]
    return isinstance(entries, list) and len(entries) > 1 and "next" not in links


@pytest.fixture(scope="module")
def paged() -> Iterator[tuple[Pages, Reader]]:
    """A FHIR server for pages, and who reads it."""
    with serving(Pages) as server:
        assert isinstance(server.endpoint, Pages)
        yield server.endpoint, FhirClient({"": open_servers([server.base])})


def in_pages(pages: Pages, chart: Chart) -> Relation:
    """All Bundles in pages; of a vignette the longest, which costs half the time."""
    most = 1 if chart.is_vignette else 100
    return Relation("in pages", lambda body, random: pages.split(chart, body, most))


def differing(
    of: Sequence[Chart],
    relations: Sequence[Relation],
    paged: tuple[Pages, Reader] | None = None,
) -> list[str]:
    """The charts that are told otherwise after the changes, and after which of them alone."""
    found = []
    for chart in of:
        each = [*relations, *([in_pages(paged[0], chart)] if paged else [])]
        fetcher = paged[1] if paged else None
        if after(chart, each, fetcher) != expected(chart):
            alone = [x.name for x in each if after(chart, [x], fetcher) != expected(chart)]
            found.append(f"{chart.name}: {', '.join(alone) or 'all together'}")
    return found


@requirement("PFD-11", "PFD-15")
@pytest.mark.parametrize("relation", TO_THE_LETTER, ids=lambda x: x.name)
def test_every_chart_is_told_to_the_letter(relation: Relation) -> None:
    assert differing(charts(), [relation]) == []


@requirement("PFD-09", "PFD-15")
def test_every_chart_is_told_to_the_letter_from_pages(paged: tuple[Pages, Reader]) -> None:
    assert differing(charts(), [], paged) == []


@requirement("PFD-09", "PFD-11", "PFD-15")
def test_every_vignette_is_told_to_the_letter_after_all_changes_at_once(
    each_relation: bool, paged: tuple[Pages, Reader]
) -> None:
    read = vignettes()[:: 1 if each_relation else 10]  # reading takes longer than all else
    names = {x.name for x in read}
    sent = [x for x in vignettes() if x.name not in names]

    assert differing(read, TO_THE_LETTER, paged) == []
    assert differing(sent, TO_THE_LETTER) == []


@pytest.mark.parametrize("relation", TO_THE_LETTER, ids=lambda x: x.name)
def test_every_vignette_is_told_to_the_letter(each_relation: bool, relation: Relation) -> None:
    if not each_relation:
        pytest.skip("only with --each-relation: all at once is above")
    assert differing(vignettes(), [relation]) == []


# -- in other units --------------------------------------------------------------------------------


def told_in_units(chart: Chart, changed: Relation, same_numbers: Relation) -> bool:
    """Whether a chart is told the same but for the amounts; where a number that no decimals of the
    other unit can say decides, whether the number they do say is told so in both.
    """
    found = without_amounts(after(chart, [changed]))
    return found == without_amounts(expected(chart)) or found == without_amounts(
        after(chart, [same_numbers])
    )


def check_units(of: Sequence[Chart], changed: Relation, same_numbers: Relation) -> None:
    otherwise = [x for x in of if not told_in_units(x, changed, same_numbers)]

    assert [x.name for x in otherwise] == [x.name for x in of if x.name in BY_ITS_UNITS]
    for chart in otherwise:
        answer = chart.answer(changed.change(chart.body, Random(0)))
        assert cards_of(answer) == BY_ITS_UNITS[chart.name]


@pytest.mark.parametrize(("changed", "same_numbers"), IN_OTHER_UNITS, ids=lambda x: x.name)
def test_every_chart_is_told_alike_in_other_units(
    changed: Relation, same_numbers: Relation
) -> None:
    check_units(charts(), changed, same_numbers)


def test_every_vignette_is_told_alike_in_other_units() -> None:
    check_units(vignettes(), *IN_OTHER_UNITS[0])


def test_every_vignette_is_told_alike_with_its_limits_in_another_unit(each_relation: bool) -> None:
    few = vignettes()[:: 1 if each_relation else 5]
    check_units(few, *IN_OTHER_UNITS[1])


# -- that a difference would be seen ---------------------------------------------------------------


def one_chart(name: str) -> Chart:
    [found] = [x for x in charts() if x.name == name]
    return found


def test_every_chart_has_a_name_of_its_own() -> None:
    names = [x.name for x in (*charts(), *vignettes())]
    assert len(set(names)) == len(names) > 2000


@pytest.mark.parametrize("relation", TO_THE_LETTER, ids=lambda x: x.name)
def test_each_change_changes_nearly_every_call(relation: Relation) -> None:
    same = [x for x in charts() if relation.change(x.body, Random(x.name)) == x.body]

    assert len(same) < len(charts()) / 4


def on_every_result(change: Callable[[Json], None]) -> Relation:
    def changed(body: Json, random: Random) -> Json:
        found: Json = json.loads(json.dumps(body))
        for value in found["prefetch"].values():
            for x in resources(value):
                if x["resourceType"] == "Observation":
                    change(x)
        return found

    return Relation("not the same", changed)


def higher(result: Json) -> None:
    result["valueQuantity"]["value"] += 1


def of_somebody_else(result: Json) -> None:
    result["subject"] = {"reference": "Patient/somebody-else"}


def a_day_earlier(result: Json) -> None:
    result["effectiveDateTime"] = "2026-01-01"


@pytest.mark.parametrize("change", [higher, of_somebody_else, a_day_earlier])
def test_what_does_matter_is_seen(change: Callable[[Json], None]) -> None:
    chart = one_chart("low-alp-persistent")

    assert differing([chart], [on_every_result(change)]) == [f"{chart.name}: not the same"]


def test_what_is_on_the_second_page_matters(paged: tuple[Pages, Reader]) -> None:
    chart, (pages, _) = one_chart("low-alp-persistent"), paged

    assert after(chart, [in_pages(pages, chart)]) != expected(chart)
