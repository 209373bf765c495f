"""`python -m pipeline` is `gpt2-tfx`."""

import sys

from pipeline.cli import main

sys.exit(main())
