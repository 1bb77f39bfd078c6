import random
import time

from eakd_det.data.near_duplicates import MOST_PAIRS, find_near_duplicates


def test_pairs_differ_by_few_bits():
    generator = random.Random(0)
    train = [generator.getrandbits(64) for _ in range(300)]
    val = [generator.getrandbits(64) for _ in range(300)]
    assert find_near_duplicates(train, val) == (0, [])
    val[7], val[290] = train[5] ^ 0b1111, train[299]
    val[8] = train[5] ^ 0b11111
    assert find_near_duplicates(train, val) == (2, [(5, 7), (299, 290)])


def test_many_pairs_are_counted_and_few_listed():
    found = find_near_duplicates([0] * 50, [0] * 600)
    assert found.images == 600
    assert len(found.pairs) == MOST_PAIRS


def test_none_at_all():
    assert find_near_duplicates([1], []) == (0, [])
    assert find_near_duplicates([], [1]) == (0, [])


def test_it_scales():
    """10 000 by 5 000 images; 100 000 by 20 000 are 40 times as many pairs."""
    generator = random.Random(0)
    train, val = ([generator.getrandbits(64) for _ in range(n)] for n in (10_000, 5_000))
    start = time.monotonic()
    find_near_duplicates(train, val)
    assert time.monotonic() - start < 10
