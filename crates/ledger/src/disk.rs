//! What the ledger asks of a disk, and the real one. Tests put one in its place that tears, forgets and refuses.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FlockOperation;

/// A folder tree with files that can be synced.
///
/// What changes a folder (`create`, `create_dir`, `put`, `rename`, `remove`) is durable when it returns; what changes a
/// file is durable after [`DiskFile::sync`].
pub trait Disk: Send + Sync {
    /// Makes a file of `length` zero bytes, all of them allocated and written.
    fn create(&self, path: &Path, length: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Reads a small file, whole.
    ///
    /// # Errors
    /// It can't be read, or is longer than `limit` bytes.
    fn get(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>>;
    /// Writes a small file, whole or not at all, for its owner alone where it is secret.
    fn put(&self, path: &Path, bytes: &[u8], secret: bool) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Whether there is something of this name.
    fn exists(&self, path: &Path) -> bool;
    /// Whether this is a file of its own, and not a link to one, a folder or a device.
    fn is_plain(&self, path: &Path) -> bool {
        self.exists(path)
    }
    /// Makes a folder, and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file or folder another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, or a folder with all that is in it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// How many bytes can still be allocated where `dir` is.
    fn free(&self, dir: &Path) -> io::Result<u64>;
    /// Locks a folder until what this returns is dropped. None where another process has locked it.
    fn lock(&self, dir: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// Whether a process has locked a folder.
    fn is_locked(&self, dir: &Path) -> bool;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Reads at `offset` until `buffer` is full or the file ends; says how many bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes the buffers at `offset`, one behind the other, in one call; says how many bytes were taken.
    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Makes the content durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file, and makes that durable.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSystem;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl FileSystem {
    fn sync_parent(path: &Path) -> io::Result<()> {
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    }
}

impl Disk for FileSystem {
    fn create(&self, path: &Path, length: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            if let Err(error) = file.write_all(ZEROS.get(..piece).unwrap_or_default()) {
                // What was taken is needed elsewhere; that it can't be removed changes nothing of the error.
                let _ = fs::remove_file(path);
                return Err(error);
            }
            left -= piece as u64;
        }
        file.sync_all()?;
        Self::sync_parent(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn get(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn put(&self, path: &Path, bytes: &[u8], secret: bool) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = path.with_file_name(name);
        let mode = if secret { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        Self::sync_parent(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is no UTF-8 is not one of ours; shown escaped, it is reported as a stranger.
            names.push(entry?.file_name().to_str().map_or_else(|| "\u{fffd}".to_owned(), str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok()
    }

    fn is_plain(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|there| there.is_file())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        Self::sync_parent(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        Self::sync_parent(to)?;
        Self::sync_parent(from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            fs::remove_dir_all(path)?
        } else {
            fs::remove_file(path)?
        }
        Self::sync_parent(path)
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, dir: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let handle = File::open(dir)?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(handle))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_locked(&self, dir: &Path) -> bool {
        let Ok(handle) = File::open(dir) else { return false };
        rustix::fs::flock(&handle, FlockOperation::NonBlockingLockShared)
            == Err(rustix::io::Errno::WOULDBLOCK)
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(self, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, buffers, offset)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(self)?)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.sync_all()
    }
}
