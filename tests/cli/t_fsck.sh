#!/bin/bash
# fsck: what it finds, names and puts right; what it exits with; what it refuses. The kinds of damage to files and names one
# by one are in tests/fs/check.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"; secret wrong "wrong"
# f ARGUMENTS...: fsck, with lower names (another for each key) made the same and findings in order.
f() {
  local status said
  printf '$ ecfs fsck'; printf ' %s' "$@"; printf '\n'
  said=$("$ECFS" fsck --passphrase-file p "$@" 2>&1); status=$?
  said=$(sed -E 's#~?[A-Za-z0-9_-]{43,}#@LOWER@#g' <<<"$said")
  local finding='^(damaged|repaired|leftover|unchecked|note|          ) '
  grep -E "$finding" <<<"$said" | sort; grep -vE "$finding" <<<"$said"
  [ "$status" -eq 0 ] || echo "= $status"
}
find_lower() { "$ECFS" find --passphrase-file p low --plain "$1" 2>/dev/null; }
flip() { printf '\xa5' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
mkdir m
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" orig >/dev/null
ecfs mount --passphrase-file p orig m >/dev/null
long=$(printf 'l%.0s' $(seq 200))
mkdir -p m/Documents/old m/empty
seq 60000 >m/Documents/tax.pdf; echo small >m/Documents/small; mv m/Documents/old m/Documents/new; echo x >m/Documents/new/inside
truncate -s 20M m/sparse; ln -s Documents/tax.pdf m/link; echo long >"m/$long"; echo one >m/first; ln m/first m/second; mkfifo m/fifo
ecfs umount m
fresh() { rm -rf --one-file-system low; cp -a orig low; }

echo "# clean"; fresh
f low
f --quick low
f --repair low
sums() { (cd "$1" && find . -printf '%P %y %m %s %T@\n' | sort && find . -type f -exec sha256sum {} + | sort); }
check "nothing was changed" eval 'diff <(sums orig) <(sums low)'
run ecfs fsck --recovery --passphrase-file rk low
run ecfs fsck --passphrase-file wrong low
run ecfs fsck --passphrase-file p m
run ecfs fsck --passphrase-file p nowhere
echo "# a changed byte of a large file, and of a small one"
tax=$(find_lower Documents/tax.pdf); small=$(find_lower Documents/small)
flip "$tax" 70000; flip "$tax" 75000; flip "$tax" 300000; flip "$small" 66
f low
f --plain-names low
f --plain-names --quick low
f --plain-names --repair low
echo "# as JSON"
"$ECFS" fsck --passphrase-file p --plain-names --json low >said.json; echo "= $?"
python3 - <<'PY'
import json
said = json.load(open("said.json"))
for finding in sorted(said["findings"], key=lambda f: f["plain"]):
    print({key: value for key, value in finding.items() if key != "lower"})
print(said["result"], {key: value for key, value in said["totals"].items() if value})
PY
check "plain names only where asked for" not eval "'$ECFS' fsck --passphrase-file p --json low | grep -q tax"
echo "# what verifies of them is copied out"
f --plain-names --salvage saved low
sed -E 's#~?[A-Za-z0-9_-]{43,}#@LOWER@#g' saved/list.txt | sort; stat -c '%a %n' saved/*
python3 - <<'PY'
want = "".join(f"{n}\n" for n in range(1, 60001)).encode()
got = open("saved/files/Documents/tax.pdf", "rb").read()
blocks = range(0, len(want), 4096)
print(len(got) == len(want), [b // 4096 for b in blocks if got[b:b + 4096] != want[b:b + 4096]], [b // 4096 for b in blocks if not any(got[b:b + 4096])])
PY
f --salvage saved low
f --salvage low/inside low
mkdir loose; chmod 777 loose; f --salvage loose low
echo "# zeros into the damaged blocks, for a program that mends its file"
f --zero-bad Documents/tax.pdf low
f --zero-bad Documents/tax.pdf low
f --zero-bad Documents/nothing low
f --zero-bad Documents/tax.pdf --repair low
f --plain-names low
echo "# copies of the header"; fresh
rm low/.ecfs-volume.bak; f low; f --repair low; f low
flip low/.ecfs-volume 40; f low; f --repair low; f low
rm low/.ecfs-volume; f --repair low; check "both are there" test -f low/.ecfs-volume -a -f low/.ecfs-volume.bak
echo "# a leftover of an interruption"; fresh
head -c 3000 /dev/zero >>"$(find_lower Documents/small)"; sleep 1.2
f --plain-names low; f --plain-names --repair low; f low
echo "# a long name without its side file"; fresh
rm "$(find_lower "$long").n"
f low; f --repair low; f --repair --known-name "$long" low; f low
echo "# the id of a directory: damaged, and lost"; fresh
new=$(dirname "$(find_lower Documents/new/inside)")
chmod u+w "$new/.ecfs-dir"; flip "$new/.ecfs-dir" 20
f --plain-names low; f --plain-names --repair low
rm "$new/.ecfs-dir"
f --plain-names --repair low; f --plain-names --repair --known-name Documents/old low; f low
echo "# names of others, FIFOs, a directory inside itself"; fresh
touch low/.DS_Store "$(find_lower Documents/tax.pdf) (conflicted copy)"; mkfifo low/fifo; ln -s / low/root
mount --bind low "$(find_lower empty)"
f --plain-names low
umount "$(find_lower empty)"
touch "$(printf 'low/a \033[31m\302\233 \377 name\n')"; f low | grep '31m'
"$ECFS" fsck --passphrase-file p --json low | tee json | grep -c 31m; check "JSON in ASCII" eval '! LC_ALL=C grep -q "[^ -~]" json && python3 -m json.tool json'
rm "$(printf 'low/a \033[31m\302\233 \377 name\n')"
for i in $(seq 30); do touch "low/foreign.$i"; done
f low >said; grep -v '^note  *lower file' said; grep -c ^note said  # which files are named is up to the lower directory's order
f --verbose low | grep -c foreign
echo "# mounted"; fresh
ecfs mount --passphrase-file p low m >/dev/null
f low
f m
f --repair low
f --zero-bad Documents/tax.pdf low
ecfs umount m
flock --exclusive low sleep 60 & await pgrep -P $! -x sleep >/dev/null
run ecfs fsck --repair --passphrase-file p low | sed -E 's/process [0-9]+/process @PID@/'
pkill -P $!; wait 2>/dev/null
echo "# a volume with a profile, by its name"
cd "$HOME_A"; cp "$T/p" p; chown ecfsalice: p
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
alice "$ECFS" setup-private --yes --passphrase-file p --recovery-key-file rk "${QUICK[@]}" >/dev/null
cp -a .Private/.ecfs-volume older
alice "$ECFS" key add recovery --passphrase-file p --recovery-key-file rk2 Private >/dev/null
a fsck --passphrase-file p Private
cp -a older .Private/.ecfs-volume; echo rubbish >.ecfs/Private/volume.bak
a fsck --passphrase-file p Private
a fsck --repair --passphrase-file p Private
a fsck --passphrase-file p Private
check "the recovery key that was added is there" eval "alice '$ECFS' key list Private | grep -c recovery | grep -qx 2"
a fsck Private
echo "# what may not be read"
alice "$ECFS" mount-private --passphrase-file p >/dev/null; alice sh -c 'echo secret >Private/locked; chmod 0 Private/locked'; alice "$ECFS" umount-private
a fsck --passphrase-file p Private | sed -E 's#~?[A-Za-z0-9_-]{43,}#@LOWER@#g'
check "root may" ecfs fsck --passphrase-file rk .Private
echo "# on a terminal"
cd "$T"; fresh; flip "$(find_lower Documents/tax.pdf)" 70000; sleep 1.2
python3 - <<'PY'
import os, pty, re
pid, fd = pty.fork()
if pid == 0:
    os.execv(os.environ.get("ECFS_TOOL", "bin/setup/ecfs"), ["ecfs", "fsck", "--passphrase-file", "p", "low"])
said = b""
try:
    while chunk := os.read(fd, 4096):
        said += chunk
except OSError:
    pass
os.waitpid(pid, 0)
text = said.decode()
print("ok: a bar" if re.search(r"Checking  \[#+\.*\] +\d+% of [\d.]+ MiB, \d+ of \d+ entries(, [\d.]+ MiB/s)?\r\n", text) else "FAILED: " + repr(text))
print("ok: plain names" if "damaged    Documents/tax.pdf: 4096 of" in text else "FAILED: " + repr(text))
print("ok: no line of the bar is left before a finding" if re.search(r"\r +\rdamaged ", text) or "entries" not in text.split("damaged")[0] else "FAILED: " + repr(text))
PY
