#!/usr/bin/env python3
"""manifest.py DIR [SKIP]: everything that a copy of a tree has to carry over, one line an entry, written without the tool's own code;
but for what is called SKIP.
manifest.py --make DIR [BYTES [HOLES]]: makes a tree with one of each (sizes of its large file, and of that with holes)."""
import hashlib
import os
import socket
import stat
import subprocess
import sys


def manifest(top, skip):
    inodes = {}
    lines = []
    for path, dirs, files in sorted(os.walk(os.fsencode(top))):
        for name in sorted(dirs + files):
            if name == os.fsencode(skip):
                continue
            full = os.path.join(path, name)
            st = os.lstat(full)
            kind = stat.S_IFMT(st.st_mode)
            relative = os.path.relpath(full, os.fsencode(top))
            group = inodes.setdefault(st.st_ino, relative)
            facts = [oct(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, st.st_nlink if kind != stat.S_IFDIR else "-", group]
            if kind == stat.S_IFREG:
                digest = hashlib.sha256()
                with open(full, "rb") as file:
                    while chunk := file.read(1 << 20):
                        digest.update(chunk)
                facts += [st.st_size, digest.hexdigest()]
            if kind == stat.S_IFLNK:
                facts.append(os.readlink(full))
            else:
                facts.append([(a, os.getxattr(full, a, follow_symlinks=False)) for a in sorted(os.listxattr(full, follow_symlinks=False))
                              if a.startswith(("user.", "system.posix_acl"))])
            lines.append(f"{relative!r} {facts}")
    return lines


def make(top, large=3 << 20, holes=80 << 20):
    os.makedirs(top, exist_ok=True)
    os.chdir(top)
    os.makedirs("deep/" + "/".join("abcdefgh"))
    os.makedirs("empty dir")
    for i in range(60):
        with open(f"deep/file {i}", "wb") as file:
            file.write(os.urandom(i * 997))
    with open("large", "wb") as file:
        for _ in range(large // 65536):
            file.write(os.urandom(65536))
    with open("holes", "wb") as file:
        file.write(b"begin")
        file.seek(holes // 8 * 5)
        file.write(b"middle")
        file.truncate(holes)
    with open("x" * 255, "w") as file:
        file.write("the longest name")
    with open("\u00fcml\u00e4ut \u65e5\u672c", "w") as file:
        file.write("names")
    with open(b"not \xff\xfe utf-8\n", "w") as file:
        file.write("bytes")
    os.link("large", "deep/hard link")
    os.link("deep/file 3", "deep/a/another")
    os.symlink("/nowhere/at all", "dangling")
    os.symlink("deep", "to a directory")
    os.mkfifo("fifo")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("socket")
    sock.close()
    open("empty", "w").close()
    with open("read only", "w") as file:
        file.write("0400")
    os.chmod("read only", 0o400)
    with open("program", "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod("program", 0o4751)
    with open("attributes", "w") as file:
        file.write("x")
    os.setxattr("attributes", "user.note", b"value \0 with a zero")
    os.setxattr("empty dir", "user.on a directory", b"v")
    subprocess.run(["setfacl", "-m", "u:ecfsbob:r", "attributes"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:ecfsbob:rx", "empty dir"], check=True)
    os.chmod("empty dir", 0o1770)
    for path, _, files in os.walk("."):
        for name in files:
            full = os.path.join(path, name)
            if not os.path.islink(full):
                os.utime(full, ns=(1_500_000_000_123_456_789, 1_400_000_000_987_654_321))
    os.utime("dangling", ns=(1, 1_300_000_000_111_111_111), follow_symlinks=False)
    for path in ("deep/a", "deep", "empty dir"):
        os.utime(path, ns=(1_200_000_000_000_000_001, 1_100_000_000_000_000_001))


if sys.argv[1] == "--make":
    make(sys.argv[2], *map(int, sys.argv[3:]))
else:
    sys.stdout.writelines(line + "\n" for line in manifest(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
