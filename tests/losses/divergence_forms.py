"""The divergences with what the tests of them share: a slow form and an odd batch."""

import torch

from eakd_det.losses import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
)

from .contract import make_logits, softmax


def kl(a, b):
    """KL(a || b) of two (V,) distributions, token by token."""
    return sum(a_v * torch.log(a_v / b_v) for a_v, b_v in zip(a, b, strict=True))


def slow_js(p, q, share):
    m = share * p + (1 - share) * q
    return share * kl(p, m) + (1 - share) * kl(q, m)


# (divergence, its form of one token's p and q at the defaults); the equations once more, slowly.
FORMS = {
    "forward": (forward_kl, lambda p, q: kl(p, q)),
    "reverse": (reverse_kl, lambda p, q: kl(q, p)),
    "skewed_forward": (skewed_forward_kl, lambda p, q: kl(p, 0.1 * p + 0.9 * q)),
    "skewed_reverse": (skewed_reverse_kl, lambda p, q: kl(q, 0.9 * p + 0.1 * q)),
    "symmetric": (symmetric_kl, lambda p, q: 0.5 * kl(p, q) + 0.5 * kl(q, p)),
    "jensen_shannon": (jensen_shannon, lambda p, q: slow_js(p, q, 0.5)),
}


def slow_tokens(form, student, teacher, labels):
    """(B, L) divergences of the tokens that count, in a loop."""
    rows = [
        form(softmax(t), softmax(s)) if label != -100 else s.sum() * 0
        for s, t, label in zip(
            student.flatten(0, -2), teacher.flatten(0, -2), labels.flatten(), strict=True
        )
    ]
    return torch.stack(rows).reshape(labels.shape)


def make_batch(dtype=torch.float64, vocabulary=11):
    """(3, 5, V) logits of both sides, and labels: rows of three, one and no token that counts."""
    shape = (3, 5, vocabulary)
    labels = torch.full((3, 5), -100)
    labels[0, 1:4], labels[1, 2] = torch.tensor([3, 0, 7]), 5
    return make_logits(shape, 1, dtype), make_logits(shape, 2, dtype), labels
