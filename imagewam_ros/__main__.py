# SPDX-License-Identifier: Apache-2.0
"""`python -m imagewam_ros` is the imagewam command."""

import sys

from imagewam_ros.cli import main

sys.exit(main())
