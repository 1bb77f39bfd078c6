import pytest

from eakd_det.sweep.published import method_name


def node(*methods, ea=False, mode="full", **options):
    nodes = {method: {"WEIGHT": 1.0, **options} for method in methods}
    return {"METHODS": methods, "EA": {"ENABLED": ea, "MODE": mode}, **nodes}


@pytest.mark.parametrize(
    ("distill", "name"),
    [
        (node(), ""),
        (node(ea=True), ""),
        (node("KD"), "KD"),
        (node("DKD", "REVIEWKD", ea=True), "EA-DKD+REVIEWKD"),
        (node("MLD", ea=True, STANDARDIZE=True), "EA-MLD+LS"),
        (node("MLD", STANDARDIZE=False), "MLD"),
        (node("KD", ea=True, mode="matched"), "EA-KD-matched"),
    ],
)
def test_names_of_methods(distill, name):
    assert method_name(distill) == name
