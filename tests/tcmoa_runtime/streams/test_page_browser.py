"""The live page in headless Chromium."""

import contextlib
import re
import shutil
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from page_pieces import running_page
from stream_pieces import WAIT_SECONDS, ListSink, LiveSource
from tcmoa_runtime.options.stream import StreamOptions

pytest.importorskip("aiohttp", reason="aiohttp is not installed; `pip install 'tcmoa[stream]'` runs this")
webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed; `pip install selenium`"
)

Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="Chromium is not installed; `apt-get install chromium chromium-driver` runs this",
    ),
]
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Folder that the browser saves files in."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


class Visit:
    """One page that is open in the browser."""

    def __init__(self, driver, page, stream):
        self.driver, self.page, self.stream = driver, page, stream

    def __getitem__(self, name):
        return self.driver.find_element("id", name)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, condition):
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (
                f"connection {self['connection'].text!r}, error {self['error'].text!r}"
            )
            time.sleep(0.05)

    def slide(self, name, value):
        """Move a slider as a user does."""
        self.run(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('input', {bubbles: true}))", name, value,
        )  # fmt: skip

    def type(self, name, text):
        """Replace the text of a field."""
        self[name].send_keys(Keys.CONTROL + "a" + Keys.NULL + text + "\t")

    def drag(self, start, stop):
        """Drag the mouse over the fused frame; positions are shares of its width and height."""
        canvas = self["region"]
        size = np.array([canvas.size["width"], canvas.size["height"]])
        self.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
        (x0, y0), (x1, y1) = ((np.array(place) - 0.5) * size for place in (start, stop))
        chain = webdriver.ActionChains(self.driver).move_to_element_with_offset(canvas, int(x0), int(y0))
        chain.click_and_hold().move_by_offset(int(x1 - x0), int(y1 - y0)).release().perform()

    def pixel(self, canvas, x=0.5, y=0.5):
        """RGBA of a canvas at a position in shares of its width and height."""
        return self.run(
            "const c = document.getElementById(arguments[0]);"
            "return Array.from(c.getContext('2d').getImageData(Math.floor(arguments[1] * c.width),"
            " Math.floor(arguments[2] * c.height), 1, 1).data)", canvas, x, y,
        )  # fmt: skip

    def alpha_near(self, x, y):
        """Largest alpha of the region's canvas within three pixels of a position."""
        return self.run(
            "const c = document.getElementById('region');"
            "return Math.max(...c.getContext('2d').getImageData(Math.round(arguments[0] * c.width) - 3,"
            " Math.round(arguments[1] * c.height) - 3, 7, 7).data.filter((_, i) => i % 4 === 3))", x, y,
        )  # fmt: skip

    def box(self, name):
        """(left, top, right, bottom) of an element in the window."""
        return self.run(
            "const b = document.getElementById(arguments[0]).getBoundingClientRect();"
            "return [b.left, b.top, b.right, b.bottom]", name,
        )  # fmt: skip

    @property
    def frame(self):
        return int(self.run("return document.body.dataset.frame || -1"))

    def warnings(self):
        """Return what the browser warns of; reading pixels often is what the tests do, not the page."""
        return [
            entry
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING") and "getImageData" not in entry["message"]
        ]


@contextlib.contextmanager
def visiting(driver, bundle, path="", **options):
    with running_page(bundle, rate=options.pop("rate", 25), **options) as (page, stream):
        driver.get_log("browser")
        driver.get(page.url + path)
        visit = Visit(driver, page, stream)
        visit.until(lambda: visit["connection"].text == "live" and visit.frame >= 0)
        yield visit
        driver.get("about:blank")


def uniform(red, green, blue):
    image = np.empty((100, 130, 3), np.uint8)
    image[...] = red, green, blue
    return lambda _: image


def test_the_fused_frame_and_both_sources_are_shown(driver, bundle):
    x, y = (
        LiveSource(25, name="eye", images=uniform(200, 60, 20)),
        LiveSource(25, name="heat", images=uniform(20, 40, 220)),
    )
    with visiting(driver, bundle, x=x, y=y) as visit:
        first = visit.frame
        visit.until(lambda: visit.frame > first + 5)
        # CopyingBackend: fused is x.
        for canvas, color in (("fused", (200, 60, 20)), ("x", (200, 60, 20)), ("y", (20, 40, 220))):
            np.testing.assert_allclose(visit.pixel(canvas)[:3], color, atol=6)
        assert "vif, 130x100" in visit["description"].text
        assert visit["name-x"].text == "visible: eye"
        assert visit["name-y"].text == "infrared: heat"
        assert visit["status"].text == "fused"
        assert visit["error"].text == ""
        assert visit.warnings() == []


def test_sliders_change_the_prompt_and_follow_other_clients(driver, bundle):
    with visiting(driver, bundle) as visit:
        control = visit.stream.control
        visit.slide("ramp", "0")
        visit.slide("scale", "1.5")
        visit.slide("shift", "0.25")
        visit.until(lambda: control.values() == (1.5, 0.25))
        assert visit["shift-number"].get_attribute("value") == "0.25"
        visit.type("scale-number", "7.5")
        visit.until(lambda: control.values() == (7.5, 0.25))
        time.sleep(1.6)  # longer than the page holds the value of a slider
        control.set(shift=-0.4, ramp=0)
        visit.until(lambda: visit["shift"].get_attribute("value") == "-0.4")
        visit["reset"].click()
        visit.until(lambda: control.values() == (1.0, 0.0))
        visit.until(lambda: visit["scale-number"].get_attribute("value") == "1")
        assert visit.warnings() == []


def test_a_refused_value_is_shown_until_a_valid_one_follows(driver, bundle):
    with visiting(driver, bundle) as visit:
        visit.type("shift-number", "40")
        visit.until(lambda: "shift: holds 40; expected -16 to 16" in visit["error"].text)
        visit.slide("shift", "0.1")
        visit.until(lambda: visit["error"].text == "")


def test_a_rectangle_is_drawn_and_cleared(driver, bundle):
    with visiting(driver, bundle) as visit:
        visit.slide("ramp", "0")
        visit.slide("inner-shift", "0.5")
        visit.driver.find_element("css selector", "[data-tool=rectangle]").click()
        visit.drag((0.25, 0.25), (0.75, 0.5))
        visit.until(lambda: visit.stream.control.state()["region"])
        region = visit.stream.control.state()["region"]
        np.testing.assert_allclose(region["rectangle"], [32.5, 25, 65, 25], atol=1.5)
        assert region["shift"] == 0.5
        # An outline only: the region is to be judged in its own colors.
        assert min(visit.alpha_near(*at) for at in ((0.25, 0.4), (0.75, 0.4), (0.5, 0.25), (0.5, 0.5))) > 200
        assert visit.alpha_near(0.5, 0.375) == visit.alpha_near(0.1, 0.1) == 0
        visit.slide("inner-shift", "-0.3")
        visit.until(lambda: visit.stream.control.state()["region"]["shift"] == -0.3)
        visit["clear-region"].click()
        visit.until(lambda: visit.stream.control.state()["region"] is None)
        assert visit.alpha_near(0.25, 0.4) == 0


def test_a_region_is_painted_and_erased(driver, bundle):
    with visiting(driver, bundle) as visit:
        visit.slide("ramp", "0")
        visit.slide("inner-shift", "1")
        visit.slide("brush-size", "16")
        visit.driver.find_element("css selector", "[data-tool=paint]").click()
        visit.drag((0.2, 0.5), (0.8, 0.5))
        visit.until(lambda: visit.stream.control.state()["region"])
        shift = visit.stream.control.values()[1]
        painted = shift[6]  # the middle row
        assert painted[4:13].min() == 1  # one stroke, without gaps
        assert painted[[0, 1, 15, 16]].max() == 0
        assert shift[[0, 1, 2, 10, 11, 12]].max() == 0
        rows = np.flatnonzero(shift[:, 8])  # tokens of 8x8 pixels of 130x100
        assert visit.alpha_near(0.5, 8 * rows[0] / 100) > 200
        assert visit.alpha_near(0.5, 8 * (rows[-1] + 1) / 100) > 200
        assert visit.alpha_near(0.5, 0.52) == 0
        visit.driver.find_element("css selector", "[data-tool=erase]").click()
        visit.drag((0.1, 0.5), (0.9, 0.5))
        visit.until(lambda: visit.stream.control.state()["region"] is None)
        assert visit.warnings() == []


def test_regions_of_other_clients_are_shown_and_removed(driver, bundle):
    with visiting(driver, bundle) as visit:
        visit.stream.control.set_region(mask=np.eye(13, 17), shift=0.5)
        visit.until(lambda: "A region of 13 tokens" in visit["region-note"].text)
        visit.driver.find_element("css selector", "[data-tool=rectangle]").click()
        visit.drag((0.25, 0.25), (0.75, 0.75))
        visit.until(lambda: "rectangle" in visit.stream.control.state()["region"])
        visit.until(lambda: visit["region-note"].text == "")

        def is_cleared():
            visit.stream.control.clear_region()  # once more where the page's last request came after it
            return visit.alpha_near(0.25, 0.5) == 0

        visit.until(is_cleared)
        visit.stream.control.set_region(rectangle=(0, 0, 40, 40), shift=0.5)
        visit.until(lambda: visit.alpha_near(40 / 130, 0.2) > 200)
        visit.stream.control.set_region(mask=np.eye(13, 17), shift=0.5)
        visit.until(lambda: visit.alpha_near(40 / 130, 0.2) == 0)
        assert "A region of 13 tokens" in visit["region-note"].text


def test_the_prompt_map_is_drawn_over_the_fused_frame(driver, bundle):
    with visiting(driver, bundle) as visit:
        assert not visit["prompt"].is_displayed()
        assert not visit["legend"].is_displayed()
        visit["overlay"].click()
        visit.until(
            lambda: (
                visit["prompt"].is_displayed()
                and visit.run("return document.getElementById('prompt').width") == 17
            )
        )
        red, _, blue, alpha = visit.pixel("prompt")  # CopyingBackend returns 0.6: x dominates
        assert red > blue  # orange
        assert 0 < alpha < 255
        assert visit["legend"].text.splitlines() == [
            "infrared (y)", "visible (x)", "0.4", "weight of x, 0.5: equal", "0.6",
        ]  # fmt: skip
        # 17 tokens of 8 pixels cover 136 pixels, of which the frame has 130.
        np.testing.assert_allclose(
            np.diff(visit.box("prompt")[::2]) / np.diff(visit.box("fused")[::2]), 136 / 130, 1e-3
        )
        visit.stream.control.set(shift=-0.1, ramp=0)
        visit.until(lambda: visit.pixel("prompt")[3] == 0)  # both weigh the same
        visit.stream.control.set(shift=-0.5, ramp=0)
        visit.until(lambda: (p := visit.pixel("prompt"))[2] > p[0] and p[3] > 0)  # blue
        assert visit["legend"].text.splitlines()[2::2] == ["0", "1"]
        assert [option.text for option in visit["tc-moa"].find_elements("tag name", "option")][:2] == [
            "mean of all",
            "TC-MoA 1",
        ]


def test_a_snapshot_and_a_recording_are_saved_by_the_browser(driver, bundle, downloads):
    sources = {side: LiveSource(25, images=uniform(200, 60, 20)) for side in "xy"}
    with visiting(driver, bundle, **sources) as visit:
        visit["record"].click()
        visit.until(lambda: re.match(r"Stop \(\d:(?!00)", visit["record"].text))
        assert visit["record"].get_attribute("aria-pressed") == "true"
        visit["snapshot"].click()
        visit.until(lambda: list(downloads.glob("fused-*.png")))
        visit["record"].click()
        assert visit["record"].text == "Record"
        visit.until(lambda: list(downloads.glob("fused-*.webm")))
        assert visit["error"].text == ""
        assert visit.warnings() == []
        (snapshot,), (recording,) = (downloads.glob(f"fused-*.{suffix}") for suffix in ("png", "webm"))
    assert (cv2.imread(str(snapshot)) == (20, 60, 200)).all()
    video = cv2.VideoCapture(str(recording))
    is_read, image = video.read()
    assert is_read
    assert image.shape == (100, 130, 3)  # the size of the frame, not of the window
    np.testing.assert_allclose(image[50, 65], (20, 60, 200), atol=12)


def test_on_a_phone_the_picture_stays_in_view_while_sliders_move(driver, bundle):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    with visiting(driver, bundle) as visit:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            visit["overlay"].click()
            for name in ("scale", "shift", "inner-shift", "opacity"):
                visit.run("arguments[0].scrollIntoView({block: 'end'})", visit[name])
                left, top, right, bottom = visit.box("fused")
                assert 0 <= left < right <= 390
                assert 0 <= top < bottom
                assert visit.box("output")[3] <= visit.box(name)[1] < visit.box(name)[3] < 845, name
            assert visit.run("return document.documentElement.scrollWidth") == 390
        finally:
            driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_is_used_by_keyboard_and_follows_the_theme(driver, bundle):
    x = LiveSource(25)
    x.sample_aspect_ratio = Fraction(2)
    with visiting(driver, bundle, x=x) as visit:
        control = visit.stream.control
        visit.driver.find_element("css selector", "[data-tool=rectangle]").send_keys(Keys.ENTER)
        visit.run("arguments[0].focus()", visit["region"])
        active = visit.driver.switch_to.active_element
        assert active.get_attribute("id") == "region"
        active.send_keys(Keys.ARROW_RIGHT)
        visit.until(lambda: (control.state()["region"] or {}).get("rectangle") == [43, 33, 43, 33])
        active.send_keys(Keys.ARROW_RIGHT, Keys.SHIFT, Keys.ARROW_DOWN, Keys.SHIFT)
        visit.until(lambda: (control.state()["region"] or {}).get("rectangle") == [51, 33, 43, 41])
        active.send_keys(Keys.DELETE)
        visit.until(lambda: control.state()["region"] is None)
        background = "return getComputedStyle(document.body).backgroundColor"
        for theme, color in (("dark", "rgb(20, 21, 26)"), ("light", "rgb(244, 245, 247)"), ("system", None)):
            visit["theme"].send_keys(Keys.ENTER)
            assert visit["theme"].text == f"Theme: {theme}"
            assert color is None or visit.run(background) == color
        visit["fullscreen"].send_keys(Keys.ENTER)
        visit.until(lambda: visit.run("return (document.fullscreenElement || {}).id") == "stage")
        left, top, right, bottom = visit.box("picture")
        assert (right - left) / (bottom - top) == pytest.approx(
            2.6, abs=0.01
        )  # pixels are twice as wide as high
        visit.run("document.exitFullscreen()")
        unlabelled = visit.run(
            "return [...document.querySelectorAll('input, select, button')].filter((e) => !(e.labels || []).length"
            " && !e.ariaLabel && !e.textContent.trim()).map((e) => e.id)"
        )
        assert unlabelled == []
        assert visit.warnings() == []


def test_motion_is_reduced_where_the_user_asks_for_it(driver, bundle):
    feature = {"name": "prefers-reduced-motion", "value": "reduce"}
    with visiting(driver, bundle) as visit:
        duration = "return getComputedStyle(document.getElementById('reset')).transitionProperty"
        assert visit.run(duration) == "border-color"
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        assert visit.run(duration) == "none"
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_bundle_without_prompts_is_explained(driver, plain_bundle):
    with visiting(driver, plain_bundle) as visit:
        assert not visit["overlay"].is_enabled()
        assert "with_prompt" in visit["no-prompt"].text


def test_statistics_and_charts_are_updated(driver, bundle):
    with visiting(driver, bundle) as visit:
        visit.until(lambda: visit["rate"].text not in ("", "-") and visit["latency"].text.endswith("ms"))
        drawn = "const c = document.getElementById('chart-latency'); return c.getContext('2d')" \
                ".getImageData(0, 0, c.width, c.height).data.some((v) => v > 0)"  # fmt: skip
        visit.until(lambda: visit.run(drawn))
        assert "latency p50 / p95 / p99" in visit["stats"].text


def test_a_lost_source_is_shown_over_the_fused_frame(driver, bundle):
    y = LiveSource(25, hook=lambda index: "end" if index == 30 else None)
    with visiting(driver, bundle, y=y, options=StreamOptions()) as visit:
        visit.until(lambda: "y is lost" in visit["notice"].text)


def test_a_token_is_required_and_removed_from_the_address_bar(driver, bundle):
    with visiting(driver, bundle, token="secret-of-this-test") as visit:
        assert "secret" not in visit.driver.current_url
        visit.driver.refresh()
        visit.until(lambda: visit["connection"].text == "live")
        visit.driver.delete_all_cookies()
        visit.driver.refresh()
        assert "a token is required" in visit.driver.find_element("tag name", "body").text


def test_the_page_reconnects_and_shows_the_end_of_the_stream(driver, bundle):
    with visiting(driver, bundle) as visit:
        visit.run(
            "const status = document.getElementById('connection'); window.statuses = [];"
            "new MutationObserver(() => window.statuses.push(status.textContent)).observe(status, {childList: true})"
        )
        hub = visit.page._server._hub
        hub.loop.call_soon_threadsafe(lambda: [connection.abort() for connection in list(hub.connections)])
        visit.until(lambda: "connection lost, reconnecting" in visit.run("return window.statuses"))
        visit.until(lambda: visit["connection"].text == "live")
        first = visit.frame
        visit.until(lambda: visit.frame > first + 5)
        visit.stream.stop()
        visit.until(lambda: visit["connection"].text == "the stream has ended")


def test_a_slow_browser_does_not_slow_the_stream(driver, bundle):
    sink = ListSink(lossless=False)
    with visiting(driver, bundle, rate=50, sinks=[sink]) as visit:
        before = visit.stream.stats.snapshot()
        visit.run("const until = performance.now() + 3000; while (performance.now() < until);")
        snapshot = visit.stream.stats.snapshot()
        assert snapshot["frames"] - before["frames"] > 50  # of 150; the machine may be busy
        # The list never waits for a browser; if the machine stalls for a moment, it loses a frame, too.
        page, control = (
            snapshot["dropped"].get(sink, 0) - before["dropped"].get(sink, 0)
            for sink in ("sink-page", "sink-list")
        )
        assert page <= control + 30  # a stall may hit only one of their threads
        newest = snapshot["frames"] - 1
        visit.until(lambda: visit.frame >= newest)
        visit.until(lambda: int(visit.run("return [...document.querySelectorAll('#stats tr')].map(r => r.cells)"
            ".find(c => c[0].textContent.startsWith('skipped'))[1].textContent")) > 50)  # fmt: skip
