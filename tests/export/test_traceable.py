"""eakd_det.export.traceable."""

import pytest

from eakd_det.export.traceable import check_exportable
from eakd_det.utils.errors import UserError


@pytest.mark.parametrize(
    "change, reason",
    [
        (("MODEL.META_ARCHITECTURE", "PanopticFPN"), "MODEL.META_ARCHITECTURE is PanopticFPN"),
        (("MODEL.KEYPOINT_ON", True), "MODEL.KEYPOINT_ON is set"),
        (
            ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
            "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals",
        ),
    ],
)
def test_other_models_are_refused(stock_cfg, change, reason):
    stock_cfg.merge_from_list(change)
    with pytest.raises(UserError, match=f"--format: {reason}. Graphs are written of Faster"):
        check_exportable(stock_cfg)
