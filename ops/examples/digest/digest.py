#!/usr/bin/env python3
"""Generates a file from a seed, block by block, and hashes it as a chain: h = sha256(h + block).

The position and the chain are in one small file that is written beside and renamed, after the block it speaks of. So at
any moment the content is at least as long as the position says, and what is longer is cut off and made again: however
often this is killed and started, the digest is the one of an undisturbed run.
"""

import hashlib
import json
import os
import pathlib
import sys
import time

DEFAULTS = {"seed": "outlive", "steps": 256, "block_bytes": 65536, "pause_ms_per_step": 40}


def read_input():
    path = os.environ.get("OUTLIVE_INPUT", "")
    text = pathlib.Path(path).read_text(encoding="utf-8") if path and os.path.exists(path) else ""
    given = json.loads(text) if text.strip() else {}
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        sys.exit(f"the input has unknown fields: {', '.join(unknown)}; known are {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **given}


def block(seed, step, size):
    return hashlib.shake_256(f"{seed}/{step}".encode()).digest(size)


def chained(chain, data):
    return hashlib.sha256(bytes.fromhex(chain) + data).hexdigest()


def load(position):
    if not position.exists():
        return {"step": 0, "chain": ""}
    return json.loads(position.read_text(encoding="utf-8"))


def save(position, state):
    beside = position.with_suffix(".new")
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, position)


def rehash(content, size):
    """The chain again, from the file alone: what was restored must be what was written."""
    chain = ""
    with open(content, "rb") as file:
        while data := file.read(size):
            chain = chained(chain, data)
    return chain


def main():
    options = read_input()
    seed, steps, size = options["seed"], options["steps"], options["block_bytes"]
    folder = pathlib.Path(os.environ["OUTLIVE_STATE_DIR"])
    position, content = folder / "position.json", folder / "content"
    state = load(position)
    attempt = os.environ.get("OUTLIVE_ATTEMPT", "1")
    print(f"attempt {attempt} starts at step {state['step']} of {steps}", flush=True)

    with open(content, "ab") as file:
        if file.tell() < state["step"] * size:
            sys.exit(f"the content has {file.tell()} bytes, but the position says {state['step'] * size}")
        file.truncate(state["step"] * size)
        for step in range(state["step"], steps):
            data = block(seed, step, size)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            state = {"step": step + 1, "chain": chained(state["chain"], data)}
            save(position, state)
            if state["step"] % 16 == 0 or state["step"] == steps:
                print(f"step {state['step']} of {steps}: {state['chain'][:16]}…", flush=True)
            time.sleep(options["pause_ms_per_step"] / 1000)

    found = rehash(content, size)
    if found != state["chain"]:
        sys.exit(f"the content's digest is {found}, but the chain says {state['chain']}")
    pathlib.Path(os.environ["OUTLIVE_RESULT"]).write_text(state["chain"] + "\n", encoding="utf-8")
    print(f"digest {state['chain']}", flush=True)


main()
