"""What the page of a topic shows: readable situations, the parts of a question, numbers in groups,
and the codes.
"""

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from markupsafe import escape

from cds_service.app import create_app
from cds_service.config import Settings
from cds_service.loading import load_content

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
TOPICS = sorted(load_content(HOOKS).topics())
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@cache
def client(site: Path | None = None) -> FlaskClient:
    return create_app(Settings(site_file=site), now=lambda: NOON).test_client()


def page(topic: str) -> str:
    """The page, its blanks as a reader sees them."""
    text = client().get(f"/topics/{topic}", headers={"Accept": "text/html"}).get_data(as_text=True)
    return re.sub(r"\s+", " ", text)


def shown(topic: str, site: Path | None = None) -> Any:
    return client(site).get(f"/topics/{topic}?format=json").get_json()


@pytest.mark.parametrize("topic", TOPICS)
def test_a_situation_has_a_heading_in_words_and_not_its_name(topic: str) -> None:
    html = page(topic)
    for situation in shown(topic)["situations"]:
        assert situation["when"] != situation["name"].replace("-", " ")
        assert f"<h3>{situation['when']}".replace("'", "&#39;") in html


@pytest.mark.parametrize("topic", TOPICS)
def test_a_name_in_a_card_says_which_words_may_fill_it(topic: str) -> None:
    html, fillings = page(topic), shown(topic)["fillings"]
    for filling in fillings:
        assert all(f"“{escape(x.lstrip(', '))}”" in html for x in filling["words"])
    names = {"plp_test", "cause", "drugs"} if topic == "lowAlpPersistent" else set()
    assert names <= {x["name"] for x in fillings}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_set_counts_what_it_lists_and_lists_it_closed(topic: str) -> None:
    html = page(topic)
    assert "<details open" not in html and "<script" not in html
    assert not re.search(r"\b0 (codes?|groups?|text)|, and text|\b1 codes|\b1 groups", html)
    for used in shown(topic)["valueSets"]:
        kinds = [x["kind"] for x in used["members"] if not x["excluded"]]
        assert len([x for x in kinds if x != "code"]) == used["groups"]
        assert kinds.count("code") >= used["codes"]
        assert used["members"] or used["text"]
        assert bool(used["text"]) == used["textIsRead"]
        for member in used["members"]:
            assert member["code"].replace("'", "&#39;") in html


def test_a_code_is_shown_with_its_system_and_what_it_means() -> None:
    html = page("lowAlpPersistent")
    assert re.search(r"SNOMED CT</td> <td><code>890095006</code></td> <td>Atypical fracture", html)
    assert re.search(r"ICD-10-CM</td> <td><code>M84.75…</code></td> <td>every code that beg", html)
    assert "4 codes, 1 group of codes, words" in html and "words only" in html


def test_a_code_of_the_site_is_listed_too(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[codes]\nobs-ggt = { codings = [{ system = "urn:our-lab", code = "G1" }] }\n')
    [used] = [x for x in shown("raisedAlpSourceUnknown", site)["valueSets"] if x["id"] == "obs-ggt"]
    first = used["members"][0]
    assert (first["system"], first["code"]) == ("urn:our-lab", "G1")


def test_the_hardest_question_shows_what_it_consists_of_and_compares() -> None:
    [first, *_] = shown("lowAlpPersistent")["questions"]
    assert first["text"].startswith("Is the ALP persistently low")
    assert "Is the latest ALP (off antiresorptives) low" in first["behind"][0]["text"]
    assert "how many low readings make a persistently low ALP: 2" in first["numbers"]
    assert not set(first["numbers"]) & set(first["behind"][0]["numbers"])


@pytest.mark.parametrize("topic", TOPICS)
def test_shared_numbers_stand_in_groups_after_the_row_s_own(topic: str) -> None:
    limits = shown(topic)["limits"]
    assert [x["own"] for x in limits] == sorted((x["own"] for x in limits), reverse=True)
    groups = [x["about"] for x in limits if not x["own"]]
    assert groups and all(groups)
    assert [x for i, x in enumerate(groups) if x not in groups[:i]] == [
        x for i, x in enumerate(groups) if i == 0 or x != groups[i - 1]
    ]
    assert page(topic).count('class="group"') == len(set(groups))
