"""Imported by the tools before torch, which reads some settings of a process once, at its start.

It silences what imports announce to their own authors, and lets threads that wait for each other
sleep. Importing the package changes neither in a user's process.
"""

import logging
import os
import warnings

DEPRECATIONS = (
    "pkg_resources is deprecated",
    "`torch.jit.script",
    "torch.meshgrid: in an upcoming release",
)

# Where another program wants the cores, too, threads that spin burn most of them: each of many
# short operators waits for its slowest thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

for _message in DEPRECATIONS:
    for _category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", message=_message, category=_category)


class _NoAdviceForTracers(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "is_fx_tracing" not in record.getMessage()


logging.getLogger("torch.fx._symbolic_trace").addFilter(_NoAdviceForTracers())
