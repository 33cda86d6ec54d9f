#!/usr/bin/env python3
"""Makes slots.json from wrap/FORMAT.md alone: hashlib and hmac for HKDF, python3-cryptography for AES-GCM, libargon2
through ctypes. Everything random is SHA-256 of a label, so that the output is always the same."""
import ctypes, hashlib, hmac, json, struct
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def fixed(label, n): return hashlib.sha256(b"ecfs slot vectors " + label.encode()).digest()[:n]

def hkdf(salt, ikm, info, n):
    prk = hmac.new(salt, ikm, hashlib.sha256).digest()
    out, t = b"", b""
    for i in range(1, 256):
        if len(out) >= n: return out[:n]
        t = hmac.new(prk, t + info + bytes([i]), hashlib.sha256).digest()
        out += t

def argon2id(password, salt, m, t, p):
    out = ctypes.create_string_buffer(32)
    lib = ctypes.CDLL("libargon2.so.1")
    assert lib.argon2id_hash_raw(t, m, p, password, len(password), salt, len(salt), out, 32) == 0
    return out.raw

def record(volume_id, kind, name, slot_id, label, params, salt, ikm, secret, created):
    total = 92 + len(label) + len(params) + len(secret)
    head = struct.pack("<IHBBIBBHq8x", total, kind, 1, 0, slot_id, len(label), len(secret), len(params), created)
    covered = head + label + params
    aad = volume_id + covered
    keys = hkdf(salt, ikm, b"ecfs slot 1 " + name + hashlib.sha256(aad).digest(), 64)
    nonce = fixed("nonce %d" % slot_id, 12)
    raw = covered + nonce + AESGCM(keys[:32]).encrypt(nonce, secret, aad) + keys[32:]
    assert len(raw) == total
    return raw

def double(a):
    a <<= 1
    return a ^ 0x25 if a & 0x20 else a

def recovery_text(key):
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    bits = int.from_bytes(key, "big") << 4
    digits = [(bits >> (5 * (51 - i))) & 31 for i in range(52)]
    groups = []
    for g in range(13):
        data, check, powers = digits[4 * g:4 * g + 4], g + 1, []
        for i, d in enumerate(data):
            product = d
            for _ in range(i + 1): product = double(product)
            check ^= product
        groups.append("".join(alphabet[d] for d in data + [check]))
    return "-".join(groups)

volume_id, volume_key, recovery = fixed("volume id", 16), fixed("volume key", 32), fixed("recovery", 32)
passphrase = "pässwörd of the vectors"
m, t, p = 19456, 2, 3
s1, s2 = fixed("salt 1", 16), fixed("salt 2", 16)
pw = record(volume_id, 1, b"password", 1, b"login", s1 + struct.pack("<III", m, t, p), s1,
            argon2id(passphrase.encode(), s1, m, t, p), volume_key, 1700000000)
rec = record(volume_id, 2, b"recovery", 4, "Zettel im Büro".encode(), s2, s2, recovery, volume_key, -1)
area = struct.pack("<QIHH", 6, 9, 2, 0) + pw + rec
json.dump({"volume_id": volume_id.hex(), "volume_key": volume_key.hex(), "passphrase": passphrase,
           "recovery_key": recovery.hex(), "recovery_text": recovery_text(recovery), "generation": 6, "next_id": 9,
           "slots": [{"id": 1, "type": "password", "label": "login", "created": 1700000000},
                     {"id": 4, "type": "recovery", "label": "Zettel im Büro", "created": -1}],
           "area": area.hex()}, open("slots.json", "w"), indent=1, ensure_ascii=False)
