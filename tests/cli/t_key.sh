#!/bin/bash
# ecfs key: list, add, remove, change; which slots open; what is refused.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"; secret n "$NEW"; secret wrong "nothing of the kind 99"; secret both "$PASS"; printf '%s\n' "$NEW" >>both
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" low >/dev/null
opens() { ecfs mount --passphrase-file "$1" low m && ecfs umount m; }   # really opens
mkdir m
run ecfs key list low
run ecfs key list --json low
echo "# wrong secrets"
run ecfs key change --passphrase-file wrong --new-passphrase-file n "${QUICK[@]}" low
run ecfs key add password --passphrase-file wrong --new-passphrase-file n "${QUICK[@]}" low
sed -e 's/^[^A]/A/' -e t -e 's/^A/B/' rk >rkbad; chmod 600 rkbad
ecfs key add password --recovery --passphrase-file rkbad --new-passphrase-file n "${QUICK[@]}" low >said 2>&1; echo "status $?"
check "a mistake in the recovery key is placed" grep -q 'group 1' said
run ecfs key list low
echo "# add"
run ecfs key add password --label 'office laptop' --passphrase-file p --new-passphrase-file n "${QUICK[@]}" low
run ecfs key add recovery --json --passphrase-file n --recovery-key-file rk2 low
run ecfs key list low
check "both passphrases and both recovery keys open it" eval 'opens p && opens n && opens rk && opens rk2'
run ecfs key add password --label "$(printf 'a\nb')" --passphrase-file p --new-passphrase-file n low
echo "# change"
run ecfs key change --passphrase-fd 0 --new-passphrase-fd 0 "${QUICK[@]}" low <<EOT
$NEW
brand new 7 passphrase
EOT
secret n2 'brand new 7 passphrase'
check "the old one no longer opens" not opens n
check "not from the previous header either" bash -c "cp -r low old && cp old/.ecfs-volume.bak old/.ecfs-volume && ! '$ECFS' mount --passphrase-file n old m"
check "the new one does" opens n2
run ecfs key list low
run ecfs key change --slot recovery --passphrase-file p --recovery-key-file rk3 low
run ecfs key change --slot 2 --passphrase-file p --recovery-key-file rk3 low
check "the old recovery key no longer opens" not opens rk
check "the new one does" opens rk3
run ecfs key change --passphrase-file rk3 --new-passphrase-file n "${QUICK[@]}" low
run ecfs key change --slot 1 --passphrase-file rk3 --new-passphrase-file n "${QUICK[@]}" low
check "a forgotten passphrase was replaced with the recovery key" eval 'opens n && ! opens p'
echo "# remove"
run ecfs key remove --passphrase-file n low 99
run ecfs key remove --passphrase-file n low nonsense
run ecfs key remove --passphrase-file n low recovery
run ecfs key remove --passphrase-file wrong low 4
run ecfs key list low
run ecfs key remove --passphrase-file n low 4
run ecfs key remove --passphrase-file n low 6
run ecfs key remove --force --json --passphrase-file n low 6
check "removed" not opens rk3
run ecfs key remove --passphrase-file n low 5
run ecfs key list low
run ecfs key remove --passphrase-file n low 7
check "the last one still opens" opens n
echo "# while it is mounted"
ecfs mount -q --passphrase-file n low m
run ecfs key add recovery --passphrase-file n --recovery-key-file rk4 low
ecfs umount m
check "the key added meanwhile opens" opens rk4
