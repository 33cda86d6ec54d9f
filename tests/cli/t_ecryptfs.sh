#!/bin/bash
# ecfs mount of eCryptfs trees: those that a kernel made, compared; keys, signatures and options as mount.ecryptfs has them.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
command -v keyctl >/dev/null || { echo "skipped: keyctl (package keyutils) is not installed"; exit 77; }
vectors=$here/../vectors/ecryptfs
cp "$here/ecryptfs.py" "$vectors"/*.manifest.json "$T/"; chmod 644 "$T"/*.py "$T"/*.json
cd "$HOME_A"; alice mkdir m
a() { run alice "$ECFS" "$@" | sed -E 's/^\$ alice /$ /; s/ecryptfs_sig=[^ ]*/OPTIONS/'; return "${PIPESTATUS[0]}"; }
get() { python3 "$T/ecryptfs.py" get "$T/$1.manifest.json" "$2"; }
compare() { alice python3 "$T/ecryptfs.py" "${2:-compare}" "$T/$1.manifest.json" m; }
extract() { rm -rf low; mkdir low; tar -C low --xattrs --xattrs-include='user.*' --strip-components=1 -xf "$vectors/$1.tar"; chown -R ecfsalice: low; }
password() { (umask 077; printf 'passphrase_passwd=%s\n' "$(get "$1" passphrase)" >pw); chown ecfsalice: pw; }
sum() { (cd low && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); }
key() { python3 "$T/ecryptfs.py" token "$1" 2>sig >payload; alice keyctl padd user "$(cat sig)" @u <payload >/dev/null; rm payload; }
has_key() { alice keyctl search @u user "$1"; }

echo "# trees of a kernel, with the options that they were made with"
for tar in "$vectors"/*.tar; do
  tree=$(basename "$tar" .tar)
  case $tree in home-layout|twofish-*|cast6-*|aes16-twosigs) continue ;; esac
  extract "$tree"; password "$tree"; before=$(sum)
  alice "$ECFS" mount -q -o "$(get "$tree" mount_options),key=passphrase:passphrase_passwd_file=$HOME_A/pw" low m 2>&1
  echo "$tree: $(compare "$tree")"
  alice "$ECFS" umount m
  [ "$(sum)" = "$before" ] || echo "FAILED: $tree was changed by reading"
done
echo "# two keys, one of them in the keyring"
extract aes16-twosigs; password aes16-twosigs; key "$(get aes16-twosigs passphrase2)"
a mount -o "$(get aes16-twosigs mount_options),ecryptfs_unlink_sigs,key=passphrase:passphrase_passwd_file=pw" low m
compare aes16-twosigs
alice sh -c 'echo two >m/new'
check "the key stays while it is mounted" has_key "$(get aes16-twosigs sig2)"
a umount m
check "ecryptfs_unlink_sigs" await not has_key "$(get aes16-twosigs sig2)"
a mount -q -o "ecryptfs_sig=$(get aes16-twosigs sig),key=passphrase:passphrase_passwd_file=pw" low m; alice cat m/new; a umount m
key "$(get aes16-twosigs passphrase2)"
a mount -q -o "ecryptfs_sig=$(get aes16-twosigs sig2)" low m; alice cat m/new; a umount m
alice keyctl purge user "$(get aes16-twosigs sig2)" >/dev/null

echo "# what is not said is as it is there"
extract aes16-fn-aes32; password aes16-fn-aes32
a mount --passphrase-file pw low m; compare aes16-fn-aes32; a umount m
extract aes16-fnek; password aes16-fnek
a mount --passphrase-file pw low m; compare aes16-fnek
alice sh -c 'head -c 10000 /dev/zero | tr "\0" x >m/new && echo more >>m/new && ln -s target m/link && mkdir m/made'
a umount m
a mount -o "$(get aes16-fnek mount_options)" --passphrase-file pw low m
alice sh -c 'tail -c 7 m/new; stat -c %s m/new; readlink m/link; ls -d m/made'
check "the size is in multiples of 4096 below" test "$(find low -newer pw -type f -printf '%s\n')" = 20480
a umount m

echo "# wrong passphrases"
secret other "another passphrase"; chown ecfsalice: other
a mount -o "$(get aes16-fnek mount_options)" --passphrase-file other low m
a mount --passphrase-file other low m
a mount --passphrase-file other -o no_sig_cache,ecryptfs_enable_filename_crypto=n,ecryptfs_cipher=aes low m
check "names as they are below" eval '[ "$(alice ls m | grep -c ECRYPTFS_FNEK)" -gt 5 ]'
a umount m
a mount low m
a mount -o "$(get aes16-fnek mount_options)" low m
check "nothing is mounted" not mounted m

echo "# a file under another key"
extract aes16-plain; password aes16-plain
alice mkdir new; key "a third passphrase"; third=$(cat sig)
a mount -q -o "ecryptfs_sig=$third,ecryptfs_cipher=aes,ecryptfs_key_bytes=32,ecryptfs_passthrough=n" new m
alice sh -c 'echo foreign >m/foreign'; a umount m; cp new/foreign low/; chown ecfsalice: low/foreign
a mount -q -o "$(get aes16-plain mount_options),key=passphrase:passphrase_passwd_file=pw" low m; alice cat m/foreign; a umount m
a mount -q -o "$(get aes16-plain mount_options),ecryptfs_mount_auth_tok_only,key=passphrase:passphrase_passwd_file=pw" low m
alice cat m/foreign; alice stat -c %s m/foreign; a umount m
alice keyctl purge user "$third" >/dev/null
alice "$ECFS" mount -f -o "$(get aes16-plain mount_options),key=passphrase:passphrase_passwd_file=pw" low m >said 2>&1 & tool=$!
await mounted m; alice cat m/foreign; alice ls m >/dev/null; alice umount m 2>/dev/null || alice "$ECFS" umount m; wait "$tool"
sed "s/$third/@SIG@/" said | grep foreign
rm low/foreign

echo "# metadata in attributes, the encrypted view, passthrough"
extract xattr-aes16-plain; password xattr-aes16-plain
a mount -q --passphrase-file pw -o "$(get xattr-aes16-plain mount_options)" low m
alice sh -c 'echo new >m/new'; check "its header is an attribute" getfattr -n user.ecryptfs low/new
check "which is not shown" not alice getfattr -n user.ecryptfs m/new
a umount m; rm low/new
a mount -q --passphrase-file pw -o "$(get xattr-aes16-plain mount_options),ecryptfs_encrypted_view" low m
compare xattr-aes16-plain view
check "read-only" not alice touch m/new
a umount m
extract passthrough-aes16; password passthrough-aes16
a mount -q --passphrase-file pw -o "$(get passthrough-aes16 mount_options)" low m
echo plain >low/plain; chown ecfsalice: low/plain
alice sh -c 'echo appended >>m/plain; cat m/plain'; cat low/plain
a umount m

echo "# suspended, and opened again"
extract aes16-fnek; password aes16-fnek
a mount --passphrase-file pw low m
{ alice sh -c 'exec 8<>m/held; cd m; exec sleep 60'; } 2>/dev/null & await pgrep -u ecfsalice -x sleep >/dev/null; disown
a umount --suspend m
sleep 1.1; alice ls m
a mount --passphrase-file other low m
a mount --passphrase-file pw low m
alice rm m/held; compare aes16-fnek
kill "$(pgrep -u ecfsalice -x sleep)"; await not pgrep -u ecfsalice -x sleep >/dev/null
a umount m

echo "# a line of fstab of eCryptfs' own, with another type"
echo "$HOME_A/low $HOME_A/m ecryptfs noauto,user,ecryptfs_sig=$(get aes16-fnek sig),ecryptfs_fnek_sig=$(get aes16-fnek fnek_sig),ecryptfs_cipher=aes,ecryptfs_key_bytes=16,ecryptfs_unlink_sigs,no_sig_cache,verbosity=0,key=passphrase:passphrase_passwd_file=$HOME_A/pw 0 0" >fstab
ln -s "$ECFS" "$T/mount.ecfs"; ln -s "$ECFS" "$T/mount.fuse.ecfs"
for type in ecfs fuse.ecfs; do
  read -r what where _ options _ < <(sed "s/ ecryptfs / $type /" fstab)
  check "mount.$type" "$T/mount.$type" "$what" "$where" -o "rw,noexec,nosuid,nodev,$options"
  python3 "$T/ecryptfs.py" compare "$T/aes16-fnek.manifest.json" m
  check "noexec" bash -c "findmnt -no OPTIONS --mountpoint m | grep -q noexec"
  check "of type fuse.ecfs" test "$(findmnt -no FSTYPE --mountpoint m)" = fuse.ecfs
  umount m
done

echo "# refused"
a mount --recovery low m
a mount -o key=openssl:keyfile=/x low m
a mount -o ecryptfs_sig=abc low m
a mount -o ecryptfs_key_bytes=99 low m
a mount -o ecryptfs_passthrough=perhaps low m
a mount -o key=passphrase:nonsense=1 low m
a mount --passphrase-file pw -o ecryptfs_cipher=serpent low m
a mount --passphrase-file pw -o ecryptfs_cipher=aes,ecryptfs_key_bytes=17 low m
for tree in twofish-16-plain twofish-32-fnek cast6-16-plain cast6-32-fnek; do  # of a library that a build may lack
  extract $tree; password $tree
  if [ -z "${ECFS_BOTAN:-}" ]; then
    alice "$ECFS" mount -q --passphrase-file pw low m >said 2>&1
    check "$tree" grep -q "the cipher ${tree%%-*} is not supported on this system" said
  else
    alice "$ECFS" mount -q -o "$(get $tree mount_options)" --passphrase-file pw low m; compare $tree >said; alice "$ECFS" umount m
    check "$tree" grep -q "^$(python3 -c "import json; print(len(json.load(open('$T/$tree.manifest.json'))['entries']))") entries" said
    grep FAILED said
  fi
done
extract aes16-plain
secret long "$(printf 'x%.0s' $(seq 65))"; chown ecfsalice: long
a mount --passphrase-file long low m
a mount -q -o "key=passphrase:passphrase_passwd=visible" low m
alice mkdir nothing; a mount --passphrase-file pw nothing m
secret p "$PASS"; chown ecfsalice: p
alice "$ECFS" init --no-recovery --passphrase-file p "${QUICK[@]}" native >/dev/null
a mount --passphrase-file p -o ecryptfs_cipher=aes native m
check "nothing is mounted" not mounted m
exit 0
