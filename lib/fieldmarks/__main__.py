"""`python -m fieldmarks` is the command `fieldmarks`."""
import sys

from .cli import main

sys.exit(main())
