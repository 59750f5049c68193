//! Sequences against plain lists.

use futures::{StreamExt, TryStreamExt};

use super::*;

fn chunk(number: u8, repeat: u32) -> Piece {
    Piece::Chunk { id: BlobId::new([number; BlobId::LEN]), length: 1000 + u32::from(number), repeat }
}

fn arbitrary() -> impl Strategy<Value = Piece> {
    prop_oneof![
        8 => (any::<u8>(), 1u32..3).prop_map(|(number, repeat)| chunk(number, repeat)),
        1 => (0u8..2, 1u32..100).prop_map(|(number, repeat)| chunk(number, repeat)),
        1 => (1u64..1 << 40).prop_map(|length| Piece::Hole { length }),
    ]
}

fn sequence(nodes: &Nodes, splitter: &Splitter, list: &[Piece]) -> Payload {
    let mut builder = SequenceBuilder::new(splitter.clone());
    list.iter().for_each(|piece| builder.push(*piece, &mut &*nodes).unwrap());
    builder.finish(&mut &*nodes).unwrap()
}

fn merged(list: &[Piece]) -> Vec<(u64, Piece)> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in list {
        let rest = merged.last_mut().map_or(Some(*piece), |last| last.absorb(*piece));
        merged.extend(rest);
    }
    let mut offset = 0;
    let at = merged.into_iter().map(|piece| {
        offset += piece.length();
        (offset - piece.length(), piece)
    });
    at.collect()
}

fn read(nodes: &Nodes, payload: &Payload, offset: u64, ahead: usize) -> Vec<(u64, Piece)> {
    block_on(pieces(nodes, payload, offset, ahead).try_collect()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_sequence_gives_its_pieces_back(
        list in prop::collection::vec(arbitrary(), 0..400), seeks in prop::collection::vec(0.0..1.1, 5), ahead in 0usize..4
    ) {
        let nodes = Nodes::default();
        let payload = sequence(&nodes, &small(), &list);
        let expected = merged(&list);
        prop_assert_eq!(payload.length(), list.iter().map(Piece::length).sum::<u64>());
        prop_assert_eq!(matches!(payload, Payload::Sequence(_)), expected.len() > 5);
        prop_assert_eq!(matches!(payload, Payload::Inline(_)), expected.is_empty());
        prop_assert_eq!(&read(&nodes, &payload, 0, ahead), &expected);
        for seek in seeks {
            let offset = (seek * payload.length() as f64) as u64;
            let from = expected.iter().copied().filter(|(start, piece)| start + piece.length() > offset);
            prop_assert_eq!(read(&nodes, &payload, offset, ahead), from.collect::<Vec<_>>());
        }
        let bytes = crate::codec::encode(&payload);
        prop_assert_eq!(crate::codec::decode::<Payload>(&bytes, "payload").unwrap(), payload);
    }

    #[test]
    fn how_pieces_are_grouped_makes_no_difference(list in prop::collection::vec((0u8..4, 1u32..4), 0..200)) {
        let nodes = Nodes::default();
        let grouped: Vec<_> = list.iter().map(|(number, repeat)| chunk(*number, *repeat)).collect();
        let single: Vec<_> = grouped.iter().zip(&list).flat_map(|(piece, (number, repeat))| {
            assert_eq!(*piece, chunk(*number, *repeat));
            vec![chunk(*number, 1); *repeat as usize]
        }).collect();
        prop_assert_eq!(sequence(&nodes, &small(), &grouped), sequence(&nodes, &small(), &single));
    }
}

fn distinct(number: u32) -> Piece {
    let mut id = [0; BlobId::LEN];
    id.copy_from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..BlobId::LEN]);
    Piece::Chunk { id: BlobId::new(id), length: 65_536, repeat: 1 }
}

#[test]
fn a_change_near_the_start_of_a_long_sequence_writes_a_path() {
    let (nodes, splitter) = (Nodes::default(), normal());
    let mut list: Vec<_> = (0..50_000).map(distinct).collect();
    sequence(&nodes, &splitter, &list);
    let before = nodes.nodes.lock().unwrap().len();
    assert!((200..600).contains(&before), "{before}");
    list.insert(700, distinct(1_000_000));
    let payload = sequence(&nodes, &splitter, &list);
    assert!(nodes.nodes.lock().unwrap().len() - before <= 6);

    nodes.reads();
    let offset = 65_536 * 40_000 + 5;
    let found = block_on(pieces(&nodes, &payload, offset, 1).next()).unwrap().unwrap();
    assert_eq!(found, (65_536 * 40_000, list[40_000]));
    assert!(nodes.reads() <= 8);
}

#[test]
fn what_repeats_is_short_and_counts_fill_up() {
    let (nodes, splitter) = (Nodes::default(), small());
    let payload = sequence(&nodes, &splitter, &vec![chunk(1, 1); 10_000]);
    assert_eq!(payload, Payload::Pieces(vec![chunk(1, 10_000)]));
    let payload = sequence(&nodes, &splitter, &[chunk(1, u32::MAX), chunk(1, 3), chunk(1, u32::MAX)]);
    assert_eq!(payload, Payload::Pieces(vec![chunk(1, u32::MAX), chunk(1, u32::MAX), chunk(1, 3)]));
    let bytes = crate::codec::encode(&payload);
    assert_eq!(crate::codec::decode::<Payload>(&bytes, "payload").unwrap(), payload);
    let mut builder = SequenceBuilder::new(splitter);
    builder.push(Piece::Hole { length: u64::MAX }, &mut &nodes).unwrap();
    assert!(builder.push(Piece::Hole { length: 1 }, &mut &nodes).is_err());
    assert!(builder.push(Piece::Hole { length: 0 }, &mut &nodes).is_err());
    assert!(builder.push(chunk(1, 0), &mut &nodes).is_err());
}

#[test]
fn every_node_of_a_sequence_is_visited() {
    struct Seen(std::collections::HashSet<BlobId>, u64, usize);
    impl SequenceVisitor for Seen {
        fn enter(&mut self, id: &BlobId) -> bool {
            self.0.insert(*id)
        }
        fn piece(&mut self, piece: &Piece) {
            self.1 += piece.length();
        }
        fn failed(&mut self, _: &BlobId, _: Error) -> Result<()> {
            self.2 += 1;
            Ok(())
        }
    }
    let nodes = Nodes::default();
    let list: Vec<_> = (0..500).map(distinct).collect();
    let Payload::Sequence(root) = sequence(&nodes, &small(), &list) else { panic!("not a sequence") };
    assert!(root.height >= 2);
    let mut seen = Seen(Default::default(), 0, 0);
    block_on(visit_sequence(&nodes, &root, 3, &mut seen)).unwrap();
    assert_eq!((seen.0.len(), seen.1, seen.2), (nodes.nodes.lock().unwrap().len(), root.length, 0));
    for wrong in [
        SequenceRoot { length: root.length + 1, ..root },
        SequenceRoot { height: root.height - 1, ..root },
        SequenceRoot { height: 255, ..root },
        SequenceRoot { root: BlobId::new([0; 20]), ..root },
    ] {
        let mut seen = Seen(Default::default(), 0, 0);
        block_on(visit_sequence(&nodes, &wrong, 3, &mut seen)).unwrap();
        assert_eq!((seen.1, seen.2), (0, 1));
        let read: Result<Vec<_>> = block_on(pieces(&nodes, &Payload::Sequence(wrong), 0, 2).try_collect());
        assert!(read.is_err());
    }
}
