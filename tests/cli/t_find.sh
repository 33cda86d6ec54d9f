#!/bin/bash
# find and stat: from plain to lower and back, mounted or not; what is told without a key.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"
# Lower names are others for each key, and the room on the disk is the filesystem's affair.
same() { sed -E 's#~?[A-Za-z0-9_-]{43,}#@LOWER@#g; s/on disk [0-9]+ bytes?/on disk @N@/; s/"disk_bytes": [0-9]+/"disk_bytes": @N@/'; }
r() { run ecfs "$@" | same; return "${PIPESTATUS[0]}"; }
mkdir m
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" low >/dev/null
ecfs mount --passphrase-file p low m >/dev/null
long=$(printf 'l%.0s' $(seq 200))
mkdir -p m/Documents/old; seq 60000 >m/Documents/tax.pdf; mv m/Documents/old m/Documents/new; echo x >m/Documents/new/inside
ln -s Documents/tax.pdf m/link; truncate -s 20M m/sparse; : >m/empty; printf 'not \377 utf-8' >"m/odd
name"; echo long >"m/$long"; echo y >m/Documents/gone; mkfifo m/fifo
chmod 640 m/Documents/tax.pdf; ln m/Documents/tax.pdf m/second
find_() { "$ECFS" find --passphrase-file p "$@"; }
echo "# mounted: every file is found both ways"
both=0
while IFS= read -r -d '' file; do
  lower=$(find_ "$file" 2>/dev/null) || echo "FAILED: $file is not found"
  [ "$(stat -c %i "$file")" = "$(stat -c %i "$lower")" ] || echo "FAILED: $file is not $lower"
  { find_ -0 "$lower" 2>/dev/null || echo "FAILED"; } | cmp -s - <(printf '%s\0' "$T/$file") || echo "FAILED: $lower is not $file"
  both=$((both + 1))
done < <(find m -mindepth 1 -print0)
echo "$both files"
odd=$(find_ "$(printf 'm/odd\nname')"); r find --passphrase-file p "$odd" "low/none" m/link
run ecfs find -0 --json m/link
r find --passphrase-file p m/Documents/tax.pdf
r find --passphrase-file p m/nothing
r find --passphrase-file p "m/$long" | sed -E 's/l{200}/@LONG@/g'
r find --passphrase-file p m low
r find --passphrase-file p "$T"
r find --passphrase-file p /proc/version
r find --passphrase-file p low/.ecfs-volume
r find --passphrase-file p nowhere/at/all
run ecfs find m
echo "# as JSON"
find_ --json "m/$long" m/Documents/new m/nothing | same | sed -E 's/l{200}/@LONG@/g'
echo "# what it is"
r stat --passphrase-file p m/Documents/tax.pdf m/Documents m/Documents/new/ m/link m/fifo m/empty m/Documents/new/inside
r stat --passphrase-file p m/sparse
r stat --passphrase-file p "m/$long" | sed -E 's/l{200}/@LONG@/g'
r stat --passphrase-file p m/nothing
r stat m/link
r stat --passphrase-file p m/nothing low/none m/fifo
echo "# of a lower file, without a key and with it"
tax=$(find_ m/Documents/tax.pdf)
r stat "$tax"
r stat --passphrase-file p "$tax"
r stat --ask "$tax"
r stat "$(dirname "$tax")" low/.ecfs-volume
r stat "$(find_ "m/$long" 2>/dev/null).n"
"$ECFS" stat --passphrase-file p --json "$tax" | same
echo "# a plain path whose lower one is longer than a system call takes"
python3 - <<'PYTHON'
import os
os.chdir("m")
for level in range(150):
    os.mkdir("d"); os.chdir("d")
open("deep", "w").write("x")
PYTHON
deep=m/$(printf 'd/%.0s' $(seq 150))deep
check "found" test "$(find_ "$deep" | wc -c)" -gt 4096
check "shown" "$ECFS" stat --passphrase-file p "$deep"; rm -r m/d
ecfs umount m
echo "# not mounted"
r find low --passphrase-file p --plain Documents/tax.pdf --plain Documents/new/inside --lower "${tax#"$T"/low/}"
r find low --passphrase-file p --plain Documents/gone
rm "$(find_ low --plain Documents/gone)"
r find low --passphrase-file p --plain Documents/gone
r find low --passphrase-file p --plain no/such/directory
r find low --passphrase-file p --plain Documents/../link
r find low --passphrase-file p --plain Documents/tax.pdf/below
r find low --passphrase-file p --lower fifo
r find low other --passphrase-file p --plain x
r find m/Documents/tax.pdf
r find --passphrase-file p "$tax"
echo "# a deleted file, in a backup"
cp -a low backup; rm "$tax"
check "its name in the backup" test -f "backup/${tax#"$T"/low/}"
r find --passphrase-file p "backup/${tax#"$T"/low/}"
echo "# damaged"
printf '\xa5' | dd of="backup/${tax#"$T"/low/}" bs=1 seek=30 conv=notrunc status=none
r stat --passphrase-file p "backup/${tax#"$T"/low/}"
ln -s /etc/passwd backup/link; mkfifo backup/pipe
r stat --passphrase-file p backup/link backup/pipe
