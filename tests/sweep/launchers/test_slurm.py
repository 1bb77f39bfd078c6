"""SLURM's commands are scripts that note their arguments and print what a test has written.

`test_a_sweep_with_killed_workers` trains by submitit on this machine, without SLURM.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.job import Outcome
from eakd_det.sweep.jobs import RunJob
from eakd_det.sweep.launchers import Local
from eakd_det.sweep.progress import progress_line
from eakd_det.sweep.runner import run_sweep
from eakd_det.sweep.tables import write_tables
from eakd_det.sweep.tracker import Tracker
from eakd_det.utils.errors import UserError

submitit = pytest.importorskip("submitit")

from eakd_det.sweep.launchers.slurm import Slurm  # noqa: E402
from eakd_det.sweep.launchers.slurm_queue import Queue  # noqa: E402

ROOT = Path(__file__).parents[3]
KIND = Classifiers()
COMMANDS = {
    "sbatch": 'cat "$1" >> scripts; env >> environment; n=$(($(cat n) + 1)); echo $n > n; '
    'echo "Submitted batch job $n"',
    "squeue": "cat squeue.txt",
    "sinfo": 'echo "cpu*|n/a|infinite|(null)"',
    "scancel": 'echo "$@" >> canceled',
    "srun": "",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Folder of the scripts and their notes."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, body in COMMANDS.items():
        write_command(folder, name, body)
    (folder / "n").write_text("10")
    (folder / "squeue.txt").touch()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(Queue, "seconds", 0.0)
    monkeypatch.setattr(Slurm, "file_seconds", 0.0)
    return folder


def write_command(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\ncd {folder}\n{body}\n")
    path.chmod(0o755)


def lines(path):
    """Return the lines of a file of notes, and empty it."""
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


@pytest.fixture
def slurm(cluster, tmp_path):
    """Builds a launcher with options of --slurm."""
    return lambda **options: Slurm(options, tmp_path / "out" / "slurm")


@pytest.fixture
def jobs(tmp_path):
    """Builds the jobs of a config with seeds, and options."""
    config = tmp_path / "Digits" / "Student.yaml"
    config.parent.mkdir()
    config.write_text("VERSION: 2\nDATASET:\n  NAME: digits\nMODEL:\n  NAME: resnet8\n")

    def build(seeds, options=(), gpus=1):
        runs = plan(KIND, [str(config)], seeds, str(tmp_path / "out"), list(options))
        return [
            RunJob(run.title, run, ["train.py", *run.arguments], str(tmp_path), gpus)
            for run in runs
        ]

    return build


def test_jobs_are_one_array_that_starts_after_its_teachers(slurm, jobs, cluster):
    launcher = slurm(partition="cpu", cpus="4", time="2:00:00")
    (teacher,) = launcher.submit(jobs([9]))
    script = lines(cluster / "scripts")
    assert teacher == "11"
    for option in ("partition=cpu", "cpus-per-task=4", "time=2:00:00", "requeue", "nodes=1"):
        assert f"#SBATCH --{option}" in script
    names = {line.removeprefix("#SBATCH --").partition("=")[0] for line in script}
    assert not names & {"array", "dependency", "gpus-per-node"}

    handles = launcher.submit(jobs([1, 2, 3]), [teacher])
    script = lines(cluster / "scripts")
    assert handles == ["12_0", "12_1", "12_2"]
    for option in ("array=0-2%3", "dependency=afterok:11", "kill-on-invalid-dep=yes"):
        assert f"#SBATCH --{option}" in script
    tasks = [submitit.SlurmJob(cluster.parent / "out/slurm", x).submission() for x in handles]
    assert [task.function.job.folder.name for task in tasks] == ["seed1", "seed2", "seed3"]

    (cluster / "squeue.txt").write_text("11|COMPLETED|None\n")
    launcher.submit(jobs([4]), [teacher])
    assert not any("dependency" in line for line in lines(cluster / "scripts"))


def test_array_parallelism_and_gpus(slurm, jobs, cluster):
    write_command(cluster, "sinfo", 'echo "gpu*|n/a|infinite|gpu:a100:8"')
    slurm(**{"array-parallelism": "2"}).submit(jobs([1, 2, 3], gpus=4))
    script = lines(cluster / "scripts")
    assert {"#SBATCH --array=0-2%2", "#SBATCH --gpus-per-node=4"} <= set(script)


def test_a_sweep_within_a_job_does_not_pass_it_on(slurm, jobs, cluster, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000")
    monkeypatch.setenv("SLURM_CONF", "/etc/own.conf")
    slurm().submit(jobs([1]))
    noted = lines(cluster / "environment")
    assert "SLURM_CONF=/etc/own.conf" in noted
    assert not any(line.startswith("SLURM_MEM_PER_NODE") for line in noted)
    assert os.environ["SLURM_MEM_PER_NODE"] == "1000"


def test_started_again_it_finds_its_jobs(slurm, jobs, cluster, caplog):
    assert slurm().submit(jobs([1, 2, 3, 4])) == ["11_0", "11_1", "11_2", "11_3"]
    lines(cluster / "scripts")
    queue = "11_0|RUNNING|None\n11_1|PENDING|Resources\n11_2|NODE_FAIL|None\n"
    (cluster / "squeue.txt").write_text(queue)  # which has forgotten 11_3
    with caplog.at_level("INFO", "eakd_det.sweep"):
        again = slurm()
        assert again.submit(jobs([1, 2, 3, 4, 5])) == ["11_0", "11_1", "12_0", "12_1", "12_2"]
    assert "[1/5] Digits/Student seed 1: job 11_0, submitted before" in caplog.messages
    assert [again.state(x) for x in ("11_0", "11_1")] == ["running", "queued"]

    queue = "11_0|RUNNING|None\n11_1|PENDING|Resources\n"
    (cluster / "squeue.txt").write_text(queue)
    assert slurm().submit(jobs([1], ["SOLVER.EPOCHS", "3"])) == ["13"]
    assert lines(cluster / "canceled") == ["--quiet 11_0"]

    write_command(cluster, "squeue", "echo no controller >&2; exit 1")
    with pytest.raises(UserError, match="squeue fails: no controller"):
        slurm().submit(jobs([1]))


def test_jobs_with_other_options_or_another_teacher_are_submitted_anew(
    slurm, jobs, cluster, tmp_path
):
    teacher = tmp_path / "Teacher.yaml"
    teacher.write_text("SOLVER:\n  EPOCHS: 1\n")
    (first,) = jobs([1])
    config = Path(first.run.arguments[1])
    config.write_text(config.read_text() + f"TEACHER:\n  CONFIG_FILE: {teacher}\n")
    (cluster / "squeue.txt").write_text("11|PENDING|None\n12|PENDING|None\n")
    assert slurm(time="1:00").submit(jobs([1])) == ["11"]
    assert slurm(time="1:00").submit(jobs([1])) == ["11"]
    teacher.write_text("SOLVER:\n  EPOCHS: 2\n")
    assert slurm(time="1:00").submit(jobs([1])) == ["12"]
    assert slurm(time="2:00").submit(jobs([1])) == ["13"]
    assert lines(cluster / "canceled") == ["--quiet 11", "--quiet 12"]


def test_jobs_that_scancel_leaves_are_kept_in_mind(slurm, jobs, cluster, caplog):
    launcher = slurm()
    handles = launcher.submit(jobs([1, 2]))
    (cluster / "squeue.txt").write_text("11_0|RUNNING|None\n11_1|PENDING|None\n")
    write_command(cluster, "scancel", "echo no controller >&2; exit 1")
    launcher.cancel(handles)
    warning = "scancel fails: no controller. The jobs go on. To cancel them: scancel 11_0 11_1"
    assert caplog.messages == [warning]
    assert slurm().submit(jobs([1, 2])) == handles
    with pytest.raises(UserError, match="seed 1: job 11_0 is of another config .* not canceled"):
        slurm(time="1:00").submit(jobs([1]))


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts the tests, also as a background job of a shell, which is deaf to it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_does_not_come_between_sbatch_and_the_record(slurm, jobs, cluster):
    """Neither the sweep nor sbatch, which the terminal signals, too, is interrupted by it."""
    other = '{"/other": {"id": "7", "content": ""}}'  # of another sweep into the folder
    body = f"kill -INT $PPID; kill -INT $$; echo '{other}' > ../out/slurm/jobs.json"
    path = cluster / "sbatch"  # Debian's sh would unblock the signals
    path.write_text(f"#!/bin/bash\ncd {cluster}\n{body}\n{COMMANDS['sbatch']}\n")
    with progress_line(1) as line:
        tracker = Tracker(slurm(), line, set(), 0)
        with pytest.raises(KeyboardInterrupt):
            tracker.submit(jobs([1]))
    assert [*tracker.pending] == ["11"]
    noted = json.loads((cluster.parent / "out/slurm/jobs.json").read_text())
    assert sorted(entry["id"] for entry in noted.values()) == ["11", "7"]


def test_canceled_jobs_are_submitted_anew(slurm, jobs, cluster):
    launcher = slurm()
    handles = launcher.submit(jobs([1, 2]))
    (cluster / "squeue.txt").write_text("11_0|RUNNING|None\n11_1|COMPLETED|None\n")
    launcher.cancel(handles)
    assert lines(cluster / "canceled") == ["--quiet 11_0"]
    (cluster / "squeue.txt").write_text("11_0|COMPLETING|None\n")
    assert slurm().submit(jobs([1])) == ["12"]


@pytest.mark.parametrize(
    "queue, state, reason",
    [
        ("11|NODE_FAIL|None", "stopped", "job 11 has ended as NODE_FAIL"),
        ("11|TIMEOUT|TimeLimit", "stopped", "job 11 has ended as TIMEOUT"),
        ("11|FAILED|NonZeroExitCode", "stopped", "job 11 has ended as FAILED"),
        ("10|COMPLETED|None", "stopped", "job 11 has ended as UNKNOWN"),
        ("11|CANCELLED|DependencyNeverSatisfied", "stopped", "not started without its teacher"),
        ("11|CANCELLED|None", "failed", "job 11 was canceled"),
        ("11|OUT_OF_MEMORY|OutOfMemory", "failed", "out of memory: .* --slurm mem="),
    ],
)
def test_jobs_without_an_outcome(slurm, jobs, cluster, queue, state, reason):
    launcher = slurm()
    (handle,) = launcher.submit(jobs([1]))
    (cluster / "squeue.txt").write_text(queue)
    (cluster.parent / "out/slurm/11_0_log.err").write_text("srun: error\n")
    outcome = launcher.outcome(handle)
    assert outcome.state == state
    assert reason.split(".*")[0] in outcome.reason
    assert ("srun: error" in outcome.output) == (reason.startswith(("job 11 has", "out of")))


def test_an_error_of_the_worker_is_a_failure(slurm, jobs, cluster):
    """Submitit writes a result then, as of a package that is missing on the machine."""
    launcher = slurm()
    (handle,) = launcher.submit(jobs([1]))
    (cluster.parent / "out/slurm/11_0_result.pkl").touch()
    (cluster / "squeue.txt").write_text("11|FAILED|NonZeroExitCode")
    assert launcher.outcome(handle).state == "failed"


def test_states_and_outcomes(slurm, jobs, cluster, caplog, monkeypatch):
    launcher = slurm()
    first, second = launcher.submit(jobs([1, 2]))
    outcomes = cluster.parent / "out" / "slurm"
    text = {"state": "failed", "reason": "exit code 1", "output": "", "seconds": 2.0}
    (outcomes / "11_0_outcome.json").write_text(json.dumps(text))
    for queue, state in [("PENDING", "queued"), ("RUNNING", "running"), ("COMPLETING", "running")]:
        (cluster / "squeue.txt").write_text(f"11_0|{queue}|None\n11_1|{queue}|None\n")
        assert launcher.outcome(first) is None  # of the time before it was requeued
        assert launcher.state(first) == state

    (cluster / "squeue.txt").write_text("11_0|FAILED|NonZeroExitCode\n11_1|COMPLETED|None\n")
    monkeypatch.setattr(Slurm, "file_seconds", 60.0)
    assert launcher.outcome(first) == Outcome(**text)
    assert launcher.outcome(second) is None  # its file is not seen yet
    (outcomes / "11_1_outcome.json").write_text(json.dumps({**text, "state": "done"}))
    assert launcher.outcome(second).state == "done"

    write_command(cluster, "squeue", "echo no controller >&2; exit 1")
    assert launcher.outcome(first) == Outcome(**text)
    assert "squeue fails, it is called again: no controller" in caplog.messages


def test_an_array_that_never_started_is_one_entry(slurm, jobs, cluster):
    launcher = slurm()
    handles = launcher.submit(jobs([1, 2]))
    (cluster / "squeue.txt").write_text("11|CANCELLED|DependencyNeverSatisfied\n")
    assert [launcher.outcome(x).state for x in handles] == ["stopped", "stopped"]


def test_what_sbatch_refuses(slurm, jobs, cluster, capsys):
    write_command(cluster, "sbatch", "echo 'sbatch: error: invalid partition: x' >&2; exit 1")
    with pytest.raises(UserError, match=r"invalid partition: x\n--slurm KEY=VALUE takes"):
        slurm(partition="x").submit(jobs([1]))
    assert not (cluster.parent / "out/slurm/jobs.json").exists()


def test_missing_commands_and_packages_are_named(cluster, tmp_path, monkeypatch):
    (cluster / "sbatch").unlink()
    (cluster / "sinfo").unlink()
    monkeypatch.setenv("PATH", str(cluster))
    with pytest.raises(UserError, match="no command sbatch and no sinfo. Start .* login node"):
        Slurm({}, tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "eakd_det.sweep.launchers.slurm")
    with pytest.raises(UserError, match="needs submitit: pip install -r requirements/cluster.txt"):
        import eakd_det.sweep.launchers.slurm  # noqa: F401


class OnThisMachine(Slurm):
    """Trains by submitit's processes on this machine, which keep no order."""

    _local: ClassVar = {}  # id -> job of submitit

    def _open_queue(self):
        return _Processes(self._local)

    def _executor(self, gpus, after):
        for job in after:
            self._local[job].wait()
        executor = _Recorder(self._folder, self._local)
        executor.update_parameters(timeout_min=10)
        return executor


class _Recorder(submitit.LocalExecutor):
    def __init__(self, folder, jobs):
        super().__init__(folder)
        self.jobs = jobs

    def submit_array(self, fns):
        jobs = super().submit_array(fns)
        self.jobs.update({job.job_id: job for job in jobs})
        return jobs


class _Processes(Queue):
    """States of submitit's processes on this machine."""

    seconds: ClassVar[float] = 0.0

    def __init__(self, jobs):
        super().__init__()
        self.jobs = jobs

    def cancel(self, ids):
        for job in ids:
            self.jobs[job].cancel()
        return True

    def _read(self):
        states = {job: self.jobs[job].state == "RUNNING" for job in self._states}
        self._states = {job: ("RUNNING" if x else "NODE_FAIL", "") for job, x in states.items()}


def kill_when_it_trains(folder, killed, is_worker):
    """Kill the training of a run, or the worker that has started it."""
    log = folder / "stdout.txt"
    while not (log.exists() and " iter: " in log.read_text()):
        time.sleep(0.05)
    found = subprocess.run(["pgrep", "-f", f"OUTPUT_DIR {folder}"], capture_output=True, text=True)
    pid = int(found.stdout.split()[0])
    if is_worker:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    killed.append(folder)


@pytest.mark.slow  # nine trainings, each in a process of its own
def test_a_sweep_with_killed_workers(tmp_path, monkeypatch, caplog):
    """One training and one worker are killed; the tables equal those of --launcher local."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")  # which the batch script sets
    folder = tmp_path / "configs" / "Digits"
    folder.mkdir(parents=True)
    for name in ("Base", "Teacher", "KD", "EA-KD"):
        text = (ROOT / "configs" / "Digits" / f"{name}.yaml").read_text()
        text = text.replace("EPOCHS: 8", "EPOCHS: 4").replace("STEPS: (5, 7)", "STEPS: (3,)")
        (folder / f"{name}.yaml").write_text(text)

    def sweep(out, launcher):
        configs = [f"configs/Digits/{name}.yaml" for name in ("KD", "EA-KD")]
        runs = plan(KIND, configs, [1, 2], str(out), [])
        assert run_sweep(runs, str(ROOT / "tools" / KIND.script), str(out), launcher) == {}
        return write_tables(KIND, str(out))

    out, killed = tmp_path / "out", []
    for method, is_worker in [("KD", False), ("EA-KD", True)]:
        arguments = out / "Digits" / method / "seed1", killed, is_worker
        threading.Thread(target=kill_when_it_trains, args=arguments, daemon=True).start()
    with caplog.at_level("INFO", "eakd_det.sweep"):
        table = sweep(out, OnThisMachine({}, out / "slurm"))
    assert len(killed) == 2
    assert any("submitted again" in message for message in caplog.messages)
    assert len(list(out.glob("slurm/*_submitted.pkl"))) > 5
    local = Local(1)
    assert table == sweep(tmp_path / "local", local)
    local.close()
