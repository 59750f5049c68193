//! What a holder of an append-only secret can make, for the fuzzer that plays the attackers.
//!
//! A [`Forger`] has every key but the administrator's. Whatever is to be signed it
//! signs with another's key, as such a holder would have to.
//!
//! Owns how lies are sealed, so that they get as far as possible. What to lie
//! about is the fuzzer's business.

use crate::blobs::Stored;
use crate::clock::{Surroundings, Timestamp};
use crate::codec::{self, Extensions};
use crate::collection::{Authority, CollectionBody, CollectionRecord, Ended, Numbers, Plan};
use crate::crypto::{Keyring, Kind, Part, TAG_LEN};
use crate::fuzzing::Fixed;
use crate::id::{BlobId, ObjectId, ProbeId, RecordHash, RepositoryId, RosterTag, SeriesTag, WriterId};
use crate::index::{Location, PackRow, Segment, SegmentBuilder};
use crate::kept::{Kept, KeptRecord};
use crate::layout::{CommitName, NUMBER_MAX, Name};
use crate::object::{
    HEADER_LEN, Header, TRAILER_LEN, forge_signed, object_id, pad, seal_record, write_magic, write_trailer,
};
use crate::pack::{self, BLOCKS_START, BlockEntry, BlockKind, Encoding, Footer, Hints, parse_pack};
use crate::registration::{EndRecord, EndToken, RegistrationRecord};
use crate::repository::Repository;
use crate::snapshot::{Body, Origin, Placed, Record, Snapshot, open_record};
use crate::tree::{Entry, EntryKind, Key, Payload, Piece, SequenceRoot};
use bytes::Bytes;

/// An object's name and bytes.
pub type Object = (String, Vec<u8>);

/// Makes objects as a holder of an append-only secret could.
#[derive(Debug)]
pub struct Forger {
    keyring: Keyring,
    stranger: Keyring,
    surroundings: Surroundings,
    repository: RepositoryId,
}

/// A name that the layout knows, chosen by numbers.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// Which kind of name.
    pub kind: u8,
    /// Of which series.
    pub series: &'a str,
    /// With which number.
    pub number: u64,
    /// With which id.
    pub id: [u8; 32],
}

/// What a made-up snapshot says otherwise than the one that it is made from.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The series in which it stands.
    pub series: &'a str,
    /// Its number.
    pub number: u64,
    /// Its time, in seconds.
    pub time: i64,
    /// What its writer's clock said, in seconds.
    pub clock: i64,
    /// Which one it gives back.
    pub origin: Option<u64>,
    /// Its root, or nothing for that of the one that it is made from.
    pub root: Option<[u8; 20]>,
    /// How many entries it says to have, beyond those that it has.
    pub entries: u64,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// Whether it says where its root is.
    pub hints: bool,
    /// The number of an extension that it has.
    pub extension: Option<u32>,
}

/// A file of a made-up tree: a blob, taken for a chunk or for the root of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// The blob.
    pub id: [u8; 20],
    /// Its length.
    pub length: u32,
    /// The height of the sequence, or nothing for a chunk.
    pub height: Option<u8>,
}

/// A blob of a made-up pack.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Whether it is a node.
    pub node: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The id that it is said to have, or nothing for its own.
    pub id: Option<[u8; 20]>,
}

impl Forger {
    /// With the keys of a repository, but its administrator's.
    pub fn new(repository: &Repository) -> Self {
        let surroundings = repository.surroundings().clone();
        let stranger =
            Keyring::generate(&Surroundings { entropy: std::sync::Arc::new(Fixed(99)), ..surroundings.clone() });
        Self { keyring: repository.keyring().append_only(), stranger, surroundings, repository: repository.id() }
    }

    /// The name.
    pub fn name(&self, chosen: Chosen<'_>) -> String {
        self.parsed(chosen).to_string()
    }

    fn parsed(&self, Chosen { kind, series, number, id }: Chosen<'_>) -> Name {
        let number = number.clamp(1, NUMBER_MAX);
        let tag = if series.is_empty() { SeriesTag::new(short(&id)) } else { self.keyring.series_tag(series) };
        match kind % 12 {
            0 => Name::Commit(CommitName { tag, number }),
            1 => Name::Kept(tag, number),
            2 => Name::Collection(number),
            3 => Name::CollectionEnd(number),
            4 => Name::Writer(WriterId::new(short(&id))),
            5 => Name::WriterEnd(WriterId::new(short(&id))),
            6 => Name::Pack(ObjectId::new(id)),
            7 => Name::Index(ObjectId::new(id)),
            8 => Name::Key(ObjectId::new(id)),
            9 => Name::Roster(number, RosterTag::new(short(&id))),
            10 => Name::Probe(ProbeId::new(short(&id))),
            _ => Name::Config,
        }
    }

    /// An object of these bytes as plaintext, under a name whose kind it fits; it is renamed where its hash is its name.
    pub fn plain(&self, chosen: Chosen<'_>, plain: &[u8]) -> Object {
        let name = self.parsed(chosen);
        let text = name.to_string();
        let signed = |kind| {
            let mut message = plain.to_vec();
            drop(self.stranger.sign(&message).map(|signature| codec::encode_into(&signature, &mut message)));
            seal_plain(kind, &text, &message, &self.keyring, &self.surroundings)
        };
        let bytes = match name {
            Name::Commit(_) => seal_plain(Kind::Snapshot, &text, plain, &self.keyring, &self.surroundings),
            Name::Writer(_) => seal_plain(Kind::Registration, &text, plain, &self.keyring, &self.surroundings),
            Name::WriterEnd(_) => seal_plain(Kind::RegistrationEnd, &text, plain, &self.keyring, &self.surroundings),
            Name::Kept(..) => signed(Kind::Kept),
            Name::Collection(_) | Name::CollectionEnd(_) => signed(Kind::Collection),
            Name::Pack(_) => seal_plain(Kind::Pack, &text, plain, &self.keyring, &self.surroundings),
            Name::Index(_) => seal_plain(Kind::Index, "", plain, &self.keyring, &self.surroundings),
            Name::Key(_) => in_clear(Kind::KeySlot, plain),
            Name::Roster(..) => ended(in_clear(Kind::Roster, plain)),
            Name::Config => ended(in_clear(Kind::Config, plain)),
            Name::Probe(_) => plain.to_vec(),
        };
        (renamed(name, &bytes), bytes)
    }

    /// A record made from an honest one.
    ///
    /// Returns nothing where `like` isn't a snapshot's record.
    pub fn commit(&self, like: &Snapshot, record: &[u8], before: Option<&[u8]>, commit: Commit<'_>) -> Option<Object> {
        let tag = self.keyring.series_tag(&like.series);
        let Placed { record, .. } =
            open_record(record, &CommitName { tag, number: like.number }, &self.keyring).ok()?;
        let Commit { series, number, time, clock, origin, root, entries, tombstone, hints, extension } = commit;
        let number = number.clamp(1, NUMBER_MAX);
        let Body::Snapshot(mut content) = record.body else { return None };
        if let Some(root) = root {
            content.root = BlobId::new(root);
        }
        content.entries = content.entries.wrapping_add(entries);
        content.origin = origin.map(|number| Origin { number, time: seconds(clock) });
        if !hints {
            content.stored = Stored::default();
        }
        let predecessor = before.map(|before| RecordHash::new(*blake3::hash(before).as_bytes()));
        let record = Record {
            series: series.to_owned(),
            number,
            time: seconds(time),
            clock: seconds(clock),
            predecessor: predecessor.or((number > 1).then_some(RecordHash::new([0; RecordHash::LEN]))),
            body: if tombstone { Body::Tombstone } else { Body::Snapshot(content) },
            extensions: extensions(extension),
        };
        let name = Name::Commit(CommitName { tag: self.keyring.series_tag(series), number }).to_string();
        let sealed = seal_record(&record, Kind::Snapshot, &name, &self.keyring, &self.surroundings).ok()?;
        Some((name, sealed))
    }

    /// A registration, and what ends it, or doesn't.
    pub fn registration(
        &self,
        id: [u8; 16],
        series: &str,
        number: u64,
        time: i64,
        seen: u64,
        ends: bool,
    ) -> Vec<Object> {
        let (id, token) = (WriterId::new(id), EndToken::new([id[0]; 32]));
        let record = RegistrationRecord {
            series: series.to_owned(),
            number,
            time: seconds(time),
            host: "\u{1b}[2Jforged".to_owned(),
            seen,
            ending: token.hash(),
            extensions: Extensions::default(),
        };
        let end =
            EndRecord { token: if ends { token } else { EndToken::new([0; 32]) }, extensions: Extensions::default() };
        let (name, ended) = (Name::Writer(id).to_string(), Name::WriterEnd(id).to_string());
        let (keyring, surroundings) = (&self.keyring, &self.surroundings);
        let record = seal_record(&record, Kind::Registration, &name, keyring, surroundings);
        let end = seal_record(&end, Kind::RegistrationEnd, &ended, keyring, surroundings);
        [record.ok().map(|record| (name, record)), end.ok().map(|end| (ended, end))].into_iter().flatten().collect()
    }

    /// A list that says that these numbers don't count, signed by a stranger.
    pub fn kept(&self, series: &str, number: u64, through: u64, forgotten: &[u64]) -> Object {
        let number = number.clamp(1, NUMBER_MAX);
        let name = Name::Kept(self.keyring.series_tag(series), number).to_string();
        let times = (Timestamp::EPOCH, Timestamp::EPOCH);
        let forgotten: Vec<_> = forgotten.iter().map(|number| (*number, RecordHash::new([1; 32]))).collect();
        let kept = Kept::default().forget(&forgotten, through.min(NUMBER_MAX), times, |_| true);
        let (time, extensions) = (Timestamp::EPOCH, Extensions::default());
        let record = KeptRecord { series: series.to_owned(), number, time, kept, extensions };
        (name.clone(), self.signed(&record, Kind::Kept, &name))
    }

    /// A collection that condemns these objects, or its end, signed by a stranger.
    pub fn collection(&self, number: u64, ends: bool, names: &[&str]) -> Object {
        let number = number.clamp(1, NUMBER_MAX);
        let mut plan = Plan { authority: Authority::Damaged, ..Plan::default() };
        let mut fenced = Vec::new();
        let mut records = Vec::new();
        for name in names {
            match Name::parse(name) {
                Some(Name::Pack(id)) => plan.packs.push(id),
                Some(Name::Index(id)) => plan.segments.push(id),
                Some(Name::Writer(id)) => fenced.push(id),
                Some(Name::Commit(name)) => records.push((name.tag, name.number)),
                _ => {}
            }
        }
        plan.packs.sort_unstable();
        plan.segments.sort_unstable();
        fenced.sort_unstable();
        (plan.records, plan.marked) = (Numbers::gather(records), Vec::new());
        let pinned = Numbers::gather(plan.records.iter().map(|numbers| (numbers.tag, NUMBER_MAX)));
        let body = if ends { CollectionBody::Ended(Ended { pinned, fenced }) } else { CollectionBody::Begun(plan) };
        let name = if ends { Name::CollectionEnd(number) } else { Name::Collection(number) }.to_string();
        let record = CollectionRecord { number, time: Timestamp::EPOCH, body, extensions: Extensions::default() };
        (name.clone(), self.signed(&record, Kind::Collection, &name))
    }

    fn signed<T: codec::Encode + Clone>(&self, value: &T, kind: Kind, name: &str) -> Vec<u8> {
        forge_signed(value, kind, name, &self.keyring, &self.stranger, &self.surroundings)
    }

    /// A pack of these blobs, one block each, whose ids may be lies, under a name that fits its bytes.
    pub fn pack(&self, writer: [u8; 16], blobs: &[Blob], skew: u8) -> Object {
        let writer = WriterId::new(writer);
        let mut sealer = self.keyring.sealer(Kind::Pack, &self.surroundings);
        let mut object = Vec::new();
        Header::of(&sealer).write(&mut object);
        object.extend_from_slice(writer.as_bytes());
        let (mut footer, mut plains) = (Footer::default(), Vec::new());
        for Blob { node, bytes, id } in blobs.iter().filter(|blob| !blob.bytes.is_empty()) {
            let kind = if *node { BlockKind::Nodes } else { BlockKind::Data };
            let own = kind.id_key(&self.keyring).id(bytes);
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let mut plain = bytes.clone();
            if *node {
                codec::encode_into(&Hints::default(), &mut plain);
                let hints = u32::try_from(plain.len() - bytes.len()).unwrap_or_default();
                plain.extend_from_slice(&hints.to_le_bytes());
            }
            let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
            // A skew makes the footer say a little otherwise.
            footer.blocks.push(BlockEntry {
                kind,
                encoding: if skew & 1 == 0 { Encoding::Raw } else { Encoding::Zstd },
                stored_len: plain_len + TAG_LEN as u32,
                plain_len: plain_len + u32::from(skew >> 1 & 1),
                blobs: vec![(id.map_or(own, BlobId::new), length + u32::from(skew >> 1 & 1))],
            });
            plains.push((kind, plain));
        }
        let end: usize = plains.iter().map(|(_, plain)| plain.len() + TAG_LEN).sum::<usize>() + BLOCKS_START;
        let mut message = codec::encode(&footer);
        let length = end + message.len() + TAG_LEN + pack::TRAILER_LEN;
        pad(&mut message, length);
        let footer_len = u32::try_from(message.len() + TAG_LEN).unwrap_or(u32::MAX);
        let mut trailer = pack::trailer(footer_len, u32::try_from(plains.len()).unwrap_or(u32::MAX));
        drop(sealer.seal(Part::Trailer, "", &mut trailer));
        for (kind, mut plain) in plains {
            drop(sealer.seal(kind.part(), "", &mut plain));
            object.extend_from_slice(&plain);
        }
        drop(sealer.seal(Part::Footer, &writer.to_string(), &mut message));
        object.extend_from_slice(&message);
        object.extend_from_slice(&trailer);
        let name = Name::Pack(object_id(&object)).to_string();
        (name, object)
    }

    /// A pack with the one node of a tree of these files, and the node's id.
    pub fn tree(&self, writer: [u8; 16], files: &[File]) -> Option<(Object, [u8; 20])> {
        let mut entries = Vec::new();
        for (number, File { id, length, height }) in files.iter().enumerate() {
            let (id, length) = (BlobId::new(*id), (*length).max(1));
            let content = match height {
                Some(height) => Payload::Sequence(SequenceRoot { root: id, length: length.into(), height: *height }),
                None => Payload::Pieces(vec![Piece::Chunk { id, length, repeat: 1 }]),
            };
            let key = Key::new([format!("{number:03}")]).ok()?;
            entries.push((key, Entry::new(EntryKind::File, content, Payload::default())));
        }
        let bytes = [vec![0], codec::encode(&entries)].concat();
        let root = *BlockKind::Nodes.id_key(&self.keyring).id(&bytes).as_bytes();
        Some((self.pack(writer, &[Blob { node: true, bytes, id: None }], 0), root))
    }

    /// A segment that describes packs, but mixes up which blob is where as `swap` says: each blob is said to be where
    /// the one so many places on is, in the pack so many packs on.
    pub fn segment(&self, packs: &[&[u8]], swap: usize, pack_swap: usize) -> Option<Object> {
        let (mut builder, mut ids, mut places) = (SegmentBuilder::default(), Vec::new(), Vec::new());
        let mut rows = Vec::new();
        for bytes in packs {
            let Ok((_, _, footer)) = parse_pack(bytes, &self.keyring, "a pack") else { continue };
            let Ok((header, _)) = pack::parse_header(bytes, "a pack") else { continue };
            rows.push(PackRow { id: object_id(bytes), generation: header.generation, salt: header.salt });
            for (place, block) in footer.places() {
                let mut at = 0;
                for (id, length) in &block.blobs {
                    ids.push(*id);
                    places.push((rows.len() - 1, place, at, *length));
                    at += length;
                }
            }
        }
        for (index, id) in ids.iter().enumerate() {
            let (row, place, at, length) = places[(index + swap) % places.len()];
            let location = Location { pack: rows[(row + pack_swap) % rows.len()], place, at, length };
            builder.add_blob(*id, &location).ok()?;
        }
        let sealed = builder.seal(&self.keyring, &self.surroundings).ok()?;
        let id = object_id(&sealed);
        // What is sealed here must at least open, or nothing is tried by it.
        assert!(Segment::from_bytes(id, Bytes::from(sealed.clone()), &self.keyring).is_ok(), "a made-up segment opens");
        Some((Name::Index(id).to_string(), sealed))
    }

    /// The ids of the blobs that packs say to hold, and whether each is a node's.
    pub fn ids<'a>(&self, packs: impl IntoIterator<Item = &'a [u8]>) -> Vec<(bool, [u8; 20])> {
        let mut ids = Vec::new();
        for bytes in packs {
            let Ok((_, _, footer)) = parse_pack(bytes, &self.keyring, "a pack") else { continue };
            for block in footer.blocks {
                let node = block.kind == BlockKind::Nodes;
                ids.extend(block.blobs.iter().map(|(id, _)| (node, *id.as_bytes())));
            }
        }
        ids
    }

    /// Whether a name is one that the layout knows.
    pub fn knows(&self, name: &str) -> bool {
        Name::parse(name).is_some()
    }

    /// Which repository it is.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }
}

/// A record of these bytes as plaintext, padded as its length wants it.
pub(super) fn seal_plain(
    kind: Kind,
    name: &str,
    plain: &[u8],
    keyring: &Keyring,
    surroundings: &Surroundings,
) -> Vec<u8> {
    let mut sealer = keyring.sealer(kind, surroundings);
    let mut out = Vec::new();
    Header::of(&sealer).write(&mut out);
    let mut message = plain.to_vec();
    pad(&mut message, HEADER_LEN + plain.len() + TAG_LEN + TRAILER_LEN);
    drop(sealer.seal(Part::Body, name, &mut message));
    out.extend_from_slice(&message);
    ended(out)
}

fn in_clear(kind: Kind, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_magic(kind, &mut out);
    out.extend_from_slice(plain);
    out
}

fn ended(mut object: Vec<u8>) -> Vec<u8> {
    write_trailer(&mut object);
    object
}

/// The name that the object's bytes want where it is named by them.
fn renamed(name: Name, bytes: &[u8]) -> String {
    match name {
        Name::Pack(_) => Name::Pack(object_id(bytes)),
        Name::Index(_) => Name::Index(object_id(bytes)),
        Name::Key(_) => Name::Key(object_id(bytes)),
        other => other,
    }
    .to_string()
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_nanos(seconds.saturating_mul(1_000_000_000))
}

fn extensions(number: Option<u32>) -> Extensions {
    number.map_or_else(Extensions::default, |number| Extensions::default().with(number, [1, 2, 3]))
}

fn short(id: &[u8; 32]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&id[..16]);
    short
}
