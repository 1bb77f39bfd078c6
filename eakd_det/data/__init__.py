"""Datasets that come with the toolkit."""

from .datasets.digits import register_digits
from .datasets.fashion import register_fashion
from .datasets.trees import register_trees

register_digits()
register_fashion()
register_trees()
