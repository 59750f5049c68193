//! Changes on their way to the committer: in order, and bounded.
//!
//! Owns what waits, the room for it, and when there is enough for a commit.
//! Doesn't know what a change does. Whoever wants to submit reserves room first;
//! the room is given back when the submission is dropped, which is when it is
//! acknowledged or has failed. So what is queued and what is being committed
//! together stay within the bound, but for one submission larger than it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::error::Result;
use crate::feed::Receipt;
use crate::feed::chunks::Epoch;
use crate::tree::{Entry, Key, Payload};

/// What a change takes up beside its key and its payloads, roughly.
const OVERHEAD: usize = 256;

/// What one piece of a payload takes up.
const PIECE: usize = 40;

/// A change whose content is prepared.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(Key, Entry),
    Remove(Key),
    RemovePrefix(Key),
}

impl Op {
    /// Roughly the memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let payload = |payload: &Payload| match payload {
            Payload::Inline(bytes) => bytes.len(),
            Payload::Pieces(pieces) => pieces.len() * PIECE,
            Payload::Sequence(_) => PIECE,
        };
        let (Op::Put(key, _) | Op::Remove(key) | Op::RemovePrefix(key)) = self;
        let entry = match self {
            Op::Put(_, entry) => payload(&entry.content) + payload(&entry.metadata),
            _ => 0,
        };
        OVERHEAD + key.as_encoded().len() + entry
    }
}

/// Changes that one caller awaits together.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) ops: Vec<Op>,
    pub(super) position: Option<Bytes>,
    /// The first writer of chunks that its contents went to, if they went to any.
    pub(super) chunks: Option<Epoch>,
    reply: oneshot::Sender<Result<Receipt>>,
    arrived: Instant,
    room: Room,
}

impl Submission {
    /// What a caller wants to be done, and the reply that it waits for.
    pub(super) fn new(
        ops: Vec<Op>,
        position: Option<Bytes>,
        chunks: Option<Epoch>,
        room: Room,
    ) -> (Self, oneshot::Receiver<Result<Receipt>>) {
        let (reply, receiver) = oneshot::channel();
        (Self { ops, position, chunks, reply, arrived: Instant::now(), room }, receiver)
    }

    /// Tells its caller, if he still waits, and gives its room back.
    pub(super) fn answer(self, outcome: Result<Receipt>) {
        drop(self.reply.send(outcome));
    }

    /// Whether its caller still waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }
}

/// Room for a submission of some bytes, given back on drop.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    _permit: OwnedSemaphorePermit,
}

/// When a commit begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) interval: Duration,
    pub(super) changes_max: usize,
    pub(super) bytes_max: usize,
    pub(super) queue_max: usize,
}

/// The queue of one feed.
#[derive(Debug)]
pub(super) struct Queue {
    limits: Limits,
    waiting: Mutex<Waiting>,
    room: Arc<Semaphore>,
    /// Wakes the committer, the only one that waits.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    changes: usize,
    bytes: usize,
    /// Since when nothing more is taken.
    closed: Option<Instant>,
}

impl Waiting {
    fn is_full(&self, limits: &Limits) -> bool {
        self.changes >= limits.changes_max || self.bytes >= limits.bytes_max
    }
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Self {
        let permits = limits.queue_max.min(u32::MAX as usize);
        Self { limits, waiting: Mutex::default(), room: Arc::new(Semaphore::new(permits)), wake: Notify::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, first come, first served; nothing once the queue is closed.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<Room> {
        // What is larger than all of the room goes when nothing else is there.
        let permits = bytes.clamp(1, self.limits.queue_max.max(1));
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(permits).await.ok()?;
        Some(Room { bytes, _permit: permit })
    }

    /// Takes a submission, unless the queue is closed.
    pub(super) fn push(&self, submission: Submission) -> Option<()> {
        let mut waiting = self.waiting();
        if waiting.closed.is_some() {
            return None;
        }
        let wake = waiting.submissions.is_empty();
        waiting.changes += submission.ops.len().max(1);
        waiting.bytes += submission.room.bytes;
        waiting.submissions.push_back(submission);
        let full = waiting.is_full(&self.limits);
        drop(waiting);
        if wake || full {
            self.wake.notify_one();
        }
        Some(())
    }

    /// Takes nothing more; what is there can still be gathered.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.closed.get_or_insert_with(Instant::now);
        drop(waiting);
        self.room.close();
        self.wake.notify_one();
    }

    /// Since when the queue is closed.
    pub(super) fn closed(&self) -> Option<Instant> {
        self.waiting().closed
    }

    /// Closes, and drops what is there.
    pub(super) fn clear(&self) {
        self.close();
        let dropped = std::mem::take(&mut self.waiting().submissions);
        drop(dropped);
    }

    /// What the next commit takes, once the interval has passed since the first of it arrived, or there is enough;
    /// nothing when the queue is closed and empty.
    pub(super) async fn gather(&self) -> Option<Vec<Submission>> {
        loop {
            let due = {
                let mut waiting = self.waiting();
                match waiting.submissions.front() {
                    None if waiting.closed.is_some() => return None,
                    None => None,
                    Some(_) if waiting.closed.is_some() || waiting.is_full(&self.limits) => {
                        return Some(self.take(&mut waiting));
                    }
                    Some(first) => Some(first.arrived + self.limits.interval),
                }
            };
            // A wake between the look and the wait is kept, so none is missed.
            let Some(due) = due else {
                self.wake.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => return Some(self.take(&mut self.waiting())),
                () = self.wake.notified() => {}
            }
        }
    }

    /// The first submissions, up to the bounds of a commit but at least one.
    fn take(&self, waiting: &mut Waiting) -> Vec<Submission> {
        let (mut taken, mut changes, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = waiting.submissions.pop_front_if(|next| {
            let fits = |sum: usize, more: usize, max: usize| sum == 0 || sum + more <= max;
            fits(changes, next.ops.len(), self.limits.changes_max)
                && fits(bytes, next.room.bytes, self.limits.bytes_max)
        }) {
            changes += next.ops.len().max(1);
            bytes += next.room.bytes;
            taken.push(next);
        }
        waiting.changes -= changes;
        waiting.bytes -= bytes;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { interval: Duration::from_millis(20), changes_max: 4, bytes_max: 1000, queue_max: 2000 };

    async fn submit(queue: &Queue, changes: usize, bytes: usize) -> oneshot::Receiver<Result<Receipt>> {
        let room = queue.reserve(bytes).await.unwrap();
        let op = Op::Remove(Key::from_path("a").unwrap());
        let (submission, receiver) = Submission::new(vec![op; changes], None, None, room);
        queue.push(submission).unwrap();
        receiver
    }

    fn sizes(taken: &[Submission]) -> Vec<usize> {
        taken.iter().map(|submission| submission.ops.len()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_takes_what_came_within_the_interval() {
        let queue = Queue::new(LIMITS);
        let start = Instant::now();
        let _first = submit(&queue, 1, 10).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
        let _second = submit(&queue, 2, 10).await;
        let taken = queue.gather().await.unwrap();
        assert_eq!((sizes(&taken), start.elapsed()), (vec![1, 2], LIMITS.interval));
        // One that has waited while another commit was made doesn't wait again.
        let _third = submit(&queue, 1, 10).await;
        tokio::time::sleep(LIMITS.interval * 2).await;
        let start = Instant::now();
        queue.gather().await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_changes_or_bytes_begin_a_commit_at_once_and_no_batch_is_divided() {
        let queue = Queue::new(LIMITS);
        let start = Instant::now();
        let mut replies = Vec::new();
        for (changes, bytes) in [(2, 10), (1, 10), (3, 10), (1, 900), (1, 200), (9, 10)] {
            replies.push(submit(&queue, changes, bytes).await);
        }
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(sizes(&queue.gather().await.unwrap()));
        }
        assert_eq!(all, [vec![2, 1], vec![3, 1], vec![1], vec![9]]);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_committer_is_woken_by_what_fills_a_commit() {
        let queue = Arc::new(Queue::new(LIMITS));
        let gathering = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { (queue.gather().await.unwrap().len(), Instant::now()) }
        });
        let start = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let _first = submit(&queue, 1, 10).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let _second = submit(&queue, 3, 10).await;
        let (taken, at) = gathering.await.unwrap();
        assert_eq!((taken, at - start), (2, Duration::from_millis(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_given_back_when_a_submission_is_dropped() {
        let queue = Queue::new(LIMITS);
        let _one = submit(&queue, 1, 1500).await;
        let waits = tokio::time::timeout(Duration::from_secs(1), queue.reserve(600)).await;
        assert!(waits.is_err());
        let taken = queue.gather().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.reserve(600)).await.is_err());
        drop(taken);
        // More than all of the room goes alone.
        let large = queue.reserve(5000).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.reserve(1)).await.is_err());
        drop(large);
        assert!(queue.reserve(1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let queue = Queue::new(LIMITS);
        let room = queue.reserve(10).await.unwrap();
        let _one = submit(&queue, 1, 10).await;
        queue.close();
        let start = Instant::now();
        let (late, _reply) = Submission::new(Vec::new(), None, None, room);
        assert!(queue.push(late).is_none());
        assert!(queue.reserve(1).await.is_none());
        assert_eq!(queue.gather().await.unwrap().len(), 1);
        assert!(queue.gather().await.is_none());
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
