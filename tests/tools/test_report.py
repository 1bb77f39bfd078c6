"""tools/report.py as a user calls it: a real process."""

import re
from pathlib import Path

from eakd_det.config.merge import load_config

ROOT = Path(__file__).parents[2]


def test_a_page_and_its_size(call_tool, tmp_path):
    run = tmp_path / "output" / "run"
    run.mkdir(parents=True)
    cfg = load_config(str(ROOT / "configs" / "Digits-Detection" / "KD-R18-R101.yaml"))
    (run / "config.yaml").write_text(cfg.dump())
    (run / "metrics.json").write_text('{"iteration": 19, "total_loss": 2.5, "bbox/AP": 41.25}\n')
    code, out, err = call_tool("report.py", "output/run")
    assert (code, out.splitlines()[-1][:28]) == (0, "output/run/report.html (0.0 "), err
    assert "41.25" in (run / "report.html").read_text()
    code, out, _ = call_tool("report.py", "short=output/run", "--output", "pages/a.html")
    assert code == 0 and re.search(r"pages/a\.html \(\d\.\d MB\)", out)
    assert "<title>short on digits_det_val</title>" in (tmp_path / "pages" / "a.html").read_text()


def test_mistakes_are_a_sentence(call_tool, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = call_tool("report.py", "empty")
    assert code == 1 and "Traceback" not in err
    assert "error: empty is not the folder of a run (it has no config.yaml)" in err
