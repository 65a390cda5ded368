"""The report as a parser reads it: complete, without links to other places, with escaped file names."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from evaluation_pieces import scene, write, write_fused, write_pairs
from tcmoa_calibration.evaluate import EvaluateOptions, Evaluation, Method, evaluate_pairs
from tcmoa_calibration.evaluate.pictures import DARK, difference_picture, prompt_picture
from tcmoa_runtime.images import read_image

EVIL = 'a"><script>x'
LABEL = "<b>&'\""

VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Elements with their attributes and texts by their innermost element; checks that all are closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.stack: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, text: str) -> None:
        self.texts.append((self.stack[-1] if self.stack else "", text))

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        found = [a for name, a in self.elements if name == tag]
        return [a for a in found if all(a.get(k.replace("_", "-")) == v for k, v in attributes.items())]

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    """Evaluate three pairs: one with an odd name, one too small for a metric, one without a fused image."""
    folder = tmp_path_factory.mktemp("report")
    names = [EVIL, "b", "c"]
    write_pairs(folder / "pairs", names)
    write_fused(folder / "fused", names[:2])
    for which, image in zip("xy", scene(1, (30, 500)), strict=True):
        write(folder / "pairs" / f"b_{which}.png", image)
    write(folder / "fused" / "b.png", scene(1, (30, 500))[0])
    options = EvaluateOptions(baselines=("average",), metrics=("VIF", "Qabf"), jobs=1)
    methods = [Method.folder(folder / "fused", LABEL)]
    evaluation = evaluate_pairs(folder / "pairs", methods, options, out=folder / "out")
    return evaluation, folder / "out"


@pytest.fixture(scope="module")
def page(made: tuple[Evaluation, Path]) -> Page:
    return Page(made[1] / "report.html")


def test_all_links_are_relative_and_their_files_exist(page: Page, made: tuple[Evaluation, Path]) -> None:
    named = [a[key] or "" for _, a in page.elements for key in ("src", "href") if key in a]
    files = [name for name in named if not name.startswith("#")]
    assert len(files) == 2 * (
        3 * 2 + 2 * 2 + 3 * 2
    )  # links and pictures: x, y; fused, difference; both of average
    for name in files:
        parts = urlsplit(name)
        assert (parts.scheme, parts.netloc) == ("", "")
        assert (made[1] / name).is_file(), name
    assert "http" not in (made[1] / "report.html").read_text("utf-8")


def test_file_names_and_labels_are_escaped(page: Page) -> None:
    assert EVIL in page.text_of("h3")
    assert len(page.all("script")) == 2
    (data,) = (text for tag, text in page.texts if tag == "script" and text.startswith("{"))
    assert json.loads(data)["pairs"] == [EVIL, "b", "c"]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert LABEL in page.text_of("option")
    assert LABEL in page.text_of("th")
    assert any(a["data-title"] == LABEL for a in page.all("a", data_group="image"))


def test_all_values_are_in_the_page(page: Page, made: tuple[Evaluation, Path]) -> None:
    evaluation, _ = made
    assert len(page.all("article")) == 3
    (data,) = (json.loads(t) for tag, t in page.texts if tag == "script" and t.startswith("{"))
    assert data["metrics"] == [["VIF", True], ["Qabf", True]]
    for pair, rows in zip(evaluation.pairs, data["values"], strict=True):
        for entry, row in zip(evaluation.methods, rows, strict=True):
            values = entry.images.get(pair, {"VIF": None, "Qabf": None})
            assert row == [values["VIF"], values["Qabf"]]
    mean = evaluation.means["Qabf"][1]
    cells = page.text_of("td")
    assert f"{mean.mean:.4f} ±{mean.half_width:.4f}" in cells


def test_missing_values_have_their_reasons_beside_them(page: Page) -> None:
    assert page.text_of("small").count("30 px on the shorter side; expected at least 41 px") == 2
    (reason,) = (text for text in page.text_of("p") if "no fused image of the pair c" in text)
    assert any("no fused image of the pair c" in text for text in page.text_of("li"))
    assert reason


def test_pictures_are_thumbnails_and_load_lazily(page: Page, made: tuple[Evaluation, Path]) -> None:
    pictures = page.all("img", loading="lazy")
    assert len(pictures) == len(page.all("a", **{"class": "picture"}))
    for picture in pictures:
        height, width = read_image(made[1] / (picture["src"] or "")).shape[:2]
        assert max(height, width) <= 480
        full = (int(picture["width"] or 0), int(picture["height"] or 0))
        assert full in ((80, 64), (500, 30))
        assert width / height == pytest.approx(full[0] / full[1], rel=0.1)
    assert {read_image(p).shape[:2] for p in (made[1] / "report_images").glob("*-small.jpg")} == {(28, 480)}


def test_pictures_show_the_images_they_are_named_after(made: tuple[Evaluation, Path]) -> None:
    evaluation, out = made
    x, _ = scene(0)
    drawn = read_image(out / "report_images" / evaluation.sources[EVIL]["x"].file)
    assert np.abs(drawn.astype(int) - x).mean() < 2
    average = evaluation.methods[1].pictures[EVIL]
    dark = read_image(out / "report_images" / average["difference"].file)
    assert np.abs(dark.astype(int) - DARK).max() < 12  # the average is the mean, but for rounding


def test_a_difference_distinguishes_brighter_from_darker() -> None:
    x, y = np.full((2, 3, 3), 100, np.uint8), np.full((2, 3), 200, np.uint8)
    fused = np.array([[150, 182, 255], [150, 118, 0]], np.uint8)
    picture = difference_picture(x, y, fused).astype(int)
    assert (picture[:, 0] == DARK).all()
    assert (picture[0, 1:, 0] > picture[0, 1:, 2]).all()  # orange
    assert (picture[1, 1:, 0] < picture[1, 1:, 2]).all()  # blue
    assert (np.abs(picture[:, 2] - DARK).sum(axis=1) > np.abs(picture[:, 1] - DARK).sum(axis=1)).all()


@pytest.mark.parametrize("token", [8, None])
def test_a_prompt_map_is_red_for_x_and_blue_for_y(token: int | None) -> None:
    picture = prompt_picture(np.array([[0.95, 0.05, 0.05]], np.float32), (7, 20), token).astype(int)
    assert picture.shape == (7, 20, 3)
    assert picture[3, 0, 0] > 2 * picture[3, 0, 2]
    assert picture[3, 19, 2] > picture[3, 19, 0]
    edge = int(np.flatnonzero(np.abs(np.diff(picture[3, :, 0])) > 20)[0]) + 1
    assert edge == (8 if token else 7)


def test_one_method_on_one_pair_makes_a_page(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", "a")
    options = EvaluateOptions(baselines=("average",), metrics=("MI",), jobs=1)
    evaluate_pairs(tmp_path / "pairs", options=options, out=tmp_path / "out")
    assert "MI" in "".join(Page(tmp_path / "out" / "report.html").text_of("b"))


def test_a_name_that_is_not_valid_text_is_written_with_question_marks(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", "a")
    odd = b"n\xff".decode("utf-8", "surrogateescape")
    try:
        for which in "xy":
            (tmp_path / "pairs" / f"a_{which}.png").rename(tmp_path / "pairs" / f"{odd}_{which}.png")
    except OSError:
        pytest.skip("this file system accepts names of valid text only; one like ext4 runs this")
    options = EvaluateOptions(metrics=("MI",), jobs=1)
    evaluation = evaluate_pairs(tmp_path / "pairs", options=options, out=tmp_path / "out")
    assert evaluation.pairs == (odd,)
    assert "n?" in Page(tmp_path / "out" / "report.html").text_of("h3")
    assert "average,n?,MI," in (tmp_path / "out" / "results.csv").read_text("utf-8")


CLICK = """
const caption = () => document.getElementById("caption").textContent;
const press = (key) => document.getElementById("viewer").dispatchEvent(new KeyboardEvent("keydown", { key }));
const names = () => [...document.querySelectorAll("article h3")].map((e) => e.textContent);
const log = { count: document.getElementById("count").textContent, worst: names() };
document.querySelector("article a.picture").click();
log.x = caption();
press("ArrowRight"); press("ArrowRight"); log.third = caption();
press(" "); log.back = caption();
press("ArrowDown"); log.below = caption();
const order = document.getElementById("order");
order.value = "name"; order.dispatchEvent(new Event("change")); log.byName = names();
const filter = document.getElementById("filter");
filter.value = "SCRIPT"; filter.dispatchEvent(new Event("input"));
log.filtered = document.getElementById("count").textContent;
const column = () => [...document.querySelectorAll("#pair-table tbody tr")].map((row) => row.cells[2].dataset.value);
const head = document.querySelectorAll("#pair-table th")[2];
head.click(); log.up = column(); head.click(); log.down = column();
document.documentElement.setAttribute("data-log", JSON.stringify(log));
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("chromium"), reason="Chromium is not installed; `apt-get install chromium` runs this"
)
def test_a_browser_sorts_filters_and_flips(made: tuple[Evaluation, Path], tmp_path: Path) -> None:
    evaluation, out = made
    shutil.copytree(out, tmp_path / "page")
    path = tmp_path / "page" / "report.html"
    path.write_text(path.read_text("utf-8").replace("</body>", f"<script>{CLICK}</script></body>"), "utf-8")
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=3000", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "<html" not in done.stdout:
        pytest.skip("Chromium does not start here; one that starts from a shell runs this")
    seen = Page.__new__(Page)
    HTMLParser.__init__(seen)
    seen.elements, seen.texts, seen.stack = [], [], []
    seen.feed(done.stdout)
    log: dict[str, Any] = json.loads(seen.all("html")[0]["data-log"] or "{}")
    assert (log["count"], log["filtered"]) == ("3 of 3 pairs", "1 of 3 pairs")
    mine = evaluation.methods[0].column("Qabf")
    assert log["worst"] == [*sorted(mine, key=lambda name: mine[name] or 0), "c"]  # c has no value
    assert log["byName"] == [EVIL, "b", "c"]
    worst = log["worst"]
    assert log["x"] == f"{worst[0]}: x (1 of 4)"
    assert log["third"].startswith(f"{worst[0]}: {LABEL}, Qabf 0.")
    assert log["back"] == f"{worst[0]}: y (2 of 4)"
    assert log["below"] == f"{worst[1]}: y (2 of 4)"
    values = [evaluation.methods[1].images[name]["Qabf"] for name in evaluation.pairs]
    assert [float(v) for v in log["up"]] == sorted(values)  # type: ignore[type-var]
    assert log["down"] == log["up"][::-1]
