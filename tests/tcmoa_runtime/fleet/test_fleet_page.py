"""The page of a fleet: its HTTP API, access, metrics, and the page in a browser with many pairs."""

import contextlib
import json
import re
import shutil
import time
from http.client import HTTPConnection

import pytest

from fleet_pieces import ScriptedPool, report_of
from prometheus_text import read_metrics
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fleet.page.application import fleet_document
from tcmoa_runtime.fleet.page.metrics import fleet_metrics
from tcmoa_runtime.fleet.page.routes import API, FLEET
from tcmoa_runtime.fleet.page.server import FleetPage
from tcmoa_runtime.fleet.report import STATES
from tcmoa_runtime.fleet.status import describe_fleet
from tcmoa_runtime.fleet.supervisor import FleetStatus, PairStatus
from tcmoa_runtime.options.fleet import FleetOptions
from tcmoa_runtime.web.address import Address

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def pair_of(name, state="running", message=None, **values):
    report = None if state == "pending" else report_of(name, state, **values)
    return PairStatus(name, state, message, 12.0, report)


class Source:
    """A fleet as the page sees it."""

    def __init__(self, *pairs, file_error=None):
        self.pairs, self.file_error = pairs, file_error
        self.widths, self.age_s = [], 0.2

    def status(self):
        return FleetStatus(
            "yard", tuple(self.pairs), self.file_error, {"id": "1", "host": "here", "pid": 7}, self.age_s
        )

    def picture(self, name, width, timeout):
        self.widths.append(width)
        return None if name == "silent" else ScriptedPool().picture(name, width, timeout)


@contextlib.contextmanager
def served(source, address="127.0.0.1:0", token=None):
    page = FleetPage(Address.parse(address, subject="page"), token)
    with contextlib.closing(page):
        page.start(source)
        yield page


def get(page, path, **headers):
    """Return (status, headers, body)."""
    port = int(re.search(r":(\d+)/", page.url)[1])
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(headers.pop("method", "GET"), path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def test_every_state_is_served():
    source = Source(
        *(pair_of(f"pair-{state}", state, "a message", error="an error", retry_s=3.2) for state in STATES)
    )
    with served(source) as page:
        status, headers, body = get(page, FLEET.path)
        assert (status, headers["content-type"]) == (200, "application/json")
        fleet = json.loads(body)
        assert fleet == describe_fleet(source.status())
        assert fleet["counts"] == dict.fromkeys(STATES, 1)
        pairs = {pair["state"]: pair for pair in fleet["pairs"]}
        assert pairs["pending"]["node"] is None
        assert pairs["running"]["page"] == "http://127.0.0.1:9000/"
        assert pairs["lost"]["page"] is None
        assert (pairs["waiting"]["retry_s"], pairs["failed"]["retry_s"]) == (3.2, None)
        for name, keys in (("pairs", pairs["running"]), ("fleet", fleet)):
            assert all(f"`{key}`" in FLEET.response for key in keys), name
        _, _, body = get(page, "/api/pairs/pair-running")
        details = json.loads(body)
        assert details.pop("stats")["frames"] == 1
        assert details == pairs["running"]
        assert json.loads(get(page, "/api/pairs/pair-pending")[2])["stats"] is None
        assert get(page, "/health")[2] == b'{"live":true}'


def test_pictures_are_those_of_running_pairs():
    source = Source(pair_of("gate"), pair_of("silent"), pair_of("roof", "lost"))
    with served(source) as page:
        status, headers, body = get(page, "/api/pairs/gate/picture.jpg?width=200")
        assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
        get(page, "/api/pairs/gate/picture.jpg")
        assert source.widths == [200, 320]
        for name, state in (("silent", "running"), ("roof", "lost")):
            status, _, body = get(page, f"/api/pairs/{name}/picture.jpg")
            assert (status, json.loads(body)) == (
                404, {"error": f"{name}: there is no picture; it is {state}."},
            )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status", "line"),
    [
        ("/nothing", 404, "path: no such route; expected one of /, /metrics, /api/fleet, /api/pairs/{name}, "
         "/api/pairs/{name}/picture.jpg, /health"),
        ("/api/pairs/gat", 404, "gat: no such pair. `GET /api/fleet` lists them."),
        ("/api/pairs/gate/picture.jpg?width=0", 400, "width: '0'; expected 1 to 1920 pixels"),
        ("/api/pairs/gate/picture.jpg?width=x", 400, "width: 'x'; expected 1 to 1920 pixels"),
    ],
)  # fmt: skip
def test_an_error_is_one_line(path, status, line):
    with served(Source(pair_of("gate"))) as page:
        found, headers, body = get(page, path)
        assert (found, json.loads(body)) == (status, {"error": line})
        assert headers["x-content-type-options"] == "nosniff"
        found, headers, body = get(page, path, method="DELETE")
        assert found in (404, 405)


def test_a_fault_of_ours_is_one_line_too(caplog):
    source = Source(pair_of("gate"))
    source.status = lambda: 1 / 0
    with served(source) as page:
        status, _, body = get(page, "/metrics")
    assert (status, json.loads(body)) == (
        500, {"error": "internal error: ZeroDivisionError. The log of the supervisor has details."},
    )  # fmt: skip


def test_on_loopback_only_this_machine_is_served():
    with served(Source()) as page:
        assert page.url.startswith("http://127.0.0.1:")
        assert "token" not in page.url
        assert get(page, "/api/fleet", Host="evil.example")[0] == 403
        assert get(page, "/api/fleet", Host="localhost")[0] == 200


def test_elsewhere_a_token_is_required():
    with served(Source(pair_of("gate")), "0.0.0.0:0") as page:
        token = page.url.partition("?token=")[2]
        assert len(token) >= 16
        for path in ("/", "/api/fleet", "/metrics", "/api/pairs/gate/picture.jpg"):
            status, headers, body = get(page, path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert json.loads(body)["error"].startswith(
                "a token is required. Open the URL that `tcmoa fleet` printed, or send"
            )
        assert get(page, "/health")[0] == 200
        assert get(page, "/api/fleet", Authorization=f"Bearer {token}")[0] == 200
        status, headers, _ = get(page, f"/?token={token}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"].partition(";")[0]
        assert "HttpOnly" in headers["set-cookie"]
        assert get(page, "/", Cookie=cookie)[0] == 200
        assert get(page, "/api/fleet", Authorization="Bearer wrong-token")[0] == 401


def test_the_address_and_the_token_are_checked():
    assert FleetOptions(page="off").page_address is None
    assert FleetOptions(page="::1").page_address == Address("::1", 8090)
    with (
        pytest.raises(InputError, match=r"token: 3 characters; expected 8 or more"),
        served(Source(), token="abc"),
    ):
        pass
    with served(Source()) as page, pytest.raises(InputError, match="page of the fleet: cannot listen on"):
        FleetPage(Address.parse(page.url.removeprefix("http://").rstrip("/"), subject="page"), None)


def test_metrics_have_the_labels_of_stream_and_node():
    pairs = pair_of("gate"), pair_of("roof", "waiting"), pair_of("new", "pending")
    found = read_metrics(fleet_metrics(FleetStatus("yard", pairs)))

    def values(name):
        return {tuple(value for _, value in labels): value for labels, value in found[name][1].items()}

    assert values("tcmoa_fleet_up") == {("node-1", "gate"): 1, ("node-1", "roof"): 0, ("", "new"): 0}
    assert values("tcmoa_frames_total") == {("node-1", "gate"): 1, ("node-1", "roof"): 1}
    assert values("tcmoa_fleet_starts_total")["node-1", "gate"] == 1
    counts = dict.fromkeys(STATES, 0) | {"running": 1, "waiting": 1, "pending": 1}
    assert values("tcmoa_fleet_pairs") == {(state,): count for state, count in counts.items()}


def test_the_reference_lists_every_route():
    text = API.describe("##")
    for route in API.routes:
        assert f"## `{route.method} {route.path}`" in text


def test_the_page_loads_nothing_else():
    html, policy = fleet_document()
    assert not re.search(r'(src|href)="(?!data:)[^"]', html)
    assert "default-src 'none'" in policy
    assert "/*" not in html.partition("<style>")[0]


# In a browser


NUM_PAIRS = 100
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (CHROMIUM and DRIVER):
        pytest.skip("Chromium is not installed; `apt-get install chromium chromium-driver` runs this")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield started
    started.quit()


def many_pairs():
    """A hundred pairs on five nodes, of which some have problems."""
    special = {
        3: (
            "waiting",
            {"error": "rtsp://***@10.0.0.9/v: cannot be opened: Connection refused", "retry_s": 16.0},
        ),
        41: ("lost", {}),
        42: ("stalled", {"frame_s": 7.3}),
        77: ("pending", {}),
    }
    pairs = []
    for i in range(NUM_PAIRS):
        state, values = special.get(i, ("running", {}))
        node = {"id": str(i % 5), "ip": f"10.0.0.{i % 5 + 1}", "host": f"node-{i % 5 + 1}"}
        message = "its process or node does not answer; Ray restarts it" if state == "lost" else None
        message = "waiting for 1 CPU on one of 5 nodes" if state == "pending" else message
        pairs.append(pair_of(f"camera-{i:03}", state, message, **{"node": node, **values}))
    return pairs


@pytest.mark.slow
def test_a_browser_shows_a_hundred_pairs(driver):
    source = Source(*many_pairs())
    with served(source) as page:
        driver.get(page.url)

        def read(script):
            return driver.execute_script(f"return {script}")

        def until(script):
            deadline = time.monotonic() + 60
            while not read(script):
                assert time.monotonic() < deadline, (script, driver.get_log("browser"))
                time.sleep(0.05)

        until(f"document.querySelectorAll('.pair').length === {NUM_PAIRS}")
        names = "[...document.querySelectorAll('.pair')].map((pair) => pair.dataset.name)"
        assert read(names)[:5] == ["camera-041", "camera-003", "camera-042", "camera-077", "camera-000"]
        text = driver.find_element("css selector", "[data-name='camera-003']").text
        assert "waiting" in text
        assert "again in 16 s: rtsp://***@10.0.0.9/v: cannot be opened: Connection refused" in text
        assert driver.title == "(2) yard - tcmoa fleet"
        assert "96 running" in driver.find_element("id", "summary").text

        # Pictures come for the pairs in view only.
        until("document.querySelectorAll('.pair img:not([hidden])').length > 10")
        assert len(source.widths) < NUM_PAIRS
        link = driver.find_element("css selector", "[data-name='camera-000'] .name")
        assert link.get_attribute("href") == "http://127.0.0.1:9000/"
        assert read("document.documentElement.scrollWidth <= innerWidth")

        # Filters, sorting and the list without pictures.
        driver.find_element("id", "filter").send_keys("node-3")
        assert driver.find_element("id", "shown").text == "19 of 100 pairs"
        driver.find_element("id", "filter").clear()
        driver.find_element("id", "filter").send_keys(" ")
        driver.find_element("css selector", "#summary [data-state='stalled']").click()
        assert read(names) == ["camera-042"]
        driver.find_element("css selector", "#summary [data-state='stalled']").click()
        driver.find_element("css selector", "#sort option[value='name']").click()
        until(f"{names}[0] === 'camera-000' && {names}[41] === 'camera-041'")
        driver.find_element("id", "pictures").click()
        assert read("[...document.querySelectorAll('.pair')].every((pair) => pair.clientHeight < 60)")

        # A pair goes, a file is refused, the supervisor ends.
        source.pairs, source.file_error = many_pairs()[:50], "fleet.toml: pairs.new: 'x<b>' is no option"
        source.age_s = 20.0
        until("document.querySelectorAll('.pair').length === 50")
        assert driver.find_element("id", "file-error").text.endswith("pairs.new: 'x<b>' is no option")
        assert driver.find_element("id", "connection").text == "Ray has not answered for 20 s"
        problems = [entry for entry in driver.get_log("browser") if "picture.jpg" not in entry["message"]]
        assert problems == []
    until("document.getElementById('connection').dataset.state === 'lost'")
