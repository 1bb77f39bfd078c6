import torch

from eakd_det.benchmark.losses import losses_to_time
from eakd_det.benchmark.measure import count_operations


def test_every_timed_loss_runs():
    timed = losses_to_time(torch.device("cpu"))
    assert set(timed) == {"dkd", "ea_dkd", "mld", "mld_one_by_one"}
    operations = {name: count_operations(step) for name, step in timed.items()}
    assert 0 < operations["dkd"] < operations["ea_dkd"]
    assert operations["mld"] < operations["mld_one_by_one"]
