#!/bin/bash
# ecfs setup-private and the commands around it, as an ordinary user: the whole round, what is refused, what a failure leaves.
. "$(dirname "$0")/lib.sh"
cd "$HOME_A"; secret p "$PASS"; secret n "$NEW"; secret weak abc; chown ecfsalice: p n weak
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
setup=(setup-private --yes --passphrase-file p --recovery-key-file rk "${QUICK[@]}")
tree . >"$T/before"
unchanged() { tree "$HOME_A" | diff - "$T/before" >/dev/null; }
echo "# refused, and nothing is left"
run "$ECFS" "${setup[@]}"
a setup-private --yes --passphrase-file weak --no-recovery "${QUICK[@]}"; check "unchanged" unchanged
a setup-private --yes --passphrase-file p "${QUICK[@]}"; check "unchanged" unchanged
a "${setup[@]}" --name ../x; check "unchanged" unchanged
a "${setup[@]}" --lower "$HOME_A/Private/in"; check "unchanged" unchanged
a "${setup[@]}" --lower /no/such/dir; check "unchanged" unchanged
alice ln -s /etc Private; a "${setup[@]}"; rm Private; check "unchanged" unchanged
alice ln -s /tmp .Private; a "${setup[@]}"; rm .Private; check "unchanged" unchanged
ln -s "$T/home/ecfsbob" .ecfs; chown -h ecfsalice: .ecfs; a "${setup[@]}"; rm .ecfs; check "unchanged" unchanged
alice touch Private; a "${setup[@]}"; rm Private; check "unchanged" unchanged
alice sh -c 'mkdir .Private && touch .Private/data'; a "${setup[@]}"; rm -r .Private; check "unchanged" unchanged
alice mkdir .ecryptfs; a "${setup[@]}"; rmdir .ecryptfs; check "unchanged" unchanged
alice sh -c 'mkdir Private && touch Private/data'; a "${setup[@]}"; rm -r Private; check "unchanged" unchanged
echo "# no room"
mkdir disk; mount -t tmpfs -o size=8m,mode=777 none disk; a "${setup[@]}" --lower "$HOME_A/disk/low"
check "nothing in it" test -z "$(ls -A disk)"; umount disk; rmdir disk; check "unchanged" unchanged
echo "# a failure in the middle: no ecfs-mountd"
run alice env ECFS_LIBEXEC=/nonexistent "$ECFS" "${setup[@]}" | sed 's/^\$ alice env ECFS_LIBEXEC=.nonexistent /$ /'; check "unchanged" unchanged
echo "# it works"
a "${setup[@]}"
tree . | grep -v ' ./p \| ./n \| ./weak '
cat Private/README.txt
a status
a key list Private
a "${setup[@]}"
printf '/no/such/swapfile file 60 0 -2\n' >>"$T/swaps"   # of which it is not known that it is encrypted
a setup-private --yes --name Work --no-auto-mount --passphrase-file p --no-recovery "${QUICK[@]}"
head -n 1 "$T/swaps" >heading; cat heading >"$T/swaps"; rm heading; a status
echo "# open and lock"
a mount-private
a mount-private --passphrase-file n
a mount-private --passphrase-file p
a mount-private
alice sh -c 'echo mine >Private/file'
alice "$ECFS" status --json | python3 -c '
import json, sys
for v in json.load(sys.stdin)["volumes"]: print(v["name"], v["state"], v["key_in_keyring"], [s["type"] for s in v["slots"]], v["notes"], "pid" in v.get("server", {}))'
a umount-private
a umount-private
check "locked" not test -e Private/file
a umount-private Nothing
echo "# by its lower directory it is the same volume, with the same keys"
alice mkdir m; a mount --passphrase-file p .Private m; alice cat m/file; alice "$ECFS" umount m
a key change --passphrase-file p --new-passphrase-file n "${QUICK[@]}" .Private
a mount-private --passphrase-file n; alice "$ECFS" umount-private >/dev/null
echo "# a mountpoint that somebody removed"
chmod 700 Private; rm -r Private; a mount-private --passphrase-file n; alice cat Private/file; alice "$ECFS" umount-private >/dev/null; ls Private
echo "# the lower directory is gone"
mv .Private away; a mount-private --passphrase-file n; a status; mv away .Private
echo "# another volume in its place"
alice cp -a .Private keep; rm -r .Private; alice "$ECFS" init --no-recovery --passphrase-file p "${QUICK[@]}" .Private >/dev/null
a mount-private --passphrase-file p
rm -r .Private; mv keep .Private
echo "# a damaged header beside the keys"
truncate -s 50 .ecfs/Private/volume; a mount-private --passphrase-file n; alice "$ECFS" umount-private >/dev/null; a status
echo "# a hostile profile"
rm .ecfs/Private/profile.json; alice mkfifo .ecfs/Private/profile.json; run alice timeout 20 "$ECFS" status | sed 's/^\$ alice timeout 20 /$ /'
echo "# with the slots in the volume, the password opens a copy"
a setup-private --yes --name Copy --slots-in-volume --passphrase-file p --no-recovery "${QUICK[@]}" >/dev/null
alice cp -a .Copy copied; a mount --passphrase-file p copied m; alice "$ECFS" umount m
