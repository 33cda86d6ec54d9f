#!/usr/bin/env python3
"""Fails on an #include against an arrow of the design:

    setup -> fs -> wrap -> wrap/base        pam_ecfs.so -> wrap/base        ecfs-login -> wrap
    only fs/fuse includes libfuse; no header of fs outside fs/fuse knows a FUSE type
    only pam/ includes libpam, only setup/ the passphrase quality library, and only one source there the command line library

usage: includes.py [--self-test]
"""
import pathlib
import re
import sys

# A folder's own sources may include these prefixes of ours. The longest matching folder wins.
MAY = {
    "wrap/base/": ["wrap/base/"],
    "wrap/": ["wrap/"],
    "fs/": ["fs/", "wrap/"],
    "fs/fuse/": ["fs/", "wrap/"],
    "pam/": ["pam/", "wrap/base/"],
    "pam/login/": ["pam/login/", "pam/protocol.h", "wrap/"],
    "setup/": ["setup/", "fs/", "wrap/"],
    "tests/": ["tests/", "setup/", "pam/", "fs/", "wrap/"],
}
MUST_NOT = [("fs/", "fs/fuse/"), ("setup/", "fs/fuse/"), ("pam/", "pam/login/"), ("wrap/", "wrap/tpm2/"),
            ("fs/", "wrap/tpm2/"), ("setup/", "wrap/tpm2/"), ("pam/", "wrap/tpm2/")]  # except from inside the latter
# Library headers that one folder alone may include.
ONLY = {
    r"fuse": ["fs/fuse/"],
    r"security/pam": ["pam/", "tests/pam/"],
    r"CLI/": ["setup/command_line.cc"],  # seconds of every compilation that sees it
    r"pwquality": ["setup/", "tests/setup/"],
    r"libcryptsetup|libfdisk|libmount": ["setup/swap/device.cc", "setup/swap/work.cc"],  # only in ecfs-swap
    r"keyutils": ["wrap/", "tests/wrap/"],
    r"argon2": ["wrap/"],
    r"botan/": ["fs/format/ecryptfs_botan.cc"],
    r"tss2/": ["wrap/tpm2/", "tests/wrap/"],  # loaded by ecfs-tpm2 alone
    r"openssl/": ["wrap/", "fs/", "tests/"],
}
NO_OPENSSL = ["wrap/base/", "pam/"]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def longest(folders, path):
    return max((f for f in folders if path.startswith(f)), key=len, default=None)


def faults(path, text):
    for kind, target in INCLUDE.findall(text):
        if kind == '"':
            folder = longest(MAY, path)
            if folder is None or not any(target.startswith(p) for p in MAY[folder]):
                yield f"{path}: includes {target}, against the arrows"
            for source, room in MUST_NOT:
                if path.startswith(source) and not path.startswith(room) and target.startswith(room):
                    yield f"{path}: includes {target}, which only {room} may"
        else:
            for pattern, folders in ONLY.items():
                if re.match(pattern, target) and not any(path.startswith(f) for f in folders):
                    yield f"{path}: includes <{target}>, which only {', '.join(folders)} may"
            if target.startswith("openssl/") and any(path.startswith(f) for f in NO_OPENSSL) and not path.startswith("pam/login/"):
                yield f"{path}: includes <{target}>: nothing in a login process needs OpenSSL"


def self_test():
    bad = [
        ("wrap/base/x.cc", '#include "wrap/kdf.h"'),
        ("wrap/x.cc", '#include "fs/volume.h"'),
        ("fs/volume.h", "#include <fuse3/fuse.h>"),
        ("fs/volume.cc", '#include "fs/fuse/ops.h"'),
        ("pam/module.cc", '#include "wrap/keyslot.h"'),
        ("pam/module.cc", '#include "pam/login/open.h"'),
        ("pam/login/open.cc", '#include "fs/volume.h"'),
        ("setup/x.cc", "#include <security/pam_appl.h>"),
        ("setup/x.cc", "#include <CLI/CLI.hpp>"),
        ("wrap/base/x.cc", "#include <openssl/evp.h>"),
    ]
    good = [
        ("fs/fuse/ops.cc", '#include <fuse_lowlevel.h>\n#include "fs/volume.h"'),
        ("pam/login/open.cc", '#include "wrap/keyslot.h"'),
        ("setup/x.cc", '#include "fs/volume.h"\n#include <pwquality.h>'),
        ("setup/command_line.cc", "#include <CLI/CLI.hpp>"),
    ]
    missed = [b for b in bad if not list(faults(*b))]
    wrong = [g for g in good if list(faults(*g))]
    for m in missed:
        print("not found:", m)
    for w in wrong:
        print("wrongly found:", w, list(faults(*w)))
    print(f"{len(bad)} wrong includes, {len(bad) - len(missed)} found; {len(good)} right ones, {len(good) - len(wrong)} passed")
    return 1 if missed or wrong else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    found, files = [], 0
    for folder in ("wrap", "fs", "pam", "setup", "tests"):
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.suffix in (".h", ".cc"):
                files += 1
                found += faults(path.as_posix(), path.read_text())
    print("\n".join(found))
    print(f"{files} files, {len(found)} includes against an arrow")
    return 1 if found or files == 0 else 0


sys.exit(main())
