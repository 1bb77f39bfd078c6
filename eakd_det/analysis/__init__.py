"""Analyses of the EA-KD paper for the checkpoints of any teachers and students.

N counts samples (images of a classifier, ROIs of a detector), C classes, D features.
"""
