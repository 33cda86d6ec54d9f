#!/bin/bash
# ecfs setup-private --whole-home, as root for somebody else: what is refused, the move, the keys beside the home, removing the original
# and going back; and adduser-hook.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
install -m 755 "$here/manifest.py" "$here/terminal_shell.py" "$here/hook_terminal.py" "$T/"
secret p "$PASS"; secret n "$NEW"; cp p pa; cp n na; cp p pb; chown ecfsalice: pa na; chown ecfsbob: pb; chmod 600 pa na pb
for user in ecfsalice ecfsbob; do grep -v "^$user:" /etc/shadow; echo "$user:$(openssl passwd -6 -stdin <p):19000:0:99999:7:::"; done | sort -u >shadow
chmod 600 shadow; mount --bind shadow /etc/shadow
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
manifest() { alice python3 "$T/manifest.py" "$@"; }
ended() { wait "$1"; } 2>/dev/null
user=(setup-private --whole-home --user ecfsalice)
whole=("${user[@]}" --yes --passphrase-file p --recovery-key-file rk "${QUICK[@]}")
alice sh -c 'mkdir .ssh Documents; chmod 700 .ssh; echo "ssh-ed25519 AAAA alice" >.ssh/authorized_keys; chmod 600 .ssh/authorized_keys; echo nobody elses >Documents/file; chmod 751 .'
manifest --make "$HOME_A/things" 300000 2000000
alice touch -d 2020-02-02 .
state() { tree "$T/home"; stat -c '%n %a %U %y' "$T/home"/*; }
state >before; unchanged() { state | diff - before >/dev/null && test ! -e "$T/rk"; }
echo "# refused, and nothing is touched"
no() { run ecfs "$@"; check "unchanged" unchanged; }
a "${user[@]}"
no setup-private --whole-home
no setup-private --whole-home --user nobody-here
no setup-private --whole-home --user root
no setup-private --whole-home --user daemon
no setup-private --user ecfsalice
no "${user[@]}" --remove-original
no "${user[@]}" --undo
no "${whole[@]}" --no-auto-mount
no "${user[@]}" --yes --passphrase-file p "${QUICK[@]}"
no "${user[@]}" --yes --passphrase-file n --no-recovery "${QUICK[@]}"
no_home() { run ecfs "${whole[@]}"; }
chmod g+w home; no_home; chmod g-w home
chown ecfsbob: home; no_home; chown root: home
mv home/ecfsalice elsewhere; no_home
ln -s ../elsewhere home/ecfsalice; no_home; rm home/ecfsalice; mv elsewhere home/ecfsalice
chown ecfsbob: home/ecfsalice; no_home; chown ecfsalice: home/ecfsalice
mount -t tmpfs -o mode=700,uid=7301,gid=7301 home home/ecfsalice; no_home; umount home/ecfsalice
alice sleep 60 & await pgrep -u ecfsalice -x sleep >/dev/null; no_home; pkill -u ecfsalice -x sleep; ended $!
sleep 61 3<home/ecfsalice/Documents/file & await grep -qsx sleep "/proc/$!/comm"; no_home; kill $!; ended $!
touch home/ecfsalice/root; no_home; rm home/ecfsalice/root
alice touch group; chgrp daemon home/ecfsalice/group; no_home; rm home/ecfsalice/group
alice install -m 0 /dev/null unreadable; no_home; alice rm -f unreadable
alice mkdir .ecryptfs; no_home; alice rmdir .ecryptfs
alice sh -c '"$ECFS" setup-private --yes --name Work --no-recovery --passphrase-fd 0 --kdf-memory 19 --kdf-time 2 <../../pa >/dev/null'; no_home
alice chmod 700 Work; alice rm -rf Work .Work .ecfs
mkdir home/ecfsalice.unencrypted; no_home; rmdir home/ecfsalice.unencrypted
mkdir -p home/.ecryptfs/ecfsalice; no_home; rm -r home/.ecryptfs
mkdir -m 777 home/.ecfs; no_home; rmdir home/.ecfs
alice touch -d 2020-02-02 .
check "unchanged" unchanged
echo "# a failure in the middle"
ECFS_LIBEXEC=/nonexistent run ecfs "${whole[@]}"; check "unchanged" unchanged
echo "# it works"
manifest "$HOME_A" authorized_keys >original
run ecfs "${whole[@]}"
stat -c '%n %a %U' home/.ecfs home/.ecfs/.ecfsalice.setup home/.ecfs/ecfsalice home/ecfsalice home/ecfsalice.unencrypted
tree home/ecfsalice
tree home/.ecfs/ecfsalice | grep -v '/\.Private/[^.]'
cat home/ecfsalice/README.txt home/.ecfs/ecfsalice/authorized_keys
check "the original is as it was" eval 'manifest "$HOME_A.unencrypted" authorized_keys | diff - original'
check "nothing of it is to be read in the encrypted files" not grep -rqa 'nobody elses\|ssh-ed25519' home/.ecfs/ecfsalice/.Private
check "ssh keys, locked" grep -q alice home/ecfsalice/.ssh/authorized_keys
no_home
run ecfs "${user[@]}" --remove-original
echo "# opened by hand"
a status
a key list Home
a mount-private --passphrase-file "$T/na"
a mount-private --passphrase-file "$T/pa"
check "as it was" eval 'manifest "$HOME_A" authorized_keys | diff - original'
alice stat -c '%a %U %y' .
alice sh -c 'cat Documents/file .ssh/authorized_keys; readlink .ssh/authorized_keys; stat -c "%a" .ssh'
alice sh -c 'echo "ssh-ed25519 BBBB later" >>.ssh/authorized_keys; echo changed >Documents/file; rm things/large'
no_home
run ecfs "${user[@]}" --undo
a umount-private
a umount-private
check "ssh keys, locked" grep -q later home/ecfsalice/.ssh/authorized_keys
echo "# keys"
a key change --passphrase-file "$T/pa" --new-passphrase-file "$T/na" "${QUICK[@]}" Home
a key add password --label work --passphrase-file "$T/na" --new-passphrase-file "$T/pa" "${QUICK[@]}" Home
a mount-private --passphrase-file "$T/na" Home
alice cat Documents/file; a umount-private Home
install -o ecfsalice -m 400 rk home/.ecfs/ecfsalice/rk
a mount-private --recovery --passphrase-file "$T/home/.ecfs/ecfsalice/rk"; a umount-private
echo "# a mountpoint that somebody put something into"
alice chmod 700 .; alice touch precious; alice chmod 500 .; a mount-private --passphrase-file "$T/na"; alice chmod 700 .; alice rm precious; alice chmod 500 .
alice touch .ssh/config; a mount-private --passphrase-file "$T/na"; alice rm .ssh/config
echo "# the original is removed but for what changed"
echo new >>home/ecfsalice.unencrypted/things/large; touch home/ecfsalice.unencrypted/later
sleep 62 3<home/ecfsalice.unencrypted/later & await grep -qsx sleep "/proc/$!/comm"; run ecfs "${user[@]}" --remove-original; kill $!; ended $!
run ecfs "${user[@]}" --remove-original
tree home/ecfsalice.unencrypted
rm -r home/ecfsalice.unencrypted
run ecfs "${user[@]}" --remove-original
run ecfs "${user[@]}" --remove-original
no_home
a mount-private --passphrase-file "$T/na"; alice cat Documents/file; a umount-private
echo "# going back"
bobs=(setup-private --whole-home --user ecfsbob)
bob sh -c 'echo first >file; chmod 700 .'; tree home/ecfsbob >bob; rm rk
run ecfs "${bobs[@]}" --yes --passphrase-file p --no-recovery --json "${QUICK[@]}"
bob sh -c '"$ECFS" mount-private --passphrase-fd 0 >/dev/null 2>&1 <../../pb; cd; echo second >file'; bob "$ECFS" umount-private
run ecfs "${bobs[@]}" --undo
check "as it was" eval 'tree home/ecfsbob | diff - bob'; cat home/ecfsbob/file; ls -A home home/.ecfs
run ecfs "${bobs[@]}" --undo
mkdir m; cp home/.ecfs/ecfsbob.undone/.ecfs/Home/volume home/.ecfs/ecfsbob.undone/.Private/.ecfs-volume; run ecfs mount --passphrase-file p home/.ecfs/ecfsbob.undone/.Private m
cat m/file; umount m
echo "# an empty home, and again"
rm home/ecfsbob/file
run ecfs "${bobs[@]}" --yes --passphrase-file p --no-recovery "${QUICK[@]}" >/dev/null; run ecfs "${bobs[@]}" --undo | tail -n 1; ls -A home home/.ecfs
echo "# adduser-hook"
ln -s "$ECFS" adduser.local; bob sh -c 'echo skeleton >.profile'
hook() { printf '$ adduser.local'; printf ' %s' "$@"; printf '\n'; "$T/adduser.local" "$@" 2>&1; echo "= $?"; }
hook ecfsbob 7302 7302 "$T/home/ecfsbob"
hook ecfsbob 7301 7302 "$T/home/ecfsbob"
hook ecfsbob 7302 7302 "$T/home/ecfsalice"
hook nobody-here 1 1 /
hook daemon 1 1 /usr/sbin
hook ecfsbob
if python3 -c 'import pexpect' 2>/dev/null; then python3 hook_terminal.py "$T" "$PASS"; else echo "python3-pexpect is not installed"; fi
ls -A home; tree home/ecfsbob
bob sh -c '"$ECFS" mount-private --passphrase-fd 0 2>/dev/null <../../pb; cd; cat .profile; ls -A'; bob "$ECFS" umount-private
rm -f /run/ecfs-whole-home.lock
umount /etc/shadow
