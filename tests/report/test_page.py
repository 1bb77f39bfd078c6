import base64
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from classification.report import Classifiers
from eakd_det.config import load_config
from eakd_det.errors import UserError
from eakd_det.report.detectors import Detectors
from eakd_det.report.page import write_report

from .browser import Browser, find_browser

ROOT = Path(__file__).parent.parent.parent
KINDS = [Classifiers(), Detectors()]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><path d="M0 0h40v20z"/></svg>'


class Parsed(HTMLParser):
    """The elements of a page, and the text of its table's cells."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.cells, self._in_cell = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_cell = self._in_cell or tag in ("td", "th")
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(classifier_runs, tmp_path_factory):
    """The path of a report of both runs, with a figure of an analysis."""
    analysis = classifier_runs[0] / "analysis"
    analysis.mkdir(exist_ok=True)
    (analysis / "entropy_segments.svg").write_text(SVG)
    path = tmp_path_factory.mktemp("page") / "page.html"
    return Path(write_report([str(f) for f in classifier_runs], KINDS, str(path)))


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page.read_text())


def test_table_has_what_the_runs_have_reached(parsed, classifier_runs):
    for folder in classifier_runs:
        result = json.loads((folder / "result.json").read_text())
        cells = iter(parsed.cells[parsed.cells.index(folder.name) :])
        label, top1, top5, best, teacher, method, models, parameters, iterations, _ = (
            next(cells) for _ in range(10)
        )
        assert (label, method, models) == (folder.name, folder.name, "resnet14 → resnet8")
        figures = [f"{result[key]:.2f}" for key in ("top1", "top5", "best_top1", "teacher_top1")]
        assert [top1, top5, best, teacher] == figures
        assert (parameters, iterations) == ("78 k", "40")


def test_page_needs_nothing_else(page, parsed):
    for tag, attributes in parsed.elements:
        for name in ("src", "srcset", "href", "data", "action", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, name)
    assert not parsed.all("script")
    text = page.read_text()
    assert not re.search(r"url\(|@import", text)
    for found in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", text):
        svg = base64.b64decode(found).decode()
        assert not re.search(r'(href|src)="(?!#)', svg)


def test_page_can_be_read_without_seeing_it(parsed):
    assert parsed.all("html") == [{"lang": "en"}]
    images = parsed.all("img")
    assert len(images) == 2 + 2 + 3 + 1  # progress, parts of the losses, entropies, the analysis
    assert all(image["alt"] for image in images)
    assert any("EA-KD ends at" in image["alt"] for image in images)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"].removeprefix("#") for attributes in parsed.all("a")]
    assert set(links) <= set(ids)


def test_commands_and_versions(page):
    text = page.read_text()
    assert text.count('<p class="versions">') == 2
    assert f"torch {torch.__version__}" in text
    assert "Started 20" in text and "1 process," in text


def test_names_of_folders_are_text(write_run):
    folder = write_run(
        "<b>&run", load_config(str(ROOT / "configs/Digits-Detection/KD-R18-R101.yaml"))
    )
    path = write_report([f"{folder}"], KINDS)
    assert path.endswith("report.html") and Path(path).parent.resolve() == folder
    text = Path(path).read_text()
    assert "&lt;b&gt;&amp;run" in text and "<b>" not in text
    assert "no run.json" in text
    assert "teacher" not in Parsed(text).cells  # its figure is not known


def test_a_detectors_page(write_run, save_picture):
    cfg = load_config(str(ROOT / "configs/COCO-Detection/EA-DKD-R18-R101.yaml"))
    rows = [
        {"iteration": i, "total_loss": 3 / (i + 1), "loss_cls": 2 / (i + 1),
         "loss_dkd": 1 / (i + 1), "time": 0.5,
         "bbox/AP": float("nan") if i == 19 else i / 4, "bbox/AP50": i / 2.0}
        for i in (19, 39, 59)
    ]  # fmt: skip
    folder = write_run("demo/ea_dkd", cfg, rows)
    (folder / "teacher").mkdir()
    (folder / "teacher" / "result.json").write_text('{"bbox": {"AP": 42.9}}')
    save_picture(folder / "pictures" / "12.png")
    save_picture(folder.parent / "detections.png")
    other = load_config(str(ROOT / "configs/COCO-Detection/Student-R18.yaml"))
    result = {"AP": 33.3, "seconds": 3725.0, "parameters": 28_300_000}
    write_run("demo/student", other, result=result)
    text = Path(write_report([str(folder.parent)], KINDS)).read_text()
    cells = Parsed(text).cells
    at = cells.index("ea_dkd")
    assert cells[at + 1 : at + 10] == [
        "14.75", "29.50", "—", "42.90", "EA-DKD", "faster_rcnn_R_101_FPN_3x → R18-FPN",
        "—", "60", "about 30 s",
    ]  # fmt: skip
    published = cells[at + 10 : at + 16]
    assert published == ["as published", "35.16", "56.75", "37.82", "—", "EA-DKD"]
    at = cells.index("student")
    assert cells[at + 1 : at + 7] == ["33.30", "—", "—", "—", "not distilled", "R18-FPN"]
    assert cells[at + 7 : at + 10] == ["28.3 M", "20", "1 h 2 min"]
    assert "Table A2" in text
    assert text.count("data:image/jpeg") == 2
    assert 'width="1200" height="300"' in text


def test_a_sweep_is_its_table(tmp_path, classifier_runs):
    for method, values in {"KD": (75.1, 74.2), "EA-KD": (75.6, 74.4)}.items():
        for seed, top1 in enumerate(values, 1):
            folder = tmp_path / "sweep" / method / "resnet32x4_resnet8x4" / f"seed{seed}"
            folder.mkdir(parents=True)
            record = {"dataset": "cifar100", "seed": seed, "options": [], "fingerprint": method}
            (folder / "sweep.json").write_text(json.dumps(record))
            result = {"top1": top1, "teacher_top1": 79.5}
            (folder / "result.json").write_text(json.dumps(result))
    sweep = str(tmp_path / "sweep")
    path = write_report([sweep], KINDS)
    assert Path(path).resolve() == tmp_path / "sweep" / "report.html"
    cells = Parsed(Path(path).read_text()).cells
    at = cells.index("EA-KD")
    assert cells[at : at + 6] == ["EA-KD", "75.00 ± 0.85", "2", "79.50", "75.46 ± 0.15", "-0.46"]
    assert "EA-KD minus KD" in cells
    both = Path(write_report([sweep, str(classifier_runs[0])], KINDS, str(tmp_path / "both.html")))
    assert (
        "EA-KD minus KD" in both.read_text()
        and "Classifiers on digits, cifar100" in both.read_text()
    )


def test_two_kinds_are_refused(write_run, classifier_runs):
    cfg = load_config(str(ROOT / "configs/Digits-Detection/KD-R18-R101.yaml"))
    folders = [str(write_run("detector", cfg)), str(classifier_runs[0])]
    with pytest.raises(UserError, match=r"one kind(.|\n)*detector: detectors\n.*: classifiers"):
        write_report(folders, KINDS)


needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="Chromium is not installed (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(find_browser(), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(browser, page, width, scheme):
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(page, width=width, scheme=scheme)
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    decoded = "Promise.all([...document.images].map(x => x.decode())).then(() => 'all')"
    assert browser.evaluate(decoded) == "all"
    assert browser.evaluate(CONTRAST) >= 4.5


# The lowest contrast (WCAG) of text with the ground it stands on.
CONTRAST = """
(() => {
  const numbers = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => numbers(text).slice(0, 3).map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return numbers(colour)[3] === 0 ? ground(element.parentElement) : colour;
  };
  const texts = [...document.body.querySelectorAll('*')].filter(x =>
    [...x.childNodes].some(y => y.nodeType === 3 && y.textContent.trim()));
  return Math.min(...texts.map(x => {
    const [a, b] = [light(getComputedStyle(x).color), light(ground(x))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()
"""
