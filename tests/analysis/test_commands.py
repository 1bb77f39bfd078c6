from classification.runs import Classifiers
from eakd_det.analysis.commands import CLASSIFIERS, DETECTORS
from eakd_det.sweep.detectors import Detectors


def test_each_command_has_its_function():
    assert Classifiers.analyses.keys() == CLASSIFIERS.keys()
    assert Detectors.analyses.keys() == DETECTORS.keys()
