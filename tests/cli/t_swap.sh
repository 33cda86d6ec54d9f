#!/bin/bash
# setup-swap on tables that are laid over the machine's: what is refused, and that status and a dry run tell of it. The work
# itself needs device-mapper and runs in a virtual machine (tests/vm/test_swap.py); a host may have neither that nor swap.
. "$(dirname "$0")/lib.sh"
# The machine's own tables, and files on a filesystem of which it is known that it is not encrypted.
: >empty; for f in /etc/fstab /etc/crypttab; do [ ! -e $f ] || mount --bind empty $f; done
[ ! -e /var/lib/ecfs ] || mount -t tmpfs swap /var/lib/ecfs
mkdir fs; mount -t tmpfs swap fs
run alice "$ECFS" setup-swap --dry-run | sed 's/^\$ alice [^ ]*/$ alice ecfs/'
run ecfs setup-swap --cipher rot13
run ecfs setup-swap --dry-run
run ecfs setup-swap --undo --dry-run
run alice "$ECFS" status | sed 's/^\$ alice [^ ]*/$ alice ecfs/'
swaps() { { head -n 1 "$T/swaps"; printf '%s\n' "$@"; } >"$T/swaps.new"; cat "$T/swaps.new" >"$T/swaps"; }   # swaps LINE...
dd if=/dev/zero of="$T/fs/swapfile" bs=4096 count=16 status=none
swaps "$T/fs/swapfile file 60 0 -2"
run ecfs setup-swap --dry-run | sed "s,$T,DIR,"
run ecfs setup-swap --dry-run --device /dev/nothing
run ecfs setup-swap --dry-run --json | sed "s,$T,DIR,"
run alice "$ECFS" status | sed "s,^\\$ alice [^ ]*,$ alice ecfs,; s,$T,DIR,"
run alice "$ECFS" status --json | sed "s,^\\$ alice [^ ]*,$ alice ecfs,; s,$T,DIR,"
swaps 'not a line of the kernel'
run ecfs setup-swap --dry-run
run alice "$ECFS" status | sed 's/^\$ alice [^ ]*/$ alice ecfs/'
