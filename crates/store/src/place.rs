//! From the index to the ledger: where an operation's entries are, and reading them.

use rusqlite::{Connection, Row, params};
use verbatim_ledger::{Location, Reader};

use crate::fold::{CONTENT_SHOWN_BYTES_MAX, OperationEntries};
use crate::index::StoreError;

/// The columns that a place is made of, from a row of `operations o`.
pub(crate) const COLUMNS: &str = "o.session, o.sequence, o.segment, o.offset, o.end_segment, o.end_offset";

/// Where an operation's entries are.
pub(crate) struct Place {
    session: i64,
    sequence: i64,
    request: Location,
    end: Option<Location>,
}

impl Place {
    pub(crate) fn of(row: &Row<'_>) -> Result<Self, StoreError> {
        let end: (Option<i64>, Option<i64>) = (row.get("end_segment")?, row.get("end_offset")?);
        Ok(Self {
            session: row.get("session")?,
            sequence: row.get("sequence")?,
            request: location(row.get("segment")?, row.get("offset")?),
            end: end.0.zip(end.1).map(|(segment, offset)| location(segment, offset)),
        })
    }

    /// The places of the operation's content, where it is longer than what is shown from memory.
    pub(crate) fn long_content(&self, db: &Connection) -> Result<Option<Vec<Location>>, StoreError> {
        let mut total = db.prepare_cached(
            "SELECT coalesce(sum(content_bytes), 0) FROM chunks WHERE session = ?1 AND sequence = ?2",
        )?;
        let key = params![self.session, self.sequence];
        let total: i64 = total.query_row(key, |row| row.get(0))?;
        if total.cast_unsigned() <= CONTENT_SHOWN_BYTES_MAX {
            return Ok(None);
        }
        let mut statement = db.prepare_cached(
            "SELECT segment, offset FROM chunks
             WHERE session = ?1 AND sequence = ?2 AND content_bytes > 0 ORDER BY entry",
        )?;
        let places = statement.query_map(key, |row| Ok(location(row.get(0)?, row.get(1)?)))?;
        Ok(Some(places.collect::<Result<_, _>>()?))
    }

    pub(crate) fn read(&self, db: &Connection, reader: &mut Reader) -> Result<OperationEntries, StoreError> {
        let mut chunks = Vec::new();
        let mut statement = db.prepare_cached(
            "SELECT segment, offset, content_bytes, sum(content_bytes) OVER () AS total FROM chunks
             WHERE session = ?1 AND sequence = ?2 ORDER BY entry",
        )?;
        let mut rows = statement.query(params![self.session, self.sequence])?;
        while let Some(row) = rows.next()? {
            let is_content = row.get::<_, i64>("content_bytes")? > 0;
            if is_content && row.get::<_, i64>("total")?.cast_unsigned() > CONTENT_SHOWN_BYTES_MAX {
                continue;
            }
            chunks.push(reader.read_at(location(row.get("segment")?, row.get("offset")?))?);
        }
        let request = reader.read_at(self.request)?;
        let end = self.end.map(|end| reader.read_at(end)).transpose()?;
        Ok(OperationEntries { request, chunks, end })
    }
}

fn location(segment: i64, offset: i64) -> Location {
    Location { segment: segment.cast_unsigned(), offset: offset.cast_unsigned() }
}
