from classification.data import Indices
from classification.loader import build_train_loader
from classification.views import Views
from tests.classification.test_views import random_images


def test_a_gpu_gives_the_same_views(device):
    images = random_images(num_views=2)
    raw = images.__getitems__(Indices(list(range(9)), 5))
    one, other = (Views(images, d)(raw)["views"] for d in ("cpu", device))
    assert all(a.equal(b.cpu()) for a, b in zip(one, other, strict=True))


def test_batches_for_a_gpu_are_pinned(cuda):
    assert build_train_loader(random_images(), 4, seed=1, device="cuda").pin_memory
