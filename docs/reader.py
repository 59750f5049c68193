#!/usr/bin/env python3
"""A reader of Backstop repositories, written from format.md alone, to show that the page suffices.

    pip install blake3 cryptography zstandard argon2-cffi
    reader.py REPOSITORY SECRET snapshots
    reader.py REPOSITORY SECRET ls SERIES WHICH
    reader.py REPOSITORY SECRET extract SERIES WHICH DESTINATION
    reader.py REPOSITORY SECRET verify

SECRET is key:FILE (32 raw bytes) or passphrase:FILE (without its line end). WHICH is a snapshot's number, 'latest', or
'@' and a time in nanoseconds since 1970, for the latest at or before it. Extracts files, folders, symlinks and hard
links, without metadata. Meant to be read, not to be fast.

Exit status: 0; 1 for what failed as a whole; 3 if something was put aside, left out or found damaged.
"""
import os
import re
import struct
import sys
from collections import namedtuple

import zstandard
from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Unusable(Exception):
    """An object, or what it is part of, can't be used; its subclasses say why."""


class Damaged(Unusable):
    pass


class Unsupported(Unusable):
    """It is sound, as far as could be checked, and needs a newer reader or secret."""


class Missing(Unusable):
    pass


class Unsigned(Unusable):
    """It isn't the administrator's, or a registration's end isn't its writer's, and counts for nothing."""


class Foreign(Unusable):
    """Its name is none of section 2."""


class WrongSecret(Exception):
    pass


def must(condition, what):
    if not condition:
        raise Damaged(what)


def known(condition, what):
    if not condition:
        raise Unsupported(f"it needs {what}, which this reader doesn't know")


def ascending(items):
    return all(a < b for a, b in zip(items, items[1:]))


def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length)


def derive(context, secret, length=32):
    return blake3(secret, derive_key_context="backstop v1 " + context).digest(length)


# ---- Limits (section 14)

CONFIG_MAX, SLOT_MAX, ROSTER_MAX, RECORD_MAX = 64 << 10, 39088, 128 << 10, 16 << 20
PACK_MAX, FOOTER_MAX, BLOCK_MAX, BLOB_MAX, WINDOW_MAX = 256 << 20, 64 << 20, 4 << 20, 1 << 20, 8 << 20
LEVEL_MAX, ENTRY_MAX, KEY_MAX, LINK_MAX = 31, 512 << 10, 4096, 64 << 10
NUMBER_MAX, METADATA_MAX, FULL = 999_999_999_999_999, 32 << 20, (1 << 64) - 1


# ---- Values (section 3)

class Values:
    """Reads values from the front of `data`; refuses what isn't in canonical form."""

    def __init__(self, data):
        self.data, self.at, self.unknown = data, 0, []

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

    def enum(self, variants):
        value = self.u32()
        must(value < variants, "an unknown variant")
        return value

    def bytes(self):
        return self.raw(self.u64())

    def string(self):
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise Damaged("a string isn't UTF-8") from None

    def list(self, item):
        # No item takes no bytes, so a length that lies ends this early.
        return [item() for _ in range(self.u64())]

    def option(self, item):
        tag = self.u8()
        must(tag <= 1, "an option is neither there nor not")
        return item() if tag else None

    def map(self):
        pairs = self.list(lambda: (self.string(), self.string()))
        must(ascending([key.encode() for key, _ in pairs]), "a map isn't in order")
        return dict(pairs)

    def runs(self):
        return self.list(lambda: (self.u64(), self.u64()))

    def extensions(self):
        numbers = [number for number, _ in self.list(lambda: (self.u32(), self.bytes()))]
        must(ascending(numbers), "extensions aren't in order")
        self.unknown += [number for number in numbers if number % 2 == 0]

    def require_known(self):
        known(not self.unknown, f"extension {self.unknown[:1]}")

    def end(self):
        must(self.at == len(self.data), "bytes follow a value")


def padded(length):
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask


def check_padding(zeros, length):
    must(not any(zeros) and padded(length - len(zeros)) == length, "wrong padding")


# ---- Keys and sealing (sections 5 and 6)

CONFIG, SLOT, PACK, INDEX, REGISTRATION, SNAPSHOT, COLLECTION, KEPT, REGISTRATION_END, ROSTER = range(1, 11)
BODY, DATA, NODES, FOOTER, PAGE, PACKS, TRAILER = range(7)


class Keyring:
    def __init__(self, encoded):
        values = Values(encoded)
        self.identity = values.raw(32)
        sealing = values.list(lambda: (values.u32(), values.raw(32)))
        generations = [generation for generation, _ in sealing]
        must(1 <= len(sealing) <= 1024 and ascending(generations), "a keyring's generations")
        self.sealing = dict(sealing)
        self.seed = values.option(lambda: values.raw(32))
        self.administrator = values.raw(32)
        values.end()
        if self.seed is not None:
            public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()
            must(public == self.administrator, "an administrator's seed isn't that of the public key")
        self.chunk_id, self.node_id = derive("chunk id", self.identity), derive("node id", self.identity)

    def opener(self, kind, generation, salt):
        known(generation in self.sealing, f"key generation {generation}")
        domain = derive("seal data" if kind in (PACK, INDEX) else "seal records", self.sealing[generation])
        cipher = AESGCM(keyed(domain, salt + bytes([kind])))

        def opened(number, part, message, name=""):
            must(len(message) >= 16, "a message is too short")
            nonce = struct.pack("<I8x", number)
            try:
                return cipher.decrypt(nonce, bytes(message), bytes([kind, part]) + name.encode())
            except InvalidTag:
                raise Damaged(f"message {number} fails authentication") from None
        return opened

    def tag(self, series):
        return keyed(derive("series tag", self.identity), series.encode(), 16).hex()


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
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
        context = encapsulated + private.public_key().public_bytes_raw()
        shared = expand(extract(b"", kem, b"eae_prk", shared), kem, b"shared_secret", context, 32)
        context = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
        secret = extract(shared, suite, b"secret", b"")
        key, nonce = expand(secret, suite, b"key", context, 32), expand(secret, suite, b"base_nonce", context, 12)
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError):
        raise Damaged("a grant doesn't open") from None


def is_signed(administrator, kind, name, signature, said):
    message = b"backstop v1 administrator" + bytes([kind]) + blake3(name.encode()).digest() + said
    try:
        Ed25519PublicKey.from_public_bytes(administrator).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
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


def sound_series(series):
    return 1 <= len(series.encode()) <= 1024 and not any(c in series for c in "#@\0\n")


# ---- The repository (sections 2 and 7)

Placed = namedtuple("Placed", "pack generation salt block offset stored plain at length nodes zstd")
Snapshot = namedtuple("Snapshot", "series number time host tags root entries failures origin packs hash predecessor")
List = namedtuple("List", "through runs")
Entry = namedtuple("Entry", "kind size content metadata")

NUMBER, HASH, ID = "[0-9]{15}", "[0-9a-f]{64}", "[0-9a-f]{32}"
ALL = List(0, [])


def pack_name(pack):
    return f"packs/{pack.hex()[:2]}/{pack.hex()}"


def is_number(text):
    return re.fullmatch(NUMBER, text) and int(text) > 0


def counts(kept, number):
    return number > kept.through or any(first <= number <= last for first, last in kept.runs)


def check_block(nodes, zstd, stored, plain, blobs):
    """R20, for what a footer or an index entry says of a block."""
    must(nodes <= 1 and zstd <= 1 and 17 <= stored <= plain + 16 and plain <= BLOCK_MAX, "a block's lengths")
    must(zstd or stored == plain + 16, "a raw block's length")
    must(all(1 <= length <= BLOB_MAX for length in blobs), "a blob's length")


class Repository:
    def __init__(self, folder, secret):
        self.folder, self.blocks, self.index, self.recent, self.aside = folder, {}, None, {}, {}
        config = self.read("config", CONFIG_MAX)
        body = untrailed(config)
        must(len(body) >= 96, "the config is too short")
        self.read_config(body[:-96], body[-96:-32])
        self.sealed_config = body
        self.keyring = self.open_slots(secret)

    # ---- Reading objects

    def names(self, prefix, pattern):
        path = os.path.join(self.folder, prefix)
        return sorted(n for n in os.listdir(path) if re.fullmatch(pattern, n)) if os.path.isdir(path) else []

    def read(self, name, limit, start=0, length=None):
        try:
            with open(os.path.join(self.folder, name), "rb") as file:
                file.seek(start)
                data = file.read(limit + 1 if length is None else length)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(f"{name} does not exist") from None
        must(len(data) <= limit, f"{name} is too long")
        must(length is None or len(data) == length, f"{name} is too short")
        return data

    def read_named(self, name, limit=PACK_MAX):
        data = self.read(name, limit)
        must(blake3(data).hexdigest() == name.rsplit("/", 1)[1], f"{name} doesn't hash to its name")
        return data

    def put_aside(self, name, error):
        """R42: goes around an object, and says so once."""
        if name not in self.aside:
            self.aside[name] = error
            print(f"{name} is put aside: {error}", file=sys.stderr)

    def record(self, name, kind, decode, signed=False):
        """A record object's value, as `decode` reads it, in the order of R9."""
        data = self.read(name, RECORD_MAX)
        body = untrailed(data)
        plain = self.keyring.opener(kind, *header(body, kind))(0, BODY, body[46:], name)
        values = Values(plain)
        value = decode(values)
        values.extensions()
        said = plain[:values.at]
        signature = values.raw(64) if signed else None
        check_padding(plain[values.at:], len(data))
        values.require_known()
        if signed and not is_signed(self.keyring.administrator, kind, name, signature, said):
            raise Unsigned(f"{name} isn't the administrator's")
        return value, blake3(data).digest()

    # ---- Opening

    def read_config(self, said, signature):
        values = Values(opening(said, CONFIG))
        self.id, _, self.administrator, self.first_slot = values.raw(16), values.i64(), values.raw(32), values.raw(32)
        for _ in range(10):
            values.u32()
        to_read, to_write, optional = (values.list(values.string) for _ in range(3))
        values.extensions()
        values.end()
        must(is_signed(self.administrator, CONFIG, "config", signature, said), "the config isn't its administrator's")
        for features in (to_read, to_write, optional):
            sound = all(re.fullmatch("[a-z0-9-]{1,32}", feature) for feature in features)
            must(sound and ascending(features), "features aren't short names in order")
        values.require_known()
        known(not to_read, f"the feature {to_read[:1]}")

    def read_roster(self, name):
        body = untrailed(self.read(name, ROSTER_MAX))
        must(len(body) >= 64, "a roster is too short")
        if not is_signed(self.administrator, ROSTER, name, body[-64:], body[:-64]):
            raise Unsigned(f"{name} isn't the administrator's")
        values = Values(opening(body[:-64], ROSTER))
        repository, number, _, generation = values.raw(16), values.u64(), values.i64(), values.u32()
        members = values.list(lambda: (values.raw(32), values.bool(), values.raw(32), values.raw(32), values.raw(48)))
        history = values.bytes()
        values.extensions()
        values.end()
        values.require_known()
        must(number == int(name[12:27]) and members and ascending([slot for slot, *_ in members]), "a roster")
        must(repository == self.id, "another repository's roster")
        return generation, history, {slot: grant for slot, _, _, *grant in members}

    def roster(self):
        """The roster that holds: its generation, its history, and each slot's grant."""
        names = [name for name in self.names("keys", f"roster-{NUMBER}-{ID}") if is_number(name[7:22])]
        must(len(names) <= 1024, "too many names of rosters")
        for name in reversed(names):
            try:
                return self.read_roster(f"keys/{name}")
            except (Unsigned, Damaged, Missing) as error:
                print(f"keys/{name} is passed over: {error}", file=sys.stderr)
        return 0, None, {self.first_slot: None}

    def open_slots(self, secret):
        generation, history, members = self.roster()
        passed_over, slots = None, []
        for slot in list(members)[:64]:
            try:
                slots.append(self.read_slot(slot))
            except Unusable as error:
                passed_over = error
        best = None
        for slot in sorted(slots, key=lambda slot: (slot.cost, slot.append_only)):
            if best and (not best[1].append_only or slot.append_only):
                continue
            try:
                opened = self.open_slot(slot, secret)
            except Unusable as error:
                passed_over = error
                continue
            best = (opened, slot) if opened else best
        if best is None:
            if passed_over is None:
                raise WrongSecret("the secret opens none of the key slots")
            # A slot that is missing has to be somewhere: the roster names it.
            raise Damaged(str(passed_over)) if isinstance(passed_over, Missing) else passed_over
        (private, keyring), slot = best
        if history is not None:
            self.learn(keyring, private, slot.id, generation, history, members[slot.id])
        return keyring

    def learn(self, keyring, private, slot, generation, history, grant):
        """Opens what a roster grants to a slot, and the older generations under it."""
        context = self.id + struct.pack("<I", generation)
        newest = hpke_open(private, grant[0], b"backstop v1 key generation", context + slot, grant[1])
        try:
            older = Values(AESGCM(derive("key history", newest)).decrypt(bytes(12), history, context))
        except (InvalidTag, ValueError):
            raise Damaged("a roster's history doesn't open") from None
        given = older.list(lambda: (older.u32(), older.raw(32))) + [(generation, newest)]
        older.end()
        must(ascending([number for number, _ in given]), "a roster's generations aren't in order")
        for number, key in given:
            must(keyring.sealing.setdefault(number, key) == key, "two keys of one generation")

    def read_slot(self, id):
        values = Values(opening(self.read_named(f"keys/{id.hex()}", SLOT_MAX), SLOT))
        _repository, _label, _ = values.raw(16), values.string(), values.i64()
        append_only, public = values.bool(), values.raw(32)
        kdf, parameters, salt = values.u32(), values.bytes(), values.raw(32)
        values.extensions()
        about = values.data[:values.at]
        sealed = values.bytes()
        values.end()
        values.require_known()
        known(kdf <= 1, f"key derivation {kdf}")
        costs = Values(parameters)
        memory, passes, lanes = (costs.u32(), costs.u32(), costs.u32()) if kdf == 0 else (0, 0, 0)
        costs.end()
        known(memory <= 65536 and memory * passes <= 196608 and lanes <= 64, "more of Argon2id than this spends")
        slot = namedtuple("Slot", "id append_only public kdf memory passes lanes salt about sealed cost")
        return slot(id, append_only, public, kdf, memory, passes, lanes, salt, about, sealed, memory * passes)

    def open_slot(self, slot, secret):
        """The private key and the keyring; None if it is another secret's slot."""
        if (slot.kdf == 0) != (secret[0] == "passphrase"):
            return None
        if slot.kdf == 0:
            try:
                key = hash_secret_raw(secret[1], slot.salt, slot.passes, slot.memory, slot.lanes, 32, Type.ID, 0x13)
            except HashingError as error:
                raise Unsupported(f"Argon2id doesn't allow this: {error}") from None
        else:
            key = keyed(derive("raw key slot", secret[1]), slot.salt)
        try:
            plain = AESGCM(key).decrypt(bytes(12), slot.sealed, slot.about)
        except (InvalidTag, ValueError):
            return None
        must(len(plain) >= 32, "a slot holds no private key")
        keyring = Keyring(plain[32:])
        public = X25519PrivateKey.from_private_bytes(plain[:32]).public_key().public_bytes_raw()
        must(public == slot.public, "a slot's private key isn't that of its public key")
        must((keyring.seed is None) == slot.append_only, "a slot allows something else than it says")
        must(keyring.administrator == self.administrator, "the slot has another administrator's key")
        mac = keyed(derive("config authentication", keyring.identity), self.sealed_config[:-32])
        must(mac == self.sealed_config[-32:], "the config is forged")
        return plain[:32], keyring

    # ---- The index (sections 7, 8 and 10)

    def load_index(self):
        self.index, self.described = {}, set()
        for name in self.names("index", HASH):
            try:
                rows, entries = self.read_segment(f"index/{name}")
            except Unusable as error:
                self.put_aside(f"index/{name}", error)
                continue
            self.described.update(rows)
            for placed in entries:
                self.index.setdefault((placed.nodes, placed[0]), []).append(placed[1])

    def read_segment(self, name):
        data = self.read_named(name)
        opened = self.keyring.opener(INDEX, *header(data, INDEX))
        must(len(data) >= 74, "a segment is too short")
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
        found, last = [], b""
        for entry in pages(74, entries, 49, 256, 1, PAGE):
            blob, row, block, offset, stored, plain, at, length, flags = struct.unpack("<20s7IB", entry)
            must(blob > last and row < len(rows) and flags < 4 and offset + stored <= PACK_MAX, "an index entry")
            check_block(flags & 1, flags >> 1, stored, plain, [length])
            must(at + length <= plain, "a blob beyond its block")
            last = blob
            placed = Placed(*rows[row], block, offset, stored, plain, at, length, bool(flags & 1), bool(flags & 2))
            found.append(namedtuple("Found", "blob placed nodes")(blob, placed, placed.nodes))
        return [pack for pack, _, _ in rows], found

    def read_footer(self, pack):
        """A pack's bytes, its footer's length, and for each block its place and its blobs (R19, R20)."""
        data = self.read_named(pack_name(pack))
        generation, salt = header(data, PACK)
        opened, writer = self.keyring.opener(PACK, generation, salt), data[46:62]
        must(len(data) >= 62 + 24, "a pack is too short")
        footer_len, count = struct.unpack("<II", opened(0, TRAILER, data[-24:]))
        start = len(data) - 24 - footer_len
        must(start >= 62 and 17 <= footer_len <= FOOTER_MAX and count + 1 < 1 << 32, "a footer can't be there")
        plain = opened(count + 1, FOOTER, data[start:-24], writer.hex())
        v = Values(plain)
        listed = v.list(lambda: (v.enum(2), v.enum(2), v.u32(), v.u32(), v.list(lambda: (v.raw(20), v.u32()))))
        zeros = plain[v.at:]
        if len(data) - len(zeros) < 1 << 20:
            check_padding(zeros, len(data))
        else:
            must(not zeros, "a long pack is padded")
        must(len(listed) == count, "the number of blocks")
        offset, blocks = 62, []
        for number, (nodes, zstd, stored, length, blobs) in enumerate(listed):
            check_block(nodes, zstd, stored, length, [size for _, size in blobs])
            total = sum(size for _, size in blobs)
            must(total < length if nodes else total == length, "the lengths of a block's blobs")
            place = Placed(pack, generation, salt, number, offset, stored, length, 0, length, nodes == 1, zstd == 1)
            blocks.append((place, blobs))
            offset += stored
        must(offset == start, "blocks don't end where the footer begins")
        return data, footer_len, blocks

    def load_footer(self, pack, stated=None):
        """Makes a pack's footer part of the index; `stated` is what a record says of its lengths (R22)."""
        try:
            data, footer_len, blocks = self.read_footer(pack)
            must(stated in (None, (len(data), footer_len)), "a pack has other lengths than a record states")
        except Missing:
            return  # merged since
        except Unusable as error:
            self.put_aside(pack_name(pack), error)
            return
        for place, blobs in blocks:
            at = 0
            for blob, size in blobs:
                self.index.setdefault((place.nodes, blob), []).append(place._replace(at=at, length=size))
                at += size

    def blob(self, blob, nodes):
        if self.index is None:
            self.load_index()
        problem, tried = None, 0
        while True:
            for placed in self.index.get((nodes, blob), [])[tried:]:
                tried += 1
                try:
                    plain = self.block(placed)[placed.at:placed.at + placed.length]
                    key = self.keyring.node_id if nodes else self.keyring.chunk_id
                    must(keyed(key, plain, 20) == blob, "a blob's id")
                    return plain
                except Unusable as error:
                    problem = error if problem is None or isinstance(problem, Missing) else problem
            if self.recent:
                self.load_footer(*self.recent.popitem())
            elif not self.load_undescribed():
                break
        if problem is None and self.aside:
            problem = next(iter(self.aside.values()))
        raise problem or Missing(f"nothing says where blob {blob.hex()} is")

    def load_undescribed(self):
        """The last resort: the footers of packs that neither a segment nor a record tells of (R27)."""
        loaded = False
        for folder in self.names("packs", "[0-9a-f]{2}"):
            for name in self.names(f"packs/{folder}", f"{folder}[0-9a-f]{{62}}"):
                pack = bytes.fromhex(name)
                if pack not in self.described:
                    self.described.add(pack)
                    self.load_footer(pack)
                    loaded = True
        return loaded

    def block(self, placed):
        key = (placed.pack, placed.block, placed.offset, placed.nodes, placed.zstd)
        if key not in self.blocks:
            opened = self.keyring.opener(PACK, placed.generation, placed.salt)
            message = self.read(pack_name(placed.pack), PACK_MAX, placed.offset, placed.stored)
            must(placed.block + 1 < 1 << 32, "a block's number")
            plain = opened(placed.block + 1, NODES if placed.nodes else DATA, message)
            plain = self.decompress(plain, placed.plain) if placed.zstd else plain
            must(len(plain) == placed.plain, "a block's length")
            if len(self.blocks) >= 64:
                self.blocks.pop(next(iter(self.blocks)))
            self.blocks[key] = plain
        return self.blocks[key]

    @staticmethod
    def decompress(frame, length):
        """R21: exactly one zstd frame, without a dictionary, of a bounded window and the right length."""
        must(frame[:4] == b"\x28\xb5\x2f\xfd", "a block isn't a zstd frame")
        try:
            about = zstandard.get_frame_parameters(frame)
            must(frame[4] & 3 == 0, "a zstd frame wants a dictionary")
            must(frame[4] & 0x20 or about.window_size <= WINDOW_MAX, "a zstd frame's window is too large")
            sizes = (length, zstandard.CONTENTSIZE_UNKNOWN)
            must(about.content_size in sizes, "a zstd frame has another length than its block")
            reader = zstandard.ZstdDecompressor()
            return reader.decompress(frame, max_output_size=max(length, 1), allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Damaged(f"a block can't be decompressed: {error}") from None

    # ---- Snapshots (sections 7 and 10)

    def snapshot(self, tag, number):
        """A snapshot, or None for a tombstone."""
        record = self.read_snapshot(tag, number)
        return record if record.root else None

    def read_snapshot(self, tag, number):
        """A record; of a tombstone most is None."""
        name = f"commits/{tag}/{number // 1000:012}/{number:015}"

        def decode(v):
            place = v.string(), v.u64(), v.i64()
            v.i64()
            predecessor, content = v.option(lambda: v.raw(32)), None
            if v.enum(2) == 1:
                host, tags, _paths, _position, root = (
                    v.string(), v.map(), v.list(v.string), v.option(v.bytes), v.raw(20))
                entries, _parent, origin = v.u64(), v.option(v.u64), v.option(lambda: (v.u64(), v.i64()))
                _stats = [v.u64() for _ in range(11)]
                v.list(lambda: (v.string(), v.string()))
                failures = v.u64()
                packs = v.list(lambda: (v.raw(32), v.u32(), v.u32()))
                v.option(lambda: (v.raw(32), v.enum(2), v.enum(2), [v.u32() for _ in range(6)]))  # root_at: a hint
                content = host, tags, root, entries, failures, origin, packs
            return place, predecessor, content
        ((series, stated, time), predecessor, content), hash = self.record(name, SNAPSHOT, decode)
        must(sound_series(series) and self.keyring.tag(series) == tag and stated == number
             and (predecessor is not None) == (number > 1), f"{name} says something else than its name")
        return Snapshot(series, number, time, *(content or [None] * 7), hash, predecessor)

    def read_list(self, tag, number):
        name = f"kept/{tag}/{number:015}"

        def decode(v):
            place, _time = (v.string(), v.u64()), v.i64()
            return place, v.u64(), v.runs(), v.list(lambda: (v.i64(), v.i64(), v.list(lambda: (v.u64(), v.raw(16)))))
        ((series, stated), through, runs, forgotten), _ = self.record(name, KEPT, decode, signed=True)
        kept, together = List(through, runs), [[number for number, _ in snapshots] for _, _, snapshots in forgotten]
        numbers = [number for numbers in together for number in numbers]
        must(self.keyring.tag(series) == tag and stated == number, f"{name} says something else than its name")
        must(through <= NUMBER_MAX, "a list of more numbers than there are")
        must(all(1 <= first <= last <= through for first, last in runs)
             and all(a[1] + 1 < b[0] for a, b in zip(runs, runs[1:])), "a list's runs")
        must(all(numbers and ascending([0] + numbers) for numbers in together) and len(set(numbers)) == len(numbers)
             and not any(counts(kept, n) for n in numbers), "what a list says is forgotten")
        return kept

    def kept(self, tag):
        """What the list says that holds."""
        for number in reversed(list(filter(is_number, self.names(f"kept/{tag}", NUMBER)))):
            try:
                return self.read_list(tag, int(number))
            except Unsigned as error:
                print(f"{error}, and is ignored", file=sys.stderr)
            except Missing:
                continue
            except Unusable as error:
                self.put_aside(f"kept/{tag}/{number}", error)
        return ALL

    def numbers(self, tag, kept):
        """The numbers of a series that count and that it can have reached (R44), descending."""
        folder = f"commits/{tag}"
        buckets = [int(bucket) for bucket in self.names(folder, "[0-9]{12}")]
        reached = max((kept.through + 1) // 1000, buckets[0] if buckets else 0)
        while reached in buckets and reached + 1 in buckets:
            reached += 1
        for bucket in reversed(buckets):
            if bucket > reached:
                self.put_aside(f"{folder}/{bucket:012}", Damaged("made-up numbers"))
                continue
            for name in reversed(self.names(f"{folder}/{bucket:012}", NUMBER)):
                if is_number(name) and int(name) // 1000 == bucket and counts(kept, int(name)):
                    yield int(name)

    def snapshots(self, tag):
        """The snapshots that count, the newest first."""
        for number in self.numbers(tag, self.kept(tag)):
            try:
                found = self.snapshot(tag, number)
            except Missing:
                continue  # collected since
            except Unusable as error:
                self.put_aside(f"commits/{tag}/{number // 1000:012}/{number:015}", error)
                continue
            if found:
                yield found

    def find(self, series, which):
        """A snapshot: by its number, 'latest', or the latest at or before '@' and a time."""
        tag = self.keyring.tag(series)
        if which == "latest" or which.startswith("@"):
            found = self.latest(tag, None if which == "latest" else int(which[1:]))
        else:
            number = int(which)
            must(1 <= number <= NUMBER_MAX, "there is no such number")
            found = self.snapshot(tag, number) if counts(self.kept(tag), number) else None
        if found is None:
            raise Missing(f"there is no such snapshot of {series}")
        return found

    def latest(self, tag, time):
        """The snapshot of the highest place: what gives another back stands in that one's place."""
        latest, place = None, 0
        for found in self.snapshots(tag):
            if latest is None and time is not None and found.time > time:
                continue
            if found.number < place:
                break
            at = found.origin[0] if found.origin else found.number
            if found.origin is None and found.number >= place:
                return found
            if latest is None or at > place:
                latest, place = found, at
        return latest

    # ---- Trees (section 9)

    def tree(self, snapshot):
        """All (key, entry) pairs of a snapshot, in order."""
        for pack, length, footer_len in snapshot.packs:
            self.recent.setdefault(pack, (length, footer_len))
        return self.entries(snapshot.root)

    def entries(self, node_id, level=None, first=None, upper=None, count=None):
        """All (key, entry) pairs in or below a node, which is checked against what its parent says."""
        values = Values(self.blob(node_id, True))
        form = values.u8()
        must(form <= LEVEL_MAX and level in (None, form), "a node of another level")
        if form == 0:
            items = values.list(lambda: self.item(values))
            total = len(items)
        else:
            items = values.list(lambda: (self.key(values), values.raw(20), values.u64()))
            must(items and all(item[2] for item in items), "an inner node without children")
            total = sum(item[2] for item in items)
        values.end()
        must(total <= FULL, "numbers of entries overflow")
        keys = [item[0] for item in items]
        must(ascending(keys), "keys out of order")
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
        must(len(key) <= KEY_MAX and not any(n in (b"", b".", b"..") or b"/" in n for n in names), "an impossible key")
        return key

    def item(self, values):
        start = values.at
        item = self.key(values), self.entry(values)
        must(values.at - start <= ENTRY_MAX, "an entry is too long")
        return item

    def entry(self, values):
        kind = values.u32()
        if kind > 6:
            return Entry(f"kind{kind}?", 0, ("inline", values.bytes()), ("inline", b""))
        if kind >= 5:
            values.u32(), values.u32()
        size, content, metadata = values.u64(), self.payload(values), self.payload(values)
        must(size == self.length(content) and not (kind == 2 and size > LINK_MAX), "an entry's size")
        return Entry(["file", "folder", "symlink", "fifo", "socket", "char", "block"][kind], size, content, metadata)

    def payload(self, values):
        form = values.enum(3)
        if form == 0:
            return "inline", values.bytes()
        if form == 1:
            return "pieces", self.pieces(values)
        root, length, height = values.raw(20), values.u64(), values.u8()
        must(length and height <= LEVEL_MAX, "a sequence's length or height")
        return "sequence", (root, length, height)

    @staticmethod
    def pieces(values):
        def piece():
            kind = values.enum(2)
            id, length = (values.raw(20), values.u32()) if kind == 0 else (None, values.u64())
            repeat = values.u32() if kind == 0 else 1
            must(length and repeat, "an empty piece")
            must(kind == 1 or length <= BLOB_MAX, "a chunk is too long")
            return id, length, repeat
        pieces = values.list(piece)
        must(pieces, "no pieces")
        for (id, length, repeat), (next_id, next_length, _) in zip(pieces, pieces[1:]):
            if id is None:
                must(next_id is not None or length == FULL, "two holes should be one")
            else:
                must((id, length) != (next_id, next_length) or repeat == (1 << 32) - 1, "two pieces should be one")
        must(sum(length * repeat for _, length, repeat in pieces) <= FULL, "lengths overflow")
        return pieces

    @staticmethod
    def length(payload):
        form, value = payload
        return len(value) if form == "inline" else value[1] if form == "sequence" else sum(l * r for _, l, r in value)

    def content(self, payload):
        for part in self.parts(payload):
            if isinstance(part, int):
                yield from (bytes(min(part - at, 1 << 20)) for at in range(0, part, 1 << 20))
            else:
                yield part

    def parts(self, payload):
        """The bytes of a payload in order, and as a number the lengths of holes, which may be very long."""
        form, value = payload
        if form == "inline":
            yield value
            return
        for id, length, repeat in value if form == "pieces" else self.sequence(value[0], value[1], value[2]):
            if id is None:
                yield length
            else:
                chunk = self.blob(id, False)
                must(len(chunk) == length, "a chunk's length")
                yield from (chunk for _ in range(repeat))

    def sequence(self, node_id, length, level):
        values = Values(self.blob(node_id, True))
        must(values.u8() == 128 + level, "a node of another level")
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

    def metadata(self, entry):
        """The `links` of an entry's metadata, which is checked by R40; None if there are none."""
        must(self.length(entry.metadata) <= METADATA_MAX, "metadata is too long")
        data = b"".join(self.content(entry.metadata))
        if not data:
            return None
        v = Values(data)
        stamp = lambda: (v.i64(), v.u32())

        def posix():
            mode, uid, gid, user, group = v.u32(), v.u32(), v.u32(), v.option(v.string), v.option(v.string)
            times, _inode, links = [stamp(), stamp()], v.u64(), v.option(lambda: (v.u64(), v.u64()))
            names = [name for name, _ in v.list(lambda: (v.bytes(), v.bytes()))]
            must(mode <= 0o7777 and max(uid, gid) < (1 << 32) - 1, "a mode or owner")
            must("\0" not in (user or "") + (group or ""), "an owner's name")
            must(all(nanos < 10 ** 9 for _, nanos in times), "a time")
            must(all(name and b"\0" not in name for name in names) and ascending(names), "extended attributes")
            return links
        links, modified, _type = v.option(posix), v.option(stamp), v.option(v.string)
        names = [name.encode() for name, _ in v.list(lambda: (v.string(), v.bytes()))]
        v.extensions()
        v.end()
        must(modified is None or modified[1] < 10 ** 9, "a time")
        must(all(names) and ascending(names), "attributes")
        v.require_known()
        return links

    # ---- Checking single objects, those among them that readers ignore

    def verify(self, name):
        """Checks all that can be seen of one object alone."""
        parts = name.split("/")
        if name == "config":
            pass  # It was checked when the repository was opened.
        elif re.fullmatch(f"keys/{HASH}", name):
            self.read_slot(bytes.fromhex(parts[1]))
        elif re.fullmatch(f"keys/roster-{NUMBER}-{ID}", name) and is_number(name[12:27]):
            self.read_roster(name)
        elif re.fullmatch(f"packs/[0-9a-f]{{2}}/{HASH}", name) and parts[2].startswith(parts[1]):
            self.verify_pack(bytes.fromhex(parts[2]))
        elif re.fullmatch(f"index/{HASH}", name):
            self.read_segment(name)
        elif (re.fullmatch(f"commits/{ID}/[0-9]{{12}}/{NUMBER}", name)
              and int(parts[2]) == int(parts[3]) // 1000 and is_number(parts[3])):
            self.verify_snapshot(parts[1], int(parts[3]))
        elif re.fullmatch(f"kept/{ID}/{NUMBER}", name) and is_number(parts[2]):
            self.read_list(parts[1], int(parts[2]))
        elif re.fullmatch(f"gc/{NUMBER}(-ended)?", name) and is_number(parts[1][:15]):
            self.verify_collection(name, int(parts[1][:15]), name.endswith("-ended"))
        elif re.fullmatch(f"writers/{ID}", name):
            self.registration(name)
        elif re.fullmatch(f"writers/{ID}-ended", name):
            ending = self.registration(name[:-6])
            token, _ = self.record(name, REGISTRATION_END, lambda v: v.raw(32))
            if blake3(token).digest() != ending:
                raise Unsigned(f"{name} isn't by the writer that registered")
        elif not re.fullmatch(f"probes/{ID}", name):
            raise Foreign(f"{name} isn't a name of ours")

    def verify_snapshot(self, tag, number):
        """A record, and, if they can be read, its tree's entries (R28), and the record before (R29, R30)."""
        record, kept = self.read_snapshot(tag, number), self.kept(tag)
        if record.root and counts(kept, number):
            try:
                entries = sum(1 for _ in self.tree(record))
            except Unusable:
                entries = record.entries
            must(entries == record.entries, "a record states another number of entries than its tree has")
        try:
            before = self.read_snapshot(tag, number - 1) if number > 1 and counts(kept, number - 1) else None
        except Unusable:
            return
        if before and counts(kept, number):
            must(record.predecessor == before.hash, "a record names another predecessor than there is")
            must(record.time > before.time, "a record is no later than its predecessor")

    def registration(self, name):
        decode = lambda v: (v.string(), v.u64(), v.i64(), v.string(), v.u64(), v.raw(32))
        (series, *_, ending), _ = self.record(name, REGISTRATION, decode)
        must(sound_series(series), "a registration for a series that there can't be")
        return ending

    def verify_collection(self, name, number, is_end):
        def decode(v):
            numbers = lambda: (v.raw(16), v.runs())
            stated, _time, ended, ids, sorted_pairs, lists = v.u64(), v.i64(), v.enum(2), [], [], []
            if not ended:
                v.enum(3)
                ids = [v.list(lambda: v.raw(32)), v.list(lambda: v.raw(32))]
                lists = v.list(numbers)
                sorted_pairs = [tag for tag, _ in v.list(lambda: (v.raw(16), v.u64()))]
                registered = v.option(lambda: v.list(lambda: (v.raw(16), v.u64())))
                ids.append([writer for writer, _ in registered or []])
            lists = lists + v.list(numbers)
            ids.append(v.list(lambda: v.raw(16)))
            return stated, bool(ended), ids, sorted_pairs, lists
        (stated, ended, ids, tags, lists), _ = self.record(name, COLLECTION, decode, signed=True)
        must(stated == number and ended == is_end, f"{name} says something else than its name")
        must(all(map(ascending, ids)) and ascending(tags), "a collection isn't in order")
        must(all(1 <= first <= last for _, runs in lists for first, last in runs), "a collection's runs")

    def verify_pack(self, pack):
        _, _, blocks = self.read_footer(pack)
        for place, blobs in blocks:
            plain, at = self.block(place), 0
            for blob, size in blobs:
                key = self.keyring.node_id if place.nodes else self.keyring.chunk_id
                must(keyed(key, plain[at:at + size], 20) == blob, "a blob's id")
                at += size
            if place.nodes:
                self.verify_hints(plain[at:])

    @staticmethod
    def verify_hints(data):
        """R23."""
        must(len(data) >= 4 and struct.unpack("<I", data[-4:])[0] == len(data) - 4, "the length of hints")
        v = Values(data[:-4])
        packs = v.list(lambda: v.raw(32))
        blocks = v.list(lambda: (v.u32(), v.enum(2), [v.u32() for _ in range(4)]))
        nodes = v.list(lambda: (v.u32(), v.list(lambda: (v.u32(), v.u32(), v.u32()))))
        v.end()
        must(all(pack <= len(packs) for pack, *_ in blocks), "a hint's pack")
        must(all(block <= len(blocks) + 1 for _, children in nodes for block, _, _ in children), "a hint's block")
        must(ascending([at for at, _ in nodes]), "hints out of order")

    def objects(self):
        for folder, _, files in sorted(os.walk(self.folder)):
            for file in sorted(files):
                yield os.path.relpath(os.path.join(folder, file), self.folder)


# ---- Restoring (section 19)

class Extraction:
    """Writes a snapshot's entries below a folder, never following a symlink, and says what it had to refuse."""

    def __init__(self, repository, destination):
        self.repository, self.failures, self.linked, self.blocked = repository, {}, {}, set()
        os.makedirs(destination, exist_ok=True)
        self.root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY)

    def fail(self, key, why):
        self.failures[key] = why
        print(f"skipped {os.fsdecode(key.replace(bytes(1), b'/'))}: {why}", file=sys.stderr)

    def parent(self, names):
        """The folder in which a name goes; those that are missing are made (R48), and links aren't followed (R50)."""
        folder = os.dup(self.root)
        for name in names:
            try:
                os.mkdir(name, 0o700, dir_fd=folder)
            except FileExistsError:
                pass
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        return folder

    def put(self, key, entry):
        names = key.split(b"\0")
        if any(b"\0".join(names[:depth]) in self.blocked for depth in range(1, len(names))):
            return self.fail(key, "it is below something that is no folder")
        if entry.kind != "folder":
            self.blocked.add(key)  # R49
        if entry.kind.endswith("?"):
            return self.fail(key, f"an entry of unknown {entry.kind[:-1]}, needs a newer reader")
        try:
            try:
                links = self.repository.metadata(entry)
            except Unusable as error:
                links = None
                self.fail(key, f"its metadata: {error}")
            folder = self.parent(names[:-1])
            try:
                self.create(folder, names[-1], key, entry, links)
            finally:
                os.close(folder)
        except (Unusable, OSError, ValueError) as error:
            self.fail(key, error)

    def create(self, folder, name, key, entry, links):
        if entry.kind == "folder":
            os.close(self.parent(key.split(b"\0")))
        elif entry.kind == "symlink":
            os.symlink(b"".join(self.repository.content(entry.content)), name, dir_fd=folder)
        elif entry.kind == "file" and links in self.linked and self.linked[links][1] == entry.content:
            first = self.linked[links][0].split(b"\0")
            from_folder = self.parent(first[:-1])
            os.link(first[-1], name, src_dir_fd=from_folder, dst_dir_fd=folder, follow_symlinks=False)
            os.close(from_folder)
        elif entry.kind == "file":
            try:
                descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
                with open(descriptor, "wb") as file:
                    for part in self.repository.parts(entry.content):
                        file.seek(part, os.SEEK_CUR) if isinstance(part, int) else file.write(part)
                    file.truncate()
            except (Unusable, OSError, ValueError) as error:
                if not isinstance(error, FileExistsError):
                    os.unlink(name, dir_fd=folder)  # R53
                raise
            if links is not None:
                self.linked.setdefault(links, (key, entry.content))
        else:
            print(f"left out {os.fsdecode(key.replace(bytes(1), b'/'))}: a {entry.kind}", file=sys.stderr)


def extract(repository, snapshot, destination):
    """Restores a snapshot; the keys that couldn't be restored, or not wholly, and why."""
    extraction = Extraction(repository, destination)
    try:
        for key, entry in repository.tree(snapshot):
            extraction.put(key, entry)
    finally:
        os.close(extraction.root)
    return extraction.failures


def show(repository):
    for tag in repository.names("commits", ID):
        for s in reversed(list(repository.snapshots(tag))):
            print(f"{s.series}#{s.number} {s.time / 1e9:.0f} {s.entries} entries, {s.failures} failures {s.tags}")


def verify(repository):
    """Checks every object by itself; how many can't be used."""
    bad = 0
    for name in repository.objects():
        try:
            repository.verify(name)
        except (Foreign, Unsigned) as error:
            print(error)
        except Unusable as error:
            print(f"{name}: {type(error).__name__.lower()}: {error}")
            bad += 1
    return bad


def main(folder, secret, command, *arguments):
    kind, _, file = secret.partition(":")
    with open(file, "rb") as opened:
        secret = (kind, opened.read().rstrip(b"\n") if kind == "passphrase" else opened.read())
    left_out = False
    try:
        repository = Repository(folder, secret)
        if command == "snapshots":
            show(repository)
        elif command == "verify":
            left_out = verify(repository)
        else:
            snapshot = repository.find(*arguments[:2])
            if command == "extract":
                left_out = extract(repository, snapshot, arguments[2])
            else:
                for key, entry in repository.tree(snapshot):
                    target = b" -> " + b"".join(repository.content(entry.content)) if entry.kind == "symlink" else b""
                    line = f"{entry.kind:8} {entry.size:12} ".encode() + key.replace(b"\0", b"/") + target
                    sys.stdout.buffer.write(line + b"\n")
                    left_out |= entry.kind.endswith("?")
    except (Unusable, WrongSecret) as error:
        print(f"{type(error).__name__.lower()}: {error}", file=sys.stderr)
        return 1
    return 3 if left_out or repository.aside else 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))
