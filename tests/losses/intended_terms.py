"""Terms of MLD one by one, with its masks as the names in the released code suggest."""

from eakd_det.benchmark.multi_level_terms import (
    batch_errors,
    class_errors,
    kl,
    masks,
    one_by_one,
    released_terms,
)
from eakd_det.losses import standardize as standardize_logits


def exact_loss(*views, as_intended=False, **options):
    """Return `multi_level_loss` as a sum of single terms."""
    return one_by_one(*views, terms=intended_terms if as_intended else released_terms, **options)


def intended_terms(weak, strong, weights, temperature, standardize):
    """Return the terms with the masks applied as the names in the released code suggest."""
    images, classes = masks(weak[1])
    n, c = max(len(images), 1), len(classes)
    terms = []
    for view, weight, instance_mask, class_mask in [
        (weak, weights[0], images, classes),
        (strong, weights[1], slice(None), slice(None)),
    ]:
        z = [standardize_logits(z) for z in view] if standardize else view
        for tau in (temperature, 3.0, 5.0, 2.0, 6.0):
            terms += [
                (weight * kl(*z, tau))[instance_mask].sum() / n,
                batch_errors(*view, tau)[images].sum() / n,
                class_errors(*view, tau)[class_mask].sum() / c,
            ]
    return dict(enumerate(terms))
