//! What stored objects have in common: a header, and for small records the whole envelope.
//!
//! ```text
//! header    0  magic "backstop"
//!           8  format version, 1
//!           9  kind (crypto::Kind)
//!          10  key generation, u32
//!          14  salt, 32 bytes
//! record   46  one message sealed under number 0, part Body, with the object's full name:
//!              the encoded value, then zeros so that the whole object has a length that Padmé allows
//!          -32 BLAKE3 of everything before it, so that damage is told from forgery without a key
//! signed    a record whose value is followed by the administrator's signature, 64 bytes
//! ```
//! The envelope is fixed for ever: magic, version and kind in front, and a hash
//! of everything, at the end or in the name. Whoever has all of the bytes checks
//! the hash first: an object whose hash doesn't fit is damaged, however new it
//! looks, and one whose hash fits and whose version or kind isn't known needs a
//! newer version of this library ([`Error::Unsupported`]). Whoever has a part of
//! an object alone can't tell these apart ([`in_part`]).
//!
//! Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
//! Communication with PURBs", PETS 2019) leaves at most O(log log n) bits of the
//! length and costs at most 12 %.

use crate::clock::Surroundings;
use crate::codec::{self, Decode, Encode, Extended, Extensions};
use crate::crypto::{Keyring, Kind, Opener, Part, PublicKey, SALT_LEN, Salt, Sealer, Signature, TAG_LEN, is_signed};
use crate::error::{Error, Result};
use crate::id::ObjectId;

/// The format this build reads and writes.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// Every object begins with these bytes.
pub(crate) const MAGIC: &[u8; 8] = b"backstop";

/// Length of a header in bytes.
pub(crate) const HEADER_LEN: usize = 14 + SALT_LEN;

/// Length of the plain BLAKE3 that ends what isn't named by its hash.
pub(crate) const TRAILER_LEN: usize = 32;

/// Length of the administrator's signature.
const SIGNATURE_LEN: usize = 64;

/// What every signed message begins with.
const SIGNED: &[u8] = b"backstop v1 administrator";

/// The longest record there can be.
pub(crate) const RECORD_MAX: u64 = 16 << 20;

/// The first bytes of every object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) generation: u32,
    pub(crate) salt: Salt,
}

impl Header {
    /// The header of an object that `sealer` seals.
    pub(crate) fn of(sealer: &Sealer) -> Self {
        Self { kind: sealer.kind(), generation: sealer.generation(), salt: *sealer.salt() }
    }

    /// Appends the header to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_magic(self.kind, out);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.salt);
    }

    /// Reads the header of an object that must be of `kind`, and returns what follows it.
    pub(crate) fn read<'a>(bytes: &'a [u8], kind: Kind, object: &str) -> Result<(Self, &'a [u8])> {
        let rest = read_magic(bytes, kind, object)?;
        let (generation, rest) = rest.split_first_chunk::<4>().ok_or_else(|| too_short(object))?;
        let (salt, rest) = rest.split_first_chunk::<SALT_LEN>().ok_or_else(|| too_short(object))?;
        Ok((Self { kind, generation: u32::from_le_bytes(*generation), salt: *salt }, rest))
    }

    /// The key of the object's messages.
    pub(crate) fn opener(&self, keyring: &Keyring, object: &str) -> Result<Opener> {
        keyring.opener(self.kind, self.generation, &self.salt, object)
    }
}

/// Appends the magic, the format version and the kind.
pub(crate) fn write_magic(kind: Kind, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[FORMAT_VERSION, kind as u8]);
}

/// Checks the magic, the format version and the kind, and returns what follows them. The object's hash was checked
/// before; where it can't be, see [`in_part`] and [`if_whole`].
pub(crate) fn read_magic<'a>(bytes: &'a [u8], kind: Kind, object: &str) -> Result<&'a [u8]> {
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| Error::corrupt(object, "it doesn't begin like one of ours"))?;
    let ([version, found], rest) = rest.split_first_chunk::<2>().ok_or_else(|| too_short(object))?;
    if *version != FORMAT_VERSION {
        return Err(Error::unsupported(
            object,
            format!("it has format version {version}, and this build knows version {FORMAT_VERSION}"),
        ));
    }
    match Kind::from_number(*found) {
        Some(found) if found == kind => Ok(rest),
        None => {
            let reason = format!("it is an object of kind {found}, which this build doesn't know");
            Err(Error::unsupported(object, reason))
        }
        Some(_) => Err(Error::corrupt(object, format!("it is an object of kind {found}, not {}", kind as u8))),
    }
}

/// What is to be said of an object of which only a part was read, so that its hash can't be checked.
pub(crate) fn in_part(error: Error) -> Error {
    match error {
        Error::Unsupported { object, reason } => {
            let reason =
                format!("{reason}, unless it is damaged: reading all of it, as a full check does, tells which");
            Error::Unsupported { object, reason }
        }
        other => other,
    }
}

/// What is to be said of an object that is named by its hash and was read whole: what doesn't hash to its name is
/// damaged, however new it looks.
pub(crate) fn if_whole(error: Error, bytes: &[u8], id: &ObjectId, object: &str) -> Error {
    match error {
        Error::Unsupported { .. } => verify_id(bytes, id, object).err().unwrap_or(error),
        other => other,
    }
}

/// Says that an object ends too early.
pub(crate) fn too_short(object: &str) -> Error {
    Error::corrupt(object, "it ends too early")
}

/// The name of an object that is named by its hash.
pub(crate) fn object_id(bytes: &[u8]) -> ObjectId {
    ObjectId::new(*blake3::hash(bytes).as_bytes())
}

/// Checks that an object's bytes hash to its name.
pub(crate) fn verify_id(bytes: &[u8], id: &ObjectId, object: &str) -> Result<()> {
    if object_id(bytes) == *id { Ok(()) } else { Err(Error::corrupt(object, "its bytes don't hash to its name")) }
}

/// Appends the plain hash of what is there.
pub(crate) fn write_trailer(out: &mut Vec<u8>) {
    let hash = blake3::hash(out);
    out.extend_from_slice(hash.as_bytes());
}

/// Checks the plain hash at the end and cuts it off.
pub(crate) fn strip_trailer<'a>(bytes: &'a [u8], object: &str) -> Result<&'a [u8]> {
    let (body, trailer) = bytes.split_last_chunk::<TRAILER_LEN>().ok_or_else(|| too_short(object))?;
    if blake3::hash(body) == *trailer {
        Ok(body)
    } else {
        Err(Error::corrupt(object, "its bytes don't match the hash at its end"))
    }
}

/// The smallest length that Padmé allows for an object of at least `length` bytes.
pub(crate) fn padded_length(length: u64) -> u64 {
    let Some(exponent) = length.checked_ilog2().filter(|exponent| *exponent > 0) else {
        return length;
    };
    let free_bits = exponent - (exponent.ilog2() + 1);
    let mask = (1u64 << free_bits) - 1;
    length.saturating_add(mask) & !mask
}

/// Appends zeros to a message so that its object of `length` bytes without them gets an allowed length.
pub(crate) fn pad(message: &mut Vec<u8>, length: usize) {
    let padding = padded_length(length as u64) - length as u64;
    #[expect(clippy::cast_possible_truncation, reason = "less than an eighth of a length in memory")]
    message.resize(message.len() + padding as usize, 0);
}

/// Checks that what follows a padded message's value is exactly the padding that [`pad`] adds.
pub(crate) fn check_padding(padding: &[u8], length: usize, object: &str) -> Result<()> {
    let unpadded = (length as u64).saturating_sub(padding.len() as u64);
    if padding.iter().all(|byte| *byte == 0) && padded_length(unpadded) == length as u64 {
        Ok(())
    } else {
        Err(Error::corrupt(object, "its padding is wrong"))
    }
}

/// Seals `value` as the record named `name`.
pub(crate) fn seal_record<T: Encode>(
    value: &T,
    kind: Kind,
    name: &str,
    keyring: &Keyring,
    surroundings: &Surroundings,
) -> Result<Vec<u8>> {
    let mut sealer = keyring.sealer(kind, surroundings);
    let mut message = codec::encode(value);
    let length = HEADER_LEN + message.len() + TAG_LEN + TRAILER_LEN;
    pad(&mut message, length);
    sealer.seal(Part::Body, name, &mut message)?;
    let mut out = Vec::with_capacity(HEADER_LEN + message.len() + TRAILER_LEN);
    Header::of(&sealer).write(&mut out);
    out.extend_from_slice(&message);
    write_trailer(&mut out);
    Ok(out)
}

/// A value for which the administrator vouches.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Signed<T> {
    value: T,
    signature: Signature,
}

impl<T: Extended> Extended for Signed<T> {
    fn extensions(&self) -> &Extensions {
        self.value.extensions()
    }
}

/// What is signed: the value, and what keeps it from standing in for another.
fn signed_message<T: Encode>(value: &T, kind: Kind, name: &str) -> Vec<u8> {
    let mut message = SIGNED.to_vec();
    message.push(kind as u8);
    message.extend_from_slice(blake3::hash(name.as_bytes()).as_bytes());
    codec::encode_into(value, &mut message);
    message
}

/// Seals `value` as the record named `name`, signed by the administrator.
pub(crate) fn seal_signed<T: Encode + Clone>(
    value: &T,
    kind: Kind,
    name: &str,
    keyring: &Keyring,
    surroundings: &Surroundings,
) -> Result<Vec<u8>> {
    let signature = keyring.sign(&signed_message(value, kind, name))?;
    seal_record(&Signed { value: value.clone(), signature }, kind, name, keyring, surroundings)
}

/// Seals `value` under the keys of `keyring`, signed by another's administrator.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "tests and fuzzers alone forge, with keys that can sign")]
pub(crate) fn forge_signed<T: Encode + Clone>(
    value: &T,
    kind: Kind,
    name: &str,
    keyring: &Keyring,
    forger: &Keyring,
    surroundings: &Surroundings,
) -> Vec<u8> {
    let signature = forger.sign(&signed_message(value, kind, name)).unwrap();
    seal_record(&Signed { value: value.clone(), signature }, kind, name, keyring, surroundings).unwrap()
}

/// Opens the record named `name`; nothing if it is sound, but not the administrator's.
pub(crate) fn open_signed<T: Encode + Decode<()> + Extended>(
    bytes: &[u8],
    kind: Kind,
    name: &str,
    keyring: &Keyring,
) -> Result<Option<T>> {
    let Signed { value, signature } = open_record::<Signed<T>>(bytes, kind, name, keyring)?;
    let authentic = keyring.is_signed(&signed_message(&value, kind, name), &signature);
    Ok(authentic.then_some(value))
}

/// Opens the record named `name`.
///
/// # Errors
/// [`Error::Unsupported`] if it is sound and has a format version, key generation or extension that isn't known.
pub(crate) fn open_record<T: Encode + Decode<()> + Extended>(
    bytes: &[u8],
    kind: Kind,
    name: &str,
    keyring: &Keyring,
) -> Result<T> {
    let (header, body) = Header::read(strip_trailer(bytes, name)?, kind, name)?;
    let mut message = body.to_vec();
    header.opener(keyring, name)?.open(0, Part::Body, name, &mut message, name)?;
    let (value, padding) = codec::decode_prefix::<T>(&message, name)?;
    check_padding(padding, bytes.len(), name)?;
    value.extensions().require_known(name)?;
    Ok(value)
}

/// Appends the administrator's signature to what an object says in the clear: its magic, version, kind and value.
///
/// Whoever knows the public key can check it without any other key, and in whatever version the value is.
pub(crate) fn sign_clear(out: &mut Vec<u8>, kind: Kind, name: &str, keyring: &Keyring) -> Result<()> {
    let signature = keyring.sign(&clear_message(out, kind, name))?;
    out.extend_from_slice(&signature);
    Ok(())
}

/// Cuts the signature off what [`sign_clear`] returned; nothing if it isn't by the holder of `administrator`.
pub(crate) fn open_clear<'a>(bytes: &'a [u8], kind: Kind, name: &str, administrator: &PublicKey) -> Option<&'a [u8]> {
    let (said, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>()?;
    is_signed(administrator, &clear_message(said, kind, name), signature).then_some(said)
}

fn clear_message(said: &[u8], kind: Kind, name: &str) -> Vec<u8> {
    [SIGNED, &[kind as u8], blake3::hash(name.as_bytes()).as_bytes(), said].concat()
}

/// A record of bytes alone.
#[cfg(test)]
impl Extended for Vec<u8> {
    fn extensions(&self) -> &Extensions {
        static NONE: std::sync::LazyLock<Extensions> = std::sync::LazyLock::new(Extensions::default);
        &NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_follows_the_paper() {
        for (length, padded) in
            [(0, 0), (1, 1), (2, 2), (9, 10), (100, 104), (1000, 1024), (4097, 4352), (1_000_000, 1_015_808)]
        {
            assert_eq!(padded_length(length), padded, "{length}");
        }
    }

    proptest! {
        #[test]
        fn padding_costs_little_and_is_stable(length in 1u64..1 << 40) {
            let padded = padded_length(length);
            prop_assert!(padded >= length && padded - length <= length / 8 + 1);
            prop_assert_eq!(padded_length(padded), padded);
        }

        #[test]
        fn records_round_trip_and_nothing_else_opens(value: Vec<u8>, flip: prop::sample::Index, bit in 0u8..8) {
            let (keyring, surroundings) = (Keyring::generate(&Surroundings::default()), Surroundings::default());
            let sealed = seal_record(&value, Kind::Snapshot, "commits/x", &keyring, &surroundings).unwrap();
            let open = |bytes: &[u8], kind, name: &str, keyring: &Keyring| open_record::<Vec<u8>>(bytes, kind, name, keyring);
            prop_assert_eq!(open(&sealed, Kind::Snapshot, "commits/x", &keyring).unwrap(), value);
            prop_assert!(open(&sealed, Kind::Snapshot, "commits/y", &keyring).is_err(), "renamed");
            prop_assert!(open(&sealed, Kind::Registration, "commits/x", &keyring).is_err(), "another kind");
            let other = Keyring::generate(&surroundings);
            prop_assert!(open(&sealed, Kind::Snapshot, "commits/x", &other).is_err(), "another key");
            let mut damaged = sealed.clone();
            let at = flip.index(damaged.len());
            damaged[at] ^= 1 << bit;
            let is_damage = |bytes: &[u8]| open(bytes, Kind::Snapshot, "commits/x", &keyring).unwrap_err().is_corrupt();
            prop_assert!(is_damage(&damaged), "flipped");
            prop_assert!(is_damage(&sealed[..at]), "truncated");
            damaged[at] ^= 1 << bit;
            damaged.push(0);
            prop_assert!(open(&damaged, Kind::Snapshot, "commits/x", &keyring).is_err(), "extended");
            // Damage that fixes the plain hash is caught by the AEAD.
            let mut forged = sealed[..sealed.len() - TRAILER_LEN].to_vec();
            let at = flip.index(forged.len());
            forged[at] ^= 1 << bit;
            write_trailer(&mut forged);
            prop_assert!(open(&forged, Kind::Snapshot, "commits/x", &keyring).is_err(), "forged");
        }
    }
}
