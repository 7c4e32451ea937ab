"""A person uses the page in Chromium: views, search, overrides and hostile texts. The console shows no errors."""

import shutil
import time

import pytest

from miner.inspection.labels import read_label_file
from miner.inspection.page import inspect
from miner.selection.overrides import Override, read_overrides
from tests.miner.mined import HOSTILE, make_odd, settings
from unijudge.formats.corpus import Corpus
from unijudge.formats.scores import read_scores

BROWSER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    None in BROWSER,
    reason="chromium and chromedriver are not installed: apt-get install chromium chromium-driver",
)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    tmp_path = tmp_path_factory.mktemp("chromium")
    options = webdriver.ChromeOptions()
    for flag in [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.binary_location = BROWSER[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(BROWSER[1]))
    yield driver
    driver.quit()


class Person:
    """The actions of a person on the page, and the visible content."""

    def __init__(self, driver, page):
        self.driver = driver
        downloads = {"behavior": "allow", "downloadPath": str(page.parent / "downloads")}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
        driver.set_window_size(1280, 1000)
        driver.get(page.as_uri())
        driver.execute_script("localStorage.clear()")
        driver.refresh()
        self.errors()  # removes the errors of the previous page

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def click(self, selector):
        self.driver.execute_script(
            "arguments[0].scrollIntoView({block: 'center'})", self.one(selector)
        )
        self.one(selector).click()

    def views(self):
        """The name of each view → its count."""
        return {
            name: int(text.split()[-1])
            for name, text in self.read("[data-view]", "e.dataset.view, e.innerText")
        }

    def rows(self):
        return [label.removeprefix("query ") for (label,) in self.read("article", "e.ariaLabel")]

    def cells(self, row):
        """(fate, reason) of each visible candidate."""
        cells = f"article[aria-label='query {row}'] .asked ~ .cells .cell"
        parts = "e.querySelector('.fate').innerText, e.querySelector('.reason').innerText"
        return [tuple(cell) for cell in self.read(cells, parts)]

    def read(self, selector, parts):
        return self.driver.execute_script(
            f"return [...document.querySelectorAll(`{selector}`)].map((e) => [{parts}])"
        )

    def search(self, text):
        self.one("#search").clear()
        self.one("#search").send_keys(text)

    def pressed(self):
        return [
            button.get_attribute("data-verdict")
            for button in self.all(".decide [aria-pressed=true]")
        ]

    def errors(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def folder(tmp_path, identity):
    return make_odd(tmp_path, identity)


@pytest.fixture
def person(folder, chromium):
    """A person with the page open. One picture of the page is missing, and another picture has changed."""
    (folder / "images" / "1.png").unlink()
    (folder / "images" / "2.png").write_bytes(b"nothing")
    inspect(settings(folder))
    return Person(chromium, folder / "page.html")


def test_a_person_finds_rows_and_reads_why(person):
    assert person.views() == {
        "all": 35, "suspected false negatives": 3, "suspect positives": 2, "under-filled": 1, "left out": 1, "ties": 1,
        "errors": 1, "overridden": 0,
    }  # fmt: skip
    assert len(person.rows()) == 25
    assert person.one(".pager span").text == "rows 1–25 of 35"
    person.click(".pager button:last-child")
    assert person.rows() == [f"query-{number}" for number in range(25, 35)]
    person.click("[data-view='suspected false negatives']")
    assert person.rows() == ["query-0", "query-3", "query-4"]
    assert person.cells("query-0") == [
        ("✕ dropped as false negative", "score 0.620 > 0.710 − 0.1"),
        ("✓ chosen as negative", "score 0.100 ≤ 0.710 − 0.1; negative 1"),
        ("✓ chosen as negative", "score 0.300 ≤ 0.710 − 0.1; negative 2"),
    ]
    person.click("article .fold")
    assert person.cells("query-0")[2] == (
        "· survived, not chosen", "score 0.200 ≤ 0.710 − 0.1",
    )  # fmt: skip
    person.click("[data-view=errors]")
    assert person.rows() == ["query-1"]
    assert ("! no verdict", "no verdict: bad_image: not a JPEG, PNG or WebP image") in person.cells(
        "query-1"
    )
    person.one("#subset").send_keys("subset 0")
    assert person.rows() == []
    assert person.one("#empty").is_displayed()
    person.click("#reset")
    assert len(person.rows()) == 25
    assert person.errors() == []


def test_each_bar_shows_its_own_cut_and_the_row_shows_a_common_cut(person):
    tick = "article .asked ~ .cells .bar s", "e.parentElement.style.getPropertyValue('--alpha')"
    line = "article .between .faint", "e.innerText"
    assert person.read(*tick)[:3] == [["61%"]] * 3
    assert person.read(*line)[0] == ["by similarity; dropped above α = 0.610"]
    assert not person.all("article .asked .bar s"), "a positive meets no cut"
    # The page looks as if another judge had another cut here.
    person.driver.execute_script("data.rows[0].candidates[1][4] = 0.8; render()")
    assert person.read(*tick)[:3] == [["61%"], ["80%"], ["61%"]]
    assert person.read(*line)[0] == ["by similarity"]
    assert person.errors() == []


def test_a_search_reads_queries_candidates_and_ids(person, folder):
    corpus = Corpus(folder / "corpus")
    texts = {item.item_id: (item.text or "").lower() for item in corpus.items}
    asks = {query.query_id: query.text.lower() for query in corpus.queries}

    def holding(word):
        return [
            row.query_id
            for row in read_scores(folder / "scores")
            if word in row.query_id
            or word in asks[row.query_id][:400]
            or any(
                word in one.item_id or word in texts[one.item_id][:400]
                for one in row.positives + row.candidates
            )
        ]

    for word in ("ZEB", "y-17", "m-31", "猫"):
        person.search(word)
        assert person.views()["all"] == len(holding(word.lower())) > 0, word
        assert person.rows() == holding(word.lower())[:25]
    assert person.all("mark")[0].text == "猫"
    person.search("zz")
    assert person.views()["all"] == 0
    assert person.errors() == []


def test_overrides_are_set_kept_exported_and_read_again(person, folder):
    from selenium.webdriver.common.keys import Keys

    item = person.one("article .asked ~ .cells .cell code").text
    person.click("article .asked ~ .cells .cell [data-verdict=match]")
    person.one(".cell .decide input").send_keys("the same dog", Keys.TAB)
    assert person.one("#overrides").text == "1 override"
    body = person.one("body")
    body.send_keys("/")
    assert person.driver.switch_to.active_element == person.one("#search")
    person.driver.execute_script("document.activeElement.blur()")
    for key in "jjx":  # from the first row, in which a button was last, to the second; out with it
        person.driver.switch_to.active_element.send_keys(key)
    assert person.pressed() == ["match", "drop"]
    person.click("article:nth-child(3) .positive [data-verdict=negative]")
    person.click("article:nth-child(3) .positive [data-verdict=negative]")
    assert person.pressed() == ["match", "drop"], "pressed twice is taken back"
    person.driver.refresh()
    assert person.pressed() == ["match", "drop"], "kept by the browser"
    person.click("[data-view=overridden]")
    assert person.rows() == ["query-0", "query-1"]
    person.click("#export")
    corpus = Corpus(folder / "corpus").fingerprint
    path = folder / "downloads" / f"overrides-{corpus[:12]}.json"
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read_overrides(path, corpus).overrides == [
        Override(query_id="query-0", item_id=item, verdict="match", note="the same dog"),
        Override(query_id="query-1", item_id=None, verdict="drop"),
    ]
    person.driver.execute_script("localStorage.clear()")
    person.driver.refresh()
    assert person.pressed() == []
    for text, told in [
        (path.read_text(), f"imported 2 overrides from {path.name}"),
        (
            path.read_text().replace(corpus, "0"),
            "was not imported: the file was made for another corpus",
        ),
        ("not JSON", "was not imported: the file is not a JSON file"),
        (
            path.read_text().replace('"drop"', '"match"'),
            "was not imported: the file has an invalid override",
        ),
    ]:
        path.write_text(text)
        person.one("#import").send_keys(str(path))
        deadline = time.monotonic() + 20
        while told not in person.one("#told").text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert told in person.one("#told").text
        assert person.pressed() == ["match", "drop"]
    assert person.errors() == []


def wait_for_file(path):
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return path


def test_an_override_shows_at_once_and_on_the_next_page(person, folder, chromium):
    chosen = "article .asked ~ .cells .cell.chosen"
    item = person.one(f"{chosen} code").text
    reason = person.one(f"{chosen} .reason").text
    person.click(f"{chosen} [data-verdict=match]")
    assert person.cells("query-0")[1] == (
        "★ match, by a person", f"decided after this page was made; before: {reason}",
    )  # fmt: skip
    assert person.pressed() == ["match"]
    person.click(f"{chosen}.matched [data-verdict=match]")
    assert person.cells("query-0")[1] == ("✓ chosen as negative", reason)
    person.click(f"{chosen} [data-verdict=match]")
    dropped = "article[aria-label='query query-0'] .cell.dropped"
    person.click(f"{dropped} [data-verdict=negative]")
    assert person.cells("query-0")[0][0] == "✓ negative, by a person"
    person.click("#export")
    corpus = Corpus(folder / "corpus").fingerprint
    file = wait_for_file(folder / "downloads" / f"overrides-{corpus[:12]}.json")

    inspect(settings(folder, overrides=file))
    again = Person(chromium, folder / "page.html")
    assert again.pressed() == ["negative", "match"], "though this browser remembers nothing"
    assert again.cells("query-0")[0] == (
        "✓ chosen as negative",
        "marked as a negative by a person; negative 1",
    )
    assert again.cells("query-0")[1] == (
        "○ never a negative",
        "marked as a match by a person, so never a negative",
    )
    again.click("article .cell.answer [data-verdict=match]")
    assert again.cells("query-0")[1][1].startswith(
        "withdrawn after this page was made; before: marked as"
    )
    again.driver.refresh()
    assert again.pressed() == ["negative"], "what is taken back stays so, in this browser"
    assert again.read("article .cell.answer code", "e.innerText")[0] == [item]
    assert again.errors() == []


def test_a_random_sample_is_labelled_without_its_scores(person, folder, chromium):
    inspect(settings(folder, label=12))
    page = Person(chromium, folder / "page.html")
    page.click("[data-view=label]")
    assert page.views()["label"] == len(page.all("article")) == 12
    assert not page.all("article .judge, article .bar, article .reason"), (
        "a score would sway the person"
    )
    assert page.one("#export-labels").text == "export 0 of 12 labels"
    page.click("article:nth-child(1) [data-verdict=match]")
    page.click("article:nth-child(2) [data-verdict=negative]")
    page.click("article:nth-child(3) [data-verdict=negative]")
    page.click("article:nth-child(3) [data-verdict=negative]")
    page.driver.refresh()
    assert page.one("#export-labels").text == "export 2 of 12 labels"
    page.click("#export-labels")
    corpus = Corpus(folder / "corpus").fingerprint
    read = read_label_file(
        wait_for_file(folder / "downloads" / f"labels-{corpus[:12]}.json"), corpus
    )
    assert (read.sampled, [one.match for one in read.labels]) == (12, [True, False])
    pairs = {
        (row.query_id, one.item_id)
        for row in read_scores(folder / "scores")
        for one in row.positives + row.candidates
    }
    assert {(one.query_id, one.item_id) for one in read.labels} <= pairs
    assert page.one("#overrides").text == "0 overrides", "a label is no override"
    assert page.errors() == []


def test_hostile_texts_stay_texts_and_missing_pictures_say_why(person):
    assert person.driver.execute_script("return window.hacked") is None
    assert HOSTILE in person.one("article .query .text").text
    person.driver.execute_script(
        "const e = document.createElement('img'); e.setAttribute('onerror', 'window.hacked=1'); e.src = 'data:,';"
        "document.body.append(e)"
    )
    time.sleep(0.3)
    assert person.driver.execute_script("return window.hacked") is None, (
        "the page's policy lets no other script run"
    )
    assert any("Content Security Policy" in error for error in person.errors())
    reasons = " ".join(gone.text for gone in person.all(".gone"))
    assert "1.png: cannot be read (no such file). Restore it or import again" in reasons
    assert "2.png: changed since it was imported" in reasons


def test_a_click_enlarges_a_picture_and_another_click_reduces_it(person):
    person.click("[data-view=all]")
    widths = []
    for _ in range(3):
        widths.append(person.one(".thumb img").size["width"])
        person.click(".thumb")
    before, large, after = widths
    assert large == 256
    assert before == after < large
    assert person.errors() == []
