"""The tools as a user calls them, in processes that cost no imports of other packages.

Starting an interpreter and importing torch, Detectron2 and Transformers takes seconds. A server
that has imported them once forks a process for each call: its arguments, folder, environment,
output and exit code are its own, and what a tool needs of this repository it imports itself.
"""

import functools
import multiprocessing
import os
import runpy
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

ROOT = Path(__file__).parent.parent
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
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
]


@functools.cache
def _server():
    """The context whose server forks; it starts with the first call."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def call(path, arguments, *, folder, environment, streams, timeout=300):
    """Run a script to its end; its return code, negative where a signal ended it.

    Args:
        folder: in which it runs.
        environment: all of its variables.
        streams: paths of the two files that get stdout and stderr.
    """
    options = (str(path), list(arguments), str(folder), environment, list(map(str, streams)))
    process = _server().Process(target=_run, args=options)
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{path} {' '.join(arguments)}: more than {timeout} s")
    return process.exitcode


def _run(path, arguments, folder, environment, streams):
    sys.stdout, sys.stderr = (open(stream, "a", buffering=1) for stream in streams)  # noqa: SIM115
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        os.dup2(stream.fileno(), number)  # for the processes that it starts
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _fork_processes()
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(path)
    runpy.run_path(path, run_name="__main__")


def _fork_processes():
    """Let the processes of a launch be forked; what they get must survive a spawn all the same."""
    import torch.multiprocessing  # here, for the server alone has it at hand

    start = torch.multiprocessing.start_processes

    def start_forked(fn, args=(), **options):
        ForkingPickler.dumps((fn, args))
        return start(fn, args, **options, start_method="fork")

    torch.multiprocessing.start_processes = start_forked
