#!/bin/bash
# The command line itself: help, unknown words, exit status 2, and the names by which a command can be called.
. "$(dirname "$0")/lib.sh"
run ecfs --version
run ecfs
run ecfs nonsense
run ecfs key
run ecfs key nonsense
run ecfs mount only-one
run ecfs mount a b c
run ecfs init --block-size 5k x
run ecfs init --kdf-memory 1 x
run ecfs init --kdf-time 1 x
run ecfs init --longest-name 12 x
run ecfs init --no-password --no-recovery x
run ecfs init --passphrase-fd 3 --passphrase-file f x
run ecfs init --passphrase secret x
run ecfs key add keyfile x
run ecfs tpm
run ecfs mount --slot keyfile x y
run ecfs setup-private --move-existing --no-move
run ecfs setup-private --whole-home --name x
run ecfs setup-private --whole-home --undo --remove-original
for command in init mount umount setup-private mount-private umount-private status recover-private adduser-hook migrate bench fsck stat find setup-boot setup-swap wrap-passphrase unwrap-passphrase rewrap-passphrase add-passphrase insert-wrapped-passphrase-into-keyring key "key list" "key add" "key remove" "key change" "key reseal" tpm "tpm status"; do
  check "ecfs $command --help shows an example" bash -c "'$ECFS' $command --help | grep -q 'Example'"
done
# argv[0]
for name in ecfs-init ecfs-key mount.ecfs adduser.local; do ln -s "$ECFS" "$T/$name"; done
check "ecfs-init is ecfs init" bash -c "cmp <('$ECFS' init --help) <('$T/ecfs-init' --help)"
check "ecfs-key list is ecfs key list" bash -c "cmp <('$ECFS' key list --help) <('$T/ecfs-key' list --help)"
check "mount.ecfs is ecfs mount" bash -c "cmp <('$ECFS' mount --help) <('$T/mount.ecfs' --help)"
check "adduser.local is ecfs adduser-hook" bash -c "cmp <('$ECFS' adduser-hook --help) <('$T/adduser.local' --help)"
run ecfs init x; check "nothing was made" not test -e x
