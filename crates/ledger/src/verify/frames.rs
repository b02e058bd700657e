//! Reads segments ahead of whoever judges them, and does there what needs no order: checksums, hashes, the envelope's
//! JSON, signatures.
//!
//! ```text
//!  reader (a thread)        workers (a thread a core)        judge (the caller's thread)
//!  stretches of whole  ───▸ leaf hashes, payload hashes, ──▸ tree, chains, anchors: in order
//!  frames, 1 MiB            profile, signatures
//! ```
//!
//! A stretch holds about [`STRETCH_BYTES`], and [`STRETCHES_MAX`] of them are on their way at most: memory does not grow
//! with the ledger. The reader alone decides where frames are; it never stops at damage, but looks for the next frame.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::disk::{Disk, DiskFile};
use crate::envelope::{self, Commitment};
use crate::frame::{self, Fault, Found, HEADER_BYTES, Kind, MAGIC};
use crate::hash::{Hash, sha256};
use crate::note::{Checkpoint, Signed, VerifyingKey};
use crate::payload::{self, Body};
use crate::segment::{Header, Window, is_zero};
use crate::tree::leaf_hash;

/// How much is read at once, in bytes; one longer frame is a stretch of its own.
const STRETCH_BYTES: usize = 1 << 20;
/// The most frames of a stretch.
const STEPS_MAX: usize = 8192;
/// The most stretches that are read and not judged yet.
const STRETCHES_MAX: usize = 16;
/// The most threads that examine frames.
const WORKERS_MAX: usize = 16;
/// How much is looked at at once where zeros are due.
const PIECE_BYTES: usize = 64 << 10;

/// What the judge gets, in order.
pub(super) enum Read {
    /// A segment begins: its file, number and length, and its header where it has one.
    Begin { file: PathBuf, number: u64, length: u64, header: Option<(Header, u64)>, is_last: bool },
    /// Frames of it.
    Stretch(Stretch),
    /// It ended: behind its last frame, or where there is no more.
    End { offset: u64, sealed: bool },
}

/// Whole frames that stand one behind the other, and what stands between others.
#[derive(Default)]
pub(super) struct Stretch {
    bytes: Vec<u8>,
    pub(super) steps: Vec<Step>,
}

impl Stretch {
    /// The body of a frame.
    pub(super) fn body(&self, frame: &Frame) -> &[u8] {
        self.bytes.get(frame.body.clone()).unwrap_or_default()
    }

    /// How many bytes it is.
    pub(super) const fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// What stands at a place.
pub(super) enum Step {
    /// A frame.
    Frame(Frame),
    /// No frame: what is wrong with it, and which kind it says that it is.
    Broken { offset: u64, fault: Fault, kind: Option<Kind> },
    /// Something where zeros are due, behind the frames or (`sealed`) behind the seal.
    Stray { offset: u64, sealed: bool },
}

/// A frame, whole, and perhaps not as it was written.
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) fault: Option<Fault>,
    /// Bytes from the segment's beginning.
    pub(super) offset: u64,
    /// Header, body and padding together, in bytes.
    pub(super) length: u64,
    pub(super) facts: Facts,
    body: Range<usize>,
}

/// What a frame's body says, whatever stands before it.
pub(super) enum Facts {
    /// Nothing yet, or nothing that would need work.
    None,
    /// Of an envelope: its leaf, and its commitments to payload or what is wrong with its form.
    Entry { leaf: Hash, commitments: Result<Vec<Commitment>, String> },
    /// Of a payload frame; none where it is too short.
    Payload(Option<Payload>),
    /// Of a commit: the hash of its note, and the checkpoint with the judgement of its signature, where it is one.
    Commit { sha256: Hash, checkpoint: Option<(Checkpoint, Signed)> },
    /// Of a seal: the hash of all bytes before it.
    Seal(Hash),
}

/// A payload frame whose envelope is still to come.
pub(super) struct Payload {
    pub(super) place: payload::Place,
    pub(super) length: u64,
    pub(super) ct_sha256: Hash,
    pub(super) salt_commit: Hash,
    pub(super) offset: u64,
}

/// Stretches on their way, in order.
enum Due {
    Ready(Read),
    Examined(Receiver<Stretch>),
    Failed(io::Error),
}

/// A stretch to examine, and where it goes then.
type Job = (Stretch, SyncSender<Stretch>);

/// Reads the segments `numbers` in `dir`, and shows `judge` all there is in them, in order.
///
/// # Errors
/// Reading failed, or no thread could be had.
pub(super) fn read(
    disk: &Arc<dyn Disk>,
    segments: &[(u64, PathBuf)],
    key: &VerifyingKey,
    live: bool,
    mut judge: impl FnMut(Read),
) -> io::Result<()> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
    let (jobs, queue) = sync_channel::<Job>(STRETCHES_MAX);
    let queue = Arc::new(Mutex::new(queue));
    let (due, in_order) = sync_channel::<Due>(STRETCHES_MAX);
    std::thread::scope(|scope| {
        // Taken in here: whoever leaves early lets go of it, and the threads end.
        let in_order = in_order;
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        for _ in 0..workers {
            let queue = Arc::clone(&queue);
            named("verify-worker").spawn_scoped(scope, move || work(&queue, key))?;
        }
        named("verify-reader").spawn_scoped(scope, move || {
            let result = segments.iter().enumerate().try_for_each(|(place, (number, file))| {
                let is_last = place + 1 == segments.len();
                Segment::open(disk, file, live)?.read(*number, is_last, &jobs, &due)
            });
            if let Err(Stop::Failed(error)) = result {
                // Nobody is left to hear of it where this fails.
                let _ = due.send(Due::Failed(error));
            }
        })?;
        for item in in_order {
            judge(match item {
                Due::Ready(read) => read,
                Due::Examined(stretch) => Read::Stretch(stretch.recv().map_err(io::Error::other)?),
                Due::Failed(error) => return Err(error),
            });
        }
        Ok(())
    })
}

fn work(queue: &Mutex<Receiver<Job>>, key: &VerifyingKey) {
    loop {
        let job = queue.lock().recv();
        let Ok((mut stretch, done)) = job else { return };
        let Stretch { bytes, steps } = &mut stretch;
        for step in steps {
            if let Step::Frame(frame) = step {
                frame.examine(bytes, key);
            }
        }
        // Nobody waits for it any more where this fails.
        let _ = done.send(stretch);
    }
}

impl Frame {
    fn examine(&mut self, bytes: &[u8], key: &VerifyingKey) {
        let body = bytes.get(self.body.clone()).unwrap_or_default();
        self.facts = match self.kind {
            Kind::Envelope => Facts::Entry { leaf: leaf_hash(body), commitments: envelope::judged(body) },
            Kind::Payload => Facts::Payload(Body::parse(body).map(|body| Payload {
                place: body.place,
                length: body.text.len() as u64,
                ct_sha256: sha256(&[body.stored]),
                salt_commit: payload::salt_commit(&key.name, &body.place, body.salt, body.text),
                offset: self.offset,
            })),
            Kind::Commit => {
                let note = std::str::from_utf8(body).ok().and_then(|note| Checkpoint::parse(note).ok());
                let checkpoint = note.map(|note| {
                    let signed = note.signed_by(key);
                    (note, signed)
                });
                Facts::Commit { sha256: sha256(&[body]), checkpoint }
            }
            Kind::Header | Kind::Pad | Kind::Seal => return,
        };
    }
}

/// Why no more is read.
enum Stop {
    Failed(io::Error),
    /// Nobody wants it.
    Unwanted,
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A segment that is read from front to back.
struct Segment {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    live: bool,
    /// The next frame.
    offset: u64,
    sealed: bool,
    /// There is no frame behind `offset`.
    ended: bool,
    /// Over all bytes before `hashed`.
    hasher: Sha256,
    hashed: u64,
    /// For what is looked at beside the stretches.
    window: Window,
}

impl Segment {
    fn open(disk: &Arc<dyn Disk>, path: &Path, live: bool) -> io::Result<Self> {
        let file = disk.open_read(path)?;
        Ok(Self {
            path: path.to_owned(),
            length: file.length()?,
            live,
            offset: 0,
            sealed: false,
            ended: false,
            hasher: Sha256::new(),
            hashed: 0,
            window: Window::new(Arc::clone(&file)),
            file,
        })
    }

    fn read(
        mut self,
        number: u64,
        is_last: bool,
        jobs: &SyncSender<Job>,
        due: &SyncSender<Due>,
    ) -> Result<(), Stop> {
        let send = |item| due.send(item).map_err(|_| Stop::Unwanted);
        let header = match self.window.frame(0)? {
            Found::Frame(frame) if frame.kind == Kind::Header => {
                Header::parse(frame.body).map(|header| (header, frame.length as u64))
            }
            _ => None,
        };
        self.offset = header.as_ref().map_or(0, |(_, length)| *length);
        let (file, length) = (self.path.clone(), self.length);
        send(Due::Ready(Read::Begin { file, number, length, header, is_last }))?;
        while self.offset < self.length && !self.ended {
            let stretch = self.stretch()?;
            let (done, examined) = sync_channel(1);
            jobs.send((stretch, done)).map_err(|_| Stop::Unwanted)?;
            send(Due::Examined(examined))?;
        }
        send(Due::Ready(Read::End { offset: self.offset, sealed: self.sealed }))
    }

    /// The frames that follow, up to where something else stands.
    fn stretch(&mut self) -> io::Result<Stretch> {
        let base = self.offset;
        let mut bytes = self.bytes_at(base, STRETCH_BYTES)?;
        let mut steps = Vec::new();
        let mut at = 0;
        while steps.len() < STEPS_MAX {
            let here = bytes.get(at..).unwrap_or_default();
            let offset = base + at as u64;
            let extent = frame::extent(here).unwrap_or(HEADER_BYTES);
            if here.len() < extent && offset + (here.len() as u64) < self.length {
                if at > 0 {
                    break;
                }
                let longer = self.bytes_at(base, extent)?;
                if longer.len() <= bytes.len() {
                    break;
                }
                bytes = longer;
                continue;
            }
            let (found, fault) = match frame::parse(here) {
                Found::Frame(found) => (found, None),
                Found::Damaged(found, fault) => (found, Some(fault)),
                Found::End => break,
                Found::Blank => {
                    self.hash(base, bytes.get(..at).unwrap_or_default())?;
                    self.look_for_strays(offset, &mut steps)?;
                    return Ok(Stretch { bytes, steps });
                }
                Found::Broken(fault) => {
                    let kind = here.get(4).copied().and_then(Kind::from_byte);
                    steps.push(Step::Broken { offset, fault, kind });
                    self.hash(base, bytes.get(..at).unwrap_or_default())?;
                    self.offset = offset;
                    self.go_on_behind(offset + 1)?;
                    return Ok(Stretch { bytes, steps });
                }
            };
            let (kind, length) = (found.kind, found.length);
            let body = at + HEADER_BYTES..at + HEADER_BYTES + found.body.len();
            let mut facts = Facts::None;
            if kind == Kind::Seal {
                self.hash(base, bytes.get(..at).unwrap_or_default())?;
                facts = Facts::Seal(self.hasher.clone().finalize().into());
            }
            steps.push(Step::Frame(Frame { kind, fault, offset, length: length as u64, facts, body }));
            at += length;
            if kind == Kind::Seal {
                self.sealed = true;
                self.ended = true;
                self.offset = base + at as u64;
                self.look_behind_the_seal(&mut steps)?;
                return Ok(Stretch { bytes, steps });
            }
        }
        self.hash(base, bytes.get(..at).unwrap_or_default())?;
        self.offset = base + at as u64;
        self.ended |= at == 0;
        Ok(Stretch { bytes, steps })
    }

    fn bytes_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        let count = self.file.read_at(offset, &mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Hashes what stands before `base`, where that was not read in stretches, and `bytes`, which stand there.
    fn hash(&mut self, base: u64, bytes: &[u8]) -> io::Result<()> {
        while self.hashed < base {
            let wanted = usize::try_from(base - self.hashed).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = self.window.get(self.hashed, wanted)?;
            if piece.is_empty() {
                break;
            }
            self.hasher.update(piece);
            self.hashed += piece.len() as u64;
        }
        self.hasher.update(bytes);
        self.hashed += bytes.len() as u64;
        Ok(())
    }

    /// Where the first byte from `from` on is that isn't zero.
    fn first_nonzero(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at < self.length {
            let piece = self.window.get(at, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            if !is_zero(piece)
                && let Some(place) = piece.iter().position(|byte| *byte != 0)
            {
                return Ok(Some(at + place as u64));
            }
            at += piece.len() as u64;
        }
        Ok(None)
    }

    /// Behind the frames there are zeros alone; where there is more, it may be frames again.
    fn look_for_strays(&mut self, offset: u64, steps: &mut Vec<Step>) -> io::Result<()> {
        self.offset = offset;
        match self.first_nonzero(offset)? {
            // What is being written just now may be there before what stands in front of it.
            Some(stray) if !self.live => {
                steps.push(Step::Stray { offset: stray, sealed: false });
                self.go_on_behind(stray)
            }
            _ => {
                self.ended = true;
                Ok(())
            }
        }
    }

    fn look_behind_the_seal(&mut self, steps: &mut Vec<Step>) -> io::Result<()> {
        if let Some(offset) = self.first_nonzero(self.offset)?
            && !self.live
        {
            steps.push(Step::Stray { offset, sealed: true });
        }
        Ok(())
    }

    /// Goes on with the next whole frame, if there is one.
    fn go_on_behind(&mut self, from: u64) -> io::Result<()> {
        let mut offset = from.next_multiple_of(frame::ALIGNMENT as u64);
        while offset < self.length {
            let head = self.window.get(offset, HEADER_BYTES)?;
            if head.starts_with(&MAGIC) && matches!(self.window.frame(offset)?, Found::Frame(_)) {
                self.offset = offset;
                return Ok(());
            }
            offset += frame::ALIGNMENT as u64;
        }
        self.ended = true;
        Ok(())
    }
}
