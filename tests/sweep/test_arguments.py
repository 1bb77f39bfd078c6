import sys

import pytest

from eakd_det.sweep import arguments

GRID = ["--configs", "a.yaml", "--seeds", "1"]


@pytest.fixture
def parse(monkeypatch):
    """Parses words of a command line."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["sweep.py", *words])
        return arguments.parse("A sweep.")

    return call


def test_options_of_launchers(parse):
    args = parse(*GRID)
    assert (args.launcher, args.jobs, args.gpus_per_run, args.detach) == ("local", 1, 1, False)
    slurm = ["--launcher", "slurm", "--slurm", "partition=gpu", "--slurm", "comment=a=b"]
    args = parse(*GRID, *slurm, "--detach", "SOLVER.EPOCHS", "3")
    assert args.slurm == [("partition", "gpu"), ("comment", "a=b")] and args.detach
    assert args.opts == ["SOLVER.EPOCHS", "3"]
    assert parse(*GRID, "--launcher", "ray", "--ray-address", "auto").ray_address == "auto"


def test_a_varied_key(parse):
    args = parse(*GRID, "--vary", "DISTILL.EA.MODE", "full", "matched", "SOLVER.EPOCHS", "3")
    assert args.vary == ["DISTILL.EA.MODE", "full", "matched"]
    assert args.opts == ["SOLVER.EPOCHS", "3"]
    args = parse("SOLVER.EPOCHS", "3", "--vary", "SOLVER.BASE_LR", "1e-2", "-1", *GRID)
    assert args.vary == ["SOLVER.BASE_LR", "1e-2", "-1"] and args.opts == ["SOLVER.EPOCHS", "3"]
    assert parse(*GRID).vary == []
    norms = ["MODEL.FPN.NORM", "", "GN", "SyncBN"]  # no KEYs, though in capitals
    args = parse("--vary", *norms, "SOLVER.EPOCHS", "3", "SEED", "4", *GRID)
    assert args.vary == norms and args.opts == ["SOLVER.EPOCHS", "3", "SEED", "4"]
    args = parse(*GRID, "--vary", "MODEL.FPN.NORM", "BN", "GN", "--jobs", "2")
    assert args.vary == ["MODEL.FPN.NORM", "BN", "GN"] and args.jobs == 2


def test_the_status_needs_no_grid(parse):
    assert parse("--status").configs == []
    assert parse(*GRID, "--status").seeds == [1]


def test_files_of_runs_take_the_place_of_a_grid(parse):
    args = parse("--from-csv", "a.csv", "b.csv", "--pairs", "KD:Student")
    assert args.from_csv == ["a.csv", "b.csv"] and args.output_dir == "output/tables"
    args = parse("--repeat", "a.csv", "KD", "--seeds", "1", "--jobs", "2")
    assert args.repeat == ["a.csv", "KD"] and args.opts == []  # KD is no KEY
    assert args.output_dir == "output/repeat" and args.seeds == [1]
    assert parse("--repeat", "a.csv", "EA-KD", "--output-dir", "x").output_dir == "x"
    assert parse(*GRID).output_dir == "output/sweep"
    again = ["--overwrite", "--launcher", "slurm", "--detach", "--train-json", "a.json"]
    assert parse("--repeat", "a.csv", "KD", *again).detach
    assert parse(*GRID, "--table-only", "SOLVER.EPOCHS", "3").table_only


def test_seeds_by_default(monkeypatch):
    """As tools/sweep_lm.py has them."""
    for words, seeds in ((["--configs", "a"], [1]), (["--repeat", "a.csv", "KD"], [])):
        monkeypatch.setattr(sys, "argv", ["sweep_lm.py", *words])
        assert arguments.parse("A sweep.", seeds=[1]).seeds == seeds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name --configs and --seeds, or --table-only, --status, --from-csv or --repeat"),
        (["--from-csv", "a", *GRID], "--configs and --seeds: not with --from-csv"),
        (["--from-csv", "a", "--repeat", "a", "KD"], "--repeat: not with --from-csv"),
        (["--repeat", "a", "KD", "SOLVER.EPOCHS", "1"], "SOLVER.EPOCHS 1: not with --repeat"),
        (
            ["--repeat", "a", "EA-KD", "EA.TEMPERATURE=2"],
            "EA.TEMPERATURE=2: not with --repeat; a METHOD that has spaces needs quotes",
        ),
        (["--repeat", "a", "KD", "--table-only"], "--table-only: not with --repeat"),
        (["--from-csv", "a", "SOLVER.EPOCHS", "1"], "SOLVER.EPOCHS 1: not with --from-csv"),
        (
            ["--from-csv", "a", "--overwrite", "--jobs", "2", "--train-json", "b"],
            "--jobs and --overwrite and --train-json: not with --from-csv",
        ),
        (
            ["--from-csv", "a", "--launcher", "slurm", "--detach", "--gpus-per-run", "2"],
            "--gpus-per-run and --launcher and --detach: not with --from-csv",
        ),
        (["--table-only", "--vary", "SOLVER.EPOCHS", "1"], "--vary: not with --table-only"),
        (["--repeat", "a", "KD", "--status"], "--status: not with --repeat"),
        (["--status", "--configs", "a.yaml"], "name --configs and --seeds"),
        ([*GRID, "--detach"], "--detach: this process trains the runs of --launcher local"),
        ([*GRID, "--slurm", "time=60"], "--slurm belongs to --launcher slurm"),
        ([*GRID, "--launcher", "slurm", "--jobs", "2"], "--jobs belongs to --launcher local"),
        ([*GRID, "--ray-address", "auto"], "--ray-address belongs to --launcher ray"),
        ([*GRID, "--launcher", "slurm", "--slurm", "time"], "'time' is not KEY=VALUE"),
        ([*GRID, "--vary", "SOLVER.EPOCHS"], "--vary SOLVER.EPOCHS: name the values"),
        (["--from-csv", "a.csv", "--vary", "SEED", "1"], "--vary: not with --from-csv"),
        ([*GRID, *2 * ["--vary", "SEED", "1"]], "--vary: a sweep varies one key"),
        ([*GRID, "--gpus-per-run", "0"], "'0' is not a whole number above 0"),
    ],
)
def test_mistakes(parse, capsys, words, message):
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err
