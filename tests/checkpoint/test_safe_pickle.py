import argparse
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from eakd_det.checkpoint.safe_pickle import load_pickle, load_pth
from eakd_det.utils.errors import UserError

ARRAYS = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float16": np.full(5, 0.1, np.float16),
    "int64 scalar": np.array(7),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
    "big-endian": np.arange(3, dtype=">f4"),
    "column-major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "permuted": np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
}

# What Python 2 writes for {"conv1_w": np.array([1, 2], np.float32)}: bytes are short strings.
PYTHON_2 = (
    b"\x80\x02}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
    b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbs."
)
# The same with the flags 63 in the dtype: NumPy would take the numbers for addresses of objects.
FORGED = PYTHON_2.replace(b"\xffK\x00tb", b"\xffK\x3ftb")


class Harmless:
    """Class of this module, whose objects are refused."""


class Attack:
    """Unpickled, it makes the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pkl"


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_those_that_pickle_reads(path, protocol):
    content = {"model": OrderedDict(ARRAYS), "step": np.float32(3), "names": [("a", None, 1.5)]}
    path.write_bytes(pickle.dumps(content, protocol))
    found, expected = load_pickle(str(path)), pickle.loads(path.read_bytes())
    assert found["step"] == 3
    assert found["names"] == content["names"]
    assert list(found["model"]) == list(ARRAYS)
    for name, array in expected["model"].items():
        assert found["model"][name].dtype == array.dtype, name
        assert np.array_equal(found["model"][name], array), name
        if array.dtype.isnative:
            assert torch.equal(torch.from_numpy(found["model"][name]), torch.from_numpy(array))


def test_python_2(path):
    path.write_bytes(PYTHON_2)
    assert load_pickle(str(path))["conv1_w"].tolist() == [1, 2]
    assert pickle.loads(PYTHON_2, encoding="latin1")["conv1_w"].tolist() == [1, 2]


def test_forged_dtype_stays_a_number(path):
    path.write_bytes(FORGED)
    assert FORGED != PYTHON_2
    assert not load_pickle(str(path))["conv1_w"].dtype.hasobject


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("place", ["bare", "object array", "after arrays"])
def test_pickle_runs_no_code(path, tmp_path, protocol, place):
    mark = tmp_path / "mark"
    attack = Attack(mark)
    wrap = {
        "bare": lambda: attack,
        "object array": lambda: {"model": {"a": np.array([attack], dtype=object)}},
        "after arrays": lambda: {"model": ARRAYS, "cfg": attack},
    }
    path.write_bytes(pickle.dumps(wrap[place](), protocol))
    with pytest.raises(UserError, match=r"file\.pkl holds .*could run code"):
        load_pickle(str(path))
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "this attack does not work at all"


@pytest.mark.parametrize("zipped", [True, False])
def test_pth_runs_no_code(tmp_path, zipped):
    mark, path = tmp_path / "mark", tmp_path / "file.pth"
    content = {"model": {"a": torch.zeros(1)}, "cfg": Attack(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"file\.pth holds \w+\.system: .*could run code"):
        load_pth(str(path))
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "this attack does not work at all"


def test_an_argparse_namespace_is_loaded(tmp_path):
    path = tmp_path / "ckpt_epoch_240.pth"
    options = argparse.Namespace(model="resnet32x4", lr_decay_epochs=[150, 180, 210])
    torch.save({"model": {"a": torch.ones(1)}, "opt": options, "best_acc": 79.4}, path)
    content = load_pth(str(path))
    assert content["opt"] == options and content["model"]["a"] == 1


@pytest.fixture
def admitted():
    """Sets what torch.load admits in this process; afterwards it is as before."""
    before = list(torch.serialization.get_safe_globals())

    def admit(classes):
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(classes)

    yield admit
    admit(before)


@pytest.mark.parametrize("own", [[], [Harmless], [Harmless, argparse.Namespace]])
@pytest.mark.parametrize("is_broken", [False, True])
def test_the_process_s_safe_globals_are_restored(tmp_path, admitted, own, is_broken):
    admitted(own)
    path = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"model": {}, "opt": argparse.Namespace(model="resnet32x4")}, path)
    if is_broken:
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UserError):
            load_pth(str(path))
    else:
        load_pth(str(path))
    assert set(torch.serialization.get_safe_globals()) == set(own)


def test_the_import_admits_nothing():
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("load", [load_pickle, load_pth])
def test_objects_are_named(tmp_path, load):
    path = tmp_path / "file"
    content = {"model": {}, "cfg": Harmless()}
    path.write_bytes(pickle.dumps(content, 2)) if load is load_pickle else torch.save(content, path)
    with pytest.raises(UserError, match=r"holds \S*test_safe_pickle\.Harmless"):
        load(str(path))


@pytest.mark.parametrize("kind", [object, "datetime64[s]", "f4,f4", "U3"])
def test_arrays_of_other_than_numbers_are_refused(path, kind):
    path.write_bytes(pickle.dumps({"a": np.zeros(2, kind)}))
    with pytest.raises(UserError, match=r"holds numpy\.dtype\('"):
        load_pickle(str(path))


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(path, name):
    path.write_bytes(f"c__builtin__\n{name}\n.".encode())
    with pytest.raises(UserError, match=f"holds __builtin__.{name}"):
        load_pickle(str(path))


@pytest.mark.parametrize("name", ["multiarray.fromfile", "numeric.load", "_dtype._kind_name"])
def test_other_functions_of_numpy_are_refused(path, name):
    module, function = name.split(".")
    path.write_bytes(f"cnumpy.core.{module}\n{function}\n.".encode())
    with pytest.raises(UserError, match=f"holds numpy.core.{name}"):
        load_pickle(str(path))


def _broken(whole):
    cuts = [whole[: len(whole) * part // 7] for part in range(1, 7)]
    return [b"", b"\x80\x02", b"version https://git-lfs", b"<html>Not Found</html>", *cuts]


@pytest.mark.parametrize("load", [load_pickle, load_pth])
def test_broken_files(tmp_path, load):
    path = tmp_path / "whole"
    if load is load_pickle:
        path.write_bytes(pickle.dumps({"model": ARRAYS}, 2))
    else:
        torch.save({"model": {"a": torch.arange(1000.0)}}, path)
    load(str(path))
    for number, content in enumerate(_broken(path.read_bytes())):
        cut = tmp_path / f"broken{number}"
        cut.write_bytes(content)
        with pytest.raises(UserError, match=f"broken{number} is not a checkpoint of .* truncated"):
            load(str(cut))


@pytest.mark.parametrize("content", [[1, 2], 3, torch.zeros(2)])
def test_other_than_a_dict(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"file\.pth is not a checkpoint"):
        load_pth(str(tmp_path / "file.pth"))
