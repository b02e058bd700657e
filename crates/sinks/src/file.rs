//! JSON lines in a file, rotated by size.
//!
//! A line counts as delivered when it is synced. What a crash left of the last line is cut off at the next start; the
//! cursor was not moved past it, so it comes again. `events.jsonl` is rotated to `events.jsonl.1`, `.2`, … with rising
//! numbers, so that a rotated file's name never changes again; the lowest are deleted where only some are kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use verbatim_core::BoxFuture;

use crate::deliver::blocking;
use crate::event::Batch;
use crate::sink::{Sink, SinkError};

/// How a torn last line is looked for, from the end of the file: this many bytes at a time.
const HEAL_BYTES: u64 = 64 << 10;

/// Where to, and how long a file gets.
#[derive(Debug, Clone)]
pub struct FileSettings {
    /// The file that is written to.
    pub path: PathBuf,
    /// A file that would get longer is rotated first, in bytes (the configuration's default is 100 MiB). One batch's
    /// event may be longer, and is then alone.
    pub rotate: u64,
    /// How many rotated files are kept; all where none is given.
    pub keep: Option<usize>,
}

/// Appends events to a file.
#[derive(Debug)]
pub struct FileSink {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    settings: FileSettings,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Bytes that are synced: whole lines.
    length: u64,
}

impl FileSink {
    /// A sink that opens its file with the first delivery.
    pub fn new(settings: FileSettings) -> Self {
        Self { state: Arc::new(Mutex::new(State { settings, open: None })) }
    }
}

impl Sink for FileSink {
    fn kind(&self) -> &'static str {
        "file"
    }

    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), SinkError>> {
        let state = Arc::clone(&self.state);
        let lines: Vec<Bytes> = batch.events.iter().map(|event| event.json.clone()).collect();
        Box::pin(async move {
            let written = blocking(move || state.lock().append(&lines));
            written.await.map_err(|error| unavailable(&error))
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let opened = blocking(move || state.lock().open().map(|_| ()));
            opened.await.map_err(|error| unavailable(&error))
        })
    }
}

fn unavailable(error: &io::Error) -> SinkError {
    SinkError::Unavailable { reason: error.to_string(), retry_after: None }
}

impl State {
    fn append(&mut self, lines: &[Bytes]) -> io::Result<()> {
        let rotate = self.settings.rotate;
        let mut pending = Vec::new();
        for line in lines {
            let length = self.open()?.length;
            let more = (pending.len() + line.len() + 1) as u64;
            if length + more > rotate && length + pending.len() as u64 > 0 {
                self.write(&pending)?;
                pending.clear();
                self.rotate()?;
            }
            pending.extend_from_slice(line);
            pending.push(b'\n');
        }
        self.write(&pending)
    }

    /// Writes whole lines and syncs them. What was written of them when that fails is cut off again; where even that
    /// fails, the next opening does it.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let open = self.open()?;
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => open.length += lines.len() as u64,
            Err(_) => {
                let _ = open.file.set_len(open.length);
                self.open = None;
            }
        }
        written
    }

    /// The file, opened anew where somebody moved it away.
    fn open(&mut self) -> io::Result<&mut Open> {
        let path = &self.settings.path;
        let moved = match (&self.open, std::fs::metadata(path)) {
            (Some(open), Ok(there)) => {
                let ours = open.file.metadata()?;
                (ours.dev(), ours.ino()) != (there.dev(), there.ino())
            }
            _ => true,
        };
        if moved {
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => {
                let mut file =
                    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
                let length = heal(&mut file)?;
                sync_folder(path)?;
                Ok(none.insert(Open { file, length }))
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let path = &self.settings.path;
        let mut rotated = rotated(path)?;
        let number = rotated.last().map_or(1, |last| last.saturating_add(1));
        std::fs::rename(path, numbered(path, number))?;
        sync_folder(path)?;
        rotated.push(number);
        if let Some(keep) = self.settings.keep {
            let surplus = rotated.len().saturating_sub(keep);
            for number in rotated.iter().take(surplus) {
                std::fs::remove_file(numbered(path, *number))?;
            }
        }
        Ok(())
    }
}

/// Cuts off what follows the last line end, and returns the file's length.
fn heal(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut buffer = Vec::new();
    while end > 0 {
        let from = end.saturating_sub(HEAL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        buffer.clear();
        (&*file).take(end - from).read_to_end(&mut buffer)?;
        if let Some(place) = buffer.iter().rposition(|byte| *byte == b'\n') {
            end = from + place as u64 + 1;
            break;
        }
        end = from;
    }
    if end < length {
        tracing::warn!(bytes = length - end, "a torn last line was cut off; its event is delivered again");
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(end)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The numbers of the rotated files, rising.
fn rotated(path: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder(path))? {
        let name = entry?.file_name();
        let (Some(name), Some(ours)) = (name.to_str(), path.file_name().and_then(|name| name.to_str()))
        else {
            continue;
        };
        let number = name.strip_prefix(ours).and_then(|rest| rest.strip_prefix('.')).map(str::parse);
        if let Some(Ok(number)) = number {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}
