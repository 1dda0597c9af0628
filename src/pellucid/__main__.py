"""`python -m pellucid` is the command `pellucid`."""

import os
import sys

from .cli import main
from .cli.launch import is_launched

try:
    main()
except SystemExit as ended:
    if not is_launched() or not isinstance(ended.code, int):
        raise
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended.code)  # threads by which processes exchange tensors outlive the interpreter, and may abort it
