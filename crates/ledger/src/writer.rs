//! Writes batches and commits into segments, and grows the tree.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::disk::{Disk, DiskFile};
use crate::frame::{self, Kind};
use crate::hash::{Hash, sha256};
use crate::note::{Checkpoint, SigningKey};
use crate::segment::{self, COMMIT_ROOM, HEADER_ROOM, Header, SEAL_ROOM, Seal};
use crate::sequencer::Batch;
use crate::spare::Spares;
use crate::tree::Frontier;

/// The most buffers of one write call (`IOV_MAX` is 1024).
const BUFFERS_MAX: usize = 1000;

/// The segment that is written.
pub(crate) struct Open {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// The index of its first entry.
    pub(crate) first: u64,
    /// Over all bytes before `offset`.
    pub(crate) hasher: Sha256,
}

/// The end of the log.
pub(crate) struct Writer {
    pub(crate) disk: Arc<dyn Disk>,
    /// `ledger/seg`.
    pub(crate) dir: PathBuf,
    pub(crate) key: SigningKey,
    pub(crate) segment: Open,
    pub(crate) frontier: Frontier,
    /// How many entries the last commit covers, and the hash of its note.
    pub(crate) signed: u64,
    pub(crate) last_commit: Option<Hash>,
    /// The checkpoint that was synced when a segment was sealed, until it is published.
    pub(crate) sealed: Option<Checkpoint>,
}

/// What was written and waits for its sync.
pub(crate) struct Written {
    pub(crate) file: Arc<dyn DiskFile>,
    /// What may be published once the sync returned.
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Writer {
    /// Writes a batch, in the same call with a commit over it if one is wanted.
    pub(crate) fn write(&mut self, batch: &Batch, commit: bool, spares: &Spares) -> io::Result<Written> {
        let need = batch.bytes + COMMIT_ROOM + SEAL_ROOM;
        if self.segment.offset + need > self.segment.length {
            self.rotate(HEADER_ROOM + need, spares)?;
        }
        for leaf in &batch.leaves {
            self.frontier.push(*leaf);
        }
        let (checkpoint, frame) = if commit { self.sign() } else { (None, Vec::new()) };
        let buffers = batch.buffers.iter().chain(std::iter::once(&frame)).map(Vec::as_slice);
        self.put(&buffers.filter(|buffer| !buffer.is_empty()).collect::<Vec<_>>())?;
        Ok(Written { file: Arc::clone(&self.segment.file), checkpoint })
    }

    /// Writes a commit over what has none yet.
    pub(crate) fn commit(&mut self) -> io::Result<Written> {
        let (checkpoint, frame) =
            if self.frontier.size() > self.signed { self.sign() } else { (None, Vec::new()) };
        if !frame.is_empty() {
            self.put(&[&frame])?;
        }
        Ok(Written { file: Arc::clone(&self.segment.file), checkpoint })
    }

    /// How many bytes the segment still takes.
    pub(crate) const fn room(&self) -> u64 {
        self.segment.length.saturating_sub(self.segment.offset + COMMIT_ROOM + SEAL_ROOM)
    }

    fn sign(&mut self) -> (Option<Checkpoint>, Vec<u8>) {
        let checkpoint = self.key.checkpoint(self.frontier.size(), self.frontier.root());
        let mut frame = Vec::with_capacity(512);
        frame::put(&mut frame, Kind::Commit, checkpoint.note.as_bytes());
        self.signed = checkpoint.size;
        self.last_commit = Some(sha256(&[checkpoint.note.as_bytes()]));
        (Some(checkpoint), frame)
    }

    fn put(&mut self, buffers: &[&[u8]]) -> io::Result<()> {
        for group in buffers.chunks(BUFFERS_MAX) {
            let slices: Vec<_> = group.iter().map(|buffer| IoSlice::new(buffer)).collect();
            let length: usize = group.iter().map(|buffer| buffer.len()).sum();
            let written = self.segment.file.write_at(self.segment.offset, &slices)?;
            if written != length {
                let message = format!("{written} of {length} bytes were written");
                return Err(io::Error::new(io::ErrorKind::WriteZero, message));
            }
            for buffer in group {
                self.segment.hasher.update(buffer);
            }
            self.segment.offset += length as u64;
        }
        Ok(())
    }

    /// Seals the segment, durably, and goes on in one of at least `length` bytes. What has no commit gets one first.
    pub(crate) fn rotate(&mut self, length: u64, spares: &Spares) -> io::Result<()> {
        let committed = self.commit()?.checkpoint;
        let seal = Seal {
            first: self.segment.first,
            last: self.frontier.size().checked_sub(1).filter(|last| *last >= self.segment.first),
            root: self.frontier.root(),
            sha256: self.segment.hasher.clone().finalize().into(),
        };
        let mut frame = Vec::new();
        frame::put(&mut frame, Kind::Seal, &seal.encode());
        self.put(&[&frame])?;
        self.segment.file.sync()?;
        self.sealed = committed.or_else(|| self.sealed.take());
        self.segment.file.truncate(self.segment.offset)?;
        self.next_segment(self.segment.number + 1, length, spares)
    }

    /// Goes on in a new segment of at least `length` bytes.
    pub(crate) fn next_segment(&mut self, number: u64, length: u64, spares: &Spares) -> io::Result<()> {
        self.segment = install(
            &*self.disk,
            &self.dir,
            spares,
            length,
            Header {
                origin: self.key.public().name.clone(),
                segment: number,
                first: self.frontier.size(),
                previous_commit: self.last_commit,
                length: 0,
            },
        )?;
        Ok(())
    }
}

/// Makes a spare the segment that `header` describes. Its header is durable before it gets its name, so that every file
/// in `seg/` begins with one.
pub(crate) fn install(
    disk: &dyn Disk,
    dir: &std::path::Path,
    spares: &Spares,
    length: u64,
    mut header: Header,
) -> io::Result<Open> {
    let spare = spares.take(length)?;
    header.length = spare.length;
    let mut bytes = Vec::new();
    frame::put(&mut bytes, Kind::Header, &header.encode());
    let written = spare.file.write_at(0, &[IoSlice::new(&bytes)])?;
    if written != bytes.len() {
        return Err(io::Error::new(io::ErrorKind::WriteZero, "the segment's header was not written whole"));
    }
    spare.file.sync()?;
    disk.rename(&spare.path, &dir.join(segment::file_name(header.segment)))?;
    Ok(Open {
        number: header.segment,
        file: spare.file,
        offset: bytes.len() as u64,
        length: header.length,
        first: header.first,
        hasher: Sha256::new_with_prefix(&bytes),
    })
}
