"""The page in a browser: what clicks, keys and choices do. Chromium is the system's, playwright drives it."""

import os
import shutil

import pytest

from cellseg_d2.visualization.report.page import render_report

sync_api = pytest.importorskip("playwright.sync_api")

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WORST_FIRST = ["none", "half", "small", "exact"]


@pytest.fixture(scope="module")
def browser():
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium is installed (one of {', '.join(BROWSERS)}), nor named by $CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(scored, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(cells=scored), encoding="utf-8")
    return path


@pytest.fixture
def page(browser, file):
    """The page, which at the end must have asked for nothing and said nothing in the console."""
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    said, asked = [], []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]


def shown(page):
    """Names of the pictures in the gallery, in their order."""
    return page.locator(".card:not([hidden]) .name").all_text_contents()


def enlarged(page):
    """Name of the enlarged picture; None where there is none."""
    return page.inner_text("#lightbox-name") if page.locator("#lightbox").is_visible() else None


def outlines(page, where):
    """Kinds of the outlines that are drawn in the picture of a place."""
    visible = "paths => paths.filter(p => getComputedStyle(p).display !== 'none').map(p => p.className.baseVal)"
    return set(page.locator(f"{where} path").evaluate_all(visible))


def card(page, name):
    return page.get_by_role("button", name=f"Enlarge {name}")


def test_pictures_and_their_outlines_are_drawn(page):
    assert shown(page) == WORST_FIRST
    card(page, "half").scroll_into_view_if_needed()
    image = page.locator('.card[data-name="half"] img')
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 96
    assert outlines(page, '.card[data-name="half"]') == {"hit", "false", "missed"}
    page.get_by_role("button", name="Truth").first.click()
    assert outlines(page, '.card[data-name="half"]') == {"found", "missed"}


def test_filter_and_order(page):
    page.select_option("#filter", "astro")
    assert shown(page) == ["half", "small"]
    assert page.inner_text("#shown-count") == "2 of 4 pictures"
    page.select_option("#order", "-score")
    assert shown(page) == ["small", "half"]
    page.select_option("#filter", "")
    assert shown(page) == WORST_FIRST[::-1]
    page.select_option("#order", "name")
    assert shown(page) == sorted(WORST_FIRST)


def test_a_click_enlarges_and_keys_go_through_what_is_shown(page):
    page.select_option("#filter", "astro")
    card(page, "half").click()
    assert enlarged(page) == "half"
    assert "1 of 2" in page.inner_text("#lightbox-facts")
    page.keyboard.press("ArrowLeft")
    assert enlarged(page) == "half", "the first one"
    page.keyboard.press("ArrowRight")
    assert enlarged(page) == "small"
    page.keyboard.press("ArrowRight")
    assert enlarged(page) == "small", "the last one of this type"
    page.keyboard.press("Escape")
    assert enlarged(page) is None
    # The browser says later that a dialog is closed, and only then does the focus go to the last picture.
    sync_api.expect(card(page, "small")).to_be_focused()


def test_keys_and_buttons_switch_the_outlines(page):
    card(page, "half").click()
    layers = page.locator("#lightbox [data-layer-button]")
    expected = {"image": set(), "truth": {"found", "missed"}, "prediction": {"hit", "false"}}
    expected["errors"] = {"hit", "false", "missed"}
    names = [button.get_attribute("data-layer-button") for button in layers.all()]
    assert set(names) == set(expected)
    for number, name in enumerate(names, start=1):
        page.keyboard.press(str(number))
        assert outlines(page, "#lightbox-stage") == expected[name]
        assert layers.nth(number - 1).get_attribute("aria-pressed") == "true"
    layers.first.click()
    assert outlines(page, "#lightbox-stage") == expected[names[0]]


def test_zoom(page):
    card(page, "exact").click()
    width = page.locator("#lightbox-stage").bounding_box()["width"]
    page.keyboard.press("z")
    assert page.locator("#lightbox-stage").bounding_box()["width"] > width
    page.click("#zoom")
    assert page.locator("#lightbox-stage").bounding_box()["width"] == width
    page.click("#close")
    assert enlarged(page) is None


def test_table_sorts_and_opens_pictures(page):
    names = page.locator("#image-table tbody th")
    score = page.locator("#image-table thead th", has_text="Score")
    assert names.all_inner_texts() == WORST_FIRST
    for order, expected in (("descending", WORST_FIRST[::-1]), ("ascending", WORST_FIRST)):
        score.locator("button").click()
        assert (score.get_attribute("aria-sort"), names.all_inner_texts()) == (order, expected)
    names.get_by_role("button", name="small").click()
    assert enlarged(page) == "small"


def test_points_of_charts_open_pictures(page):
    page.locator('.chart a[*|href="#picture:exact"]').click()
    assert enlarged(page) == "exact"
