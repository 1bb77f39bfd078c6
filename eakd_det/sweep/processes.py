"""Processes of a sweep: start, share of the machine, and end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

import joblib
import torch

STOP_SECONDS = 40  # that a process has to end before it is killed; torchrun gives its workers 30
TAIL_LINES = 8
ENDS = [x for x in signal.Signals if x.name in ("SIGINT", "SIGTERM", "SIGHUP")]

# Becomes the Python process of argv[2:], which gets SIGTERM when the thread that started it ends,
# however that ends: prctl(PR_SET_PDEATHSIG), which Linux keeps over exec. argv[1] is its parent.
# SIGUSR1, which SLURM sends to each process of a job, would end torchrun without its workers: it is
# ignored. A run sets a handler of its own.
_START = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def interrupt_on_signals() -> None:
    """Raise KeyboardInterrupt at SIGTERM and at the terminal's end, so that processes end, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, signal.default_int_handler)


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Delay the signals that end a sweep until the with-block has ended.

    They are delayed in the main thread, in which alone they are handled.
    """
    received: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (ENDS if is_main else ())
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)


def start(
    command: list[str], log: TextIO, environment: dict[str, str], keep: Sequence[TextIO] = ()
) -> subprocess.Popen:
    """Start a Python script with its arguments; its output goes to `log`.

    It leads a group of its own: Ctrl-C reaches the sweep alone, which then ends the whole group.
    On Linux it also gets SIGTERM, by which a run saves and ends, when the thread of the caller has
    ended without that: a job that a cluster starts again does not wait for its lost predecessor.

    Args:
        keep: files that the process holds open too, so that their locks last as long as it does.
    """
    if sys.platform == "linux":
        command = ["-I", "-S", "-c", _START, str(os.getpid()), *command]
    return subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        pass_fds=[file.fileno() for file in keep],
    )


def stop(processes: Iterable[subprocess.Popen], grace: float = STOP_SECONDS) -> None:
    """End processes with their children; those that do not end in `grace` seconds are killed."""
    running = [process for process in processes if process.poll() is None]
    _signal(running, signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    _signal([process for process in running if process.poll() is None], signal.SIGKILL)
    for process in running:
        process.wait()


def _signal(processes: Iterable[subprocess.Popen], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def share(jobs: int, slot: int, gpus: int = 1) -> dict[str, str]:
    """Return the environment of training `slot` of `jobs`: its share of the cores and the GPUs.

    An OMP_NUM_THREADS that is set already is kept; of CUDA_VISIBLE_DEVICES, `gpus` are taken.

    Args:
        gpus: processes of a training.
    """
    environment = dict(os.environ)
    threads = joblib.cpu_count() // (jobs * gpus)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    count = torch.cuda.device_count()
    if count:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(count)]
        own = [names[(slot * gpus + i) % count] for i in range(min(gpus, count))]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return environment


def describe_end(code: int) -> str:
    """Describe the end of a process by Popen's return code."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def tail(log_file: str) -> str:
    """Return the last lines of a process's output, indented under the name of their file."""
    with open(log_file, errors="replace") as f:
        lines = f.read().splitlines()[-TAIL_LINES:]
    return "\n".join([f"{log_file} ends with", *(f"    {line}" for line in lines)])
