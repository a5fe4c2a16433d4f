"""``python -m langswarm_session.cli``, for where the script is not on the path."""

import sys

from langswarm_session.cli import main

sys.exit(main())
