import pytest

from eakd_det.sweep.launchers.slurm_options import check, complete
from eakd_det.utils.errors import UserError

SINFO = 'case "$*" in *gpu*) echo "gpu|4:00:00|7-00:00:00|gpu:a100:4(S:0-1)";; *) cat <<END\n'
SINFO += "cpu*|n/a|1-00:00:00|(null)\ngpu|4:00:00|7-00:00:00|gpu:a100:4(S:0-1)\nEND\nesac"


@pytest.fixture(autouse=True)
def sinfo(tmp_path, monkeypatch):
    """A cluster with a partition of CPUs, the default one, and one of GPUs."""
    path = tmp_path / "bin" / "sinfo"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{SINFO}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def test_options_have_the_names_of_sbatch():
    options = {"partition": "gpu", "cpus": "8", "mail_type": "END", "--exclusive": ""}
    expected = {"partition": "gpu", "cpus-per-task": "8", "mail-type": "END", "exclusive": True}
    assert check(options) == (expected, None)
    assert check({"array-parallelism": "8"}) == ({}, 8)
    assert check({"array_parallelism": "8"}) == ({}, 8)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("array", "0-3", "--slurm array: the sweep sets it itself. .* partition, account"),
        ("dependency", "afterok:1", "--slurm dependency: the sweep sets"),
        ("nodes", "2", "--slurm nodes: the sweep sets"),
        ("array-parallelism", "0", "--slurm array-parallelism=0: not a positive number"),
        ("array-parallelism", "all", "--slurm array-parallelism=all: not a positive number"),
        ("signal", "B:USR2@60", "--slurm signal=B:USR2@60: not USR1@SECONDS"),
        ("signal", "USR1", "--slurm signal=USR1: not USR1@SECONDS"),
    ],
)
def test_wrong_options_are_explained(key, value, message):
    with pytest.raises(UserError, match=message):
        check({key: value})


def test_a_run_has_the_gpus_and_the_time_of_its_partition():
    assert complete({}, 1) == {"signal": "USR1@120", "requeue": True, "time": "1-00:00:00"}
    found = complete({"partition": "gpu", "signal": "USR1@600"}, 2)
    assert (found["time"], found["gpus-per-node"], found["signal"]) == ("4:00:00", "2", "USR1@600")
    for own in ({"gpus": "a100:2"}, {"gpus": "0"}, {"gres": "gpu:2"}, {"gpus-per-task": "2"}):
        found = complete({"partition": "gpu", "time": "30", **own}, 2)
        assert "gpus-per-node" not in found
        assert (found | own | {"time": "30"}) == found


def test_other_gpus_than_a_run_uses_are_refused():
    with pytest.raises(UserError, match="gpus=a100:2: a run has 1 process, each .* --gpus-per-run"):
        complete({"gpus": "a100:2"}, 1)
    with pytest.raises(UserError, match="gpus-per-node=1: a run has 4 processes"):
        complete({"gpus-per-node": "1"}, 4)
