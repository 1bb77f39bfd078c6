import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys
sys.path.insert(1, sys.argv[1])
import llm
from transformers.utils import is_datasets_available
print(is_datasets_available())
"""


def test_a_data_folder_is_not_imported_as_a_package(tmp_path):
    """python -c puts the current folder on the path, as do PYTHONPATH=. and pytest."""
    (tmp_path / "datasets" / "dolly").mkdir(parents=True)
    command = [sys.executable, "-c", CODE, str(ROOT)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == "False", result.stderr
