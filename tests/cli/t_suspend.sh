#!/bin/bash
# ecfs umount --suspend: locked where it can be, without keys where programs use it; opened again by the ordinary commands.
. "$(dirname "$0")/lib.sh"
cd "$HOME_A"; secret p "$PASS"; secret wrong "nothing of the kind 99"; chown ecfsalice: p wrong
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
alice "$ECFS" init --no-recovery --passphrase-file p "${QUICK[@]}" low >/dev/null; alice mkdir m
hold() { { alice sh -c 'exec 8<>m/held; cd m; exec sleep 60'; } 2>/dev/null & await pgrep -u ecfsalice -x sleep >/dev/null; disown; }
let_go() { kill "$(pgrep -u ecfsalice -x sleep)"; await not pgrep -u ecfsalice -x sleep >/dev/null; }
echo "# not in use: locked"
a mount --passphrase-file p low m
alice sh -c 'echo text >m/file'
a umount --suspend m
check "not mounted" not mounted m
a umount --suspend m
echo "# in use: its keys are wiped"
a mount --passphrase-file p low m; hold
a umount --suspend m
check "still mounted" mounted m
sleep 1.1
alice cat m/file
alice ls m
a mount --passphrase-file wrong low m
alice cat m/file
a mount --passphrase-file p low m
alice cat m/file
a mount --passphrase-file p low m
let_go
a umount m
echo "# all that want it"
a mount --passphrase-file p low m; hold
a umount --suspend
alice cat m/file
let_go; a umount m
a mount --passphrase-file p -o suspend low m; hold
a umount --suspend
a umount --suspend
sleep 1.1; alice cat m/file
a mount --passphrase-file p low m
alice cat m/file
echo "# by root, for everybody"
"$ECFS" umount --suspend
sleep 1.1; alice cat m/file
a mount --passphrase-file p low m
let_go
"$ECFS" umount --suspend
check "not mounted" not mounted m
echo "# a profile's"
alice "$ECFS" setup-private --passphrase-file p --no-recovery "${QUICK[@]}" >/dev/null 2>&1
a mount-private --passphrase-file p
{ alice sh -c 'cd Private; exec sleep 60'; } 2>/dev/null & await pgrep -u ecfsalice -x sleep >/dev/null; disown
a umount-private --suspend
a status | sed -n 2p
a mount-private --passphrase-file p
let_go; a umount-private
echo "# words"
a umount
a umount --lazy --suspend m
exit 0
