import os
import pickle

import numpy as np
import pytest
from PIL import Image

from classification.data import read_images
from classification.loader import build_test_loader
from classification.sources import DATASETS
from eakd_det.data.datasets.fashion_mnist import DEBIAN_FASHION_MNIST
from eakd_det.utils.errors import UserError

from .batches import batch_of, data_of


def write_image(path, value, size=(80, 70)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), value, np.uint8)
    pixels[: size[0] // 2] //= 2
    Image.fromarray(pixels).save(path)


def write_half(path):
    """Write a truncated JPEG with a valid header."""
    Image.effect_noise((80, 70), 60).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


@pytest.fixture
def imagenet(tmp_path):
    for split in ("train", "val"):
        for label in range(2):
            for i in range(3):
                write_image(tmp_path / "imagenet" / split / f"n{label}" / f"{i}.jpg", 60 * i)
    return tmp_path


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"digits", "fashion_mnist", "glyphs100"}))
def test_missing_files_are_reported_with_the_command(name, tmp_path):
    with pytest.raises(UserError) as info:
        read_images(data_of(name, str(tmp_path)), is_train=True)
    text = str(info.value)
    assert "\n" not in text and f"{name} is not in {tmp_path} (DATASET.ROOT; " in text
    command = DATASETS[name].fetch.format(root=tmp_path)
    assert command in text and str(tmp_path) in command


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(UserError, match="'cifar' is unknown; choose from cifar10, cifar100"):
        read_images(data_of("cifar"), is_train=True)


@pytest.mark.parametrize("is_train", [True, False])
def test_imagenet_folders(imagenet, is_train):
    images = read_images(
        data_of("imagenet", str(imagenet)), is_train=is_train, num_views=1 + is_train
    )
    batch = batch_of(images, [0, 4], 7)
    assert batch["labels"].tolist() == [0, 1]
    assert [view.shape for view in batch["views"]] == [(2, 3, 224, 224)] * (1 + is_train)
    again = batch_of(images, [0, 4], 7)
    assert all((a == b).all() for a, b in zip(batch["views"], again["views"], strict=True))


def test_tiny_imagenet_reads_its_list_of_validation_classes(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        write_image(root / "train" / name / "images" / "a.JPEG", 9, (64, 64))
    for i in range(2):
        write_image(root / "val" / "images" / f"val_{i}.JPEG", 9, (64, 64))
    (root / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n"
    )
    images = read_images(data_of("tiny_imagenet", str(tmp_path)), is_train=False)
    assert images.labels.tolist() == [1, 0]
    assert batch_of(images, [0, 1], 0)["views"][0].shape == (2, 3, 64, 64)


@pytest.mark.skipif(not os.path.isdir(DEBIAN_FASHION_MNIST), reason="package not installed")
def test_fashion_mnist_of_debian_is_unpacked_once(tmp_path):
    images = read_images(data_of("fashion_mnist", str(tmp_path)), is_train=True)
    assert len(images) == 60000 and images.labels.bincount().tolist() == [6000] * 10
    assert len(read_images(data_of("fashion_mnist", str(tmp_path)), is_train=False)) == 10000
    assert os.listdir(tmp_path / "FashionMNIST") == ["raw"]


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_sources_can_be_pickled(name):
    """Workers that are not forked receive a pickled set."""
    source = pickle.loads(pickle.dumps(DATASETS[name]))
    assert source.num_classes == DATASETS[name].num_classes


def test_tiny_imagenet_is_cropped_in_training_only(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01", "n02"):
        write_image(root / "train" / name / "images" / "a.png", 90, (64, 64))
    write_image(root / "val" / "images" / "val_0.png", 90, (64, 64))
    (root / "val" / "val_annotations.txt").write_text("val_0.png\tn02\t0\t0\t9\t9\n")
    source = DATASETS["tiny_imagenet"]

    def pixels(images):
        (view,) = batch_of(images, [0], 0)["views"]
        mean, std = (np.array(x)[:, None, None] * 255 for x in (source.mean, source.std))
        return (view[0].numpy() * std + mean).round()

    seen = pixels(read_images(data_of("tiny_imagenet", str(tmp_path)), is_train=False))
    assert (seen[:, 32:] == 90).all() and (seen[:, :32] == 45).all()
    cropped = pixels(read_images(data_of("tiny_imagenet", str(tmp_path)), is_train=True))
    assert set(np.unique(cropped)) <= {0, 45, 90} and (cropped != seen).any()


def test_unreadable_images_are_listed_before_the_first_step(imagenet):
    folder = imagenet / "imagenet" / "train" / "n1"
    write_half(folder / "0.jpg")
    (folder / "1.jpg").write_bytes(b"")
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(folder / "3.png")
    with pytest.raises(UserError) as info:
        read_images(data_of("imagenet", str(imagenet)), is_train=True)
    first, *faults = str(info.value).splitlines()
    assert first == "3 of 7 images cannot be used:"
    assert faults[0].startswith(f"  {folder}/0.jpg cannot be read: image file is truncated")
    assert faults[1].startswith(f"  {folder}/1.jpg cannot be read: cannot identify")
    assert faults[2].startswith(f"  {folder}/3.png has values from 999 to 999 (mode I;16)")
    assert len(read_images(data_of("imagenet", str(imagenet)), is_train=False)) == 6


def test_tiny_imagenet_refuses_images_of_another_size(tmp_path):
    root = tmp_path / "tiny-imagenet-200" / "train"
    write_image(root / "n01" / "a.png", 9, (64, 64))
    write_image(root / "n01" / "b.png", 9, (64, 60))
    with pytest.raises(UserError, match="b.png has 60 x 64 pixels, not 64 x 64"):
        read_images(data_of("tiny_imagenet", str(tmp_path)), is_train=True)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_becomes_unreadable_during_training(imagenet, num_workers):
    images = read_images(data_of("imagenet", str(imagenet)), is_train=False)
    path = imagenet / "imagenet" / "val" / "n0" / "1.jpg"
    write_half(path)
    loader = build_test_loader(images, 6, num_workers=num_workers)
    with pytest.raises(UserError) as info:
        next(iter(loader))
    assert str(info.value).startswith(f"{path} cannot be read: image file is truncated")
    assert len(str(info.value).splitlines()) == 1


def test_folders_with_different_classes_are_refused(imagenet):
    write_image(imagenet / "imagenet" / "val" / "n7" / "0.jpg", 60)
    with pytest.raises(UserError, match=r"different classes:\n  only in .*val: n7$"):
        read_images(data_of("imagenet", str(imagenet)), is_train=True)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    write_image(tmp_path / "imagenet" / "train" / "n0" / "0.jpg", 60)
    write_image(tmp_path / "imagenet" / "val" / "0.jpg", 60)
    with pytest.raises(UserError, match="Couldn't find any class folder in .*val"):
        read_images(data_of("imagenet", str(tmp_path)), is_train=False)
