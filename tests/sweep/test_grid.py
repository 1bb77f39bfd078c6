from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.utils.errors import UserError

KIND = Classifiers()


@pytest.fixture
def config(tmp_path):
    """Writes a config of a method into a folder; its path."""

    def write(method, folder="configs"):
        path = tmp_path / folder / method / "resnet20_resnet8.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("VERSION: 2\nDATASET:\n  NAME: digits\n")
        return str(path)

    return write


def test_the_runs_of_a_grid(config, monkeypatch, tmp_path):
    files = [config("KD"), config("EA-KD+LS")]
    runs = plan(KIND, files, [3, 1], "out", ["SOLVER.EPOCHS", "7"])
    assert [run.title for run in runs] == [
        "[1/4] KD/resnet20_resnet8 seed 3",
        "[2/4] EA-KD+LS/resnet20_resnet8 seed 3",
        "[3/4] KD/resnet20_resnet8 seed 1",
        "[4/4] EA-KD+LS/resnet20_resnet8 seed 1",
    ]
    folder = "out/EA-KD+LS/resnet20_resnet8/seed1"
    assert runs[3].folder == Path(folder)
    own = ["--resume", "SEED", "1", "OUTPUT_DIR", folder]
    assert runs[3].arguments == ["--config-file", files[1], *own, "SOLVER.EPOCHS", "7"]
    assert runs[3].cfg.SOLVER.EPOCHS == 7
    monkeypatch.chdir(Path(files[0]).parent)
    (run,) = plan(KIND, ["resnet20_resnet8.yaml"], [1], "out", [])
    assert run.folder == Path("out/KD/resnet20_resnet8/seed1")


def test_what_makes_two_runs_the_same(config):
    file = config("KD")

    def fingerprint(*options, seed=1, path=file):
        return plan(KIND, [path], [seed], "out", list(options))[0].record["fingerprint"]

    plain, short = fingerprint(), fingerprint("SOLVER.EPOCHS", "7")
    assert plain != short
    assert plain == fingerprint(seed=2) == fingerprint(path=config("DKD", "elsewhere"))
    assert plain == fingerprint("DATASET.ROOT", "x") == fingerprint("DATASET.NUM_WORKERS", "2")
    assert short == fingerprint("SOLVER.EPOCHS", "9", "SOLVER.EPOCHS", "7")
    both = ["SOLVER.EPOCHS", "7", "SOLVER.BASE_LR", "0.1"]
    assert fingerprint(*both) == fingerprint(*both[2:], *both[:2])


@pytest.mark.parametrize(
    ("options", "seeds", "message"),
    [
        (["SEED", "1"], [1], "SEED: use --seeds and --output-dir"),
        (["SOLVER.EPOCH", "1"], [1], "did you mean SOLVER.EPOCHS"),
        (["SOLVER.EPOCHS"], [1], "command line"),
        ([], [1, -1], "SEED must be 0 or more"),
    ],
)
def test_mistakes_show_before_anything_is_trained(config, options, seeds, message):
    with pytest.raises(UserError, match=message):
        plan(KIND, [config("KD")], seeds, "out", options)


def test_two_configs_of_one_name_are_refused(config):
    first, second = config("KD"), config("KD", "other")
    with pytest.raises(UserError, match="would both be KD/resnet20_resnet8"):
        plan(KIND, [first, second], [1], "out", [])
    assert len(plan(KIND, [first, first], [1, 1], "out", [])) == 1
