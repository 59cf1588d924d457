"""`python -m fieldlab` is the command `fieldmarks`."""

import sys

from fieldlab.cli import main

sys.exit(main())
