"""The page in a real browser: pointer and keyboard change the heatmap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capxai.explain.explanation import Explanation

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1200,1000"
)
TOKENS = ("a", "red", "<script>alert(1)</script>", "car")

READ_HEATMAP = """
const heatmap = document.getElementById("heatmap"), canvas = document.createElement("canvas");
return heatmap.decode().then(() => {
  canvas.width = heatmap.naturalWidth; canvas.height = heatmap.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(heatmap, 0, 0);
  const rows = [...context.getImageData(0, 0, canvas.width, canvas.height).data];
  return { word: Number(heatmap.dataset.word), src: heatmap.src, width: canvas.width, pixels: rows };
});
"""


def make_explanation() -> Explanation:
    """Make an explanation whose heatmap has, for word t, one red quarter (number t) and a blue border opposite."""
    pixels = np.zeros((4, 32, 32), np.float32)
    for word in range(4):
        row, column = divmod(word, 2)
        pixels[word, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        pixels[word, 16 * (1 - row) : 16 * (1 - row) + 16, 16 * (1 - column) : 16 * (1 - column) + 16] = -1
    words = np.tril(np.array([[0.5, 0, 0, 0], [0.2, -1, 0, 0], [0.1, 0.3, 0, 0], [-0.4, 2, -2, 0.25]]))
    return Explanation(
        tokens=TOKENS,
        token_ids=np.arange(4),
        logits=np.array([1.0, 2.0, 3.0, 4.0]),
        probability=np.array([0.9, 0.8, 0.7, 0.6]),
        method="lrp",
        model="test",
        image=np.full((32, 32, 3), 128, np.uint8),
        pixel_relevance=pixels,
        region_relevance=pixels.reshape(4, 8, 4, 8, 4).sum((2, 4)).reshape(4, 64),
        word_relevance=words,
        attention=np.full((4, 64), 1 / 64),
        bias_relevance=np.ones(4, np.float32),
        eps_relevance=np.zeros(4, np.float32),
        grid=(8, 8),
        notes=("Read this first.",),
    )


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
    """Open the saved page."""
    make_explanation().save(tmp_path / "image")
    driver.get((tmp_path / "image" / "explanation.html").as_uri())
    return driver


def buttons(page: Any) -> list[Any]:
    """Return the words of the sentence."""
    found: list[Any] = page.find_elements("css selector", "#sentence button")
    return found


def press(page: Any, *keys: str) -> None:
    """Type keys into whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def hover(page: Any, element: Any) -> None:
    """Move the pointer onto an element."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).move_to_element(element).perform()


def shown_heatmap(page: Any) -> tuple[int, str]:
    """Read the heatmap from the screen's image and check that its pixels are those of the word it names."""
    read = page.execute_script(READ_HEATMAP)
    pixels = np.array(read["pixels"], np.uint8).reshape(-1, read["width"], 4).astype(int)
    quarters = [pixels[8 + 16 * (k // 2), 8 + 16 * (k % 2)] for k in range(4)]
    reddest = int(np.argmax([(color[0] - color[2]) * color[3] for color in quarters]))
    bluest = int(np.argmax([(color[2] - color[0]) * color[3] for color in quarters]))
    assert reddest == read["word"]
    assert bluest == 3 - read["word"]
    assert sum(color[3] == 0 for color in quarters) == 2
    return reddest, read["src"]


def test_a_word_is_selected_at_load_and_nothing_fails(page: Any) -> None:
    assert shown_heatmap(page)[0] == 0
    assert page.find_element("id", "word").text == "a"
    assert "Read this first." in page.find_element("css selector", ".note").text
    assert [button.text for button in buttons(page)] == list(TOKENS)
    assert page.get_log("browser") == []


def test_hovering_changes_the_heatmap_and_the_preceding_words(page: Any) -> None:
    sources = []
    for word, button in enumerate(buttons(page)):
        hover(page, button)
        found, source = shown_heatmap(page)
        assert found == word
        sources.append(source)
        assert page.find_element("id", "word").text == TOKENS[word]
    assert len(set(sources)) == 4
    chips = page.find_elements("css selector", "#chips li")
    assert [chip.get_dom_attribute("data-relevance") for chip in chips] == ["−0.40", "+2.00", "−2.00", "+0.25"]
    red, blue = (
        [int(part) for part in chips[k].value_of_css_property("background-color").strip("rgba()").split(",")[:3]]
        for k in (1, 2)
    )
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50


def test_the_keyboard_reaches_every_word(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    for word in range(4):
        press(page, Keys.TAB)
        assert shown_heatmap(page)[0] == word
    press(page, Keys.ARROW_LEFT)
    assert shown_heatmap(page)[0] == 2
    press(page, Keys.HOME)
    assert shown_heatmap(page)[0] == 0
    press(page, Keys.END)
    assert shown_heatmap(page)[0] == 3


def test_enter_pins_a_word_until_escape(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    press(page, Keys.TAB, Keys.TAB, Keys.ENTER)
    assert [button.get_dom_attribute("aria-pressed") for button in buttons(page)] == ["false", "true", "false", "false"]
    hover(page, buttons(page)[3])
    assert shown_heatmap(page)[0] == 3
    hover(page, page.find_element("id", "word"))
    assert shown_heatmap(page)[0] == 1
    press(page, Keys.ESCAPE)
    assert "true" not in [button.get_dom_attribute("aria-pressed") for button in buttons(page)]


def test_layers_scale_and_opacity_can_be_chosen(page: Any) -> None:
    heatmap = page.find_element("id", "heatmap")
    assert heatmap.value_of_css_property("opacity") == "0.85"
    source = heatmap.get_dom_attribute("src")
    page.find_element("css selector", "input[value=regions]").click()
    assert heatmap.get_dom_attribute("data-layer") == "regions"
    assert heatmap.get_dom_attribute("src") != source
    page.find_element("css selector", "input[name=scale][value=word]").click()
    assert heatmap.get_dom_attribute("data-scale") == "word"
    page.find_element("css selector", "input[value=plain]").click()
    assert not heatmap.is_displayed()
    page.find_element("css selector", "input[value=pixels]").click()
    assert heatmap.is_displayed()
    page.find_element("id", "alone").click()
    assert page.find_element("id", "picture").value_of_css_property("opacity") == "0"


def test_the_numbers_are_there_as_tables(page: Any) -> None:
    page.find_element("css selector", "summary").click()
    shares, words = page.find_elements("css selector", "table")
    cells = [cell.text for cell in shares.find_elements("css selector", "tbody tr:nth-child(4) td")]
    assert cells[:2] == ["60 %", "+4.00"]
    row = [cell.text for cell in words.find_elements("css selector", "tbody tr:nth-child(4) td")]
    assert row == ["−0.40", "+2.00", "−2.00", "+0.25"]
