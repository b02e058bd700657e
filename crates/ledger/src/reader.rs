//! Reading the record from its files, of a live or a stopped ledger.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use crate::entry::{Entry, Location, Part};

use crate::disk::{Disk, FileSystem};
use crate::envelope::Head;
use crate::frame::{self, Found, HEADER_BYTES, Kind};
use crate::note::NOTE_BYTES_MAX;
use crate::payload::Body;
use crate::segment::{self, Header, Seal, Window};
use crate::{Checkpoint, ReadError, profile};

/// What the record consists of.
#[derive(Debug, Clone)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// A signed checkpoint over all entries before it.
    Checkpoint(Checkpoint),
}

/// Reads a ledger from front to back, and single entries by their place. Each frame's checksum is checked; whether the
/// record is intact is for [`verify`](crate::verify) to say.
pub struct Reader {
    disk: Arc<dyn Disk>,
    segments: PathBuf,
    origin: String,
    at: Option<At>,
    /// The next entry's index.
    next: u64,
    /// For single entries.
    other: Option<(u64, Window)>,
}

/// Where a reader stands.
struct At {
    number: u64,
    window: Window,
    offset: u64,
}

impl Reader {
    /// Opens the folder that a [`Ledger`](crate::Ledger) calls its [`dir`](crate::Ledger::dir); the next item is the first.
    ///
    /// # Errors
    /// The folder has no origin.
    pub fn open(ledger_dir: &Path) -> Result<Self, ReadError> {
        Self::open_on(Arc::new(FileSystem), ledger_dir)
    }

    /// As [`Self::open`], on another disk than the machine's.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_on(disk: Arc<dyn Disk>, ledger_dir: &Path) -> Result<Self, ReadError> {
        let path = ledger_dir.join("origin");
        let bytes = disk.get(&path, NOTE_BYTES_MAX).map_err(at(&path))?;
        let origin = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let origin = origin.ok_or_else(|| damaged(&path, 0, "this is no origin"))?.to_owned();
        Ok(Self { disk, segments: ledger_dir.join("seg"), origin, at: None, next: 0, other: None })
    }

    /// The log's name: `<organisation>/verbatim/<node>/<generation>`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Goes to an entry: it is the next item. An index one behind the last entry is the end, where the next ones will
    /// come. Reads through one segment at most.
    ///
    /// # Errors
    /// There is no such entry, or reading failed.
    pub fn seek(&mut self, index: u64) -> Result<(), ReadError> {
        let mut number = self.segment_of(index)?;
        loop {
            let (header, mut here) = self.open_segment(number)?.ok_or(ReadError::NoSuchEntry(index))?;
            let (next, sealed) = skip(&mut here, header.first, index).map_err(at(&self.path(number)))?;
            if sealed && self.disk.exists(&self.path(number + 1)) {
                number += 1;
                continue;
            }
            if next < index {
                return Err(ReadError::NoSuchEntry(index));
            }
            (self.at, self.next) = (Some(here), index);
            return Ok(());
        }
    }

    /// The next item among the first `limit` entries (those that are committed) and the checkpoints over them. None where
    /// there is no more yet: it can be asked again when the limit has grown, and follows a live ledger from segment to
    /// segment.
    ///
    /// # Errors
    /// Reading failed, or an entry below `limit` isn't there as it was written.
    pub fn next(&mut self, limit: u64) -> Result<Option<Item>, ReadError> {
        if self.at.is_none() {
            self.at = self.open_segment(0)?.map(|(_, here)| here);
        }
        let mut fresh = false;
        loop {
            let segments = &self.segments;
            let Some(here) = &mut self.at else { return Ok(None) };
            let path = segments.join(segment::file_name(here.number));
            match step(here, self.next, limit).map_err(at(&path))? {
                Step::Entry(record, length) => {
                    let location = Location { segment: here.number, offset: here.offset };
                    let entry = record.entry(location).filter(|entry| entry.index == self.next);
                    let entry =
                        entry.ok_or_else(|| damaged(&path, location.offset, "not the entry that is due"))?;
                    here.offset += length;
                    self.next += 1;
                    return Ok(Some(Item::Entry(entry)));
                }
                Step::Checkpoint(note, length) => {
                    let checkpoint = Checkpoint::parse(&note);
                    let checkpoint =
                        checkpoint.map_err(|error| damaged(&path, here.offset, error.to_string()))?;
                    if checkpoint.size > limit {
                        here.window.forget();
                        return Ok(None);
                    }
                    here.offset += length;
                    return Ok(Some(Item::Checkpoint(checkpoint)));
                }
                Step::Pass(length) => here.offset += length,
                Step::Seal => {
                    let number = here.number + 1;
                    match self.open_segment(number)? {
                        Some((_, next)) => self.at = Some(next),
                        None => return Ok(None),
                    }
                }
                // What was read earlier may be older than the limit: look once more.
                Step::Nothing(_) if !fresh => {
                    here.window.forget();
                    fresh = true;
                }
                Step::Nothing(_) if self.next >= limit => return Ok(None),
                Step::Nothing(message) => return Err(damaged(&path, here.offset, message)),
            }
        }
    }

    /// The entry at a place that [`Entry::location`] gave.
    ///
    /// # Errors
    /// Reading failed, or there is no entry.
    pub fn read_at(&mut self, location: Location) -> Result<Entry, ReadError> {
        let path = self.path(location.segment);
        if self.other.as_ref().is_none_or(|(number, _)| *number != location.segment) {
            let file = self.disk.open_read(&path).map_err(at(&path))?;
            self.other = Some((location.segment, Window::new(file)));
        }
        let Some((_, window)) = &mut self.other else { return Err(ReadError::NoSuchEntry(0)) };
        let mut record = Record::read(window, location.offset).map_err(at(&path))?;
        if !matches!(record, Extent::Whole(..)) {
            window.forget();
            record = Record::read(window, location.offset).map_err(at(&path))?;
        }
        let entry = match record {
            Extent::Whole(record, _) => record.entry(location),
            _ => None,
        };
        entry.ok_or_else(|| damaged(&path, location.offset, "there is no entry here"))
    }

    /// How many entries the last commit in the files covers: the limit to read a stopped ledger by, or one whose gateway
    /// can't be asked.
    ///
    /// # Errors
    /// Reading failed.
    pub fn committed(&self) -> Result<u64, ReadError> {
        let names = self.disk.list(&self.segments).map_err(at(&self.segments))?;
        for number in names.iter().rev().filter_map(|name| segment::number(name)) {
            let Some((_, mut here)) = self.open_segment(number)? else { continue };
            if let Some(size) = last_commit(&mut here).map_err(at(&self.path(number)))? {
                return Ok(size);
            }
        }
        Ok(0)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.segments.join(segment::file_name(number))
    }

    fn open_segment(&self, number: u64) -> Result<Option<(Header, At)>, ReadError> {
        let path = self.path(number);
        let file = match self.disk.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(at(&path))?,
        };
        let mut window = Window::new(file);
        let found = window.frame(0).map_err(at(&path))?;
        let header = match found {
            Found::Frame(frame) if frame.kind == Kind::Header => {
                Header::parse(frame.body).map(|header| (header, frame.length as u64))
            }
            _ => None,
        };
        let (header, offset) = header.ok_or_else(|| damaged(&path, 0, "this is no segment"))?;
        Ok(Some((header, At { number, window, offset })))
    }

    /// The number of the segment that an entry is in, or will be.
    fn segment_of(&self, index: u64) -> Result<u64, ReadError> {
        let names = self.disk.list(&self.segments).map_err(at(&self.segments))?;
        let numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
        let (mut low, mut high) = (0, numbers.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let number = numbers.get(middle).copied().unwrap_or_default();
            let first = self.open_segment(number)?.map_or(u64::MAX, |(header, _)| header.first);
            if first <= index { low = middle } else { high = middle }
        }
        numbers.get(low).copied().ok_or(ReadError::NoSuchEntry(index))
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    |source| ReadError::Io { path, source }
}

fn damaged(file: &Path, offset: u64, message: impl Into<String>) -> ReadError {
    ReadError::Damaged { file: file.to_owned(), offset, message: message.into() }
}

/// Goes over frames by their lengths alone, up to the entry `index`; says which entry is next, and whether the segment
/// ended before.
fn skip(here: &mut At, first: u64, index: u64) -> io::Result<(u64, bool)> {
    let mut next = first;
    let mut offset = here.offset;
    loop {
        let head = here.window.get(offset, HEADER_BYTES)?;
        let Some(length) = frame::extent(head) else {
            here.offset = offset;
            return Ok((next, false));
        };
        let kind = head.get(4).copied().and_then(Kind::from_byte);
        match kind {
            Some(Kind::Envelope | Kind::Payload) if next == index => {
                here.offset = offset;
                return Ok((next, false));
            }
            Some(Kind::Envelope) => next += 1,
            Some(Kind::Seal) => {
                here.offset = offset;
                return Ok((next, true));
            }
            _ => {}
        }
        offset += length as u64;
    }
}

/// How many entries the last commit of a segment covers.
fn last_commit(here: &mut At) -> io::Result<Option<u64>> {
    let (mut offset, mut size) = (here.offset, None);
    while let Found::Frame(frame) = here.window.frame(offset)? {
        offset += frame.length as u64;
        if frame.kind == Kind::Commit {
            let note = std::str::from_utf8(frame.body).ok().and_then(|note| Checkpoint::parse(note).ok());
            size = note.map(|note| note.size).or(size);
        }
    }
    Ok(size)
}

/// What stands at a place.
enum Step {
    Entry(Record, u64),
    Checkpoint(String, u64),
    Pass(u64),
    Seal,
    Nothing(String),
}

fn step(here: &mut At, next: u64, limit: u64) -> io::Result<Step> {
    match here.window.frame(here.offset)? {
        Found::End | Found::Blank => {
            Ok(Step::Nothing("the file ends before the entry that is due".to_owned()))
        }
        Found::Broken(fault) | Found::Damaged(_, fault) => Ok(Step::Nothing(fault.to_string())),
        Found::Frame(frame) => match frame.kind {
            Kind::Commit => match std::str::from_utf8(frame.body) {
                Ok(note) => Ok(Step::Checkpoint(note.to_owned(), frame.length as u64)),
                Err(error) => Ok(Step::Nothing(error.to_string())),
            },
            Kind::Seal => Ok(Step::Seal),
            Kind::Header | Kind::Pad => Ok(Step::Pass(frame.length as u64)),
            Kind::Envelope | Kind::Payload if next >= limit => {
                Ok(Step::Nothing("beyond the limit".to_owned()))
            }
            Kind::Envelope | Kind::Payload => match Record::read(&mut here.window, here.offset)? {
                Extent::Whole(record, length) => Ok(Step::Entry(record, length)),
                Extent::None(message) => Ok(Step::Nothing(message)),
            },
        },
    }
}

/// The frames of one entry.
struct Record {
    envelope: Bytes,
    payload: Vec<Bytes>,
}

enum Extent {
    Whole(Record, u64),
    None(String),
}

impl Record {
    /// Reads payload frames up to the envelope that they belong to.
    fn read(window: &mut Window, from: u64) -> io::Result<Extent> {
        let mut offset = from;
        let mut payload = Vec::new();
        loop {
            match window.frame(offset)? {
                Found::Frame(frame) if frame.kind == Kind::Payload => {
                    payload.push(Bytes::copy_from_slice(frame.body));
                    offset += frame.length as u64;
                }
                Found::Frame(frame) if frame.kind == Kind::Envelope => {
                    let record = Self { envelope: Bytes::copy_from_slice(frame.body), payload };
                    return Ok(Extent::Whole(record, offset + frame.length as u64 - from));
                }
                Found::Broken(fault) | Found::Damaged(_, fault) => {
                    return Ok(Extent::None(fault.to_string()));
                }
                _ => return Ok(Extent::None("payload without an envelope".to_owned())),
            }
        }
    }

    fn entry(self, location: Location) -> Option<Entry> {
        Entry::new(self.envelope, &self.payload, location)
    }
}

/// Reads any bytes as a segment's, for fuzzing; says how many whole frames they begin with.
pub fn check_bytes(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut count = 0;
    while let Found::Frame(frame) = frame::parse(rest) {
        match frame.kind {
            Kind::Envelope => {
                let _ = (Head::parse(frame.body), profile::parse(frame.body));
                let location = Location { segment: 0, offset: 0 };
                let _ = Entry::new(Bytes::copy_from_slice(frame.body), &[], location);
            }
            Kind::Commit => {
                let _ = std::str::from_utf8(frame.body).map(Checkpoint::parse);
            }
            Kind::Header => drop(Header::parse(frame.body)),
            Kind::Seal => drop(Seal::parse(frame.body)),
            Kind::Payload => {
                let _ = Body::parse(frame.body);
            }
            Kind::Pad => {}
        }
        count += 1;
        rest = rest.get(frame.length..).unwrap_or_default();
    }
    count
}
