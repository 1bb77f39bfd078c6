"""A tiny Fashion-MNIST of made-up garments, as idx files."""

import struct

import numpy as np

FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def write_fashion_mnist(folder):
    """Write 20 training and 10 test pictures of ten classes.

    A picture is a block, brighter the higher the class, the training ones' taller than wide and the
    test ones' wider than tall.

    Returns:
        (N, 28, 28) uint8 and (N,) labels of both splits.
    """
    folder.mkdir(parents=True)
    splits = []
    for number, (count, block) in enumerate([(20, np.s_[3:25, 8:20]), (10, np.s_[8:20, 3:25])]):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[(slice(None), *block)] = (75 + 20 * labels)[:, None, None]
        images_file, labels_file = FILES[2 * number : 2 * number + 2]
        header = struct.pack(">4i", 0x803, *pixels.shape)
        (folder / images_file).write_bytes(header + pixels.tobytes())
        (folder / labels_file).write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())
        splits.append((pixels, labels))
    return splits
