#!/usr/bin/env python3
"""Indexes the words of every text file under a directory into a SQLite database, index.db, in the state directory.

Files are taken in the order of their paths' bytes, a batch at a time. A batch's rows and the path it ends with are
committed in one transaction, so whatever moment the database is restored from, it says itself where to go on; and file
numbers follow from that order. Hence the tables at the end are the same, row for row, however often this is killed.

The input is JSON, every field optional: {"directory": "/usr/share/doc", "pause_ms_per_file": 0, "files_per_batch": 20}.
"""

import collections
import hashlib
import json
import os
import pathlib
import re
import sqlite3
import stat
import sys
import time

DEFAULTS = {"directory": "/usr/share/doc", "pause_ms_per_file": 0, "files_per_batch": 20}
FILE_BYTES_MAX = 1 << 20  # Larger ones are logs and dumps, and would make one batch last very long.
WORD = re.compile(r"[a-z]{2,32}")

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, words INTEGER NOT NULL, skipped_because TEXT
);
CREATE TABLE IF NOT EXISTS postings (
    word TEXT NOT NULL, file INTEGER NOT NULL REFERENCES files, count INTEGER NOT NULL, PRIMARY KEY (word, file)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (only INTEGER PRIMARY KEY CHECK (only = 1), last_path BLOB NOT NULL);
"""


def read_input():
    path = os.environ.get("OUTLIVE_INPUT", "")
    text = pathlib.Path(path).read_text(encoding="utf-8") if path and os.path.exists(path) else ""
    given = json.loads(text) if text.strip() else {}
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        sys.exit(f"the input has unknown fields: {', '.join(unknown)}; known are {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **given}


def paths_under(directory):
    """Every file's path below the directory, as bytes, in order. Symbolic links are not followed."""
    root = os.fsencode(directory)
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(os.path.relpath(path, root) for path in found)


def words_of(path):
    """The words of one file with their counts, or the rule by which it is skipped."""
    if path.endswith(b".gz"):
        return None, "compressed"
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return None, "not a regular file"
        if status.st_size > FILE_BYTES_MAX:
            return None, "over 1 MiB"
        data = pathlib.Path(os.fsdecode(path)).read_bytes()
    except OSError:
        return None, "unreadable"
    if b"\0" in data:
        return None, "binary"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None, "not UTF-8"
    return collections.Counter(WORD.findall(text.lower())), None


def index(database, directory, paths, done, options):
    size = options["files_per_batch"]
    for start in range(done, len(paths), size):
        batch = paths[start : start + size]
        with database:
            for number, path in enumerate(batch, start + 1):
                counts, skipped = words_of(os.path.join(os.fsencode(directory), path))
                counts = counts or {}
                name = path.decode("utf-8", "backslashreplace")
                database.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (number, name, sum(counts.values()), skipped))
                rows = [(word, number, counts[word]) for word in sorted(counts)]
                database.executemany("INSERT INTO postings VALUES (?, ?, ?)", rows)
                time.sleep(options["pause_ms_per_file"] / 1000)
            database.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (batch[-1],))
        print(f"indexed {start + len(batch)} of {len(paths)} files", flush=True)


def files_done(database, paths):
    """How many of the paths an earlier attempt has committed; refuses to mix two different directories in one index."""
    row = database.execute("SELECT last_path FROM position").fetchone()
    if row is None:
        return 0
    done = database.execute("SELECT count(*) FROM files").fetchone()[0]
    if done > len(paths) or paths[done - 1] != row[0]:
        sys.exit(f"the directory's files changed since the last attempt: file {done} was {os.fsdecode(row[0])}")
    return done


def summary(database):
    digest = hashlib.sha256()
    for table, order in (("files", "number"), ("postings", "word, file")):
        for row in database.execute(f"SELECT * FROM {table} ORDER BY {order}"):
            digest.update(json.dumps(row).encode() + b"\n")
    totals = database.execute("SELECT count(*), count(skipped_because), total(words) FROM files")
    files, skipped, words = totals.fetchone()
    distinct = database.execute("SELECT count(DISTINCT word) FROM postings").fetchone()[0]
    return {
        "files": files,
        "skipped": skipped,
        "words": int(words),
        "distinct_words": distinct,
        "sha256": digest.hexdigest(),
    }


def main():
    options = read_input()
    directory = options["directory"]
    if not os.path.isdir(directory):
        sys.exit(f"the directory {directory} does not exist here")
    paths = paths_under(directory)
    database = sqlite3.connect(os.path.join(os.environ["OUTLIVE_STATE_DIR"], "index.db"))
    database.executescript(SCHEMA)
    done = files_done(database, paths)
    print(f"attempt {os.environ.get('OUTLIVE_ATTEMPT', '1')} starts at file {done} of {len(paths)}", flush=True)
    index(database, directory, paths, done, options)
    result = json.dumps(summary(database))
    pathlib.Path(os.environ["OUTLIVE_RESULT"]).write_text(result + "\n", encoding="utf-8")
    print(result, flush=True)


main()
