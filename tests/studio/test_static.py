"""The files of the pages: libraries are what npm has, types hold, and numbers are written as in the terminal."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from bulkscope_studio.rendering.ending import rough
from bulkscope_studio.server import web
from bulkscope_studio.text import wording
from studio import vendor
from tests import npm
from tests.studio.serving import studio

STUDIO = Path(__file__).resolve().parents[2] / "studio"
STATIC = STUDIO / "bulkscope_studio" / "static"
PACKAGES = json.loads(vendor.LIST.read_text())
LICENCES = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MPL-2.0"}


def test_the_libraries_are_those_of_the_list_and_no_others() -> None:
    listed = {name: sha for package in PACKAGES for name, sha in package["sha256"].items()}
    there = {path.name: path for path in vendor.LIB.iterdir() if path.suffix in (".js", ".css", ".LICENSE")}
    assert listed.keys() == there.keys()
    for name, path in there.items():
        assert vendor.sha256(path.read_bytes()) == listed[name], name
    assert {package["licence"] for package in PACKAGES} <= LICENCES
    for package in PACKAGES:
        assert [name for name in package["files"] if name.endswith(".LICENSE")]


@pytest.mark.compat
@pytest.mark.parametrize("package", PACKAGES, ids=[package["name"] for package in PACKAGES])
def test_the_libraries_are_what_npm_has(package: dict[str, object]) -> None:
    for name, content in vendor.fetched(package).items():
        assert content == (vendor.LIB / name).read_bytes(), name


@pytest.mark.compat
def test_types_hold(tmp_path: Path) -> None:
    wanted = [f"{package['name']}@{package['version']}" for package in PACKAGES]
    modules = npm.installed(npm.TYPESCRIPT, *wanted)
    config = json.loads((STUDIO / "tsconfig.json").read_text())
    config["compilerOptions"]["paths"] = {
        "preact": [f"{modules}/preact/src/index.d.ts"], "preact/hooks": [f"{modules}/preact/hooks/src/index.d.ts"],
        "htm": [f"{modules}/htm/dist/htm.d.ts"], "uplot": [f"{modules}/uplot/dist/uPlot.d.ts"],
    }  # fmt: skip
    for key in ("include", "exclude"):
        config[key] = [f"{STUDIO}/{pattern}" for pattern in config[key]]

    def said(*more: str) -> str:
        (tmp_path / "tsconfig.json").write_text(json.dumps(config | {"include": [*config["include"], *more]}))
        words = [modules / ".bin" / "tsc", "-p", tmp_path / "tsconfig.json", "--pretty", "false"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    assert said() == ""
    # The check itself is alive: what is wrong is found.
    (tmp_path / "wrong.js").write_text(f'import {{ number }} from "{STATIC}/core/format.js";\nnumber("1");\n')
    assert "TS2345" in said(f"{tmp_path}/wrong.js")


def test_no_page_puts_text_into_a_document_as_html() -> None:
    for path in STATIC.rglob("*.js"):
        if path.parent != vendor.LIB:
            text = path.read_text()
            assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
                path
            )


def test_every_file_is_sent_for_good_and_the_document_that_names_them_is_asked_for_again(tmp_path: Path) -> None:
    with studio(tmp_path / "s.duckdb", "--no-host") as running, httpx.Client(base_url=running.web) as http:
        first = http.get("/")
        assert first.headers["cache-control"] == "no-cache"
        policy = first.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for path in ("/bulk/a%2Fb%0Ac", "/job/x", "/trace/1", *web.PAGES):
            assert http.get(path).text == first.text
        for path, to in {**web.MOVED, "/explain/a%2Fb": "/bulk/a%2Fb?tab=evidence"}.items():
            assert http.get(path).headers["location"] == to
        nowhere = http.get("/nowhere")
        assert (nowhere.status_code, nowhere.text) == (404, first.text)
        (root,) = set(re.findall(r'"(/static/[0-9a-f]+)/', first.text))
        for name, file in web.files().items():
            if name == "index.html":
                continue
            sent = http.get(f"{root}/{name}")
            assert sent.content == file.content, name
            assert sent.headers["content-encoding"] == "gzip"
            assert "immutable" in sent.headers["cache-control"]
            assert http.get(f"{root}/{name}", headers={"accept-encoding": "identity"}).content == file.content
        # What a module imports is there.
        for name, file in web.files().items():
            if name.endswith(".js"):
                for wanted in re.findall(r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""", file.content.decode()):
                    assert http.get(f"{root}/{Path(name).parent}/{wanted}").status_code == 200, (name, wanted)
        for name in ("../server/web.py", "lib/VENDORED.json", "nothing.js", "%2e%2e/x.js"):
            assert http.get(f"{root}/{name}").status_code == 404
        assert http.get("/static/0/app.js").status_code == 404


# None is halfway between two texts: there Python goes to the even digit, and browsers up.
NUMBERS = (
    0, 1, 2, 12, 119.96, 120, 999, 999.6, 1000, 1234.5, 7199, 7200, 123456, 1e9, 1e16, 0.5, 0.25, 0.125, 0.1, 0.0999,
    0.01, 0.00123, 0.001, 0.00099951, 1.2345e-5, 1e-6, 9.4e-7, 0.99, 0.991, 0.9951, 0.9991, 0.99999, 1.005, 1.5, 2.675,
    37.26, 59.95, 2**10, 2**20, 1.5 * 2**20, 2**30, 2**40 - 1, 2**50, -3.25, -0.004, -1000.5,
)  # fmt: skip
# But for these, which these two write by another number of digits.
HALFWAY = {"times": (0.125,), "rough": (0.125, -3.25)}


@pytest.fixture
def blank(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    with studio(tmp_path / "s.duckdb", "--no-host") as running:
        page = browser.new_page()
        page.goto(running.web)
        yield page
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name", ["number", "seconds", "percent", "size", "times", "rough"])
def test_pages_write_numbers_as_the_terminal_does(blank: Page, name: str) -> None:
    root = blank.evaluate("document.querySelector('script[type=module]').src.replace('/app.js', '')")
    ask = "async ([root, name, values]) => values.map((await import(root + '/core/format.js'))[name])"
    halfway = HALFWAY.get(name, ())
    values = [value for value in NUMBERS if value not in halfway and (name != "percent" or abs(value) <= 1)]
    found = blank.evaluate(ask, [root, name, [None, *values]])
    words = rough if name == "rough" else getattr(wording, name)
    wanted = [words(value) for value in (None, *values)]
    assert dict(zip(["absent", *values], found, strict=True)) == dict(zip(["absent", *values], wanted, strict=True))
