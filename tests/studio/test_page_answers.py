"""Pages of capacity, comparison and models: the sentence of the terminal first, then numbers that the API has."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from bulkscope_studio.storage.store import Store
from bulkscope_studio.text.wording import number
from tests.studio.sample import fill
from tests.studio.serving import Addresses, asked, studio

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    db = tmp_path_factory.mktemp("answers") / "s.duckdb"
    store = Store(db)
    fill(store.connection(), bulks=4, jobs=120)
    store.close()
    with studio(db, "--no-host", "--retention", "9999d") as running:
        yield running


def test_a_comparison_is_led_by_its_cautions_and_its_answer(page: Page, filled: Addresses) -> None:
    page.goto(f"{filled.web}/compare")
    expect(page.get_by_text("Choose two bulks")).to_be_visible()
    page.get_by_label("A", exact=True).fill("sample-001")
    page.get_by_label("B", exact=True).fill("sample-002")
    page.get_by_role("button", name="Compare").click()
    expect(page).to_have_url(re.compile("a=sample-001&b=sample-002"))
    found = asked(filled, "/compare", a="sample-001", b="sample-002")
    expect(page.get_by_text(found["answer"])).to_be_visible()
    for caution in found["cautions"]:
        expect(page.get_by_text(caution["text"])).to_be_visible()
    rows = page.get_by_role("table", name="ratios of B to A").locator("tbody tr")
    expect(rows).to_have_count(len(found["rows"]))
    for n, row in enumerate(found["rows"]):
        expect(rows.nth(n)).to_contain_text(row["verdict"])
        if row["effect"] is not None and row["kind"] == "ratio":
            whisker = rows.nth(n).locator(".whisker")
            # Where the interval is left of the middle, B needs less: the drawing says what the number says.
            left = float(whisker.locator(".at").evaluate("each => parseFloat(each.style.left)"))
            assert (left < 50) == (row["effect"]["value"] < 1)
    page.get_by_role("button", name="Swap").click()
    expect(page).to_have_url(re.compile("a=sample-002&b=sample-001"))


def test_capacity_answers_in_one_sentence_and_asks_what_the_address_asks(page: Page, filled: Addresses) -> None:
    page.goto(f"{filled.web}/capacity?target=30s")
    found = asked(filled, "/capacity/curve", target="30s")
    expect(page.locator(".lead")).to_have_text(found["answer"])
    expect(page.locator("canvas")).to_have_count(1 if found["curves"] else 0)
    slots = page.get_by_role("slider", name=re.compile("concurrency slots"))
    slots.fill("3")
    expect(page).to_have_url(re.compile("slots=3"))
    other = asked(filled, "/capacity/curve", target="30s", workers=3)
    expect(page.locator(".lead")).to_have_text(other["answer"])
    page.get_by_text("What is sustained, and what fits").click()
    pools = asked(filled, "/capacity", workers=3, slo="30s")["pools"]
    expect(page.locator("details h3")).to_have_count(len(pools))
    expect(page.locator("details h3").first).to_contain_text(pools[0]["queues"][0])


def test_models_are_those_of_the_api_and_a_point_leads_to_its_job(page: Page, filled: Addresses) -> None:
    page.goto(f"{filled.web}/models")
    found = asked(filled, "/models")["models"]
    table = page.get_by_role("table", name="models")
    for model in found:
        row = table.locator("tbody tr", has_text=model["name"]).first
        expect(row).to_contain_text(number(model["count"]))
        expect(row).to_contain_text(number(model["output_tokens"]))
    page.get_by_text("As a table").click()
    link = page.get_by_role("table", name=re.compile("30 points")).get_by_role("link").first
    job = link.inner_text()
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(job)
    page.go_back()
    page.get_by_role("button", name=found[0]["name"]).click()
    expect(page).to_have_url(re.compile("model="))
    points = asked(filled, "/models/points", model=found[0]["name"])
    expect(page.get_by_text(f"of {number(points['inferences'])} inferences")).to_be_visible()
