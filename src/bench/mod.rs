//! What `benches/` measures of the inside, by plain types; not part of the interface, and absent unless asked for.

mod tree;

use bytes::Bytes;

pub use tree::Tree;

use crate::chunker::{Chunker, ChunkerParameters};
use crate::clock::Surroundings;
use crate::compress;
use crate::crypto::{Keyring, Kind, Part};
use crate::error::Result;
use crate::id::{BlobId, WriterId};
use crate::pack::{Block, BlockKind, seal_pack};

/// The transforms of a repository with fresh keys.
#[derive(Debug)]
pub struct Transforms {
    chunker: Chunker,
    keyring: Keyring,
    surroundings: Surroundings,
}

impl Transforms {
    /// Chunks are cut to these sizes.
    pub fn new(chunker: ChunkerParameters) -> Self {
        let surroundings = Surroundings::default();
        let keyring = Keyring::generate(&surroundings);
        Self { chunker: Chunker::new(chunker, keyring.gear_table()), keyring, surroundings }
    }

    /// The lengths of the chunks of `data`.
    pub fn cut(&self, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = self.chunker.cut(data, true) {
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    /// The id of a chunk.
    pub fn id(&self, chunk: &[u8]) -> BlobId {
        self.keyring.chunk_id().id(chunk)
    }

    /// Seals the messages of one object in place.
    pub fn seal(&self, messages: &mut [Vec<u8>]) -> Result<()> {
        let mut sealer = self.keyring.sealer(Kind::Pack, &self.surroundings);
        messages.iter_mut().try_for_each(|message| sealer.seal(Part::Data, "", message).map(drop))
    }

    /// Makes a pack of blocks of chunks: hashed, compressed, sealed, opened again and checked. Returns its length.
    pub fn pack(&self, blocks: &[Vec<Bytes>], level: i32) -> Result<usize> {
        let compress = |chunks: &Vec<Bytes>| {
            let mut block = Block::new(BlockKind::Data);
            chunks.iter().for_each(|chunk| block.push(self.id(chunk), chunk));
            block.compress(Some(level))
        };
        let blocks = blocks.iter().map(compress).collect::<Result<_>>()?;
        let pack = seal_pack(blocks, &WriterId::new([0; WriterId::LEN]), &self.keyring, &self.surroundings)?;
        Ok(pack.bytes.len())
    }
}

/// Compresses a block.
pub fn compress(plain: &[u8], level: i32) -> Result<Vec<u8>> {
    compress::compress(plain, level, 0)
}

/// Decompresses a block of `plain_len` bytes.
pub fn decompress(frame: &[u8], plain_len: usize) -> Result<Vec<u8>> {
    compress::decompress(frame, plain_len, "the block")
}

/// The probe that finds data not worth compressing.
pub fn is_compressible(data: &[u8]) -> bool {
    compress::is_compressible(data)
}
