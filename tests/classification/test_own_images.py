"""The user's own image files: listing, checks and augmentation."""

import json

import pytest
import torch
from PIL import Image

from classification.data import read_images
from classification.sources import source_of
from eakd_det.utils.errors import UserError

from .batches import batch_of, data_of

SIZES = ((40, 31), (35, 64), (33, 33))


def write(path, value=0, size=(40, 31)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


@pytest.fixture
def shapes(tmp_path):
    """A folder of two classes with three images of odd sizes in train and in val."""
    for split in ("train", "val"):
        for label, name in enumerate(("disc", "frame")):
            for i, size in enumerate(SIZES):
                write(tmp_path / "shapes" / split / name / f"{i}.jpg", 200 * label, size)
    return tmp_path / "shapes"


def folder(root, **keys):
    return data_of("folder", str(root), **keys)


def csv_of(root, train, val="a.jpg,x\nb.jpg,y\n"):
    (root / "train.csv").write_text(train)
    (root / "val.csv").write_text(val)
    return data_of("csv", str(root))


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("crop", ["resized", "padded"])
def test_images_of_odd_sizes_become_square(shapes, crop, is_train):
    data = folder(shapes, IMAGE_SIZE=24, CROP=crop, INTERPOLATION="bicubic", RANDAUGMENT=9)
    images = read_images(data, is_train=is_train, num_views=1 + is_train)
    assert images.source.names == ("disc", "frame") and images.source.num_classes == 2
    batch = batch_of(images, range(6), 3)
    assert batch["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    assert [view.shape for view in batch["views"]] == [(6, 3, 24, 24)] * (1 + is_train)
    assert all(map(torch.equal, batch["views"], batch_of(images, range(6), 3)["views"]))
    alone = batch_of(images, [4], 3)
    assert torch.equal(alone["views"][0][0], batch["views"][0][4])


def test_each_key_changes_the_images(tmp_path):
    for name in ("train/a/0.png", "val/a/0.png", "train/b/0.png", "val/b/0.png"):
        write(tmp_path / name)
        Image.effect_noise((60, 50), 80).convert("RGB").save(tmp_path / name)

    def views(is_train, **keys):
        images = read_images(folder(tmp_path, IMAGE_SIZE=16, **keys), is_train=is_train)
        return torch.cat([batch_of(images, [0, 1], seed)["views"][0] for seed in range(4)])

    for is_train in (True, False):
        plain = views(is_train)
        for keys in ({"INTERPOLATION": "bicubic"}, {"CROP": "padded"}, {"MEAN": (0.1, 0.2, 0.3)}):
            assert not torch.equal(views(is_train, **keys), plain)
    for keys in ({"FLIP": False}, {"RANDAUGMENT": 20}):
        assert not torch.equal(views(True, **keys), views(True))
        assert torch.equal(views(False, **keys), views(False))


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("folder", {"CROP": "random"}, "DATASET.CROP 'random' must be one of resized, padded"),
        ("folder", {"MEAN": (0.5,)}, r"DATASET.MEAN \(0.5,\) must be three numbers"),
        ("folder", {"STD": (0.5, 0.5, 0.0)}, "DATASET.STD .* must be three above 0"),
        ("folder", {"INTERPOLATION": "cubic"}, "must be one of bilinear"),
        ("folder", {"RANDAUGMENT": 31}, "DATASET.RANDAUGMENT 31 must be from 0 to 30"),
        ("digits", {"IMAGE_SIZE": 32}, "DATASET.IMAGE_SIZE: the images of digits are used as they"),
    ],
)
def test_wrong_keys_are_named(shapes, name, keys, message):
    with pytest.raises(UserError, match=message):
        source_of(data_of(name, str(shapes), **keys))


def test_other_files_are_named_and_left_out(shapes, caplog):
    (shapes / "train" / "disc" / "photo.heic").write_bytes(b"x")
    (shapes / "train" / "disc" / ".DS_Store").write_bytes(b"x")
    assert len(read_images(folder(shapes), is_train=True)) == 6
    assert "photo.heic" in caplog.text and "DS_Store" not in caplog.text


def test_class_folders_without_images_are_named(shapes):
    for split in ("train", "val"):
        (shapes / split / "star").mkdir()
    with pytest.raises(UserError, match=r"without images .*: 1\n  .*train/star\nRemove"):
        read_images(folder(shapes), is_train=True)


def test_different_classes_are_named(shapes):
    write(shapes / "val" / "star" / "0.jpg")
    (shapes / "train" / "moon").mkdir()
    with pytest.raises(UserError, match=r"only in .*train: moon\n  only in .*val: star$"):
        read_images(folder(shapes), is_train=True)


def test_broken_images_are_listed_before_the_first_step(shapes):
    (shapes / "train" / "disc" / "0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 6 images cannot be used:\n  .*train/disc/0.jpg"):
        read_images(folder(shapes), is_train=True)


def test_another_layout_is_described(tmp_path):
    write(tmp_path / "train" / "a" / "0.jpg")
    write(tmp_path / "valid" / "a" / "0.jpg")
    with pytest.raises(UserError, match=r"must hold train/<class>/ and .*; it holds train, valid"):
        source_of(folder(tmp_path))
    with pytest.raises(UserError, match="there is no such folder"):
        source_of(folder(tmp_path / "nothing"))
    with pytest.raises(UserError, match="DATASET.ROOT is empty"):
        source_of(folder(""))


def test_one_class_is_refused(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split / "a" / "0.jpg")
    with pytest.raises(UserError, match="there is one class, 'a'"):
        source_of(folder(tmp_path))


def test_csv_files(tmp_path):
    for name in "abc":
        write(tmp_path / "x" / f"{name}.png", size=(30, 20))
    train = f'\ufeffpath,label\nx/a.png, zebra\n\n"{tmp_path}/x/b.png",ape\n'
    data = csv_of(tmp_path, train, "x/c.png,ape\nx/a.png,zebra\n")
    images = read_images(data, is_train=True)
    assert images.source.names == ("ape", "zebra") and images.labels.tolist() == [1, 0]
    assert read_images(data, is_train=False).labels.tolist() == [0, 1]
    named = data_of("csv", str(tmp_path), TRAIN_CSV=str(tmp_path / "val.csv"))
    assert read_images(named, is_train=True).labels.tolist() == [0, 1]


def test_numbers_as_labels_are_in_the_order_of_the_numbers(tmp_path):
    lines = "".join(f"a.png,{i}\n" for i in (10, 2, 0))
    assert source_of(csv_of(tmp_path, lines, lines)).names == ("0", "2", "10")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("a.jpg;x\n", r"train.csv must have lines of path,label, .*\n  line 1: a.jpg;x"),
        ("a.jpg,x\nb.jpg,\n", "line 2: b.jpg,$"),
        ("", "it is empty"),
        ("a.jpg,x\nb.jpg,z\n", r"only in .*train.csv: z\n  only in .*val.csv: y"),
        ("a.jpg,x\nb.jpg,y\n", r"2 of 2 images cannot be used:\n  no file .*a.jpg"),
    ],
)
def test_wrong_csv_files_are_described(tmp_path, train, message):
    with pytest.raises(UserError, match=message):
        read_images(csv_of(tmp_path, train), is_train=True)


def test_a_missing_csv_file(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*train.csv'; DATASET.ROOT/train.csv"):
        source_of(data_of("csv", str(tmp_path)))


def test_sets_of_torchvision(tmp_path):
    root = tmp_path / "food-101"
    listing = {name: [f"{name}/1"] for name in ("pie", "soup")}
    for split in ("train", "test"):
        (root / "meta").mkdir(parents=True, exist_ok=True)
        (root / "meta" / f"{split}.json").write_text(json.dumps(listing))
    for name in listing:
        write(root / "images" / name / "1.jpg")
    images = read_images(data_of("torchvision:Food101", str(tmp_path)), is_train=False)
    assert images.source.names == ("pie", "soup") and images.labels.tolist() == [0, 1]
    assert batch_of(images, [0, 1], 0)["views"][0].shape == (2, 3, 224, 224)


@pytest.mark.parametrize("name", ["DTD", "FGVCAircraft", "Flowers102", "Food101", "OxfordIIITPet"])
def test_missing_sets_of_torchvision_are_reported_with_the_command(tmp_path, name):
    with pytest.raises(UserError) as info:
        source_of(data_of(f"torchvision:{name}", str(tmp_path)))
    command = f"from torchvision.datasets import {name}; {name}('{tmp_path}', download=True)"
    assert f'To get it: python -c "{command}"' in str(info.value)


def test_unknown_sets_of_torchvision_name_the_known_ones():
    with pytest.raises(UserError, match=r"choose from torchvision:DTD, .* folder or csv"):
        source_of(data_of("torchvision:Flower102"))
