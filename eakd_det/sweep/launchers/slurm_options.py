"""Options of sbatch: those of --slurm KEY=VALUE, and defaults for what they leave open."""

import subprocess
from collections.abc import Mapping

from eakd_det.utils.errors import UserError

NAMES = (
    "--slurm KEY=VALUE takes the options of sbatch: partition, account, qos, time (limit of a run, "
    "as 4:00:00), gpus (as a100:1), cpus (of a run), mem (as 32G), signal (USR1@SECONDS before the "
    "time limit) and any other by its long name; and array-parallelism (number of runs at a time)."
)
# SLURM sends it to all processes of a job: trainings save a checkpoint then, which they do not at
# USR2, submitit's own choice.
SIGNAL = "USR1"
SECONDS = 120  # between that signal and the time limit

_OTHER_NAMES = {"cpus": "cpus-per-task"}
_OF_THE_SWEEP = {
    *("array", "chdir", "dependency", "error", "no-requeue", "nodes", "ntasks", "ntasks-per-node"),
    *("open-mode", "output", "parsable", "requeue", "test-only", "wait", "wrap"),
}


def check(options: Mapping[str, str]) -> tuple[dict[str, str | bool], int | None]:
    """Check the options of --slurm as far as sbatch does not.

    Returns:
        Options of sbatch, True for those without a value ("exclusive="); and the number of runs at
        a time, None without a limit.

    Raises:
        UserError: an option is the sweep's own, or has a wrong value.
    """
    found: dict[str, str | bool] = {}
    for key, value in options.items():
        name = key.lstrip("-").replace("_", "-")
        found[_OTHER_NAMES.get(name, name)] = value or True
    if wrong := sorted(_OF_THE_SWEEP & found.keys()):
        raise UserError(f"--slurm {', '.join(wrong)}: the sweep sets it itself. {NAMES}")
    parallelism = found.pop("array-parallelism", None)
    if parallelism is not None and not (str(parallelism).isdecimal() and int(parallelism)):
        raise UserError(f"--slurm array-parallelism={parallelism}: not a positive number.")
    prefix, _, seconds = str(found.get("signal", f"{SIGNAL}@{SECONDS}")).partition("@")
    if prefix != SIGNAL or not seconds.isdecimal():
        raise UserError(f"--slurm signal={found['signal']}: not {SIGNAL}@SECONDS. {NAMES}")
    return found, None if parallelism is None else int(parallelism)


def complete(options: Mapping[str, str | bool], gpus: int) -> dict[str, str | bool]:
    """Add what submitit would set otherwise, or what a run of `gpus` processes needs.

    The time limit is the partition's; a GPU for each process is asked for where the partition has
    GPUs.

    Raises:
        UserError: other GPUs are asked for than a run uses.
    """
    for name in ("gpus", "gpus-per-node", "gpus-per-task"):
        count = str(options.get(name, gpus)).rpartition(":")[2]
        if count not in ("0", str(gpus)):
            raise UserError(
                f"--slurm {name}={options[name]}: a run has {gpus} process{'es' * (gpus > 1)}, "
                "each with a GPU; set their number with --gpus-per-run."
            )
    limit, has_gpus = _partition(options.get("partition"))
    found = {"signal": f"{SIGNAL}@{SECONDS}", "requeue": True, "time": limit, **options}
    if has_gpus and not any(name.startswith(("gpus", "gres")) for name in options):
        found["gpus-per-node"] = str(gpus)
    return found


def _partition(name: str | bool | None) -> tuple[str, bool]:
    """Return the default time limit of a partition, or of the default one, and if it has GPUs."""
    command = ["sinfo", "--noheader", "--format=%P|%L|%l|%G"]
    command += [f"--partition={name}"] if name else []
    try:
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise UserError(f"sinfo fails: {error.stderr.strip()}") from error
    rows = [line.split("|") for line in text.splitlines()]
    rows = [row for row in rows if name or row[0].endswith("*")]
    limits = [limit for row in rows for limit in row[1:3] if limit != "n/a"]
    return limits[0] if limits else "infinite", any("gpu" in row[3] for row in rows)
