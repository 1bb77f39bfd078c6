"""Datasets that come with the toolkit."""

from .datasets.digits import register_digits
from .datasets.fashion import register_fashion

register_digits()
register_fashion()
