"""Imported by the tools before torch: silences what imports announce to their own authors.

Importing the package changes no warning of a user's process.
"""

import logging
import warnings

DEPRECATIONS = (
    "pkg_resources is deprecated",
    "`torch.jit.script",
    "torch.meshgrid: in an upcoming release",
)

for _message in DEPRECATIONS:
    for _category in (FutureWarning, UserWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", message=_message, category=_category)


class _NoAdviceForTracers(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "is_fx_tracing" not in record.getMessage()


logging.getLogger("torch.fx._symbolic_trace").addFilter(_NoAdviceForTracers())
