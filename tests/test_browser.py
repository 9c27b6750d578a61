"""Pages in a real browser: nothing fetched, no errors, figures that are there, readable on a phone."""

from __future__ import annotations

import json
import shutil

import pytest
from simulate import clinic_study, clinic_trial

import bdtr
from bdtr.reports.notebooks import run_notebook

webdriver = pytest.importorskip("selenium.webdriver", reason="needs the dependency group browser")
pytestmark = pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="needs Debian's chromium and chromium-driver"
)
ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    frame = clinic_study()
    names = {name: f"{name} $" for name in frame["clinic"].unique()}
    names[frame["clinic"].iloc[0]] = ATTACK
    frame["clinic"] = frame["clinic"].map(names)
    fit = bdtr.fit(
        clinic_trial(), frame, missing="exclude", sampler="direct", draws=250, propagated=1000,
        random_seed=3, progress=False,
    )  # fmt: skip
    return bdtr.report(fit, tmp_path_factory.mktemp("page") / "x.html", min_cell=1, thorough=False)


def opened(browser, path, width):
    browser.get_log("performance")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    return browser


def requests(browser, path):
    """Addresses that the page asked for, itself and what it holds apart."""
    sent = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = [
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    ]
    return [u for u in urls if u != path.as_uri() and not u.startswith("data:")]


@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_in_a_browser(browser, report, width):
    page = opened(browser, report, width)
    assert requests(page, report) == []
    assert page.get_log("browser") == []
    images = page.execute_script(
        "return [...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt])"
    )
    assert len(images) > 10
    assert all(there and alt for there, alt in images)
    # What is too wide scrolls in its own box.
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_name_with_a_script_in_it_is_text(browser, report):
    page = opened(browser, report, 1200)
    text = page.execute_script("return document.body.textContent")
    assert ATTACK in text
    assert page.execute_script("return document.scripts.length") == 0


def test_folded_parts_are_printed(browser, report):
    page = opened(browser, report, 1200)
    tall = "return document.querySelector('details table').getBoundingClientRect().height"
    closed = "return document.querySelector('details table').checkVisibility({contentVisibilityAuto: true})"
    assert not page.execute_script(closed)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.execute_script(tall) > 0
    assert page.execute_script(closed)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_notebook_page_in_a_browser(browser, tmp_path):
    source = tmp_path / "n.py"
    source.write_text(
        "# %% [markdown]\n# # Title\n# %%\nimport pandas as pd\npd.DataFrame({'a': [1]})\n"
    )
    path, _ = run_notebook(source, tmp_path / "n.html")
    page = opened(browser, path, 390)
    assert requests(page, path) == []
    assert page.get_log("browser") == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
