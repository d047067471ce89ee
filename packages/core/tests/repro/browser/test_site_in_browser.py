"""The page over all runs in Chromium: filters, keyboard, phone, paper, contrast, hostile names, without scripts."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from score_core.repro.catalogue import Run, catalogue
from score_core.repro.outcome import gather
from score_core.repro.runner import RunRecord
from score_core.repro.schema import Experiment, Published, Row
from score_core.repro.site import write_site
from score_core.repro.tables import load_all

ENTER, TAB = "\ue007", "\ue004"
HOSTILE = """"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>"""

# The lowest contrast of the text that can be seen, and where. Backgrounds are opaque or transparent.
CONTRAST = """
const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (element) => {
  for (let part = element; part; part = part.parentElement) {
    const colour = parse(getComputedStyle(part).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
let lowest = [99, ""];
let seen = 0;
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || ["SCRIPT", "STYLE", "OPTION"].includes(element.tagName)) continue;
  if (!element.checkVisibility()) continue;
  seen += 1;
  const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))].sort((x, y) => x - y);
  const ratio = (b + 0.05) / (a + 0.05);
  if (ratio < lowest[0]) lowest = [ratio, element.outerHTML.slice(0, 120)];
}
return [...lowest, seen];
"""


@pytest.fixture(scope="module")
def published() -> tuple[Row, ...]:
    return tuple(row for row in load_all() if isinstance(row, Published))


@pytest.fixture(scope="module")
def written() -> dict[str, tuple[Path, tuple[Row, ...]]]:
    """Keeps the page of :func:`site` for all tests: it takes a second to write."""
    return {}


@pytest.fixture
def site(
    written: dict[str, tuple[Path, tuple[Row, ...]]],
    tmp_path_factory: pytest.TempPathFactory,
    published: tuple[Row, ...],
    run: tuple[Path, RunRecord],
    experiment: Experiment,
) -> tuple[Path, tuple[Row, ...]]:
    """The page over all published rows and a run with a picture, one row of which is hostile; and the rows."""
    if "page" not in written:
        workdir, record = run
        (workdir / "history.csv").write_text("step,training_loss,eval_loss,seconds\n0,1.0,1.1,0\n50,0.5,,1\n")
        bad = replace(published[0], id=f"{published[0].id}-bad", row=HOSTILE, column=HOSTILE, note=HOSTILE, gap=HOSTILE)
        rows = (experiment, *published, bad)
        papers = catalogue(rows, [Run(workdir, gather(experiment, record, workdir))])
        file = tmp_path_factory.mktemp("site") / "all.html"
        written["page"] = write_site(papers, file, utc="2026-01-01T00:00:00Z"), rows
    return written["page"]


def shown(browser: Any) -> int:
    """The number of lines that the filters leave."""
    return browser.run("return document.querySelectorAll('tbody[data-metric]:not([hidden])').length")


def choose(browser: Any, name: str, value: str) -> None:
    browser.run(
        "const s = document.querySelector(`select[name=${arguments[0]}]`); s.value = arguments[1];"
        "s.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def test_the_filters_narrow_the_page_and_count(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    page, rows = site
    browser.open(page)
    lines = len(rows) - 1 + 2  # the experiment has two metrics
    assert shown(browser) == lines
    assert browser.run("return document.getElementById('status').textContent") == f"{lines} of {lines} values"

    browser.run("document.getElementById('filter-text').focus()")
    browser.press(*"table2 fid")
    wanted = [row for row in rows if "table2" in row.id and isinstance(row, Published) and row.metric == "fid"]
    hits = shown(browser)
    assert len(wanted) <= hits < lines / 2
    assert browser.run("return document.getElementById('status').textContent") == f"{hits} of {lines} values"
    assert browser.run(  # what is left can be seen, and what has no line left is away
        "return [...document.querySelectorAll('details.group')].every((g) =>"
        "g.hidden === !g.querySelector('tbody[data-metric]:not([hidden])') && (g.hidden || g.open))"
    )
    browser.run("document.querySelector('#filter button[type=reset]').click()")
    browser.run("return new Promise((done) => setTimeout(done, 50))")
    assert shown(browser) == lines

    choose(browser, "verdict", "reproduced")
    assert shown(browser) == 2
    counts = browser.run("return [...document.querySelectorAll('#filter-metric option')].map((o) => o.textContent)")
    assert {"all (2)", "fid (1)", "bits_per_dim (1)"} <= set(counts)
    choose(browser, "metric", "fid")
    assert shown(browser) == 1
    none = "return document.getElementById('none').checkVisibility()"
    assert browser.run(none) is False
    browser.run("document.getElementById('filter-text').focus()")
    browser.press(*"nowhere")
    assert (shown(browser), browser.run(none)) == (0, True)
    assert browser.console() == []


def test_lines_open_by_keyboard_and_commands_can_be_copied(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    page, _ = site
    browser.open(page)
    browser.press(TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    browser.run("document.getElementById('score_sde/tiny#fid').querySelector('summary').focus()")
    browser.press(TAB, TAB)  # away and, through what comes next, still inside the page
    assert browser.run("return document.activeElement.matches('summary, a, button, pre, select, input')")
    browser.run("document.getElementById('score_sde/tiny#fid').querySelector('summary').focus()")
    browser.press(ENTER)
    line = "document.getElementById('score_sde/tiny#fid')"
    assert browser.run(f"return {line}.querySelector('details').open")
    outline = browser.run("return getComputedStyle(document.activeElement).outline")
    assert "3px" in outline and "solid" in outline
    browser.run("return new Promise((done) => setTimeout(done, 50))")  # the toggle event makes the button
    browser.press(TAB, TAB)
    assert browser.run("return document.activeElement.textContent") == "Copy"
    browser.press(ENTER)
    browser.run("return new Promise((done) => setTimeout(done, 200))")
    assert browser.run("return document.activeElement.textContent") in ("Copied", "Selected: copy with the keyboard")
    assert "repro run score_sde/tiny" in browser.run(f"return {line}.querySelector('pre').textContent")
    assert browser.console() == []


def test_a_link_to_a_line_opens_what_it_is_in(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    page, rows = site
    last = rows[-2].id
    browser.open(page, f"#{last}")
    seen = "const r = document.getElementById(arguments[0]).getBoundingClientRect(); return r.top >= 0 && r.top < 900"
    browser.run("return new Promise((done) => setTimeout(done, 800))")
    assert browser.run(seen, last)
    assert browser.run("return document.getElementById(arguments[0]).closest('details').open", last)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(browser: Any, site: tuple[Path, tuple[Row, ...]], scheme: str):
    browser.prefer(color_scheme=scheme)
    browser.open(site[0])
    browser.run("document.querySelectorAll('details').forEach((d, i) => { if (i < 40) d.open = true; })")
    ratio, where, seen = browser.run(CONTRAST)
    assert seen > 200
    assert ratio >= 4.5, where
    dark = browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 29)"
    assert dark == (scheme == "dark")
    picture = browser.run(
        "const i = document.querySelector('figure img'); return [i.currentSrc === i.src, i.naturalWidth]"
    )
    assert picture == [scheme == "light", 1280]  # the curve is drawn for both
    assert browser.console() == []


def test_a_phone_shows_everything_within_its_width(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    browser.resize(390, 844, mobile=True, dots=2)
    browser.open(site[0])
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    too_wide = """return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()
      && e.getBoundingClientRect().right > 391 && !e.closest('pre') && !e.closest('.unseen') && !e.closest('thead'))
      .map((e) => e.outerHTML.slice(0, 100)).slice(0, 5)"""
    assert browser.run(too_wide) == []
    small = """return [...document.querySelectorAll('button, select, input')].filter((e) => e.checkVisibility()
      && e.getBoundingClientRect().height < 32).map((e) => e.outerHTML)"""
    assert browser.run(small) == []
    assert browser.console() == []


def test_on_paper_all_tables_are_open_and_the_form_is_away(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    browser.open(site[0])
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert pages > 10  # hundreds of lines, although most tables are closed on the screen
    browser.developer("Emulation.setEmulatedMedia", media="print")
    assert browser.run("return document.getElementById('filter').checkVisibility()") is False
    closed = (
        "const g = document.querySelector('details.group:not([open]) table'); return g.getBoundingClientRect().height"
    )
    assert browser.run(closed) > 50
    browser.developer("Emulation.setEmulatedMedia", media="")


def test_motion_only_for_readers_who_did_not_ask_for_less(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    behaviour = "return getComputedStyle(document.documentElement).scrollBehavior"
    browser.prefer(reduced_motion="no-preference")
    browser.open(site[0])
    assert browser.run(behaviour) == "smooth"
    browser.prefer(reduced_motion="reduce")
    assert browser.run(behaviour) == "auto"
    assert browser.run("return [...document.getAnimations()].length") == 0


def test_hostile_names_run_nothing_and_the_policy_stops_what_would(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    browser.open(site[0])
    assert browser.run("return document.body.textContent.includes('onerror=')")  # it is there, as text
    assert browser.run("return typeof window.hacked") == "undefined"
    assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
    assert browser.console() == []
    # What an escape that was forgotten would let in.
    browser.run("document.querySelector('h1').insertAdjacentHTML('beforeend', arguments[0])", HOSTILE[2:])
    browser.run("return new Promise((done) => setTimeout(done, 100))")
    assert browser.run("return typeof window.hacked") == "undefined"
    assert any("Content Security Policy" in message for message in browser.console())


def test_without_scripts_the_tables_are_there_and_open(browser: Any, site: tuple[Path, tuple[Row, ...]]):
    page, rows = site
    browser.developer("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        snapshot = browser.developer("DOM.getDocument", depth=1)["root"]["nodeId"]
        lines = browser.developer("DOM.querySelectorAll", nodeId=snapshot, selector="tbody[data-metric]")["nodeIds"]
        assert len(lines) == len(rows) - 1 + 2
        form = browser.developer("DOM.querySelectorAll", nodeId=snapshot, selector="form[hidden]")["nodeIds"]
        assert len(form) == 1  # no filters that would do nothing
        assert browser.screenshot().startswith(b"\x89PNG")
    finally:
        browser.developer("Emulation.setScriptExecutionDisabled", value=False)
