"""The page in headless Chromium."""

import os
import shutil

import pytest
from fake_store import PROMPTS, write_store

from vidcfg.report.write import write_report

pytestmark = pytest.mark.browser

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = write_store(
        tmp_path_factory.mktemp("browser"),
        scales=(1.0, 6.0),
        prompts=(*PROMPTS[:2], HOSTILE),
        families=("flicker", "warp", "motion"),
        failing=[("keyframes-6", 1, 1)],
    )
    return write_report(root)


class Opened:
    """A page with what it complained about and what it asked for."""

    def __init__(self, browser, path, **options):
        # Requests that the page's own policy would stop have to be seen.
        defaults = {"viewport": {"width": 1200, "height": 900}, "bypass_csp": True}
        options = defaults | options
        self.page = browser.new_page(**options)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#view-a[data-frame]")

    def text(self, selector):
        return self.page.inner_text(selector)

    def pixels(self, canvas):
        """All values of a canvas as one string."""
        return self.page.evaluate(
            "id => { const c = document.getElementById(id);"
            " return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.join() }",
            canvas,
        )

    def frames(self):
        """The frames that A and B show, read in one turn of the page."""
        return self.page.evaluate(
            "['view-a', 'view-b'].map(id => Number(document.getElementById(id).dataset.frame))"
        )


@pytest.fixture
def opened(browser, report):
    made = Opened(browser, report)
    yield made
    assert not made.complaints
    made.page.close()


def test_page_loads_without_complaints_or_requests(opened, report):
    outside = [url for url in opened.requests if not url.startswith("data:")]
    assert outside == [report.as_uri()]
    assert "Incomplete: 23 of 24 videos" in opened.text(".notices")
    assert opened.page.title() != "taken"
    assert opened.page.locator("#failed tbody tr").count() == 1


def test_players_play_and_stay_in_step(opened):
    opened.page.click("#play")
    seen = set()
    for _ in range(3):
        opened.page.wait_for_function(
            "last => window.vidcfgReport.frame !== last",
            arg=opened.page.evaluate("window.vidcfgReport.frame"),
        )
        a, b = opened.frames()
        assert a == b
        seen.add(a)
    assert len(seen) >= 2
    opened.page.click("#play")
    held = opened.frames()
    assert opened.page.get_attribute("#play", "aria-pressed") == "false"
    opened.page.wait_for_timeout(400)
    assert opened.frames() == held


def test_steps_and_slider_move_both_players(opened):
    opened.page.click("#next")
    assert opened.frames() == [1, 1]
    opened.page.click("#back")
    opened.page.click("#back")
    assert opened.frames() == [16, 16]
    opened.page.fill("#frame", "7")
    assert opened.frames() == [7, 7]
    assert opened.text("#number") == "8 / 17"


def test_another_cell_changes_its_picture_and_the_difference(opened):
    opened.page.select_option("#cell-a", label="uniform, scale 1")
    opened.page.select_option("#cell-b", label="uniform, scale 1")
    opened.page.wait_for_function("window.vidcfgReport.distance === 0")
    same = opened.pixels("view-b")
    opened.page.select_option("#cell-b", label="uniform, scale 6")
    opened.page.wait_for_function("window.vidcfgReport.distance > 0")
    assert opened.pixels("view-b") != same
    assert opened.pixels("view-a") == same
    assert opened.text("#caption-b") == "B · strength 6"
    assert opened.text("#caption-a") == "A · strength 1 off"


def test_same_videos_under_two_modes_have_no_difference(opened):
    opened.page.select_option("#cell-a", label="uniform, scale 1")
    opened.page.select_option("#cell-b", label="keyframes, scale 1")
    opened.page.wait_for_function("window.vidcfgReport.distance === 0")
    assert opened.text("#distance") == "mean 0.00 levels"


def test_video_that_failed_is_said_to_be_missing(opened):
    opened.page.select_option("#prompt", label=PROMPTS[1])
    opened.page.select_option("#seed", label="1")
    opened.page.select_option("#cell-b", label="keyframes, scale 6")
    opened.page.wait_for_function("window.vidcfgReport.strips.b === null")
    assert opened.text("#caption-b") == "B: no video here"


def test_hostile_prompt_can_be_chosen_and_plays(opened):
    opened.page.select_option("#prompt", label=HOSTILE)
    opened.page.wait_for_function("window.vidcfgReport.strips.a")
    assert HOSTILE in opened.page.eval_on_selector("#prompt", "s => s.selectedOptions[0].text")
    opened.page.click("#next")
    assert opened.frames() == [1, 1]


def test_slice_shows_the_chosen_row_over_time(opened):
    opened.page.fill("#row", "10")
    expected = opened.page.evaluate(
        "() => { const s = window.vidcfgReport.strips.a, c = s.canvas.getContext('2d');"
        " return s.frames.flatMap((_, t) => [...c.getImageData(t * 32, 10, 32, 1).data]).join() }"
    )
    assert opened.pixels("slice-a") == expected
    assert opened.text("#row-number") == "row 10"


def test_frame_of_the_sheet_is_a_button_that_goes_there(opened):
    opened.page.click("summary:has-text('All frames')")
    opened.page.click("#sheet-b button:nth-child(5)")
    assert opened.frames() == [4, 4]
    assert opened.text("#sheet-b button:nth-child(5)").startswith("4 · ")


def test_chart_is_read_by_arrow_keys_and_by_pointer(opened):
    opened.page.focus("#front .chart")
    opened.page.keyboard.press("ArrowRight")
    first = opened.text("#tip")
    assert "dynamic_degree" in first
    assert "of resamples" in first
    opened.page.keyboard.press("ArrowRight")
    assert opened.text("#tip") != first
    opened.page.keyboard.press("Escape")
    assert opened.page.is_hidden("#tip")
    opened.page.hover("#curves .chart >> nth=0 >> .pt >> nth=1")
    assert "95 %" in opened.text("#tip")


def test_heat_map_tells_step_frame_and_strength(opened):
    opened.page.focus(".heat[data-cell='keyframes-6']")
    for _ in range(9):
        opened.page.keyboard.press("ArrowRight")
    assert opened.text("#tip") == "step 0, frame 8\nstrength 2"


def test_heading_sorts_the_table_by_number(opened):
    column = "#table thead th:nth-child(3) button"
    values = (
        "[...document.querySelectorAll('#table tbody td:nth-child(3)')].map(d => +d.dataset.value)"
    )
    opened.page.click(column)
    up = opened.page.evaluate(values)
    opened.page.click(column)
    assert up == sorted(up)
    assert opened.page.evaluate(values) == up[::-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(browser, report, scheme):
    phone = Opened(
        browser,
        report,
        viewport={"width": 360, "height": 740},
        color_scheme=scheme,
        bypass_csp=False,
    )
    width = phone.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    ink, paper = (
        sum(map(float, colour[4:-1].split(",")[:3])) / 3
        for colour in phone.page.eval_on_selector("body", colours)
    )
    assert abs(ink - paper) > 180
    assert (paper > ink) == (scheme == "light")
    assert not phone.complaints
    phone.page.close()


def test_no_column_of_a_printed_table_is_cut_off(browser, report):
    printed = Opened(browser, report, viewport={"width": 700, "height": 900})
    printed.page.emulate_media(media="print")
    over = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    assert printed.page.eval_on_selector_all(".scroll", over) == []
    assert printed.page.evaluate("document.documentElement.scrollWidth") <= 700
    printed.page.close()


def test_without_javascript_the_page_says_why_nothing_plays(browser, report):
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert "need JavaScript" in page.inner_text("#compare")
    assert not page.is_visible("#player")
    page.close()
