#!/bin/bash
# A Private as ecryptfs-setup-private made it (tests/vectors/ecryptfs/home-layout.tar) by hand, and its way to key slots.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
command -v keyctl >/dev/null || { echo "skipped: keyctl (package keyutils) is not installed"; exit 77; }
vectors=$here/../vectors/ecryptfs
LOGIN='login pw' MOUNT=0123456789abcdef0123456789abcdef
cd "$HOME_A"
a() { run alice "$ECFS" "$@" | sed -E 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
fresh() {
  rm -rf .ecryptfs .Private Private .ecfs
  tar --strip-components=1 -xf "$vectors/home-layout.tar"
  echo "$HOME_A/Private" >.ecryptfs/Private.mnt
  touch .ecryptfs/auto-mount .ecryptfs/auto-umount
  chown -hR ecfsalice: .ecryptfs .Private Private
}
state() { (cd .ecryptfs && find . -type f -printf '%p %s %m %T@ ' -exec sha256sum {} \; | sort); }
has_keys() { alice keyctl session - sh -c 'keyctl link @u @s && keyctl search @u user 849d6b79848a0296 && keyctl search @u user 9487d0e1beb5be83'; }
for name in login:"$LOGIN" mount:$MOUNT new:"$NEW" wrong:"not this one" ; do secret "$T/${name%%:*}" "${name#*:}"; chown ecfsalice: "$T/${name%%:*}"; done
fresh; before=$(state)

echo "# as it is"
a status
a status --json
a mount-private
a mount-private --passphrase-file "$T/wrong"
a mount-private --recovery --passphrase-file "$T/login"
a mount-private --passphrase-file "$T/login"
alice sha256sum Private/file
a mount-private
a status | grep -v 'open since'
a umount-private
a umount-private
a mount-private --mount-passphrase --passphrase-file "$T/login"
a mount-private --mount-passphrase --passphrase-file "$T/mount" -o ro
alice touch Private/new 2>&1
a umount-private
check "~/.ecryptfs is as it was" test "$(state)" = "$before"

echo "# keys in the keyring need no question"
alice sh -c "printf %s '$LOGIN' | '$ECFS' insert-wrapped-passphrase-into-keyring .ecryptfs/wrapped-passphrase -"
check "they are there" has_keys
a mount-private
a umount-private
check "they go" not has_keys

echo "# a volume of the name is missing its mountpoint"
alice chmod 700 Private; alice rm -r Private
a mount-private --passphrase-file "$T/login"
a umount-private

echo "# a passphrase of its own"
alice touch .ecryptfs/wrapping-independent
a status | grep keys
alice rm .ecryptfs/wrapping-independent

echo "# odd files"
for change in 'echo x >Private.sig' 'rm Private.sig' 'echo relative >Private.mnt' 'rm wrapped-passphrase' 'echo x >wrapped-passphrase'; do
  fresh; (cd .ecryptfs && alice sh -c "cd .ecryptfs; $change")
  echo "## $change"
  a mount-private --passphrase-file "$T/login"
done
fresh; chmod 777 .ecryptfs; a status; fresh
printf '00112233445566ff\n' >.ecryptfs/Private.sig
a mount-private --passphrase-file "$T/login"
a mount-private --mount-passphrase --passphrase-file "$T/mount"
fresh

echo "# its passphrase is changed"
a key list Private
a key change --passphrase-file "$T/wrong" --new-passphrase-file "$T/new" Private
a key change --passphrase-file "$T/login" --new-passphrase-file "$T/new" Private
a mount-private --passphrase-file "$T/login"
a mount-private --passphrase-file "$T/new"; a umount-private
check "its .bak opens with the new one, too" eval '[ "$(alice "$ECFS" unwrap-passphrase .ecryptfs/wrapped-passphrase.bak - <"$T/new")" = $MOUNT ]'
a key remove --passphrase-file "$T/new" Private 1
fresh; before=$(state)

echo "# key slots"
a key add recovery --mount-passphrase --passphrase-file "$T/mount" --recovery-key-file "$HOME_A/none" Private
check "no key was made" test ! -e none -a ! -e .ecfs/Private/profile.json
a key add recovery "${QUICK[@]}" --passphrase-file "$T/login" --recovery-key-file "$HOME_A/key" Private
check "~/.ecryptfs is as it was" test "$(state)" = "$before"
a key list Private
a status
check "the passphrase is not to be seen" not grep -rqF "$MOUNT" .ecfs
stat -c '%a %U %s %n' .ecfs/Private/volume .ecfs/Private/profile.json
sed 's/"volume_id.*/"volume_id": .../' .ecfs/Private/profile.json
a mount-private --passphrase-file "$T/wrong"
a mount-private --passphrase-file "$T/login"; alice sha256sum Private/file; a umount-private
a mount-private --recovery --passphrase-file key; a umount-private
a mount-private --mount-passphrase --passphrase-file "$T/mount"; a umount-private
a mount-private --mount-passphrase --passphrase-file "$T/login"
alice rm .ecryptfs/wrapped-passphrase
a key change "${QUICK[@]}" --passphrase-file "$T/login" --new-passphrase-file "$T/new" Private
a mount-private --passphrase-file "$T/login"
a mount-private --passphrase-file "$T/new"; a umount-private
a key add password "${QUICK[@]}" --mount-passphrase --passphrase-file "$T/mount" --new-passphrase-file "$T/login" --label second Private
a key remove --passphrase-file "$T/new" Private 3
a key list Private
a status | tail -n 1
a mount --passphrase-file "$T/mount" .Private Private; alice sha256sum Private/file; a umount Private

echo "# a damaged header"
alice sh -c 'printf X | dd of=.ecfs/Private/volume bs=1 seek=100 conv=notrunc status=none'
a mount-private --passphrase-file "$T/login"; a umount-private
alice cmp .ecfs/Private/volume .ecfs/Private/volume.bak && echo "repaired"

echo "# the first slots are made wholly or not at all"
fresh; alice mkdir -p .ecfs/Private; alice cp .ecryptfs/Private.sig .ecfs/Private/volume
a key add recovery "${QUICK[@]}" --passphrase-file "$T/login" --recovery-key-file "$HOME_A/key2" Private
fresh; alice "$ECFS" key add recovery "${QUICK[@]}" --passphrase-file "$T/login" --recovery-key-file "$HOME_A/key3" Private >/dev/null 2>&1
alice rm .ecfs/Private/profile.json key3
a key add recovery "${QUICK[@]}" --passphrase-file "$T/login" --recovery-key-file "$HOME_A/key3" Private
a mount-private --recovery --passphrase-file key3; a umount-private

echo "# without it"
rm -rf .ecryptfs .ecfs
a mount-private --mount-passphrase
a status
