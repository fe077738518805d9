"""The tags of runs, and the beginnings of metric names that have a meaning."""

# Tags that every run carries, and the one that evaluation adds.
DATA = "data"  # fingerprint of the dataset
COMMIT = "commit"  # of the code
LOCK = "lock"  # hash of the locked, or else the installed, package versions
PROTOCOL = "protocol"  # split, seen items and ties, in words: only runs that share it are ranked together
STAGE = "stage"  # of a child: what part of its parent it is

BUSY_S = "busy_s"  # seconds that processes worked on the run; the time between two stages does not count
LOCAL_ID = "recsys.local_id"  # by which a run is found again that was made just before its maker was killed
INHERITED = (DATA, COMMIT, LOCK, "config")  # tags of a run that the runs below it have, too
PARENT_TAG = "mlflow.parentRunId"

MEASURED = ("test/", "floor/", "slice/")  # what evaluation measures; it writes NaN over what it measures no longer
