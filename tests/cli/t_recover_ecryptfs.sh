#!/bin/bash
# recover-private of eCryptfs Privates: found below directories and in an image of a disk, opened with the login passphrase
# or the mount passphrase, read-only, for nobody else; hostile trees.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
vectors=$here/../vectors/ecryptfs
mount -t tmpfs -o mode=755 none /run
login='login pw'; main=0123456789abcdef0123456789abcdef
cd "$T"; tar -C "$T" -xf "$vectors/home-layout.tar"; mkdir -p media/home; mv ecu media/home/ecu; chown -R ecfsalice: media
cd "$HOME_A"; for text in "login:$login" "main:$main" "wrong:something else"; do secret "${text%%:*}" "${text#*:}"; chown ecfsalice: "${text%%:*}"; done
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
there() { ls "$HOME_A" | sed -n "s#^ecfs-recovered-#$HOME_A/&#p"; }   # root may not look into it
shut() { alice "$ECFS" umount "$(there)"; }
echo "# found, and opened with the passphrase of the login"
a recover-private --list "$T/media"
a recover-private --list --json "$T/media"
a recover-private --passphrase-file wrong "$T/media"
check "nothing is left of that" test -z "$(there)"
before=$(cd "$T/media" && find . -printf '%P %m %T@\n' | sort; find . -type f -exec sha256sum {} +)
a recover-private --passphrase-file login "$T/media"
alice cat "$(there)/file"
check "read-only" not alice touch "$(there)/new"
check "another user cannot look in" not bob ls "$(there)"
shut; check "the directory is gone, too" test -z "$(there)"
check "nothing was changed" test "$(cd "$T/media" && find . -printf '%P %m %T@\n' | sort; find . -type f -exec sha256sum {} +)" = "$before"
echo "# with the mount passphrase"
a recover-private --mount-passphrase --passphrase-file login "$T/media"
a recover-private --json --mount-passphrase --passphrase-file main "$T/media"; alice cat "$(there)/file"; shut
a recover-private --mount-passphrase --recovery --passphrase-file main "$T/media"
a recover-private "$T/media"
echo "# a wrapped-passphrase of version 1"
python3 - "$login" "$main" <<'PY' >v1
import hashlib, sys
from subprocess import run, PIPE
key = bytes.fromhex("0011223344556677") + sys.argv[1].encode()
for _ in range(65536): key = hashlib.sha512(key).digest()
sys.stdout.buffer.write(hashlib.sha512(key).hexdigest()[:16].encode())
sys.stdout.buffer.write(run(["openssl", "enc", "-aes-128-ecb", "-nopad", "-K", key[:16].hex()], input=sys.argv[2].encode(), stdout=PIPE, check=True).stdout)
PY
cp -a "$T/media/home/ecu/.ecryptfs" saved; cp v1 "$T/media/home/ecu/.ecryptfs/wrapped-passphrase"
a recover-private --passphrase-file login "$T/media"; alice cat "$(there)/file"; shut
echo "# one that holds another mount passphrase"
printf 'a mount passphrase of something else\n%s\n' "$login" | alice "$ECFS" wrap-passphrase stale -
cp stale "$T/media/home/ecu/.ecryptfs/wrapped-passphrase"
a recover-private --passphrase-file login "$T/media"
echo "# a copy of the encrypted directory alone, whatever its name"
cp -a "$T/media/home/ecu/.Private" "$T/media/copy"; rm -rf "$T/media/home"; chown -R ecfsalice: "$T/media"
a recover-private --passphrase-file wrong "$T/media"
a recover-private --passphrase-file main "$T/media"; alice cat "$(there)/file"; shut
a recover-private --writable --mountpoint m --passphrase-file main "$T/media"
mkdir m; chown ecfsalice: m
a recover-private --writable --mountpoint m --passphrase-file main "$T/media/copy"
alice sh -c 'echo more >m/new'; alice "$ECFS" umount m
a recover-private --passphrase-file main "$T/media"; alice cat "$(there)/new"; shut
echo "# several, with a native one among them; --path"
mkdir -p "$T/media/home/.ecryptfs/ecu"; cp -a saved "$T/media/home/.ecryptfs/ecu/.ecryptfs"; cp -a "$T/media/copy" "$T/media/home/.ecryptfs/ecu/.Private"
mkdir "$T/media/home/ecu"; ln -s "/home/.ecryptfs/ecu/.Private" "$T/media/home/ecu/.Private"; ln -s /home/.ecryptfs/ecu/.ecryptfs "$T/media/home/ecu/.ecryptfs"
ecfs init --no-recovery --allow-weak-passphrase --passphrase-file main "${QUICK[@]}" "$T/media/native" >/dev/null
tar -C "$T/media" -xf "$vectors/aes16-plain.tar" --transform 's#^lower#plain-names#'; chown -Rh ecfsalice: "$T/media"
a recover-private --list --json "$T/media"
a recover-private --passphrase-file login "$T/media"
a recover-private --passphrase-file login --path home/.ecryptfs/ecu/.Private "$T/media"; alice cat "$(there)/file"; shut
a recover-private --passphrase-file main --path ../media/copy "$T/media"
a recover-private --passphrase-file main --path home/ecu/.Private "$T/media"
a recover-private --passphrase-file main --path home "$T/media"
a recover-private --passphrase-file main --path nothing "$T/media"
a recover-private --list --path copy "$T/media"
echo "# as root: only root looks in"
run ecfs recover-private --passphrase-file login --path /home/.ecryptfs/ecu/.Private "$T/media"
place=$(echo /run/ecfs-recovered-*); cat "$place/file"
check "not even the owner" not alice ls "$place"
ecfs umount "$place"
echo "# hostile"
mkdir "$T/bad"; cd "$T/bad"
for what in fifo link huge dir; do mkdir -p "$what/.ecryptfs"; cp -a "$T/media/copy" "$what/.Private"; done
mkfifo fifo/.ecryptfs/wrapped-passphrase; ln -s "$HOME_A/saved/wrapped-passphrase" link/.ecryptfs/wrapped-passphrase
truncate -s 1T huge/.ecryptfs/wrapped-passphrase; mkdir dir/.ecryptfs/wrapped-passphrase
mkfifo fifo/.ecryptfs/Private.sig; truncate -s 1T huge/.ecryptfs/Private.sig; ln -s /dev/zero link/.ecryptfs/Private.sig; mkfifo link/.ecryptfsrc
for what in fifo link huge dir; do run timeout 20 "$ECFS" recover-private --passphrase-file "$HOME_A/login" "$what" | sed 's/timeout 20 //'; done
run timeout 20 "$ECFS" recover-private --mount-passphrase --passphrase-file "$HOME_A/main" link; cat /run/ecfs-recovered-*/file; ecfs umount /run/ecfs-recovered-*
ln -s /proc loop; ln -s . self; mkdir deep; (cd deep && for _ in $(seq 300); do mkdir d && cd d || exit; done; cp -a "$T/media/copy" found)
mkdir names; (cd names && python3 -c '
import os
for i in range(30000): os.close(os.open("f%d" % i, os.O_CREAT))
os.mkfifo("ECRYPTFS_FNEK_ENCRYPTED.fifo")')
mkdir -p fakes/.Private; (cd fakes/.Private && for i in 1 2 3; do mkfifo p$i; done; printf '0123456789abcdef0123456789' >x; ln -s / l)
run timeout 60 "$ECFS" recover-private --list .
check "no directory is left" not eval "ls -d /run/ecfs-recovered-*"
rm -rf --one-file-system "$T/bad"
echo "# the image of a disk"
cd "$T"; truncate -s 24M disk; mkfs.ext4 -q -d media disk; cp disk before
run alice "$ECFS" recover-private --passphrase-file login "$T/disk" | sed 's/^\$ alice /$ /'
if ! device=$(losetup -f --show disk 2>/dev/null); then echo "skipped: this machine has no loop devices"; exit 77; fi
losetup -d "$device"
run ecfs recover-private --list disk
run ecfs recover-private --passphrase-file "$HOME_A/login" disk
check "nothing stays mounted" not eval "ls -d /run/ecfs-recovered-*"
run ecfs recover-private --writable --path copy disk
run ecfs recover-private --passphrase-file "$HOME_A/wrong" --path home/.ecryptfs/ecu/.Private disk
check "nothing stays mounted" not eval "ls -d /run/ecfs-recovered-*"
run ecfs recover-private --passphrase-file "$HOME_A/login" --path home/.ecryptfs/ecu/.Private disk
for place in /run/ecfs-recovered-*; do [ -e "$place/file" ] || continue; cat "$place/file"; ecfs umount "$place"; done
for place in /run/ecfs-recovered-*; do
  check "mounted read-only, nosuid, nodev, noexec" eval "findmnt -no OPTIONS --mountpoint $place | grep -q 'ro,nosuid,nodev,noexec'"
  await umount "$place" 2>/dev/null; rmdir "$place"
done
check "the image is as it was" cmp disk before
exit 0
