//! What the present credentials allow on a store, found by trying it.
//!
//! Owns one object of its own, `probes/<32 hex>`, and touches no other. Readers
//! ignore such objects and collections delete them, since a client that may not
//! delete can't remove its own. The body is plain text: a probe needs no key.
//!
//! Each answer is held against what is then there, as a store can say "done" of
//! what it didn't do.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use object_store::{Error as Failure, ObjectStoreExt, PutMode};

use crate::clock::Surroundings;
use crate::error::{Error, Result};
use crate::id::ProbeId;
use crate::layout::{self, Name};
use crate::store::{Intent, Location, Store, is_denied, path};

/// A probe's body has at most this many bytes.
const PROBE_MAX: u64 = 1024;

/// Whether a store allows an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Right {
    /// It did what was asked.
    Allowed,
    /// It refused, or answered that it did and didn't.
    Refused,
    /// It failed in another way, or it couldn't be tried; why.
    Unknown(String),
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::Allowed => f.write_str("allowed"),
            Right::Refused => f.write_str("refused"),
            Right::Unknown(reason) => write!(f, "not known: {reason}"),
        }
    }
}

/// An operation on a store that a right is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum StoreOperation {
    /// Listing names.
    List,
    /// Creating an object on the condition that its name is free.
    Create,
    /// Reading an object.
    Read,
    /// Creating a name, on that condition, that exists: must always be refused.
    CreateAgain,
    /// Writing an object without a condition, over one that exists.
    Overwrite,
    /// Deleting an object.
    Delete,
}

impl fmt::Display for StoreOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreOperation::List => "list",
            StoreOperation::Create => "create",
            StoreOperation::Read => "read",
            StoreOperation::CreateAgain => "create an existing name",
            StoreOperation::Overwrite => "overwrite",
            StoreOperation::Delete => "delete",
        })
    }
}

/// What a client of a store should be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreAccess {
    /// List, create and read, and neither overwrite nor delete: what a machine needs that only adds to the backup.
    AppendOnly,
    /// List, create, read and delete: what forgetting, collecting and repairing need.
    Administrator,
    /// List and read, and nothing else.
    ReadOnly,
}

/// How a right differs from what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mismatch {
    /// It is allowed and should be refused.
    TooMuch,
    /// It is refused and should be allowed.
    TooLittle,
    /// Whether it is allowed could not be found out.
    Unknown,
}

/// What the present credentials allow on a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreRights {
    /// Listing names.
    pub list: Right,
    /// Creating an object on the condition that its name is free, as everything in a repository is created.
    pub create: Right,
    /// Reading an object.
    pub read: Right,
    /// Creating, on that condition, a name that exists; where this is allowed, conditional writes are not enforced,
    /// and several writers would destroy each other's work.
    pub create_again: Right,
    /// Writing without a condition over an object that exists. No repository needs it.
    pub overwrite: Right,
    /// Deleting an object.
    pub delete: Right,
    /// The probe object that is left because it couldn't be deleted; the next collection deletes it.
    pub left: Option<String>,
}

impl StoreRights {
    /// Tries what the present credentials allow at `at`, whether or not there is a repository.
    ///
    /// Works on an object of its own under `probes/`, so that nothing of a repository is touched. A right that
    /// depends on an object's name is found out for names like that one alone.
    ///
    /// # Errors
    /// When the location can't be used. What the store refuses is in the result.
    pub fn probe(at: impl Into<Location>) -> BoxFuture<'static, Result<Self>> {
        let store = Store::connect(&at.into(), Intent::Open);
        Box::pin(async move { Ok(Probe::new(&store?, &Surroundings::default()).run().await) })
    }

    /// Every operation with its right, in the order in which they were tried.
    pub fn all(&self) -> [(StoreOperation, &Right); 6] {
        [
            (StoreOperation::List, &self.list),
            (StoreOperation::Create, &self.create),
            (StoreOperation::Read, &self.read),
            (StoreOperation::CreateAgain, &self.create_again),
            (StoreOperation::Overwrite, &self.overwrite),
            (StoreOperation::Delete, &self.delete),
        ]
    }

    /// What is not as it should be for a client that is to have this access; empty if all is.
    pub fn mismatches(&self, access: StoreAccess) -> Vec<(StoreOperation, Mismatch)> {
        let mismatch = |(operation, right): (StoreOperation, &Right)| {
            let mismatch = match (right, access.wants(operation)?) {
                (Right::Unknown(_), _) => Mismatch::Unknown,
                (Right::Allowed, false) => Mismatch::TooMuch,
                (Right::Refused, true) => Mismatch::TooLittle,
                _ => return None,
            };
            Some((operation, mismatch))
        };
        self.all().into_iter().filter_map(mismatch).collect()
    }
}

impl StoreAccess {
    /// Whether an operation should be allowed; `None` where either will do.
    fn wants(self, operation: StoreOperation) -> Option<bool> {
        match (operation, self) {
            (StoreOperation::List | StoreOperation::Read, _) => Some(true),
            (StoreOperation::Create, _) => Some(self != StoreAccess::ReadOnly),
            // Without the right to create there is nothing to try it on.
            (StoreOperation::CreateAgain, StoreAccess::ReadOnly) => None,
            (StoreOperation::CreateAgain, _) => Some(false),
            (StoreOperation::Overwrite, StoreAccess::Administrator) => None,
            (StoreOperation::Overwrite, _) => Some(false),
            (StoreOperation::Delete, _) => Some(self == StoreAccess::Administrator),
        }
    }
}

/// A probe under way.
struct Probe<'a> {
    store: &'a Store,
    name: String,
}

impl<'a> Probe<'a> {
    fn new(store: &'a Store, surroundings: &Surroundings) -> Self {
        Self { store, name: Name::Probe(ProbeId::new(surroundings.random())).to_string() }
    }

    async fn run(&self) -> StoreRights {
        let list = right(self.store.list(layout::PROBES).await.map(drop));
        let create = self.put(PutMode::Create, "created").await;
        let read = self.read().await;
        let create_again = match create {
            Right::Allowed => self.replace(PutMode::Create, "created again").await,
            _ => Right::Unknown("no object could be created to try it on".to_owned()),
        };
        let overwrite = self.replace(PutMode::Overwrite, "overwritten").await;
        let delete = self.delete().await;
        // Also where a put was refused: it may have landed all the same.
        let left = match self.store.get(&self.name, PROBE_MAX).await {
            Ok(_) => Some(self.name.clone()),
            Err(error) if error.is_not_found() => None,
            Err(_) => (create == Right::Allowed && delete != Right::Allowed).then(|| self.name.clone()),
        };
        StoreRights { list, create, read, create_again, overwrite, delete, left }
    }

    fn body(&self, step: &str) -> Bytes {
        format!("{}: a test of what a store allows, of no other use; {step}\n", self.name).into()
    }

    async fn put(&self, mode: PutMode, step: &str) -> Right {
        let put =
            self.store.retry("create", &self.name, || self.store.put_mode(&self.name, self.body(step), mode.clone()));
        match put.await {
            Ok(()) => Right::Allowed,
            // A create that was repeated can meet itself.
            Err(error) if exists(&error) && mode == PutMode::Create && self.holds(step).await => Right::Allowed,
            Err(error) => refusal(&error),
        }
    }

    /// A put over what is there: counts as allowed only if it is there afterwards, where that can be seen.
    async fn replace(&self, mode: PutMode, step: &str) -> Right {
        match self.put(mode, step).await {
            Right::Allowed => match self.store.get(&self.name, PROBE_MAX).await {
                Ok(found) if found != self.body(step) => Right::Refused,
                _ => Right::Allowed,
            },
            other => other,
        }
    }

    async fn holds(&self, step: &str) -> bool {
        self.store.get(&self.name, PROBE_MAX).await.is_ok_and(|found| found == self.body(step))
    }

    /// Where the object isn't there, that this is said shows that reading is allowed.
    async fn read(&self) -> Right {
        match self.store.get(&self.name, PROBE_MAX).await {
            Err(error) if error.is_not_found() => Right::Allowed,
            other => right(other.map(drop)),
        }
    }

    async fn delete(&self) -> Right {
        let path = path(&self.name);
        match self.store.retry("delete", &self.name, || self.store.inner.delete(&path)).await {
            Ok(()) => match self.store.get(&self.name, PROBE_MAX).await {
                Ok(_) => Right::Refused,
                Err(_) => Right::Allowed,
            },
            Err(error) if error.is_not_found() => Right::Unknown("there was no object to try it on".to_owned()),
            Err(error) => refusal(&error),
        }
    }
}

fn right(result: Result<()>) -> Right {
    match result {
        Ok(()) => Right::Allowed,
        Err(error) => refusal(&error),
    }
}

/// What a failure says of a right.
fn refusal(error: &Error) -> Right {
    match failure(error) {
        Some(failure) if is_denied(failure) || exists(error) => Right::Refused,
        Some(failure) => Right::Unknown(failure.to_string()),
        None => Right::Unknown(error.to_string()),
    }
}

/// Whether a store said that the name exists, or that the condition of a put doesn't hold.
fn exists(error: &Error) -> bool {
    matches!(failure(error), Some(Failure::AlreadyExists { .. } | Failure::Precondition { .. }))
}

fn failure(error: &Error) -> Option<&Failure> {
    std::error::Error::source(error)?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    use super::*;
    use crate::testing::stores::{Fault, FaultyStore, Kind, OverwritingStore, Reply, RestrainedStore};

    const AGAIN: (StoreOperation, Mismatch) = (StoreOperation::CreateAgain, Mismatch::TooMuch);
    const OVERWRITE: (StoreOperation, Mismatch) = (StoreOperation::Overwrite, Mismatch::TooMuch);
    const DELETE: (StoreOperation, Mismatch) = (StoreOperation::Delete, Mismatch::TooMuch);

    async fn probe(store: Arc<dyn ObjectStore>) -> StoreRights {
        StoreRights::probe(store).await.unwrap()
    }

    fn memory() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    #[tokio::test]
    async fn a_store_that_allows_all_is_too_much_for_a_client_that_only_adds() {
        let inner = memory();
        let rights = probe(Arc::clone(&inner)).await;
        assert_eq!(rights.mismatches(StoreAccess::AppendOnly), [OVERWRITE, DELETE]);
        assert_eq!(rights.mismatches(StoreAccess::Administrator), []);
        assert_eq!((rights.create_again.clone(), rights.left), (Right::Refused, None));
        let store = Store::connect(&inner.into(), Intent::Open).unwrap();
        assert!(store.list(layout::PROBES).await.unwrap().is_empty(), "nothing stays behind");
    }

    #[tokio::test]
    async fn each_restraint_is_seen_alone_and_with_the_other() {
        let append_only = probe(RestrainedStore::append_only(memory()).shared()).await;
        assert_eq!(append_only.mismatches(StoreAccess::AppendOnly), []);
        assert_eq!(append_only.mismatches(StoreAccess::Administrator), [(StoreOperation::Delete, Mismatch::TooLittle)]);
        let left = append_only.left.as_deref().and_then(Name::parse);
        assert!(matches!(left, Some(Name::Probe(_))), "{append_only:?}");

        let no_deletes = probe(RestrainedStore::without_deletes(memory()).shared()).await;
        assert_eq!(no_deletes.mismatches(StoreAccess::AppendOnly), [OVERWRITE]);
        let no_overwrites = probe(RestrainedStore::without_overwrites(memory()).shared()).await;
        assert_eq!(no_overwrites.mismatches(StoreAccess::AppendOnly), [DELETE]);
        assert_eq!(no_overwrites.left, None);
    }

    #[tokio::test]
    async fn a_store_that_ignores_the_condition_is_recognised() {
        let rights = probe(OverwritingStore::new(memory()).shared()).await;
        assert_eq!(rights.mismatches(StoreAccess::AppendOnly), [AGAIN, OVERWRITE, DELETE]);
        assert_eq!(rights.mismatches(StoreAccess::Administrator), [AGAIN]);
    }

    #[tokio::test]
    async fn credentials_that_only_read_are_told_from_such_as_do_nothing() {
        let denied = |kinds: &'static [Kind]| {
            let fault = Fault { done: false, reply: Reply::Denied };
            FaultyStore::new(memory(), move |call| kinds.contains(&call.kind).then_some(fault)).shared()
        };
        let reader = probe(denied(&[Kind::Put, Kind::Delete, Kind::Copy])).await;
        assert_eq!(reader.mismatches(StoreAccess::ReadOnly), []);
        assert_eq!(reader.left, None);
        let nobody = probe(denied(&[Kind::Put, Kind::Delete, Kind::Get, Kind::Head, Kind::List])).await;
        let too_little = |operation| (operation, Mismatch::TooLittle);
        assert_eq!(
            nobody.mismatches(StoreAccess::ReadOnly),
            [too_little(StoreOperation::List), too_little(StoreOperation::Read)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_allows_and_refuses_nothing() {
        let store = FaultyStore::new(memory(), |call| (call.kind == Kind::Delete).then_some(Fault::BEFORE)).shared();
        let rights = probe(store).await;
        assert_eq!(rights.mismatches(StoreAccess::Administrator), [(StoreOperation::Delete, Mismatch::Unknown)]);
        assert!(rights.left.is_some());
    }

    #[tokio::test]
    async fn done_is_not_believed_unless_it_was_done() {
        let rights = probe(RestrainedStore::pretending(memory()).shared()).await;
        assert_eq!((&rights.overwrite, &rights.delete), (&Right::Refused, &Right::Refused));
        assert_eq!(rights.mismatches(StoreAccess::AppendOnly), []);
        assert!(rights.left.is_some());
    }
}
