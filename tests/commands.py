"""The tools as a user calls them, in processes that cost no imports of other packages.

Starting an interpreter and importing torch, Detectron2 and Transformers takes seconds. A server
that has imported them once forks a process for each call: its arguments, folder, environment,
output and exit code are its own, and what a tool needs of this repository it imports itself.
"""

import functools
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

IMPORTED = [
    "detectron2.engine",
    "detectron2.evaluation",
    "detectron2.export",
    "detectron2.model_zoo",
    "detectron2.utils.visualizer",
    "faster_coco_eval",
    "matplotlib.pyplot",
    "sklearn.datasets",
    "sklearn.manifold",
    "timm",
    "torchvision",
    "llm",  # hides a folder ./datasets from Transformers
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
]


@functools.cache
def _server():
    """The context whose server forks; it starts with the first call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def call(script, arguments, *, folder, environment, ranks=0, timeout=300):
    """Run a script to its end; its return code (negative: a signal's), stdout and stderr.

    Args:
        script: its path.
        folder: in which it runs.
        environment: all of its variables.
        ranks: that many processes of the script, with torchrun's variables.
    """
    with tempfile.TemporaryDirectory() as temporary:
        streams = [os.path.join(temporary, name) for name in ("stdout", "stderr")]
        options = (os.path.abspath(script), [str(x) for x in arguments], str(folder), streams)
        environments = _torchrun(environment, ranks) if ranks else [environment]
        processes = [_server().Process(target=_run, args=(*options, e)) for e in environments]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout)
        codes = [process.exitcode for process in processes]
        if None in codes:
            for process in processes:
                process.kill()
            raise TimeoutError(f"{script}: more than {timeout} s")
        code = next(filter(None, codes), 0)
        return code, *(Path(stream).read_text() for stream in streams)


def _torchrun(environment, ranks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_WORLD_SIZE": "1"}
    return [
        {**environment, **master, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        for rank in range(ranks)
    ]


def _run(script, arguments, folder, streams, environment):
    sys.stdout, sys.stderr = (open(stream, "a", buffering=1) for stream in streams)  # noqa: SIM115
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        os.dup2(stream.fileno(), number)  # for the processes that it starts
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if "OMP_NUM_THREADS" in environment:  # which OpenMP has read in the server, before
        import torch  # here, for the server alone has it at hand

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    _fork_processes()
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")


def _fork_processes():
    """Let the processes of a launch be forked; what they get must survive a spawn all the same."""
    import torch.multiprocessing

    start = torch.multiprocessing.start_processes

    def start_forked(fn, args=(), **options):
        ForkingPickler.dumps((fn, args))
        return start(fn, args, **options, start_method="fork")

    torch.multiprocessing.start_processes = start_forked
