import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing.pool import ThreadPool

import pytest
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from eakd_det.engine.signals import SIGNALS, StopNotice, listening, signals_for_children


@pytest.fixture(autouse=True)
def handlers():
    """Those of before come back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_does_nothing_else(number):
    before = [signal.getsignal(number) for number in SIGNALS]
    with listening() as notice:
        assert not notice.agreed()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with listening() as notice:
        os.kill(os.getpid(), number)
        assert notice.agreed() == notice.agreed_at_last() == number
    os.kill(os.getpid(), number)  # of a process that leaves, still nothing


def test_workers_of_a_loader_outlive_a_signal_to_the_whole_job():
    """And end when their loader says so, by SIGTERM too."""
    with listening():
        loader = DataLoader(range(8), batch_size=None, num_workers=1, prefetch_factor=1)
        batches = iter(loader)
        read = [next(batches)]
        [worker] = batches._workers
        for name in ("USR1", "TERM"):
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
        time.sleep(0.1)
        assert [*read, *batches] == list(range(8))
        batches = iter(loader)
        [worker] = batches._workers
        next(batches)
        worker.terminate()
        worker.join(timeout=20)
        assert worker.exitcode == 0


def _wait_for_a_signal(connection):
    with listening() as notice:
        connection.send("ready")
        while not notice.agreed():
            time.sleep(0.01)
    raise SystemExit(128 + notice.number)


def test_the_parent_passes_signals_on():
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_wait_for_a_signal, args=(there,))
    with pytest.raises(SystemExit) as stopped, signals_for_children():
        process.start()
        assert here.recv() == "ready"
        os.kill(os.getpid(), signal.SIGTERM)
        process.join(timeout=20)
        code = process.exitcode
        raise ProcessExitedException("", error_index=0, error_pid=process.pid, exit_code=code)
    assert stopped.value.code == code == 128 + signal.SIGTERM


def test_a_thread_leaves_the_handlers_alone():
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPool(1) as thread:
        thread.apply(StopNotice().listen)
    assert signal.getsignal(signal.SIGTERM) == before
