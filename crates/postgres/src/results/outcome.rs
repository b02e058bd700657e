//! What the target says of an operation, gathered into its outcome.

use verbatim_core::{Content, Outcome, Status, TargetError};

use crate::frame::readable;

/// How many notices of an operation are kept.
const MESSAGES_MAX: usize = 100;
/// How many bytes of a notice or an error are kept.
const MESSAGE_MAX: usize = 8 << 10;

/// What is known of the operation that the target is answering.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Rows by the tags of the commands that completed.
    tagged: Option<u64>,
    /// DataRows since the last command completed.
    counted: u64,
    bytes: u64,
    error: Option<TargetError>,
    messages: Vec<String>,
}

impl Progress {
    /// A message of the result was sent to the client.
    pub(crate) fn sent(&mut self, length: u64) {
        self.bytes = self.bytes.saturating_add(length);
    }

    /// A row was.
    pub(crate) fn row(&mut self) {
        self.counted += 1;
    }

    /// A command completed: its rows are in the tag, of several commands they add up.
    pub(crate) fn command(&mut self, tag: &[u8]) {
        let rows = rows(tag).or((self.counted > 0).then_some(self.counted));
        self.counted = 0;
        if let Some(rows) = rows {
            self.tagged = Some(self.tagged.unwrap_or(0).saturating_add(rows));
        }
    }

    /// A portal was suspended: the rows are those that came.
    pub(crate) fn suspended(&mut self) {
        self.tagged = Some(std::mem::take(&mut self.counted));
    }

    /// The target's error.
    pub(crate) fn failed(&mut self, error: TargetError) {
        self.error.get_or_insert(error);
    }

    /// A notice.
    pub(crate) fn notice(&mut self, fields: &[u8]) {
        let of = Fields::read(fields);
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push(format!("{} {}: {}", of.severity, of.code, of.message));
        }
    }

    /// The outcome.
    pub(crate) fn outcome(self) -> Outcome {
        let status = if self.error.is_some() { Status::Error } else { Status::Ok };
        Outcome {
            rows: self.tagged.or((self.counted > 0).then_some(self.counted)),
            bytes: Some(self.bytes),
            error: self.error,
            messages: self.messages,
            ..Outcome::new(status)
        }
    }
}

/// The outcome of COPY data, whose fate is its command's.
pub(crate) fn of_copy(content: Content, error: Option<&TargetError>) -> Outcome {
    let status = if error.is_some() { Status::Error } else { Status::Ok };
    Outcome { content: Some(content), error: error.cloned(), ..Outcome::new(status) }
}

/// The number at the end of `SELECT 3`, `INSERT 0 1`, `COPY 7`; others have none.
fn rows(tag: &[u8]) -> Option<u64> {
    let tag = tag.split(|byte| *byte == 0).next()?;
    let number = tag.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The fields of an ErrorResponse or a NoticeResponse that the record keeps.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) severity: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Fields {
    /// Reads the fields; what is missing stays empty.
    pub(crate) fn read(mut body: &[u8]) -> Self {
        let mut fields = Self::default();
        let mut localized = String::new();
        while let Some((&field, rest)) = body.split_first() {
            let (text, rest) = match memchr::memchr(0, rest) {
                Some(end) => (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default()),
                None => (rest, [].as_slice()),
            };
            match field {
                b'V' => fields.severity = readable(cut(text)),
                b'S' => localized = readable(cut(text)),
                b'C' => fields.code = readable(cut(text)),
                b'M' => fields.message = readable(cut(text)),
                0 => break,
                _ => {}
            }
            body = rest;
        }
        if fields.severity.is_empty() {
            fields.severity = localized;
        }
        fields
    }

    pub(crate) fn error(self) -> TargetError {
        TargetError { code: self.code, message: self.message }
    }
}

fn cut(text: &[u8]) -> &[u8] {
    text.get(..MESSAGE_MAX).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_tags_last_number() {
        for (tag, expected) in [
            (&b"SELECT 3\0"[..], Some(3)),
            (b"INSERT 0 12\0", Some(12)),
            (b"CREATE TABLE\0", None),
            (b"", None),
            (b"COPY 99999999999999999999999\0", None),
        ] {
            assert_eq!(rows(tag), expected);
        }
    }

    #[test]
    fn an_error_in_any_encoding_and_any_shape_is_read() {
        let fields = Fields::read(b"SFEHLER\0VERROR\0C22012\0MDivision durch Null \xe4\0\0");
        assert_eq!((&*fields.severity, &*fields.code), ("ERROR", "22012"));
        assert_eq!(fields.message, "Division durch Null \\xe4");
        assert_eq!(Fields::read(b"SERROR").severity, "ERROR");
        assert_eq!(Fields::read(b"\0Mnever").message, "");
    }
}
