//! Documents that are written piece by piece, so that their length takes no memory.

use std::io::Write;

use crate::index::StoreError;

/// A JSON list that is written member by member, and the end of the document around it.
pub(crate) struct List<'a> {
    out: &'a mut dyn Write,
    empty: bool,
}

impl<'a> List<'a> {
    pub(crate) fn begin(out: &'a mut dyn Write) -> Result<Self, StoreError> {
        out.write_all(b"[")?;
        Ok(Self { out, empty: true })
    }

    pub(crate) fn add(&mut self, member: &impl serde::Serialize) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.empty) {
            self.out.write_all(b",")?;
        }
        Ok(serde_json::to_writer(&mut *self.out, member)?)
    }

    pub(crate) fn end(self) -> Result<(), StoreError> {
        Ok(self.out.write_all(b"]}\n")?)
    }
}
