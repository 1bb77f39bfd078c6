"""Datasets that come with the toolkit."""

from .digits import register_digits

register_digits()
