import torch

from eakd_det.modeling.padding import crop_to_common, extend


def _maps(*sizes):
    return [torch.arange(2.0 * h * w).view(1, 2, h, w) for h, w in sizes]


def test_equal_sizes_are_the_same_tensors():
    maps = _maps((8, 6), (4, 3)), _maps((8, 6), (4, 3))
    student, teacher, size = crop_to_common(*maps, [(4, 4), (8, 8)], (32, 24))
    assert all(a is b for a, b in zip(student + teacher, maps[0] + maps[1], strict=True))
    assert size == (32, 24)


def test_maps_of_a_larger_padding_are_cropped():
    """The teacher pads further down, the student further to the right."""
    maps = _maps((8, 6), (4, 3)), _maps((16, 4), (8, 2))
    student, teacher, size = crop_to_common(*maps, [(4, 4), (8, 8)], (32, 24))
    assert [x.shape[-2:] for x in student] == [x.shape[-2:] for x in teacher] == [(8, 4), (4, 2)]
    assert torch.equal(student[0], maps[0][0][..., :4])
    assert torch.equal(teacher[1], maps[1][1][..., :4, :])
    assert size == (32, 16)


def test_other_strides_are_cropped_to_the_same_pixels():
    """The teacher, of twice the stride, pads 64 x 32 pixels to 64 x 64."""
    student, teacher, size = crop_to_common(_maps((16, 8)), _maps((8, 8)), [(4, 8)], (64, 32))
    assert student[0].shape[-2:] == (16, 8) and teacher[0].shape[-2:] == (8, 4)
    assert size == (64, 32)
    # 40 rows are covered by both: five cells of the teacher, ten of the student.
    student, teacher, size = crop_to_common(_maps((16, 8)), _maps((5, 4)), [(4, 8)], (64, 32))
    assert student[0].shape[-2:] == (10, 8) and teacher[0].shape[-2:] == (5, 4)
    assert size == (40, 32)


def test_extend():
    [x] = _maps((2, 3))
    assert extend(x, (2, 3)) is x and extend(x, (1, 3)) is x
    larger = extend(x, (4, 2))
    assert larger.shape[-2:] == (4, 3)
    assert torch.equal(larger[..., :2, :], x) and not larger[..., 2:, :].any()
