"""The runs are real processes, of a script in place of tools/train_classifier.py."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.launchers import Local
from eakd_det.sweep.runner import run_sweep
from eakd_det.sweep.status import status
from eakd_det.utils.errors import UserError

KIND = Classifiers()
ROOT = Path(__file__).parents[2]
# What every script below begins with: the arguments, and how a run is finished.
PRELUDE = """
import json, os, pathlib, sys, time
arguments = sys.argv[1:]
config = arguments[arguments.index("--config-file") + 1]
assert "--resume" in arguments
is_teacher = "SEED" not in arguments
if not is_teacher:
    seed, folder = (arguments[arguments.index(key) + 1] for key in ("SEED", "OUTPUT_DIR"))
    folder = pathlib.Path(folder)

def finish(top1):
    result = {"top1": top1, "top5": 99.0, "best_top1": top1, "teacher_top1": None}
    folder.joinpath("result.json").write_text(json.dumps({**result, "seconds": 1.0, "epochs": 2}))

"""
COUNT = """
with open(folder.parents[2] / "calls.txt", "a") as f:
    f.write(f"{pathlib.Path(config).parent.name} {seed}\\n")
finish(80 + int(seed))
"""


@pytest.fixture
def config(tmp_path):
    """Writes a config of a method; its path."""

    def write(method, text="", name="resnet20_resnet8"):
        path = tmp_path / "configs" / method / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        base = path.parents[1] / "Base.yaml"
        base.write_text("VERSION: 2\nDATASET:\n  NAME: digits\nMODEL:\n  NAME: resnet8\n")
        path.write_text(f"_BASE_: ../Base.yaml\n{text}")
        return str(path)

    return write


@pytest.fixture
def script(tmp_path):
    """Writes the script that is run; its path."""

    def write(body):
        path = tmp_path / "scripts" / "train_classifier.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PRELUDE + body)
        return str(path)

    return write


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def calls(out):
    """Return what COUNT has noted since the last call."""
    path = out / "calls.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


@pytest.fixture
def sweep(script, out):
    """Sweeps over configs with a script; the failures."""

    def call(configs, seeds, options=(), *, body=COUNT, jobs=1, launcher=None, **how):
        runs = plan(KIND, configs, seeds, str(out), list(options))
        with contextlib.closing(launcher or Local(jobs)) as launcher:
            return run_sweep(runs, script(body), str(out), launcher, **how)

    return call


def test_finished_runs_are_not_trained_again(sweep, config, out, caplog):
    configs = [config("KD"), config("EA-KD")]
    with caplog.at_level("INFO", "eakd_det.sweep"):
        assert sweep(configs, [1, 2]) == {}
    assert calls(out) == ["KD 1", "EA-KD 1", "KD 2", "EA-KD 2"]
    assert "[3/4] KD/resnet20_resnet8 seed 2: started" in caplog.messages
    (line,) = [m for m in caplog.messages if m.startswith("[3/4]") and "top-1" in m]
    assert line.startswith("[3/4] KD/resnet20_resnet8 seed 2: top-1 82.00 (")
    assert " s), left about 0:00:0" in line
    with caplog.at_level("INFO", "eakd_det.sweep"):
        assert sweep(configs, [1, 2, 3]) == {}
    assert calls(out) == ["KD 3", "EA-KD 3"]
    assert "[1/6] KD/resnet20_resnet8 seed 1: top-1 81.00, finished before" in caplog.messages


def test_varied_runs_are_resumed_like_others(script, config, out):
    distilled = "DISTILL:\n  METHODS: ('KD',)\nTEACHER:\n  NAME: resnet8\n  WEIGHTS: a.pth\n"
    files = [config("Student"), config("KD", distilled)]

    def call(*values, options=()):
        vary = ["DISTILL.KD.TEMPERATURE", *values]
        runs = plan(KIND, files, [1], str(out), list(options), vary=vary)
        with contextlib.closing(Local(1)) as launcher:
            assert run_sweep(runs, script(COUNT), str(out), launcher) == {}
        return sorted(calls(out))

    assert call("1", "2") == ["KD 1", "KD 1", "Student 1"]
    assert call("1", "2", "3") == ["KD 1"] and call("3") == []
    with pytest.raises(UserError) as refusal:
        call("2", "5", options=["SOLVER.EPOCHS", "9"])
    assert str(refusal.value).count("another config or other options") == 2
    assert "KD-KD.TEMPERATURE=2/resnet20_resnet8/seed1: another" in str(refusal.value)
    assert str(status(str(out))).startswith("done 4, running 0, failed 0, left 0")


def test_what_a_changed_option_or_config_has_made_is_overwritten_when_asked(
    sweep, config, out, caplog
):
    files = [config("KD")]
    folder = out / "KD" / "resnet20_resnet8" / "seed1"
    sweep(files, [1], ["SOLVER.EPOCHS", "3", "DATASET.ROOT", "a"])
    (folder / "model_final.pth").touch()
    (folder / "notes.txt").touch()  # the user's own
    before = [(folder / name).read_text() for name in ("result.json", "sweep.json")]
    calls(out)
    for options in (
        ["SOLVER.EPOCHS", "3", "DATASET.ROOT", "b"],  # the same images, elsewhere
        ["DATASET.NUM_WORKERS", "1", "SOLVER.EPOCHS", "3"],
    ):
        sweep(files, [1], options)
        assert calls(out) == [] and (folder / "model_final.pth").exists()
    with pytest.raises(UserError) as refusal:
        sweep(files, [1, 2], ["SOLVER.EPOCHS", "4"])
    first, line, last = str(refusal.value).splitlines()
    assert first == "These runs were made with something else than they would be now:"
    assert line == f"  {folder}: another config or other options"
    assert last.startswith("--overwrite trains them anew, another --output-dir leaves them")
    assert calls(out) == [] and (folder / "model_final.pth").exists()
    assert [(folder / name).read_text() for name in ("result.json", "sweep.json")] == before
    with caplog.at_level("INFO", "eakd_det.sweep"):
        sweep(files, [1], ["SOLVER.EPOCHS", "4"], overwrite=True)
    assert "config, options or teacher have changed, training again" in caplog.text
    assert calls(out) == ["KD 1"]
    left = sorted(p.name for p in folder.iterdir())
    assert left == ["notes.txt", "result.json", "stdout.txt", "sweep.json"]
    record = json.loads((folder / "sweep.json").read_text())
    assert record["options"] == ["SOLVER.EPOCHS", "4"] and record["seed"] == 1
    base = Path(files[0]).parents[1] / "Base.yaml"
    text = base.read_text()
    base.write_text(f"# a comment\n{text}")
    sweep(files, [1], ["SOLVER.EPOCHS", "4"])
    assert calls(out) == []
    base.write_text(text.replace("resnet8", "resnet14"))
    with pytest.raises(UserError, match="seed1: another config"):
        sweep(files, [1], ["SOLVER.EPOCHS", "4"])
    sweep(files, [1], ["SOLVER.EPOCHS", "4"], overwrite=True)
    assert calls(out) == ["KD 1"]


@pytest.mark.parametrize("left", ["model_0000099.pth", "config.yaml"])
def test_an_unfinished_run_with_another_config(sweep, config, out, left):
    """Its checkpoints are worth keeping; without any it starts over."""
    folder = out / "KD" / "resnet20_resnet8" / "seed1"
    sweep([config("KD")], [1], ["SOLVER.EPOCHS", "3"], body="sys.exit(1)")
    (folder / left).touch()
    if left.endswith(".pth"):
        with pytest.raises(UserError, match="seed1: another config or other options"):
            sweep([config("KD")], [1])
        assert (folder / left).exists() and calls(out) == []
    else:
        assert sweep([config("KD")], [1]) == {}
        assert not (folder / left).exists() and calls(out) == ["KD 1"]


def test_an_unfinished_run_keeps_what_it_has(sweep, config, out):
    body = """
if not (folder / "checkpoint").exists():
    (folder / "checkpoint").touch()
    sys.exit(3)
finish(50.0)
"""
    (failure,) = sweep([config("KD")], [1], body=body).values()
    assert failure.startswith("exit code 3")
    assert sweep([config("KD")], [1], body=body) == {}


def test_failures_are_listed_and_the_others_go_on(sweep, config, out):
    body = """
print("line", "a")
print("boom", seed, flush=True)
if seed == "1":
    raise RuntimeError("the reason")
if seed == "2":
    os.kill(os.getpid(), 9)
if seed == "4":
    finish(70.0)
"""
    failures = sweep([config("KD")], [1, 2, 3, 4], body=body, jobs=2)
    one, two, three = (failures[f"[{i}/4] KD/resnet20_resnet8 seed {i}"] for i in (1, 2, 3))
    assert one.startswith("exit code 1; ") and one.endswith("    RuntimeError: the reason")
    assert two.startswith("killed by SIGKILL; ") and two.endswith("    line a\n    boom 2")
    assert three.startswith("no result.json; ")
    assert len(failures) == 3
    assert (out / "KD" / "resnet20_resnet8" / "seed4" / "result.json").exists()


def test_jobs_overlap_and_share_the_cores(sweep, config, out, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("eakd_det.sweep.processes.joblib.cpu_count", lambda: 7)
    body = """
(folder / "here").touch()
others = [folder.parent / f"seed{s}" / "here" for s in "123"]
deadline = time.monotonic() + 20
while sum(p.exists() for p in others) < 2:
    assert time.monotonic() < deadline, "alone"
    time.sleep(0.02)
finish(float(os.environ["OMP_NUM_THREADS"]))
"""
    assert sweep([config("KD")], [1, 2, 3], body=body, jobs=2) == {}
    results = [json.loads(p.read_text())["top1"] for p in out.glob("*/*/*/result.json")]
    assert results == [3.0] * 3


TEACHER = """
if is_teacher:
    assert "Teacher" in config and arguments[arguments.index("MODEL.DEVICE") + 1] == "cuda"
    weights = pathlib.Path(os.environ["TEACHER"])
    assert not weights.exists()
    with open(weights.parent / "trained.txt", "a") as f:
        f.write("once")
    if arguments[arguments.index("DATASET.NUM_WORKERS") + 1] == "1":
        sys.exit("no data")
    time.sleep(0.3)
    weights.touch()
else:
    assert "Student" in config or pathlib.Path(os.environ["TEACHER"]).exists()
    finish(60.0)
"""


@pytest.fixture
def with_teacher(config, tmp_path, monkeypatch):
    """Two configs with one teacher and one without."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    monkeypatch.setenv("TEACHER", str(folder / "model_final.pth"))
    teacher = config("Teacher", f"OUTPUT_DIR: {folder}\n", "resnet20")
    text = f'TEACHER:\n  CONFIG_FILE: {teacher}\nDISTILL:\n  METHODS: ("KD",)\n'
    return [config("Student"), config("KD", text), config("EA-KD", text)]


def test_a_missing_teacher_is_trained_once_before_the_grid(sweep, with_teacher, tmp_path, out):
    assert sweep(with_teacher, [1, 2], body=TEACHER, jobs=2) == {}
    assert (tmp_path / "teacher" / "trained.txt").read_text() == "once"
    assert (out / "teachers" / "Teacher-resnet20.txt").exists()
    assert len(list(out.glob("*/*/*/result.json"))) == 6


def test_students_of_another_teacher_are_named(sweep, with_teacher, tmp_path, out):
    """One that was trained anew, or whose config has changed; students alone stay up to date."""
    weights, config = tmp_path / "teacher" / "model_final.pth", Path(with_teacher[1]).parents[1]
    sweep(with_teacher, [1], body=TEACHER)
    folders = [out / method / "resnet20_resnet8" / "seed1" for method in ("KD", "EA-KD")]
    for folder in folders:
        (folder / "model_best.pth").touch()
    record = json.loads((folders[0] / "sweep.json").read_text())
    os.utime(weights)  # copied or touched, it is the same
    assert sweep(with_teacher, [1], body=TEACHER) == {}

    weights.write_text("trained anew")
    teacher = config / "Teacher" / "resnet20.yaml"
    with pytest.raises(UserError) as refusal:
        sweep(with_teacher, [1, 2], body=TEACHER)
    expected = [
        f"  {folder}: its teacher {teacher} before it was trained anew" for folder in folders
    ]
    assert str(refusal.value).splitlines()[1:-1] == expected
    assert all((folder / "model_best.pth").exists() for folder in folders)
    assert sweep(with_teacher, [1], body=TEACHER, overwrite=True) == {}
    assert not any((folder / "model_best.pth").exists() for folder in folders)
    assert json.loads((folders[0] / "sweep.json").read_text()) != record
    assert sweep(with_teacher, [1], body=TEACHER) == {}

    base = teacher.with_name("TeacherBase.yaml")
    base.write_text("SOLVER: {EPOCHS: 7}\n")
    text = teacher.read_text()
    teacher.write_text(
        text.replace("_BASE_: ../Base.yaml", "_BASE_: [../Base.yaml, TeacherBase.yaml]")
    )
    with pytest.raises(UserError, match="another config of its teacher .* are still those from"):
        sweep(with_teacher, [1], body=TEACHER)
    weights.unlink()
    with pytest.raises(UserError, match="another config of its teacher"):
        sweep(with_teacher, [1], body=TEACHER)
    teacher.write_text(text)
    assert sweep(with_teacher, [1], body=TEACHER) == {}  # the students need it no more
    (tmp_path / "teacher" / "trained.txt").unlink()
    with pytest.raises(UserError, match=r"KD/resnet20_resnet8/seed1: its teacher .* trained anew"):
        sweep(with_teacher, [1, 2], body=TEACHER)
    assert (tmp_path / "teacher" / "trained.txt").exists(), "it was trained for seed 2"
    assert not (out / "KD" / "resnet20_resnet8" / "seed2" / "result.json").exists()


def test_a_teacher_that_another_process_trains_is_waited_for(
    sweep, with_teacher, tmp_path, caplog, monkeypatch
):
    """And not trained again, although it was missing when the sweep began."""
    weights = tmp_path / "teacher" / "model_final.pth"
    polls = []

    def sleep(seconds):
        polls.append(seconds)
        if len(polls) == 3:
            weights.touch()
            other.close()

    monkeypatch.setattr("eakd_det.utils.lock.time.sleep", sleep)
    with open(f"{weights.parent}.lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with caplog.at_level("INFO", "eakd_det"):
            assert sweep(with_teacher, [1], body=TEACHER.replace("time.sleep", "abs")) == {}
    assert f"Another process trains {weights.parent}: waiting until it ends" in caplog.messages
    assert any("another process has trained it" in message for message in caplog.messages)
    assert not (weights.parent / "trained.txt").exists()


def test_without_its_teacher_a_run_is_not_started(sweep, with_teacher, out):
    failures = sweep(with_teacher, [1], ["DATASET.NUM_WORKERS", "1"], body=TEACHER)
    teacher, *runs = failures.items()
    assert teacher[0].startswith("Teacher ") and teacher[1].endswith("    no data")
    assert [why for _, why in runs] == ["not started without its teacher"] * 2
    assert [p.parts[-4] for p in out.glob("*/*/*/result.json")] == ["Student"]


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_that_another_process_trains_is_waited_for(sweep, config, out, caplog, ends):
    """Its result is used; where it ends without one, the run is trained."""
    body = 'sys.exit(1) if seed == "1" else finish(80.0)'
    sweep([config("KD")], [1], body=body)
    folder = out / "KD" / "resnet20_resnet8" / "seed1"

    def end():
        if ends:
            result = {"top1": 50.0, "top5": 60.0, "best_top1": 50.0, "teacher_top1": None}
            (folder / "result.json").write_text(json.dumps(result))
        other.close()

    with open(folder / "stdout.txt") as other, caplog.at_level("INFO", "eakd_det.sweep"):
        fcntl.flock(other, fcntl.LOCK_EX)
        timer = threading.Timer(1.0, end)
        timer.start()
        assert sweep([config("KD")], [1, 2]) == {}
        timer.join()
    assert calls(out) == ["KD 2"] + ["KD 1"] * (not ends)
    title = "[1/2] KD/resnet20_resnet8 seed 1: "
    messages = [m.removeprefix(title) for m in caplog.messages if m.startswith(title)]
    assert "another process trains it, waiting until it ends" in messages
    assert messages[-1].startswith("top-1 50.00, another process has" if ends else "top-1 81.00 (")


def test_folders_of_others_are_left_alone(sweep, config, out):
    folder = out / "KD" / "resnet20_resnet8" / "seed1"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").touch()
    (why,) = sweep([config("KD")], [1]).values()
    assert "was not made by a sweep" in why and (folder / "thesis.txt").exists()
    sweep([config("KD")], [2])
    with pytest.raises(UserError, match="seed2: another config or other options"):
        sweep([config("KD")], [2], ["DATASET.NAME", "cifar10"])
    assert (folder.parent / "seed2" / "result.json").exists()


class Retrying(Local):
    """Submits lost jobs again, as launchers of clusters do."""

    retries = 3


def test_what_was_killed_is_submitted_again(sweep, config, out, caplog):
    """Not a run that has failed by itself; and not more than three times."""
    body = """
times = folder / "times"
times.write_text(times.read_text() + "x" if times.exists() else "x")
if seed == "2":
    sys.exit(4)
if seed == "3" or len(times.read_text()) < 3:
    os.kill(os.getpid(), 9)
finish(80.0)
"""
    with caplog.at_level("INFO", "eakd_det.sweep"):
        failures = sweep([config("KD")], [1, 2, 3], body=body, launcher=Retrying(2))
    title = "[{0}/3] KD/resnet20_resnet8 seed {0}"
    assert failures.keys() == {title.format(2), title.format(3)}
    assert failures[title.format(3)].startswith("killed by SIGKILL; ")
    folders = [out / "KD" / "resnet20_resnet8" / f"seed{seed}" for seed in (1, 2, 3)]
    assert [len((folder / "times").read_text()) for folder in folders] == [3, 1, 4]
    again = title.format(1) + ": killed by SIGKILL, submitted again"
    assert caplog.messages.count(again) == 2
    outcomes = [json.loads((f / "sweep.json").read_text())["outcome"] for f in folders]
    assert [outcome["state"] for outcome in outcomes] == ["done", "failed", "stopped"]
    text = status(str(out))
    assert text.startswith("done 1, running 0, failed 1, left 1, time left 0:00:0")
    assert "failed   exit code 4" in text and "stopped  killed by SIGKILL" in text


class Late(Local):
    """Hides each result for a while, as the cache of a network's file system does."""

    def __init__(self, jobs, seconds):
        super().__init__(jobs)
        self.seconds, self.timers = seconds, {}

    def outcome(self, handle):
        outcome = super().outcome(handle)
        if outcome is not None and handle not in self.timers:
            path = handle.job.folder / "result.json"
            hidden = path.rename(path.with_name("hidden"))
            self.timers[handle] = threading.Timer(self.seconds, hidden.rename, [path])
            self.timers[handle].start()
        return outcome

    def close(self):
        super().close()
        for timer in self.timers.values():
            timer.join()


def test_a_result_that_is_seen_later(sweep, config, out, caplog, monkeypatch):
    with caplog.at_level("INFO", "eakd_det.sweep"):
        assert sweep([config("KD")], [1], launcher=Late(1, 0.5)) == {}
    assert caplog.messages[-1].startswith("[1/1] KD/resnet20_resnet8 seed 1: top-1 81.00 (")
    monkeypatch.setattr("eakd_det.sweep.tracker.SEEN_SECONDS", 0.1)
    (why,) = sweep([config("KD")], [2], launcher=Late(1, 0.5)).values()
    assert why.startswith("done, but this machine does not see a result in ")


def test_a_teacher_that_was_killed_is_submitted_again_with_its_students(
    sweep, with_teacher, tmp_path
):
    body = TEACHER.replace(
        "    time.sleep(0.3)",
        """
    if len((weights.parent / "trained.txt").read_text()) == 4:
        os.kill(os.getpid(), 9)
""",
    )
    assert sweep(with_teacher, [1], body=body, launcher=Retrying(2)) == {}
    assert (tmp_path / "teacher" / "trained.txt").read_text() == "onceonce"


def test_several_processes_a_run(sweep, config, out):
    body = """
assert arguments[:4] == ["--num-gpus", "2", "--dist-url", "auto"]
finish(float(os.environ["OMP_NUM_THREADS"]))
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr("eakd_det.sweep.processes.joblib.cpu_count", lambda: 8)
        assert sweep([config("KD")], [1], body=body, jobs=2, gpus=2) == {}
    (result,) = out.glob("*/*/*/result.json")
    assert json.loads(result.read_text())["top1"] == 2.0
    assert sweep([config("KD")], [1], body=body) == {}  # the same run, by one process


# tools/sweep.py with a script in place of its own. A test suite in the background of a shell is
# deaf to SIGINT, and so are its processes.
TOOL = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv.pop(1))
import sweep
tools = pathlib.Path(sys.argv.pop(1)).parent
sweep.main(sweep.parse_arguments(), tools)
"""


@pytest.fixture
def arguments_of(script, out):
    """The arguments of TOOL that stand before those of the tool."""
    return lambda body: [str(ROOT / "tools"), script(body), "--output-dir", str(out)]


@pytest.fixture
def start(arguments_of):
    """Starts the tool, to which signals are sent."""

    def start(body, *arguments):
        return subprocess.Popen(
            [sys.executable, "-c", TOOL, *arguments_of(body), *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def call(arguments_of, call_code):
    """Calls the tool to its end; its return code, stdout and stderr."""
    return lambda body, *arguments: call_code(TOOL, *arguments_of(body), *arguments)


SLOW = """
if seed == "2" and not (folder / "pid").exists():
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    time.sleep(300)
finish(80 + int(seed) / 3)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_stopped_and_started_again(start, call, config, out, number):
    arguments = ["--configs", config("KD"), config("EA-KD"), "--seeds", "1", "2"]
    arguments += ["SOLVER.EPOCHS", "3"]
    process = start(SLOW, *arguments)
    pid_file = out / "KD" / "resnet20_resnet8" / "seed2" / "pid"
    deadline = time.monotonic() + 60
    while not pid_file.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Stopped. To continue: " in err and "--seeds 1 2 SOLVER.EPOCHS 3" in err
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    if number == signal.SIGTERM:
        return  # it ends as by Ctrl-C; what follows is the same
    (out / "EA-KD" / "resnet20_resnet8" / "seed2").mkdir()
    (out / "EA-KD" / "resnet20_resnet8" / "seed2" / "sweep.json.incomplete").touch()
    code, text, err = call(SLOW.replace("sleep(300)", "sleep(0)"), *arguments)
    assert code == 0, err
    assert text.count("finished before") == 2
    row = "| Student (EA-KD/resnet20_resnet8) | 80.50 ± 0.24 |      2 |"  # they have no METHODS
    assert row in text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the training goes on to its end")
def test_a_training_that_outlives_a_killed_sweep(start, sweep, config, out, caplog):
    """It saves, for which the next sweep waits, and goes on."""
    body = """
import signal

def save(*_):
    time.sleep(3)
    (folder / "saved").touch()
    sys.exit(143)

if not (folder / "saved").exists():
    signal.signal(signal.SIGTERM, save)
    (folder / "began").touch()
    time.sleep(300)
finish(80.0)
"""
    process = start(body, "--configs", config("KD"), "--seeds", "1")
    folder = out / "KD" / "resnet20_resnet8" / "seed1"
    deadline = time.monotonic() + 60
    while not (folder / "began").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert f"process {process.pid} on" in status(str(out))
    with caplog.at_level("INFO", "eakd_det.sweep"):
        assert sweep([config("KD")], [1], body=body) == {}
    title = "[1/1] KD/resnet20_resnet8 seed 1: "
    trains = f"process {process.pid} on {os.uname().nodename} trains it, waiting until it ends"
    assert title + trains in caplog.messages
    assert caplog.messages[-1].startswith(f"{title}top-1 80.00 (")
    assert status(str(out)).startswith("done 1, running 0, failed 0, left 0")


def test_the_tool_ends_with_the_failures(call, config, out):
    body = 'sys.exit("the reason") if seed == "2" else finish(80.0)'
    code, text, err = call(body, "--configs", config("KD"), "--seeds", "1", "2", "--jobs", "2")
    assert code == 1
    assert "[2/2] KD/resnet20_resnet8 seed 2: failed, exit code 1 (" in text
    assert "80.00 ± —" in text
    assert err.startswith("[2/2] KD/resnet20_resnet8 seed 2: exit code 1; ")
    assert err.endswith("    the reason\n")
    (out / "table.md").unlink()
    code, text, _ = call(body, "--table-only")
    assert code == 0 and text.strip() == (out / "table.md").read_text().strip()


def test_runs_of_a_table_are_repeated(call, config, out, tmp_path):
    options = ["SOLVER.BASE_LR", "0.1"]
    code, _, err = call(COUNT, "--configs", config("KD"), "--seeds", "1", "2", *options)
    assert code == 0 and calls(out) == ["KD 1", "KD 2"], err
    runs = tmp_path / "runs.csv"
    runs.write_text((out / "runs.csv").read_text())
    table = (out / "table.md").read_text()
    code, text, err = call(COUNT, "--from-csv", str(runs), "--output-dir", str(tmp_path / "tables"))
    assert code == 0 and text.strip() == table.strip(), err
    code, _, err = call(COUNT, "--from-csv", str(runs))
    assert code == 1 and "holds the runs of a sweep" in err
    runs.write_text(runs.read_text().replace("82.0000", "81.5000"))
    again = tmp_path / "again"
    name = "digits/Student/resnet8"  # the config has no METHODS
    code, text, err = call(COUNT, "--repeat", str(runs), name, "--output-dir", str(again))
    assert code == 0 and calls(again) == ["KD 1", "KD 2"] and calls(out) == [], err
    assert "|      1 |      81.00 | 81.00 |        +0.00 |" in text
    assert "|      2 |      81.50 | 82.00 |        +0.50 |" in text
    record = again / "KD" / "resnet20_resnet8" / "seed2" / "sweep.json"
    assert json.loads(record.read_text())["options"] == options
    assert "finished before" not in text and "fingerprint" not in text
    code, text, err = call(COUNT, "--repeat", str(runs), name, "--output-dir", str(again))
    assert code == 0 and calls(again) == [], err
    assert f"Seeds 1, 2: finished before in {record.parents[1]}, not trained again." in text
