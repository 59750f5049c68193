//! The snapshot's tree against a `BTreeMap`.

use futures::{StreamExt, TryStreamExt};

use super::*;

fn edits() -> impl Strategy<Value = Vec<(Key, Edit)>> {
    let edit = prop_oneof![
        5 => entries().prop_map(Edit::Put),
        4 => Just(Edit::Remove),
        1 => Just(Edit::RemovePrefix),
        1 => entries().prop_map(Edit::Replace),
    ];
    prop::collection::btree_map(keys(), edit, 0..60).prop_map(|edits| edits.into_iter().collect())
}

/// What the documentation of `Edit` says.
fn apply_to(model: &mut Model, edits: &[(Key, Edit)]) {
    for (prefix, edit) in edits {
        if matches!(edit, Edit::RemovePrefix | Edit::Replace(_)) {
            model.retain(|key, _| !key.starts_with(prefix));
        }
    }
    for (key, edit) in edits {
        match edit {
            Edit::Put(entry) | Edit::Replace(entry) => drop(model.insert(key.clone(), entry.clone())),
            Edit::Remove => drop(model.remove(key)),
            Edit::RemovePrefix => {}
        }
    }
}

fn all(nodes: &Nodes, root: &BlobId, span: Span, read_ahead: usize) -> Vec<(Key, Entry)> {
    block_on(range(nodes, root, span, read_ahead).try_collect()).unwrap()
}

fn owned<'a>(model: impl Iterator<Item = (&'a Key, &'a Entry)>) -> Vec<(Key, Entry)> {
    model.map(|(key, entry)| (key.clone(), entry.clone())).collect()
}

fn changes(nodes: &Nodes, old: &Root, new: &Root, span: Span) -> Vec<Change> {
    block_on(diff(nodes, &old.id, &new.id, span).try_collect()).unwrap()
}

fn model_changes(old: &Model, new: &Model, span: &Span) -> Vec<Change> {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).filter(|key| span.contains(key)).collect();
    let change = |key: &Key| Change { key: key.clone(), old: old.get(key).cloned(), new: new.get(key).cloned() };
    keys.into_iter().map(change).filter(|change| change.old != change.new).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn one_content_has_one_root(model in models(300), batches in prop::collection::vec(edits(), 1..5)) {
        let (nodes, splitter) = (Nodes::default(), small());
        let mut model = model;
        let mut root = build(&nodes, &splitter, &model);
        for batch in batches {
            let before = model.clone();
            apply_to(&mut model, &batch);
            let (edited, tally) = apply_counted(&nodes, &splitter, &root, batch);
            root = edited;
            let differences = model_changes(&before, &model, &Span::all());
            let added = differences.iter().filter(|change| change.old.is_none()).count() as u64;
            let removed = differences.iter().filter(|change| change.new.is_none()).count() as u64;
            prop_assert_eq!(tally, Tally { added, changed: differences.len() as u64 - added - removed });
            prop_assert_eq!(root.entries, before.len() as u64 + added - removed);
            prop_assert_eq!(root, build(&nodes, &splitter, &model));
            prop_assert_eq!(root.entries, model.len() as u64);
        }
        prop_assert_eq!(all(&nodes, &root.id, Span::all(), 3), owned(model.iter()));
    }

    #[test]
    fn any_order_of_edits_reaches_the_same_root(
        steps in Just(()).prop_flat_map(|()| models(60)).prop_map(|m| m.into_iter().collect::<Vec<_>>()).prop_shuffle()
    ) {
        let (nodes, splitter) = (Nodes::default(), small());
        let empty = build(&nodes, &splitter, &Model::new());
        let mut root = empty;
        for (key, entry) in &steps {
            root = apply(&nodes, &splitter, &root, vec![(key.clone(), Edit::Put(entry.clone()))]);
        }
        prop_assert_eq!(root, build(&nodes, &splitter, &steps.iter().cloned().collect()));
        for (key, _) in &steps {
            root = apply(&nodes, &splitter, &root, vec![(key.clone(), Edit::Remove)]);
        }
        prop_assert_eq!(root, empty);
    }

    #[test]
    fn reads_agree_with_the_model(model in models(300), probe in keys(), after in keys(), ahead in 0usize..5) {
        let (nodes, splitter) = (Nodes::default(), small());
        let root = build(&nodes, &splitter, &model).id;
        for key in model.keys().chain([&probe]) {
            prop_assert_eq!(block_on(get(&nodes, &root, key)).unwrap(), model.get(key).cloned());
        }
        let parent = probe.parent().unwrap_or_else(|| probe.clone());
        for span in [Span::subtree(&probe), Span::subtree(&parent), Span::below(Some(&parent)), Span::all()] {
            for span in [span.clone(), span.clone().after(&after), span.clone().beyond(&after)] {
                let expected = owned(model.iter().filter(|(key, _)| span.contains(key)));
                prop_assert_eq!(all(&nodes, &root, span, ahead), expected);
            }
        }
        prop_assert!(!Span::all().after(&after).contains(&after));
        prop_assert!(model.keys().all(|key| Span::subtree(&probe).contains(key) == key.starts_with(&probe)));
    }

    #[test]
    fn a_listing_has_each_child_once(model in models(300), folder in prop::option::of(keys())) {
        let nodes = Nodes::default();
        let root = build(&nodes, &small(), &model).id;
        let folder = folder.map(|folder| folder.parent().unwrap_or(folder));
        let depth = folder.as_ref().map_or(0, Key::depth) + 1;
        let mut expected = BTreeMap::new();
        for key in model.keys().filter(|key| key.depth() >= depth) {
            if folder.as_ref().is_none_or(|folder| key.starts_with(folder)) {
                let child = Key::new(key.components().take(depth)).unwrap();
                expected.insert(child.clone(), model.get(&child).cloned());
            }
        }
        let found: Vec<_> = block_on(list(&nodes, &root, folder.as_ref()).try_collect()).unwrap();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn differences_agree_with_the_model(old in models(200), batch in edits(), other in models(200), prefix in keys()) {
        let (nodes, splitter) = (Nodes::default(), small());
        let mut edited = old.clone();
        apply_to(&mut edited, &batch);
        let before = build(&nodes, &splitter, &old);
        for new in [&edited, &other, &Model::new()] {
            let after = build(&nodes, &splitter, new);
            for span in [Span::all(), Span::subtree(&prefix)] {
                prop_assert_eq!(changes(&nodes, &before, &after, span.clone()), model_changes(&old, new, &span));
                prop_assert_eq!(changes(&nodes, &after, &before, span.clone()), model_changes(new, &old, &span));
            }
        }
    }
}

#[test]
fn the_empty_tree_has_one_root() {
    let (nodes, splitter) = (Nodes::default(), small());
    let empty = build(&nodes, &splitter, &Model::new());
    assert_eq!(nodes.bytes(&empty.id)[..], [0, 0]);
    assert_eq!(empty.entries, 0);
    let one = apply(&nodes, &splitter, &empty, vec![(key("a/b"), Edit::Put(file(b"x")))]);
    assert_eq!(block_on(get(&nodes, &one.id, &key("a/b"))).unwrap(), Some(file(b"x")));
    assert_eq!(apply(&nodes, &splitter, &one, vec![(key("a"), Edit::RemovePrefix)]), empty);
    assert_eq!(apply(&nodes, &splitter, &empty, vec![(key("a"), Edit::RemovePrefix)]), empty);
    assert!(all(&nodes, &empty.id, Span::all(), 4).is_empty());
    assert_eq!(block_on(list(&nodes, &empty.id, None).count()), 0);
}

#[test]
fn a_removed_prefix_spares_its_namesakes_and_what_is_put_below_it() {
    let (nodes, splitter) = (Nodes::default(), small());
    let model: Model = ["a", "a/b", "a/c/d", "a!", "ab", "b"].iter().map(|path| (key(path), file(b"old"))).collect();
    let root = build(&nodes, &splitter, &model);
    let edits = vec![(key("a"), Edit::RemovePrefix), (key("a/b"), Edit::Put(file(b"new")))];
    let root = apply(&nodes, &splitter, &root, edits);
    let left: Vec<_> = all(&nodes, &root.id, Span::all(), 1).iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(left, ["a/b", "a!", "ab", "b"]);
    let root = apply(&nodes, &splitter, &root, vec![(key("a"), Edit::Replace(file(b"file")))]);
    assert_eq!(all(&nodes, &root.id, Span::subtree(&key("a")), 1), [(key("a"), file(b"file"))]);
}

#[test]
fn what_is_out_of_order_or_unsound_is_refused() {
    let (nodes, splitter) = (Nodes::default(), small());
    let empty = build(&nodes, &splitter, &Model::new());
    for edits in [vec!["b", "a"], vec!["a", "a"]] {
        let edits = edits.into_iter().map(|path| (key(path), Edit::Remove)).collect();
        assert!(block_on(edit(&nodes, &mut &nodes, &splitter, &empty.id, edits)).is_err());
    }
    let mut builder = TreeBuilder::new(splitter.clone());
    builder.push(&key("b"), &file(b""), &mut &nodes).unwrap();
    assert!(builder.push(&key("b"), &file(b""), &mut &nodes).is_err());
    assert!(builder.push(&key("a"), &file(b""), &mut &nodes).is_err());
    assert!(builder.push(&key("c"), &Entry { size: 1, ..file(b"") }, &mut &nodes).is_err());
    assert!(builder.push(&key("c"), &file(&[0; 600 << 10]), &mut &nodes).is_err());
    builder.push(&key("d"), &file(&[0; 400 << 10]), &mut &nodes).unwrap();
    assert!(TreeParameters { fan_out: 1, ..TreeParameters::default() }.check().is_err());
    assert!(TreeParameters::default().check().is_ok());
}

#[test]
fn every_distinct_node_is_visited_once() {
    struct Seen(std::collections::HashSet<BlobId>, Vec<Key>, usize);
    impl Visitor for Seen {
        fn enter(&mut self, id: &BlobId) -> bool {
            self.0.insert(*id)
        }
        fn entry(&mut self, key: &Key, _: &Entry) {
            self.1.push(key.clone());
        }
        fn failed(&mut self, _: &BlobId, span: &Span, _: Error) -> Result<()> {
            self.1.retain(|key| !span.contains(key));
            self.2 += 1;
            Ok(())
        }
    }
    let (nodes, splitter) = (Nodes::default(), small());
    let model: Model = (0..500).map(|i| (key(&format!("{i:04}")), file(b"content"))).collect();
    let root = build(&nodes, &splitter, &model);
    let mut seen = Seen(Default::default(), Vec::new(), 0);
    block_on(visit_nodes(&nodes, &root.id, 4, &mut seen)).unwrap();
    assert_eq!(seen.0.len(), nodes.nodes.lock().unwrap().len());
    assert!(seen.1.iter().eq(model.keys()));
    nodes.reads();
    block_on(visit_nodes(&nodes, &root.id, 4, &mut seen)).unwrap();
    assert_eq!(nodes.reads(), 0);

    // What can't be read costs what it holds.
    let edited = apply(&nodes, &splitter, &root, vec![(key("0250"), Edit::Remove)]);
    let damaged = *nodes.nodes.lock().unwrap().iter().find(|(id, node)| node[0] == 0 && **id != root.id).unwrap().0;
    nodes.nodes.lock().unwrap().insert(damaged, Bytes::from_static(b"garbage"));
    let mut seen = Seen(Default::default(), Vec::new(), 0);
    block_on(visit_nodes(&nodes, &root.id, 4, &mut seen)).unwrap();
    block_on(visit_nodes(&nodes, &edited.id, 4, &mut seen)).unwrap();
    assert_eq!(seen.2, 1);
    let (failed, read): (Vec<_>, Vec<_>) =
        block_on(range(&nodes, &root.id, Span::all(), 4).collect::<Vec<_>>()).into_iter().partition(Result::is_err);
    assert!(failed.len() <= 1 && read.len() > 400);
}

#[test]
fn everything_can_be_awaited_on_another_thread() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let (nodes, splitter) = (Nodes::default(), small());
    let root = build(&nodes, &splitter, &Model::new()).id;
    let mut out = Pending::default();
    block_on(send(edit(&nodes, &mut out, &splitter, &root, Vec::new()))).unwrap();
    block_on(send(get(&nodes, &root, &key("a")))).unwrap();
    drop(send(range(std::sync::Arc::new(Nodes::default()), &root, Span::all(), 1)));
    drop(send(list(&nodes, &root, None)));
    drop(send(diff(&nodes, &root, &root, Span::all())));
}
