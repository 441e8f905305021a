"""The evaluation page in a real browser: filters, keyboard, and widths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_evaluation_page import EVIL, make_report, picture
from test_page_browser import BROWSER, DRIVER, OPTIONS

from capxai.recipes.evaluation_page import render_page


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


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Any:
    """Open a page of five pictures, two of which have no file."""
    images = [
        picture(1),
        picture(2, false=("dog",)),
        picture(3, EVIL),
        picture(4, "a dog and a cat run", ("dog", "cat")),
        picture(5, "a cat", ("cat",)),
    ]
    paths = {}
    for number in (1, 2, 4):
        paths[number] = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 48), (60 * number, 90, 200)).save(paths[number])
    (tmp_path / "eval.html").write_text(render_page(make_report(images, notes=[EVIL]), paths), encoding="utf-8")
    driver.get((tmp_path / "eval.html").as_uri())
    return driver


def shown(page: Any) -> list[int]:
    """Return the image ids of the cards that can be seen."""
    cards = page.find_elements("css selector", ".picture")
    return [int(card.get_dom_attribute("data-image")) for card in cards if card.is_displayed()]


def select(page: Any, text: str) -> None:
    """Choose a category."""
    from selenium.webdriver.support.select import Select

    Select(page.find_element("id", "category")).select_by_visible_text(text)


def press(page: Any, *keys: str) -> None:
    """Type keys into whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def test_nothing_fails_and_nothing_runs(page: Any) -> None:
    assert shown(page) == [4, 2, 5, 1, 3]
    assert page.get_log("browser") == []
    widths = page.execute_script(
        "return [...document.querySelectorAll('.picture img')].map((image) => image.naturalWidth);"
    )
    assert widths == [64, 64, 64]
    assert EVIL in [card.text for card in page.find_elements("css selector", ".caption")]
    assert page.find_element("id", "count").text == "5 of 5 pictures on this page"


def test_filters_by_category_side_and_words(page: Any) -> None:
    select(page, "dog")
    assert shown(page) == [4, 2, 1, 3]
    page.find_element("id", "only").click()
    assert shown(page) == [4, 2]
    assert page.find_element("id", "count").text == "2 of 5 pictures on this page"
    select(page, "person")
    assert shown(page) == []
    assert page.find_element("id", "nothing").is_displayed()
    page.find_element("id", "reset").click()
    assert len(shown(page)) == 5
    page.find_element("id", "text").send_keys("RUN")
    assert shown(page) == [4]


def test_a_category_of_the_table_shows_its_pictures(page: Any) -> None:
    page.find_element("css selector", ".tables > summary").click()
    button = next(one for one in page.find_elements("css selector", "button.link") if one.text == "cat")
    page.execute_script("arguments[0].click();", button)
    assert shown(page) == [4, 2, 5, 1]
    assert page.switch_to.active_element.get_dom_attribute("id") == "category"


def test_the_keyboard_reaches_everything(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.find_element("id", "reset").send_keys(Keys.TAB)
    reached = [page.switch_to.active_element.get_dom_attribute("data-image")]
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.END, Keys.ARROW_RIGHT, Keys.HOME):
        press(page, key)
        reached.append(page.switch_to.active_element.get_dom_attribute("data-image"))
    assert reached == ["4", "2", "5", "2", "3", "3", "4"]
    press(page, Keys.TAB, Keys.ENTER)
    assert page.find_element("css selector", ".picture details").get_property("open")


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(page: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.find_element("css selector", ".tables > summary").click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hallucinations_are_not_told_by_color_alone(page: Any) -> None:
    false, true = (page.find_elements("css selector", f".caption mark.{kind}")[0] for kind in ("false", "true"))
    lines = [mark.value_of_css_property("text-decoration-style") for mark in (false, true)]
    assert lines == ["wavy", "solid"]
    assert "not in the picture" in false.get_property("textContent")
