//! One segment, opened: finds ids by arithmetic over sealed pages.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use xorf::{BinaryFuse8, Filter};

use crate::crypto::{Keyring, Kind, Opener, Part, TAG_LEN};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::entry::{
    ENTRY_LEN, Entry, Location, PAGE_ENTRIES, PAGE_ROWS, PAGE_STORED, PackRow, ROW_LEN, ROW_PAGE_STORED, id_of,
};
use crate::layout::Name;
use crate::object::{HEADER_LEN, Header, too_short};
use crate::pack::BlockKind;
use crate::store::Store;

/// Length of the sealed counts.
const COUNTS_LEN: usize = 8 + 4 + TAG_LEN;

/// Where the pages begin: what must be read before any of them.
pub(super) const HEAD_LEN: usize = HEADER_LEN + COUNTS_LEN;

/// Pages fetched with one request where it isn't certain in which of them an id is, at most; roughly.
const LIKELY_MAX: u64 = 8;

/// Pages of rows that are kept open while all entries are read.
const ROW_PAGES_KEPT: usize = 64;

/// Pages of a long segment that are fetched with one request: some 3 MiB.
const PART_PAGES: u64 = 256;

/// How many pages of a remote segment are remembered.
const PAGES_KEPT: usize = 512;

/// Where a segment's bytes are.
#[derive(Debug)]
pub(super) enum Source {
    Memory(Bytes),
    File(File, PathBuf),
    Remote(Remote),
}

/// Pages that follow one another, by number.
#[derive(Clone, Debug)]
pub(super) enum Pages {
    Entries(Range<u64>),
    Rows(Range<u64>),
}

/// A segment of which single pages are fetched.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) store: Store,
    /// The segment's end, where the pages of packs are.
    pub(super) tail: Bytes,
    /// Pages that were fetched, opened, by where they begin.
    pub(super) pages: Mutex<HashMap<u64, Bytes>>,
}

/// Pages of rows that were opened last.
#[derive(Default)]
struct Rows {
    pages: Vec<(usize, Arc<Vec<u8>>)>,
}

/// An index segment, opened.
pub(crate) struct Segment {
    id: ObjectId,
    name: String,
    generation: u32,
    opener: Opener,
    entries: u64,
    rows: u32,
    length: u64,
    source: Source,
    filter: Option<BinaryFuse8>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl Segment {
    /// Opens a segment of `length` bytes from its first [`HEAD_LEN`] bytes.
    pub(super) fn open(id: ObjectId, head: &[u8], length: u64, source: Source, keyring: &Keyring) -> Result<Self> {
        let name = Name::Index(id).to_string();
        let (header, rest) = Header::read(head, Kind::Index, &name)?;
        let opener = header.opener(keyring, &name)?;
        let mut counts = rest.get(..COUNTS_LEN).ok_or_else(|| too_short(&name))?.to_vec();
        opener.open(0, Part::Footer, "", &mut counts, &name)?;
        let (entries, packs) = counts.split_first_chunk::<8>().ok_or_else(|| too_short(&name))?;
        let packs = packs.first_chunk::<4>().ok_or_else(|| too_short(&name))?;
        let (entries, rows) = (u64::from_le_bytes(*entries), u32::from_le_bytes(*packs));
        let generation = header.generation;
        let segment = Self { id, name, generation, opener, entries, rows, length, source, filter: None };
        if segment.expected_length() != Some(length) {
            return Err(Error::corrupt(&segment.name, "its length doesn't fit its counts"));
        }
        Ok(segment)
    }

    /// Opens a segment that is wholly in memory, after checking its name.
    pub(crate) fn from_bytes(id: ObjectId, bytes: Bytes, keyring: &Keyring) -> Result<Self> {
        crate::object::verify_id(&bytes, &id, &Name::Index(id).to_string())?;
        Self::open(id, &bytes.clone(), bytes.len() as u64, Source::Memory(bytes), keyring)
    }

    /// The segment's name in the store.
    pub(crate) fn id(&self) -> &ObjectId {
        &self.id
    }

    /// The key generation that it is sealed under.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The number of blobs it knows.
    pub(crate) fn len(&self) -> u64 {
        self.entries
    }

    fn expected_length(&self) -> Option<u64> {
        let entries = self.entries.checked_mul(ENTRY_LEN as u64)?;
        let pages = self.entries.div_ceil(PAGE_ENTRIES as u64) + u64::from(self.rows).div_ceil(PAGE_ROWS as u64);
        let rows = u64::from(self.rows) * ROW_LEN as u64;
        u32::try_from(pages).ok()?;
        entries.checked_add(rows + pages * TAG_LEN as u64 + HEAD_LEN as u64)
    }

    fn entry_pages(&self) -> u64 {
        self.entries.div_ceil(PAGE_ENTRIES as u64)
    }

    /// Puts a filter in front, so that an id that isn't there is mostly known not to be without a read.
    ///
    /// Opens every page and looks at every entry, so that damage is noticed before anything is looked up: one entry that
    /// can't be makes all of the segment damaged. It must not be remote.
    pub(crate) fn build_filter(&mut self) -> Result<()> {
        let mut prefixes = Vec::new();
        let mut previous = None;
        for page in 0..self.entry_pages() {
            let page = self.page(page)?;
            for entry in page.as_chunks::<ENTRY_LEN>().0 {
                let entry = Entry::read(entry, &self.name)?;
                self.rows_range(entry.row)?;
                self.expect_order(&mut previous, entry.id)?;
                prefixes.push(entry.id.prefix());
            }
        }
        for row in (0..self.rows).step_by(PAGE_ROWS) {
            self.open_rows(self.local(self.rows_range(row)?)?, row)?;
        }
        prefixes.dedup();
        self.filter = BinaryFuse8::try_from(prefixes.as_slice()).ok();
        Ok(())
    }

    /// Whether the segment certainly doesn't know `id`.
    fn rules_out(&self, id: &BlobId) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter.contains(&id.prefix()))
    }

    /// Looks `id` up without waiting; for segments that are at hand.
    pub(crate) fn find_local(&self, id: &BlobId) -> Result<Option<Location>> {
        match self.search(id)?.and_then(|search| search.found) {
            None => Ok(None),
            Some(entry) => {
                let page = self.open_rows(self.local(self.rows_range(entry.row)?)?, entry.row)?;
                self.locate(entry, &page).map(Some)
            }
        }
    }

    /// At which place in the order of its entries `id` is, and of which kind it is said to be; for segments that are at
    /// hand.
    pub(crate) fn position(&self, id: &BlobId) -> Result<Option<(u64, BlockKind)>> {
        let found = self.search(id)?.and_then(|search| search.position.zip(search.found));
        Ok(found.map(|(position, entry)| (position, entry.place.kind)))
    }

    /// Searches `id` to the end, unless it certainly isn't there.
    fn search<'a>(&self, id: &'a BlobId) -> Result<Option<Search<'a>>> {
        if self.rules_out(id) {
            return Ok(None);
        }
        let mut search = Search::new(self, id);
        while let Some(number) = search.next_page() {
            let page = self.page(number)?;
            search.look(&page, &self.name)?;
        }
        Ok(Some(search))
    }

    /// The packs that its rows name; it must not be remote.
    pub(crate) fn packs(&self) -> Result<Vec<ObjectId>> {
        Ok(self.rows()?.into_iter().map(|row| row.id).collect())
    }

    /// What its rows say of packs; it must not be remote.
    pub(crate) fn rows(&self) -> Result<Vec<PackRow>> {
        let mut packs = Vec::with_capacity(self.rows as usize);
        for row in (0..self.rows).step_by(PAGE_ROWS) {
            let rows = self.open_rows(self.local(self.rows_range(row)?)?, row)?;
            packs.extend(rows.as_chunks::<ROW_LEN>().0.iter().map(PackRow::read));
        }
        Ok(packs)
    }

    /// Whether single pages are fetched when they are needed.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.source, Source::Remote(..))
    }

    /// Looks up many ids, which are sorted, so that each page is opened once; the segment must not be remote.
    pub(crate) fn find_sorted(&self, ids: &[BlobId]) -> Result<Vec<(BlobId, Location)>> {
        let mut found = Vec::new();
        let (mut page, mut rows, mut rows_of) = (Vec::new(), Vec::new(), None);
        for id in ids.iter().filter(|id| !self.rules_out(id)) {
            let entry = match look_in(&page, id, &self.name)? {
                Looked::Found(entry) => Some(entry),
                Looked::Absent => None,
                Looked::Outside => {
                    let mut search = Search::new(self, id);
                    while let Some(number) = search.next_page() {
                        page = self.page(number)?;
                        search.look(&page, &self.name)?;
                    }
                    search.found
                }
            };
            let Some(entry) = entry else { continue };
            let page_of_rows = entry.row as usize / PAGE_ROWS;
            if rows_of != Some(page_of_rows) {
                rows = self.open_rows(self.local(self.rows_range(entry.row)?)?, entry.row)?;
                rows_of = Some(page_of_rows);
            }
            found.push((*id, self.locate(entry, &rows)?));
        }
        Ok(found)
    }

    /// Looks `id` up, fetching the pages that it needs.
    pub(crate) async fn find(&self, id: &BlobId) -> Result<Option<Location>> {
        let Source::Remote(remote) = &self.source else {
            return self.find_local(id);
        };
        if self.rules_out(id) {
            return Ok(None);
        }
        self.fetch_likely(remote, id).await?;
        let mut search = Search::new(self, id);
        while let Some(number) = search.next_page() {
            let page = self.fetch(remote, self.page_range(number), |stored| self.open_page(stored, number)).await?;
            search.look(&page, &self.name)?;
        }
        let Some(entry) = search.found else { return Ok(None) };
        let range = self.rows_range(entry.row)?;
        let page = self.fetch(remote, range, |stored| self.open_rows(stored, entry.row)).await?;
        self.locate(entry, &page).map(Some)
    }

    /// Every entry in order, with its pack; for checks. The segment must not be remote.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<(BlobId, Location)>> + '_ {
        let (mut previous, mut rows) = (None, Rows::default());
        (0..self.entry_pages()).flat_map(move |number| {
            let entries = self.page(number).and_then(|page| {
                page.as_chunks::<ENTRY_LEN>()
                    .0
                    .iter()
                    .map(|bytes| Entry::read(bytes, &self.name))
                    .collect::<Result<Vec<_>>>()
            });
            match entries {
                Ok(entries) => {
                    entries.into_iter().map(|entry| self.resolve_in_order(entry, &mut previous, &mut rows)).collect()
                }
                Err(error) => vec![Err(error)],
            }
        })
    }

    fn expect_order(&self, previous: &mut Option<BlobId>, id: BlobId) -> Result<()> {
        if previous.replace(id).is_some_and(|previous| previous >= id) {
            return Err(Error::corrupt(&self.name, "its entries are not in order"));
        }
        Ok(())
    }

    fn resolve_in_order(
        &self,
        entry: Entry,
        previous: &mut Option<BlobId>,
        rows: &mut Rows,
    ) -> Result<(BlobId, Location)> {
        self.expect_order(previous, entry.id)?;
        let number = entry.row as usize / PAGE_ROWS;
        let page = match rows.pages.iter().find(|(known, _)| *known == number) {
            Some((_, page)) => Arc::clone(page),
            None => {
                let page = Arc::new(self.open_rows(self.local(self.rows_range(entry.row)?)?, entry.row)?);
                if rows.pages.len() >= ROW_PAGES_KEPT {
                    rows.pages.remove(0);
                }
                rows.pages.push((number, Arc::clone(&page)));
                page
            }
        };
        Ok((entry.id, self.locate(entry, &page)?))
    }

    fn locate(&self, entry: Entry, rows: &[u8]) -> Result<Location> {
        let row =
            rows.as_chunks::<ROW_LEN>().0.get(entry.row as usize % PAGE_ROWS).ok_or_else(|| too_short(&self.name))?;
        Ok(Location { pack: PackRow::read(row), place: entry.place, at: entry.at, length: entry.length })
    }

    /// All pages in order, in parts of a few MiB.
    pub(super) fn parts(&self) -> impl Iterator<Item = Pages> + Send + use<> {
        let part = |pages: u64| move |first: u64| first..pages.min(first + PART_PAGES);
        let (entries, rows) = (self.entry_pages(), u64::from(self.rows).div_ceil(PAGE_ROWS as u64));
        let starts = |pages: u64| (0..pages.div_ceil(PART_PAGES)).map(|part| part * PART_PAGES);
        starts(entries).map(part(entries)).map(Pages::Entries).chain(starts(rows).map(part(rows)).map(Pages::Rows))
    }

    /// Where pages lie; they must be some that there are.
    pub(super) fn range_of(&self, pages: &Pages) -> Range<u64> {
        let (first, last) = match pages {
            Pages::Entries(pages) => (self.page_range(pages.start), self.page_range(pages.end - 1)),
            Pages::Rows(pages) => (self.rows_page_range(pages.start), self.rows_page_range(pages.end - 1)),
        };
        first.start..last.end
    }

    /// Opens pages from their bytes as stored, and lets go of them.
    pub(super) fn authenticate(&self, pages: &Pages, stored: &[u8]) -> Result<()> {
        let mut rest = stored;
        let (Pages::Entries(numbers) | Pages::Rows(numbers)) = pages;
        for number in numbers.clone() {
            let range = match pages {
                Pages::Entries(_) => self.page_range(number),
                Pages::Rows(_) => self.rows_page_range(number),
            };
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (page, after) = rest.split_at_checked(length).ok_or_else(|| too_short(&self.name))?;
            match pages {
                Pages::Entries(_) => self.open_page(page.to_vec(), number)?,
                Pages::Rows(_) => self.open_rows_page(page.to_vec(), number)?,
            };
            rest = after;
        }
        Ok(())
    }

    fn page_range(&self, number: u64) -> Range<u64> {
        let start = HEAD_LEN as u64 + number * PAGE_STORED as u64;
        let entries = (self.entries - number * PAGE_ENTRIES as u64).min(PAGE_ENTRIES as u64);
        start..start + entries * ENTRY_LEN as u64 + TAG_LEN as u64
    }

    fn rows_range(&self, row: u32) -> Result<Range<u64>> {
        if row >= self.rows {
            return Err(Error::corrupt(&self.name, "an entry names a pack that isn't in the table"));
        }
        Ok(self.rows_page_range(u64::from(row) / PAGE_ROWS as u64))
    }

    fn rows_page_range(&self, number: u64) -> Range<u64> {
        let pages = HEAD_LEN as u64 + self.entries * ENTRY_LEN as u64 + self.entry_pages() * TAG_LEN as u64;
        let start = pages + number * ROW_PAGE_STORED as u64;
        let rows = (u64::from(self.rows) - number * PAGE_ROWS as u64).min(PAGE_ROWS as u64);
        start..start + rows * ROW_LEN as u64 + TAG_LEN as u64
    }

    fn page(&self, number: u64) -> Result<Vec<u8>> {
        self.open_page(self.local(self.page_range(number))?, number)
    }

    fn open_page(&self, mut stored: Vec<u8>, number: u64) -> Result<Vec<u8>> {
        #[expect(clippy::cast_possible_truncation, reason = "expected_length checked that page numbers fit")]
        self.opener.open(number as u32 + 1, Part::Page, "", &mut stored, &self.name)?;
        Ok(stored)
    }

    fn open_rows(&self, stored: Vec<u8>, row: u32) -> Result<Vec<u8>> {
        self.open_rows_page(stored, u64::from(row) / PAGE_ROWS as u64)
    }

    fn open_rows_page(&self, mut stored: Vec<u8>, page: u64) -> Result<Vec<u8>> {
        let number = self.entry_pages() + page + 1;
        #[expect(clippy::cast_possible_truncation, reason = "expected_length checked that page numbers fit")]
        self.opener.open(number as u32, Part::PackTable, "", &mut stored, &self.name)?;
        Ok(stored)
    }

    fn local(&self, range: Range<u64>) -> Result<Vec<u8>> {
        #[expect(clippy::cast_possible_truncation, reason = "lengths of pages and offsets in memory")]
        match &self.source {
            Source::Memory(bytes) => {
                let slice = bytes.get(range.start as usize..range.end as usize).ok_or_else(|| too_short(&self.name))?;
                Ok(slice.to_vec())
            }
            Source::File(file, path) => {
                let mut buffer = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut buffer, range.start)
                    .map_err(|error| Error::file("read the cached index segment", path, error))?;
                Ok(buffer)
            }
            Source::Remote(..) => Err(Error::worker("a remote index segment was read as a local one")),
        }
    }

    /// Fetches the pages in which `id` is likely to be, if it is near the border of two, with one request.
    async fn fetch_likely(&self, remote: &Remote, id: &BlobId) -> Result<()> {
        if self.entries == 0 {
            return Ok(());
        }
        // Ids are uniform: how many of n entries come before this one is a binomial number, with a deviation of sqrt(n) / 2.
        let guess = ((u128::from(id.prefix()) * u128::from(self.entries)) >> 64) as u64;
        let off = self.entries.isqrt().min(LIKELY_MAX * PAGE_ENTRIES as u64 / 2);
        let first = guess.saturating_sub(off) / PAGE_ENTRIES as u64;
        let last = ((guess + off) / PAGE_ENTRIES as u64).min(self.entry_pages() - 1);
        let (begin, end) = (self.page_range(first).start, self.page_range(last).end);
        let is_known = {
            let pages = remote.pages.lock().unwrap_or_else(PoisonError::into_inner);
            (first..=last).all(|number| pages.contains_key(&self.page_range(number).start))
        };
        if first == last || is_known {
            return Ok(());
        }
        let stored = remote.store.get_range(&self.name, begin..end).await?;
        for number in first..=last {
            let range = self.page_range(number);
            #[expect(clippy::cast_possible_truncation, reason = "within what was fetched")]
            let part = (range.start - begin) as usize..(range.end - begin) as usize;
            let page = Bytes::from(self.open_page(stored.slice(part).into(), number)?);
            remote.keep(range.start, page);
        }
        Ok(())
    }

    /// Reads a page of a remote segment, or finds it among those read before.
    async fn fetch(
        &self,
        remote: &Remote,
        range: Range<u64>,
        open: impl FnOnce(Vec<u8>) -> Result<Vec<u8>>,
    ) -> Result<Bytes> {
        let (start, Remote { store, tail, pages }) = (range.start, remote);
        let known = pages.lock().unwrap_or_else(PoisonError::into_inner).get(&start).cloned();
        if let Some(page) = known {
            return Ok(page);
        }
        let tail_start = self.length.saturating_sub(tail.len() as u64);
        let stored = match range.start.checked_sub(tail_start) {
            #[expect(clippy::cast_possible_truncation, reason = "within the tail")]
            Some(start) => tail.slice(start as usize..(range.end - tail_start) as usize),
            None => store.get_range(&self.name, range).await?,
        };
        let page = Bytes::from(open(stored.into())?);
        remote.keep(start, page.clone());
        Ok(page)
    }
}

impl Remote {
    fn keep(&self, start: u64, page: Bytes) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= PAGES_KEPT {
            pages.clear();
        }
        pages.insert(start, page);
    }
}

/// What one page tells of an id.
enum Looked {
    Found(Entry),
    Absent,
    /// The id would be in another page.
    Outside,
}

fn look_in(page: &[u8], id: &BlobId, object: &str) -> Result<Looked> {
    let entries = page.as_chunks::<ENTRY_LEN>().0;
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) if id_of(first) <= *id && *id <= id_of(last) => {
            match entries.binary_search_by(|entry| id_of(entry).cmp(id)) {
                Ok(at) => Ok(Looked::Found(Entry::read(&entries[at], object)?)),
                Err(_) => Ok(Looked::Absent),
            }
        }
        _ => Ok(Looked::Outside),
    }
}

/// An interpolation search over pages: ids are uniform, so the first guess is rarely off by more than a page or two.
struct Search<'a> {
    id: &'a BlobId,
    /// Pages that may still hold the id.
    pages: Range<u64>,
    /// The prefixes between which the ids of those pages lie.
    bounds: (u64, u64),
    looked_at: u64,
    found: Option<Entry>,
    position: Option<u64>,
    steps: u32,
}

impl<'a> Search<'a> {
    fn new(segment: &Segment, id: &'a BlobId) -> Self {
        let pages = 0..segment.entry_pages();
        Self { id, pages, bounds: (0, u64::MAX), looked_at: 0, found: None, position: None, steps: 0 }
    }

    /// The page to look at next, if any is left.
    fn next_page(&mut self) -> Option<u64> {
        if self.found.is_some() || self.pages.is_empty() {
            return None;
        }
        let width = self.pages.end - self.pages.start;
        self.steps += 1;
        // Entries that aren't uniform (a hostile segment) must not make it slow: halve from the fourth step on.
        let offset = if self.steps > 3 {
            width / 2
        } else {
            let (low, high) = self.bounds;
            let share = u128::from(self.id.prefix().saturating_sub(low)) * u128::from(width);
            #[expect(clippy::cast_possible_truncation, reason = "bounded by the width")]
            let offset = (share / u128::from(high.saturating_sub(low).max(1))).min(u128::from(width - 1)) as u64;
            offset
        };
        self.looked_at = self.pages.start + offset;
        Some(self.looked_at)
    }

    /// Looks for the id in the page that [`Search::next_page`] named, and narrows the range.
    fn look(&mut self, page: &[u8], object: &str) -> Result<()> {
        let entries = page.as_chunks::<ENTRY_LEN>().0;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(too_short(object));
        };
        if *self.id < id_of(first) {
            self.pages.end = self.looked_at;
            self.bounds.1 = id_of(first).prefix();
        } else if *self.id > id_of(last) {
            self.pages.start = self.looked_at + 1;
            self.bounds.0 = id_of(last).prefix();
        } else {
            self.pages = 0..0;
            if let Ok(at) = entries.binary_search_by(|entry| id_of(entry).cmp(self.id)) {
                self.found = Some(Entry::read(&entries[at], object)?);
                self.position = Some(self.looked_at * PAGE_ENTRIES as u64 + at as u64);
            }
        }
        Ok(())
    }
}

/// A shared segment.
pub(super) type Shared = Arc<Segment>;
