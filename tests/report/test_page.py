import base64
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

from classification.runs import Classifiers
from eakd_det.config.merge import load_config
from eakd_det.report.page import write_report
from eakd_det.sweep.detectors import Detectors
from eakd_det.utils.errors import UserError
from llm.runs import LanguageModels

from .browser import Browser, find_browser

ROOT = Path(__file__).parent.parent.parent
KINDS = [LanguageModels(), Classifiers(), Detectors()]
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
    assert parsed.all("script") == [{}], "in the page"
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
    assert 'width="1600" height="400"' in text


def test_a_sweep_is_its_table(tmp_path, classifier_runs):
    for method, values in {"KD": (75.1, 74.2), "EA-KD": (75.6, 74.4)}.items():
        for seed, top1 in enumerate(values, 1):
            folder = tmp_path / "sweep" / method / "resnet32x4_resnet8x4" / f"seed{seed}"
            folder.mkdir(parents=True)
            record = {"dataset": "cifar100", "seed": seed, "options": [], "fingerprint": method}
            (folder / "sweep.json").write_text(json.dumps(record))
            result = {"top1": top1, "teacher_top1": 79.5}
            (folder / "result.json").write_text(json.dumps(result))
            config = yaml.safe_load((classifier_runs[method == "KD"] / "config.yaml").read_text())
            config["DATASET"]["NAME"] = "cifar100"
            config["MODEL"]["NAME"], config["TEACHER"]["NAME"] = "resnet8x4", "resnet32x4"
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
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


def _sweep(root, classifier_runs):
    """A sweep of KD, EA-KD and the student alone, two seeds each, with what runs leave."""
    values = {"KD": (75.1, 74.2), "EA-KD": (75.6, 74.8), "Student": (72.0, 71.5)}
    for method, of in values.items():
        models = "resnet8" if method == "Student" else "resnet14_resnet8"
        for seed, top1 in enumerate(of, 1):
            folder = root / method / models / f"seed{seed}"
            shutil.copytree(classifier_runs[0], folder)
            record = {"dataset": "digits", "seed": seed, "options": [], "fingerprint": method}
            (folder / "sweep.json").write_text(json.dumps(record))
            (folder / "result.json").write_text(json.dumps({"top1": top1, "teacher_top1": 79.5}))
    return str(root)


def test_a_sweep_shows_its_runs(tmp_path, classifier_runs):
    """Differences to the student alone, a line a config, each run, and how one was made."""
    path = write_report([_sweep(tmp_path / "sweep", classifier_runs)], KINDS)
    text = Path(path).read_text()
    parsed = Parsed(text)
    at = parsed.cells.index("KD minus Student")
    assert parsed.cells[at + 1].startswith("+2.90 ± ")
    assert "EA-KD minus Student" in parsed.cells and "EA-KD minus KD" in parsed.cells
    assert "EA-KD, seed 2" in parsed.cells and "Each of the 6 runs" in text
    charts = [image["alt"] for image in parsed.all("img")]
    (curve,) = (alt for alt in charts if alt.startswith("Lines of top-1"))
    assert all(f"{name} ends at" in curve for name in ("KD", "EA-KD", "Student"))
    assert text.count('<p class="versions">') == 3, "one command a config"
    assert ": EA-KD, seed 1, one of 2 runs</h3>" in text


def test_labels_that_look_like_varied_keys_are_compared(tmp_path, classifier_runs):
    runs = []
    for folder in classifier_runs:
        for temperature in (2.0, 4.0):
            copy = tmp_path / f"{folder.name}{temperature}"
            shutil.copytree(folder, copy)
            config = yaml.safe_load((copy / "config.yaml").read_text())
            config["DISTILL"]["KD"]["TEMPERATURE"] = temperature
            (copy / "config.yaml").write_text(yaml.safe_dump(config))
            runs.append(f"{folder.name} T={temperature:g}={copy}")
    cells = Parsed(Path(write_report(runs, KINDS, str(tmp_path / "a.html"))).read_text()).cells
    assert {"KD T=2", "EA-KD T=2 minus KD T=2", "EA-KD T=4 minus KD T=4"} <= {*cells}


def test_a_run_and_a_config_of_a_sweep_of_one_name_are_apart(tmp_path, classifier_runs):
    sweep, run = _sweep(tmp_path / "sweep", classifier_runs), f"KD={classifier_runs[1]}"
    text = Path(write_report([run, sweep], KINDS, str(tmp_path / "both.html"))).read_text()
    assert "<h3>KD</h3>" in text and f"<h3>KD ({sweep}, digits): KD, seed 1, one of 2 runs" in text


def test_differences_between_students_and_the_best_of_them(write_run):
    """The teacher is no competitor; what has one seed has no interval."""
    folders = []
    teacher = load_config(str(ROOT / "configs/Digits-Detection/Teacher-R101.yaml"))
    folders.append(write_run("teacher", teacher, result={"AP": 60.0, "AP50": 90.0, "AP75": 70.0}))
    (folders[0] / "student.yaml").write_text(teacher.dump())
    for name, aps in {"Student-R18": (50.0, 51.0), "EA-DKD-R18-R101": (53.0, 53.5)}.items():
        for seed, ap in enumerate(aps):
            cfg = load_config(str(ROOT / f"configs/Digits-Detection/{name}.yaml"))
            cfg.SEED = seed
            cfg.TEACHER.CONFIG_FILE = str(folders[0] / "student.yaml") * bool(cfg.DISTILL.METHODS)
            result = {"AP": ap, "AP50": 80.0 + seed, "AP75": 58.0}
            folders.append(write_run(f"{name}{seed}", cfg, result=result))
    text = Path(
        write_report([str(f) for f in folders], KINDS, str(folders[0] / "a.html"))
    ).read_text()
    assert "R101-FPN → R18-FPN" in text
    assert "<strong>53.50</strong>" in text and "<strong>60.00</strong>" not in text
    cells = Parsed(text).cells
    at = cells.index("EA-DKD minus Student")
    # 3.0 and 2.5: their mean, and 12.706 standard errors.
    assert cells[at + 1] == f"+2.75 ± {12.7062 * 0.25:.2f}"
    # p of t = 11 with one degree of freedom, and 2.75 over the deviation of 3.0 and 2.5.
    assert cells[at + 4 : at + 7] == ["0.058", "+7.78", "2"]
    assert "corrected for 1 comparison (Holm, 1979)" in text and "Left out" not in text
    nothing = dict.fromkeys(("AP", "AP50", "AP75"), float("nan"))
    diverged = write_run("diverged", cfg, result=nothing)  # in place of seed 1
    runs = [*map(str, folders[:-1]), str(diverged)]
    text = Path(write_report(runs, KINDS, str(folders[0] / "d.html"))).read_text()
    assert "Left out: EA-DKD, R101-FPN → R18-FPN on digits_det_val, seed 1, whose figures" in text
    cells = Parsed(text).cells
    assert cells[cells.index("EA-DKD minus Student") + 1] == "+3.00"
    runs = [str(folders[i]) for i in (0, 2)]  # of seed 1 alone
    text = Path(write_report([*runs, str(diverged)], KINDS, str(folders[0] / "e.html"))).read_text()
    assert text.count("Left out: EA-DKD") == 1 and "EA-DKD minus Student" not in text
    for folder in folders:
        rows = [{"iteration": i, "total_loss": 1.0, "bbox/AP": i / 2} for i in (19, 39)]
        (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = Path(
        write_report([str(f) for f in folders], KINDS, str(folders[0] / "c.html"))
    ).read_text()
    assert "teacher ends at 19.5" in text and "the teacher has" not in text, "once is enough"
    for folder in folders:
        (folder / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0}\n')
    one = [str(folders[i]) for i in (0, 1, 3)]
    text = Path(write_report(one, KINDS, str(folders[0] / "b.html"))).read_text()
    assert "Holm" not in text and "Effect" not in text  # no column of them either
    cells = Parsed(text).cells
    at = cells.index("EA-DKD minus Student")
    assert cells[at + 1] == "+3.00" and cells[at + 4] == "1"


def test_figures_of_several_runs_stand_under_all_of_them(tmp_path, classifier_runs):
    folders = [tmp_path / folder.name for folder in classifier_runs]
    for ours, theirs in zip(folders, classifier_runs, strict=True):
        shutil.copytree(theirs, ours)
    analysis = folders[0] / "analysis"
    analysis.mkdir(exist_ok=True)
    for name, compared in {"tsne": ["EA-KD", "KD"], "weights": ["EA-KD"]}.items():
        (analysis / f"{name}.svg").write_text(SVG)
        (analysis / f"{name}.json").write_text(json.dumps({"compared": compared}))
    text = Path(write_report([str(folder) for folder in folders], KINDS)).read_text()
    compared, alone = text.index("<h3>EA-KD, KD compared</h3>"), text.index("<h3>EA-KD</h3>")
    assert compared < text.index("t-SNE of the penultimate features, EA-KD, KD compared") < alone
    assert alone < text.index("both entropies, and lines of equal weight, EA-KD")


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


@needs_browser
def test_tables_sort_by_their_columns(browser, page):
    """By number, not by letters; published lines stay below their run."""
    browser.complaints.clear()
    browser.open(page)
    browser.evaluate(f"document.querySelector('tbody').innerHTML = `{SORTED}`")
    column = "[...document.querySelector('tbody').rows].map(x => x.cells[0].textContent).join(' ')"
    title = "document.querySelectorAll('thead th')[1]"
    for state, order in {"descending": "c b b2 a", "ascending": "a b b2 c"}.items():
        browser.evaluate(f"{title}.querySelector('button').click()")
        assert browser.evaluate(f"{title}.getAttribute('aria-sort')") == state
        assert browser.evaluate(column) == order
    assert browser.complaints == []


SORTED = """<tr><th>b</th><td>9.5</td></tr><tr class='published'><th>b2</th><td>0</td></tr>
<tr><th>a</th><td>—</td></tr><tr><th>c</th><td>10.25</td></tr>"""


@needs_browser
def test_dark_pages_have_no_white_drawings(browser, page):
    browser.open(page, scheme="dark")
    style = "getComputedStyle(document.querySelector('.drawing img')).filter"
    assert browser.evaluate(style).startswith("invert(")
    browser.open(page, scheme="light")
    assert browser.evaluate(style) == "none"


@needs_browser
def test_long_names_leave_the_columns_in_sight(browser, classifier_runs, tmp_path):
    name = "a-run-with-a-rather-long-name-" * 3
    path = Path(write_report([f"{name}={classifier_runs[0]}"], KINDS, str(tmp_path / "x.html")))
    browser.open(path, width=390)
    assert browser.evaluate("document.querySelector('tbody th').offsetWidth") < 250


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
