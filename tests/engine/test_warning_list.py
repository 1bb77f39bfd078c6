import argparse
import logging

import pytest

from eakd_det.engine import launch
from eakd_det.engine.warning_list import WarningList
from eakd_det.utils.errors import UserError


@pytest.fixture
def listed(caplog):
    """The lines of a list that has kept what a logger said."""
    logger = logging.getLogger("a package")

    def listed(*texts, level=logging.WARNING):
        warnings = WarningList()
        logger.addHandler(warnings)
        for text in texts:
            logger.log(level, "%s", text)
        logger.removeHandler(warnings)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            warnings.log_again()
            warnings.log_again()  # the second time there is nothing left
        assert len(caplog.records) <= 1
        return caplog.messages[0].splitlines() if caplog.records else []

    return listed


def test_warnings_come_again_a_line_each(listed):
    first, *lines = listed("loss_kd has been 0", "a sentence\nof two lines: 1e-05")
    assert first == "What to look at:"
    assert [line.split("] ", 1)[1] for line in lines] == [
        "loss_kd has been 0",
        "a sentence of two lines: 1e-05",
    ]
    assert all(line.startswith("- [") for line in lines)


def test_those_that_differ_in_numbers_alone_come_once(listed):
    _, *lines = listed(
        "2 steps left out, at iteration 3, 17: 2e-3",
        "loss_kd_stage0",
        "loss_kd_stage1",
        "1 steps left out, at iteration 24: 0.5",
    )
    assert [line.split("] ", 1)[1] for line in lines] == [
        "1 steps left out, at iteration 24: 0.5",
        "loss_kd_stage0",
        "loss_kd_stage1",
    ]


def test_a_run_without_warnings_has_no_list(listed):
    assert listed() == []
    assert listed("all is well", level=logging.INFO) == []


@pytest.fixture
def start(stock_cfg, tmp_path, capsys):
    """Launches a run that does what it is told after its set-up; its output, and exit message."""
    args = {"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    args.update(config_file="", wandb=None, eval_only=False, resume=False)

    def start(*acts, **options):
        def main(args):
            for number, act in enumerate(acts):
                stock_cfg.OUTPUT_DIR = str(tmp_path / str(number))
                launch.set_up(stock_cfg, args, stock_cfg.OUTPUT_DIR)
                act()

        message = None
        try:
            launch.launch(main, argparse.Namespace(**{**args, **options}), lambda _: "cpu")
        except SystemExit as error:
            message = error.code
        return capsys.readouterr().out, message

    return start


def _warn(name):
    return lambda: logging.getLogger(f"{name}.a_module").warning(f"{name} is to be looked at")


def test_the_list_ends_the_log_of_its_run(start, tmp_path):
    out, message = start(_warn("eakd_det"), _warn("classification"))
    assert message is None and out.count("What to look at:") == 2
    assert out.splitlines()[-1].endswith("classification is to be looked at")
    for number, name in enumerate(("eakd_det", "classification")):
        log = (tmp_path / str(number) / "log.txt").read_text()
        assert (
            log[log.index("What to look at:") :]
            .splitlines()[1]
            .endswith(f"{name} is to be looked at")
        )
        assert log.count("is to be looked at") == 2


def test_a_run_that_ends_in_a_mistake_has_it_too(start):
    def act():
        _warn("eakd_det")()
        raise UserError("a.png cannot be read.")

    out, message = start(act)
    assert "What to look at:" in out and message == "error: a.png cannot be read."


def test_an_evaluation_has_none(start):
    out, _ = start(_warn("eakd_det"), eval_only=True)
    assert "What to look at:" not in out and out.count("is to be looked at") == 1
