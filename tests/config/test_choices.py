from eakd_det.config import load_config
from eakd_det.config.choices import Choice, as_options, choices_table
from eakd_det.model_zoo import get_config_file

CHOICES = [
    Choice("SOLVER.BASE_LR", 1e-05, "why so"),
    Choice("SOLVER.STEPS", (20, 40), "other reason"),
    Choice("OUTPUT_DIR", "output/parts-train/x", "of the data"),
]


def test_values_survive_as_pairs():
    cfg = load_config(get_config_file("COCO-Detection/Student-R18.yaml"), as_options(CHOICES))
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS) == (1e-05, (20, 40))
    assert cfg.OUTPUT_DIR == "output/parts-train/x"


def test_the_table_has_the_values_of_the_run():
    options = ["SOLVER.STEPS", "(7,)"]
    file = get_config_file("COCO-Detection/Student-R18.yaml")
    cfg = load_config(file, [*as_options(CHOICES), *options])
    assert choices_table(cfg, CHOICES, options).splitlines()[1:] == [
        "  SOLVER.BASE_LR  1e-05                 why so",
        "  SOLVER.STEPS    (7,)                  set by hand",
        "  OUTPUT_DIR      output/parts-train/x  of the data",
    ]
