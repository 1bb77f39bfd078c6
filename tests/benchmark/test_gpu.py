import pytest
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from eakd_det.benchmark.gpu import activity, union_length


def _events(*rows):
    """Events of the profiler from (name, start, end, is it the GPU's?), in microseconds."""
    return [
        FunctionEvent(
            id=i,
            name=name,
            thread=0,
            start_us=start,
            end_us=end,
            device_type=DeviceType.CUDA if on_gpu else DeviceType.CPU,
        )
        for i, (name, start, end, on_gpu) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], 0),
        ([(1, 3), (5, 6)], 3),
        ([(5, 6), (1, 3)], 3),  # in any order
        ([(0, 4), (1, 2), (3, 6)], 6),  # one inside, one that reaches over the end
        ([(0, 2), (0, 2)], 2),  # two streams at the same time
    ],
)
def test_the_union_of_intervals(intervals, expected):
    assert union_length(intervals) == expected


def test_overlapping_streams_count_once_and_copies_not_at_all():
    events = _events(
        ("conv", 0, 40, True),
        ("teacher's conv", 20, 50, True),  # beside it, in another stream
        ("Memcpy HtoD (Pageable -> Device)", 60, 90, True),
        ("Memset (Device)", 90, 95, True),
        ("cudaLaunchKernel", 0, 5, False),
        ("cuLaunchKernelEx", 5, 9, False),
        ("cudaGraphLaunch", 9, 12, False),
        ("cudaMemcpyAsync", 12, 20, False),
        ("aten::conv2d", 0, 9, False),
    )
    figures = activity(events, seconds=100e-6, calls=2)
    assert figures == {"busy": pytest.approx(0.5), "launches": 1.5, "kernels": 1.0}
