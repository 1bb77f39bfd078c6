"""Look-ahead on a GPU: the same losses in slow streams, little memory, and no waiting host."""

import gc

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from eakd_det.engine.hooks.data_position import image_loader
from eakd_det.engine.train_step.look_ahead import Copies, LookAhead
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher import DetectorTeacher
from tests.engine.runs import train
from tests.engine.train_step.test_look_ahead import varied

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use"),
]
SLEEP = 40_000_000  # cycles of the GPU: some 20 ms
LONG_SLEEP = 2_000_000_000  # a second
GRADIENT = {None: 1e-4, torch.bfloat16: 1e-2}  # relative to its norm: sums in another order


def _step(cfg, batches, look_ahead, precision=None):
    """A step whose weights never change, so that losses agree bit for bit."""
    cfg.MODEL.DEVICE, cfg.SOLVER.BASE_LR = "cuda", 0.0
    torch.manual_seed(0)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    options = {"look_ahead": look_ahead, "precision": precision, "max_iter": len(batches)}
    return DistillStep(model, batches, optimizer, **options)


def _run(step, after_step=lambda: None):
    """Train; the losses of each step."""
    torch.manual_seed(0)
    with EventStorage() as storage:
        for storage.iter in range(step.max_iter):
            step.iter = storage.iter
            step.run_step()
            after_step()
    return {name: h.values() for name, h in storage.histories().items() if "loss" in name}


@pytest.mark.parametrize("slow", ["neither", "teacher", "student"])
@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("architecture", ["distill_cfg", "retina_cfg"])
def test_trains_the_same(request, monkeypatch, full_float32, batch, architecture, precision, slow):
    """Also where one of the streams is far behind the other."""
    cfg = request.getfixturevalue(architecture)
    cfg.DISTILL.METHODS = ("KD", "REVIEWKD")
    features = DetectorTeacher.features

    def later(*args):
        torch.cuda._sleep(SLEEP)
        return features(*args)

    if slow == "teacher":
        monkeypatch.setattr(DetectorTeacher, "features", later)
    runs = []
    for look_ahead in (True, False):
        step = _step(cfg, list(varied(batch, 5)), look_ahead, precision)
        if slow == "student":
            step.model.backbone.register_forward_pre_hook(lambda *_: torch.cuda._sleep(SLEEP))
        runs.append((_run(step), step.model))
    (losses, model), (expected, other) = runs
    assert losses == expected and losses["loss_kd"]
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        if q.grad is not None:
            assert (p.grad - q.grad).norm() <= GRADIENT[precision] * q.grad.norm() + 1e-6, name


def test_the_host_does_not_wait(distill_cfg, batch):
    """A batch is copied and handed out, and the teacher's features computed, before the student."""
    step = _step(distill_cfg, [batch], True)
    _run(step)  # prepares the teacher
    teacher, levels = step.model.teacher, step.model.teacher_levels
    device, copies = step._device, Copies(step._device)
    for is_behind in (False, True):  # at first all kinds of memory are allocated
        if is_behind:
            torch.cuda.synchronize()
            torch.cuda._sleep(LONG_SLEEP)
        end = torch.cuda.current_stream().record_event()
        copied = copies(batch)
        with copies.context():
            teacher.look_ahead(copied.content, "RGB", levels)
        copies.hand_out(copied)
        computed = teacher._stream._stream.record_event()
        computed.synchronize()
    assert not end.query()
    assert all(x["image"].device == device for x in copied.content)
    torch.cuda.synchronize()


def test_copies(distill_cfg, batch):
    device = torch.device("cuda", torch.cuda.current_device())
    [ours] = LookAhead([batch], device)
    for x, y in zip(ours, batch, strict=True):
        assert x["image"].device == device and y["image"].device.type == "cpu"
        assert torch.equal(x["image"].cpu(), y["image"])
        boxes = x["instances"].to(device).gt_boxes.tensor
        assert torch.equal(boxes.cpu(), y["instances"].gt_boxes.tensor)


def _peaks(cfg, batch, look_ahead):
    """Peaks of memory of the first steps and of later ones; bytes of the maps and the heads."""
    step, after, peaks = _step(cfg, [batch] * 12, look_ahead), [], []

    def note():
        torch.cuda.synchronize()
        after.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
        if step.iter in (3, 10):
            peaks.append(torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()

    torch.cuda.reset_peak_memory_stats()
    _run(step, note)
    assert after[10] == after[4], "memory does not grow"
    teacher = step.model.teacher
    maps = teacher.begin_features(batch, "RGB", step.model.teacher_levels)()
    heads = teacher.model.roi_heads.parameters()
    return *peaks, sum(x.nbytes for x in maps.values()), sum(p.nbytes for p in heads)


def test_memory(distill_cfg, batch):
    """One more set of maps and one more batch; no more after many steps, nor in the first."""
    _, usual, maps, heads = _peaks(distill_cfg, batch, False)
    gc.collect()
    first, later, *_ = _peaks(distill_cfg, batch, True)
    images, slack = sum(x["image"].nbytes for x in batch), 2**20
    assert later - usual <= maps + images + slack
    assert first - later <= heads + slack, "in which the teacher is prepared"


def test_pictures(distill_cfg, batch):
    """Detectron2's and ours are drawn of images that are on the GPU, and boxes that are not."""
    distill_cfg.VIS_PERIOD = 1
    step = _step(distill_cfg, [batch] * 2, True)
    drawn = []
    with EventStorage() as storage:
        for step.iter in (0, 1):
            step.run_step()
            drawn += [name for name, *_ in storage._vis_data]
    assert "distill/w_ea" in drawn and len(set(drawn)) > 1


def test_ddp_takes_what_was_started(distill_cfg, batch, storage, tmp_path):
    distill_cfg.MODEL.DEVICE = "cuda"
    model = build_model(distill_cfg)
    options = {"rank": 0, "world_size": 1, "init_method": f"file://{tmp_path}/store"}
    distributed.init_process_group("nccl", **options)
    try:
        ddp = DistributedDataParallel(model, device_ids=[torch.cuda.current_device()])
        [ours] = LookAhead([batch], model.device)
        ddp(ours)  # prepares the teacher
        model.look_ahead(ours)
        with record(teacher=model.teacher.model.backbone) as calls:
            ddp(ours)
        assert not calls["teacher"]
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("off", ["nothing", "DATALOADER.PREFETCH", "TEACHER.AHEAD"])
def test_a_run_with_a_worker(run_cfg, monkeypatch, tmp_path, off):
    """As users start it: the loader pins the images, and the teacher is one batch ahead."""
    run_cfg.MODEL.DEVICE, run_cfg.DATASETS.TEST = "cuda", ()
    run_cfg.DATALOADER.NUM_WORKERS = 1
    if off != "nothing":
        run_cfg.merge_from_list([off, False])
    begin, devices = DetectorTeacher.begin_features, []
    look_ahead, number = DetectorTeacher.look_ahead, []

    def note_images(teacher, batched_inputs, *args):
        devices.append(batched_inputs[0]["image"].device.type)
        return begin(teacher, batched_inputs, *args)

    def note_start(*args):
        number.append(1)
        look_ahead(*args)

    monkeypatch.setattr(DetectorTeacher, "begin_features", note_images)
    monkeypatch.setattr(DetectorTeacher, "look_ahead", note_start)
    step = train(run_cfg, tmp_path / "run", [4])._trainer
    is_copied = off != "DATALOADER.PREFETCH"
    assert set(devices) == {"cuda" if is_copied else "cpu"}
    assert image_loader(step.data_loader).pin_memory == is_copied
    assert len(number) == (2 if off == "nothing" else 0), "of the batches behind the second"
    assert step._data_loader_iter._num_read == 4 and not step.model.teacher._started
