from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.utils.errors import UserError

KIND = Classifiers()
ROOT = Path(__file__).parents[2]
DIGITS = [f"configs/Digits/{name}.yaml" for name in ("Student", "KD", "EA-KD")]


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
        (["DISTILL.METHODS", "('FOO',)"], [1], "DISTILL.METHODS: 'FOO' is unknown"),
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


@pytest.fixture
def vary(monkeypatch):
    """Plans configs/Digits with a varied key; "method, models" -> the run of seed 1."""
    monkeypatch.chdir(ROOT)

    def call(*words, options=(), configs=DIGITS):
        runs = plan(KIND, configs, [1], "out", list(options), vary=words)
        return {f"{run.record['method']}, {run.record['models']}": run for run in runs}

    return call


def test_a_key_is_varied_where_it_acts(vary):
    epochs = ["SOLVER.EPOCHS", "9"]
    runs, plain = vary("DISTILL.EA.TEMPERATURE", "1", "6", options=epochs), vary(options=epochs)
    assert [*runs] == [
        "Student, resnet8",
        "KD, resnet20_resnet8",
        "EA-KD EA.TEMPERATURE=1, resnet20_resnet8",
        "EA-KD EA.TEMPERATURE=6, resnet20_resnet8",
    ]
    *alone, _, varied = runs.values()
    assert [run.record for run in alone[:2]] == [
        {**plain[name].record, "arguments": run.arguments} for name, run in [*runs.items()][:2]
    ]
    assert varied.folder == Path("out/Digits-EA.TEMPERATURE=6/EA-KD/seed1")
    assert varied.title == "[4/4] Digits-EA.TEMPERATURE=6/EA-KD seed 1"
    assert varied.cfg.DISTILL.EA.TEMPERATURE == 6.0
    pair = ["DISTILL.EA.TEMPERATURE", "6"]
    assert varied.record["options"] == [*epochs, *pair] == varied.arguments[-4:]
    prints = {run.record["fingerprint"] for run in [*runs.values(), *plain.values()]}
    assert len(prints) == 5


def test_a_mode_is_not_varied_in_a_config_of_another(vary):
    files = [f"configs/FashionMNIST/{x}/resnet20_resnet8.yaml" for x in ("EA-KD", "EA-KD-matched")]
    runs = vary("DISTILL.EA.MODE", "full", "matched", configs=files)
    assert [name.partition(",")[0] for name in runs] == [
        *("EA-KD EA.MODE=full", "EA-KD EA.MODE=matched", "EA-KD-matched")
    ]


@pytest.mark.parametrize("key", ["DATASET.TRAIN_SIZE", "SOLVER.BATCH_SIZE"])
def test_keys_of_a_student_vary_it_too(vary, key):
    runs = vary(key, "100", "50")
    assert [*runs] == [
        f"{method} {key}={value}, {models}"
        for method, models in [
            ("Student", "resnet8"),
            ("KD", "resnet20_resnet8"),
            ("EA-KD", "resnet20_resnet8"),
        ]
        for value in (100, 50)
    ]


def test_models_are_called_by_a_varied_student(vary):
    files = [
        f"configs/Glyphs100/{name}.yaml" for name in ("KD/resnet20_resnet8", "Student/resnet8")
    ]
    runs = vary("MODEL.NAME", "resnet8", "resnet14", configs=files)
    assert [*runs] == [
        "KD MODEL.NAME=resnet8, resnet20_resnet8",
        "KD MODEL.NAME=resnet14, resnet20_resnet14",
        "Student MODEL.NAME=resnet8, resnet8",
        "Student MODEL.NAME=resnet14, resnet14",
    ]
    folders = [run.folder.parent.as_posix() for run in runs.values()]
    assert folders[1:3] == [
        "out/KD-MODEL.NAME=resnet14/resnet20_resnet8",
        "out/Student-MODEL.NAME=resnet8/resnet8",
    ]


def test_teachers_of_varied_runs(vary):
    """A value that changes the teacher's training has a teacher of its own."""
    runs = vary("TEACHER.EPOCHS", "1", "8")
    folders = [KIND.missing(run.cfg).get("configs/Digits/Teacher.yaml") for run in runs.values()]
    own = "output/Digits/Teacher-TEACHER.EPOCHS=1"
    trained = "output/Digits/Teacher"  # for 8 epochs
    assert folders == [None, own, trained, own, trained]
    assert runs["KD TEACHER.EPOCHS=1, resnet20_resnet8"].record["options"] == [
        *("TEACHER.EPOCHS", "1", "TEACHER.OUTPUT_DIR", own)
    ]
    runs = vary("TEACHER.WEIGHTS", "a.pth", "b/c.pth")
    assert [run.folder.parts[1] for run in runs.values()][1:3] == [
        "Digits-TEACHER.WEIGHTS=a",
        "Digits-TEACHER.WEIGHTS=c",
    ]
    assert {run.cfg.TEACHER.OUTPUT_DIR for run in runs.values()} == {""}
    options = ["DATASET.ROOT", "mine", "DATASET.NAME", "folder"]
    runs = vary(
        "DATASET.IMAGE_SIZE", "32", "64", options=options, configs=["configs/Folder/KD.yaml"]
    )
    assert [KIND.missing(run.cfg)["configs/Folder/Teacher.yaml"] for run in runs.values()] == [
        f"output/mine/Teacher/resnet50-DATASET.IMAGE_SIZE={size}" for size in (32, 64)
    ]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("MODEL.DEVICE", ["cpu", "cuda"]),
        ("DATASET.ROOT", ["a", "b"]),
        ("DATASET.NUM_WORKERS", ["0", "2"]),
        ("SOLVER.AMP.ENABLED", ["False", "True"]),
    ],
)
def test_one_teacher_for_keys_that_do_not_change_it(vary, key, values):
    runs = vary(key, *values)
    assert {run.cfg.TEACHER.OUTPUT_DIR for run in runs.values()} == {""} and len(runs) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["DISTILL.EA.TEMPERATUR", "1"], "did you mean DISTILL.EA.TEMPERATURE"),
        (["DISTILL.EA.TEMPERATURE", "1", "0"], "DISTILL.EA.TEMPERATURE must be above 0, not 0.0"),
        (["DISTILL.EA.TEMPERATURE", "x"], "DISTILL.EA.TEMPERATURE"),
        (["DATASET.TRAIN_SIZE", "10", "1_0"], "=10 and DATASET.TRAIN_SIZE=1_0 are one value for"),
        (["DISTILL.DKD.ALPHA", "1"], "DISTILL.DKD.ALPHA: it can act on none of the configs"),
        (["DISTILL.KDD.TEMPERATURE", "1"], "did you mean DISTILL.KD.TEMPERATURE"),
        (["DISTILL", "1"], "^the command line: DISTILL is a node of keys: name one of them.*[.]"),
        (["DISTILL.EA.MODE", "full", "foo"], "DISTILL.EA.MODE: 'foo' is unknown; choose from full"),
        (["SOLVER.EPOCHS", "1"], "SOLVER.EPOCHS: the key is also among the KEY VALUE pairs"),
        (["SEED", "1"], "SEED: use --seeds"),
    ],
)
def test_mistakes_in_a_varied_key(vary, words, message):
    with pytest.raises(UserError, match=message):
        vary(*words, options=["SOLVER.EPOCHS", "9"])
