"""``report.html``: the page of a bulk in one file, with the API's answers in it, which asks nobody for anything."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Request, expect

from bulkscope_studio.rendering import frozen as rendering
from bulkscope_studio.services import frozen
from bulkscope_studio.storage.store import Store
from tests.processes import BIN, PATIENCE_S
from tests.rows import BEGIN_NS, SECOND, add, span
from tests.studio.sample import fill
from tests.studio.serving import Addresses, studio

ODD = "a/b </script><!-- & \u2028 ~*('!) 😀"
# What a page costs beside its data.
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frozen") / "s.duckdb"
    store = Store(path)
    fill(store.connection(), jobs=24)
    job = span("CONSUMER", BEGIN_NS, BEGIN_NS + SECOND, trace_id=f"{1:032x}", span_id=f"{1:016x}", bulk_id=ODD,
               job_id="</script>\u2029", outcome="ok", wait=0.1)  # fmt: skip
    add(store.connection(), "spans", [job])
    line = {
        "time_ns": BEGIN_NS,
        "bulk_id": ODD,
        "severity_number": 9,
        "body": "</SCRIPT><script>alert(1)</script>\u2028",
    }
    add(store.connection(), "logs", [line])
    store.close()
    return path


@pytest.fixture(scope="module")
def at(db: Path) -> Iterator[Addresses]:
    with studio(db, "--no-host", "--retention", "9000d") as found:
        yield found


def saved(*words: str) -> str:
    done = subprocess.run([BIN / "bulkscope", "report", *words], capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def data(document: str) -> dict[str, object]:
    (text,) = re.findall(r'<script type="application/json" id="frozen" data-bulk="[^"]*">(.*?)</script>', document)
    found: dict[str, object] = json.loads(text)
    return found


@pytest.mark.parametrize("name", ["sample-001", ODD])
def test_its_answers_are_those_of_the_api_and_the_command_saves_the_same(db: Path, at: Addresses, name: str) -> None:
    with httpx.Client(base_url=at.web, timeout=PATIENCE_S) as http:
        answer = http.get(f"/bulk/{quote(name, safe='')}/report.html")
        assert answer.headers["content-type"].startswith("text/html")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        answers = data(answer.text)
        assert len(answers) == len(frozen.questions())
        for url, found in answers.items():
            asked = http.get(url)
            assert (asked.status_code, asked.json()) == (200, found), url
        assert http.get("/bulk/none/report.html").status_code == 404
    assert saved(name, "--db", str(db), "--format", "html") == answer.text


def test_of_a_file_that_no_studio_holds_it_is_saved_too(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    store = Store(path)
    fill(store.connection(), bulks=1, jobs=6)
    expected = rendering.document(frozen.answers(store, "latest"))
    store.close()
    assert saved("latest", "--db", str(path), "--format", "html") == expected
    assert 'data-bulk="sample-001"' in expected


def test_nothing_in_it_ends_what_it_stands_in(at: Addresses) -> None:
    document = httpx.get(f"{at.web}/bulk/{quote(ODD, safe='')}/report.html", timeout=PATIENCE_S).text
    assert document.count("</script>") == 3
    assert "<!--" not in document
    inside = document[document.index('id="frozen"') :].partition(">")[2].partition("</script>")[0]
    assert not set(inside) & set("<>&\u2028\u2029")
    assert html.unescape(re.findall('data-bulk="([^"]*)"', document)[0]) == ODD
    assert "alert(1)" in json.dumps(data(document))


def test_its_own_part_is_small_and_the_same_each_time(at: Addresses) -> None:
    document = httpx.get(f"{at.web}/bulk/sample-001/report.html", timeout=PATIENCE_S).text
    inside = document[document.index('id="frozen"') :].partition("</script>")[0]
    assert len(document.encode()) - len(inside.encode()) < MOST_BYTES
    script = rendering.bundle(rendering.ENTRY)
    assert script in document
    assert re.match(r"/\*! with preact [\d.]+ \(MIT\), htm [\d.]+ \(Apache-2.0\) \*/", script)
    rendering.bundle.cache_clear()
    assert rendering.bundle(rendering.ENTRY) == script
    # No module names another address; what SVG and MathML are called is no address.
    assert set(re.findall(r"https?://[\w./-]+", script)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml", "http://www.w3.org/1998/Math/MathML",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("export let n = 1;\n", "'export let n = 1;'"), ("export * from \"./a.js\";\n", "'export * from"),
        ("const a = () => import(\"./a.js\");\n", "'import("), ("import \"./a.js\";\n", "'import \"./a.js\";'"),
        ("import { b } from \"./b.js\";\nexport const a = 1;\n", "modules import each other"),
        ("export const a = \"</script>\";\n", "ends a script in HTML"),
        ("import { c } from \"./c.js\";\n", "no static/c.js"),
    ],
)  # fmt: skip
def test_what_cannot_be_one_script_is_said(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    files = {"a.js": text, "b.js": 'import { a } from "./a.js";\nexport const b = a;\n'}

    def read(path: str) -> str:
        if path not in files:
            raise rendering.Unbundled(f"there is no static/{path}")
        return files[path]

    monkeypatch.setattr(rendering, "_read", read)
    with pytest.raises(rendering.Unbundled, match=re.escape(said)):
        rendering.bundle.__wrapped__("a.js")


def test_modules_keep_what_they_export(monkeypatch: pytest.MonkeyPatch, browser: Browser) -> None:
    files = {
        "a.js": (
            '// A comment.\nimport one, { two as zwei,\n  three } from "./x/b.js";\nimport * as all from "./x/b.js";\n'
            'import{again}from"./c.js";\n/** @type {import("./x/b.js").T} */\n'
            "globalThis.found = [one(), zwei, three(), new all.Four().five, again, Object.keys(all).sort().join()];\n"
        ),
        "x/b.js": (
            "export default function () { return 1; }\nexport const two = 2;\nexport async function three() {}\n"
            "class Four { five = 5; }\nconst hidden = 6;\nexport { Four, hidden as six };\n"
        ),
        "c.js": 'export { two as again } from "./x/b.js";\n',
    }
    monkeypatch.setattr(rendering, "_read", files.__getitem__)
    page = browser.new_page()
    page.evaluate(rendering.bundle.__wrapped__("a.js").strip().removesuffix(";"))
    found = page.evaluate("found.map(String)")
    page.close()
    assert found == ["1", "2", "[object Promise]", "5", "2", "Four,default,six,three,two"]


def _heard(asked: list[str], request: Request) -> None:
    asked.append(request.url)


def _complained(wrong: list[str], message: ConsoleMessage) -> None:
    if message.type == "error":
        wrong.append(message.text)


def _raised(wrong: list[str], error: Error) -> None:
    wrong.append(str(error))


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
def test_from_a_file_the_page_stands_and_asks_for_nothing(
    browser: Browser, db: Path, at: Addresses, tmp_path: Path, width: int, scheme: str
) -> None:
    for number, name in enumerate(("sample-001", ODD)):
        path = tmp_path / f"a report {number}.html"
        path.write_text(saved(name, "--db", str(db), "--format", "html"), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_offline(True)
        page = context.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", partial(_heard, asked))
        page.on("console", partial(_complained, wrong))
        page.on("pageerror", partial(_raised, wrong))
        page.goto(path.as_uri())
        expect(page.locator("h1")).to_have_text(name)
        expect(page.get_by_role("tab", name="Longest work")).to_be_visible()
        for tab in ("Longest work", "By worker", "Log", "Evidence", "Failed, by error"):
            page.get_by_role("tab", name=tab).click()
            expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")
            expect(page.get_by_text("holds no more than what it shows")).to_have_count(0)
        # Another page of a studio that is not there is not gone to.
        for link in page.locator('a[href^="/job"], a[href^="/bulk"], a[href^="/trace"]').all()[:3]:
            link.dispatch_event("click")
        assert page.url.startswith(path.as_uri())
        assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == []
        assert len([url for url in asked if not url.startswith("data:")]) == 1
        assert wrong == []
        page.evaluate("fetch('http://127.0.0.1:9/').catch(() => null)")
        assert "Content Security Policy" in wrong[0], "nothing could be asked, even by what we did not write"
        page_wide = page.evaluate("document.documentElement.scrollWidth")
        context.close()
        assert page_wide <= width


def test_markdown_has_a_row_for_each_worker_and_no_table_as_wide_as_they_are_many(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    store = Store(path)
    fill(store.connection(), bulks=1, jobs=300, workers=64)
    store.close()
    with studio(path, "--no-host", "--retention", "9000d") as at, httpx.Client(base_url=at.web, timeout=60) as http:
        answer = http.get("/api/v1/bulks/sample-001/report.md")
        workers = http.get("/api/v1/bulks/sample-001/workers").json()["workers"]
        assert answer.headers["content-type"].startswith("text/markdown")
    assert answer.text == saved("sample-001", "--db", str(path), "--format", "md")
    rows = [line for line in answer.text.splitlines() if line.startswith("| ")]
    assert max(line.count(" | ") for line in rows) <= 12
    assert len(workers) > 20
    for worker in workers:
        (row,) = (row for row in rows if row.startswith(f"| {worker['name']} |"))
        assert row.split(" | ")[1] == str(worker["jobs"]["done"])
