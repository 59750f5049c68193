//! What attackers do to the store.

use arbitrary::Arbitrary;
use backstop::fuzzing::forge::{Blob, Chosen, Commit, File, Forger};
use bytes::Bytes;

use crate::original::{BEGIN, ORIGINAL, Objects, SERIES};

/// One thing done to the store. An object is chosen by its number in order of folder and length.
#[derive(Arbitrary, Debug)]
pub enum Edit {
    /// Puts any bytes under a name that the layout knows, or one that is nearly such.
    Create {
        name: Wanted,
        near: Option<(u8, u8)>,
        bytes: Vec<u8>,
    },
    /// Puts what is under one name under another that the layout knows as well.
    Replay {
        object: u8,
        name: Wanted,
    },
    /// Seals any bytes as a value of the kind that the name says.
    Plain {
        name: Wanted,
        plain: Vec<u8>,
    },
    /// Makes a snapshot's record up.
    Commit {
        like: u8,
        series: u8,
        number: Number,
        time: Time,
        clock: Time,
        origin: Option<u8>,
        root: Option<u8>,
        entries: u8,
        form: u8,
    },
    /// Commits files each of which is a blob that is there, taken for a chunk or for a sequence.
    Tree {
        like: u8,
        series: u8,
        number: Number,
        time: Time,
        files: Vec<(u8, u8)>,
    },
    /// Registers, and ends it rightly or wrongly, or not at all.
    Register {
        id: u8,
        series: u8,
        number: Number,
        time: Time,
        seen: u8,
        end: u8,
    },
    /// Says that numbers don't count.
    Kept {
        series: u8,
        number: Number,
        through: Number,
        forgotten: Vec<u8>,
    },
    /// Condemns objects, or says that a collection has ended.
    Collection {
        number: Number,
        ends: bool,
        objects: Vec<u8>,
    },
    /// Stores blobs under true or false ids.
    Pack {
        writer: u8,
        blobs: Vec<Lie>,
        skew: u8,
    },
    /// Describes packs rightly or wrongly.
    Segment {
        packs: Vec<u8>,
        swap: u8,
        pack_swap: u8,
    },
    /// Damages or deletes what is there.
    Change {
        object: u8,
        change: Change,
    },
    Delete {
        object: u8,
    },
    Swap {
        one: u8,
        other: u8,
    },
    /// Moves an object that is named by its hash to the name that its bytes have now.
    Rename {
        object: u8,
    },
}

#[derive(Arbitrary, Debug)]
pub enum Change {
    Flip {
        at: Place,
        mask: u8,
    },
    Overwrite {
        at: Place,
        with: [u8; 8],
    },
    Truncate {
        at: Place,
    },
    Extend {
        with: Vec<u8>,
    },
    /// Makes the plain hash that ends an object right again.
    Rehash,
}

#[derive(Arbitrary, Debug)]
pub struct Lie {
    node: bool,
    bytes: Vec<u8>,
    /// Whose id it takes.
    id: Option<u8>,
}

/// A name, by numbers.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Wanted {
    kind: u8,
    series: u8,
    number: Number,
    id: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    Small(u8),
    Bucket(u8),
    Large(u64),
    Last(u8),
}

impl Number {
    fn get(self) -> u64 {
        match self {
            Number::Small(number) => u64::from(number % 8) + 1,
            Number::Bucket(number) => u64::from(number) * 1000 + 999,
            Number::Large(number) => number,
            Number::Last(number) => 999_999_999_999_999 - u64::from(number % 4),
        }
    }
}

/// Around the beginning of the run, in days; or anywhere.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Time {
    Days(i8),
    Any(i64),
}

impl Time {
    fn get(self) -> i64 {
        match self {
            Time::Days(days) => BEGIN + i64::from(days) * 86_400,
            Time::Any(seconds) => seconds,
        }
    }
}

/// A place in an object, from its beginning or its end.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    FromStart(u16),
    FromEnd(u16),
}

impl Place {
    fn within(self, len: usize) -> usize {
        match self {
            Place::FromStart(at) => usize::from(at).min(len),
            Place::FromEnd(at) => len.saturating_sub(usize::from(at)),
        }
    }
}

/// The honest ones, one that only attackers have, and names that none can have.
fn series(number: u8) -> &'static str {
    match number % 16 {
        number @ 0..12 => SERIES[usize::from(number) % 3],
        15 => "no#series",
        _ => "forged",
    }
}

impl Wanted {
    fn chosen(self) -> Chosen<'static> {
        Chosen { kind: self.kind, series: series(self.series), number: self.number.get(), id: [self.id; 32] }
    }
}

impl Edit {
    /// Whether it lies to those who trust the holders of secrets, so that what is committed from now on may be broken.
    pub fn is_lie(&self) -> bool {
        matches!(
            self,
            Edit::Plain { .. } | Edit::Commit { .. } | Edit::Tree { .. } | Edit::Pack { .. } | Edit::Segment { .. } | Edit::Replay { .. }
        )
    }

    /// Does it, unless there is nothing to do it to.
    pub fn apply(&self, objects: &mut Objects) -> Option<()> {
        let forger = &ORIGINAL.forger;
        match self {
            Edit::Create { name, near, bytes } => {
                let mut name = forger.name(name.chosen());
                if let Some((at, with)) = near {
                    let at = usize::from(*at) % name.len();
                    name.replace_range(
                        at..=at,
                        ["", "0", "A", "-", "-ended", "/x", ".tmp", "%"][usize::from(*with % 8)],
                    );
                }
                put(objects, (name, bytes.clone()));
            }
            Edit::Replay { object, name } => {
                let (_, bytes) = chosen(objects, *object)?;
                objects.insert(forger.name(name.chosen()), bytes);
            }
            Edit::Plain { name, plain } => put(objects, forger.plain(name.chosen(), plain)),
            Edit::Commit { .. } => {
                let made = self.commit(objects, forger)?;
                put(objects, made);
            }
            Edit::Tree { like, series: of, number, time, files } => {
                let ids = forger.ids(packs(objects));
                let file = |(id, form): &(u8, u8)| {
                    let (_, id) = ids.get(usize::from(*id) % ids.len().max(1))?;
                    Some(File { id: *id, length: 64 + u32::from(*form), height: (form % 2 == 1).then_some(form / 128) })
                };
                let files: Vec<_> = files.iter().take(64).filter_map(file).collect();
                let (pack, root) = forger.tree([0; 16], &files)?;
                put(objects, pack);
                let (time, clock) = (time.get(), time.get());
                let (series, number, origin, entries) = (series(*of), number.get(), None, 0);
                let (tombstone, hints, extension) = (false, false, None);
                let root = Some(root);
                let commit =
                    Commit { series, number, time, clock, origin, root, entries, tombstone, hints, extension };
                let made = commit_like(objects, forger, *like, commit)?;
                put(objects, made);
            }
            Edit::Register { id, series: of, number, time, seen, end } => {
                let (number, time, seen) = (number.get(), time.get(), u64::from(*seen % 4));
                let made = forger.registration([*id; 16], series(*of), number, time, seen, end % 3 == 1);
                made.into_iter().take(if end % 3 == 0 { 1 } else { 2 }).for_each(|made| put(objects, made));
            }
            Edit::Kept { series: of, number, through, forgotten } => {
                let forgotten: Vec<_> = forgotten.iter().map(|number| u64::from(*number % 8) + 1).collect();
                put(objects, forger.kept(series(*of), number.get(), through.get(), &forgotten));
            }
            Edit::Collection { number, ends, objects: condemned } => {
                let names: Vec<_> = condemned.iter().filter_map(|number| Some(chosen(objects, *number)?.0)).collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                put(objects, forger.collection(number.get(), *ends, &names));
            }
            Edit::Pack { writer, blobs, skew } => {
                let ids = forger.ids(packs(objects));
                let lie = |Lie { node, bytes, id }: &Lie| {
                    let id = id.and_then(|id| ids.get(usize::from(id) % ids.len().max(1)));
                    Blob { node: id.map_or(*node, |id| id.0), bytes: bytes.clone(), id: id.map(|id| id.1) }
                };
                let blobs: Vec<_> = blobs.iter().take(8).map(lie).collect();
                put(objects, forger.pack([*writer; 16], &blobs, *skew));
            }
            Edit::Segment { packs: described, swap, pack_swap } => {
                let all: Vec<_> = packs(objects).collect();
                let of = |number: &u8| all.get(usize::from(*number) % all.len().max(1)).copied();
                let described: Vec<_> = described.iter().take(8).filter_map(of).collect();
                let made = forger.segment(&described, (*swap).into(), (*pack_swap).into())?;
                put(objects, made);
            }
            Edit::Change { object, change } => {
                let (name, bytes) = chosen(objects, *object)?;
                let mut bytes = bytes.to_vec();
                change.apply(&mut bytes);
                objects.insert(name, bytes.into());
            }
            Edit::Delete { object } => drop(objects.remove(&chosen(objects, *object)?.0)),
            Edit::Swap { one, other } => {
                let ((one, first), (other, second)) = (chosen(objects, *one)?, chosen(objects, *other)?);
                objects.extend([(one, second), (other, first)]);
            }
            Edit::Rename { object } => {
                let (name, bytes) = chosen(objects, *object)?;
                let hash = blake3::hash(&bytes).to_hex();
                let renamed = match folder(&name) {
                    "packs" => format!("packs/{}/{hash}", &hash[..2]),
                    folder @ ("index" | "keys") => format!("{folder}/{hash}"),
                    _ => return None,
                };
                objects.remove(&name);
                objects.insert(renamed, bytes);
            }
        }
        Some(())
    }

    fn commit(&self, objects: &Objects, forger: &Forger) -> Option<(String, Vec<u8>)> {
        let Edit::Commit { like, series: of, number, time, clock, origin, root, entries, form } = self else {
            return None;
        };
        let ids = root.map(|_| forger.ids(packs(objects))).unwrap_or_default();
        let root = root.and_then(|root| ids.get(usize::from(root) % ids.len().max(1)));
        let commit = Commit {
            series: series(*of),
            number: number.get(),
            time: time.get(),
            clock: clock.get(),
            origin: origin.map(u64::from),
            root: root.map(|root| root.1),
            entries: (*entries / 64).into(),
            tombstone: form & 7 == 1,
            hints: form & 8 == 0,
            extension: (form >> 4 > 12).then_some(u32::from(form & 15)),
        };
        commit_like(objects, forger, *like, commit)
    }
}

/// A record that is made from an honest one, and follows what is there.
fn commit_like(objects: &Objects, forger: &Forger, like: u8, commit: Commit<'_>) -> Option<(String, Vec<u8>)> {
    let (like, _) = &ORIGINAL.snapshots[usize::from(like) % ORIGINAL.snapshots.len()];
    let name = |series: &str, number| forger.name(Chosen { kind: 0, series, number, id: [0; 32] });
    let record = ORIGINAL.objects.get(&name(&like.series, like.number))?;
    let number = commit.number;
    let before = objects.get(&name(commit.series, number.saturating_sub(1))).filter(|_| number > 1);
    forger.commit(like, record, before.map(Bytes::as_ref), commit)
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Flip { at, mask } => {
                let at = at.within(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Change::Overwrite { at, with } => {
                let at = at.within(bytes.len());
                bytes.iter_mut().skip(at).zip(with).for_each(|(byte, with)| *byte = *with);
            }
            Change::Truncate { at } => bytes.truncate(at.within(bytes.len())),
            Change::Extend { with } => bytes.extend_from_slice(with),
            Change::Rehash => {
                if let Some((body, trailer)) = bytes.split_last_chunk_mut::<32>() {
                    *trailer = *blake3::hash(body).as_bytes();
                }
            }
        }
    }
}

fn put(objects: &mut Objects, (name, bytes): (String, Vec<u8>)) {
    objects.insert(name, bytes.into());
}

fn packs(objects: &Objects) -> impl Iterator<Item = &[u8]> {
    objects.iter().filter(|(name, _)| folder(name) == "packs").map(|(_, bytes)| bytes.as_ref())
}

fn chosen(objects: &Objects, number: u8) -> Option<(String, Bytes)> {
    let mut order: Vec<_> = objects.iter().map(|(name, bytes)| (folder(name), bytes.len(), name)).collect();
    order.sort_unstable();
    let (_, _, name) = order.get(usize::from(number) % order.len().max(1))?;
    Some(((*name).clone(), objects[*name].clone()))
}

fn folder(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}
