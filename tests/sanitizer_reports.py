"""What sanitizers wrote into a folder (their option log_path), for the tests that start programs whose stderr nobody sees."""

import os
import re

# The search for leaks came when a thread was ending: it has no registers any more, and holds nothing.
NO_FINDING = re.compile(r"==\d+==Unable to get registers from thread \d+\.\n")


def findings(folder):
    """The texts of the reports that find something."""
    texts = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), errors="replace") as f:
            text = NO_FINDING.sub("", f.read())
        if text.strip():
            texts.append(text)
    return texts
