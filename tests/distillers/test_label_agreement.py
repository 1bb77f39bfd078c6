import logging

import pytest
import torch

from eakd_det.distillers.label_agreement import ENOUGH, LabelAgreement
from tests.reads import reads


@pytest.mark.parametrize(
    ("share", "level"), [(0.9, logging.INFO), (0.5, logging.INFO), (0.06, logging.WARNING)]
)
def test_the_share_is_logged_once(caplog, share, level):
    agreement = LabelAgreement("objects", "Is it another order?")
    labels = torch.arange(100) % 4
    logits = torch.eye(4)[(labels + (torch.arange(100) >= 100 * share)) % 4]
    others = torch.tensor([4, -1])  # background, and what is ignored
    with caplog.at_level(logging.INFO):
        with reads() as names:
            for part in (slice(50), slice(50, None)):
                more = torch.cat([logits[part], torch.zeros(2, 4)])
                agreement.count(more, torch.cat([labels[part], others]))
        assert not names
        agreement.report()
    [record] = caplog.records
    text = f"classifies {100 * share:.0f} % of 100 training objects as their label"
    assert text in record.message and record.levelno == level
    assert ("another order" in record.message) == (level == logging.WARNING)
    assert not agreement.is_open


def test_few_samples_and_one_class_log_nothing(caplog):
    agreement = LabelAgreement("objects", "")
    agreement.count(torch.zeros(ENOUGH - 1, 2), torch.ones(ENOUGH - 1, dtype=torch.long))
    agreement.report()
    assert agreement.is_open and not caplog.records
    one_class = LabelAgreement("objects", "")
    one_class.count(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    assert not one_class.is_open
