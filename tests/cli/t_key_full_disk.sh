#!/bin/bash
# A full disk while a volume is made or its keys are changed: what was there before stays and opens.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"; secret n "$NEW"
mkdir disk; mount -t tmpfs -o size=64k,mode=755 none disk
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" disk/low >/dev/null
cp -a disk/low before
fill() { cat /dev/zero >disk/fill 2>/dev/null; df --output=avail disk | tail -n 1 | grep -qx ' *0'; }
check "the disk is full" fill
run ecfs key add password --passphrase-file p --new-passphrase-file n "${QUICK[@]}" disk/low
run ecfs key change --passphrase-file p --new-passphrase-file n "${QUICK[@]}" disk/low
run ecfs key remove --force --passphrase-file p disk/low recovery
check "nothing has changed" diff -r before disk/low
check "the directory holds what it held" test "$(ls -A disk/low | tr '\n' ' ')" = '.ecfs-volume .ecfs-volume.bak '
run ecfs init --passphrase-file p --no-recovery "${QUICK[@]}" disk/new
check "no half volume" not test -e disk/new
rm disk/fill
run ecfs key change --passphrase-file p --new-passphrase-file n "${QUICK[@]}" disk/low
mkdir m
check "with room again the change works" ecfs mount --passphrase-file n disk/low m
