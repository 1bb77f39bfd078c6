"""Random feature maps, golden figures on them, and the contract that every loss on maps keeps."""

import pytest
import torch
from torch.testing import assert_close

from tests.golden import golden

SIZES = [(8, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
# Largest disagreement with a golden array, relative to its largest entry.
PRECISIONS = {torch.float64: 1e-9, torch.float32: 1e-4}
# Weights before a softmax get gradients that nearly cancel: a factor of that in float32.
OF_WEIGHTS = 200


def make_maps(images, channels, seed, sizes=SIZES, dtype=torch.float64):
    """A map of each size, finest first."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, c, *size, generator=generator, dtype=torch.float64).to(dtype)
        for c, size in zip(channels, sizes, strict=True)
    ]


class MapCase:
    """The maps, settings and figures of a golden case; arrays that are not used are reported."""

    def __init__(self, file, name, dtype):
        self.arrays = {
            key.removeprefix(f"{name}."): array
            for key, array in golden(f"features/{file}").items()
            if key.startswith(f"{name}.")
        }
        self.dtype, self.used = dtype, {"sizes"}
        self.levels = sum(f"student{i}" in self.arrays for i in range(5))
        self.student = [x.requires_grad_() for x in self.maps("student")]
        self.teacher = self.maps("teacher")
        self.shapes = [x.shape[-2:] for x in self.teacher]
        self.channels = [[x.shape[1] for x in maps] for maps in (self.student, self.teacher)]

    def get(self, name):
        self.used.add(name)
        array = self.arrays[name]
        if array.ndim == 0:
            return array.item()
        return array.to(self.dtype) if array.is_floating_point() else array

    def maps(self, stem):
        return [self.get(f"{stem}{i}") for i in range(self.levels)]

    def compare(self, name, actual, factor=1):
        assert actual.dtype == self.dtype
        self.used.add(name)
        expected = self.arrays[name].double()
        atol = factor * PRECISIONS[self.dtype] * expected.abs().max().item()
        actual = actual.detach().double()
        assert_close(actual, expected, rtol=0, atol=atol, msg=lambda text: f"{name}: {text}")

    def load(self, module, rename):
        """Load the weights of all levels; `rename` maps level and released key to our key."""
        state = {}
        for name in self.arrays:
            level, _, key = name.removeprefix("level").partition(".")
            if name.startswith("level") and not key.startswith("grad."):
                state[rename(level, key)] = self.get(name)
        module.to(self.dtype).load_state_dict(state)

    def compare_losses(self, level_loss, factor=1.0, module=None, rename=None):
        """Compare the losses of levels and images, and the gradients of their sum.

        `level_loss` takes a level and an image's number, or None for all, and returns a scalar.
        """
        levels, images = range(self.levels), range(len(self.student[0]))
        by_level = [factor * level_loss(i, None) for i in levels]
        per_image = [torch.stack([factor * level_loss(i, n) for n in images]) for i in levels]
        self.compare("loss_by_level", torch.stack(by_level))
        self.compare("per_sample_by_level", torch.stack(per_image))
        self.compare_gradients(sum(by_level), module, rename)

    def compare_gradients(self, loss, module=None, rename=None):
        self.compare("loss", loss)
        loss.backward()
        for i, x in enumerate(self.student):
            self.compare(f"grad_student{i}", x.grad)
        for name in self.arrays:
            level, found, key = name.removeprefix("level").partition(".grad.")
            if found:
                gradient = module.get_parameter(rename(level, key)).grad
                is_single = self.dtype == torch.float32
                self.compare(name, gradient, OF_WEIGHTS if is_single else 1)

    def assert_all_used(self):
        assert self.used == set(self.arrays) | {"sizes"}


each_dtype = pytest.mark.parametrize("dtype", PRECISIONS, ids=["float64", "float32"])


class MapLossContract:
    """Tests of a loss on maps that a subclass gives as `loss`, and slowly as `slow_losses`."""

    def loss(self, student, teacher, **options):
        raise NotImplementedError

    def slow_losses(self, student, teacher):
        """Return the (N,) losses of the images, by an obvious formula."""
        raise NotImplementedError

    @pytest.fixture
    def maps(self):
        student, teacher = make_maps(3, [4] * 5, 1), make_maps(3, [4] * 5, 2)
        return [x.requires_grad_() for x in student], teacher

    @pytest.mark.parametrize("images", [1, 3])
    @pytest.mark.parametrize("is_weighted", [False, True])
    def test_matches_the_slow_formula(self, images, is_weighted):
        student, teacher = (
            make_maps(images, [4] * 4, 1, SIZES[:4]),
            make_maps(images, [4] * 4, 2, SIZES[:4]),
        )
        for x in student:
            x.requires_grad_()
        weight = torch.arange(1.0, images + 1, dtype=torch.float64)
        loss = self.loss(student, teacher, **({"weight": weight} if is_weighted else {}))
        each = self.slow_losses(student, teacher)
        exact = (each * weight if is_weighted else each).sum() / images
        assert_close(loss, exact)
        gradients = torch.autograd.grad(loss, student, allow_unused=True)
        assert_close(gradients, torch.autograd.grad(exact, student, allow_unused=True))

    def test_gradcheck(self):
        sizes = [(3, 4), (2, 3)]
        student = [x.requires_grad_() for x in make_maps(2, [2, 3], 1, sizes)]
        teacher = make_maps(2, [2, 3], 2, sizes)
        weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda *x: self.loss(x, teacher, weight=weight), student)

    def test_equal_maps_give_zero(self, maps):
        student, _ = maps
        assert self.loss(student, [x.detach().clone() for x in student]) == 0

    def test_weight_of_ones_changes_nothing(self, maps):
        ones = torch.ones(3, dtype=torch.float64)
        assert torch.equal(self.loss(*maps, weight=ones), self.loss(*maps))

    def test_teacher_and_weight_get_no_gradient(self, maps):
        student, teacher = maps
        weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
        for x in teacher:
            x.requires_grad_()
        self.loss(student, teacher, weight=weight).backward()
        assert all(x.grad.any() for x in student[:4])
        assert all(x.grad is None for x in [*teacher, weight])

    def test_no_image_gives_a_zero_in_the_graph(self):
        student = [x.requires_grad_() for x in make_maps(0, [4] * 5, 1)]
        loss = self.loss(student, make_maps(0, [4] * 5, 2), weight=torch.zeros(0))
        assert loss == 0
        loss.backward()
        assert all(x.grad.shape == x.shape for x in student)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_halves_are_computed_in_float32(self, dtype):
        student, teacher = (make_maps(2, [4] * 5, seed, dtype=dtype) for seed in (1, 2))
        student[0] = (student[0] * 0 + 600.0).requires_grad_()  # its square overflows float16
        with torch.autocast("cpu", dtype=dtype):
            loss = self.loss(student, teacher)
        assert loss.dtype == torch.float32
        loss.backward()
        assert student[0].grad.isfinite().all()
        assert_close(loss, self.loss([x.float() for x in student], [x.float() for x in teacher]))

    def test_refuses_what_does_not_match(self, maps):
        student, teacher = maps
        with pytest.raises(ValueError, match="5 levels of the student, 4 of the teacher"):
            self.loss(student, teacher[:4])
        with pytest.raises(ValueError, match=r"differ: \(3, 4, 8, 10\), \(3, 1, 8, 10\)"):
            self.loss(student, [teacher[0][:, :1], *teacher[1:]])
        with pytest.raises(ValueError, match="weight .* 3 samples"):
            self.loss(*maps, weight=torch.ones(2))
