"""tools/train_net.py as a user calls it: real processes."""

import json
import random
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.checkpoint.checkpointer import last_checkpoint, load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.engine.detection_run import main
from eakd_det.utils.errors import UserError
from tests.conftest import ROOT
from tests.data.test_custom import make


def _with_config(run_tool, folder):
    def run(cfg, *arguments, **options):
        (folder / "run.yaml").write_text(cfg.dump())
        config = ("--config-file", str(folder / "run.yaml"))
        return run_tool("train_net.py", *config, *arguments, **options)

    return run


@pytest.fixture
def start(start_tool, tmp_path):
    """Starts the tool with a config and arguments; a running process."""
    return _with_config(start_tool, tmp_path)


@pytest.fixture
def call(call_tool, tmp_path):
    """Calls the tool to its end; its return code, stdout and stderr."""
    return _with_config(call_tool, tmp_path)


def _succeed(result):
    code, out, err = result
    assert code == 0, out + err
    return out


def _first_gradients(folder):
    """The momentum after one step without weight decay is the gradient."""
    saved = torch.load(Path(folder) / "model_final.pth", weights_only=True)
    state = saved["trainer"]["_trainer"]["optimizer"]["state"]
    return {index: of_parameter["momentum_buffer"] for index, of_parameter in state.items()}


DIST_URL = ("--dist-url", "auto")  # a free port
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TORCHRUN += ("--log-dir", "log")  # below the folder that it runs in
WAYS = {
    "accumulation": (["SOLVER.ACCUMULATE", "2"], None),
    "torchrun": ([], (sys.executable, *TORCHRUN)),
    "both": (["--num-gpus", "2", *DIST_URL, "SOLVER.ACCUMULATE", "2"], None),
}


def _assert_equal(got, expected, way):
    for index, gradient in expected.items():
        torch.testing.assert_close(
            got[index],
            gradient,
            rtol=1e-5,
            atol=1e-5,
            msg=lambda text, where=(way, index): f"{where}: {text}",
        )


@pytest.fixture
def exact_cfg(cli_cfg, monkeypatch):
    """One step whose losses are means over equally many ROIs of each image: all proposals.

    On some processors oneDNN rounds a convolution of one image unlike one of four. What that turns
    over (a ReLU, the order of two proposals) is no matter of how a step is shared out.
    """
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    cfg = cli_cfg
    cfg.DISTILL.METHODS = ("KD", "DKD")
    cfg.SOLVER.MAX_ITER = 1
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 10000
    cfg.MODEL.RPN.POSITIVE_FRACTION = 1.0
    cfg.MODEL.RPN.NMS_THRESH = 1.0
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 30
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 1000
    cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 1.0
    cfg.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT = False
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def test_shared_out_steps_equal_the_whole(exact_cfg, call, start):
    """Two processes, parts of a step, both, or two machines: the gradients are those of one."""
    cfg = exact_cfg
    out = _succeed(call(cfg))
    assert "Images per step: 4 = 1 (processes) x 1 (micro-batches) x 4" in out
    expected = _first_gradients(cfg.OUTPUT_DIR)
    assert max(x.abs().max() for x in expected.values()) > 0.01
    for way, (arguments, launcher) in WAYS.items():
        folder = f"{cfg.OUTPUT_DIR}-{way}"
        _succeed(call(cfg, *arguments, "OUTPUT_DIR", folder, launcher=launcher))
        _assert_equal(_first_gradients(folder), expected, way)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    folder = f"{cfg.OUTPUT_DIR}-machines"
    arguments = ("--num-machines", "2", "--dist-url", url, "OUTPUT_DIR", folder)
    # One with an interpreter of its own, which starts its process as Detectron2 does.
    machine = start(cfg, "--machine-rank", "1", *arguments)
    _succeed(call(cfg, "--machine-rank", "0", *arguments))
    out, err = machine.communicate(timeout=300)
    assert machine.returncode == 0, out + err
    _assert_equal(_first_gradients(folder), expected, "machines")


def test_two_processes_train_resume_and_evaluate(cli_cfg, call):
    cfg = cli_cfg
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.DATASETS.TEST = ("digits_det_val",)
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 1  # two processes: twice the batch and rate, half the steps
    cfg.SOLVER.IMS_PER_BATCH = 2
    processes = ["--num-gpus", "2", *DIST_URL]
    out = _succeed(call(cfg, *processes))
    assert "Images per step: 4 = 2 (processes) x 1 (micro-batches) x 2" in out
    assert "base learning rate: 0.002; iterations: 3" in out
    resumed = _succeed(call(cfg, *processes, "--resume", "SOLVER.MAX_ITER", "10"))
    assert "Starting training from iteration 3" in resumed
    assert "copypaste: AP,AP50,AP75" in resumed
    wrong = ["SOLVER.REFERENCE_WORLD_SIZE", "0", "SOLVER.IMS_PER_BATCH", "3"]
    refused = call(cfg, *processes, "--overwrite", *wrong)
    assert refused[0] != 0
    assert "error: SOLVER.IMS_PER_BATCH 3 cannot be divided evenly" in refused[2]
    assert "Traceback" not in refused[2]
    assert (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text() == "model_final.pth"
    assert "IMS_PER_BATCH: 3" not in (Path(cfg.OUTPUT_DIR) / "config.yaml").read_text()


def test_mistakes_and_the_teachers_ap(cli_cfg, call):
    cfg = cli_cfg
    cfg.DATASETS.TEST = ("digits_det_val",)
    cfg.SOLVER.MAX_ITER = 1
    out = _succeed(call(cfg, "--eval-teacher"))
    assert out.index("Evaluation results for bbox") < out.index(
        "Starting training from iteration 0"
    )
    assert out.count("Start inference on") == 2, "the teacher's evaluation comes first, and once"
    what = out[out.index("What to look at:") :].splitlines()
    assert what[1].endswith(
        "set MODEL.RESNETS.NORM to BN or SyncBN and MODEL.BACKBONE.FREEZE_AT to 0."
    )
    assert out.index("What to look at:") > out.index("Evaluation side by side")
    assert "Evaluation side by side" in out
    table = out[out.index("Evaluation side by side") :]
    assert ["teacher", "student"] == [
        line.split()[0] for line in table.splitlines() if line.startswith(("teacher", "student"))
    ]
    teacher = json.loads((Path(cfg.OUTPUT_DIR) / "teacher" / "result.json").read_text())
    assert teacher["bbox"].keys() >= {"AP", "AP50", "AP75"}
    record = json.loads((Path(cfg.OUTPUT_DIR) / "run.json").read_text())
    student = build_model(stock_config(cfg))
    assert record["parameters"] == sum(p.numel() for p in student.parameters())
    assert record["starts"][0]["command"].endswith("--eval-teacher")
    code, _, err = call(cfg, "DISTILL.DKD.BETTA", "1.0")
    assert code != 0
    assert "did you mean DISTILL.DKD.BETA?" in err
    assert "Traceback" not in err


def test_own_data(cli_cfg, call, call_tool, tmp_path):
    def call_tool_with(config, *arguments):
        return call_tool("train_net.py", "--config-file", config, *arguments)

    cfg = cli_cfg
    cfg.DISTILL.METHODS = ()
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 2, 2
    path, folder = make(tmp_path / "own")
    train, val = ["--train-json", path, "--train-images", folder], ["--val-json", path]
    val += ["--val-images", folder]
    out = _succeed(call(cfg, *train, *val, "--check", "--epochs", "3"))
    assert "custom_train: 2 images (0 without annotations), 2 boxes" in out
    assert "3 epochs of 2 images, 2 a step" in out.partition("Chosen for this run")[2]
    assert not (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists()
    processes = ["--num-gpus", "2", *DIST_URL]
    out = _succeed(call(cfg, *train, *val, *processes, "DISTILL.EA.BOUND", "100"))
    assert "copypaste: AP,AP50,AP75" in out
    config = str(Path(cfg.OUTPUT_DIR) / "config.yaml")
    out = _succeed(call_tool_with(config, *val, *processes, "--eval-only", "--resume"))
    assert "copypaste: AP,AP50,AP75" in out
    code, _, err = call_tool_with(config, "--resume")
    assert code == 1
    assert "error: DATASETS.TRAIN: no dataset 'custom_train' is registered" in err
    assert (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists()
    code, _, err = call(cfg, "--overwrite", "--train-json", path)
    assert (code, "error: --train-json and --train-images belong together." in err) == (1, True)
    data = json.loads(Path(path).read_text())
    data["annotations"][1]["bbox"] = [5, 5, -1, 4]
    Path(path).write_text(json.dumps(data))
    code, _, err = call(cfg, *train, "--check")
    assert code == 1
    assert "annotation 2 of image 2: box [5, 5, -1, 4] is inverted" in err


def teacher_folder(cfg, folder):
    """A stock Detectron2 run folder of the config's teacher."""
    folder.mkdir()
    shutil.copy(cfg.TEACHER.CONFIG_FILE, folder / "config.yaml")
    shutil.copy(cfg.TEACHER.WEIGHTS, folder / "model_final.pth")
    return str(folder)


def test_the_short_command(cli_cfg, call, tmp_path):
    """Schedule and folder are chosen, shown, and the same when two processes resume the run."""
    cfg = cli_cfg
    folder, digits = (
        teacher_folder(cfg, tmp_path / "teacher_run"),
        tmp_path / "data" / "digits_det",
    )
    cfg.TEACHER.CONFIG_FILE = cfg.TEACHER.WEIGHTS = ""
    cfg.OUTPUT_DIR = "./output"
    data = ["--train-json", digits / "annotations" / "train.json", "--train-images"]
    data += [digits / "train", "--val-json", digits / "annotations" / "val.json", "--val-images"]
    data += [digits / "val"]
    command = ["--teacher", folder, "--epochs", "3", *data, "SOLVER.IMS_PER_BATCH", "2"]
    out = _succeed(call(cfg, *command))
    table = out[out.index("Chosen for this run") : out.index("Starting training")]
    rows = {row.split()[0]: row for row in table.splitlines()[1:-1]}
    assert rows["SOLVER.MAX_ITER"].split()[1:6] == ["6", "3", "epochs", "of", "4"]
    assert rows["SOLVER.IMS_PER_BATCH"].endswith("set by hand")
    assert rows["SOLVER.STEPS"].split("2/3")[0].split(maxsplit=1)[1].strip() == "(4, 5)"
    assert rows["SOLVER.BASE_LR"].endswith(
        "linear rule: the config's 0.001 for 4 images, times 2/4"
    )
    assert rows["OUTPUT_DIR"].split()[1] == "output/digits_det-train/run"
    assert "holds no class names: only the number of its classes, 10" in out
    assert out.count("Start inference on") == 3, "once an epoch"
    run = tmp_path / "output" / "digits_det-train" / "run"
    assert f"The student and its student.yaml are in {run.relative_to(tmp_path)}." in out
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] == 5
    command[3] = "4"
    out = _succeed(call(cfg, *command, "--resume", "--num-gpus", "2", *DIST_URL))
    assert "Starting training from iteration 6" in out
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] == 7


def test_a_teacher_of_other_classes_is_refused_before_the_training(cli_cfg, call, tmp_path):
    path, images = make(tmp_path / "own")
    folder = teacher_folder(cli_cfg, tmp_path / "teacher_run")
    data = ["--train-json", path, "--train-images", images]
    code, _, err = call(cli_cfg, "--teacher", folder, *data, "--num-gpus", "2", *DIST_URL)
    assert code == 1
    assert err.count("error:") == 1
    assert "has 10 classes and the student's data have 2 classes (bolt, nut)" in err
    assert not (Path(cli_cfg.OUTPUT_DIR) / "config.yaml").exists()


@pytest.fixture
def check(cli_cfg, tmp_path, monkeypatch, capsys):
    """Calls the tool with --check in this process, on the file and folder of `make`; its lines."""
    tool = runpy.run_path(str(ROOT / "tools" / "train_net.py"))

    def check(source, *arguments):
        (tmp_path / "run.yaml").write_text(cli_cfg.dump())
        data = ("--check", "--train-json", source[0], "--train-images", source[1])
        command = ["train_net.py", "--config-file", str(tmp_path / "run.yaml"), *data, *arguments]
        monkeypatch.setattr(sys, "argv", command)
        main(tool["parse_arguments"]())
        return capsys.readouterr().out.splitlines()

    return check


def test_the_check_knows_what_is_trained(check, tmp_path):
    """Boxes alone need no masks; a mask student does; keypoints are refused."""
    objects = [
        {"image_id": 1, "category_id": 1, "segmentation": [[]]},
        {"image_id": 2, "category_id": 2, "segmentation": [[5, 6, 25, 6, 5, 26]]},
    ]
    source = make(tmp_path / "own", annotations=objects)
    lines = check(source)
    assert lines[0].startswith("custom_train: 2 images (0 without annotations), 2 boxes")
    assert lines[-1].startswith("custom_train: 1 of 2 objects have an invalid segmentation")
    with pytest.raises(UserError, match="annotation 1 of image 1: segmentation .* no polygon"):
        check(source, "MODEL.MASK_ON", "True")
    with pytest.raises(UserError, match="MODEL.KEYPOINT_ON: names and mirrored pairs"):
        check(source, "MODEL.KEYPOINT_ON", "True")


def test_boxes_that_tiles_cut(check, tmp_path):
    objects = [
        {"image_id": 1, "category_id": 1, "bbox": [50, 30, 20, 20]},
        {"image_id": 2, "category_id": 2, "bbox": [59, 39, 20, 20]},
    ]
    source = make(tmp_path / "own", annotations=objects)
    with pytest.raises(UserError, match="2 problems"):
        check(source)
    lines = check(source, "--clip-boxes")
    assert "1 boxes (0 of crowds)" in lines[0]
    assert lines[-1].startswith("custom_train: 1 of 2 boxes are clipped to their images, and 1")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["launch", "torchrun"])
def test_told_to_stop_two_processes_leave_together_and_go_on(cli_cfg, start, call, way):
    """SIGTERM to the parent alone, or by torchrun to all, loaders' workers too: nothing is lost."""
    cfg = cli_cfg
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.SOLVER.MAX_ITER = 30
    cfg.SOLVER.CHECKPOINT_PERIOD = 1000
    cfg.DATALOADER.NUM_WORKERS, cfg.INPUT.RANDOM_FLIP = 1, "none"  # workers draw anew
    arguments, launcher = ["--resume"], WAYS["torchrun"][1]
    if way == "launch":
        arguments, launcher = ["--resume", "--num-gpus", "2", *DIST_URL], (sys.executable,)
    _succeed(call(cfg, *arguments, "OUTPUT_DIR", f"{cfg.OUTPUT_DIR}-straight", launcher=launcher))
    process = start(cfg, *arguments, launcher=launcher)
    said = []
    for line in process.stdout:
        said.append(line)
        if "Starting training from iteration 0" in line:
            break
    time.sleep(random.uniform(1, 4))
    process.send_signal(signal.SIGTERM)
    rest, err = process.communicate(timeout=120)
    out = "".join(said) + rest
    assert process.returncode == (143 if way == "launch" else 1), out + err  # torchrun has its own
    assert "Stopped by SIGTERM at iteration" in out, out + err
    tag = (Path(cfg.OUTPUT_DIR) / "last_checkpoint").read_text()
    stopped = int(tag.removeprefix("model_").removesuffix(".pth"))
    assert stopped + 1 < cfg.SOLVER.MAX_ITER
    out = _succeed(call(cfg, *arguments, launcher=launcher))
    assert f"Starting training from iteration {stopped + 1}" in out
    ours, theirs = (
        torch.load(Path(folder) / "model_final.pth", weights_only=True)["model"]
        for folder in (cfg.OUTPUT_DIR, f"{cfg.OUTPUT_DIR}-straight")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.slow
def test_killed_saves_cost_nothing(cli_cfg, start, call, call_tool, tmp_path):
    """SIGKILL at 20 random moments of a run that saves all the time; each next run resumes it."""
    cfg = cli_cfg
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.SOLVER.CHECKPOINT_PERIOD = 1
    cfg.SOLVER.MAX_ITER = 10**6
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 2048  # a save takes longer than a step
    folder = Path(cfg.OUTPUT_DIR)
    generator = random.Random(0)
    student = build_model(stock_config(cfg))
    cut_off, reached = 0, -1
    for _ in range(20):
        process = start(cfg, "--resume", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = (folder / "last_checkpoint").read_text() if reached >= 0 else ""
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            tag = folder / "last_checkpoint"
            if tag.exists() and tag.read_text() != before:
                break
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = list(folder.glob("*.incomplete"))
        cut_off += bool(left)
        path = last_checkpoint(cfg.OUTPUT_DIR)
        iteration = torch.load(path, weights_only=True)["iteration"]
        assert iteration > reached, "the run went on where it was"
        reached = iteration
        load_strictly(student, path, key="MODEL.WEIGHTS")
        for old in [*folder.glob("model_*.pth"), *left]:
            if str(old) != path:
                old.unlink()
    assert cut_off > 0, "some saves were cut off in the middle"
    _succeed(call(cfg, "--resume", "SOLVER.MAX_ITER", str(reached + 3)))
    _succeed(call_tool("export_student.py", cfg.OUTPUT_DIR, str(tmp_path / "exported")))
    load_strictly(student, str(tmp_path / "exported" / "student.pth"), key="MODEL.WEIGHTS")
