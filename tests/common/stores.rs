//! Object stores put in front of another: one wrapper that passes every call by
//! a [`Hook`], and the hooks that count, fail, wait and lie.
//!
//! Ranges are coalesced and listings paged as a cloud store's client does it,
//! so what is counted is what a cloud would bill.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// How many names a listing returns for one request.
const PAGE: u64 = 1000;

/// What a call asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Stores an object, whatever the mode.
    Put,
    /// Reads an object or a range of one.
    Get,
    /// Reads an object's length and time.
    Head,
    /// Lists one page of names.
    List,
    /// Deletes one object.
    Delete,
    /// Copies or renames an object.
    Copy,
}

/// One call, as a hook sees it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Told apart from every other call by this.
    pub number: u64,
    /// What it asks for.
    pub kind: Kind,
    /// The object's name, or the prefix of a listing.
    pub name: String,
    /// Bytes that it would store.
    pub bytes_written: u64,
    /// Whether it would replace an object that has the name.
    pub overwrites: bool,
}

/// Stands before and behind every call of a [`HookedStore`].
#[async_trait]
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// Runs first; an error is returned instead of making the call.
    async fn before(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// Runs when the store has done what it was asked; an error is returned instead of its answer.
    async fn after(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    /// The call is over: answered, failed, or dropped.
    fn ended(&self, _call: &Call) {}

    /// Whether the call is answered as done without being made.
    fn is_pretended(&self, _call: &Call) -> bool {
        false
    }

    /// Whether a read ends early, without a word.
    fn is_cut(&self, _call: &Call) -> bool {
        false
    }

    /// A read was answered with this many bytes.
    fn bytes_read(&self, _bytes: u64) {}

    /// May change what a conditional put asks for.
    fn put_mode(&self, mode: PutMode) -> PutMode {
        mode
    }
}

/// A store behind a hook.
#[derive(Debug)]
pub struct HookedStore<H> {
    inner: Arc<dyn ObjectStore>,
    hook: Arc<H>,
}

impl<H> Clone for HookedStore<H> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), hook: Arc::clone(&self.hook) }
    }
}

impl<H: Hook> HookedStore<H> {
    /// Puts `hook` in front of `inner`.
    pub fn with_hook(inner: Arc<dyn ObjectStore>, hook: H) -> Self {
        Self { inner, hook: Arc::new(hook) }
    }

    /// This store as the library takes one; clones share the hook.
    pub fn shared(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.clone())
    }

    /// The hook.
    pub fn hook(&self) -> &H {
        &self.hook
    }

    fn begin(&self, kind: Kind, name: &str, bytes_written: u64) -> Begun<H> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        let call = Call { number, kind, name: name.to_owned(), bytes_written, overwrites: false };
        Begun { hook: Arc::clone(&self.hook), call }
    }

    /// Counts a listing's further pages and passes the results on.
    fn paged(
        &self,
        prefix: Option<&Path>,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let call = Arc::new(self.begin(Kind::List, prefix.map_or("", AsRef::as_ref), 0));
        let first = Arc::clone(&call);
        let begin = futures::stream::once(async move { first.before().await });
        let further = Arc::clone(&call);
        let entries = list.enumerate().then(move |(number, entry)| {
            let call = Arc::clone(&further);
            async move {
                let number = number as u64;
                if number > 0 && number.is_multiple_of(PAGE) {
                    call.before().await?;
                }
                entry
            }
        });
        let end = futures::stream::once(async move { call.after().await });
        begin
            .map_ok(|()| None)
            .chain(entries.map_ok(Some))
            .chain(end.map_ok(|()| None))
            .try_filter_map(|entry| std::future::ready(Ok(entry)))
            .scan(false, |failed, entry| {
                let stop = std::mem::replace(failed, entry.is_err());
                std::future::ready((!stop).then_some(entry))
            })
            .boxed()
    }
}

/// A call under way, which ends when this is dropped.
struct Begun<H: Hook> {
    hook: Arc<H>,
    call: Call,
}

impl<H: Hook> Begun<H> {
    async fn before(&self) -> Result<()> {
        self.hook.before(&self.call).await
    }

    async fn after(&self) -> Result<()> {
        self.hook.after(&self.call).await
    }
}

impl<H: Hook> Drop for Begun<H> {
    fn drop(&mut self) {
        self.hook.ended(&self.call);
    }
}

impl<H> fmt::Display for HookedStore<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hooked {}", self.inner)
    }
}

#[async_trait]
impl<H: Hook> ObjectStore for HookedStore<H> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut opts: PutOptions) -> Result<PutResult> {
        let mut call = self.begin(Kind::Put, location.as_ref(), payload.content_length() as u64);
        call.call.overwrites = opts.mode == PutMode::Overwrite;
        call.before().await?;
        if self.hook.is_pretended(&call.call) {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        opts.mode = self.hook.put_mode(opts.mode);
        let result = self.inner.put_opts(location, payload, opts).await?;
        call.after().await?;
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("{location}: what must be created once can't be a multipart upload")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let call = self.begin(if head { Kind::Head } else { Kind::Get }, location.as_ref(), 0);
        call.before().await?;
        let result = self.inner.get_opts(location, options).await?;
        if !head {
            self.hook.bytes_read(result.range.end.saturating_sub(result.range.start));
        }
        call.after().await?;
        if !head && self.hook.is_cut(&call.call) {
            return Ok(cut(result));
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let call = store.begin(Kind::Delete, location.as_ref(), 0);
                call.before().await?;
                if store.hook.is_pretended(&call.call) {
                    return Ok(location);
                }
                store.inner.delete(&location).await?;
                call.after().await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.paged(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.paged(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let call = self.begin(Kind::List, prefix.map_or("", AsRef::as_ref), 0);
        call.before().await?;
        let result = self.inner.list_with_delimiter(prefix).await?;
        for _ in 0..(result.common_prefixes.len() + result.objects.len()).saturating_sub(1) as u64 / PAGE {
            call.before().await?;
        }
        call.after().await?;
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, mut options: CopyOptions) -> Result<()> {
        let mut call = self.begin(Kind::Copy, to.as_ref(), 0);
        call.call.overwrites = matches!(options.mode, CopyMode::Overwrite);
        call.before().await?;
        if matches!(options.mode, CopyMode::Create) && matches!(self.hook.put_mode(PutMode::Create), PutMode::Overwrite)
        {
            options.mode = CopyMode::Overwrite;
        }
        self.inner.copy_opts(from, to, options).await?;
        call.after().await
    }
}

/// The first half of what was read, under the length of all of it.
fn cut(mut result: GetResult) -> GetResult {
    let half = (result.range.end - result.range.start) / 2;
    if let GetResultPayload::Stream(stream) = result.payload {
        let first = stream.take(1).map_ok(move |bytes| bytes.slice(..usize::try_from(half).unwrap()));
        result.payload = GetResultPayload::Stream(first.boxed());
    }
    result
}

/// What a [`CountingStore`] has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of each kind; a kind that wasn't used is missing.
    pub calls: BTreeMap<Kind, u64>,
    /// Bytes that reads were answered with.
    pub bytes_read: u64,
    /// Bytes that puts carried.
    pub bytes_written: u64,
    /// Every call, in the order in which they were begun.
    pub log: Vec<(Kind, String)>,
}

impl Counts {
    /// Counts a call that begins.
    pub fn count(&mut self, call: &Call) {
        *self.calls.entry(call.kind).or_default() += 1;
        self.bytes_written += call.bytes_written;
        self.log.push((call.kind, call.name.clone()));
    }

    /// Calls of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.calls.get(&kind).copied().unwrap_or_default()
    }

    /// Calls of every kind.
    pub fn total(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Calls of one kind on names that begin with `prefix`.
    pub fn under(&self, kind: Kind, prefix: &str) -> u64 {
        self.log.iter().filter(|(called, name)| *called == kind && name.starts_with(prefix)).count() as u64
    }
}

/// Counts calls and bytes.
#[derive(Debug, Default)]
pub struct Counter(Mutex<Counts>);

/// A store that counts what is asked of it.
pub type CountingStore = HookedStore<Counter>;

impl CountingStore {
    /// Counts the calls on `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with_hook(inner, Counter::default())
    }

    /// The counts since the last take, which begin anew.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.hook.0.lock().unwrap())
    }
}

#[async_trait]
impl Hook for Counter {
    async fn before(&self, call: &Call) -> Result<()> {
        self.0.lock().unwrap().count(call);
        Ok(())
    }

    fn bytes_read(&self, bytes: u64) {
        self.0.lock().unwrap().bytes_read += bytes;
    }
}

/// What the caller is told of a call that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An error that says nothing about whether the call was carried out.
    Unknown,
    /// That the object exists already: a retry met its own write, or a retryable conflict.
    Exists,
    /// That access is denied, which no retry will change.
    Denied,
    /// That there is no such object.
    Missing,
    /// Nothing, ever.
    Silence,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the store carries the call out all the same.
    pub done: bool,
    /// What the caller is told.
    pub reply: Reply,
}

impl Fault {
    /// Fails and nothing was done.
    pub const BEFORE: Fault = Fault { done: false, reply: Reply::Unknown };
    /// Is carried out and reported failed.
    pub const AFTER: Fault = Fault { done: true, reply: Reply::Unknown };
    /// Never answers and nothing was done.
    pub const HANG: Fault = Fault { done: false, reply: Reply::Silence };
}

type Plan = Box<dyn Fn(&Call) -> Option<Fault> + Send + Sync>;

/// Makes calls fail by a plan.
pub struct Faults {
    plan: Plan,
    /// What the call with this name and kind is to be told after it is done.
    pending: Mutex<BTreeMap<(Kind, String), Reply>>,
    injected: AtomicU64,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("injected", &self.injected).finish_non_exhaustive()
    }
}

/// A store whose calls fail by a plan.
pub type FaultyStore = HookedStore<Faults>;

impl FaultyStore {
    /// Asks `plan` about every call.
    pub fn new(inner: Arc<dyn ObjectStore>, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let faults = Faults { plan: Box::new(plan), pending: Mutex::default(), injected: AtomicU64::new(0) };
        Self::with_hook(inner, faults)
    }

    /// The `k`-th call (from 0) of this kind on a name that begins with `prefix` goes wrong, and no other.
    pub fn nth(inner: Arc<dyn ObjectStore>, kind: Kind, prefix: &str, k: u64, fault: Fault) -> Self {
        let prefix = prefix.to_owned();
        let seen = AtomicU64::new(0);
        Self::new(inner, move |call| {
            let hit = call.kind == kind && call.name.starts_with(&prefix);
            (hit && seen.fetch_add(1, Ordering::SeqCst) == k).then_some(fault)
        })
    }

    /// From its `k`-th call (from 0) of any kind on, nothing works any more: the process was cut off.
    pub fn dead_after(inner: Arc<dyn ObjectStore>, k: u64) -> Self {
        let seen = AtomicU64::new(0);
        Self::new(inner, move |_| {
            (seen.fetch_add(1, Ordering::SeqCst) >= k).then_some(Fault { done: false, reply: Reply::Denied })
        })
    }

    /// Calls go wrong with this probability, before or after they are done, alike in every run that makes the
    /// same calls on each name in the same order.
    pub fn seeded(inner: Arc<dyn ObjectStore>, seed: u64, probability: f64) -> Self {
        let seen = Mutex::new(BTreeMap::<(Kind, String), u64>::new());
        Self::new(inner, move |call| {
            let number = {
                let mut seen = seen.lock().unwrap();
                let number = seen.entry((call.kind, call.name.clone())).or_default();
                *number += 1;
                *number
            };
            let mix = call.name.bytes().fold(seed ^ number << 8 ^ call.kind as u64, |mix, byte| {
                (mix ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let mut random = super::Random::new(mix);
            let fault = if random.chance(0.5) { Fault::BEFORE } else { Fault::AFTER };
            random.chance(probability).then_some(fault)
        })
    }

    /// How many calls were made to go wrong.
    pub fn injected(&self) -> u64 {
        self.hook.injected.load(Ordering::SeqCst)
    }
}

impl Faults {
    async fn reply(&self, call: &Call, reply: Reply) -> Result<()> {
        let path = call.name.clone();
        let source = format!("injected fault in {:?}", call.kind).into();
        match reply {
            Reply::Unknown => Err(Error::Generic { store: "faulty", source }),
            Reply::Exists => Err(Error::AlreadyExists { path, source }),
            Reply::Denied => Err(Error::PermissionDenied { path, source }),
            Reply::Missing => Err(Error::NotFound { path, source }),
            Reply::Silence => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Hook for Faults {
    async fn before(&self, call: &Call) -> Result<()> {
        let Some(fault) = (self.plan)(call) else { return Ok(()) };
        self.injected.fetch_add(1, Ordering::SeqCst);
        if fault.done {
            self.pending.lock().unwrap().insert((call.kind, call.name.clone()), fault.reply);
            return Ok(());
        }
        self.reply(call, fault.reply).await
    }

    async fn after(&self, call: &Call) -> Result<()> {
        let reply = self.pending.lock().unwrap().remove(&(call.kind, call.name.clone()));
        match reply {
            Some(reply) => self.reply(call, reply).await,
            None => Ok(()),
        }
    }
}

/// Takes create-if-absent for overwrite.
#[derive(Debug)]
pub struct Overwrite;

/// A store that ignores create-if-absent and says nothing.
pub type OverwritingStore = HookedStore<Overwrite>;

impl OverwritingStore {
    /// Makes `inner` overwrite.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with_hook(inner, Overwrite)
    }
}

impl Hook for Overwrite {
    fn put_mode(&self, _: PutMode) -> PutMode {
        PutMode::Overwrite
    }
}

/// Refuses what credentials may leave out.
#[derive(Debug)]
pub struct Restraint {
    deletes: bool,
    overwrites: bool,
    pretends: bool,
}

/// A store whose credentials don't allow everything.
pub type RestrainedStore = HookedStore<Restraint>;

impl RestrainedStore {
    /// Allows `inner` neither to delete nor to overwrite.
    pub fn append_only(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with_hook(inner, Restraint { deletes: true, overwrites: true, pretends: false })
    }

    /// Doesn't allow to delete.
    pub fn without_deletes(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with_hook(inner, Restraint { deletes: true, overwrites: false, pretends: false })
    }

    /// Doesn't allow to overwrite.
    pub fn without_overwrites(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with_hook(inner, Restraint { deletes: false, overwrites: true, pretends: false })
    }

    /// Answers deletes and overwrites as done and makes none.
    pub fn pretending(inner: Arc<dyn ObjectStore>) -> Self {
        Self::with_hook(inner, Restraint { deletes: true, overwrites: true, pretends: true })
    }
}

impl Restraint {
    fn concerns(&self, call: &Call) -> bool {
        call.kind == Kind::Delete && self.deletes || call.overwrites && self.overwrites
    }
}

#[async_trait]
impl Hook for Restraint {
    async fn before(&self, call: &Call) -> Result<()> {
        if self.concerns(call) && !self.pretends {
            let source = format!("{:?} isn't allowed", call.kind).into();
            return Err(Error::PermissionDenied { path: call.name.clone(), source });
        }
        Ok(())
    }

    fn is_pretended(&self, call: &Call) -> bool {
        self.pretends && self.concerns(call)
    }
}

/// Waits before every call.
#[derive(Debug)]
pub struct Latency(Duration);

/// A store some way off. On tokio's paused clock the time that an operation takes, divided by the latency, is
/// how many requests it makes one after the other.
pub type SlowStore = HookedStore<Latency>;

impl SlowStore {
    /// Every call on `inner` takes this much longer.
    pub fn new(inner: Arc<dyn ObjectStore>, latency: Duration) -> Self {
        Self::with_hook(inner, Latency(latency))
    }
}

#[async_trait]
impl Hook for Latency {
    async fn before(&self, _: &Call) -> Result<()> {
        tokio::time::sleep(self.0).await;
        Ok(())
    }
}
