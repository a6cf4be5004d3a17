# shellcheck shell=bash
# Sourced, by bash: puts what ops/setup installed on PATH, and says which servers `outlive dev` and the tests start.
# A server that is already named in the environment stays.

outlive_tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.tools
export PATH="$outlive_tools/bin:$PATH"
if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
  export PATH="$PATH:${HOME:-}/.cargo/bin"
fi

# The first non-empty one of: what the environment says, what PATH has.
if [ -z "${OUTLIVE_NATS_SERVER:-}" ] && command -v nats-server >/dev/null; then
  OUTLIVE_NATS_SERVER=$(command -v nats-server)
  export OUTLIVE_NATS_SERVER
fi
if [ -z "${OUTLIVE_ETCD:-}" ] && command -v etcd >/dev/null; then
  OUTLIVE_ETCD=$(command -v etcd)
  export OUTLIVE_ETCD
fi
# The python that has nats-py, for the tests with a client that is not ours.
if [ -x "$outlive_tools/venv/bin/python" ]; then
  export OUTLIVE_TEST_PYTHON="$outlive_tools/venv/bin/python"
fi
unset outlive_tools
