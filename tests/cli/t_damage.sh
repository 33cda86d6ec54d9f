#!/bin/bash
# Damaged and hostile headers: the previous one opens, damage is named, nothing hangs.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" orig >/dev/null
ecfs key add password --label two --passphrase-file p --new-passphrase-fd 3 "${QUICK[@]}" orig 3<<<"$NEW" >/dev/null
mkdir m
fresh() { rm -rf low; cp -a orig low; }
open_and_close() { run ecfs mount --passphrase-file "${1:-p}" low m && ecfs umount m; }
flip() { printf '\xff' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
echo "# the header is cut"; fresh; truncate -s 100 low/.ecfs-volume; open_and_close
check "it was repaired" cmp low/.ecfs-volume orig/.ecfs-volume.bak
echo "# and again, all well"; open_and_close
echo "# the header is missing"; fresh; rm low/.ecfs-volume; open_and_close rk
echo "# one bit in the settings, which only the key can tell"; fresh; flip low/.ecfs-volume 40; open_and_close
echo "# both are damaged"; fresh; truncate -s 100 low/.ecfs-volume low/.ecfs-volume.bak; open_and_close
echo "# garbage"; fresh; head -c 400 /dev/urandom >low/.ecfs-volume; cp low/.ecfs-volume low/.ecfs-volume.bak; open_and_close
echo "# huge"; fresh; truncate -s 10G low/.ecfs-volume low/.ecfs-volume.bak; open_and_close
echo "# a FIFO"; fresh; rm low/.ecfs-volume*; mkfifo low/.ecfs-volume; run timeout 20 "$ECFS" mount --passphrase-file p low m
echo "# a symbolic link"; fresh; mv low/.ecfs-volume elsewhere; rm low/.ecfs-volume.bak; ln -s "$T/elsewhere" low/.ecfs-volume; open_and_close
echo "# a directory"; fresh; rm low/.ecfs-volume*; mkdir low/.ecfs-volume; open_and_close
echo "# of a later version"; fresh; printf '\x02' | dd of=low/.ecfs-volume bs=1 seek=12 conv=notrunc status=none; cp low/.ecfs-volume low/.ecfs-volume.bak; open_and_close
echo "# costs that would hang the machine"
python3 - low-hostile <<'PY'
import shutil, sys, struct
shutil.copytree("orig", sys.argv[1])
PY
for offset in $(seq 72 4 160); do
  rm -rf low; cp -a orig low
  printf '\xff\xff\xff\x7f' | dd of=low/.ecfs-volume bs=1 seek="$offset" conv=notrunc status=none; cp low/.ecfs-volume low/.ecfs-volume.bak
  timeout 20 "$ECFS" mount --passphrase-file p low m >said 2>&1; status=$?
  ecfs umount m 2>/dev/null
  case $status in 0|1|4|5|7) ;; *) echo "offset $offset: status $status: $(cat said)" ;; esac
done
echo "all answered in time"
