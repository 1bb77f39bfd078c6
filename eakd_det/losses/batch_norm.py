"""Batch normalization for modules that train with a student and may get one value a channel."""

from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class _OneValue(_BatchNorm):
    """Use the running statistics where a channel has a single value, and so no variance."""

    def forward(self, x):
        if self.training and x.numel() <= self.num_features:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class BatchNorm(_OneValue, nn.BatchNorm2d):
    """BatchNorm2d that also trains on the 1 x 1 map of a single image (a coarse FPN level)."""


class BatchNorm1d(_OneValue, nn.BatchNorm1d):
    """BatchNorm1d that also trains on a single sample."""
