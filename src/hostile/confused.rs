//! By the holder of an append-only secret, who takes one thing for another: a node for a chunk, a tree for a file. What
//! others need must not seem to be looked after because of that.

use super::*;
use crate::blobs::{BlobWriter, Condemned, Evidence, NodeBuffer, WriteOptions};
use crate::id::BlobId;
use crate::index::{Location, SegmentBuilder};
use crate::pack::BlockKind;
use crate::registration::Registration;
use crate::testing::series::commit_files;
use crate::tree::{Payload, Piece, SequenceRoot};

/// That it is forgotten and can be undeleted.
const WINDOW: Duration = Duration::from_secs(90 * 24 * 3600);

/// Files each of which is one of these, taken for a chunk.
fn as_chunks(ids: &[BlobId]) -> Vec<Payload> {
    ids.iter().map(|id| Payload::Pieces(vec![Piece::Chunk { id: *id, length: 100, repeat: 1 }])).collect()
}

/// Files each of which is one of these, taken for the root of a sequence.
fn as_sequences(ids: &[BlobId]) -> Vec<Payload> {
    ids.iter().map(|id| Payload::Sequence(SequenceRoot { root: *id, length: 100, height: 0 })).collect()
}

impl World {
    /// A series that comes before all others when they are looked at in order.
    async fn first_series(&self) -> String {
        let server = self.server().await;
        let tag = |series: &str| server.keyring().series_tag(series);
        let mut names = (0..).map(|number| format!("made up {number}"));
        names.find(|name| ["old", SERIES, OTHER].into_iter().all(|other| tag(name) < tag(other))).unwrap()
    }

    /// Commits files of made-up content.
    async fn commit_made_up(&self, series: &str, files: Vec<Payload>) -> u64 {
        let server = self.server().await;
        let parts = server.parts().clone();
        let registration = Registration::begin(parts.clone(), series, "", server.mode()).await.unwrap();
        let evidence = Evidence::new(Condemned::default());
        let writer = BlobWriter::new(parts, registration.id(), evidence, WriteOptions::default());
        let nodes = NodeBuffer::new(Arc::clone(server.keyring()));
        let snapshot = commit_files(&server, registration, writer, nodes, files).await;
        snapshot.number
    }

    /// All nodes that are there.
    async fn nodes(&self) -> Vec<BlobId> {
        let packs = packs(&self.server().await).await;
        let blocks = packs.iter().flat_map(|pack| &pack.footer.blocks);
        let nodes = blocks.filter(|block| block.kind == BlockKind::Nodes);
        nodes.flat_map(|block| block.blobs.iter().map(|(id, _)| *id)).collect()
    }

    /// Says of each of some blobs that it is a chunk.
    async fn say_that_they_are_chunks(&self, ids: &[BlobId]) {
        let packs = packs(&self.server().await).await;
        let places = packs.iter().flat_map(|pack| pack.footer.places().map(|(place, entry)| (pack.row, place, entry)));
        let mut places = places.filter(|(_, place, _)| place.kind == BlockKind::Data);
        let (pack, place, entry) = places.next().unwrap();
        self.describe(ids, Location { pack, place, at: 0, length: entry.blobs[0].1 }).await;
    }

    /// Stores a segment that says of each of some blobs that it is there.
    async fn describe(&self, ids: &[BlobId], there: Location) {
        let server = self.server().await;
        let mut builder = SegmentBuilder::default();
        ids.iter().for_each(|id| builder.add_blob(*id, &there).unwrap());
        // One that isn't sound is stored all the same.
        drop(server.index().publish(builder, server.surroundings()).await);
    }

    async fn forget_for_now(&self, series: &str, number: u64) {
        let options = ForgetOptions::default().with_snapshot(series, number).with_undelete_for(WINDOW);
        let administrator = self.administrator().await;
        administrator.forget(&administrator.plan_forget(&options).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_is_taken_for_a_chunk_is_needed_with_all_below_it() {
    for lies in [false, true] {
        let world = World::new().await;
        let (nodes, series) = (world.nodes().await, world.first_series().await);
        world.commit_made_up(&series, as_chunks(&nodes)).await;
        if lies {
            world.say_that_they_are_chunks(&nodes).await;
        }
        world.forget(SERIES, &[3]).await.unwrap();
        world.on_day(20);
        let collected = world.collect().await;
        world.assert_nothing_lost("collected").await;
        if let (false, Err(error)) = (lies, &collected) {
            let said = error.to_string();
            assert!(said.contains(&format!("{series}#1")) && said.contains("forget that first"), "{said}");
        }
        world.forget(&series, &[1]).await.unwrap();
        world.forget(SERIES, &[4]).await.unwrap();
        world.on_day(40);
        for _ in 0..2 {
            assert!(world.collect().await.unwrap().finished);
        }
        assert!(!world.exists(world.commit_name(4)).await);
        world.assert_nothing_lost("collected").await;
        world.assert_sound("collected").await;
    }
}

/// The same beside what can be undeleted.
#[tokio::test]
async fn what_can_be_undeleted_is_whole_whatever_else_was_forgotten() {
    for forge in [as_chunks, as_sequences] {
        let world = World::new().await;
        let (nodes, series) = (world.nodes().await, world.first_series().await);
        world.commit_made_up(&series, forge(&nodes)).await;
        world.forget_for_now(&series, 1).await;
        world.forget_for_now(SERIES, 6).await;
        world.on_day(20);
        let options = GcOptions::default().with_wait(Duration::ZERO).with_waste_max(0.0);
        assert!(world.collect_with(&options).await.unwrap().finished);
        let administrator = world.administrator().await;
        let undeleted = administrator.undelete(SERIES, 6).await.unwrap();
        assert_eq!(read(&administrator, &undeleted, "file/5").await, Random::new(5).bytes(5000));
        world.acknowledged.lock().unwrap().remove(&(SERIES.to_owned(), 6));
        world.assert_nothing_lost("undeleted").await;
    }
}

/// The root of a tree that nobody needs any more but a writer that runs.
async fn root_of_old(relying: &forged::Relying) -> BlobId {
    let server = relying.world.server().await;
    let old = server.timelines().recorded(&server.keyring().series_tag("old"), 1).await.unwrap();
    old.unwrap().root
}

/// What is condemned is stored again for a writer that relies on it, whoever else says to need a part of that.
#[tokio::test]
async fn what_a_writer_relies_on_is_rescued_whatever_others_say_to_need() {
    for forge in [as_chunks, as_sequences] {
        let relying = forged::Relying::new().await;
        let root = root_of_old(&relying).await;
        let series = relying.world.first_series().await;
        // The first mark comes by the root, and not by what is below it.
        relying.world.commit_made_up(&series, forge(&[root])).await;
        relying.world.forget_for_now(&series, 1).await;
        let administrator = relying.world.administrator().await;
        let plan = administrator.plan_gc(&GcOptions::default().with_wait(Duration::ZERO)).await.unwrap();
        let forged::Relying { world, writer, content } = relying;
        let snapshot = writer.commit(CommitOptions::default()).await.unwrap();
        assert!(administrator.gc(plan, Arc::new(NoProgress)).await.unwrap().finished);
        assert!(read(&world.administrator().await, &snapshot, "f").await == content);
    }
}

/// Nor is anything passed over by the second mark because something else was committed meanwhile.
#[tokio::test]
async fn what_was_committed_meanwhile_is_rescued_whatever_else_was() {
    for forge in [as_chunks, as_sequences] {
        let relying = forged::Relying::new().await;
        let root = root_of_old(&relying).await;
        let forged::Relying { world, writer, content } = relying;
        assert!(!world.collect().await.unwrap().finished, "it waits for the writer");
        let snapshot = writer.commit(CommitOptions::default()).await.unwrap();
        let series = world.first_series().await;
        world.commit_made_up(&series, forge(&[root])).await;
        let said = world.collect().await.unwrap_err().to_string();
        assert!(said.contains(&format!("{series}#1")) && said.contains("forget that first"), "{said}");
        assert!(read(&world.administrator().await, &snapshot, "f").await == content);
        world.forget_for_now(&series, 1).await;
        world.forget_for_now(SERIES, 1).await;
        assert!(world.collect().await.unwrap().finished);
        let administrator = world.administrator().await;
        let undeleted = administrator.undelete(SERIES, 1).await.unwrap();
        assert!(read(&administrator, &undeleted, "f").await == content);
    }
}

/// A segment in which one entry can't be is damaged as a whole, and stops nobody.
#[tokio::test]
async fn entries_that_cannot_be_stop_nobody() {
    for change in [0, 1, 2] {
        let world = World::new().await;
        let packs = packs(&world.server().await).await;
        let ids: Vec<_> = packs.iter().flat_map(|pack| pack.ids()).collect();
        let (place, entry) = packs[0].footer.places().next().unwrap();
        let mut there = Location { pack: packs[0].row, place, at: 0, length: entry.blobs[0].1 };
        match change {
            0 => there.length = 0,
            1 => there.place.stored_len = 0,
            _ => there.at = there.place.plain_len,
        }
        world.describe(&ids, there).await;
        world.commit(SERIES, 70).await.unwrap();
        // What is there already, once more.
        world.commit(OTHER, 5).await.unwrap();
        world.forget(SERIES, &[3]).await.unwrap();
        world.on_day(20);
        assert!(world.collect().await.unwrap().finished);
        assert!(!world.exists(world.commit_name(3)).await);
        world.assert_nothing_lost("collected").await;
        let report = world.repair(&RepairOptions::default()).await.unwrap();
        assert!(report.is_complete() && report.deleted == 1, "{report:?}");
        world.assert_sound("repaired").await;
    }
}
