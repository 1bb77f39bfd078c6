import pytest

from llm.config import language_config
from llm.sweep import row_names


def config(*methods, is_ea=False):
    cfg = language_config()
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, is_ea
    return cfg


@pytest.mark.parametrize(
    ("configs", "names"),
    [
        ({"tiny/Teacher.yaml": config(), "tiny/KD.yaml": config("KD")}, ["Teacher", "KD"]),
        ({"a.yaml": config("KD"), "b.yaml": config("KD", is_ea=True)}, ["KD", "EA-KD"]),
        (
            {"KD-T2.yaml": config("KD"), "EA-KD-T2.yaml": config("KD", is_ea=True)},
            ["KD-T2", "EA-KD-T2"],
        ),
        ({"x/KD.yaml": config("KD"), "y/KD.yaml": config("KD")}, ["KD (x)", "KD (y)"]),
        ({"x/a.yaml": config("KD"), "x/b.yaml": config("KD")}, ["KD (x/a)", "KD (x/b)"]),
        ({"x/Teacher.yaml": config(), "y/Teacher.yaml": config()}, ["Teacher (x)", "Teacher (y)"]),
    ],
)
def test_rows_are_called_after_what_the_configs_say(configs, names):
    assert list(row_names(configs).values()) == names
    assert list(row_names(configs)) == list(configs)
