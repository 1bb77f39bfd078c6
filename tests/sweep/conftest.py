import json

import pytest

KD = {1: 75.1, 2: 74.2, 3: 75.9}
EA_KD = {1: 75.6, 2: 74.4, 3: 76.7, 4: 70.0}


def config_of(name, dataset):
    """The part of a run's config.yaml that published figures are looked up by."""
    method, models = name.split("/")
    base = method.removeprefix("EA-")
    networks = models.split("_", 1) if method != "Student" else ["", models]
    return {
        "DATASET": {"NAME": dataset},
        "MODEL": {"NAME": networks[-1]},
        "TEACHER": {"NAME": networks[0]},
        "DISTILL": {
            "METHODS": [] if method == "Student" else [base],
            "EA": {"ENABLED": base != method, "MODE": "full"},
            base: {},
        },
    }


@pytest.fixture
def finished(tmp_path):
    """Writes the runs of a config as a sweep leaves them; the sweep's folder."""

    def write(name, top1, *, dataset="cifar100", teacher=79.5, options=(), **others):
        for seed, value in top1.items():
            folder = tmp_path / name / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            record = {"dataset": dataset, "seed": seed, "options": list(options)}
            record |= {"fingerprint": "a", "arguments": [], **others}
            (folder / "sweep.json").write_text(json.dumps(record))
            result = {"top1": value, "top5": 95.0, "best_top1": value, "teacher_top1": teacher}
            result |= {"seconds": 60.0, "epochs": 240}
            (folder / "result.json").write_text(json.dumps(result))
            (folder / "config.yaml").write_text(json.dumps(config_of(name, dataset)))
        return str(tmp_path)

    return write


@pytest.fixture
def both(finished):
    finished("EA-KD/resnet32x4_resnet8x4", EA_KD)
    return finished("KD/resnet32x4_resnet8x4", KD)
