"""Datasets that come with the toolkit."""

from .digits import register_digits
from .fashion import register_fashion

register_digits()
register_fashion()
