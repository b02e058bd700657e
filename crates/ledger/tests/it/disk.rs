//! A disk in memory that tears, forgets and refuses, as real ones do when the power goes.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};

use verbatim_ledger::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// What goes wrong, and when: the count of writes and syncs on segment files at which it does (0: never).
#[derive(Default)]
pub(crate) struct Faults {
    done: AtomicU64,
    /// From here on everything fails: the power is gone.
    pub(crate) power_off_at: AtomicU64,
    pub(crate) failing_sync_at: AtomicU64,
    pub(crate) short_write_at: AtomicU64,
}

impl Faults {
    fn step(&self) -> io::Result<u64> {
        let now = self.done.fetch_add(1, SeqCst) + 1;
        let off = self.power_off_at.load(SeqCst);
        if off != 0 && now >= off { Err(io::Error::other("no power")) } else { Ok(now) }
    }

    fn is_off(&self) -> io::Result<()> {
        let off = self.power_off_at.load(SeqCst);
        if off != 0 && self.done.load(SeqCst) >= off { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    /// What survives for certain.
    synced: Vec<u8>,
    /// Sectors written since.
    dirty: BTreeSet<usize>,
}

struct SimFile {
    content: Mutex<Content>,
    faults: Arc<Faults>,
}

impl SimFile {
    fn new(bytes: Vec<u8>, faults: &Arc<Faults>) -> Arc<Self> {
        let content = Content { synced: bytes.clone(), now: bytes, dirty: BTreeSet::new() };
        Arc::new(Self { content: Mutex::new(content), faults: Arc::clone(faults) })
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.content().now.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.content();
        let from = usize::try_from(offset).unwrap().min(content.now.len());
        let count = buffer.len().min(content.now.len() - from);
        buffer[..count].copy_from_slice(&content.now[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let now = self.faults.step()?;
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        if self.faults.short_write_at.load(SeqCst) == now {
            bytes.truncate(bytes.len() / 2);
        }
        let mut content = self.content();
        let from = usize::try_from(offset).unwrap();
        let to = from + bytes.len();
        if to > content.now.len() {
            content.now.resize(to, 0);
        }
        content.now[from..to].copy_from_slice(&bytes);
        content.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        let now = self.faults.step()?;
        if self.faults.failing_sync_at.load(SeqCst) == now {
            return Err(io::Error::other("the disk said no"));
        }
        let mut content = self.content();
        content.synced = content.now.clone();
        content.dirty.clear();
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.faults.step()?;
        let mut content = self.content();
        content.now.truncate(usize::try_from(length).unwrap());
        content.synced = content.now.clone();
        content.dirty.clear();
        Ok(())
    }
}

#[derive(Default)]
struct Tree {
    files: BTreeMap<PathBuf, Arc<SimFile>>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
}

/// The disk.
pub(crate) struct SimDisk {
    tree: Arc<Mutex<Tree>>,
    pub(crate) faults: Arc<Faults>,
    /// How many bytes fit.
    pub(crate) capacity: AtomicU64,
}

impl SimDisk {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { tree: Arc::default(), faults: Arc::default(), capacity: AtomicU64::new(1 << 30) })
    }

    fn tree(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, path: &Path) -> io::Result<Arc<SimFile>> {
        self.faults.is_off()?;
        self.tree().files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What a file holds now.
    pub(crate) fn bytes(&self, path: impl AsRef<Path>) -> Vec<u8> {
        self.file(path.as_ref()).unwrap().content().now.clone()
    }

    /// Puts something else into a file, as somebody with access to the disk would.
    pub(crate) fn tamper(&self, path: impl AsRef<Path>, bytes: Vec<u8>) {
        let file = SimFile::new(bytes, &self.faults);
        self.tree().files.insert(path.as_ref().to_owned(), file);
    }

    /// Changes one byte in place.
    pub(crate) fn flip(&self, path: &Path, place: usize, mask: u8) {
        self.file(path).unwrap().content().now[place] ^= mask;
    }

    /// All files below a folder.
    pub(crate) fn files(&self, dir: impl AsRef<Path>) -> Vec<PathBuf> {
        self.tree().files.keys().filter(|path| path.starts_with(dir.as_ref())).cloned().collect()
    }

    /// Another disk with the same content.
    pub(crate) fn copy(&self) -> Arc<Self> {
        self.after(|content, _| content.now.clone())
    }

    /// What is there when the power comes back: of the sectors that were written and not synced, `keeps` says which made it.
    pub(crate) fn crashed(&self, mut keeps: impl FnMut() -> bool) -> Arc<Self> {
        self.after(|content, _| {
            let mut bytes = content.synced.clone();
            bytes.resize(content.now.len(), 0);
            for sector in &content.dirty {
                if keeps() {
                    let range = sector * SECTOR..((sector + 1) * SECTOR).min(content.now.len());
                    bytes[range.clone()].copy_from_slice(&content.now[range]);
                }
            }
            bytes
        })
    }

    fn after(&self, mut image: impl FnMut(&Content, &Path) -> Vec<u8>) -> Arc<Self> {
        let fresh = Self::new();
        {
            let (old, mut new) = (self.tree(), fresh.tree());
            new.dirs.clone_from(&old.dirs);
            for (path, file) in &old.files {
                new.files.insert(path.clone(), SimFile::new(image(&file.content(), path), &fresh.faults));
            }
        }
        fresh
    }
}

struct Lock(Arc<Mutex<Tree>>, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).locked.remove(&self.1);
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, length: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.is_off()?;
        if self.free(path)? < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = SimFile::new(vec![0; usize::try_from(length).unwrap()], &self.faults);
        self.tree().files.insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path)?)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path)?)
    }

    fn get(&self, path: &Path, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.file(path)?.content().now.clone();
        if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
    }

    fn put(&self, path: &Path, bytes: &[u8], _secret: bool) -> io::Result<()> {
        self.faults.is_off()?;
        self.tamper(path, bytes.to_vec());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.faults.is_off()?;
        let tree = self.tree();
        if !tree.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = tree.files.keys().chain(&tree.dirs).filter(|path| path.parent() == Some(dir));
        let names: BTreeSet<_> =
            here.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        Ok(names.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let tree = self.tree();
        tree.files.contains_key(path) || tree.dirs.contains(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.is_off()?;
        self.tree().dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.is_off()?;
        let mut tree = self.tree();
        let moved = |path: &PathBuf| path.strip_prefix(from).map(|rest| to.join(rest)).ok();
        let moved = |path: &PathBuf| if path == from { Some(to.to_owned()) } else { moved(path) };
        tree.dirs = tree.dirs.iter().map(|path| moved(path).unwrap_or_else(|| path.clone())).collect();
        let files = std::mem::take(&mut tree.files);
        tree.files = files.into_iter().map(|(path, file)| (moved(&path).unwrap_or(path), file)).collect();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.is_off()?;
        let mut tree = self.tree();
        tree.files.retain(|file, _| !file.starts_with(path));
        tree.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn free(&self, _dir: &Path) -> io::Result<u64> {
        let used: u64 = self.tree().files.values().map(|file| file.content().now.len() as u64).sum();
        Ok(self.capacity.load(SeqCst).saturating_sub(used))
    }

    fn lock(&self, dir: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let fresh = self.tree().locked.insert(dir.to_owned());
        Ok(fresh
            .then(|| Box::new(Lock(Arc::clone(&self.tree), dir.to_owned())) as Box<dyn Any + Send + Sync>))
    }

    fn is_locked(&self, dir: &Path) -> bool {
        self.tree().locked.contains(dir)
    }
}
