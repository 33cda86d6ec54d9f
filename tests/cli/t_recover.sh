#!/bin/bash
# recover-private: LOWER alone and the recovery key; where the files are shown and who can look.
. "$(dirname "$0")/lib.sh"
mount -t tmpfs -o mode=755 none /run
cd "$HOME_A"; secret p "$PASS"; chown ecfsalice: p
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
alice "$ECFS" setup-private --yes --passphrase-file p --recovery-key-file rk "${QUICK[@]}" >/dev/null
alice "$ECFS" mount-private --passphrase-file p >/dev/null
alice sh -c 'mkdir Private/letters; echo dear >Private/letters/one'
alice "$ECFS" umount-private >/dev/null
echo "# the machine is lost, a copy of the encrypted directory is left"
alice mkdir backup; alice cp -a .Private backup/copy; rm -rf .Private .ecfs Private; mv backup "$T/media"; chown -R ecfsalice: "$T/media"
a recover-private --passphrase-file rk
a recover-private --list "$T/media"
a recover-private --list --json "$T/media"
a recover-private --passphrase-file p "$T/media"
check "nothing is left of that" not eval "ls -d $HOME_A/ecfs-recovered-*"
a recover-private --passphrase-file rk "$T/media"
place=$(alice sh -c 'echo "$HOME"/ecfs-recovered-*'); [ -n "$place" ]
alice cat "$place/letters/one"
check "read-only" not alice touch "$place/new"
check "another user cannot look in" not bob ls "$place"
check "not under /tmp by name" eval "! ls -d /tmp/ecfs-recovered* /dev/shm/ecfs-recovered*"
check "the encrypted copy was not written to" diff <(cd "$T/media/copy" && find . -newer "$T/passwd" -name '.ecfs*' | sort) <(printf './.ecfs-volume\n./.ecfs-volume.bak\n')
a umount "$place"
check "the directory is gone, too" not test -e "$place"
echo "# with a runtime directory"
mkdir "$T/runtime"; chown ecfsalice: "$T/runtime"; chmod 700 "$T/runtime"
run alice env XDG_RUNTIME_DIR="$T/runtime" "$ECFS" recover-private --passphrase-file rk "$T/media/copy" | sed 's/^\$ alice env [^ ]* /$ /'
check "it is there" mounted "$(echo "$T"/runtime/ecfs-recovered-*)"
alice "$ECFS" umount "$(echo "$T"/runtime/ecfs-recovered-*)"
echo "# a runtime directory of somebody else is not used"
chown ecfsbob: "$T/runtime"; chmod 777 "$T/runtime"
alice env XDG_RUNTIME_DIR="$T/runtime" "$ECFS" recover-private --passphrase-file rk "$T/media/copy" >/dev/null
check "not there" test -z "$(ls -A "$T/runtime")"
alice "$ECFS" umount "$(echo "$HOME_A"/ecfs-recovered-*)"
echo "# writing, at a place of one's own"
alice mkdir here; a recover-private --read-write --mountpoint here --passphrase-file rk "$T/media"
alice touch here/new; alice "$ECFS" umount here
echo "# as root, of another user's disk: nobody else looks in"
run ecfs recover-private --json --passphrase-file rk "$T/media/copy"
place=$(echo /run/ecfs-recovered-*); cat "$place/letters/one"
check "not even the owner" not alice ls "$place"
ecfs umount "$place"
echo "# several, and hostile ones"
alice cp -a "$T/media/copy" "$T/media/other"; alice ln -s / "$T/media/loop"; alice mkfifo "$T/media/.ecfs-volume"; alice mkdir "$T/media/odd
name"; alice touch "$T/media/odd
name/.ecfs-volume"
a recover-private --list "$T/media"
a recover-private --passphrase-file rk "$T/media"
a recover-private --passphrase-file rk "$T/media/nothing"
true
