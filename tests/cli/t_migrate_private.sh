#!/bin/bash
# ecfs migrate of volumes with a name: the Private that ecryptfs-setup-private made, and one of ecfs; the profile is switched at the end.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
cd "$HOME_A"; secret p "$PASS"; secret new "$NEW"; secret login 'login pw'; secret wrong 'login pv'; chown ecfsalice: p new login wrong
a() { run alice "$ECFS" "$@" | sed -E 's/^\$ alice /$ /; s/[0-9.]+ (K|M|G)iB/@SIZE@/g'; return "${PIPESTATUS[0]}"; }
sum() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum) | sha256sum; }
echo "# as ecryptfs-setup-private left it"
tar -C . --strip-components=1 -xf "$here/../vectors/ecryptfs/home-layout.tar"; printf '%s' "$HOME_A/Private" >.ecryptfs/Private.mnt; touch .ecryptfs/auto-mount
chown -R -h ecfsalice: .; before=$(sum .Private); keys=$(sum .ecryptfs)
a migrate --yes --passphrase-file wrong --no-recovery "${QUICK[@]}" Private
check "nothing was made" not test -e .Private.ecfs
a migrate --yes --format ecryptfs --passphrase-file login Private
a migrate --yes --passphrase-file login --no-recovery "${QUICK[@]}" Private
check "the old tree is as it was" test "$(sum .Private)" = "$before"; check "so are its keys" test "$(sum .ecryptfs)" = "$keys"
for dir in .Private.ecfs .ecfs .ecfs/Private; do echo "$dir:"; ls -A "$dir" | sed -E 's/^[A-Za-z0-9_-]{22,}$/@NAME@/' | LC_ALL=C sort; [ "$dir" = .ecfs/Private ] || echo; done
grep -E 'auto_mount|auto_unmount|mountpoint|"lower"' .ecfs/Private/profile.json
a mount-private --passphrase-file login; alice cat Private/file | sha256sum; alice sh -c 'echo more >Private/more'; a umount-private
a key list Private | grep -o 'password.*login'
alice cp -a .Private.ecfs copy; a mount -q --passphrase-file login copy Private; rm -rf copy
echo "# again: native to native, with another passphrase, interrupted before the last step"
a migrate --yes --format native --block-size 16k --passphrase-file login --new-passphrase-file new --no-recovery "${QUICK[@]}" Private
ls -A .ecfs
printf '{"from": "%s", "from_ino": 1, "from_id": "00", "options": "", "removes": false}\n' "$HOME_A/.Private.ecfs" >.Private.ecfs.ecfs/.ecfs-migrate; chown ecfsalice: .Private.ecfs.ecfs/.ecfs-migrate
mv .ecfs/.Private.bak .ecfs/.Private.new
a migrate --yes --format native --passphrase-file login --new-passphrase-file new --no-recovery Private
ls -A .ecfs; check "no marker" not test -e .Private.ecfs.ecfs/.ecfs-migrate
a mount-private --passphrase-file new; alice cat Private/more; a umount-private
a migrate --yes --format native --passphrase-file new --new-passphrase-file p --no-recovery "${QUICK[@]}" Private
echo "# undone"
alice mv .ecfs/Private .ecfs/.Private.undone; alice mv .ecfs/.Private.bak .ecfs/Private
a mount-private --passphrase-file login; alice cat Private/more; a umount-private
echo "# killed, and gone on with"
rm -rf .ecfs/.Private.undone .Private.ecfs.ecfs
alice "$ECFS" mount-private --passphrase-file login >/dev/null; alice sh -c 'for i in $(seq 300); do head -c 30000 /dev/urandom >Private/$i; done'; alice sh -c 'sha256sum Private/*' >"$T/sums"; alice "$ECFS" umount-private >/dev/null
command=(migrate --yes --format native --remove-old --passphrase-file login --new-passphrase-file new --no-recovery "${QUICK[@]}" Private)
# At the 200th of the 600 times that it brings something to the disk. (A sanitizer's leak checker and a tracer exclude each other.)
{ ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 alice strace -qq -o /dev/null -e trace=fsync -e inject=fsync:signal=KILL:when=200 "$ECFS" "${command[@]}" >/dev/null 2>&1; } 2>/dev/null
check "killed" test $? = 137
check "the former profile is still in force" grep -q '"lower": ".*/.Private.ecfs"' .ecfs/Private/profile.json
a migrate --yes --format native --passphrase-file login --new-passphrase-file new --no-recovery Private elsewhere
alice "$ECFS" "${command[@]}" >said 2>&1; check "it went on" test $? = 0; grep -v copied said | sed -E 's/[0-9.]+ (K|M|G)iB/@SIZE@/g; s/: 302 entries.*/: .../'
a mount-private --passphrase-file new; check "all is there" alice sha256sum -c --quiet "$T/sums"; a umount-private
