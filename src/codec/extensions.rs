//! Extensions: what a later version adds to a value without a new format version.
//!
//! Owns the map that ends records and entries' metadata, and the rule of its
//! numbers: a reader that doesn't know an even one must not use the value, and
//! one that doesn't know an odd one goes on without it and keeps it where it
//! copies the value. This build knows none. An extension never refers to blobs
//! or other objects: collectors don't look into extensions.

use std::collections::BTreeMap;

use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use super::{Decoder, Encoder};
use crate::error::{Error, Result};

/// Extensions of a value by their numbers. One byte where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extensions(BTreeMap<u32, Vec<u8>>);

/// A stored value that has extensions.
pub(crate) trait Extended {
    /// Its extensions.
    fn extensions(&self) -> &Extensions;
}

impl Extensions {
    /// Refuses a value whose extensions include one that must be understood and isn't; `object` names it.
    pub(crate) fn require_known(&self, object: impl std::fmt::Display) -> Result<()> {
        match self.0.keys().find(|number| *number % 2 == 0) {
            Some(number) => {
                Err(Error::unsupported(object, format!("it needs extension {number}; use a version that knows it")))
            }
            None => Ok(()),
        }
    }

    /// With one more, as a later version would write it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn with(mut self, number: u32, value: impl Into<Vec<u8>>) -> Self {
        self.0.insert(number, value.into());
        self
    }
}

impl Encode for Extensions {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<Context> Decode<Context> for Extensions {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        BTreeMap::decode(decoder).map(Self)
    }
}

bincode::impl_borrow_decode!(Extensions);
