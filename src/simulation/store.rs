//! The object store of a simulation, as each client reaches it over a bad network.
//!
//! Every call takes a while, and is carried out at some moment in between, or
//! before or long after its caller was told that it failed, or never. All of
//! this is drawn from the case's seed in the order of the calls, and every call
//! is noted in the trace.
//!
//! Invariant: what is told as done is done, and a reading or listing shows what
//! was written before it began. Nothing else is promised.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::testing::Random;

/// What all clients share.
#[derive(Debug)]
pub(super) struct Network {
    objects: Arc<InMemory>,
    pub(super) begun: Instant,
    state: Mutex<State>,
    landed: Notify,
}

#[derive(Debug)]
struct State {
    random: Random,
    trace: Vec<String>,
    /// Whether nothing fails any more.
    calm: bool,
    under_way: usize,
    /// Snapshots' records that came to be there and that nobody has looked at.
    landed: Vec<String>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let state =
            State { random: Random::new(seed), trace: Vec::new(), calm: false, under_way: 0, landed: Vec::new() };
        let (objects, landed) = (Arc::new(InMemory::new()), Notify::new());
        Arc::new(Self { objects, begun: Instant::now(), state: Mutex::new(state), landed })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, without the network in front.
    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as Arc<dyn ObjectStore>
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, line: impl fmt::Display) {
        let line = format!("{:>9} {line}", self.begun.elapsed().as_millis());
        self.state().trace.push(line);
    }

    pub(super) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.state().trace)
    }

    /// Waits for the next record that comes to be there; its name.
    pub(super) async fn next_landed(&self) -> String {
        loop {
            let mut landed = std::mem::take(&mut self.state().landed).into_iter();
            if let Some(name) = landed.next() {
                self.state().landed.extend(landed);
                return name;
            }
            self.landed.notified().await;
        }
    }

    /// Lets nothing fail any more, and waits until all that was sent has arrived or is lost.
    pub(super) async fn calm_down(&self) {
        self.state().calm = true;
        while self.state().under_way > 0 {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// How a client's calls go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// The longest that a call usually takes each way, in milliseconds.
    pub(super) pace: u64,
    /// How probable it is that a call goes wrong.
    pub(super) trouble: f64,
    /// After so many calls the process is gone.
    pub(super) calls: Option<u64>,
}

/// One life of one client: the store as its process sees it.
#[derive(Clone, Debug)]
pub(super) struct Link(Arc<Process>);

#[derive(Debug)]
struct Process {
    network: Arc<Network>,
    name: String,
    line: Line,
    state: Mutex<Progress>,
    dead: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Progress {
    calls: u64,
    /// How many of the next calls go wrong.
    outage: u64,
}

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Get,
    List,
    Delete,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
struct Fate {
    /// When it is carried out, if ever.
    done: Option<Duration>,
    /// When its caller hears of it.
    heard: Duration,
    /// What the caller is told, if it isn't the truth.
    lie: Option<Lie>,
    /// Whether it is carried out though nobody waits for it any more.
    outlives: bool,
}

#[derive(Clone, Copy, Debug)]
enum Lie {
    Unknown,
    Exists,
}

impl Link {
    pub(super) fn new(network: &Arc<Network>, name: String, line: Line) -> Self {
        let (state, dead) = (Mutex::default(), watch::Sender::new(false));
        Self(Arc::new(Process { network: Arc::clone(network), name, line, state, dead }))
    }

    pub(super) fn shared(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.clone())
    }

    /// Waits until the process is gone.
    pub(super) async fn death(&self) {
        drop(self.0.dead.subscribe().wait_for(|dead| *dead).await);
    }

    fn is_dead(&self) -> bool {
        *self.0.dead.borrow()
    }

    /// What becomes of the next call.
    fn draw(&self, kind: Kind) -> Fate {
        let Line { pace, trouble, calls } = self.0.line;
        let mut process = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { random, calm, .. } = &mut *self.0.network.state();
        process.calls += 1;
        if calls.is_some_and(|calls| process.calls > calls) && !*calm {
            self.0.dead.send_replace(true);
        }
        let (there, back) = (delay(random, pace), delay(random, pace));
        let honest = Fate { done: Some(there), heard: there + back, lie: None, outlives: random.chance(0.5) };
        if process.outage == 0 && random.chance(trouble) {
            process.outage = if random.chance(0.6) { 1 } else { 1 + random.below(8) };
        }
        if *calm || process.outage == 0 {
            return honest;
        }
        process.outage -= 1;
        let lie = if kind == Kind::Put && random.chance(0.3) { Lie::Exists } else { Lie::Unknown };
        let done = match random.below(3) {
            0 => Some(there),
            1 if matches!(kind, Kind::Put | Kind::Delete) && matches!(lie, Lie::Unknown) => Some(late(random)),
            _ => None,
        };
        Fate { done, lie: Some(lie), outlives: true, ..honest }
    }

    /// Makes one call, which `act` carries out.
    async fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        name: &str,
        act: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        if self.is_dead() {
            return std::future::pending().await;
        }
        // The process may be gone with this call, which may arrive all the same.
        let fate = self.draw(kind);
        let what = format!("{} {kind:?} {name}", self.0.name);
        let (tell, told) = oneshot::channel();
        if let Some(done) = fate.done {
            let (link, what, name) = (self.clone(), what.clone(), name.to_owned());
            self.0.network.state().under_way += 1;
            tokio::spawn(async move {
                sleep(done).await;
                let unheard = tell.is_closed() || link.is_dead();
                if !unheard || fate.outlives {
                    let outcome = act.await;
                    let how = outcome.as_ref().map_or_else(describe, |_| "done");
                    link.0.network.note(format_args!("{what}: {how}{}", if unheard { ", unheard" } else { "" }));
                    if kind == Kind::Put && outcome.is_ok() && name.starts_with("commits/") {
                        link.0.network.state().landed.push(name);
                        link.0.network.landed.notify_one();
                    }
                    drop(tell.send(outcome));
                }
                link.0.network.state().under_way -= 1;
            });
        }
        sleep(fate.heard).await;
        let heard = match fate.lie {
            None => told.await.ok(),
            Some(lie) => {
                self.0.network.note(format_args!("{what}: told {lie:?}"));
                Some(Err(lie.error(name)))
            }
        };
        match heard {
            Some(answer) if !self.is_dead() => answer,
            // A process that is gone hears nothing, and does nothing more.
            _ => std::future::pending().await,
        }
    }

    /// What is there now and after a while: what came or went meanwhile shows or doesn't.
    async fn listing(self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let objects = &self.0.network.objects;
        let list = || objects.list(prefix.as_ref()).try_collect::<Vec<_>>();
        let before = list().await?;
        let pause = delay(&mut self.0.network.state().random, self.0.line.pace);
        sleep(pause).await;
        let mut found = list().await?;
        let random = &mut self.0.network.state().random;
        let is_in = |found: &[ObjectMeta], one: &ObjectMeta| found.iter().any(|other| other.location == one.location);
        let gone: Vec<_> = before.iter().filter(|one| !is_in(&found, one) && random.chance(0.5)).cloned().collect();
        found.retain(|one| is_in(&before, one) || random.chance(0.5));
        found.extend(gone);
        shuffle(&mut found, random);
        Ok(found)
    }
}

impl Lie {
    fn error(self, path: &str) -> Error {
        let source = "simulated".into();
        match self {
            Lie::Unknown => Error::Generic { store: "simulated", source },
            Lie::Exists => Error::AlreadyExists { path: path.to_owned(), source },
        }
    }
}

fn describe(error: &Error) -> &'static str {
    match error {
        Error::NotFound { .. } => "not found",
        Error::AlreadyExists { .. } => "exists",
        _ => "failed",
    }
}

/// How long a call takes one way: now and then very long.
fn delay(random: &mut Random, pace: u64) -> Duration {
    let millis = 1 + random.below(pace);
    Duration::from_millis(if random.chance(0.02) { 40 * millis } else { millis })
}

/// How late something arrives that was given up: seconds, or up to an hour.
fn late(random: &mut Random) -> Duration {
    const SOON: RangeInclusive<u64> = 100..=5_000;
    let most = if random.chance(0.8) { *SOON.end() } else { 3_600_000 };
    Duration::from_millis(SOON.start() + random.below(most))
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at as u64 + 1) as usize);
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the simulated store of {}", self.0.name)
    }
}

#[async_trait]
impl ObjectStore for Link {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        assert!(matches!(options.mode, PutMode::Create), "{location} may be overwritten");
        let (objects, path) = (Arc::clone(&self.0.network.objects), location.clone());
        let act = async move { objects.put_opts(&path, payload, options).await };
        self.call(Kind::Put, location.as_ref(), act).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("{location}: what must be created once can't be a multipart upload")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (objects, path) = (Arc::clone(&self.0.network.objects), location.clone());
        let act = async move { objects.get_opts(&path, options).await };
        self.call(Kind::Get, location.as_ref(), act).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let link = self.clone();
        let delete = move |location: Result<Path>| {
            let link = link.clone();
            async move {
                let location = location?;
                let (objects, path) = (Arc::clone(&link.0.network.objects), location.clone());
                let act = async move { objects.delete(&path).await };
                link.call(Kind::Delete, location.as_ref(), act).await.map(|()| location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (link, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let name = prefix.as_ref().map_or("", AsRef::as_ref).to_owned();
            link.call(Kind::List, &name, link.clone().listing(prefix)).await
        };
        stream::once(listed).map_ok(|found| stream::iter(found).map(Ok)).try_flatten().boxed()
    }

    fn list_with_offset(&self, _: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        panic!("nobody lists from {offset} on")
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (link, path) = (self.clone(), prefix.cloned());
        let act = async move {
            let network = &link.0.network;
            let mut listed = network.objects.list_with_delimiter(path.as_ref()).await?;
            shuffle(&mut listed.objects, &mut network.state().random);
            shuffle(&mut listed.common_prefixes, &mut network.state().random);
            Ok(listed)
        };
        self.call(Kind::List, prefix.map_or("", AsRef::as_ref), act).await
    }

    async fn copy_opts(&self, from: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        panic!("nobody copies {from}")
    }
}
