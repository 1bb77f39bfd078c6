"""eakd_det.data.datasets.fashion_mnist."""

import gzip

import pytest
import torch

from eakd_det.data.datasets import fashion_mnist
from eakd_det.data.datasets.fashion_mnist import read_fashion_mnist

from .idx import FILES, write_fashion_mnist


@pytest.fixture
def no_package(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION_MNIST", str(tmp_path / "package"))


def test_files_of_torchvision(no_package, tmp_path):
    train, test = write_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    for is_train, (pixels, labels) in [(True, train), (False, test)]:
        images, targets = read_fashion_mnist(str(tmp_path), is_train)
        assert torch.equal(images, torch.from_numpy(pixels))
        assert targets.tolist() == labels.tolist()


def test_files_of_debian_s_package_are_unpacked_once(no_package, tmp_path):
    packed = tmp_path / "package"
    (pixels, _), _ = write_fashion_mnist(packed)
    for name in FILES:
        (packed / f"{name}.gz").write_bytes(gzip.compress((packed / name).read_bytes()))
        (packed / name).unlink()
    for _ in range(2):
        images, _ = read_fashion_mnist(str(tmp_path), True)
        assert torch.equal(images, torch.from_numpy(pixels))
        for path in packed.iterdir():
            path.unlink()  # not needed the second time
    assert [path.name for path in (tmp_path / "FashionMNIST").iterdir()] == ["raw"]


def test_none_at_all(no_package, tmp_path):
    with pytest.raises(RuntimeError, match="Dataset not found"):
        read_fashion_mnist(str(tmp_path), True)
