from pathlib import Path

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.jobs import Jobs

ROOT = Path(__file__).parents[2]


def test_teachers_of_one_config_are_told_apart(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    out = str(tmp_path)
    files = ["configs/Digits/KD.yaml", "configs/Digits/Student.yaml"]
    runs = plan(Classifiers(), files, [1], out, [], vary=["TEACHER.EPOCHS", "1", "8"])
    jobs = Jobs("tools/train_classifier.py", out, 1, overwrite=False)
    own, plain = jobs.teachers(runs)
    assert plain.title == "Teacher configs/Digits/Teacher.yaml"
    assert own.title == f"{plain.title} in output/Digits/Teacher-TEACHER.EPOCHS=1"
    assert [Path(job.log).name for job in (own, plain)] == [
        "Digits-Teacher-Teacher-TEACHER.EPOCHS=1.txt",
        "Digits-Teacher.txt",
    ]
    assert "SOLVER.EPOCHS" in own.command and own.output_dir in " ".join(own.command)
    assert [jobs.needs(run) for run in runs] == [(own.title,), (plain.title,), ()]
