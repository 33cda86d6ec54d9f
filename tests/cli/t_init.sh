#!/bin/bash
# ecfs init: what it makes, what it refuses, and that a failure leaves nothing.
. "$(dirname "$0")/lib.sh"
secret p "$PASS"; secret weak abc; secret empty ''; printf 'with\0zero byte 4711\n' >zero; chmod 600 zero
key=(--recovery-key-file)
echo "# a volume"
run ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" low
run ls -1A low
check "LOWER is 0700" test "$(stat -c %a low)" = 700
check "the header is 0600" test "$(stat -c %a low/.ecfs-volume)" = 600
check "the recovery key is 0400" test "$(stat -c %a rk)" = 400
check "it has 13 groups of 5" grep -qE '^([0-9A-Z]{5}-){12}[0-9A-Z]{5}$' rk
run ecfs init --json --passphrase-file p --recovery-key-file rk2 "${QUICK[@]}" --block-size 16k --suite chacha20-poly1305 --name-encoding base32hex --longest-name 143 --sealed-size low2
check "block size, suite, encoding and longest name are in the header" test "$(od -An -tx1 -j32 -N4 low2/.ecfs-volume | tr -d " ")" = 020e028f
check "and the sealed-size feature" test "$(od -An -tx1 -j44 -N4 low2/.ecfs-volume | tr -d " ")" = 01000000
check "two volumes have two recovery keys" not cmp rk rk2
run ecfs init --no-password --recovery-key-fd 3 low3 3>fd3
check "the key came over the descriptor" grep -qE '^([0-9A-Z]{5}-){12}[0-9A-Z]{5}$' fd3
run ecfs init --no-recovery --passphrase-fd 0 "${QUICK[@]}" low4 <p
run ecfs key list low4
mkdir there; chmod 755 there
run ecfs init --no-recovery --passphrase-file p "${QUICK[@]}" there
check "an empty directory that was there is used and closed to others" test "$(stat -c %a there)" = 700
echo "# refused"
run ecfs init --passphrase-file p --recovery-key-file rk3 "${QUICK[@]}" low
mkdir full; touch full/file
run ecfs init --passphrase-file p --recovery-key-file rk3 "${QUICK[@]}" full
ln -s low5 link
run ecfs init --passphrase-file p --recovery-key-file rk3 "${QUICK[@]}" link
check "nothing behind the link" not test -e low5
run ecfs init --passphrase-file p --recovery-key-file rk3 "${QUICK[@]}" p
run ecfs init --passphrase-file p --recovery-key-file rk3 "${QUICK[@]}" no/such/dir
check "no recovery key was written" not test -e rk3
echo "# a failure takes back what was made"
run ecfs init --passphrase-file weak --recovery-key-file rk3 "${QUICK[@]}" new
run ecfs init --passphrase-file empty --recovery-key-file rk3 "${QUICK[@]}" new
run ecfs init --passphrase-file zero --recovery-key-file rk3 "${QUICK[@]}" new
run ecfs init --passphrase-file none --recovery-key-file rk3 "${QUICK[@]}" new
run ecfs init --passphrase-file low --recovery-key-file rk3 "${QUICK[@]}" new
mkfifo pipe; run ecfs init --passphrase-file pipe --recovery-key-file rk3 "${QUICK[@]}" new
ln -s p plink; run ecfs init --passphrase-file plink --recovery-key-file rk3 "${QUICK[@]}" new
run ecfs init --passphrase-file p --recovery-key-file rk "${QUICK[@]}" new
ln -s nowhere rklink; run ecfs init --passphrase-file p --recovery-key-file rklink "${QUICK[@]}" new
check "nothing behind that link" not test -e nowhere
run ecfs init --passphrase-file p --recovery-key-fd 77 "${QUICK[@]}" new
run ecfs init --passphrase-file p --recovery-key-fd 3 "${QUICK[@]}" new 3</dev/null
run ecfs init --passphrase-file p --recovery-key-fd 3 "${QUICK[@]}" new 3>/dev/full
run ecfs init --passphrase-file p "${QUICK[@]}" new
run ecfs init "${QUICK[@]}" --no-recovery new
check "nothing is left" not test -e new
check "and no recovery key" not test -e rk3
mkdir kept; chmod 750 kept
ecfs init --passphrase-file weak --no-recovery kept 2>/dev/null
check "a directory that was there has its mode back" test "$(stat -c %a kept)" = 750
echo "# a weak passphrase, asked for"
run ecfs init --passphrase-file weak --allow-weak-passphrase --no-recovery "${QUICK[@]}" weakvol
echo "# a passphrase file that others can read"
chmod 644 p; run ecfs init --passphrase-file p --no-recovery "${QUICK[@]}" readable
echo "# equal passphrases, different slots (no fixed salt)"
check "salts differ" not cmp -s <(tail -c +100 low4/.ecfs-volume) <(tail -c +100 there/.ecfs-volume)
