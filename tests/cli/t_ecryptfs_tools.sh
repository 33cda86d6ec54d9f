#!/bin/bash
# find, stat and fsck of eCryptfs trees: those that a kernel made, and damaged and hostile ones.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
command -v keyctl >/dev/null || { echo "skipped: keyctl (package keyutils) is not installed"; exit 77; }
vectors=$here/../vectors/ecryptfs
cp "$here/ecryptfs.py" "$vectors"/*.manifest.json "$T/"; chmod 644 "$T"/*.py "$T"/*.json
cd "$HOME_A"; alice mkdir m
get() { python3 "$T/ecryptfs.py" get "$T/$1.manifest.json" "$2"; }
# Encrypted names are the same in each run, but long.
short() { sed -E 's#ECRYPTFS_FNEK_ENCRYPTED\.[A-Za-z0-9.-]+#@LOWER@#g; s/on disk [0-9]+ bytes?/on disk @N@/; s/"disk_bytes": [0-9]+/"disk_bytes": @N@/'; }
a() { run alice "$ECFS" "$@" | sed -E 's/^\$ alice /$ /' | short; return "${PIPESTATUS[0]}"; }
# f ARGUMENTS...: fsck, with findings in order.
f() {
  local status said finding='^(damaged|repaired|leftover|unchecked|note|          ) '
  printf '$ ecfs fsck'; printf ' %s' "$@"; printf '\n'
  said=$(alice "$ECFS" fsck "$@" 2>&1 | short; exit "${PIPESTATUS[0]}"); status=$?
  grep -E "$finding" <<<"$said" | sort; grep -vE "$finding" <<<"$said"
  [ "$status" -eq 0 ] || echo "= $status"
}
extract() { rm -rf --one-file-system low; mkdir low; tar -C low --xattrs --xattrs-include='user.*' --strip-components=1 -xf "$vectors/$1.tar"; chown -R ecfsalice: low; secret pw "$(get "$1" passphrase)"; chown ecfsalice: pw; }
sums() { (cd low && find . -printf '%P %y %m %s %T@\n' | sort && find . -type f -exec sha256sum {} + | sort); }
key() { python3 "$T/ecryptfs.py" token "$1" 2>sig >payload; alice keyctl padd user "$(cat sig)" @u <payload >/dev/null; rm payload; }
lower() { alice "$ECFS" find low --passphrase-file pw --plain "$1" 2>/dev/null; }

echo "# trees of a kernel: each entry is found both ways, and nothing is wrong"
for tar in "$vectors"/*.tar; do
  tree=$(basename "$tar" .tar)
  case $tree in home-layout|passthrough-*|aes16-twosigs) continue ;; twofish-*|cast6-*) [ -n "${ECFS_BOTAN:-}" ] || continue ;; esac
  extract "$tree"; before=$(sums)
  alice "$ECFS" fsck --passphrase-file pw low >said 2>&1 || { echo "FAILED: $tree"; cat said; }
  grep -q '^No damage was found.$' said || { echo "FAILED: $tree"; cat said; }
  [ "$(sums)" = "$before" ] || echo "FAILED: $tree was changed"
  python3 - "$T/$tree.manifest.json" "$ECFS" <<'PY' || echo "FAILED: $tree"
import json, os, subprocess, sys
entries = json.load(open(sys.argv[1]))["entries"]
raw = lambda e: bytes.fromhex(e["path_hex"]) if "path_hex" in e else e["path"].encode()
def find(option, paths):
    words = [sys.argv[2], "find", "-0", "low", "--passphrase-file", "pw"]
    for path in paths:
        words += [option, path]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout.split(b"\0")[:-1]
plain = [raw(e) for e in entries]
lower = find("--plain", plain)
assert find("--lower", [os.path.relpath(p, os.path.realpath(b"low")) for p in lower]) == plain
for e, path in zip(entries, lower):
    of = [bytes.fromhex(p[4:]) if p.startswith("hex:") else p.encode() for p in (e["lower"] if isinstance(e["lower"], list) else [e["lower"]])]
    assert os.path.relpath(path, os.path.realpath(b"low")) in of, (path, of)
PY
done

echo "# what it is, without a key and with it"
extract aes16-fnek; small=$(lower small.txt)
a stat "$small" low
a stat --passphrase-file pw "$small" "$(lower dir)" "$(lower link-rel)" "$(lower empty)"
a stat --json --passphrase-file pw "$small"
a stat --passphrase-file pw low/none
a find --passphrase-file pw "$small" low
a find low --passphrase-file pw --plain no/such --plain dir/nested
a find low --recovery --passphrase-file pw --plain x
a find low --plain small.txt
secret other "another passphrase"; chown ecfsalice: other
a find low --passphrase-file other --plain small.txt
a fsck --passphrase-file other low
echo "# without a header in the file"
extract xattr-aes16-plain; a stat --passphrase-file pw low/small.txt
echo "# mounted, and with the keys of the keyring"
extract aes16-fnek
alice "$ECFS" mount -q --passphrase-file pw low m
a stat --passphrase-file pw m/small.txt
a find --passphrase-file pw m/dir/nested/deep m
f --passphrase-file pw m
key "$(get aes16-fnek passphrase)"; first=$(cat sig)
a find m/small.txt
alice "$ECFS" umount m
# The key of names is another of the same passphrase.
python3 - "$(get aes16-fnek passphrase)" 3939383837373636 >payload 2>sig <<'PY'
import hashlib, struct, sys
salt = bytes.fromhex(sys.argv[2]); key = salt + sys.argv[1].encode()
for _ in range(65536): key = hashlib.sha512(key).digest()
signature = hashlib.sha512(key).digest()[:8].hex().encode()
p = bytearray(740); struct.pack_into("<H", p, 0, 4); struct.pack_into("<IIII", p, 632, 10, 0, 64, 2)
p[648:712] = key; p[712:728] = signature; p[729:737] = salt
sys.stderr.write(signature.decode()); sys.stdout.buffer.write(bytes(p))
PY
alice keyctl padd user "$(cat sig)" @u <payload >/dev/null
a find "$small"
a stat low
f low
f --json low
alice keyctl purge user "$(cat sig)" >/dev/null; alice keyctl purge user "$first" >/dev/null

echo "# damaged"
for name in s4095 s4096 s4097 truncup sparse zeros appended one empty dir/hard small.txt big; do lower "$name" >"lower.${name//\//-}"; done
damage() { # PLAIN COMMAND: with the lower file in its place
  local file; file=$(cat "lower.${1//\//-}"); shift; "${@//@/$file}"
}
damage s4095 truncate -s 0 @
damage s4096 dd if=/dev/zero of=@ bs=4096 count=1 conv=notrunc status=none
damage s4097 truncate -s 12388 @
damage truncup fallocate -p -o 12288 -l 4096 @
damage appended sh -c 'head -c 5000 /dev/urandom >>"$0"' @
damage one dd if=/dev/urandom of=@ bs=1 seek=8 count=8 conv=notrunc status=none
damage empty sh -c 'printf "\x7f\xff\xff\xff\xff\xff\xff\xff" | dd of="$0" bs=1 conv=notrunc status=none' @
damage zeros sh -c 'printf "\0\0\0\0\0\x1\0\0" | dd of="$0" bs=1 conv=notrunc status=none' @
cp "$small" "low/ECRYPTFS_FNEK_ENCRYPTED.FWaHrOUIFnnwQEQqRjUF99tj3pRWYGrduv00000000000000000000000000000000000000000"
cp "$small" "low/ECRYPTFS_FNEK_ENCRYPTED.xyz"; cp "$small" low/plainname; mkdir low/plaindir; mkfifo low/ECRYPTFS_FNEK_ENCRYPTED.fifo
alice mkdir new; key "a third passphrase"; third=$(cat sig)
alice "$ECFS" mount -q -o "ecryptfs_sig=$third,ecryptfs_fnek_sig=$third,ecryptfs_cipher=aes,ecryptfs_key_bytes=32,ecryptfs_passthrough=n" new m
alice sh -c 'echo foreign >m/foreign; ln -s there m/a-link'; alice "$ECFS" umount m; cp -a new/. low/; alice keyctl purge user "$third" >/dev/null
chown -Rh ecfsalice: low; sleep 1.2; before=$(sums)
f --plain-names --passphrase-file pw low
f --quick --passphrase-file pw low
f --repair --passphrase-file pw low | head -3
check "nothing was changed" test "$(sums)" = "$before"
alice "$ECFS" fsck --json --passphrase-file pw low | python3 -c '
import collections, json, sys
d = json.load(sys.stdin)
print(sorted(collections.Counter((f["severity"], f["kind"]) for f in d["findings"]).items()))
print(d["format"], d["result"], "volume_id" in d, [f["ranges"] for f in d["findings"] if "ranges" in f and f["ranges"][0][1] < 1e6 and f["kind"] == "holes"])'
a stat --passphrase-file pw "$(cat lower.s4097)" "$(cat lower.one)"
a fsck --zero-bad s4097 --passphrase-file pw low
a fsck --known-name x --passphrase-file pw low
echo "# salvaged"
alice "$ECFS" fsck --salvage saved --passphrase-file pw low >said 2>&1; echo "= $?"; tail -3 said
sort saved/list.txt | short
extract aes16-fnek; alice "$ECFS" mount -q --passphrase-file pw low m
alice cmp saved/files/s4097 m/s4097 && echo "ok: s4097, whose last byte is in a cipher block that was left"
alice sh -c '{ head -c 4096 m/truncup; head -c 4096 /dev/zero; tail -c +8193 m/truncup; } >expected; cmp saved/files/truncup expected' && echo "ok: truncup, with zeros in the middle"
alice "$ECFS" umount m
echo "# another cipher, a key that nobody has, a public key: told of each file"
extract aes16-twosigs
printf 'Sesame open four\n' >pw
f --passphrase-file pw low
python3 - <<'PY'
import os
# The header names a cipher that there is not.
paths = sorted(os.path.join(d, n) for d, _, names in os.walk("low") for n in names)
path = next(p for p in paths if not os.path.islink(p) and os.path.getsize(p) > 8192)
data = bytearray(open(path, "rb").read())
at = data.index(b"\x8c", 26)
data[at + 3] = 0x0a
at2 = data.index(b"\x8c", at + 1)
data[at2 + 3] = 0x0a
open(path, "wb").write(data)
PY
sleep 1.2
alice "$ECFS" fsck --passphrase-file pw low >said 2>&1; status=$?
check "a cipher that is not there, or another one" test "$status" = "$([ -n "${ECFS_BOTAN:-}" ] && echo 0 || echo 8)"
echo "# hostile"
extract aes16-plain
alice sh -c 'mkfifo low/fifo; ln -s / low/root; ln -s /etc/passwd low/file; ln -s low low/self; mkdir low/deep; cd low/deep && for i in $(seq 200); do mkdir d && cd d; done; : >end'
truncate -s 8E low/huge 2>/dev/null || truncate -s 1T low/huge; head -c 4096 low/small.txt | dd of=low/huge conv=notrunc status=none
printf '\x10\0\0\0\0\0\0\0' | dd of=low/huge bs=1 conv=notrunc status=none
mkdir low/many; (cd low/many && seq 5000 | xargs touch); chown -Rh ecfsalice: low; sleep 1.2
f --passphrase-file pw low | grep -v many/
a find /etc/passwd
alice sh -c 'echo x >notes'; a stat notes
rm -r low; alice mkdir low; a fsck --passphrase-file pw low
check "nothing is mounted" not mounted m
exit 0
