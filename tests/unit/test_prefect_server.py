"""A server that waits for SQLite's write lock goes on answering."""

import subprocess
import sys
from pathlib import Path

import pytest

# Freeing the cursor waits for its connection, which waits for the lock, which the main thread's commit releases.
SCRIPT = """
import gc, sqlite3, sys, threading, time

path, collected_by, seconds = sys.argv[1:]
if collected_by == "thread":
    from infra.prefect_server import collect_in_a_thread
    collect_in_a_thread()

holder = sqlite3.connect(path, isolation_level=None)
waiter = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=float(seconds))
holder.execute("CREATE TABLE t (x)")
holder.execute("BEGIN IMMEDIATE")
cycle = [waiter.execute("SELECT 1 UNION ALL SELECT 2")]
cycle.append(cycle)
thread = threading.Thread(target=lambda: waiter.execute("INSERT INTO t VALUES (1)"))
thread.start()
time.sleep(1)
del cycle
before = gc.get_stats()[1]["collections"]
kept = []
while gc.get_stats()[1]["collections"] < before + 2:
    kept.append([[] for _ in range(100)])
    time.sleep(0.001)
holder.execute("COMMIT")
thread.join()
print(holder.execute("SELECT count(*) FROM t").fetchone()[0])
"""


@pytest.mark.parametrize(
    ("collected_by", "seconds", "inserted", "error"),
    [("thread", "60", "1", ""), ("main thread", "3", "0", "database is locked")],
)
def test_freeing_a_cursor_holds_up_the_collector_alone(
    tmp_path: Path, collected_by: str, seconds: str, inserted: str, error: str
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "x.db"), collected_by, seconds]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip() == inserted
    assert error in ended.stderr
