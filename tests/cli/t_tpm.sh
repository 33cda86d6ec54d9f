#!/bin/bash
# Keys sealed by a TPM: a real one in software for each state that a TPM can be in, and the words for it.
here=$(readlink -f "$(dirname "$0")")
vectors=$here/../vectors/ecryptfs
. "$here/lib.sh"
. "$here/tpm.sh"
python3 -c 'import pexpect' 2>/dev/null || { echo "skipped: python3-pexpect is not installed"; exit 77; }

counted() { ecfs tpm status --json | sed -n 's/.*"failed_tries": \([0-9]*\).*/\1/p'; }

secret p "$PASS"; secret n "$NEW"; secret wrong "nothing of the kind 99"
ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" low >/dev/null
mkdir m
opens() { ecfs mount -q "$@" low m && ecfs umount m; }

echo "# nothing that ecfs starts in a login or for a mount loads the TPM's libraries"
check "the tool" not grep -q libtss2 <(ldd "$ECFS")
check "the program for it does" grep -q libtss2-esys <(ldd "$ECFS_LIBEXEC/ecfs-tpm2")

echo "# no TPM, none that may be used, one that is no way to a TPM"
run ecfs key add tpm2 --tcti "device:$T/none" --passphrase-file p low
install -m 600 /dev/null tpm-of-root
as ecfsalice "$ECFS" tpm status --tcti "device:$T/tpm-of-root"; echo "= $?"
run ecfs tpm status --json --tcti "device:$T/none"
run ecfs tpm status --tcti "cmd:touch $T/evil"
run env ECFS_TCTI=libtss2-tcti-cmd.so.0:true "$ECFS" tpm status
run ecfs tpm status --tcti swtpm:path=/nonexistent
check "nothing was started" not test -e evil
run ecfs key add recovery --with-password --passphrase-file p --recovery-key-file rk9 low
run ecfs key add tpm2 --pcrs 7,25 --passphrase-file p low

swtpm_start one
echo "# a TPM that nothing was measured into"
run ecfs key add tpm2 --passphrase-file p low
run ecfs key list low
extend 7
echo "# the TPM alone"
run ecfs key add tpm2 --passphrase-file wrong low
run ecfs key add tpm2 --label desk --passphrase-file p low
run ecfs key list low
run ecfs key list --json low
run ecfs mount low m
run ecfs umount m
check "it opens with --slot tpm2" opens --slot tpm2
check "--slot password does not ask the TPM" not opens --slot password
check "a key of the TPM alone is not enough to add another" not ecfs key add recovery --recovery-key-file rk8 low
run ecfs tpm status low
run ecfs tpm status low --json
run ecfs key change --slot tpm2 --passphrase-file p low
echo "# the state that was booted changes"
extend 7
run ecfs mount --slot tpm2 low m
run ecfs mount low m
run ecfs mount --passphrase-file p low m; ecfs umount m
check "the recovery key opens it" opens --passphrase-file rk
run ecfs tpm status low
run ecfs key reseal --passphrase-file rk low
check "it opens again" opens --slot tpm2
run ecfs key reseal --passphrase-file rk low
run ecfs key reseal --json --pcrs none --passphrase-file rk low
extend 7
check "bound to nothing but the chip it opens after a change" opens --slot tpm2

echo "# the TPM and a passphrase"
tpm2_dictionarylockout --setup-parameters --max-tries=3 --recovery-time=1000 --lockout-recovery-time=1000
run ecfs key add tpm2 --with-password --passphrase-file p --new-passphrase-file n "${QUICK[@]}" low
check "it opens with it" opens --slot tpm2+password --passphrase-file n
check "and beside the passphrase alone" opens --passphrase-file n
check "not with the passphrase alone, elsewhere" not env ECFS_TCTI="device:$T/none" "$ECFS" mount --slot tpm2+password --passphrase-file n low m
run ecfs mount --passphrase-file wrong low m
run ecfs mount --slot tpm2+password --passphrase-file p low m
echo "counted: $(counted)"
check "what is right for the other slot costs no try" opens --passphrase-file p
echo "counted: $(counted)"
run ecfs mount --slot tpm2+password --passphrase-file wrong low m
run ecfs mount --slot tpm2+password --passphrase-file n low m
run ecfs tpm status low
check "the key of the TPM alone opens all the same" opens --slot tpm2
check "and the recovery key" opens --passphrase-file rk
tpm2_dictionarylockout --clear-lockout
check "unlocked it opens" opens --slot tpm2+password --passphrase-file n
secret n2 'brand new 7 passphrase'
run ecfs key change --passphrase-file n --new-passphrase-file n2 "${QUICK[@]}" low
check "with the new one" opens --slot tpm2+password --passphrase-file n2
check "no longer with the old one" not opens --slot tpm2+password --passphrase-file n

echo "# a TPM that hangs"
kill -STOP "${swtpms[one]}"
begun=$SECONDS
run ecfs mount --slot tpm2 low m
check "it costs its limit and no more" test $((SECONDS - begun)) -le 20
kill -CONT "${swtpms[one]}"
swtpm_stop one; swtpm_start one
check "the same TPM, switched off and on" opens --slot tpm2

echo "# what is sealed is damaged"
cp -r low damaged
python3 - damaged/.ecfs-volume <<'EOP'
import struct, sys
raw = bytearray(open(sys.argv[1], "rb").read())
at = 64 + 16
for _ in range(struct.unpack_from("<H", raw, 64 + 12)[0]):
    length, kind = struct.unpack_from("<IH", raw, at)
    if kind == 3:
        end = at + 32 + raw[at + 12] + struct.unpack_from("<H", raw, at + 14)[0]
        raw[end - 1] ^= 1  # of the private area
    at += length
open(sys.argv[1], "wb").write(raw); open(sys.argv[1] + ".bak", "wb").write(raw)
EOP
run ecfs mount --slot tpm2 damaged m

echo "# another TPM"
swtpm_start two
run ecfs mount --slot tpm2 low m
run ecfs tpm status low
run ecfs key reseal --passphrase-file rk low
tpm_slot=$(ecfs key list low | awk '$2 == "tpm2" { print $1 }')
run ecfs key reseal --slot "$tpm_slot" --passphrase-file rk low
check "taken over" opens --slot tpm2
echo "# several in turn: each on its own computer"
run ecfs key add tpm2 --pcrs none --label two --passphrase-file p low
swtpm_use one
run ecfs key add tpm2 --pcrs none --label one --passphrase-file p low
check "on the first" opens --slot tpm2
swtpm_use two
check "on the second" opens --slot tpm2

echo "# cleared"
tpm2_clear
run ecfs mount --slot tpm2 low m
run ecfs key reseal --passphrase-file rk low
check "bound anew" opens --slot tpm2

echo "# an owner password"
tpm2_changeauth -c owner owner-password
run ecfs mount --slot tpm2 low m
tpm2_changeauth -c owner -p owner-password

echo "# in failure mode: it cannot write its memory"
rm -r tpm-two/nv
tpm2_clear >/dev/null 2>&1
run ecfs mount --slot tpm2 low m
run ecfs key add tpm2 --pcrs none --passphrase-file p low
swtpm_stop two; swtpm_start two

echo "# the last key that needs no TPM stays"
run ecfs key remove --passphrase-file p low password
run ecfs key remove --force --passphrase-file rk low recovery

echo "# a Private of ecryptfs-utils, behind the TPM without a file encrypted anew"
cd "$HOME_A"
tar --strip-components=1 -xf "$vectors/home-layout.tar"
echo "$HOME_A/Private" >.ecryptfs/Private.mnt
chown -hR ecfsalice: .ecryptfs .Private Private
secret "$T/login" 'login pw'; chown ecfsalice: "$T/login"
a() { alice env ECFS_TCTI="$ECFS_TCTI" "$ECFS" "$@"; local status=$?; [ $status -eq 0 ] || echo "= $status"; return $status; }
sums() { (cd .Private && find . -type f -exec sha256sum {} + | sort); }
before=$(sums)
a mount-private --slot tpm2
a key add tpm2 --pcrs none --passphrase-file "$T/login" "${QUICK[@]}" Private
a key list Private
a mount-private
check "the files are there" alice test -s Private/file
a umount-private
a tpm status | tail -1
swtpm_use one
a mount-private
a mount-private --passphrase-file "$T/login"
a umount-private
check "no file was written anew" test "$(sums)" = "$before"

echo "# the wizard"
swtpm_use two
secret "$T/work" "$PASS"; chown ecfsalice: "$T/work"
wizard=(setup-private --name Work --yes --tpm2 --passphrase-file "$T/work" --recovery-key-file recovery "${QUICK[@]}")
a "${wizard[@]}" --no-recovery
a "${wizard[@]}" --pcrs 7x
a "${wizard[@]}" --pcrs 4
check "nothing was made" test ! -e .ecfs/Work -a ! -e .Work -a ! -e Work
a "${wizard[@]}"
a key list Work
a mount-private Work --passphrase-file "$T/work"; a umount-private Work
check "without the TPM it takes the recovery key" not alice env ECFS_TCTI="device:$T/none" "$ECFS" mount-private Work --passphrase-file "$T/work"
a mount-private Work --passphrase-file recovery; a umount-private Work
echo "# the wizard on a terminal"
install -m 755 "$here/tpm_terminal.py" "$here/terminal_shell.py" "$T/"
alice env ECFS_TCTI="$ECFS_TCTI" python3 "$T/tpm_terminal.py"
