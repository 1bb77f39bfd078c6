"""The files of tools/cluster, which users copy and edit, in step with the tools that they start."""

import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from eakd_det.config.merge import load_config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tools" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
CONFIG = "configs/COCO-Detection/EA-DKD-R18-R101.yaml"
SCHEDULER = {  # stands in for SLURM's: `srun` is a training that SIGTERM ends, or that ends itself
    "srun": """
        echo "$*" > srun.txt; echo $$ > srun.pid
        trap "exit 1" TERM
        until [ -e end ]; do sleep 0.05; done""",
    "scancel": 'echo "$*" > scancel.txt; kill -TERM "$(cat srun.pid)"',
    "scontrol": '[ "$1" = show ] && printf "node7\\nnode8\\n" || echo "$*" > scontrol.txt',
}
VARIABLES = {
    "SLURM_JOB_ID": "40017",
    "SLURM_JOB_NODELIST": "node[7-8]",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_CPUS_PER_TASK": "64",
}


@pytest.fixture
def parsed(monkeypatch):
    """Reads the arguments of a tool, which end the test if it does not know one."""

    def parsed(tool, words):
        monkeypatch.setattr("sys.argv", [tool, *words])
        return runpy.run_path(str(ROOT / tool))["parse_arguments"]()

    return parsed


@pytest.fixture
def submit(tmp_path):
    """Starts a script as SLURM does; the process."""
    for name, body in SCHEDULER.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = {**os.environ, **VARIABLES, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    return lambda name: subprocess.Popen(
        ["bash", str(FOLDER / name), "--config-file", CONFIG], cwd=tmp_path, env=environment
    )


def _wait_for(path):
    for _ in range(200):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} is missing")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda x: x.name)
def test_scripts_pass_shellcheck(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", str(script)], check=True)


def test_a_training_on_several_nodes_is_stopped_and_requeued(submit, parsed, tmp_path):
    job = submit("slurm_nodes.sh")
    words = shlex.split(_wait_for(tmp_path / "srun.txt"))
    _wait_for(tmp_path / "srun.pid")
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == 1
    assert (tmp_path / "scancel.txt").read_text() == "--signal=TERM 40017.0\n"
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 40017\n"
    torchrun = get_args_parser().parse_args(words[words.index("torch.distributed.run") + 1 :])
    assert (torchrun.nnodes, torchrun.nproc_per_node) == ("2", "8")
    assert (torchrun.rdzv_endpoint, torchrun.rdzv_id) == ("node7:20017", "40017")
    args = parsed(torchrun.training_script, torchrun.training_script_args)
    assert args.resume and args.config_file == CONFIG


def test_a_training_that_ends_is_not_requeued(submit, tmp_path):
    job = submit("slurm_nodes.sh")
    _wait_for(tmp_path / "srun.pid")
    (tmp_path / "end").touch()
    assert job.wait(timeout=20) == 0
    assert not (tmp_path / "scontrol.txt").exists()


@pytest.mark.parametrize(("code", "requeued"), [(138, True), (0, False), (1, False)])
def test_a_training_on_one_node_is_requeued_by_its_exit_code(
    submit, parsed, tmp_path, code, requeued
):
    (tmp_path / "bin" / "srun").write_text(f'#!/bin/bash\necho "$*" > srun.txt; exit {code}\n')
    assert submit("slurm_node.sh").wait(timeout=20) == code
    assert (tmp_path / "scontrol.txt").exists() == requeued
    words = shlex.split((tmp_path / "srun.txt").read_text())
    args = parsed("tools/train_net.py", words[words.index("tools/train_net.py") + 1 :])
    assert args.resume and args.num_gpus == 8 and args.config_file == CONFIG


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda x: x.name)
def test_the_commands_in_the_comments_exist(script, parsed):
    text = script.read_text().replace("\\\n#", "")
    words = shlex.split(re.search(rf"sbatch .*{script.name} (.*)", text)[1])
    args = parsed("tools/train_net.py", words)
    load_config(str(ROOT / args.config_file), args.opts)
    for tool in re.findall(r"\btrain_\w+\.py", text):
        assert (ROOT / "tools" / tool).exists()


def test_the_cluster_of_ray(parsed):
    text = (FOLDER / "ray_cluster.yaml").read_text()
    assert yaml.safe_load(text)["provider"]["head_ip"]
    words = shlex.split(re.search(r"tools/sweep.py (.*)'", text.replace("\\\n#", ""))[1])
    args = parsed("tools/sweep.py", words)
    assert (args.launcher, args.ray_address) == ("ray", "auto")
    assert all(any(ROOT.glob(path)) for path in args.configs)


def test_the_job_of_kubernetes(parsed):
    spec = yaml.safe_load((FOLDER / "pytorchjob.yaml").read_text())["spec"]
    policy, worker = spec["elasticPolicy"], spec["pytorchReplicaSpecs"]["Worker"]
    assert policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"  # which the operator looks for
    assert int(spec["nprocPerNode"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"WORKDIR {container['workingDir']}\n" in (ROOT / "Dockerfile").read_text()
    assert container["command"][1:] == ["-m", "torch.distributed.run"]
    tool, *words = container["args"]
    args = parsed(tool, words)
    assert args.resume
    load_config(str(ROOT / args.config_file), args.opts)
    mounted = {x["name"]: x["mountPath"] for x in container["volumeMounts"]}
    assert mounted.keys() == {x["name"] for x in pod["volumes"]}
    variables = {x["name"]: x["value"] for x in container["env"]}
    shared = [variables["DETECTRON2_DATASETS"], variables["XDG_CACHE_HOME"], args.opts[-1]]
    assert all(path.startswith(mounted["shared"] + "/") for path in shared)
    assert variables["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"  # pods that are replaced join
    shutdown = int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert shutdown < pod["terminationGracePeriodSeconds"]
