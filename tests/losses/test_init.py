import subprocess
import sys
from pathlib import Path

import eakd_det

WITHOUT_DETECTRON2 = """
import sys
from importlib.abc import MetaPathFinder

BLOCKED = {"detectron2", "fvcore", "iopath"}


class Blocker(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocker())
import eakd_det.losses

assert not BLOCKED & {name.partition(".")[0] for name in sys.modules}
assert eakd_det.losses.kd_loss
"""


def test_losses_import_without_detectron2():
    root = Path(eakd_det.__file__).parents[1]
    command = [sys.executable, "-c", WITHOUT_DETECTRON2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
