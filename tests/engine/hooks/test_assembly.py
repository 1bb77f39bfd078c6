from detectron2.engine import HookBase, hooks

from eakd_det.engine.hooks.assembly import in_order
from eakd_det.engine.hooks.stopwatch import Stopwatch
from eakd_det.engine.trainer import DistillTrainer

from ..runs import train


def _names(some_hooks):
    return [type(hook).__name__ for hook in some_hooks]


def test_the_hooks_of_a_run(run_cfg):
    run_cfg.TEST.EVAL_PERIOD = 2
    assert _names(DistillTrainer(run_cfg)._hooks) == [
        "StudentRecord",
        "OptimizerSettings",
        "IterationTimer",
        "LRScheduler",
        "ProcessStates",
        "PeriodicCheckpointer",
        "Preemption",
        "EvalHook",
        "BestCheckpoint",
        "PeriodicWriter",
    ]
    run_cfg.TEST.EVAL_PERIOD = 0
    assert "BestCheckpoint" not in _names(DistillTrainer(run_cfg)._hooks)
    run_cfg.TEST.EVAL_PERIOD, run_cfg.DATASETS.TEST = 2, ()
    assert "BestCheckpoint" not in _names(DistillTrainer(run_cfg)._hooks)


class _Own(HookBase):
    pass


def test_a_hook_of_another_kind_stays_behind_the_one_before_it():
    timer, schedule, writer = hooks.IterationTimer(), hooks.LRScheduler(), hooks.PeriodicWriter([])
    first, second, third = _Own(), _Own(), _Own()
    watch = Stopwatch()
    given = [first, timer, None, schedule, second, writer, third, watch]
    assert in_order(given) == [first, timer, watch, schedule, second, writer, third]


def test_states_in_checkpoints_have_the_names_of_earlier_versions(run_cfg, tmp_path):
    """A hook's state is found by the name of its class."""
    run_cfg.DATASETS.TEST = ()
    trainer = train(run_cfg, tmp_path / "run", [1], hook=Stopwatch())
    states = trainer.state_dict()
    assert states.keys() == {"iteration", "hooks", "_trainer"}
    assert states["_trainer"].keys() >= {"iteration", "optimizer", "grad_scaler", "left_out_steps"}
    of_hooks = states["hooks"]
    assert of_hooks.keys() == {"LRScheduler", "ProcessStates", "Stopwatch"}
    assert of_hooks["Stopwatch"].keys() == {"seconds"}
    [process] = of_hooks["ProcessStates"]["processes"]
    assert process.keys() == {"random", "buffers", "sampler_seed", "loss_normalizer"}
    assert process["random"].keys() == {"python", "numpy", "torch", "cuda"}
