"""What t_ecryptfs.sh needs of the eCryptfs vectors (tests/vectors/ecryptfs/README.md):

    ecryptfs.py get MANIFEST NAME          a member of the manifest
    ecryptfs.py compare MANIFEST MOUNT     what a mount shows, beside what a kernel showed
    ecryptfs.py view MANIFEST MOUNT        the same of an encrypted view
    ecryptfs.py token PASSPHRASE           the key of a passphrase as it stands in a keyring, and its signature on stderr
"""
import hashlib
import json
import os
import stat
import struct
import sys

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def path_of(entry):
    return bytes.fromhex(entry["path_hex"]) if "path_hex" in entry else entry["path"].encode()


def compare(manifest, mount):
    wrong = []
    shown = {os.path.relpath(os.path.join(d, name), mount) for d, dirs, files in os.walk(mount) for name in dirs + files}
    expected = {path_of(e) for e in manifest["entries"]}
    if shown != expected:
        wrong.append("names differ: %r" % sorted(shown ^ expected))
    # Sizes first, before anything was opened.
    for e in manifest["entries"]:
        st = os.lstat(os.path.join(mount, path_of(e)))
        seen = {"type": KINDS.get(stat.S_IFMT(st.st_mode)), "mode": oct(stat.S_IMODE(st.st_mode)), "size": st.st_size}
        for what, value in seen.items():
            known = what in e and not (what == "size" and seen["type"] in ("dir", "fifo"))
            if known and not (what == "mode" and seen["type"] == "symlink") and e[what] != value:
                wrong.append("%r: %s is %r, not %r" % (path_of(e), what, value, e[what]))
    for e in manifest["entries"]:
        path = os.path.join(mount, path_of(e))
        if "sha256" in e and sha256(path) != e["sha256"]:
            wrong.append("%r: other contents" % path_of(e))
        if "target" in e and os.readlink(path) != e["target"].encode():
            wrong.append("%r: another target" % path_of(e))
    return wrong, len(manifest["entries"])


def view(manifest, mount):
    files = manifest["encrypted_view_files"]
    wrong = []
    for name, seen in files.items():
        path = os.path.join(mount, name.encode())
        if (os.stat(path).st_size, sha256(path)) != (seen["size"], seen["sha256"]):
            wrong.append(name)
    return wrong, len(files)


def token(passphrase):
    salt = bytes.fromhex("0011223344556677")
    key = salt + passphrase.encode()
    for _ in range(65536):
        key = hashlib.sha512(key).digest()
    signature = hashlib.sha512(key).digest()[:8].hex().encode()
    payload = bytearray(740)
    struct.pack_into("<H", payload, 0, 4)
    struct.pack_into("<IIII", payload, 632, 10, 0, 64, 2)
    payload[648:712] = key
    payload[712:728] = signature
    payload[729:737] = salt
    sys.stderr.write(signature.decode() + "\n")
    sys.stdout.buffer.write(bytes(payload))


def main():
    what = sys.argv[1]
    if what == "token":
        return token(sys.argv[2])
    with open(sys.argv[2]) as f:
        manifest = json.load(f)
    if what == "get":
        print(manifest[sys.argv[3]])
        return None
    wrong, num = {"compare": compare, "view": view}[what](manifest, os.fsencode(sys.argv[3]))
    for line in wrong:
        print("FAILED: " + line)
    print("%d %s" % (num, "files of the view" if what == "view" else "entries"))
    return None


sys.exit(main())
