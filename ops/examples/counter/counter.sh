#!/bin/sh
# Counts for ever, five times a second. The number lives in the file `count`; writing a new file and renaming it means
# that whoever looks, and whenever a power cut comes, there is one whole number in it.
set -eu
cd "$OUTLIVE_STATE_DIR"

count=0
if [ -f count ]; then
  count=$(cat count)
  echo "attempt $OUTLIVE_ATTEMPT goes on from $count (checkpoint ${OUTLIVE_RESTORED_CHECKPOINT:-none})"
else
  echo "attempt $OUTLIVE_ATTEMPT starts from nothing"
fi

while :; do
  count=$((count + 1))
  echo "$count" >count.new
  mv count.new count
  echo "attempt $OUTLIVE_ATTEMPT: $count"
  sleep 0.2
done
