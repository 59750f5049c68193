#!/usr/bin/env python3
"""A reader of Backstop repositories, written from format.md alone, to show that the page suffices.

    pip install blake3 cryptography zstandard argon2-cffi
    reader.py REPOSITORY SECRET snapshots
    reader.py REPOSITORY SECRET ls SERIES NUMBER
    reader.py REPOSITORY SECRET extract SERIES NUMBER DESTINATION

SECRET is key:FILE (32 raw bytes) or passphrase:FILE (without its line end). NUMBER may be 'latest'.
Extracts the contents of files and folders; no metadata, no special files. Meant to be read, not to be fast.
What can't be used and isn't needed is put aside: it is named on standard error, and the status is 3.
"""
import os
import re
import struct
import sys
from collections import namedtuple

import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Damaged(Exception):
    pass


class Unsupported(Exception):
    """It is sound, as far as could be checked, and needs a newer reader or secret."""


ASIDE = {}


def put_aside(name, problem):
    """Goes on without an object that doesn't open."""
    if name not in ASIDE:
        ASIDE[name] = problem
        print(f"put aside {name}: {problem}", file=sys.stderr)


def must(condition, what):
    if not condition:
        raise Damaged(what)


def known(condition, what):
    if not condition:
        raise Unsupported(f"it needs {what}, which this reader doesn't know")


def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length)


def derive(context, secret, length=32):
    return blake3(secret, derive_key_context="backstop v1 " + context).digest(length)


# ---- Values (section 3)

class Values:
    """Reads values from the front of `data`; refuses what isn't in canonical form."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, length):
        must(length <= len(self.data) - self.at, "a value ends too early")
        self.at += length
        return self.data[self.at - length:self.at]

    def u8(self):
        return self.raw(1)[0]

    def u64(self, limit=1 << 64):
        first = self.u8()
        if first < 251:
            return first
        must(first <= 253, "no such varint")
        width = {251: 2, 252: 4, 253: 8}[first]
        value = int.from_bytes(self.raw(width), "little")
        must(value >= {2: 251, 4: 1 << 16, 8: 1 << 32}[width] and value < limit, "a varint isn't canonical")
        return value

    def u32(self):
        return self.u64(1 << 32)

    def i64(self):
        value = self.u64()
        return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

    def bool(self):
        value = self.u8()
        must(value <= 1, "neither true nor false")
        return value == 1

    def bytes(self):
        return self.raw(self.u64())

    def string(self):
        return self.bytes().decode()

    def list(self, item):
        return [item() for _ in range(self.u64())]

    def option(self, item):
        tag = self.u8()
        must(tag <= 1, "an option is neither there nor not")
        return item() if tag else None

    def map(self):
        pairs = self.list(lambda: (self.string(), self.string()))
        must(all(a[0].encode() < b[0].encode() for a, b in zip(pairs, pairs[1:])), "a map isn't in order")
        return dict(pairs)

    def extensions(self):
        numbers = [number for number, _ in self.list(lambda: (self.u32(), self.bytes()))]
        must(all(a < b for a, b in zip(numbers, numbers[1:])), "extensions aren't in order")
        known(not any(number % 2 == 0 for number in numbers), f"one of the extensions {numbers}")

    def end(self):
        must(self.at == len(self.data), "bytes follow a value")


def padded(length):
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


# ---- Keys and sealing (sections 5 and 6)

CONFIG, SLOT, PACK, INDEX, REGISTRATION, SNAPSHOT, COLLECTION, KEPT, REGISTRATION_END, ROSTER = range(1, 11)
BODY, DATA, NODES, FOOTER, PAGE, PACKS, TRAILER = range(7)


class Keyring:
    def __init__(self, encoded):
        values = Values(encoded)
        self.identity = values.raw(32)
        self.sealing = dict(values.list(lambda: (values.u32(), values.raw(32))))
        values.option(lambda: values.raw(32))
        self.administrator_public = values.raw(32)
        self.administrator = Ed25519PublicKey.from_public_bytes(self.administrator_public)
        values.end()
        self.chunk_id, self.node_id = derive("chunk id", self.identity), derive("node id", self.identity)

    def opener(self, kind, generation, salt):
        known(generation in self.sealing, f"key generation {generation}")
        domain = derive("seal data" if kind in (PACK, INDEX) else "seal records", self.sealing[generation])
        cipher = AESGCM(keyed(domain, salt + bytes([kind])))

        def opened(number, part, message, name=""):
            nonce = struct.pack("<I8x", number)
            try:
                return cipher.decrypt(nonce, message, bytes([kind, part]) + name.encode())
            except InvalidTag:
                raise Damaged(f"message {number} fails authentication") from None
        return opened

    def tag(self, series):
        return keyed(derive("series tag", self.identity), series.encode(), 16)


def hpke_open(private, encapsulated, info, associated, sealed):
    """HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: opens the first message."""
    def extract(salt, suite, label, data):
        mac = hmac.HMAC(salt or bytes(32), hashes.SHA256())
        mac.update(b"HPKE-v1" + suite + label + data)
        return mac.finalize()

    def expand(key, suite, label, data, length):
        mac = hmac.HMAC(key, hashes.SHA256())
        mac.update(struct.pack(">H", length) + b"HPKE-v1" + suite + label + data + b"\x01")
        return mac.finalize()[:length]
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    private = X25519PrivateKey.from_private_bytes(private)
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    context = encapsulated + private.public_key().public_bytes_raw()
    shared = expand(extract(b"", kem, b"eae_prk", shared), kem, b"shared_secret", context, 32)
    context = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    secret = extract(shared, suite, b"secret", b"")
    key, nonce = expand(secret, suite, b"key", context, 32), expand(secret, suite, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed, associated)


def is_signed(administrator, kind, name, signature, said):
    message = b"backstop v1 administrator" + bytes([kind]) + blake3(name.encode()).digest() + said
    try:
        Ed25519PublicKey.from_public_bytes(administrator).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def opening(data, kind):
    must(data[:8] == b"backstop" and len(data) >= 10, "not one of ours")
    known(data[8] == 1, f"format version {data[8]}")
    known(1 <= data[9] <= 10, f"kind {data[9]}")
    must(data[9] == kind, "another kind of object")
    return data[10:]


def header(data, kind):
    rest = opening(data, kind)
    must(len(rest) >= 36, "too short for a header")
    return struct.unpack("<I", rest[:4])[0], rest[4:36]


def untrailed(data):
    must(len(data) >= 32 and blake3(data[:-32]).digest() == data[-32:], "an object doesn't match its trailer")
    return data[:-32]


def counts(kept, number):
    through, runs = kept
    return number > through or any(first <= number <= last for first, last in runs)


def reach(kept, buckets):
    """The last bucket that a series can have reached; what lies beyond has made-up numbers."""
    base = (kept[0] + 1) // 1000
    reached = max(base, buckets[0]) if buckets else base
    while reached in buckets and reached + 1 in buckets:
        reached += 1
    return reached


# ---- The repository (sections 2 and 7)

Placed = namedtuple("Placed", "pack generation salt block offset stored plain at length nodes zstd")
Snapshot = namedtuple("Snapshot", "series number place time host tags root entries failures")


class Repository:
    def __init__(self, folder, secret):
        self.folder, self.blocks, self.index, self.recent, self.strays = folder, {}, {}, {}, set()
        config = self.read("config")
        body = untrailed(config)
        self.read_config(body[:-96], body[-96:-32])
        self.keyring = self.open_slots(secret)
        must(keyed(derive("config authentication", self.keyring.identity), body[:-32]) == body[-32:], "config is forged")
        must(self.keyring.administrator_public == self.administrator, "the slot has another administrator's key")
        for name in self.names("index", "[0-9a-f]{64}"):
            try:
                self.load_segment(f"index/{name}")
            except (Damaged, Unsupported) as error:
                put_aside(f"index/{name}", error)

    def names(self, prefix, pattern):
        path = os.path.join(self.folder, prefix)
        return sorted(n for n in os.listdir(path) if re.fullmatch(pattern, n)) if os.path.isdir(path) else []

    def read(self, name, start=0, length=None):
        with open(os.path.join(self.folder, name), "rb") as file:
            file.seek(start)
            data = file.read() if length is None else file.read(length)
        must(length is None or len(data) == length, f"{name} is too short")
        return data

    def read_named(self, name):
        data = self.read(name)
        must(blake3(data).hexdigest() == name.rsplit("/", 1)[1], f"{name} doesn't hash to its name")
        return data

    def read_config(self, said, signature):
        values = Values(opening(said, CONFIG))
        self.id, _, self.administrator, self.first_slot = values.raw(16), values.i64(), values.raw(32), values.raw(32)
        for _ in range(10):
            values.u32()
        for feature in values.list(values.string):
            known(False, feature)
        values.list(values.string), values.list(values.string), values.extensions()
        values.end()
        must(is_signed(self.administrator, CONFIG, "config", signature, said), "the config isn't its administrator's")

    def roster(self):
        """The newest roster that the administrator signed: its generation, its history, and each slot's grant."""
        for name in reversed(self.names("keys", "roster-[0-9]{15}-[0-9a-f]{32}")):
            try:
                body = untrailed(self.read(f"keys/{name}"))
            except Damaged:
                continue
            if not is_signed(self.administrator, ROSTER, f"keys/{name}", body[-64:], body[:-64]):
                continue
            values = Values(opening(body[:-64], ROSTER))
            repository, number, _, generation = values.raw(16), values.u64(), values.i64(), values.u32()
            members = values.list(lambda: (values.raw(32), values.bool(), values.raw(32), values.raw(32), values.raw(48)))
            history = values.bytes()
            values.extensions()
            values.end()
            slots = [slot for slot, *_ in members]
            must(number == int(name[7:22]) and slots and all(a < b for a, b in zip(slots, slots[1:])), "a roster")
            must(repository == self.id, "another repository's roster")
            return generation, history, {slot: grant for slot, _, _, *grant in members}
        return 0, None, {self.first_slot: None}

    def open_slots(self, secret):
        generation, history, members = self.roster()
        needed, append_only = None, None
        for slot in list(members)[:64]:
            try:
                opened = self.open_slot(slot, secret)
            except (Damaged, FileNotFoundError, Unsupported) as error:
                needed = error
                continue
            if opened is None:
                continue
            (private, keyring), about = opened
            if history is not None:
                context = self.id + struct.pack("<I", generation)
                newest = hpke_open(private, members[slot][0], b"backstop v1 key generation", context + slot, members[slot][1])
                older = Values(AESGCM(derive("key history", newest)).decrypt(bytes(12), history, context))
                for known, key in older.list(lambda: (older.u32(), older.raw(32))) + [(generation, newest)]:
                    must(keyring.sealing.setdefault(known, key) == key, "two keys of one generation")
                older.end()
            if not about:
                return keyring
            append_only = keyring
        if append_only is None:
            raise SystemExit(f"the secret opens none of the key slots{f' ({needed})' if needed else ''}")
        return append_only

    def open_slot(self, slot, secret):
        """The private key and the keyring, and whether it is append-only; None if it is another secret's slot."""
        values = Values(opening(self.read_named(f"keys/{slot.hex()}"), SLOT))
        repository, _, _, append_only, public = values.raw(16), values.string(), values.i64(), values.bool(), values.raw(32)
        kdf, parameters, salt = values.u32(), values.bytes(), values.raw(32)
        values.extensions()
        about = values.data[:values.at]
        sealed = values.bytes()
        values.end()
        must(repository == self.id, "another repository's slot")
        known(kdf <= 1, f"key derivation {kdf}")
        if (kdf == 0) != (secret[0] == "passphrase"):
            return None
        if kdf == 0:
            costs = Values(parameters)
            memory, passes, lanes = costs.u32(), costs.u32(), costs.u32()
            costs.end()
            known(memory <= 65536 and memory * passes <= 196608 and lanes <= 64, "more of Argon2id than this spends")
            key = hash_secret_raw(secret[1], salt, passes, memory, lanes, 32, Type.ID, 0x13)
        else:
            key = keyed(derive("raw key slot", secret[1]), salt)
        try:
            plain = AESGCM(key).decrypt(bytes(12), sealed, about)
        except InvalidTag:
            return None
        must(X25519PrivateKey.from_private_bytes(plain[:32]).public_key().public_bytes_raw() == public, "a slot's key")
        return (plain[:32], Keyring(plain[32:])), append_only

    def load_segment(self, name):
        data = self.read_named(name)
        opened = self.keyring.opener(INDEX, *header(data, INDEX))
        entries, packs = struct.unpack("<QI", opened(0, FOOTER, data[46:74]))
        entry_pages, pack_pages = -(-entries // 256), -(-packs // 128)
        must(len(data) == 74 + 49 * entries + 68 * packs + 16 * (entry_pages + pack_pages), "a segment's length")

        def pages(start, count, size, per_page, first, part):
            for page in range(-(-count // per_page)):
                length = min(per_page, count - page * per_page) * size + 16
                plain = opened(first + page, part, data[start:start + length])
                start += length
                yield from (plain[i:i + size] for i in range(0, len(plain), size))
        rows_at = 74 + 49 * entries + 16 * entry_pages
        rows = [struct.unpack("<32sI32s", row) for row in pages(rows_at, packs, 68, 128, 1 + entry_pages, PACKS)]
        last = b""
        for entry in pages(74, entries, 49, 256, 1, PAGE):
            blob, row, block, offset, stored, plain, at, length, flags = struct.unpack("<20s7IB", entry)
            must(blob > last and row < len(rows) and flags < 4, "an index entry")
            must(0 < length <= 1 << 20 and at + length <= plain <= 4 << 20 and 17 <= stored <= plain + 16, "an index entry's lengths")
            last = blob
            placed = Placed(*rows[row], block, offset, stored, plain, at, length, bool(flags & 1), bool(flags & 2))
            self.index.setdefault((placed.nodes, blob), []).append(placed)

    # ---- Blobs (section 8)

    def load_strays(self):
        """Indexes the packs that nothing tells of; each is read once."""
        told = {placed.pack for places in self.index.values() for placed in places} | self.strays
        for prefix in self.names("packs", "[0-9a-f]{2}"):
            for name in self.names(f"packs/{prefix}", prefix + "[0-9a-f]{62}"):
                if bytes.fromhex(name) not in told:
                    self.strays.add(bytes.fromhex(name))
                    try:
                        self.load_footer(bytes.fromhex(name))
                    except (Damaged, Unsupported) as error:
                        put_aside(f"packs/{prefix}/{name}", error)

    def load_footer(self, pack, length=None, footer_len=None):
        """Indexes a pack, of which a record may state the lengths."""
        name = f"packs/{pack.hex()[:2]}/{pack.hex()}"
        data = self.read_named(name)
        generation, salt = header(data, PACK)
        opened, writer = self.keyring.opener(PACK, generation, salt), data[46:62]
        stated, blocks = struct.unpack("<II", opened(0, TRAILER, data[-24:]))
        must(length in (None, len(data)) and footer_len in (None, stated), "a pack's lengths")
        must(stated >= 17 and len(data) >= 62 + 24 + stated, "a pack's lengths")
        v = Values(opened(blocks + 1, FOOTER, data[-24 - stated:-24], writer.hex()))
        offset = 62
        for block, (nodes, zstd, stored, plain, blobs) in enumerate(v.list(lambda: (
                v.u32(), v.u32(), v.u32(), v.u32(), v.list(lambda: (v.raw(20), v.u32()))))):
            at = 0
            for blob, size in blobs:
                placed = Placed(pack, generation, salt, block, offset, stored, plain, at, size, nodes == 1, zstd == 1)
                self.index.setdefault((placed.nodes, blob), []).append(placed)
                at += size
            must(at < plain if nodes else at == plain, "the lengths of a block's blobs")
            offset += stored

    def blob(self, blob, nodes):
        problem = Damaged(f"nothing says where blob {blob.hex()} is")
        while (nodes, blob) not in self.index and self.recent:
            try:
                self.load_footer(*self.recent.popitem()[0])
            except FileNotFoundError:
                pass  # merged since
        if (nodes, blob) not in self.index:
            self.load_strays()
        for placed in self.index.get((nodes, blob), []):
            try:
                plain = self.block(placed)[placed.at:placed.at + placed.length]
                must(keyed(self.keyring.node_id if nodes else self.keyring.chunk_id, plain, 20) == blob, "a blob's id")
                return plain
            except (Damaged, OSError) as error:
                problem = error
        raise problem

    def block(self, placed):
        key = (placed.pack, placed.block)
        if key not in self.blocks:
            name = f"packs/{placed.pack.hex()[:2]}/{placed.pack.hex()}"
            opened = self.keyring.opener(PACK, placed.generation, placed.salt)
            message = self.read(name, placed.offset, placed.stored)
            plain = opened(placed.block + 1, NODES if placed.nodes else DATA, message)
            if placed.zstd:
                plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=placed.plain)
            must(len(plain) == placed.plain, "a block's length")
            if len(self.blocks) >= 64:
                self.blocks.pop(next(iter(self.blocks)))
            self.blocks[key] = plain
        return self.blocks[key]

    # ---- Snapshots (sections 7 and 10)

    def record_names(self, tag, reach):
        """Names of a series' records, newest first, bucket by bucket."""
        folder = f"commits/{tag}"
        buckets = [int(name) for name in self.names(folder, "[0-9]{12}")]
        reached = reach(buckets)
        for bucket in reversed(buckets):
            names = self.names(f"{folder}/{bucket:012}", "[0-9]{15}")
            if names and bucket > reached:
                put_aside(f"{folder}/{bucket:012}", "its numbers are made up")
                continue
            for name in reversed(names):
                if int(name) // 1000 == bucket and int(name) > 0:
                    yield int(name), f"{folder}/{bucket:012}/{name}"

    def snapshot(self, name):
        data = self.read(name)
        body = untrailed(data)
        plain = self.keyring.opener(SNAPSHOT, *header(body, SNAPSHOT))(0, BODY, body[46:], name)
        v = Values(plain)
        series, number, time, _clock = v.string(), v.u64(), v.i64(), v.i64()
        predecessor, body = v.option(lambda: v.raw(32)), v.u32()
        must(body <= 1, "a body of unknown form")
        result = None
        if body == 1:
            host, tags, _paths, _position, root = (
                v.string(), v.map(), v.list(v.string), v.option(v.bytes), v.raw(20))
            entries, _parent, origin = v.u64(), v.option(v.u64), v.option(lambda: (v.u64(), v.i64()))
            _stats = [v.u64() for _ in range(11)]
            v.list(lambda: (v.string(), v.string()))
            result = Snapshot(series, number, origin[0] if origin else number, time, host, tags, root, entries, v.u64())
            for pack in v.list(lambda: (v.raw(32), v.u32(), v.u32())):
                self.recent.setdefault(pack)
            v.option(lambda: (v.raw(32), [v.u32() for _ in range(8)]))  # where the root lies: a hint
        v.extensions()
        zeros = plain[v.at:]
        must(not any(zeros) and padded(len(data) - len(zeros)) == len(data), "a record's padding")
        _, tag, _, last = name.split("/")
        must(1 <= len(series.encode()) <= 1024 and not set(series) & set("#@\0\n"), "an impossible name of a series")
        must(number == int(last) and self.keyring.tag(series).hex() == tag
             and (predecessor is not None) == (number > 1), f"{name} says something else than its name")
        return result

    def kept(self, tag):
        """The newest list that the administrator signed: up to which number it goes, and the runs that count."""
        for number in reversed(self.names(f"kept/{tag}", "[0-9]{15}")):
            name = f"kept/{tag}/{number}"
            try:
                found = self.open_list(name)
            except (Damaged, Unsupported) as error:
                put_aside(name, error)
                continue
            if found:
                return found
        return 0, []

    def open_list(self, name):
        data = self.read(name)
        body = untrailed(data)
        plain = self.keyring.opener(KEPT, *header(body, KEPT))(0, BODY, body[46:], name)
        v = Values(plain)
        series, stated, _time, through = v.string(), v.u64(), v.i64(), v.u64()
        runs = v.list(lambda: (v.u64(), v.u64()))
        gone = v.list(lambda: (v.u64(), v.i64(), v.i64()))
        v.extensions()
        said, signature, zeros = plain[:v.at], v.raw(64), plain[v.at:]
        must(not any(zeros) and padded(len(data) - len(zeros)) == len(data), "a list's padding")
        if not is_signed(self.keyring.administrator_public, KEPT, name, signature, said):
            return None
        _, tag, number = name.split("/")
        must(stated == int(number) and self.keyring.tag(series).hex() == tag, f"{name} says something else")
        must(all(1 <= first <= last <= through for first, last in runs), "a run of numbers")
        must(all(a[1] + 1 < b[0] for a, b in zip(runs, runs[1:])), "runs that aren't apart")
        must(all(a[0] < b[0] for a, b in zip(gone, gone[1:])), "forgotten numbers out of order")
        must(all(n > 0 and not counts((through, runs), n) for n, _, _ in gone), "a number that was forgotten and counts")
        return through, runs

    def snapshots(self, tag):
        """What counts, newest first; tombstones, and what can't be used, left out."""
        kept = self.kept(tag)
        for number, name in self.record_names(tag, lambda buckets: reach(kept, buckets)):
            if counts(kept, number):
                try:
                    found = self.snapshot(name)
                except (Damaged, Unsupported) as error:
                    put_aside(name, error)
                    continue
                if found:
                    yield found

    def find(self, series, number):
        tag = self.keyring.tag(series).hex()
        if number != "latest":
            name = f"commits/{tag}/{int(number) // 1000:012}/{int(number):015}"
            try:
                found = self.snapshot(name) if counts(self.kept(tag), int(number)) else None
            except FileNotFoundError:
                found = None
        else:
            found = None
            for snapshot in self.snapshots(tag):
                if found and snapshot.number < found.place:
                    break
                if not found or snapshot.place > found.place:
                    found = snapshot
                if found.place == found.number:
                    break
        if not found:
            raise SystemExit("there is no such snapshot")
        return found

    # ---- Trees (section 9)

    def entries(self, node_id, level=None, first=None, upper=None, count=None):
        """All (key, entry) pairs in or below a node, which is checked against what its parent says."""
        values = Values(self.blob(node_id, True))
        form = values.u8()
        must(form <= 31 and level in (None, form), "a node of another level")
        if form == 0:
            items = values.list(lambda: (self.key(values), self.entry(values)))
            total = len(items)
        else:
            items = values.list(lambda: (self.key(values), values.raw(20), values.u64()))
            must(items and all(item[2] for item in items), "an inner node without children")
            total = sum(item[2] for item in items)
        values.end()
        keys = [item[0] for item in items]
        must(all(a < b for a, b in zip(keys, keys[1:])), "keys out of order")
        if level is not None:
            must(keys and keys[0] == first and total == count, "a node isn't what its parent says")
        must(not keys or upper is None or keys[-1] < upper, "a key in the next node's range")
        if form == 0:
            yield from items
        else:
            for (key, child, below), end in zip(items, keys[1:] + [upper]):
                yield from self.entries(child, form - 1, key, end, below)

    @staticmethod
    def key(values):
        key = values.bytes()
        names = key.split(b"\0")
        must(len(key) <= 4096 and not any(n in (b"", b".", b"..") or b"/" in n for n in names), "an impossible key")
        return key

    def entry(self, values):
        kind = values.u32()
        if kind > 6:
            return f"kind{kind}?", 0, ("inline", values.bytes())
        if kind >= 5:
            values.u32(), values.u32()
        size, content = values.u64(), self.payload(values)
        self.payload(values)  # the metadata
        must(size == self.length(content), "an entry's size")
        return ["file", "folder", "symlink", "fifo", "socket", "char", "block"][kind], size, content

    def payload(self, values):
        form = values.u32()
        must(form <= 2, "a payload of unknown form")
        if form == 0:
            return "inline", values.bytes()
        if form == 1:
            return "pieces", self.pieces(values)
        return "sequence", (values.raw(20), values.u64(), values.u8())

    @staticmethod
    def pieces(values):
        def piece():
            kind = values.u32()
            must(kind <= 1, "a piece of unknown form")
            id, length = (values.raw(20), values.u32()) if kind == 0 else (None, values.u64())
            repeat = values.u32() if kind == 0 else 1
            must(length and repeat, "an empty piece")
            return id, length, repeat
        pieces = values.list(piece)
        must(pieces, "no pieces")
        return pieces

    @staticmethod
    def length(payload):
        form, value = payload
        return len(value) if form == "inline" else value[1] if form == "sequence" else sum(l * r for _, l, r in value)

    def content(self, payload):
        form, value = payload
        if form == "inline":
            yield value
            return
        for id, length, repeat in value if form == "pieces" else self.sequence(value[0], value[1], value[2]):
            if id is None:
                yield from (bytes(min(length - at, 1 << 20)) for at in range(0, length, 1 << 20))
            else:
                chunk = self.blob(id, False)
                must(len(chunk) == length, "a chunk's length")
                yield from (chunk for _ in range(repeat))

    def sequence(self, node_id, length, level):
        values = Values(self.blob(node_id, True))
        must(values.u8() == 128 + level and level <= 31, "a node of another level")
        if level == 0:
            pieces = self.pieces(values)
            values.end()
            must(sum(l * r for _, l, r in pieces) == length, "a sequence's length")
            yield from pieces
        else:
            items = values.list(lambda: (values.raw(20), values.u64()))
            values.end()
            must(items and all(item[1] for item in items) and sum(item[1] for item in items) == length, "a length")
            for child, below in items:
                yield from self.sequence(child, below, level - 1)


def extract(repository, snapshot, destination):
    barred = None
    for key, (kind, _, content) in repository.entries(snapshot.root):
        if barred is not None and key.startswith(barred + b"\0"):
            print(f"refused {os.fsdecode(key)!r}: it is below something that is no folder", file=sys.stderr)
            continue
        barred = None if kind == "folder" else key
        path = os.path.join(os.fsencode(destination), *key.split(b"\0"))
        if kind.endswith("?"):
            print(f"skipped {os.fsdecode(path)}: an entry of unknown {kind[:-1]}, needs a newer reader", file=sys.stderr)
            continue
        os.makedirs(path if kind == "folder" else os.path.dirname(path), exist_ok=True)
        if kind == "file":
            with open(path, "xb") as file:
                for piece in repository.content(content):
                    file.write(piece)


def main(folder, secret, command, *arguments):
    kind, _, file = secret.partition(":")
    with open(file, "rb") as opened:
        secret = (kind, opened.read().rstrip(b"\n") if kind == "passphrase" else opened.read())
    repository = Repository(folder, secret)
    if command == "snapshots":
        for tag in repository.names("commits", "[0-9a-f]{32}"):
            for s in repository.snapshots(tag):
                print(f"{s.series}#{s.number} {s.time / 1e9:.0f} {s.entries} entries, {s.failures} failures {s.tags}")
        return
    snapshot = repository.find(*arguments[:2])
    if command == "ls":
        for key, (kind, size, content) in repository.entries(snapshot.root):
            target = b" -> " + b"".join(repository.content(content)) if kind == "symlink" else b""
            line = f"{kind:8} {size:12} ".encode() + key.replace(b"\0", b"/") + target
            sys.stdout.buffer.write(line + b"\n")
    elif command == "extract":
        extract(repository, snapshot, arguments[2])


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
    raise SystemExit(3 if ASIDE else 0)
