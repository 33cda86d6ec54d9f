#!/bin/bash
# ecfs migrate: eCryptfs trees of a kernel into native volumes, and native ones into eCryptfs trees; what is refused, left, and kept.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
vectors=$here/../vectors/ecryptfs
install -m 755 "$here/manifest.py" "$T/"; cp "$here/ecryptfs.py" "$vectors"/*.manifest.json "$T/"; chmod 644 "$T"/ecryptfs.py "$T"/*.json
cd "$HOME_A"; alice mkdir m
secret new "$NEW"; secret p "$PASS"; chown ecfsalice: new p
a() { run alice "$ECFS" "$@" | sed -E 's/^\$ alice /$ /; s/(ecryptfs_sig|ecryptfs_fnek_sig)=[0-9a-f]{16}/\1=@SIG@/g; s/[0-9.]+ (K|M|G)iB/@SIZE@/g'; return "${PIPESTATUS[0]}"; }
get() { python3 "$T/ecryptfs.py" get "$T/$1.manifest.json" "$2"; }
compare() { alice python3 "$T/ecryptfs.py" compare "$T/$1.manifest.json" m; }
extract() { rm -rf low; mkdir low; tar -C low --xattrs --xattrs-include='user.*' --strip-components=1 -xf "$vectors/$1.tar"; chown -R ecfsalice: low; }
password() { (umask 077; get "$1" passphrase >pw); chown ecfsalice: pw; }
sum() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum; find . -printf '%P %m %T@ %l\n' | sort) | sha256sum; }
manifest() { alice python3 "$T/manifest.py" "$@"; }
to_native=(migrate --yes --new-passphrase-file new --no-recovery "${QUICK[@]}")
to_ecryptfs=(migrate --yes --passphrase-file p --new-passphrase-file new)

echo "# trees of a kernel become native volumes"
for tar in "$vectors"/*.tar; do
  tree=$(basename "$tar" .tar)
  case $tree in home-layout|twofish-*|cast6-*|aes16-twosigs|encview-*) continue ;; esac
  extract "$tree"; password "$tree"; before=$(sum low); rm -rf vault
  options=$(get "$tree" mount_options); left=0; more=()
  # It has plain names among the encrypted ones, which no mount shows.
  [ "$tree" = passthrough-aes16-fnek ] && { left=5; more=(--leave-unreadable); }
  alice "$ECFS" "${to_native[@]}" "${more[@]}" -o "$options" --passphrase-file pw low vault >said 2>&1; status=$?
  [ "$status" = "$left" ] || { echo "FAILED: $tree: $status"; cat said; }
  [ "$(sum low)" = "$before" ] || echo "FAILED: $tree was changed"
  alice "$ECFS" mount -q --passphrase-file new vault m
  echo "$tree: $(compare "$tree")"
  alice "$ECFS" umount m
  alice "$ECFS" fsck --passphrase-file new vault >said 2>&1 || { echo "FAILED: fsck of $tree"; cat said; }
done
echo "# what it says; options are those that are there"
extract aes16-fnek; password aes16-fnek; rm -rf vault
a "${to_native[@]}" --passphrase-file pw low vault
check "no marker" not test -e vault/.ecfs-migrate
a "${to_native[@]}" --passphrase-file pw low vault
rm -rf vault; a "${to_native[@]}" --json --passphrase-file pw low vault

echo "# a tree with one of each: native to eCryptfs and back"
alice "$ECFS" init --passphrase-file p --no-recovery "${QUICK[@]}" native >/dev/null
alice "$ECFS" mount -q --passphrase-file p native m; manifest --make "$HOME_A/m" 20000000
a "${to_ecryptfs[@]}" native ec
alice "$ECFS" umount m
a "${to_ecryptfs[@]}" native ec
check "nothing was made" not test -e ec
alice "$ECFS" mount -q --passphrase-file p native m; alice sh -c 'rm m/xxxx*'; manifest m >"$T/original"; alice chmod 750 m; alice touch -d @1000000000 m; root=$(alice stat -c '%a %Y' m); alice "$ECFS" umount m
check "the tree is as rich as it should be" test "$(wc -l <"$T/original")" -gt 80
before=$(sum native)
a "${to_ecryptfs[@]}" native ec
check "the old tree is as it was" test "$(sum native)" = "$before"
alice "$ECFS" mount -q --passphrase-file new ec m
manifest m >"$T/there"; check "all is there" diff "$T/original" "$T/there"; diff "$T/original" "$T/there" | head -n 4
check "so is the root's mode and time" test "$(alice stat -c '%a %Y' m)" = "$root"
alice "$ECFS" umount m
a migrate --yes --remove-old --passphrase-file new --new-passphrase-file p --no-recovery "${QUICK[@]}" ec back
check "nothing is left" test -z "$(ls -A ec)"
alice "$ECFS" mount -q --passphrase-file p back m
manifest m >"$T/there"; check "all is there" diff "$T/original" "$T/there"; diff "$T/original" "$T/there" | head -n 4
alice "$ECFS" umount m
check "holes are holes again" test "$(find back -size +20M -printf '%b\n' | sort -n | head -n 1)" -lt 1000
echo "# killed before the last step, with nothing left by which to know what it was"
marker() { printf '{"from": "%s", "from_ino": %s, "from_id": "", "options": "", "removes": %s}\n' "$HOME_A/$1" "$(stat -c %i "$1")" "$3" >"$2/.ecfs-migrate"; chown ecfsalice: "$2/.ecfs-migrate"; }
marker ec back true
a migrate --yes --remove-old --passphrase-file new --new-passphrase-file p --no-recovery ec back
check "no marker" not test -e back/.ecfs-migrate
rm -rf ec back

echo "# only directories and their names are left, of a migration that was killed while it removed them"
alice "$ECFS" init --passphrase-file p --no-recovery "${QUICK[@]}" dirs >/dev/null
alice "$ECFS" mount -q --passphrase-file p dirs m; alice mkdir -p m/a/b m/c; alice "$ECFS" umount m
a "${to_ecryptfs[@]}" --remove-old dirs ec
a "${to_native[@]}" --remove-old --passphrase-file p ec back
a "${to_native[@]}" --remove-old --passphrase-file new ec back
check "nothing is left" test -z "$(ls -A ec)"
rm -rf dirs ec back

echo "# native to native: other blocks, another key"
a migrate --yes --format native --block-size 64k --passphrase-file p --new-passphrase-file new --no-recovery "${QUICK[@]}" native other
alice "$ECFS" mount -q --passphrase-file new other m; manifest m >"$T/there"; check "all is there" diff "$T/original" "$T/there"; alice "$ECFS" umount m
rm -rf other

echo "# plain names"
a "${to_ecryptfs[@]}" -o ecryptfs_enable_filename_crypto=n native ec
check "names as they are" test -e "ec/deep/a/another"
ln -s "$(printf 't%.0s' $(seq 3500))" ec/deep/far; chown -h ecfsalice: ec/deep/far
a "${to_native[@]}" --passphrase-file new ec x
check "nothing was made" not test -e x
rm -rf ec
echo "# gone on with in a directory that may not be written to; names that a shell would take apart"
alice "$ECFS" init --passphrase-file p --no-recovery "${QUICK[@]}" tiny >/dev/null
alice "$ECFS" mount -q --passphrase-file p tiny m; alice sh -c 'mkdir m/d; echo one >m/d/one; echo two >m/d/two; chmod 555 m/d'; alice "$ECFS" umount m
a "${to_ecryptfs[@]}" tiny "my ec"
a "${to_native[@]}" --passphrase-file new "my ec" "it's"
alice "$ECFS" mount -q --passphrase-file new "it's" m; alice sh -c 'chmod 755 m/d; rm m/d/two; chmod 555 m/d'; alice "$ECFS" umount m; marker "my ec" "it's" false
a "${to_native[@]}" --passphrase-file new "my ec" "it's"
alice "$ECFS" mount -q --passphrase-file new "it's" m; alice sh -c 'stat -c %a m/d; cat m/d/*'; alice "$ECFS" umount m
echo "# killed while the header was made: before it had a name, and before it had both"
rm -rf vault; alice mkdir vault; marker "my ec" vault false; alice touch vault/.ecfs-volume.tmp vault/.ecfs-volume.bak.tmp
a "${to_native[@]}" --passphrase-file new "my ec" vault
rm -rf vault/.ecfs-volume "vault/$(ls vault | head -n 1)"; marker "my ec" vault false
a "${to_native[@]}" --passphrase-file new "my ec" vault
alice ls -A vault | sed -E 's/^[A-Za-z0-9_-]{22,}$/@NAME@/' | LC_ALL=C sort
alice "$ECFS" mount -q --passphrase-file new vault m; alice sh -c 'stat -c %a m/d; cat m/d/*'; alice "$ECFS" umount m
rm -rf tiny "my ec" "it's"

echo "# refused"
a migrate --yes low low/inside
a migrate --yes low/. low
a migrate --yes -o ecryptfs --format ecryptfs low ec
a migrate --yes --format native -o ecryptfs_cipher=aes --passphrase-file p native ec
a migrate --yes --passphrase-file p native m
alice touch m/something; a "${to_ecryptfs[@]}" native m; rm m/something
a "${to_ecryptfs[@]}" native low
a "${to_native[@]}" --format native --passphrase-file p native vault
alice mkdir nothing; a "${to_native[@]}" nothing x
a "${to_native[@]}" --passphrase-file new low x
check "nothing was made" not test -e x
alice "$ECFS" mount -q -o ro --passphrase-file p native m; a "${to_ecryptfs[@]}" native ec; alice "$ECFS" umount m
alice mkdir -p ec
run alice flock ec "$ECFS" "${to_ecryptfs[@]}" native ec | sed -E 's/^\$ alice flock ec [^ ]*/$ flock ec ecfs/; s/[0-9.]+ (K|M|G)iB/@SIZE@/g'
run alice flock -s native "$ECFS" "${to_ecryptfs[@]}" --remove-old native ec | sed -E 's/^\$ alice flock -s native [^ ]*/$ flock -s native ecfs/'
check "nothing was made" test -z "$(ls -A ec)"
rmdir ec

echo "# damaged, and of somebody else's key"
extract aes16-fnek; rm -rf vault
victim=$(find low -type f -size +20k | sort | head -n 1); printf x | dd of="$victim" bs=1 seek=10 conv=notrunc 2>/dev/null
touch low/ECRYPTFS_FNEK_ENCRYPTED.nonsense; chown ecfsalice: low/ECRYPTFS_FNEK_ENCRYPTED.nonsense
a "${to_native[@]}" --passphrase-file pw --remove-old low vault
check "it stays where it was" test -e "$victim"
check "with its marker" test -e vault/.ecfs-migrate
check "and nothing else" test "$(find low -type f | wc -l)" = 2
a "${to_native[@]}" --passphrase-file pw --remove-old low other
a "${to_native[@]}" --passphrase-file p low vault
rm -rf elsewhere; alice cp -a low elsewhere; a "${to_native[@]}" --passphrase-file pw elsewhere vault
a "${to_native[@]}" --passphrase-file pw --remove-old --leave-unreadable low vault
check "no marker" not test -e vault/.ecfs-migrate
alice "$ECFS" init --passphrase-file p --no-recovery "${QUICK[@]}" hurt >/dev/null
alice "$ECFS" mount -q --passphrase-file p hurt m; alice sh -c 'head -c 100000 /dev/zero >m/damaged; echo whole >m/whole'; alice "$ECFS" umount m
victim=$(find hurt -type f -size +50k); printf x | dd of="$victim" bs=1 seek=20000 conv=notrunc 2>/dev/null
rm -rf ec; a "${to_ecryptfs[@]}" hurt ec
alice "$ECFS" mount -q --passphrase-file new ec m; alice ls -A m; alice cat m/whole; alice "$ECFS" umount m
a migrate --yes --passphrase-file p --new-passphrase-file pw hurt ec
a "${to_ecryptfs[@]}" --leave-unreadable hurt ec

echo "# too little room, and a disk that fills up"
mkdir "$T/small"; mount -t tmpfs -o size=30m,mode=777 none "$T/small"
a "${to_ecryptfs[@]}" native "$T/small/ec"
umount "$T/small"; mount -t tmpfs -o size=160m,nr_inodes=60,mode=777 none "$T/small"
alice "$ECFS" "${to_ecryptfs[@]}" native "$T/small/ec" >said 2>&1; status=$?
check "it says that there is no space" grep -q 'No space left on device' said
check "and that the same command goes on" grep -q 'the same command goes on' said
check "exit status 1" test "$status" = 1
check "nothing unfinished is left" test -e "$T/small/ec/.ecfs-migrate"
mount -o remount,nr_inodes=1000 "$T/small"
a "${to_ecryptfs[@]}" native "$T/small/ec" | sed -E 's/[0-9]+ entries are there already/N entries are there already/; s/^[0-9]+ entries copied, [0-9]+ were/N entries copied, N were/'
alice "$ECFS" mount -q --passphrase-file new "$T/small/ec" m; manifest m >"$T/there"; check "all is there" diff "$T/original" "$T/there"; alice "$ECFS" umount m

echo "# as root, for somebody"
run ecfs migrate --yes --passphrase-file p --new-passphrase-file new --no-recovery --format native "${QUICK[@]}" native byroot | sed -E 's/[0-9.]+ (K|M|G)iB/@SIZE@/g'
check "the volume is its owner's" test -z "$(find byroot ! -user ecfsalice)"
alice "$ECFS" mount -q --passphrase-file new byroot m; manifest m >"$T/there"; check "all is there" diff "$T/original" "$T/there"; alice "$ECFS" umount m
