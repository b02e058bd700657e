//! Documents that are written piece by piece, so that their length takes no memory.

use std::io::Write;

use crate::content::Content;
use crate::index::StoreError;
use crate::view::OperationView;

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

    /// Adds an operation whose text is `content`, which is too long to be in memory.
    pub(crate) fn add_long(
        &mut self,
        operation: &OperationView,
        content: &mut Content<'_>,
    ) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.empty) {
            self.out.write_all(b",")?;
        }
        let document = serde_json::to_string(operation)?;
        // The first of these is the key: what stands before it (a kind, a number) has no quotes.
        let (before, after) = document.split_once("\"text\":null").unwrap_or((&document, ""));
        self.out.write_all(before.as_bytes())?;
        content.write(self.out)?;
        Ok(self.out.write_all(after.as_bytes())?)
    }

    /// Ends the list, and the document with it.
    pub(crate) fn end(self) -> Result<(), StoreError> {
        Ok(self.close()?.write_all(b"}\n")?)
    }

    /// Ends the list, and gives back what it was written to.
    pub(crate) fn close(self) -> Result<&'a mut dyn Write, StoreError> {
        self.out.write_all(b"]")?;
        Ok(self.out)
    }
}
