"""The page of hallucinated words in a real browser: heatmaps, keyboard, filters, order, widths, and 500 cases."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_hallucination_page import EVIL, data_of, explained, mention, synthetic_page
from test_page_browser import BROWSER, DRIVER, OPTIONS

from capxai.explain.colors import limits, overlay_palette
from capxai.recipes.analysis.hallucination_cases import Case, ObjectMention
from capxai.recipes.analysis.hallucination_page import PageContent, render_page

READ_CANVAS = """
const canvas = arguments[0].querySelector("canvas");
return [canvas.height, canvas.width, [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]];
"""
MOST_SECONDS = 10
"""In which 500 cases open on a busy machine with one core; alone it takes a fraction of it."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start headless Chromium with a fresh profile."""
    missing = [str(path) for path in (BROWSER, DRIVER) if not path.exists()]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: install chromium and chromium-driver to test the page")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra 'test')")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in [*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield started
    started.quit()


def show(driver: Any, folder: Path, page: str) -> Any:
    """Open a page."""
    (folder / "hallucination.html").write_text(page, encoding="utf-8")
    driver.get((folder / "hallucination.html").as_uri())
    return driver


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Any:
    """Open a page of six cases; the names of every second one are hostile."""
    return show(driver, tmp_path, synthetic_page(tmp_path, 6, (EVIL, "cat")))


def cases(page: Any) -> list[int]:
    """Return the numbers of the cases that can be seen, from top to bottom."""
    found = page.find_elements("css selector", ".case")
    return [int(card.get_dom_attribute("data-case")) for card in found if card.is_displayed()]


def built(page: Any, number: int) -> Any:
    """Scroll to a case and return it once it is drawn."""
    card = page.find_element("css selector", f'.case[data-case="{number}"]')
    page.execute_script("arguments[0].scrollIntoView();", card)
    end = time.monotonic() + MOST_SECONDS
    while "built" not in card.get_dom_attribute("class"):
        assert time.monotonic() < end, "the case was not drawn"
        time.sleep(0.02)
    return card


def press(page: Any, *keys: str) -> None:
    """Type keys into whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def choose(page: Any, name: str, value: str) -> None:
    """Choose an entry of a list."""
    options = page.find_elements("css selector", f"#{name} option")
    next(option for option in options if option.get_dom_attribute("value") == value).click()


def test_nothing_fails_nothing_runs_and_nothing_is_fetched(page: Any) -> None:
    assert cases(page) == list(range(6))
    for number in range(6):
        built(page, number)
    assert page.get_log("browser") == []
    fetched = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name);")
    assert [name for name in fetched if not name.startswith("data:")] == []
    assert page.execute_script("return document.querySelectorAll('script').length") == 2
    said = page.find_elements("css selector", ".head b")
    assert [found.text for found in said] == [EVIL, "cat"] * 3
    widths = page.execute_script("return [...document.images].map((image) => image.naturalWidth);")
    assert widths == [8] * 10  # of 6 cases, 2 have no true word beside them


def test_the_canvas_shows_the_relevance_on_the_scale_of_the_pair(page: Any) -> None:
    whys = [explained(5, 1), explained(1, 7)]  # of case 1 and its true word
    ends = [float(limits(why.heat[None], "word")[0]) for why in whys]
    card = built(page, 1)
    check_canvas(page, card, whys, [max(ends)] * 2)
    page.find_element("id", "own").click()
    check_canvas(page, built(page, 1), whys, ends)


def check_canvas(page: Any, card: Any, whys: list[Any], ends: list[float]) -> None:
    """Compare the pixels of both canvases with the palette at the relevance, up to a rounding step."""
    palette = overlay_palette().astype(int)
    for side, why, end in zip(card.find_elements("css selector", ".side"), whys, ends, strict=True):
        height, width, values = page.execute_script(READ_CANVAS, side)
        shown = np.array(values).reshape(height, width, 4)
        own = float(limits(why.heat[None], "word")[0])  # what lies outside is stored as this
        level = np.clip(why.heat, -own, own) / end * 127 + 127
        exact = [
            palette[np.rint(np.clip(level + step, 0, 254)).astype(int)][..., 3] for step in (-1.1, -0.5, 0, 0.5, 1.1)
        ]
        assert height == width == 56
        assert (shown[..., 3] >= np.min(exact, 0) - 1).all() and (shown[..., 3] <= np.max(exact, 0) + 1).all()
        strong = np.abs(level - 127) > 40
        reddish = shown[..., 0] > shown[..., 2]
        assert strong.any() and (reddish[strong] == (why.heat > 0)[strong]).all()


def test_words_parts_and_counts_are_told_in_text(page: Any) -> None:
    card = built(page, 1)
    false, true = card.find_elements("css selector", ".side")
    chips = false.find_elements("css selector", ".sentence li")
    why = explained(5, 1)
    expected = ["start", "a", "red", "cup", "near", "a", "✗ cat", "and", "snow"]
    assert [re.split("[\n,]", chip.text)[0] for chip in chips] == expected
    assert "not in the picture, probability" in chips[6].get_property("textContent")
    assert [float(chip.text.split("\n")[1].replace("−", "-")) for chip in chips[:6]] == pytest.approx(
        why.inputs, abs=6e-3
    )
    for chip, value in zip(chips, why.inputs, strict=False):
        style = chip.find_element("css selector", "span").value_of_css_property("text-decoration-style")
        assert style == ("solid" if value > 0 else "dashed")
    assert "✓ cat" in true.text and "of the picture" not in true.text
    parts = [part.text.replace("\n", " ") for part in false.find_elements("css selector", ".parts > div")]
    # 2, 1, -0.5 and 0.25 of a logit of 2.75
    assert parts == ["picture +73 %", "words +36 %", "biases −18 %", "eps +9 %"]
    assert "Of its logit +2.75, the picture gave more than the words before it." in false.text
    assert "cup 63 % (covers 25 %)" in false.text.replace("62 %", "63 %")
    row = card.find_element("css selector", ".together li").text
    assert (
        "75 % of 40 captions with it name cat (30); of all 1,000: 10 %" in row.replace("\xa0", " ")
        and "lift 7.50" in row
    )


def test_a_name_of_two_words_is_one_mark(driver: Any, tmp_path: Path) -> None:
    word = ObjectMention(1, "a traffic light there", 1, 2, "traffic light", "traffic light", False)
    content = PageContent(("x",), 1, [word], [Case(word, None)], 0, {word.key: explained(1)})
    show(driver, tmp_path, render_page(content))
    chips = built(driver, 0).find_elements("css selector", ".sentence li")
    assert [re.split("[\n,]", chip.text)[0] for chip in chips] == ["start", "a", "✗ traffic light", "there"]


def test_a_missing_true_word_is_said(page: Any) -> None:
    assert "there is nothing to compare with" in built(page, 0).text


def test_the_keyboard_moves_between_cases(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "reset").send_keys(Keys.TAB)
    reached = [page.switch_to.active_element.get_dom_attribute("data-case")]
    for key in (Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.END, Keys.ARROW_DOWN, Keys.HOME, Keys.TAB):
        press(page, key)
        reached.append(page.switch_to.active_element.get_dom_attribute("data-case"))
    assert reached == ["0", "1", "2", "1", "5", "5", "0", "1"]
    focused = page.switch_to.active_element
    assert float(focused.value_of_css_property("outline-width").removesuffix("px")) >= 2
    assert focused.get_dom_attribute("aria-labelledby") == "case-1"
    choose(page, "category", "cat")
    page.execute_script("arguments[0].focus();", page.find_element("css selector", '.case[data-case="1"]'))
    press(page, Keys.ARROW_DOWN)
    assert page.switch_to.active_element.get_dom_attribute("data-case") == "3"


def test_heatmaps_can_be_hidden(page: Any) -> None:
    card = built(page, 1)
    canvas, image = (card.find_element("css selector", name) for name in ("canvas", "img"))
    assert canvas.is_displayed() and image.value_of_css_property("filter") == "grayscale(1)"
    page.find_element("id", "heat").click()
    assert not canvas.is_displayed() and image.value_of_css_property("filter") == "none"
    page.execute_script("arguments[0].focus();", card)
    press(page, "h")
    assert canvas.is_displayed()


def test_filters_and_order(page: Any) -> None:
    choose(page, "category", EVIL)
    assert cases(page) == [0, 2, 4]
    assert page.find_element("id", "count").text == "3 of 6 cases"
    page.find_element("id", "text").send_keys("CAT")
    assert cases(page) == [] and page.find_element("id", "nothing").is_displayed()
    page.find_element("id", "reset").click()
    assert cases(page) == list(range(6))
    page.find_element("id", "text").send_keys("near a CAT")
    assert cases(page) == [1, 3, 5]
    page.find_element("id", "reset").click()
    choose(page, "order", "object")
    assert sorted(cases(page)[:3]) in ([0, 2, 4], [1, 3, 5])
    assert page.find_element("css selector", ".case .rank").text == "1"
    choose(page, "order", "surest")
    assert cases(page) == list(range(6))


def test_the_order_goes_by_what_it_says(driver: Any, tmp_path: Path) -> None:
    words = [mention(number, "a dog", "dog") for number in range(3)]
    parts = [{"picture": 2.0, "words": 0.5}, {"picture": 0.5, "words": 1.0}, {"picture": 1.0, "words": 3.0}]
    whys = {}
    for word, found in zip(words, parts, strict=True):
        why = explained(1, word.image_id, 0.9 - word.image_id / 10)
        whys[word.key] = type(why)(why.probability, sum(found.values()), why.inputs, found, why.heat, {})
    content = PageContent(("x",), 3, words, [Case(word, None) for word in words], 0, whys)
    show(driver, tmp_path, render_page(content))
    orders = {
        "surest": [0, 1, 2],
        "words": [2, 1, 0],
        "picture": [2, 1, 0],
    }  # words: 0.2, 2/3, 3/4; picture: 0.8, 1/3, 1/4
    for name, expected in orders.items():
        choose(driver, "order", name)
        assert cases(driver) == expected
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("width", [1280, 900, 400])
def test_nothing_sticks_out(page: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for number in range(6):
        built(page, number)
    page.find_element("css selector", "summary").click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_printing_draws_every_case(page: Any) -> None:
    page.execute_script("window.dispatchEvent(new Event('beforeprint'));")
    assert len(page.find_elements("css selector", ".case.built")) == 6


def test_500_cases_open_fast_and_are_drawn_when_they_are_near(driver: Any, tmp_path: Path) -> None:
    text = synthetic_page(tmp_path, 500)
    begin = time.monotonic()
    page = show(driver, tmp_path, text)
    assert page.find_element("id", "count").text == "500 of 500 cases"
    assert time.monotonic() - begin < MOST_SECONDS
    drawn = page.execute_script("return document.querySelectorAll('.case.built').length;")
    assert drawn < 20
    last = built(page, 499)
    assert "✗ cat" in last.text
    assert page.execute_script("return document.querySelectorAll('.case.built').length;") < 100
    assert page.get_log("browser") == []
    assert len(data_of(text)["cases"]) == 500


def test_without_hallucinations_there_is_only_the_sentence(driver: Any, tmp_path: Path) -> None:
    page = show(driver, tmp_path, render_page(PageContent(("x",), 7, [mention(1, "a dog", "dog", True)], [])))
    assert "No hallucinated word" in page.find_element("css selector", ".lead").text
    assert not page.find_element("id", "category").is_displayed()
    assert page.get_log("browser") == []
