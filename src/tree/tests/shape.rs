//! What trees cost: the evenness of nodes, and what is read and written.

use futures::{StreamExt, TryStreamExt};

use super::*;

fn records(count: usize, length: usize) -> Model {
    let record = |i: usize| {
        let name = format!("users/u{:05}/contacts/{:08x}.vcf", i / 40, i.wrapping_mul(2_654_435_761));
        let content = vec![i as u8; length.saturating_sub(name.len() + 8)];
        (key(&name), file(&content))
    };
    (0..count).map(record).collect()
}

fn leaf_lengths(nodes: &Nodes) -> Vec<f64> {
    let nodes = nodes.nodes.lock().unwrap();
    nodes.values().filter(|node| node[0] == 0).map(|node| node.len() as f64).collect()
}

/// The mean length of a leaf, and of the leaf that an edit of a random byte hits.
fn evenness(splitter: &Splitter, length: usize) -> (f64, f64) {
    let nodes = Nodes::default();
    build(&nodes, splitter, &records(40_000, length));
    let lengths = leaf_lengths(&nodes);
    let sum = lengths.iter().sum::<f64>();
    (sum / lengths.len() as f64, lengths.iter().map(|length| length * length).sum::<f64>() / sum)
}

#[test]
fn leaves_are_even_and_about_4_kib_long() {
    for length in [100, 300] {
        let (mean, hit) = evenness(&normal(), length);
        assert!((3_000.0..5_000.0).contains(&mean), "{mean}");
        assert!(hit / mean < 1.6, "{}", hit / mean);
    }
}

/// `cargo test --release shapes -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn shapes() {
    for leaf_mean in [24, 32, 40, 48, 56, 64, 80, 128] {
        for length in [100, 300] {
            let splitter = Splitter::new(TreeParameters { leaf_mean, ..TreeParameters::default() }, [7; 32]);
            let (mean, hit) = evenness(&splitter, length);
            println!("leaf_mean {leaf_mean}, records of {length}: leaves of {mean:.0}, hit {:.2}", hit / mean);
        }
    }
}

#[test]
fn an_edit_of_a_large_tree_writes_a_path() {
    let (nodes, splitter) = (Nodes::default(), normal());
    let mut model = records(20_000, 200);
    let mut root = build(&nodes, &splitter, &model);
    let keys: Vec<_> = model.keys().cloned().collect();
    let (mut written, mut most, mut read) = (0, 0, 0);
    for step in 0..100 {
        let key = keys[step * 7919 % keys.len()].clone();
        let edit = if step % 3 == 0 { Edit::Remove } else { Edit::Put(file(&[step as u8; 150])) };
        match &edit {
            Edit::Put(entry) => drop(model.insert(key.clone(), entry.clone())),
            _ => drop(model.remove(&key)),
        }
        nodes.reads();
        nodes.written();
        root = apply(&nodes, &splitter, &root, vec![(key, edit)]);
        let now = nodes.written();
        (written, most, read) = (written + now, most.max(now), read + nodes.reads());
    }
    println!("an edit reads {} and writes {} nodes, at most {most}", read as f64 / 100.0, written as f64 / 100.0);
    assert!(written <= 500 && most <= 12 && read <= 1500);
    assert_eq!(root, build(&nodes, &splitter, &model));
}

#[test]
fn what_changes_nothing_writes_nothing() {
    let (nodes, splitter) = (Nodes::default(), normal());
    let model = records(5_000, 200);
    let root = build(&nodes, &splitter, &model);
    nodes.written();
    let mut edits: Vec<_> =
        model.iter().step_by(9).map(|(key, entry)| (key.clone(), Edit::Put(entry.clone()))).collect();
    edits.push((key("zzz"), Edit::Remove));
    edits.push((key("zzzz"), Edit::RemovePrefix));
    assert_eq!(apply(&nodes, &splitter, &root, edits), root);
    let subtree: Vec<_> = model.iter().filter(|(k, _)| k.starts_with(&key("users/u00010"))).collect();
    let mut edits = vec![(key("users/u00010"), Edit::RemovePrefix)];
    edits.extend(subtree.into_iter().map(|(key, entry)| (key.clone(), Edit::Put(entry.clone()))));
    assert_eq!(apply(&nodes, &splitter, &root, edits), root);
    assert_eq!(nodes.written(), 0);
}

#[test]
fn a_large_subtree_is_removed_without_reading_its_leaves() {
    let (nodes, splitter) = (Nodes::default(), normal());
    let mut model = records(20_000, 100);
    model.extend((0..20).map(|i| (key(&format!("z{i}")), file(b""))));
    model.insert(key("a"), file(b""));
    let root = build(&nodes, &splitter, &model);
    let leaves = leaf_lengths(&nodes).len();
    nodes.reads();
    let left = apply(&nodes, &splitter, &root, vec![(key("users"), Edit::RemovePrefix)]);
    assert!(nodes.reads() < leaves / 20);
    model.retain(|k, _| !k.starts_with(&key("users")));
    assert_eq!(left, build(&nodes, &splitter, &model));
}

#[test]
fn many_edits_at_once_give_the_same_tree() {
    let (nodes, splitter) = (Nodes::default(), normal());
    let mut model = records(20_000, 120);
    let root = build(&nodes, &splitter, &model);
    let mut edits = BTreeMap::new();
    for (step, key) in model.keys().enumerate().filter(|(step, _)| step % 3 == 0) {
        let new = Edit::Put(file(&step.to_le_bytes()));
        edits.insert(key.clone(), if step % 2 == 0 { new } else { Edit::Remove });
    }
    edits.extend((0..5_000).map(|i| (key(&format!("users/u{i:05}/notes")), Edit::Put(file(b"note")))));
    for (key, edit) in &edits {
        match edit {
            Edit::Put(entry) => drop(model.insert(key.clone(), entry.clone())),
            _ => drop(model.remove(key)),
        }
    }
    let root = apply(&nodes, &splitter, &root, edits.into_iter().collect());
    assert_eq!(root, build(&nodes, &splitter, &model));
}

#[test]
fn reads_touch_what_they_need() {
    let (nodes, splitter) = (Nodes::default(), normal());
    let mut model = records(20_000, 200);
    let root = build(&nodes, &splitter, &model);
    nodes.reads();
    block_on(get(&nodes, &root.id, &key("users/u00123/contacts"))).unwrap();
    assert!(nodes.reads() <= 4);
    let user = Span::subtree(&key("users/u00123"));
    assert_eq!(block_on(range(&nodes, &root.id, user, 8).count()), 40);
    assert!(nodes.reads() <= 12);
    assert_eq!(block_on(list(&nodes, &root.id, None).count()), 1);
    let reads = nodes.reads();
    assert!(reads <= 6, "{reads}");
    let first = block_on(range(&nodes, &root.id, Span::all(), 2).next());
    assert!(first.is_some() && nodes.reads() <= 10);

    let changed = key("users/u00321/contacts/new.vcf");
    model.insert(changed.clone(), file(b"new"));
    let new = build(&nodes, &splitter, &model);
    nodes.reads();
    let changes: Vec<_> = block_on(diff(&nodes, &root.id, &new.id, Span::all()).try_collect()).unwrap();
    assert_eq!(changes, [Change { key: changed, old: None, new: Some(file(b"new")) }]);
    assert!(nodes.reads() <= 14);

    // Comparing trees that differ everywhere reads each node once, or little more.
    let other = build(&nodes, &splitter, &records(20_000, 190));
    let total = nodes.nodes.lock().unwrap().len();
    nodes.reads();
    assert_eq!(block_on(diff(&nodes, &new.id, &other.id, Span::all()).count()), 20_001);
    assert!(nodes.reads() <= total);
}

/// `cargo test --release speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn speed() {
    use std::time::Instant;
    for length in [100, 300] {
        let (nodes, splitter) = (Nodes::default(), normal());
        let model = records(80_000, length);
        let start = Instant::now();
        let root = build(&nodes, &splitter, &model);
        let built = start.elapsed();
        let start = Instant::now();
        assert_eq!(block_on(range(&nodes, &root.id, Span::all(), 8).count()), model.len());
        let ranged = start.elapsed();
        let edits: Vec<_> = model.keys().step_by(4).map(|key| (key.clone(), Edit::Put(file(b"changed")))).collect();
        let count = edits.len();
        let start = Instant::now();
        apply(&nodes, &splitter, &root, edits);
        println!("records of {length}: build {built:?}, range {ranged:?}, {count} edits {:?}", start.elapsed());
        let start = Instant::now();
        for key in model.keys().step_by(80) {
            apply(&nodes, &splitter, &root, vec![(key.clone(), Edit::Put(file(b"changed")))]);
        }
        println!("one edit {:?}", start.elapsed() / 1000);
    }
}
