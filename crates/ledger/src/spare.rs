//! Segments made ahead, in `spare/`: zero-filled and synced, so that a commit never waits for space, and the reserve that
//! a full disk leaves to outcomes and closes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};

/// A file of zeros.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) length: u64,
}

/// The files that are ready.
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    /// How many of the usual length are kept.
    wanted: usize,
    ready: Mutex<(u64, Vec<Spare>)>,
}

impl Spares {
    /// Empties the folder: whether a file there is all zeros is not known.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        data_dir: &Path,
        segment_bytes: u64,
        reserve: u64,
    ) -> io::Result<Self> {
        let dir = data_dir.join("spare");
        disk.create_dir(&dir)?;
        for name in disk.list(&dir)? {
            disk.remove(&dir.join(name))?;
        }
        let wanted = usize::try_from(reserve.div_ceil(segment_bytes)).unwrap_or(usize::MAX).max(1);
        Ok(Self { disk, dir, segment_bytes, wanted, ready: Mutex::new((0, Vec::new())) })
    }

    /// A file of at least `length` bytes, made now where none is ready.
    pub(crate) fn take(&self, length: u64) -> io::Result<Spare> {
        let found = {
            let mut ready = self.ready.lock();
            let fitting = ready.1.iter().enumerate().filter(|(_, spare)| spare.length >= length);
            let smallest = fitting.min_by_key(|(_, spare)| spare.length).map(|(place, _)| place);
            smallest.map(|place| ready.1.swap_remove(place))
        };
        found.map_or_else(|| self.make(length), Ok)
    }

    fn make(&self, length: u64) -> io::Result<Spare> {
        let number = {
            let mut ready = self.ready.lock();
            ready.0 += 1;
            ready.0
        };
        let length = length.max(self.segment_bytes).next_multiple_of(8);
        let path = self.dir.join(format!("{number:08}.zero"));
        let file = self.disk.create(&path, length)?;
        Ok(Spare { path, file, length })
    }

    /// Makes a file of at least `length` bytes ready, for an entry that no usual segment holds.
    pub(crate) fn prepare(&self, length: u64) -> io::Result<()> {
        let spare = self.make(length)?;
        self.ready.lock().1.push(spare);
        Ok(())
    }

    /// Makes one more file of the usual length, if any is missing and there is space; says whether it did.
    pub(crate) fn refill(&self) -> io::Result<bool> {
        if self.ready.lock().1.len() >= self.wanted || self.disk.free(&self.dir)? < self.segment_bytes {
            return Ok(false);
        }
        self.prepare(self.segment_bytes)?;
        Ok(true)
    }

    /// How many bytes are ready.
    pub(crate) fn bytes(&self) -> u64 {
        self.ready.lock().1.iter().map(|spare| spare.length).sum()
    }
}
