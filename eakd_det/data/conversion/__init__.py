"""Conversion of datasets to COCO format, splits, and tiles of large pictures."""
