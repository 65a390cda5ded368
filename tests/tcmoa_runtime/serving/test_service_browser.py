"""The form of the service in headless Chromium."""

import shutil

import pytest

from service_pieces import SECONDS, noise, running_service
from stream_pieces import copying_fuser
from tcmoa_runtime import Bundle
from tcmoa_runtime.images import write_image

pytest.importorskip("uvicorn", reason="uvicorn is not installed; `pip install 'tcmoa[serve]'` runs this")
webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed; `pip install selenium`"
)
wait_module = pytest.importorskip("selenium.webdriver.support.ui")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="Chromium is not installed; `apt-get install chromium chromium-driver` runs this",
    ),
]


@pytest.fixture
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


def test_the_form_fuses_two_images_with_a_token_and_shows_errors(driver, exported, tmp_path):
    path = tmp_path / "x.png"
    write_image(path, noise(100, 130))
    fuser = copying_fuser(Bundle.open(exported("vif")))
    token = "token-of-this-test"
    with running_service({"vif": fuser}, token=token) as running:
        driver.get(f"http://127.0.0.1:{running.port}/?token={token}")
        assert driver.current_url == f"http://127.0.0.1:{running.port}/"
        wait = wait_module.WebDriverWait(driver, SECONDS)
        button, message = (driver.find_element("css selector", s) for s in ("button", "#message"))
        assert [driver.find_element("id", f"role-{name}").text for name in "xy"] == [
            "x, visible",
            "y, infrared",
        ]
        button.click()
        assert message.text == "Choose both images."
        for name in "xy":
            driver.find_element("id", name).send_keys(str(path))
        driver.find_element("id", "shift").send_keys("0.5")
        button.click()
        wait.until(lambda _: message.text.startswith("Fused in "))
        size = driver.execute_script("const i = document.getElementById('fused'); return i.decode().then("
                                     "() => [i.naturalWidth, i.naturalHeight, i.hidden])")  # fmt: skip
        assert size == [130, 100, False]
        link = driver.find_element("id", "link")
        assert link.get_attribute("download") == "fused.png"
        phone = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        assert driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [
            360,
            360,
        ]
        driver.find_element("id", "scale").send_keys("99")
        button.click()
        wait.until(lambda _: message.text == "prompt_scale: holds 99; expected -16 to 16")
        assert not link.is_displayed()
        assert not driver.find_element("id", "fused").is_displayed()
    assert float(fuser.backend.calls[0]["prompt_shift"].mean()) == 0.5
    log = [entry["message"] for entry in driver.get_log("browser")]
    assert [line for line in log if "/v1/fuse" not in line] == []
