"""Which metrics the code emits, read off the code; and which ones an expression asks for.

Rules and dashboards are held against it, so that none asks for a metric that was renamed or never was.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("scheduler/src", "executor/src", "store/src", "ops/cli/src")
# Of the parts underneath, and of Prometheus itself.
FOREIGN = re.compile(r"^(up|ALERTS|etcd_\w+|process_\w+)$")
NAME = re.compile(r"(?:(?:leader|cluster):)?\b(?:outlive|etcd)_[a-z0-9_]+(?::[a-z0-9_]+)?")


def emitted():
    """The names that stand as strings in the code, with what a histogram makes of each."""
    names = set()
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.rs"):
            names |= set(re.findall(r'"(outlive_[a-z0-9_]+)"', path.read_text(encoding="utf-8")))
    return names | {name + end for name in names for end in ("_bucket", "_sum", "_count")}


def recorded():
    """The names that recording rules give."""
    import yaml  # Only checks need it, and they run where it is.

    names = set()
    for path in sorted((ROOT / "ops/prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            names |= {rule["record"] for rule in group["rules"] if "record" in rule}
    return names


def asked_for(expression):
    """The metrics in an expression. Label names and strings hold no `outlive_`."""
    return set(NAME.findall(expression))


def unknown(expression, of_rules):
    """Those that neither the code emits nor a rule records."""
    known = emitted() | set(of_rules)
    return sorted(name for name in asked_for(expression) if name not in known and not FOREIGN.match(name))
