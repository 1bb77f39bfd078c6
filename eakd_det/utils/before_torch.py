"""Settings of the process of a tool, which must be imported before torch reads them.

Deprecation warnings of imported packages are hidden, and waiting threads sleep. A training of a
sweep keeps the heartbeat of its lock. The package itself does not import this module, so a user's
own process keeps its settings.
"""

import logging
import os
import warnings

DEPRECATIONS = (
    "pkg_resources is deprecated",
    "`torch.jit.script",
    "torch.meshgrid: in an upcoming release",
)

# On cores that are shared with another program, spinning threads take most of the time: each of
# many short operators waits for its slowest thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

for _message in DEPRECATIONS:
    for _category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", message=_message, category=_category)


class _NoAdviceForTracers(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "is_fx_tracing" not in record.getMessage()


logging.getLogger("torch.fx._symbolic_trace").addFilter(_NoAdviceForTracers())

if "EAKD_HEARTBEAT" in os.environ:  # heartbeat.VARIABLE, set by a sweep
    from .heartbeat import beat_with_parent

    beat_with_parent()
