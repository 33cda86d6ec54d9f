#!/bin/bash
# fsck while the volume is open and written: no false alarm, whatever is going on. ECFS_LONG: two minutes instead of 10 seconds.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"
seconds=10; [ -z "${ECFS_LONG:-}" ] || seconds=120
cat >busy.py <<'PY'
"""Everything that a program does to files, at random, until it is stopped: in the directory given."""
import os
import random
import sys
import time

top, seed, until = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
rng = random.Random(seed)
os.makedirs(top)
data = os.urandom(1 << 20)
done = 0


def name():
    return rng.choice(["s", "l" * 190]) + str(rng.randrange(5))


def place():
    return os.path.join(top, *(["d" + str(rng.randrange(2))] if rng.random() < 0.4 else []), name())


while time.monotonic() < until:
    try:
        what = rng.randrange(12)
        if what < 5:  # written here and there, far behind the end too
            with open(place(), rng.choice(["r+b", "wb", "ab", "w+b"])) as file:
                for _ in range(rng.randrange(1, 20)):
                    file.seek(rng.choice([rng.randrange(1 << 14), rng.randrange(3 << 20)]))
                    file.write(data[:rng.choice([1, 4096, rng.randrange(1 << 18)])])
                    if rng.random() < 0.1:
                        os.fsync(file.fileno())
                    if rng.random() < 0.1:
                        file.truncate(rng.randrange(2 << 20))
                    if rng.random() < 0.05:
                        time.sleep(0.05)
        elif what == 5:
            os.truncate(place(), rng.randrange(8 << 20))
        elif what == 6:
            os.rename(place(), place())
        elif what == 7:
            os.unlink(place())
        elif what == 8:
            os.makedirs(os.path.join(top, "d" + str(rng.randrange(2))), exist_ok=True)
        elif what == 9:
            os.rename(os.path.join(top, "d" + str(rng.randrange(2))), os.path.join(top, "d" + str(rng.randrange(2))))
        elif what == 10:
            path = place()
            os.symlink("target " + str(rng.random()), path)
        else:
            path = place()
            os.setxattr(path, "user.note", data[:rng.randrange(1000)])
        done += 1
    except (FileNotFoundError, FileExistsError, OSError) as failed:
        if failed.errno in (5, 117):  # EIO
            print("FAILED:", failed)
print(done, file=sys.stderr)
PY
mkdir m
for options in "" "--sealed-size"; do
  echo "# ${options:-an ordinary volume}"
  rm -rf low; "$ECFS" init --passphrase-file p --recovery-key-file "rk$options" "${QUICK[@]}" $options low >/dev/null
  ecfs mount --passphrase-file p low m >/dev/null
  for i in 1 2 3; do python3 busy.py "m/busy$i" "$i" "$seconds" 2>"done$i" & done
  end=$((SECONDS + seconds)) checks=0
  while [ "$SECONDS" -lt "$end" ]; do
    "$ECFS" fsck --passphrase-file p --json --plain-names low >said.json; status=$?
    checks=$((checks + 1))
    python3 - "$status" <<'PY'
import json, sys
said = json.load(open("said.json"))
wrong = [f for f in said["findings"] if f["severity"] in ("damage", "leftover")]
if wrong or said["result"] not in ("clean", "incomplete"):
    print("FAILED: status", sys.argv[1], said["result"], wrong)
PY
  done
  wait
  echo "$checks checks during $(awk '{ n += $1 } END { print n }' done1 done2 done3) operations" >&3
  check "more than one check" test "$checks" -gt 1
  check "much was going on" test "$(awk '{ n += $1 } END { print n }' done1 done2 done3)" -gt 300
  echo "# nobody writes any more: still mounted, and then not"
  sleep 6
  "$ECFS" fsck --passphrase-file p low | tail -n 1
  ecfs umount m
  "$ECFS" fsck --passphrase-file p low | tail -n 1
done
