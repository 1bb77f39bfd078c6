from eakd_det.benchmark import timing


def test_variants_are_called_in_turn():
    calls = []
    variants = {name: lambda name=name: calls.append(name) for name in "abc"}
    medians = timing.interleave(variants, 2, warmup=1)
    assert "".join(calls) == "abc" * 3
    assert list(medians) == ["a", "b", "c"]
    assert all(list(x) == ["seconds"] and x["seconds"] >= 0 for x in medians.values())


def test_blocks_of_consecutive_calls():
    calls = []
    variants = {name: lambda name=name: calls.append(name) for name in "ab"}
    timing.interleave(variants, 2, warmup=1, block=3)
    assert "".join(calls) == "ab" + 2 * "aaabbb"
