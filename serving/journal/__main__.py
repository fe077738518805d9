"""`python -m serving.journal FOLDER`: cut off the half lines that killed processes left, where no server starts again."""

import sys
from pathlib import Path

from serving.journal.writer import repair


def main(folder: Path) -> None:
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder: name the journal of a server, live/journal")
    for path in sorted(folder.glob("**/*.ndjson")):
        if repair(path):
            print(f"{path} ended in half a line, which was cut off")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{__doc__}")
    main(Path(sys.argv[1]))
