"""Training with look-ahead equals training without; the order of reading, copies and streams."""

import copy
import itertools

import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from eakd_det.engine.train_step.look_ahead import LookAhead, reads_in_workers
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher import DetectorTeacher
from tests.conftest import ROOT
from tests.reads import Operators
from tests.streams import streams

from ..runs import train


def _logged(log, number=5):
    for i in range(number):
        log.append(f"read {i}")
        yield i


def _drain(ahead, log):
    for i in ahead:
        log.append(f"train {i}")
    return log


def test_order():
    log = []
    ahead = LookAhead(_logged(log, 3), is_ahead=True, start=lambda i: log.append(f"start {i}"))
    assert _drain(ahead, log) == [
        *("read 0", "read 1", "start 1", "train 0"),
        *("read 2", "start 2", "train 1"),
        "train 2",
    ]
    with pytest.raises(StopIteration):
        next(ahead)


def test_not_ahead():
    log = []
    ahead = LookAhead(_logged(log, 2), start=lambda i: log.append(f"start {i}"))
    assert _drain(ahead, log) == ["read 0", "train 0", "read 1", "train 1"]


def test_nothing_is_read_beyond_the_last_iteration():
    log = []
    ahead = LookAhead(_logged(log), is_ahead=True, num_batches=3)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    assert log == ["read 0", "read 1", "read 2"]
    assert next(ahead) == 3, "a longer training goes on"


def test_an_error_is_raised_when_its_batch_is_due():
    def batches():
        yield 0
        raise ValueError("broken.png")

    ahead = LookAhead(batches(), is_ahead=True, start=print)
    assert next(ahead) == 0
    with pytest.raises(ValueError, match="broken.png"):
        next(ahead)


def test_seconds_are_those_of_reading(monkeypatch):
    clock = itertools.count()  # each look at it takes a second
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    ahead = LookAhead(range(3), is_ahead=True, start=lambda _: [next(clock) for _ in range(50)])
    next(ahead)
    assert ahead.seconds == 1


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_reads_in_workers(grouped, workers):
    images = [{"width": 20, "height": 10}] * 4
    loader = build_detection_train_loader(
        images,
        mapper=dict,
        sampler=TrainingSampler(4),
        total_batch_size=2,
        aspect_ratio_grouping=grouped,
        num_workers=workers,
    )
    assert reads_in_workers(loader) == bool(workers)
    assert not reads_in_workers(iter(images))


def test_copies(batch):
    """Every tensor is copied once; what is on the host stays there and can be read."""
    height, width = batch[0]["instances"].image_size
    batch[0]["instances"].gt_masks = BitMasks(torch.ones(2, height, width, dtype=torch.bool))
    batch[0]["proposals"] = Instances((height, width), scores=torch.ones(3))
    before, meta = copy.deepcopy(batch), torch.device("meta")
    with Operators(torch.ops.aten._to_copy) as copies:
        [ours] = LookAhead([batch], meta)
        for x in ours:
            on_device = x["instances"].to(meta)
            for field in on_device.get_fields().values():
                assert field.device == meta
            assert x["image"].device == x["image"].to(meta).device == meta
            assert x["instances"].gt_boxes.tensor.device.type == "cpu"
        assert ours[0]["proposals"].to(meta).scores.device == meta
        assert len(copies.seen) == 2 * 3 + 2, "image, boxes and classes; masks and scores"
    assert type(on_device.gt_boxes) is Boxes
    assert on_device.image_size == before[1]["instances"].image_size
    for x, y in zip(batch, before, strict=True):
        assert x.keys() == y.keys() and type(x["instances"]) is Instances
        assert torch.equal(x["image"], y["image"])
        assert torch.equal(x["instances"].gt_boxes.tensor, y["instances"].gt_boxes.tensor)


def test_other_formats_are_handed_out_as_they_are():
    batch = {"views": [torch.ones(2)]}
    assert next(LookAhead([batch], torch.device("meta"))) is batch


# Training.


def varied(batch, number):
    """The batch with other pixels, sizes and order each time."""
    for i in range(number):
        samples = []
        for x in batch[:: (-1) ** i]:
            image = x["image"].roll(i, dims=1)[:, : 96 - 8 * i]
            instances = Instances(image.shape[1:], **x["instances"].get_fields())
            samples.append({**x, "image": image, "instances": instances})
        yield samples


def _run(cfg, batch, look_ahead, *, steps=3, precision=None):
    """Train; the step, all losses, and the calls of the teacher's backbone."""
    torch.manual_seed(0)
    model = build_model(cfg)
    step = DistillStep(
        model,
        list(varied(batch, 2 * steps)),
        build_optimizer(cfg, model),
        accumulate=2,
        precision=precision,
        look_ahead=look_ahead,
        max_iter=steps,
    )
    torch.manual_seed(0)
    order = []
    theirs, ours = step.model.teacher.model.backbone, step.model.backbone
    with EventStorage() as storage, record(teacher=theirs, student=ours) as calls:
        theirs.register_forward_hook(lambda *_: order.append("t"))
        ours.register_forward_hook(lambda *_: order.append("s"))
        for step.iter in range(steps):
            storage.iter = step.iter
            step.run_step()
    losses = {name: h.values() for name, h in storage.histories().items() if "time" not in name}
    return model, losses, len(calls["teacher"]), "".join(order)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["R-CNN", "RetinaNet"])
def test_trains_the_same(request, batch, architecture, precision):
    cfg = request.getfixturevalue("distill_cfg" if architecture == "R-CNN" else "retina_cfg")
    cfg.DISTILL.METHODS = ("KD", "REVIEWKD")
    model, losses, calls, order = _run(cfg, batch, look_ahead=True, precision=precision)
    other, expected, other_calls, usual = _run(cfg, batch, look_ahead=False, precision=precision)
    assert losses == expected and losses["loss_kd"]
    assert calls == other_calls, "no features are computed twice"
    # The first batch prepares the teacher; until then nothing is started, for the second batch.
    assert usual == "tst st st st st st".replace(" ", "")
    assert order == "tst t st ts ts ts s".replace(" ", "")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.equal(p.grad, q.grad), name


class _Forced(HookBase):
    """Looks ahead on any device."""

    def before_train(self):
        self.trainer._trainer.looks_ahead = True


def test_resumed_run_equals_a_straight_one(run_cfg, tmp_path):
    """With a worker, which has read and augmented more batches than the checkpoint has steps."""
    run_cfg.DATASETS.TEST, run_cfg.INPUT.MIN_SIZE_TRAIN = (), (48,)
    run_cfg.INPUT.RANDOM_FLIP = "none"
    run_cfg.DATALOADER.NUM_WORKERS = 1
    run_cfg.SOLVER.CHECKPOINT_PERIOD = 2
    straight = train(run_cfg, tmp_path / "straight", [4], hook=_Forced())
    resumed = train(run_cfg, tmp_path / "resumed", [2, 4], hook=_Forced())
    assert resumed.start_iter == 2
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


IN_PROCESSES = """
import runpy, sys
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.modeling.teacher import DetectorTeacher

tool, look_ahead, output_dir, expected = sys.argv[1:5]
init, start, number = DistillStep.__init__, DetectorTeacher.look_ahead, []
DistillStep.__init__ = lambda *args, **options: init(
    *args, **{**options, "look_ahead": look_ahead == "True"}
)
DetectorTeacher.look_ahead = lambda *args: (number.append(1), start(*args))
sys.argv[1:] = [*sys.argv[5:], "OUTPUT_DIR", output_dir]
runpy.run_path(tool, run_name="__main__")
assert len(number) == int(expected), number
"""


def test_in_two_processes(cli_cfg, call_code, tool_environment, tmp_path):
    """DDP sums the same gradients, over micro-batches, too."""
    cli_cfg.SOLVER.ACCUMULATE = 2
    (tmp_path / "run.yaml").write_text(cli_cfg.dump())
    config = ("--config-file", tmp_path / "run.yaml", "SOLVER.MAX_ITER", 2)
    weights = []
    for look_ahead, number in ((True, 2), (False, 0)):
        options = (ROOT / "tools" / "train_net.py", look_ahead, tmp_path / str(look_ahead), number)
        environment = tool_environment()
        code, out, err = call_code(
            IN_PROCESSES, *options, *config, environment=environment, ranks=2
        )
        assert code == 0, out + err
        saved = torch.load(tmp_path / str(look_ahead) / "model_final.pth", weights_only=True)
        weights.append(saved["model"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


# Streams of a GPU.


class _Teacher(DetectorTeacher):
    """A teacher on the pretended GPU, whose preparation writes its weights anew."""

    weights = ()

    def _optimize(self):
        for module in self.model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, x in tensors.items():
                    tensors[name] = None if x is None else x.data.to("cuda:0") * 1
        self.weights = (*self.weights, *self.model.parameters(), *self.model.buffers())


def _pad(images, divisibility, **_):
    height, width = (max(x.shape[i] for x in images) for i in (1, 2))
    height, width = (-(-n // divisibility) * divisibility for n in (height, width))
    sides = [(0, width - x.shape[2], 0, height - x.shape[1]) for x in images]
    padded = [F.pad(x, side) for x, side in zip(images, sides, strict=True)]
    return ImageList(torch.stack(padded), [x.shape[1:] for x in images])


def _train(teacher, batches, levels, *, is_ahead=True):
    """Read images, instances and teacher's maps in the main stream, and step after the first."""

    def start(batch):
        if teacher.is_prepared:
            teacher.look_ahead(batch, "RGB", levels)

    device, kept = torch.device("cuda:0"), []
    for batch in LookAhead(batches, device, is_ahead=is_ahead, start=start):
        features = teacher.begin_features(batch, "RGB", levels)
        for x in batch:
            fields = x["instances"].to(device)
            kept.append((x["image"] + 1, fields.gt_boxes.tensor + 1, fields.gt_classes + 1))
        kept.append([x + 1 for x in features().values()])
        if not teacher.is_prepared:
            teacher.prepare()


def _check_streams(monkeypatch, cfg, batch, *, is_ahead=True, is_prepared=False):
    monkeypatch.setattr(ImageList, "from_tensors", _pad)
    teacher = _Teacher(build_model(cfg), input_format="BGR")
    with streams(monkeypatch) as checked:
        teacher._optimize()
        teacher.is_prepared = is_prepared
        checked.blocking, checked.copied = [], 0  # the weights
        _train(teacher, [batch] * 5, ["p2", "p3", "p4", "p5"], is_ahead=is_ahead)
        checked.check_memory(teacher.weights)
    return checked


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize("is_ahead", [False, True])
def test_streams(monkeypatch, teacher_cfg, batch, is_ahead, is_prepared):
    """Nothing is read too early, memory knows who reads it, and the host waits for no copy."""
    options = {"is_ahead": is_ahead, "is_prepared": is_prepared}
    checked = _check_streams(monkeypatch, teacher_cfg, batch, **options)
    assert not checked.faults and not checked.blocking
    assert checked.copied == 5 * 2 * 3, "image, boxes and classes of two images, once"


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("eakd_det.engine.train_step.look_ahead.Copies", "hand_out"),
        ("eakd_det.modeling.teacher.side_stream.SideStream", "wait"),
        ("tests.streams._Stream", "wait_event"),
        ("tests.streams._Stream", "wait_stream"),
        ("tests.streams.Streams", "record"),
    ],
)
def test_streams_without(monkeypatch, teacher_cfg, batch, owner, name):
    """`test_streams` sees each part that is missing."""
    monkeypatch.setattr(f"{owner}.{name}", lambda *_: None)
    assert _check_streams(monkeypatch, teacher_cfg, batch).faults


def test_streams_wait_for_no_more(monkeypatch, teacher_cfg, batch):
    """Features of the next batch do not wait for the student, nor the student for them."""
    behind_main, left = [], []
    look_ahead, begin = DetectorTeacher.look_ahead, DetectorTeacher.begin_features

    def note_start(teacher, *args):
        own = teacher._stream._stream
        others = {s: n for s, n in own.seen.items() if s not in (own, torch.cuda.current_stream())}
        look_ahead(teacher, *args)
        behind_main.append(any(own.seen[s] != n for s, n in others.items()))

    def note_end(teacher, *args):
        finish, own = begin(teacher, *args), teacher._stream._stream

        def wait():
            features = finish()
            left.append(own.seen[own] - torch.cuda.current_stream().seen[own])
            return features

        return wait

    monkeypatch.setattr(DetectorTeacher, "look_ahead", note_start)
    monkeypatch.setattr(DetectorTeacher, "begin_features", note_end)
    _check_streams(monkeypatch, teacher_cfg, batch)
    assert behind_main == [False] * 3
    assert [n > 0 for n in left] == [False, False, True, True, False]
