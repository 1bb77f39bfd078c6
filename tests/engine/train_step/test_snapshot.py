import pytest
import torch

from eakd_det.engine.train_step.snapshot import Snapshot
from tests.reads import reads


@pytest.mark.parametrize("is_wanted", [False, True])
def test_values_come_back(is_wanted):
    tensors = {
        "scalar": torch.tensor(1.5),
        "maps": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(2**40),
        "half": torch.rand(3).half(),
        "nothing": torch.zeros(0),
    }
    before = {name: x.clone() for name, x in tensors.items()}
    snapshot = Snapshot(tensors)
    for x in tensors.values():
        x.add_(1)
    tensors["maps"].fill_(torch.nan)
    tensors["half"] = tensors["half"].clone()  # an optimizer may make another tensor
    tensors["new"] = torch.ones(2)
    after = {name: x.clone() for name, x in tensors.items()}
    with reads() as names:
        snapshot.restore(tensors, torch.tensor(is_wanted))
    expected = {**before, "new": torch.zeros(2)} if is_wanted else after
    torch.testing.assert_close(tensors, expected, rtol=0, atol=0, equal_nan=True)
    assert not names
