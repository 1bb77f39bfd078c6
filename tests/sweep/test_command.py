import argparse

from eakd_det.sweep.command import _submitted


def test_the_next_commands_name_the_folder():
    text = _submitted(argparse.Namespace(output_dir="my runs", repeat=[]))
    assert "--output-dir 'my runs' --status shows the progress" in text
    assert "--output-dir 'my runs' --table-only writes the tables" in text
    text = _submitted(argparse.Namespace(output_dir="x", repeat=["a.csv", "KD"]))
    assert "--output-dir x --status" in text and "without --detach waits" in text
    assert "--table-only" not in text
