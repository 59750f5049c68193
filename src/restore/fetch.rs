//! Fetches blocks and writes what files need of them.
//!
//! Several requests are under way at a time; what bounds their number and size
//! bounds the memory. Only bytes that have passed the AEAD and their blob's id
//! are written. A block that can't be had from where the index says is looked
//! for, blob by blob, wherever else the index knows it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::blobs::BlobReader;
use crate::cpu;
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::layout::Name;
use crate::pack::{BlockKind, Place};
use crate::restore::file::Chunk;
use crate::restore::plan::{Plan, PlannedBlock, Request, Use};
use crate::restore::session::Session;

/// Requests under way at a time.
const REQUESTS: usize = 8;

/// Chunks of a block by id, or why they can't be had.
type Chunks = HashMap<BlobId, Result<Bytes, Arc<Error>>>;

/// Fetches and writes all that was planned.
pub(super) async fn fetch(session: &Arc<Session>, reader: &Arc<BlobReader>, plan: Plan) -> Result<()> {
    let requests = stream::iter(plan.requests).map(|request| restore_request(session, reader, request));
    requests.buffer_unordered(REQUESTS).try_collect::<()>().await?;
    let unknown = stream::iter(plan.unknown).map(|one| look_elsewhere(session, reader, vec![one]));
    unknown.buffer_unordered(REQUESTS).try_collect::<()>().await
}

async fn restore_request(session: &Arc<Session>, reader: &Arc<BlobReader>, request: Request) -> Result<()> {
    let Request { pack, blocks } = request;
    let places: Vec<Place> = blocks.iter().map(|block| block.place).collect();
    let opened = reader.blocks(&pack, &places).await;
    session.check_store(opened.as_ref().err())?;
    let left = match opened {
        Ok(opened) => {
            let (session, reader) = (Arc::clone(session), Arc::clone(reader));
            let write = move || {
                let name = Name::Pack(pack.id).to_string();
                let mut left = Vec::new();
                for (block, bytes) in blocks.into_iter().zip(opened) {
                    left.extend(write_block(&session, &reader, &name, block, &bytes)?);
                }
                Ok(left)
            };
            cpu::block(write).await?
        }
        Err(error) => {
            tracing::warn!(pack = %pack.id, %error, "blocks can't be read, looking for their chunks elsewhere");
            blocks.into_iter().map(|block| block.uses).collect()
        }
    };
    for uses in left {
        look_elsewhere(session, reader, uses).await?;
    }
    Ok(())
}

/// Writes what is needed of a block; all of it comes back if one of the chunks is damaged.
fn write_block(
    session: &Session,
    reader: &BlobReader,
    name: &str,
    block: PlannedBlock,
    bytes: &Bytes,
) -> Result<Option<Vec<Use>>> {
    let mut chunks = Chunks::with_capacity(block.uses.len());
    for one in &block.uses {
        let Some(location) = &one.location else { return Ok(Some(block.uses)) };
        if chunks.contains_key(&one.chunk.id) {
            continue;
        }
        match reader.slice(bytes, &one.chunk.id, location, name) {
            Ok(chunk) => drop(chunks.insert(one.chunk.id, Ok(chunk))),
            Err(_) => return Ok(Some(block.uses)),
        }
    }
    write(session, &block.uses, &chunks)?;
    Ok(None)
}

/// Reads chunks one by one from wherever they can be had; files that need others are given up.
async fn look_elsewhere(session: &Arc<Session>, reader: &Arc<BlobReader>, uses: Vec<Use>) -> Result<()> {
    let mut chunks = Chunks::new();
    for one in &uses {
        if chunks.contains_key(&one.chunk.id) || one.file.has_failed() {
            continue;
        }
        let read = reader.read(BlockKind::Data, &one.chunk.id).await;
        session.check_store(read.as_ref().err())?;
        let whole = read.and_then(|chunk| {
            if chunk.len() == one.chunk.length as usize {
                Ok(chunk)
            } else {
                Err(Error::corrupt(format!("blob {}", one.chunk.id), "it has another length than its file says"))
            }
        });
        chunks.insert(one.chunk.id, whole.map_err(Arc::new));
    }
    let session = Arc::clone(session);
    cpu::block(move || write(&session, &uses, &chunks)).await
}

/// Writes chunks, file by file.
fn write(session: &Session, uses: &[Use], chunks: &Chunks) -> Result<()> {
    for part in uses.chunk_by(Use::is_same_file) {
        session.go_on()?;
        let Some(first) = part.first() else { continue };
        // A chunk is only missing where its file had been given up already.
        let bytes = part.iter().filter_map(|one| {
            let bytes = chunks.get(&one.chunk.id)?.clone();
            Some(Chunk { offset: one.chunk.offset, repeat: one.chunk.repeat, bytes })
        });
        first.file.write_part(session, &bytes.collect::<Vec<_>>());
    }
    Ok(())
}
