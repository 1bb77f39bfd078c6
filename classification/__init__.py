"""Distillation of image classifiers: the CIFAR-100 and ImageNet experiments of EA-KD."""
