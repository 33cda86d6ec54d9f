#!/bin/bash
# ecfs setup-boot, without the boot: what it makes, what it refuses, what it takes back. The boot is in tests/vm/test_login.py.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/tpm.sh"
# The machine's own are left alone: /srv has the directories, and systemd does not run.
mkdir -p /etc/ecfs
for dir in /etc/ecfs /srv /run; do mount -t tmpfs -o mode=755 none "$dir"; done
trap 'for pid in "${swtpms[@]}"; do kill -KILL "$pid" 2>/dev/null; done; umount /srv/secret 2>/dev/null; no_stand_in; cleanup' EXIT
# A stand-in for systemctl, in this mount namespace. A small machine has none: then there is an empty file in its place meanwhile.
place=
stand_in() { if [ ! -e /bin/systemctl ]; then place=/bin/systemctl; : >$place; fi; mount --bind "$1" /bin/systemctl; }
no_stand_in() { umount /bin/systemctl 2>/dev/null; [ -z "$place" ] || rm -f "$place"; place=; }
cd /srv || exit 1
boot() { run ecfs setup-boot --yes "$@"; }
quietly() { ecfs setup-boot --yes "$@" >/dev/null; }
left() { (cd /srv && find . -mindepth 1 | sed -E 's,/[A-Za-z0-9_-]{43}$,/@FILE@,' | sort); ls /etc/ecfs 2>/dev/null; ls /etc/ecfs/boot.d 2>/dev/null; }
nothing() { [ -z "$(left)" ]; }

echo "# for root, and with a TPM"
run as ecfsbob "$ECFS" setup-boot --yes /srv/secret
ECFS_TCTI=device:$T/none boot --recovery-key-file key /srv/secret
check "nothing was made" nothing
swtpm_start one
boot --recovery-key-file key /srv/secret
check "nothing was made, no recovery key either" nothing
extend 7

echo "# places that are none"
boot /; boot relative; boot /srv/../srv/x; boot --recovery-key-file key '/srv/a"b'; boot /srv/none/secret; boot "/srv/$(printf 'long%.0s' {1..60})"
boot --lower /srv/secret/below /srv/secret; boot --lower /srv /srv/secret
install -d -o ecfsalice /srv/hers; boot --recovery-key-file key /srv/hers/secret; boot --recovery-key-file key /srv/hers
boot --recovery-key-file hers/key /srv/secret; rmdir /srv/hers
install -d -m 1777 /srv/open; boot --recovery-key-file key /srv/open/secret; boot --recovery-key-file key --lower /srv/open/low /srv/secret; rmdir /srv/open
ln -s /etc /srv/link; boot --recovery-key-file key /srv/link/secret; boot --recovery-key-file key /srv/link; rm /srv/link
mkdir full; touch full/file; boot --recovery-key-file key /srv/full; boot --recovery-key-file key --lower /srv/full /srv/secret; rm -r full
boot --pcrs 25 /srv/secret; boot -o no_such /srv/secret; boot /srv/secret
touch key; boot --recovery-key-file key /srv/secret; check "another's file of that name stays" test -f key; rm key
check "nothing was made" nothing

echo "# made, opened as at boot, ended"
boot --recovery-key-file key /srv/secret
left
cat /etc/ecfs/boot.d/srv-secret
ecfs key list .secret
check "nobody else reads its header, nor the recovery key" test "$(stat -c %a .secret/.ecfs-volume .secret/.ecfs-volume.bak key | tr '\n' ' ')" = "600 600 400 "
check "it is locked: there is no systemd here" not mounted /srv/secret
check "its key opens it" ecfs mount -q --slot tpm2 -o allow_other .secret secret
echo text >secret/file; chmod 644 secret/file
check "others read it as modes allow" as ecfsbob cat /srv/secret/file
check "and write nothing" not as ecfsbob sh -c 'echo x >/srv/secret/file'
boot /srv/secret >"$T/again"; check "said again, while it is open: as it is" test $? = 0 -a "$(cat secret/file)" = text
boot -o allow_other,noatime /srv/secret
exec 8<secret/file
run ecfs setup-boot --undo /srv/secret
check "it opens at boot still" test -e /etc/ecfs/boot.d/srv-secret
exec 8<&-
run ecfs setup-boot --undo /srv/secret
run ecfs setup-boot --undo /srv/secret
left

echo "# what a kill leaves is taken up"
mkdir new; echo x >new/.ecfs-volume.tmp; echo x >new/.ecfs-volume.bak.tmp
check "while the header was written" quietly --recovery-key-file key2 --lower /srv/new /srv/place
ecfs setup-boot --undo /srv/place >/dev/null; rm new/.ecfs-volume
check "between the header's copies" quietly --lower /srv/new /srv/place
check "both copies are there" test -s new/.ecfs-volume -a -s new/.ecfs-volume.bak
rmdir place; check "the mountpoint was lost" quietly --lower /srv/new /srv/place
mv new elsewhere; boot --lower /srv/new /srv/place; mv elsewhere new
echo damaged >/etc/ecfs/boot.d/srv-place; boot --lower /srv/new /srv/place
run ecfs setup-boot --undo /srv/place; rm -r new key2

echo "# the volume that is there, again; with the recovery key alone it has no key of the TPM's"
boot /srv/secret
ecfs setup-boot --undo /srv/secret >/dev/null
ecfs init --no-password --recovery-key-file key2 .other >/dev/null
boot /srv/other
secret p "$PASS"; ecfs init "${QUICK[@]}" --no-recovery --passphrase-file p .third >/dev/null; ecfs key add tpm2 --passphrase-file p .third >/dev/null
quietly /srv/third
ecfs setup-boot --undo /srv/third >/dev/null; rm -r .other .third p key2 third

echo "# systemd, stood in for: its unit fails, and then it does not"
mkdir -p /run/systemd/system
cat >"$T/systemctl" <<END
#!/bin/bash
shift 2; echo "systemctl \$*" >>$T/asked
[ ! -e $T/fail-\$1 ] || exit 1
export ECFS_LIBEXEC=$ECFS_LIBEXEC ECFS_TCTI=$ECFS_TCTI
case \$1 in
  restart) . /etc/ecfs/boot.d/srv-secret && exec $ECFS mount -q --slot tpm2 -o "\$OPTIONS" "\$LOWER" "\$MOUNTPOINT" ;;
  stop) $ECFS umount /srv/secret ;;
esac
exit 0
END
chmod 755 "$T/systemctl"; stand_in "$T/systemctl"
asked() { cat "$T/asked"; rm -f "$T/asked"; }
before=$(left)
touch "$T/fail-restart"; boot /srv/secret | tail -2; asked
check "all is as it was" test "$(left)" = "$before"
rm "$T/fail-restart"; boot /srv/secret; asked
check "it is open" mounted /srv/secret
check "said again" quietly /srv/secret; asked
ecfs umount secret; touch "$T/fail-restart"; boot /srv/secret | tail -2; asked; rm "$T/fail-restart"
check "a run that fails takes nothing back of an earlier one's" test -e /etc/ecfs/boot.d/srv-secret
check "and again, after it was locked by hand" quietly /srv/secret; asked
cat secret/file
run ecfs setup-boot --undo /srv/secret; asked
check "it is locked" not mounted /srv/secret
no_stand_in; rmdir /run/systemd/system

echo "# the TPM does not give its key any more"
extend 7
run ecfs mount --quiet --slot tpm2 -o allow_other .secret secret
boot /srv/secret | tail -2
left
check "the recovery key opens it" ecfs mount -q --recovery --passphrase-file key .secret secret
cat secret/file; ecfs umount secret
check "and binds it anew" ecfs key reseal --passphrase-file key .secret
boot /srv/secret | grep Done
