//! Makes objects byte by byte, from docs/format.md and not with the library, so that wrong ones can be made as well:
//! every value is put together by hand, and is sealed, signed and hashed as if it were right.
//!
//! Invariant: the same calls make the same bytes. What should be random follows from what it is for.

use std::convert::Infallible;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeS, Serializable, single_shot_seal_with_rng};

pub(crate) const PACK: u8 = 3;
pub(crate) const INDEX: u8 = 4;
pub(crate) const REGISTRATION: u8 = 5;
pub(crate) const SNAPSHOT: u8 = 6;
pub(crate) const COLLECTION: u8 = 7;
pub(crate) const LIST: u8 = 8;
pub(crate) const REGISTRATION_END: u8 = 9;

pub(crate) type Id = [u8; 20];

/// Bytes that look random, and follow from what they are for.
pub(crate) fn random<const N: usize>(what: impl AsRef<[u8]>) -> [u8; N] {
    let mut bytes = [0; N];
    blake3::Hasher::new().update(b"test vectors ").update(what.as_ref()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Many of them.
pub(crate) fn noise(what: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"noise ").update(what.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn derive(context: &str, secret: &[u8]) -> [u8; 32] {
    blake3::derive_key(&format!("backstop v1 {context}"), secret)
}

fn keyed<const N: usize>(key: &[u8; 32], data: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&blake3::keyed_hash(key, data).as_bytes()[..N]);
    first
}

fn seal(key: &[u8; 32], nonce: [u8; NONCE_LEN], associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut message = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(associated), &mut message).unwrap();
    message
}

/// A value under way (section 3).
#[derive(Clone, Debug, Default)]
pub(crate) struct Value(pub(crate) Vec<u8>);

impl Value {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// A number; an enum's variant, a list's length and a bool as well.
    pub(crate) fn n(self, number: u64) -> Self {
        match number {
            0..251 => self.raw([number as u8]),
            251..0x1_0000 => self.raw([251]).raw((number as u16).to_le_bytes()),
            0x1_0000..0x1_0000_0000 => self.raw([252]).raw((number as u32).to_le_bytes()),
            _ => self.raw([253]).raw(number.to_le_bytes()),
        }
    }

    pub(crate) fn i(self, number: i64) -> Self {
        self.n(((number << 1) ^ (number >> 63)) as u64)
    }

    pub(crate) fn bytes(self, bytes: impl AsRef<[u8]>) -> Self {
        self.n(bytes.as_ref().len() as u64).raw(bytes)
    }

    pub(crate) fn list<T>(self, items: impl IntoIterator<Item = T>, item: impl Fn(Self, T) -> Self) -> Self {
        let items: Vec<T> = items.into_iter().collect();
        let count = items.len() as u64;
        items.into_iter().fold(self.n(count), item)
    }

    pub(crate) fn option<T>(self, value: Option<T>, item: impl Fn(Self, T) -> Self) -> Self {
        match value {
            Some(value) => item(self.n(1), value),
            None => self.n(0),
        }
    }

    pub(crate) fn numbers(self, numbers: impl IntoIterator<Item = u64>) -> Self {
        numbers.into_iter().fold(self, Self::n)
    }

    pub(crate) fn pairs(self, pairs: &[(u64, u64)]) -> Self {
        self.list(pairs, |value, (a, b)| value.n(*a).n(*b))
    }

    pub(crate) fn extensions(self, extensions: &[(u64, &str)]) -> Self {
        self.list(extensions, |value, (number, bytes)| value.n(*number).bytes(bytes))
    }
}

pub(crate) fn padded(length: usize) -> usize {
    let Some(exponent) = length.checked_ilog2().filter(|exponent| *exponent > 0) else { return length };
    let mask = (1usize << (exponent - exponent.ilog2() - 1)) - 1;
    (length + mask) & !mask
}

/// The secrets of a repository (section 5).
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) identity: [u8; 32],
    pub(crate) sealing: Vec<(u32, [u8; 32])>,
    pub(crate) seed: [u8; 32],
    /// The generation that objects are sealed under.
    pub(crate) generation: u32,
    /// The name of the signer, where it isn't the administrator.
    pub(crate) signer: [u8; 32],
}

impl Keys {
    pub(crate) fn new(generations: u32) -> Self {
        let sealing = (0..generations).map(|generation| (generation, random(format!("sealing {generation}"))));
        let seed = random("administrator");
        Self { identity: random("identity"), sealing: sealing.collect(), seed, generation: 0, signer: seed }
    }

    pub(crate) fn under(&self, generation: u32) -> Self {
        Self { generation, ..self.clone() }
    }

    /// The same, signing as somebody else.
    pub(crate) fn forging(&self) -> Self {
        Self { signer: random("a forger"), ..self.clone() }
    }

    pub(crate) fn administrator(&self) -> [u8; 32] {
        public(&self.seed)
    }

    pub(crate) fn keyring(&self, append_only: bool) -> Value {
        Value::new()
            .raw(self.identity)
            .list(&self.sealing, |value, (generation, key)| value.n(u64::from(*generation)).raw(key))
            .option((!append_only).then_some(self.seed), Value::raw)
            .raw(self.administrator())
    }

    pub(crate) fn tag(&self, series: &str) -> String {
        hex(&keyed::<16>(&derive("series tag", &self.identity), series.as_bytes()))
    }

    pub(crate) fn chunk(&self, bytes: &[u8]) -> Id {
        keyed(&derive("chunk id", &self.identity), bytes)
    }

    pub(crate) fn node(&self, bytes: &[u8]) -> Id {
        keyed(&derive("node id", &self.identity), bytes)
    }

    /// H(form, content) of section 12.
    pub(crate) fn cut(&self, form: u8, content: &[u8]) -> u64 {
        let hash = keyed::<8>(&derive("tree cuts", &self.identity), &[&[form], content].concat());
        u64::from_le_bytes(hash)
    }

    pub(crate) fn mac(&self, config: &[u8]) -> [u8; 32] {
        keyed(&derive("config authentication", &self.identity), config)
    }

    pub(crate) fn roster_tag(&self, number: u64) -> String {
        hex(&keyed::<16>(&derive("roster name", &self.seed), &number.to_le_bytes()))
    }

    pub(crate) fn secret(&self) -> [u8; 32] {
        self.sealing.iter().find(|(generation, _)| *generation == self.generation).map_or([9; 32], |(_, key)| *key)
    }

    pub(crate) fn sealer(&self, kind: u8, what: &[u8]) -> Sealer {
        let domain = if matches!(kind, PACK | INDEX) { "seal data" } else { "seal records" };
        let salt = random::<32>([b"salt ", what].concat());
        let key = keyed::<32>(&derive(domain, &self.secret()), &[&salt[..], &[kind]].concat());
        Sealer { kind, generation: self.generation, salt, key }
    }

    pub(crate) fn sign(&self, kind: u8, name: &str, said: &[u8]) -> Vec<u8> {
        let message = [b"backstop v1 administrator", &[kind][..], &hash(name.as_bytes()), said].concat();
        Ed25519KeyPair::from_seed_unchecked(&self.signer).unwrap().sign(&message).as_ref().to_vec()
    }

    /// A record object whose value is right in form.
    pub(crate) fn record(&self, kind: u8, name: &str, value: &Value) -> Vec<u8> {
        self.record_as(kind, name, &pad(value.0.clone(), 94))
    }

    /// One with a signature.
    pub(crate) fn signed(&self, kind: u8, name: &str, value: &Value) -> Vec<u8> {
        let signature = self.sign(kind, name, &value.0);
        self.record(kind, name, &value.clone().raw(signature))
    }

    /// One with this plaintext.
    pub(crate) fn record_as(&self, kind: u8, name: &str, plain: &[u8]) -> Vec<u8> {
        let sealer = self.sealer(kind, &[name.as_bytes(), plain].concat());
        trailed([sealer.header(), sealer.seal(0, 0, name, plain)].concat())
    }

    /// The history of a roster: all generations but the newest, sealed under that.
    pub(crate) fn history(&self, context: &[u8]) -> Vec<u8> {
        let (newest, older) = self.sealing.split_last().unwrap();
        let older = Value::new().list(older, |value, (generation, key)| value.n(u64::from(*generation)).raw(key));
        seal(&derive("key history", &newest.1), [0; NONCE_LEN], context, &older.0)
    }
}

pub(crate) fn public(seed: &[u8; 32]) -> [u8; 32] {
    Ed25519KeyPair::from_seed_unchecked(seed).unwrap().public_key().as_ref().try_into().unwrap()
}

/// Zeros behind a message, whose object has so many bytes beside it.
pub(crate) fn pad(mut message: Vec<u8>, beside: usize) -> Vec<u8> {
    let length = padded(message.len() + beside) - beside;
    message.resize(length, 0);
    message
}

/// With the hash at the end.
pub(crate) fn trailed(bytes: Vec<u8>) -> Vec<u8> {
    let trailer = hash(&bytes);
    [bytes, trailer.to_vec()].concat()
}

/// The same with something changed in front of the hash at its end.
pub(crate) fn retrailed(mut object: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    object.truncate(object.len() - 32);
    change(&mut object);
    trailed(object)
}

/// Seals the messages of one object (section 6).
pub(crate) struct Sealer {
    kind: u8,
    pub(crate) generation: u32,
    pub(crate) salt: [u8; 32],
    key: [u8; 32],
}

impl Sealer {
    pub(crate) fn header(&self) -> Vec<u8> {
        [b"backstop\x01", &[self.kind][..], &self.generation.to_le_bytes(), &self.salt].concat()
    }

    pub(crate) fn seal(&self, number: u32, part: u8, name: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&number.to_le_bytes());
        seal(&self.key, nonce, &[&[self.kind, part], name.as_bytes()].concat(), plain)
    }
}

/// What a slot opens with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unlock {
    Raw([u8; 32]),
    /// A passphrase, with memory in KiB, passes and lanes.
    Passphrase(&'static str, u32, u32, u32),
    /// Something of a later version.
    Newer(u64),
}

impl Unlock {
    fn kdf(self) -> (u64, Value) {
        match self {
            Unlock::Raw(_) => (1, Value::new()),
            Unlock::Passphrase(_, memory, passes, lanes) => {
                (0, Value::new().numbers([memory, passes, lanes].map(u64::from)))
            }
            Unlock::Newer(number) => (number, Value::new()),
        }
    }

    fn wrapping_key(self, salt: &[u8; 32]) -> [u8; 32] {
        match self {
            Unlock::Raw(key) => keyed(&derive("raw key slot", &key), salt),
            Unlock::Passphrase(passphrase, memory, passes, lanes) => {
                let known = argon2::Params::new(memory, passes, lanes, Some(32)).ok();
                // What no reader tries needs no key.
                let Some(parameters) = known.filter(|_| memory <= 1024) else { return [0; 32] };
                let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
                let mut key = [0; 32];
                argon.hash_password_into(passphrase.as_bytes(), salt, &mut key).unwrap();
                key
            }
            Unlock::Newer(_) => [0; 32],
        }
    }
}

/// A key slot, before it is sealed.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) repository: [u8; 16],
    pub(crate) label: &'static str,
    pub(crate) append_only: bool,
    pub(crate) unlock: Unlock,
    /// What it says that its public key is that of.
    pub(crate) stated_key: [u8; 32],
    pub(crate) key: [u8; 32],
    pub(crate) keyring: Value,
    pub(crate) extensions: Vec<(u64, &'static str)>,
}

impl Slot {
    pub(crate) fn new(keys: &Keys, label: &'static str, append_only: bool, unlock: Unlock) -> Self {
        let key = random(format!("slot {label}"));
        let (repository, stated_key, keyring) = (random("repository"), key, keys.keyring(append_only));
        Self { repository, label, append_only, unlock, stated_key, key, keyring, extensions: Vec::new() }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        x25519_public(&self.stated_key)
    }

    pub(crate) fn object(&self) -> Vec<u8> {
        let salt = random(format!("salt of slot {} {:?}", self.label, self.unlock));
        let (kdf, parameters) = self.unlock.kdf();
        let about = Value::new()
            .raw(self.repository)
            .bytes(self.label)
            .i(super::good::CREATED)
            .n(u64::from(self.append_only))
            .raw(self.public())
            .n(kdf)
            .bytes(&parameters.0)
            .raw(salt)
            .extensions(&self.extensions);
        let plain = [&self.key[..], &self.keyring.0].concat();
        let sealed = seal(&self.unlock.wrapping_key(&salt), [0; NONCE_LEN], &about.0, &plain);
        [b"backstop\x01\x02".to_vec(), about.bytes(sealed).0].concat()
    }

    pub(crate) fn id(&self) -> [u8; 32] {
        hash(&self.object())
    }

    pub(crate) fn name(&self) -> String {
        format!("keys/{}", hex(&self.id()))
    }
}

fn x25519_public(key: &[u8; 32]) -> [u8; 32] {
    let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(key).unwrap();
    let mut public = [0; 32];
    X25519HkdfSha256::sk_to_pk(&private).write_exact(&mut public);
    public
}

/// What a roster grants to a slot: the encapsulated key, then the sealed one.
pub(crate) fn grant(secret: &[u8; 32], public: &[u8; 32], context: &[u8]) -> Vec<u8> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public).unwrap();
    let (mode, info) = (OpModeS::<X25519HkdfSha256>::Base, b"backstop v1 key generation");
    let (key, message) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &mode,
        &public,
        info,
        secret,
        context,
        &mut Once(random([b"grant ", context].concat())),
    )
    .unwrap();
    let mut encapsulated = vec![0; 32];
    key.write_exact(&mut encapsulated);
    [encapsulated, message].concat()
}

/// Randomness for HPKE that is the same each time.
struct Once([u8; 32]);

impl TryRng for Once {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(7)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(7)
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Infallible> {
        buffer.iter_mut().zip(self.0.iter().cycle()).for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

impl TryCryptoRng for Once {}
