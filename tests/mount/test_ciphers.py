#!/usr/bin/env python3
"""Every cipher of eCryptfs in a mount, for contents and for names, with a server that is confined as strictly as there is.

What a cipher needs (OpenSSL's legacy provider, Botan) has to be there before the server is confined: files, code and
locked memory are out of its reach from then on, also for a file with another cipher than that of the mount.
ECFS_BOTAN: twofish and cast6 are among them; otherwise they are refused.
"""

import os
import unittest

from harness import Volume, main, read, write

OPENSSL = [("aes", 16), ("aes", 24), ("aes", 32), ("des3_ede", 24), ("blowfish", 56), ("cast5", 16)]
BOTAN = [("twofish", 16), ("twofish", 32), ("cast6", 16), ("cast6", 32)]
HAS_BOTAN = bool(os.environ.get("ECFS_BOTAN"))
CONTENTS = os.urandom(300000)


def options(cipher, key_bytes):
    return ["ecryptfs_cipher=" + cipher, "ecryptfs_key_bytes=%d" % key_bytes]


class Ciphers(unittest.TestCase):
    def mounted(self, cipher, key_bytes, **kwargs):
        v = Volume(options=options(cipher, key_bytes), arguments=["--ecryptfs"], **kwargs)
        self.addCleanup(v.close)
        return v.mount()

    def work(self, v):
        """Names, links and contents that need whole blocks and parts of them, written in several ways."""
        server = v.server
        os.mkdir(v.path("a directory"))
        os.symlink("a directory/file", v.path("link"))
        path = v.path("a directory", "file")
        write(path, CONTENTS)
        with open(path, "r+b") as f:
            f.seek(5000)
            f.write(b"in the middle")
            f.flush()
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(f.fileno(), 100, 4090)
        os.truncate(path, 200001)
        self.assertEqual(v.server, server)  # a call that it may not do ends it

    def check(self, v):
        server = v.server
        self.assertEqual(sorted(os.listdir(v.mnt)), ["a directory", "link"])
        expected = CONTENTS[:5000] + b"in the middle" + CONTENTS[5013:200001]
        self.assertEqual(read(v.path("link")), expected)
        self.assertEqual(v.server, server)

    def test_each(self):
        for cipher, key_bytes in OPENSSL + (BOTAN if HAS_BOTAN else []):
            with self.subTest(cipher=cipher, key_bytes=key_bytes):
                v = self.mounted(cipher, key_bytes)
                self.work(v)
                self.assertFalse(any(b"directory" in os.fsencode(name) for name in os.listdir(v.lower)))
                v.remount()
                self.check(v)
                v.unmount()

    def test_a_file_of_another_cipher_than_the_mounts(self):
        for cipher, key_bytes in [("cast5", 16)] + (BOTAN if HAS_BOTAN else []):
            with self.subTest(cipher=cipher, key_bytes=key_bytes):
                v = self.mounted("aes", 16)
                write(v.path("first"), b"of aes")
                v.unmount()
                v.options = options(cipher, key_bytes) + ["ecryptfs_fn_cipher=aes", "ecryptfs_fn_key_bytes=16"]
                v.mount()
                self.work(v)
                v.unmount()
                v.options = options("aes", 16)
                v.mount()
                self.assertEqual(read(v.path("first")), b"of aes")
                os.unlink(v.path("first"))
                self.check(v)
                with open(v.path("a directory", "file"), "ab") as f:
                    f.write(b"more")
                self.assertEqual(read(v.path("link"))[200001:], b"more")
                v.unmount()

    @unittest.skipIf(HAS_BOTAN, "this build has all ciphers")
    def test_what_is_not_there_is_refused(self):
        for cipher, key_bytes in BOTAN:
            v = Volume(options=options(cipher, key_bytes), arguments=["--ecryptfs"])
            self.addCleanup(v.close)
            self.assertIn("the cipher %s is not supported" % cipher, v.try_mount().stderr)


if __name__ == "__main__":
    main()
