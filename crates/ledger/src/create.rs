//! A log's beginning: its origin, its key, and the empty `ledger/`.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::note::{NOTE_BYTES_MAX, SigningKey};
use crate::segment::{self, Header, SEGMENT_BYTES_LEAST, SEGMENT_BYTES_MAX};
use crate::spare::Spares;
use crate::writer::install;
use crate::{OpenError, Settings};

/// The first generation of a log; later ones come with `log_close`.
const GENERATION: u64 = 1;

/// `<organisation>/verbatim/<node>/<generation>`.
pub(crate) fn origin(settings: &Settings) -> Result<String, OpenError> {
    let legal = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    };
    for (name, value) in [("organisation", &settings.organisation), ("node", &settings.node)] {
        if !legal(value) {
            let message = "1 to 253 letters, digits, '.', '-' and '_' are expected".to_owned();
            return Err(OpenError::Setting { name, message });
        }
    }
    if !(SEGMENT_BYTES_LEAST..=SEGMENT_BYTES_MAX).contains(&settings.segment_bytes) {
        let message = format!("{SEGMENT_BYTES_LEAST} to {SEGMENT_BYTES_MAX} bytes are expected");
        return Err(OpenError::Setting { name: "segment", message });
    }
    if settings.heartbeat.is_zero() {
        return Err(OpenError::Setting { name: "heartbeat", message: "it can't be zero".to_owned() });
    }
    Ok(format!("{}/verbatim/{}/{GENERATION}", settings.organisation, settings.node))
}

/// The paths of a data directory.
pub(crate) struct Paths {
    pub(crate) data: PathBuf,
    pub(crate) ledger: PathBuf,
    pub(crate) segments: PathBuf,
    pub(crate) quarantine: PathBuf,
    key: PathBuf,
    vkey: PathBuf,
}

impl Paths {
    pub(crate) fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            ledger: data.join("ledger"),
            segments: data.join("ledger/seg"),
            quarantine: data.join("quarantine"),
            key: data.join("keys/node.key"),
            vkey: data.join("keys/node.vkey"),
        }
    }
}

/// Makes errors of input and output say where.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    |source| OpenError::Io { path, source }
}

/// A finding that keeps the ledger closed.
pub(crate) fn damaged(file: &Path, offset: u64, message: impl Into<String>) -> OpenError {
    OpenError::Damaged { file: file.to_owned(), offset, message: message.into() }
}

/// The node's key, made where there is neither key nor ledger, and whether the ledger was.
pub(crate) fn identity(
    disk: &dyn Disk,
    paths: &Paths,
    origin: &str,
    spares: &Spares,
) -> Result<(SigningKey, bool), OpenError> {
    let fresh = paths.data.join("ledger.new");
    let unfinished = disk.exists(&fresh);
    let exists = disk.exists(&paths.ledger);
    if !disk.exists(&paths.key) {
        if exists {
            return Err(damaged(&paths.key, 0, "the key of the ledger is missing"));
        }
        disk.create_dir(&fresh).map_err(at(&fresh))?;
        let keys = paths.data.join("keys");
        disk.create_dir(&keys).map_err(at(&keys))?;
        let (_, text) =
            SigningKey::generate(origin).map_err(|error| damaged(&paths.key, 0, error.to_string()))?;
        disk.put(&paths.key, text.as_bytes(), true).map_err(at(&paths.key))?;
    } else if !exists && !unfinished {
        return Err(damaged(&paths.ledger, 0, "the ledger is missing, while its key is there"));
    }
    let key = read_key(disk, &paths.key, origin)?;
    let vkey = format!("{}\n", key.public());
    if !disk.exists(&paths.vkey) {
        disk.put(&paths.vkey, vkey.as_bytes(), false).map_err(at(&paths.vkey))?;
    }
    if exists {
        check(disk, &paths.ledger.join("origin"), &format!("{origin}\n"), "this is another log's origin")?;
        check(disk, &paths.ledger.join("log.vkey"), &vkey, "this is not the node's key")?;
    } else {
        create(disk, paths, &fresh, &key, spares)?;
    }
    Ok((key, !exists))
}

fn read_key(disk: &dyn Disk, path: &Path, origin: &str) -> Result<SigningKey, OpenError> {
    let bytes = disk.get(path, NOTE_BYTES_MAX).map_err(at(path))?;
    let key = std::str::from_utf8(&bytes).ok().and_then(|text| SigningKey::parse(text).ok());
    let key = key.ok_or_else(|| damaged(path, 0, "this is no private key"))?;
    if key.public().name == origin {
        return Ok(key);
    }
    let message = format!("the ledger here is {}, not {origin}", key.public().name);
    Err(OpenError::Setting { name: "node", message })
}

fn check(disk: &dyn Disk, path: &Path, expected: &str, wrong: &str) -> Result<(), OpenError> {
    let bytes = disk.get(path, NOTE_BYTES_MAX).map_err(at(path))?;
    if bytes == expected.as_bytes() { Ok(()) } else { Err(damaged(path, 0, wrong)) }
}

/// Makes `ledger/` under another name, and gives it its own when all of it is durable.
fn create(
    disk: &dyn Disk,
    paths: &Paths,
    fresh: &Path,
    key: &SigningKey,
    spares: &Spares,
) -> Result<(), OpenError> {
    if disk.exists(fresh) {
        disk.remove(fresh).map_err(at(fresh))?;
    }
    let segments = fresh.join("seg");
    disk.create_dir(fresh).and_then(|()| disk.create_dir(&segments)).map_err(at(&segments))?;
    let origin = &key.public().name;
    disk.put(&fresh.join("origin"), format!("{origin}\n").as_bytes(), false).map_err(at(fresh))?;
    disk.put(&fresh.join("log.vkey"), format!("{}\n", key.public()).as_bytes(), false).map_err(at(fresh))?;
    let header = Header { origin: origin.clone(), segment: 0, first: 0, previous_commit: None, length: 0 };
    install(disk, &segments, spares, 0, header).map_err(at(&segments.join(segment::file_name(0))))?;
    disk.rename(fresh, &paths.ledger).map_err(at(&paths.ledger))
}
