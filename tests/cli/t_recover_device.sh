#!/bin/bash
# recover-private of a block device: root only, mounted read-only.
. "$(dirname "$0")/lib.sh"
mount -t tmpfs -o mode=755 none /run
secret p "$PASS"
truncate -s 16M disk; mkfs.ext4 -q disk; mkdir d
if ! device=$(losetup -f --show disk 2>/dev/null); then echo "skipped: this machine has no loop devices"; exit 77; fi
trap 'losetup -d "$device"; cleanup' EXIT
show() { sed "s#$device#DEVICE#g"; }
mount "$device" d
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" d/.Private >/dev/null
mkdir m; ecfs mount -q --passphrase-file p d/.Private m; echo dear >m/letter; ecfs umount m; await umount d 2>/dev/null
chmod 666 "$device"; run alice "$ECFS" recover-private --passphrase-file rk "$device" | sed 's/^\$ alice /$ /' | show; chmod 660 "$device"
run ecfs recover-private --passphrase-file rk "$device" | show
for place in /run/ecfs-recovered-*; do
  [ -e "$place/letter" ] || continue
  cat "$place/letter"; ecfs umount "$place"
done
for place in /run/ecfs-recovered-*; do
  check "mounted read-only, nosuid, nodev, noexec" eval "findmnt -no OPTIONS --mountpoint $place | grep -q 'ro,nosuid,nodev,noexec'"
  await umount "$place" 2>/dev/null; rmdir "$place"
done
echo "# a disk without a filesystem"
head -c 1M /dev/zero | dd of="$device" conv=notrunc status=none
run ecfs recover-private --passphrase-file rk "$device" 2>&1 | grep -v '^mount:\|dmesg' | show
check "no directory is left" not eval "ls -d /run/ecfs-recovered-*"
