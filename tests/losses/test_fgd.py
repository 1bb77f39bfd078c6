import itertools

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import GlobalRelation, fgd_loss
from eakd_det.losses.box_masks import box_fractions, box_masks
from eakd_det.losses.fgd import GlobalContext, channel_attention, fgd_parts, spatial_attention

from .maps import SIZES, MapCase, MapLossContract, each_dtype, make_maps

SETTINGS = {"temperature": 0.7, "alpha": 0.3, "beta": 0.2, "gamma": 0.5, "lambd": 0.1}
BOXES = [[[0, 0, 32, 20], [8, 4, 20, 18]], [], [[3, 3, 5, 5], [30, 1, 40, 32]]]
SIZE = (32, 40)


def make_boxes(images, dtype=torch.float64):
    return [torch.tensor(x, dtype=dtype).reshape(-1, 4) for x in BOXES[:images]]


def make_contexts(maps, seed=3):
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.promote_types(maps[0].dtype, torch.float32)
    shapes = [(2, *x.shape[:2]) for x in maps]
    return [torch.randn(s, generator=generator).to(dtype).unbind() for s in shapes]


def slow_masks(boxes, size, shape):
    """Foreground and background of an image, cell by cell."""
    (height, width), (rows, columns) = size, shape
    foreground, covered = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape)
    for x1, y1, x2, y2 in boxes.tolist():
        left, right = int(x1 / width * columns // 1), -int(-x2 / width * columns // 1)
        top, bottom = int(y1 / height * rows // 1), -int(-y2 / height * rows // 1)
        area = (right - left + 1) * (bottom - top + 1)
        for i, j in itertools.product(range(rows), range(columns)):
            if top <= i <= bottom and left <= j <= right:
                foreground[i, j], covered[i, j] = max(foreground[i, j], 1 / area), 1
    outside = (1 - covered).double()
    return foreground, outside / outside.sum() if outside.any() else outside


class TestFGD(MapLossContract):
    def loss(self, student, teacher, **options):
        images = len(student[0])
        contexts = make_contexts(student)
        if all(torch.equal(a, b) for a, b in zip(student, teacher, strict=False)):
            contexts = [(a, a) for a, _ in contexts]
        boxes = make_boxes(images, contexts[0][0].dtype)
        return fgd_loss(student, teacher, contexts, boxes, [SIZE] * images, **SETTINGS, **options)

    def slow_losses(self, student, teacher):
        levels = zip(student, teacher, make_contexts(student), strict=True)
        boxes = make_boxes(len(student[0]))
        total = 0
        for a, b, contexts in levels:
            each = []
            for n, of_image in enumerate(boxes):
                masks = slow_masks(of_image, SIZE, tuple(a.shape[-2:]))
                each.append(self._of_image(a[n], b[n], [x[n] for x in contexts], masks))
            total = total + torch.stack(each)
        return total

    def _of_image(self, a, b, contexts, masks):
        channels, height, width = a.shape
        spatial, channel = [], []
        for x in (a, b):
            powers = (x.abs().mean(dim=0) / 0.7).exp()
            spatial.append(height * width * powers / powers.sum())
            powers = (x.abs().mean(dim=(1, 2)) / 0.7).exp()
            channel.append(channels * powers / powers.sum())
        focal = 0
        for mask, factor in zip(masks, (0.3, 0.2), strict=True):
            for c in range(channels):
                error = (a[c] - b[c]) ** 2
                focal = focal + factor * (mask * spatial[1] * channel[1][c] * error).sum()
        attention = sum((x[0] - x[1]).abs().sum() for x in (spatial, channel))
        sides = [x + context[:, None, None] for x, context in zip((a, b), contexts, strict=True)]
        return focal + 0.5 * attention + 0.1 * ((sides[0] - sides[1]) ** 2).sum()


@pytest.mark.parametrize("shape", SIZES)
def test_masks_match_a_loop_over_cells(shape):
    generator = torch.Generator().manual_seed(4)
    corners = 40 * torch.rand(3, 6, 2, 2, generator=generator, dtype=torch.float64)
    sorted_corners = corners.sort(dim=2).values.flatten(2)
    boxes = [*sorted_corners, torch.zeros(0, 4, dtype=torch.float64)]
    sizes = [(40, 40), (40, 56), (64, 44), (40, 40)]
    masks = box_masks(box_fractions(boxes, sizes), shape)
    for n, (of_image, size) in enumerate(zip(boxes, sizes, strict=True)):
        expected = slow_masks(of_image, size, shape)
        assert_close((masks[0][n], masks[1][n]), expected)


def test_masks_without_any_box():
    foreground, background = box_masks(box_fractions([torch.zeros(0, 4)] * 2, [SIZE] * 2), (3, 5))
    assert not foreground.any() and torch.equal(background, torch.full((2, 3, 5), 1 / 15))


@pytest.mark.parametrize("name", SETTINGS)
def test_each_option_counts(name):
    student, teacher = make_maps(2, [4] * 3, 1, SIZES[:3]), make_maps(2, [4] * 3, 2, SIZES[:3])
    rest = make_contexts(student), make_boxes(2), [SIZE] * 2
    changed = {**SETTINGS, name: 2 * SETTINGS[name]}
    losses = [fgd_loss(student, teacher, *rest, **options) for options in (SETTINGS, changed)]
    assert losses[0] != losses[1]


def test_context_block():
    torch.manual_seed(0)
    block, [x] = GlobalContext(4).double(), make_maps(2, [4], 1, [(3, 5)])
    assert not block(x).any(), "the last convolution begins with zeros"
    torch.nn.init.normal_(block.channel_add_conv[3].weight)
    logits = (x * block.conv_mask.weight).sum(dim=1).exp()
    mask = logits / logits.sum(dim=(1, 2), keepdim=True)
    pooled = (x * mask[:, None]).sum(dim=(2, 3))
    first, norm, _, last = block.channel_add_conv
    hidden = pooled @ first.weight[:, :, 0, 0].T + first.bias
    hidden = F.layer_norm(hidden, [2], norm.weight.flatten(), norm.bias.flatten()).relu()
    assert_close(block(x), hidden @ last.weight[:, :, 0, 0].T + last.bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_contexts_are_in_float32_under_autocast(dtype):
    torch.manual_seed(0)
    module = GlobalRelation([3, 4], [4, 4])
    for block in module.student:
        torch.nn.init.normal_(block.channel_add_conv[3].weight)
    student = make_maps(2, [3, 4], 1, SIZES[:2], dtype=dtype)
    teacher = make_maps(2, [4, 4], 2, SIZES[:2], dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        maps, contexts = module(student, teacher)
    values = [*maps, *itertools.chain(*contexts)]
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in values)
    assert torch.equal(contexts[1][0], module.student[1](student[1].float()))


def rename(level, key):
    name, _, rest = key.partition(".")
    if name == "align":
        return f"adapter.align.{level}.{rest}"
    return f"{'student' if name.endswith('_s') else 'teacher'}.{level}.{name[:-2]}.{rest}"


@each_dtype
@pytest.mark.parametrize("name", ["frcnn", "retina_align", "n1_all_foreground", "fcos_temp"])
def test_golden(name, dtype):
    case = MapCase("fgd", name, dtype)
    images = len(case.student[0])
    boxes = [case.get(f"boxes{n}").reshape(-1, 4) for n in range(images)]
    sizes = [tuple(x) for x in case.get("img_shape").tolist()]
    module = GlobalRelation(*case.channels)
    case.load(module, rename)
    maps, contexts = module(case.student, case.teacher)
    options = {"temperature": case.get("temp"), "lambd": case.get("lam")}
    options.update({key: case.get(key) for key in ("alpha", "beta", "gamma")})
    parts = []
    for i, (x, t) in enumerate(zip(maps, case.teacher, strict=True)):
        masks = box_masks(box_fractions(boxes, sizes), x.shape[-2:])
        for part, mask in zip(("fg", "bg"), masks, strict=True):
            case.compare(f"mask_{part}{i}", mask)
        for side, of_side in (("student", x), ("teacher", t)):
            case.compare(f"spatial_{side}{i}", spatial_attention(of_side, options["temperature"]))
            case.compare(f"channel_{side}{i}", channel_attention(of_side, options["temperature"]))
        of_level = fgd_parts(x, t, contexts[i], masks, options["temperature"])
        parts.append(torch.stack([part.mean() for part in of_level]))
    case.compare("parts_by_level", torch.stack(parts))

    def loss(i, n):
        c = slice(None) if n is None else slice(n, n + 1)
        context = tuple(x[c] for x in contexts[i])
        level = [maps[i][c]], [case.teacher[i][c]], [context]
        return fgd_loss(*level, boxes[c], sizes[c], **options)

    case.compare_losses(loss, module=module, rename=rename)
    case.assert_all_used()
