//! Rosters: which key slots open the repository, and the newest key generation, sealed to each.
//!
//! ```text
//!   0  magic "backstop", format version, kind Roster (10 bytes)
//!  10  the encoded `Roster`
//! -96  the administrator's signature of everything before it
//! -32  BLAKE3 of everything before it
//! ```
//! Each change of keys is a roster with the next number; that of the highest
//! number which the administrator signed holds. Before there is any, the slot
//! that the config names is the only one. A roster's name has a part that only
//! administrators can compute, so nobody else can take a name first, and all who
//! change the keys at a time contend for one name: of several, one wins, and the
//! others look again. So two who remove each other's slots can't both succeed.
//!
//! A roster grants the newest generation's secret to each slot's public key. Older generations are sealed under it.

use bytes::Bytes;
use futures::StreamExt;

use crate::clock::{Surroundings, Timestamp};
use crate::codec::{self, Decode, Encode, Extended, Extensions};
use crate::crypto::{Grant, Keyring, Kind, PublicKey, SlotKey, SlotPublic};
use crate::error::{Error, Result};
use crate::id::{ObjectId, RepositoryId};
use crate::layout::{self, NUMBER_MAX, Name};
use crate::object::{open_clear, read_magic, sign_clear, strip_trailer, write_magic, write_trailer};
use crate::store::{Created, Listed, Store};

/// The most slots that are tried, and that a roster gets.
pub(crate) const MEMBERS_MAX: usize = 64;

/// No roster is longer: 64 slots, 1024 generations, and room for extensions.
pub(crate) const ROSTER_MAX: u64 = 128 << 10;

/// Rosters read at a time, where the newest isn't the administrator's.
const CONCURRENCY: usize = 16;

/// How many objects that look like rosters and aren't the administrator's are passed over.
const FORGED_MAX: usize = 1024;

/// A slot that opens the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) slot: ObjectId,
    pub(crate) append_only: bool,
    pub(crate) public: SlotPublic,
}

/// A roster as stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Roster {
    repository: RepositoryId,
    pub(crate) number: u64,
    created: Timestamp,
    /// The newest key generation.
    pub(crate) generation: u32,
    /// By slot, ascending.
    entries: Vec<Entry>,
    /// The older generations, sealed under the newest.
    history: Vec<u8>,
    /// What later builds add: an even number is critical, an odd one can be ignored.
    extensions: Extensions,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Entry {
    slot: ObjectId,
    append_only: bool,
    public: SlotPublic,
    grant: Grant,
}

impl Extended for Roster {
    fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

/// What a listing of key objects says.
#[derive(Debug)]
pub(crate) enum Standing {
    /// No roster is there: only the slot that the config names opens the repository.
    First(ObjectId),
    /// The newest one.
    Roster(Box<Roster>),
}

impl Standing {
    /// The slots that open the repository.
    pub(crate) fn slots(&self) -> Vec<ObjectId> {
        match self {
            Self::First(slot) => vec![*slot],
            Self::Roster(roster) => roster.entries.iter().map(|entry| entry.slot).collect(),
        }
    }

    /// The newest roster's number, or 0.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::First(_) => 0,
            Self::Roster(roster) => roster.number,
        }
    }

    /// Tells `keyring` the generations that the newest roster grants to `slot`.
    pub(crate) fn teach(&self, keyring: &Keyring, slot: &ObjectId, private: &SlotKey) -> Result<()> {
        let Self::Roster(roster) = self else { return Ok(()) };
        roster.teach(keyring, slot, private)
    }
}

impl Roster {
    /// The roster after number `number`, of these members, under the newest generation of `keyring`.
    pub(crate) fn new(
        repository: RepositoryId,
        number: u64,
        mut members: Vec<Member>,
        keyring: &Keyring,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        members.sort_unstable_by_key(|member| member.slot);
        let generation = keyring.generation();
        let secret = keyring.newest_secret();
        let entry = |Member { slot, append_only, public }| {
            let grant = Grant::seal(&secret, &public, &grant_context(repository, generation, &slot), surroundings)?;
            Ok(Entry { slot, append_only, public, grant })
        };
        Ok(Self {
            repository,
            number: number + 1,
            created: surroundings.clock.now(),
            generation,
            entries: members.into_iter().map(entry).collect::<Result<_>>()?,
            history: keyring.seal_history(&history_context(repository, generation))?,
            extensions: Extensions::default(),
        })
    }

    /// The slots that open the repository.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.entries
            .iter()
            .map(|Entry { slot, append_only, public, .. }| Member {
                slot: *slot,
                append_only: *append_only,
                public: *public,
            })
            .collect()
    }

    /// Its name; takes the administrator's key.
    pub(crate) fn name(&self, keyring: &Keyring) -> Result<Name> {
        if self.number > NUMBER_MAX {
            return Err(Error::invalid(layout::KEYS, "the numbers of its rosters have run out"));
        }
        Ok(Name::Roster(self.number, keyring.roster_tag(self.number)?))
    }

    /// The object's bytes; takes the administrator's key.
    pub(crate) fn seal(&self, keyring: &Keyring) -> Result<Vec<u8>> {
        let name = self.name(keyring)?.to_string();
        let mut out = Vec::new();
        write_magic(Kind::Roster, &mut out);
        codec::encode_into(self, &mut out);
        sign_clear(&mut out, Kind::Roster, &name, keyring)?;
        write_trailer(&mut out);
        Ok(out)
    }

    /// Reads the object `name`; nothing if it is sound, and not signed by the administrator of this repository.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the administrator signed what this build doesn't know.
    pub(crate) fn open(
        bytes: &[u8],
        name: Name,
        repository: RepositoryId,
        administrator: &PublicKey,
    ) -> Result<Option<Self>> {
        let text = name.to_string();
        let Some(said) = open_clear(strip_trailer(bytes, &text)?, Kind::Roster, &text, administrator) else {
            return Ok(None);
        };
        let roster: Self = codec::decode(read_magic(said, Kind::Roster, &text)?, &text)?;
        roster.extensions().require_known(&text)?;
        let in_order = roster.entries.is_sorted_by(|a, b| a.slot < b.slot);
        let named = matches!(name, Name::Roster(number, _) if number == roster.number);
        if !in_order || !named || roster.entries.is_empty() {
            return Err(Error::corrupt(text, "it isn't what its name says, or its slots aren't in order"));
        }
        Ok((roster.repository == repository).then_some(roster))
    }

    fn teach(&self, keyring: &Keyring, slot: &ObjectId, private: &SlotKey) -> Result<()> {
        let object = format!("roster {}", self.number);
        let entry = self.entries.iter().find(|entry| entry.slot == *slot);
        let entry = entry.ok_or_else(|| removed(slot))?;
        let context = grant_context(self.repository, self.generation, slot);
        let secret = entry.grant.open(private, &context)?;
        let secret = secret.ok_or_else(|| Error::corrupt(&object, format!("what it grants to {slot} doesn't open")))?;
        let context = history_context(self.repository, self.generation);
        keyring.learn(self.generation, &secret, &self.history, &context, &object)
    }
}

/// Says that a slot no longer opens the repository.
pub(crate) fn removed(slot: &ObjectId) -> Error {
    let reason = "the key that the repository was opened with has been removed; open it with another one";
    Error::invalid(Name::Key(*slot), reason)
}

fn grant_context(repository: RepositoryId, generation: u32, slot: &ObjectId) -> Vec<u8> {
    [&repository.as_bytes()[..], &generation.to_le_bytes(), slot.as_bytes()].concat()
}

fn history_context(repository: RepositoryId, generation: u32) -> Vec<u8> {
    [&repository.as_bytes()[..], &generation.to_le_bytes()].concat()
}

/// What holds by a listing of key objects.
///
/// What isn't the administrator's is passed over with a warning: whoever can write to the store may have put it there.
pub(crate) async fn standing(
    store: &Store,
    listed: &[Listed],
    repository: RepositoryId,
    administrator: &PublicKey,
    first_slot: ObjectId,
) -> Result<Standing> {
    let mut names: Vec<_> = listed.iter().filter_map(|listed| roster_name(&listed.name)).collect();
    names.sort_unstable();
    let newest_first: Vec<_> = names.iter().rev().copied().take(FORGED_MAX).collect();
    // Nearly always the first one holds, and none of the others is read.
    let (first, others) = newest_first.split_at(newest_first.len().min(1));
    for names in [first, others] {
        let read = |name: Name| async move { (name, read(store, name).await) };
        let mut read = futures::stream::iter(names.iter().copied()).map(read).buffered(CONCURRENCY);
        while let Some((name, bytes)) = read.next().await {
            if let Some(roster) = judge(name, bytes, repository, administrator)? {
                return Ok(Standing::Roster(Box::new(roster)));
            }
        }
    }
    if names.len() > FORGED_MAX {
        let reason =
            format!("more than {FORGED_MAX} objects look like rosters and aren't the administrator's; delete them");
        return Err(Error::corrupt(layout::KEYS, reason));
    }
    Ok(Standing::First(first_slot))
}

/// The bytes of a roster that was listed. None is ever deleted but what isn't the administrator's, so that one which
/// isn't there is looked for again, and no older one takes its place.
async fn read(store: &Store, name: Name) -> Result<Bytes> {
    let text = name.to_string();
    match store.get(&text, ROSTER_MAX).await {
        Err(error) if error.is_not_found() => match store.get(&text, ROSTER_MAX).await {
            Err(error) if error.is_not_found() => Err(Error::conflict(name, "it was listed, and is gone; try again")),
            other => other,
        },
        other => other,
    }
}

/// The roster, if it is the administrator's and can be used.
fn judge(
    name: Name,
    bytes: Result<Bytes>,
    repository: RepositoryId,
    administrator: &PublicKey,
) -> Result<Option<Roster>> {
    match bytes.and_then(|bytes| Roster::open(&bytes, name, repository, administrator)) {
        Ok(Some(roster)) => return Ok(Some(roster)),
        Ok(None) => tracing::warn!(%name, "a roster of keys isn't signed by the administrator, and is ignored"),
        Err(error) if error.is_corrupt() => tracing::warn!(%name, %error, "a roster of keys can't be used"),
        Err(error) => return Err(error),
    }
    Ok(None)
}

/// Creates `roster` unless its number is taken: then nothing has changed, and the keys are to be looked at again.
pub(crate) async fn publish(store: &Store, roster: &Roster, keyring: &Keyring) -> Result<bool> {
    let name = roster.name(keyring)?.to_string();
    Ok(store.create(&name, roster.seal(keyring)?.into()).await? == Created::Ours)
}

fn roster_name(text: &str) -> Option<Name> {
    Name::parse(text).filter(|name| matches!(name, Name::Roster(..)))
}

#[cfg(test)]
mod tests;
