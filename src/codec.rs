//! Typed values to bytes and back, in one canonical form.
//!
//! The encoding is bincode 2's standard configuration: fields in order without
//! tags, integers as little-endian variable-length numbers (below 251 one byte;
//! 251, 252, 253, 254 announce 2, 4, 8, 16 bytes), signed ones zigzag, sequences
//! with their length in front, enums with a variable-length variant number.
//! This is the only module that names bincode, so that another crate with the
//! same wire format can take its place here.
//!
//! The decoder of bincode accepts several spellings of one value. [`decode`]
//! doesn't: it bounds what is allocated, wants every byte used, and wants the
//! value to encode to the bytes it came from.

mod extensions;

pub(crate) use bincode::de::Decoder;
pub(crate) use bincode::enc::Encoder;
pub(crate) use bincode::error::{DecodeError, EncodeError};
pub(crate) use bincode::{Decode, Encode, impl_borrow_decode};
pub(crate) use extensions::{Extended, Extensions};

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::read::Reader;
use bincode::enc::write::Writer;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId, RecordHash, RepositoryId, SeriesTag, WriterId};

/// No encoded value may claim more memory than this when it is decoded.
pub(crate) const DECODED_MAX: usize = 64 << 20;

type Config = Configuration<LittleEndian, Varint, Limit<DECODED_MAX>>;
const CONFIG: Config = bincode::config::standard().with_limit::<DECODED_MAX>();

/// Encodes `value` at the end of `out`.
pub(crate) fn encode_into<T: Encode>(value: &T, out: &mut Vec<u8>) {
    #[expect(clippy::expect_used, reason = "writing to a vector can't fail, and no stored type refuses to be encoded")]
    bincode::encode_into_std_write(value, out, bincode::config::standard()).expect("encoding to memory");
}

/// Encodes `value`.
pub(crate) fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// Decodes a value that takes up all of `bytes` in canonical form; `object` names it in errors.
pub(crate) fn decode<T: Encode + Decode<()>>(bytes: &[u8], object: impl std::fmt::Display) -> Result<T> {
    let (value, rest) = decode_prefix(bytes, &object)?;
    if !rest.is_empty() {
        return Err(Error::corrupt(object, format!("{} bytes follow its value", rest.len())));
    }
    Ok(value)
}

/// Decodes a value in canonical form from the front of `bytes`, and returns what follows it.
pub(crate) fn decode_prefix<T: Encode + Decode<()>>(
    bytes: &[u8],
    object: impl std::fmt::Display,
) -> Result<(T, &[u8])> {
    let (value, used): (T, usize) = bincode::decode_from_slice(bytes, CONFIG)
        .map_err(|error| Error::corrupt(&object, format!("its value can't be decoded ({error})")))?;
    let (encoded, rest) = bytes.split_at(used);
    if !encodes_to(&value, encoded) {
        return Err(Error::corrupt(object, "its value is not in canonical form"));
    }
    Ok((value, rest))
}

/// Whether `value` encodes to exactly `expected`, without building the encoding.
fn encodes_to<T: Encode>(value: &T, expected: &[u8]) -> bool {
    struct Compare<'a>(&'a [u8]);
    impl Writer for Compare<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
            self.0 = self.0.strip_prefix(bytes).ok_or(EncodeError::Other("differs"))?;
            Ok(())
        }
    }
    let mut encoder = bincode::enc::EncoderImpl::new(Compare(expected), bincode::config::standard());
    value.encode(&mut encoder).is_ok() && encoder.into_writer().0.is_empty()
}

macro_rules! fixed_bytes {
    ($($name:ident),*) => {$(
        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                encoder.writer().write(self.as_bytes())
            }
        }

        impl<Context> Decode<Context> for $name {
            fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
                decoder.claim_bytes_read($name::LEN)?;
                let mut bytes = [0; $name::LEN];
                decoder.reader().read(&mut bytes)?;
                Ok($name::new(bytes))
            }
        }

        bincode::impl_borrow_decode!($name);
    )*};
}

fixed_bytes!(BlobId, ObjectId, RepositoryId, WriterId, SeriesTag, RecordHash);

impl Encode for Timestamp {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_nanos().encode(encoder)
    }
}

impl<Context> Decode<Context> for Timestamp {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        i64::decode(decoder).map(Timestamp::from_nanos)
    }
}

bincode::impl_borrow_decode!(Timestamp);

#[cfg(test)]
mod tests;
