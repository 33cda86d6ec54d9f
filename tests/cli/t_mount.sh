#!/bin/bash
# ecfs mount and umount: what is refused and why, and that the ordinary way works, as an ordinary user.
. "$(dirname "$0")/lib.sh"
cd "$HOME_A"; secret p "$PASS"; secret wrong "nothing of the kind 99"; chown ecfsalice: p wrong
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
alice "$ECFS" init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" low >/dev/null; alice mkdir m m2
echo "# refused before anything is asked"
a mount --passphrase-file p nowhere m
a mount --passphrase-file p p m
a mount --passphrase-file p m2 m
a mount --passphrase-file p low nowhere
a mount --passphrase-file p low p
alice ln -s m link; a mount --passphrase-file p low link
alice mkdir full; alice touch full/file; a mount --passphrase-file p low full
mkdir bobs; chown ecfsbob: bobs; chmod 777 bobs; a mount --passphrase-file p low bobs
alice mkdir low/in; a mount --passphrase-file p low low/in; alice rmdir low/in
a mount --passphrase-file p low low
alice mkdir out; alice cp -a low out/; a mount --passphrase-file p out/low out
a mount --passphrase-file p -o nonsense low m
a mount low m
chmod 700 low; chown ecfsbob: out/low; a mount --passphrase-file p out/low m
echo "# a wrong passphrase"
a mount --passphrase-file wrong low m
check "nothing is mounted" not mounted m
await not pgrep -u ecfsalice -x ecfs-mountd >/dev/null
check "the server that was ready has ended" not pgrep -u ecfsalice -x ecfs-mountd
echo "# the ordinary way"
a mount --passphrase-file p low m
alice sh -c 'echo text >m/file'
check "mounted nosuid, nodev" bash -c "findmnt -no OPTIONS --mountpoint m | grep -q nosuid.*nodev"
check "other users cannot look in" not bob ls m
check "ciphertext below" not grep -rq text low
a mount --passphrase-file p low m
a mount --passphrase-file p low m2
a mount --check-only low m2
a umount m
a umount m
a umount nowhere
check "the file is locked away" not test -e m/file
echo "# the recovery key, read-only"
a mount --passphrase-file rk -o ro,noatime low m
alice cat m/file
check "read-only" not alice touch m/new
alice "$ECFS" umount m
echo "# every block size and both suites"
for kind in 4k:aes-256-gcm 8k:chacha20-poly1305 16k:aes-256-gcm 32k:chacha20-poly1305 64k:auto; do
  alice "$ECFS" init --no-recovery --passphrase-file p "${QUICK[@]}" --block-size "${kind%:*}" --suite "${kind#*:}" "low-$kind" >/dev/null
  alice "$ECFS" mount -q --passphrase-file p "low-$kind" m2
  alice sh -c 'head -c 300000 /dev/zero | tr "\0" x >m2/file'
  alice "$ECFS" umount m2; alice "$ECFS" mount -q --passphrase-file p "low-$kind" m2
  check "$kind" test "$(alice cat m2/file | tr -d x | wc -c) $(alice cat m2/file | wc -c)" = "0 300000"
  alice "$ECFS" umount m2
done
echo "# once it is unmounted, nobody is at work in the lower directory"
for round in $(seq 20); do
  alice "$ECFS" mount -q --passphrase-file p low m
  alice sh -c "head -c 3000000 /dev/zero >m/large"
  alice "$ECFS" umount m
  flock -n low true || echo "FAILED: round $round: the server still holds it"
done
alice "$ECFS" mount -q --passphrase-file p low m; alice rm m/large; alice "$ECFS" umount m
echo "# unmounted by itself"
a mount --passphrase-file p -o idle=soon low m
a mount --passphrase-file p -o idle=1s low m
check "when nobody uses it" await not mounted m
echo "# busy"
alice "$ECFS" mount -q --passphrase-file p low m
{ alice sh -c 'cd m; exec sleep 60'; } 2>/dev/null & holder=$!
await pgrep -u ecfsalice -x sleep >/dev/null; disown "$holder"
a umount m
check "still mounted" mounted m
a umount --lazy m
check "detached" not mounted m
kill "$(pgrep -u ecfsalice -x sleep)"
await not pgrep -u ecfsalice -x ecfs-mountd >/dev/null
check "the server ended" not pgrep -u ecfsalice -x ecfs-mountd
echo "# an unmounted Private: the note and a mode without w"
alice sh -c 'echo note >m2/README.txt; chmod 500 m2'
a mount --passphrase-file p low m2
alice ls m2; alice "$ECFS" umount m2
check "its mode is as before" test "$(stat -c %a m2)" = 500
echo "# a dead mount"
alice "$ECFS" mount -q --passphrase-file p low m
for pid in $(pgrep -u ecfsalice -x ecfs-mountd | sort -rn); do kill -STOP "$pid"; done
kill -9 $(pgrep -u ecfsalice -x ecfs-mountd)
await not pgrep -u ecfsalice -x ecfs-mountd >/dev/null
check "it is dead" eval "alice stat m 2>&1 | grep -q 'not connected'"
a mount --passphrase-file p low m
alice cat m/file
alice "$ECFS" umount m
echo "# in the foreground"
alice "$ECFS" mount -f --passphrase-file p low m >said 2>&1 & tool=$!
hears_sigterm() { local pid; pid=$(pgrep -u ecfsalice -x ecfs) && (((0x$(awk '/^SigCgt/ { print $2 }' "/proc/$pid/status") >> 14) & 1)); }
check "mounted" await mounted m; await hears_sigterm
pkill -TERM -u ecfsalice -x ecfs; wait "$tool"
check "SIGTERM unmounts" not mounted m
grep -v '^$' said
echo "# as the helper of mount(8)"
ln -s "$ECFS" "$T/mount.ecfs"; chmod 755 "$T"
check "mount.ecfs" "$T/mount.ecfs" "$HOME_A/low" "$HOME_A/m" -o "rw,noauto,user,x-gvfs-hide,passphrase-file=$HOME_A/p"
cat m/file; umount m
check "mount -f mounts nothing" "$T/mount.ecfs" "$HOME_A/low" "$HOME_A/m" -f -o rw
check "so it is" not mounted m
echo "# no /dev/fuse"
mkdir "$T/empty-dev"; mount --bind "$T/empty-dev" /dev 2>/dev/null && {
  "$ECFS" mount --passphrase-file p low m >said 2>&1; status=$?; umount /dev; cat said; echo "= $status"; }
touch "$T/nodev"; chmod 600 "$T/nodev"; mount --bind "$T/nodev" /dev/fuse
a mount --passphrase-file p low m
umount /dev/fuse
