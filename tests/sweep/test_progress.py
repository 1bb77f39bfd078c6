import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios

from eakd_det.sweep.progress import Progress, duration, estimate, progress_line


def test_the_text():
    assert (
        str(Progress(3, 2, 1, 4, 3723.4))
        == "done 3, running 2, failed 1, left 4, time left 1:02:03"
    )
    assert str(Progress(0, 1, 0, 9, None)) == "done 0, running 1, failed 0, left 9"
    assert duration(59.6) == "0:01:00"


def test_the_time_left():
    assert estimate([], [1.0], 3, 1) is None
    assert estimate([8.0, 12.0], [4.0], 0, 1) == 6.0
    assert estimate([10.0], [4.0], 2, 1) == 26.0
    assert estimate([10.0], [4.0, 9.0], 3, 2) == 21.0  # 6 and 1, then 11, 16 and 21
    assert estimate([10.0], [25.0], 0, 1) == 0.0  # longer than those before
    assert estimate([10.0], [], 2, 3) == 10.0


LOOP = """
import logging, sys
from eakd_det.sweep.progress import Progress, progress_line
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with progress_line(4) as line:
    for i in range(4):
        line.show(Progress(i, 1, 0, 3 - i, None))
        logging.info("message %d", i)
print("table")
"""


def test_on_a_terminal_it_stays_in_its_line():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 70, 0, 0))
    subprocess.run([sys.executable, "-c", LOOP], stdout=slave, check=True)
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 4096):
            text += chunk
    except OSError:  # Linux: the other side is closed
        pass
    os.close(master)
    lines = text.decode().split("\n")
    assert len(lines) == 6, "each message and the table end a line, and no progress does"
    assert [line.rstrip("\r").rpartition("\r")[2] for line in lines[:4]] == [
        f"message {i}" for i in range(4)
    ]
    assert lines[3].startswith(
        "\r[######      ] done 2, running 1, failed 0, left 1\r[#########   ] "
    )
    assert lines[4].rstrip("\r").endswith("\rtable")


def test_without_a_terminal_there_is_no_line(capsys, caplog):
    with progress_line(3) as line, caplog.at_level("INFO"):
        line.show(Progress(1, 1, 0, 1, None))
        logging.getLogger("eakd_det.sweep").info("message")
    assert capsys.readouterr() == ("", "") and caplog.messages == ["message"]
