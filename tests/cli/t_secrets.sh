#!/bin/bash
# CVE-2008-5188, CVE-2009-1296: no secret in the arguments or the environment of any process, nor in what the tool prints: a sampler looks at all of /proc
# while every command runs that takes or makes one.
. "$(dirname "$0")/lib.sh"
cd "$HOME_A"
PASS='canary one 4711 passphrase'; NEW='canary two 1882 passphrase'
secret p "$PASS"; secret n "$NEW"; chown ecfsalice: p n
cat >"$T/sampler.py" <<'PY'
import os, re, sys, time
# The canaries arrive on stdin: the sampler itself must not show them.
words = [line.strip() for line in sys.stdin if line.strip()]
files = {"rk": None, "rk2": None, "rk3": None}
seen, samples = set(), 0
print("ready", flush=True)
last = False
while not last:
    last = os.path.exists(sys.argv[1] + "/stop")  # once more then
    for name in files:
        try:
            files[name] = open(sys.argv[2] + "/" + name).read().strip()
        except OSError:
            pass
    canaries = words + [key for key in files.values() if key]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what in ("cmdline", "environ"):
            try:
                data = open(f"/proc/{pid}/{what}", "rb").read()
            except OSError:
                continue
            samples += 1
            for number, canary in enumerate(canaries):
                if canary.encode() in data:
                    seen.add((what, number, data.split(b"\0")[0]))
print(f"{samples} samples", file=sys.stderr)
print("seen:", sorted(seen) if seen else "nothing")
PY
printf '%s\n' "$PASS" "$NEW" | python3 "$T/sampler.py" "$T" "$HOME_A" >"$T/sampled" 2>"$T/samples" & sampler=$!
await grep -q ready "$T/sampled"
{
  alice "$ECFS" setup-private --yes --passphrase-file p --recovery-key-file rk "${QUICK[@]}"
  alice "$ECFS" mount-private --passphrase-file p
  alice "$ECFS" status --json; alice "$ECFS" status
  alice "$ECFS" umount-private
  alice "$ECFS" key add recovery --passphrase-file p --recovery-key-fd 5 Private 5>rk2
  alice "$ECFS" key change --passphrase-file p --new-passphrase-file n "${QUICK[@]}" Private
  alice "$ECFS" key change --passphrase-file p --new-passphrase-file n "${QUICK[@]}" Private
  alice "$ECFS" mount-private --passphrase-file rk
  alice "$ECFS" umount-private
  alice "$ECFS" mount-private --recovery --passphrase-file p
  alice mkdir -p m; alice "$ECFS" init --passphrase-file n --recovery-key-file rk3 "${QUICK[@]}" low
  alice env ECFS_DEBUG=1 "$ECFS" mount --passphrase-file n low m; alice "$ECFS" umount m
  alice env ECFS_DEBUG=1 "$ECFS" mount --passphrase-file p low m
  alice "$ECFS" key list --json low
  alice "$ECFS" recover-private --passphrase-file rk3 --mountpoint m low; alice "$ECFS" umount m
  alice "$ECFS" init --passphrase-file p low2 "${QUICK[@]}"
  printf '%s\n%s' "$PASS" "$NEW" | alice "$ECFS" wrap-passphrase wrapped -
  printf '%s\n%s' "$NEW" "$NEW" | alice "$ECFS" rewrap-passphrase wrapped -
  printf '%s' "$NEW" | alice "$ECFS" unwrap-passphrase wrapped - >unwrapped
  printf '%s' "$NEW" | alice keyctl session ecfs-test "$ECFS" insert-wrapped-passphrase-into-keyring wrapped -
  printf '%s' "$PASS" | alice keyctl session ecfs-test "$ECFS" add-passphrase --fnek -
  alice keyctl clear @u
} >"$T/printed" 2>&1
touch "$T/stop"; wait "$sampler"
tail -n 1 "$T/sampled"
cat "$T/samples" >&3
check "the sampler looked often" test "$(cut -d' ' -f1 "$T/samples")" -gt 1000
cp p c1; cp n c2
for secret in c1 c2 rk rk2 rk3; do check "$secret was not printed" eval "test -s $secret && ! grep -qF -f $secret '$T/printed'"; done
check "the passphrase was unwrapped" cmp -s unwrapped p
check "nor stored" not grep -rqF -f c1 .ecfs .Private low wrapped wrapped.bak
check "nor the recovery key" not grep -rqF -f rk .ecfs .Private low
# The sampler must be able to find one.
rm "$T/stop"; printf '%s\n' "$PASS" | python3 "$T/sampler.py" "$T" "$HOME_A" >"$T/sampled" 2>/dev/null & sampler=$!
await grep -q ready "$T/sampled"; python3 -c 'import time; time.sleep(60)' "$PASS" & canary=$!; disown "$canary"
await grep -qsa canary "/proc/$canary/cmdline"; touch "$T/stop"; wait "$sampler"; kill "$canary"
check "a canary in an argument is found" grep -q "seen: \[('cmdline', 0" "$T/sampled"
