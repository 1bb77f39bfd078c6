"""Flags of tools/train_classifier.py, and runs on own images with them."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from classification import analyses
from classification.config import load_config
from classification.flags import apply_flags
from classification.models import build_classifier
from classification.run import main
from classification.runs import Classifiers
from classification.sources import source_of
from classification.teacher import build_model
from classification.teacher_run import teacher_config
from eakd_det.analysis.runs import find_runs
from eakd_det.report.page import write_report
from eakd_det.sweep.grid import plan
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = "configs/Folder/EA-KD.yaml"
OPTIONS = ("DATASET.ROOT", "shapes", "DATASET.IMAGE_SIZE", "32", "DATASET.NUM_WORKERS", "0")
NAMES = ("disc", "frame", "stripes")


def draw(name, size, i):
    image = Image.new("RGB", size, (90, 20 * i, 60))
    pen, box = ImageDraw.Draw(image), (5, 5, size[0] - 6, size[1] - 6)
    if name == "disc":
        pen.ellipse(box, fill="white")
    elif name == "frame":
        pen.rectangle(box, outline="white", width=4)
    else:
        for y in range(5, size[1] - 6, 6):
            pen.line((5, y, size[0] - 6, y), fill="white", width=3)
    return image


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A folder of 3 classes with 20 JPEGs of odd sizes each, in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for split, number in (("train", 14), ("val", 6)):
        for name in NAMES:
            folder = tmp_path / "shapes" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                draw(name, (31 + 7 * i % 23, 33 + 5 * i % 17), i).save(folder / f"{i}.jpg")
    return tmp_path


def arguments(*opts, config=CONFIG, **flags):
    """The command line, with the keys that its flags stand for."""
    given = {"teacher": None, "student": None, "epochs": None, "pretrained": False, **flags}
    common = dict.fromkeys(("eval_only", "resume", "overwrite", "teacher_only"), False)
    args = Namespace(config_file=config, opts=[*opts], wandb=None, **common, **given)
    apply_flags(args)
    return args


def config_of(*opts, **flags):
    args = arguments(*opts, **flags)
    return load_config(args.config_file, args.opts)


def test_teacher_and_student_train_and_are_reported_by_name(shapes, capsys):
    main(arguments(*OPTIONS, teacher="resnet14", student="resnet8", epochs=2))
    out = capsys.readouterr().out
    run, teacher = Path("output/shapes/EA-KD/resnet14_resnet8"), Path("output/shapes/Teacher")
    assert (
        f"The run: resnet8 from scratch; 2 epochs, learning rate times 0.1 after 1; in {run}" in out
    )
    assert "The teacher, trained first: resnet14 from scratch; 2 epochs" in out
    result = json.loads((run / "result.json").read_text())
    assert tuple(result["per_class"]) == NAMES
    assert sum(result["per_class"].values()) / 3 == pytest.approx(result["top1"])
    for folder in (run, teacher / "resnet14"):
        saved = torch.load(folder / "model_final.pth", weights_only=True)
        assert tuple(saved["class_names"]) == NAMES
    found = analyses.confusions_of(analyses.load_networks(find_runs([str(run)])))
    assert {row[0] for row in found.rows} == set(NAMES) and len(found.headers) == 6
    found.write(str(run / "analysis"))
    page = Path(write_report([str(run)], (Classifiers(),))).read_text()
    assert "Classifiers on shapes" in page and "resnet14 → resnet8" in page
    assert "Top-1 of each class" in page and '<th scope="row">stripes</th>' in page
    # The teacher by its folder, with its size of images; another student.
    args = arguments(
        "DATASET.ROOT", "shapes", teacher=str(teacher / "resnet14"), student="resnet14", epochs=1
    )
    main(args)
    again = json.loads(Path("output/shapes/EA-KD/resnet14_resnet14/result.json").read_text())
    assert again["teacher_top1"] == result["teacher_top1"]


def test_a_run_with_classes_in_another_order_is_not_resumed(shapes):
    main(arguments(*OPTIONS, config="configs/Folder/Student.yaml", student="resnet8", epochs=1))
    for split in ("train", "val"):
        (shapes / "shapes" / split / "disc").rename(shapes / "shapes" / split / "zero")
    args = arguments(*OPTIONS, config="configs/Folder/Student.yaml", student="resnet8", epochs=2)
    args.resume = True
    with pytest.raises(UserError, match="classes are disc, frame, stripes, and those of the data"):
        main(args)


def test_epochs_scale_the_schedule_of_both(shapes):
    cfg = config_of(*OPTIONS, epochs=9)
    assert (cfg.SOLVER.EPOCHS, cfg.SOLVER.STEPS) == (9, (6, 8))
    own = teacher_config(cfg)
    assert (own.SOLVER.EPOCHS, own.SOLVER.STEPS) == (9, (6, 8))
    assert config_of(*OPTIONS, epochs=1).SOLVER.STEPS == ()
    assert config_of(*OPTIONS, "SOLVER.STEPS", "(3,)", epochs=9).SOLVER.STEPS == (3,)


def test_a_teacher_has_the_mixed_precision_of_its_student(shapes):
    assert not teacher_config(config_of(*OPTIONS)).SOLVER.AMP.ENABLED
    mixed = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"]
    own = teacher_config(config_of(*OPTIONS, *mixed))
    assert (own.SOLVER.AMP.ENABLED, own.SOLVER.AMP.DTYPE) == (True, "bfloat16")


def test_a_teacher_by_name_takes_the_place_of_the_configs(shapes):
    cfg = config_of(*OPTIONS, "DATASET.FLIP", "False", teacher="timm:resnet10t", pretrained=True)
    own = teacher_config(cfg)
    assert (own.MODEL.NAME, own.MODEL.WEIGHTS) == ("timm:resnet10t", "pretrained")
    assert own.OUTPUT_DIR == "output/shapes/Teacher/resnet10t"
    assert (own.DATASET.IMAGE_SIZE, own.DATASET.FLIP) == (32, False)
    assert cfg.MODEL.WEIGHTS == "pretrained"  # of the config's student, of torchvision
    digits = config_of(config="configs/Digits/KD.yaml", teacher="resnet14")
    assert teacher_config(digits).OUTPUT_DIR == "output/Digits/resnet14"
    assert digits.OUTPUT_DIR == "output/Digits/KD"


def test_csv_of_a_folder_config(shapes):
    cfg = config_of("DATASET.NAME", "csv", "DATASET.ROOT", "'2024'")
    assert teacher_config(cfg).DATASET.NAME == "csv"
    assert teacher_config(cfg).OUTPUT_DIR == "output/2024/Teacher/resnet50"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"teacher": "runs/x"}, "--teacher: 'runs/x' is neither the folder of a run nor a model"),
        ({"student": "resnt8"}, "--student: 'resnt8' is neither"),
        ({"teacher": "shapes"}, "shapes holds no config.yaml"),
        ({"teacher": "resnet8", "config": "configs/Folder/Student.yaml"}, "no DISTILL.METHODS"),
        (
            {"student": "resnet8", "teacher": "resnet8", "pretrained": True},
            "--pretrained: no model",
        ),
    ],
)
def test_mistakes(shapes, flags, message):
    with pytest.raises(UserError, match=message):
        arguments(*OPTIONS, **flags)


def test_a_teacher_that_was_normalised_otherwise_is_refused(shapes):
    main(arguments(*OPTIONS, config="configs/Folder/Teacher.yaml", student="resnet8", epochs=1))
    teacher = "output/shapes/Teacher/resnet8"
    half = ("DATASET.MEAN", "(0.5, 0.5, 0.5)")
    with pytest.raises(UserError, match=r"trained with DATASET.MEAN \(0.485.* student has \(0.5"):
        main(arguments(*OPTIONS, *half, teacher=teacher, student="resnet8", epochs=1))


def test_published_weights_start_a_model_of_other_classes(shapes, monkeypatch):
    """A file in torch's cache, as a download leaves it."""
    folder = shapes / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    published = build_classifier("torchvision:resnet18", 1000)
    torch.save(published.state_dict(), folder / "resnet18-f37072fd.pth")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(shapes / "hub"))
    source = source_of(config_of(*OPTIONS).DATASET)
    model = build_model("torchvision:resnet18", "pretrained", source, key="MODEL")
    assert model.fc.out_features == 3
    assert torch.equal(model.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    with pytest.raises(UserError, match="have 1000 classes, but the data have 3"):
        build_model("torchvision:resnet18", "pretrained", source, key="TEACHER")

    def no_network(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match=r"resnet34: its published weights are not .*Name or serv"):
        build_model("torchvision:resnet34", "pretrained", source, key="MODEL")


@pytest.mark.slow
def test_a_sweep_over_own_images(shapes, call_tool):
    options = ["MODEL.NAME", "resnet8", "SOLVER.EPOCHS", "1", "SOLVER.STEPS", "()"]
    options += ["TEACHER.NAME", "resnet14", "TEACHER.EPOCHS", "1"]
    configs = ("configs/Folder/KD.yaml", CONFIG)
    code, out, err = call_tool(
        "sweep.py", "--configs", *configs, "--seeds", "1", *OPTIONS, *options
    )
    assert code == 0, out + err
    assert "## shapes" in out and "resnet14_resnet8" in out
    results = Path("output/sweep/Folder").glob("*/seed1/result.json")
    assert [tuple(json.loads(path.read_text())["per_class"]) for path in results] == [NAMES] * 2
    page = write_report(["output/sweep"], (Classifiers(),))
    assert "Classifiers on shapes" in Path(page).read_text()


def test_a_sweep_knows_the_data_by_their_name(shapes):
    def fingerprint(root):
        options = [*OPTIONS, "DATASET.ROOT", root]
        return plan(Classifiers(), [CONFIG], [1], "out", options)[0].record["fingerprint"]

    assert fingerprint("a/shapes") == fingerprint("b/shapes") != fingerprint("b/parts")
