"""A tool whose processes are killed: killed.py KILLS SEED TOOL [ARGUMENTS...]

In each of the first KILLS attempts of torchrun's agent, one process is killed by SIGKILL at a
random moment of one of its first steps, whose time is taken to be that of the step before.
"""

import os
import random
import runpy
import signal
import sys
import threading
import time

from detectron2.engine import TrainerBase

MOST_STEPS = 3


def kill_in_a_step(kills, seed):
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    generator = random.Random(seed * 1000 + attempt)
    victim = generator.randrange(int(os.environ["WORLD_SIZE"]))
    step, moment = generator.randint(1, MOST_STEPS), generator.random()
    if attempt >= kills or victim != int(os.environ["RANK"]):
        return
    before_step, starts = TrainerBase.before_step, []

    def count(trainer):
        before_step(trainer)
        starts.append(time.monotonic())
        if trainer.iter - trainer.start_iter == step:
            delay = moment * (starts[-1] - starts[-2])
            threading.Thread(target=kill, args=(delay,), daemon=True).start()

    def kill(delay):
        time.sleep(delay)
        print(f"Killing process {victim}, {delay:.3f} s into step {step} of attempt {attempt}")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    TrainerBase.before_step = count


if __name__ == "__main__":
    kills, seed, tool, *arguments = sys.argv[1:]
    kill_in_a_step(int(kills), int(seed))
    sys.argv = [tool, *arguments]
    sys.path[0] = os.path.dirname(tool)
    runpy.run_path(tool, run_name="__main__")
