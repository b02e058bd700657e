//! Envelopes: what the ledger writes of an entry, and how their beginning is read back.
//!
//! ```text
//! {"v":1,"origin":…,"idx":…,"ts":…,"mono":…,"boot":…,"kind":…,"sid":…,"sseq":…,"sprev":…,"cid":…, fields of the kind, "pay":[…]}
//! ```

use verbatim_core::{Fields, SessionId, Value, Visitor, json};

use crate::hash::{Hash, parse_hex, put_hex};
use crate::profile::{INTEGER_MAX, Json};

/// The format of envelopes.
pub const VERSION: u64 = 1;
/// The keys that every envelope has in front, in their order; `pay` is its last.
pub const COMMON: [&str; 11] =
    ["v", "origin", "idx", "ts", "mono", "boot", "kind", "sid", "sseq", "sprev", "cid"];

/// Writes the fields of an event, and remembers what the ledger itself has to know of them.
pub(crate) struct FieldWriter<'a> {
    out: &'a mut Vec<u8>,
    nested_first: bool,
    depth: u32,
    /// The operation's place in its session, where the event states one.
    pub(crate) operation: Option<u64>,
    /// A number was out of the profile's range.
    pub(crate) out_of_range: bool,
}

impl<'a> FieldWriter<'a> {
    /// A writer of fields behind others, each with a comma in front.
    pub(crate) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, nested_first: false, depth: 0, operation: None, out_of_range: false }
    }

    fn value(&mut self, value: &Value<'_>) {
        match value {
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Bool(true) => self.out.extend_from_slice(b"true"),
            Value::Bool(false) => self.out.extend_from_slice(b"false"),
            Value::Unsigned(number) => {
                self.out_of_range |= *number > INTEGER_MAX.unsigned_abs();
                json::unsigned(self.out, *number);
            }
            Value::Signed(number) => {
                self.out_of_range |= number.unsigned_abs() > INTEGER_MAX.unsigned_abs();
                if *number < 0 {
                    self.out.push(b'-');
                }
                json::unsigned(self.out, number.unsigned_abs());
            }
            Value::Text(text) => json::string(self.out, text),
            Value::Bytes(bytes) => json::base64url(self.out, bytes),
            Value::Time(time) => quoted(self.out, time.as_nanos()),
            Value::List(items) => {
                self.out.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        self.out.push(b',');
                    }
                    self.value(item);
                }
                self.out.push(b']');
            }
            Value::Object(fields) => self.object(*fields),
        }
    }

    fn object(&mut self, fields: &dyn Fields) {
        self.out.push(b'{');
        self.depth += 1;
        let outer = std::mem::replace(&mut self.nested_first, true);
        fields.visit(self);
        self.nested_first = outer;
        self.depth -= 1;
        self.out.push(b'}');
    }
}

impl Visitor for FieldWriter<'_> {
    fn field(&mut self, name: &str, value: Value<'_>) {
        if !std::mem::replace(&mut self.nested_first, false) {
            self.out.push(b',');
        }
        if self.depth == 0
            && name == "seq"
            && let Value::Unsigned(number) = value
        {
            self.operation = Some(number);
        }
        json::string(self.out, name);
        self.out.push(b':');
        self.value(&value);
    }
}

/// Appends `number` in decimal, as a string: what may be beyond 2^53.
pub(crate) fn quoted(out: &mut Vec<u8>, number: u64) {
    out.push(b'"');
    json::unsigned(out, number);
    out.push(b'"');
}

/// What every envelope has in front, up to the entry's index.
pub(crate) fn prefix(origin: &str) -> Vec<u8> {
    let mut out = br#"{"v":1,"origin":"#.to_vec();
    json::string(&mut out, origin);
    out.extend_from_slice(br#","idx":"#);
    out
}

/// Appends kind, session and place, up to the value of `sprev`.
pub(crate) fn put_head(out: &mut Vec<u8>, kind: &str, session: Option<SessionId>, sequence: u64) {
    out.extend_from_slice(br#","kind":"#);
    json::string(out, kind);
    out.extend_from_slice(br#","sid":"#);
    match session {
        None => out.extend_from_slice(b"null"),
        Some(id) => put_uuid(out, id),
    }
    out.extend_from_slice(br#","sseq":"#);
    json::unsigned(out, sequence);
    out.extend_from_slice(br#","sprev":"#);
}

/// Appends the values of `sprev` and `cid`.
pub(crate) fn put_links(out: &mut Vec<u8>, previous: Option<&Hash>, answers: Option<u64>) {
    match previous {
        None => out.extend_from_slice(b"null"),
        Some(leaf) => {
            out.push(b'"');
            put_hex(out, leaf);
            out.push(b'"');
        }
    }
    out.extend_from_slice(br#","cid":"#);
    match answers {
        None => out.extend_from_slice(b"null"),
        Some(index) => json::unsigned(out, index),
    }
}

fn put_uuid(out: &mut Vec<u8>, id: SessionId) {
    out.push(b'"');
    for (place, byte) in id.as_bytes().iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        put_hex(out, std::slice::from_ref(byte));
    }
    out.push(b'"');
}

/// The common fields of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The log.
    pub origin: &'a str,
    /// The entry's place in it.
    pub index: u64,
    /// Wall clock, in nanoseconds since 1970.
    pub time: u64,
    /// Nanoseconds since the machine was booted.
    pub mono: u64,
    /// Boot and process.
    pub boot: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The session.
    pub session: Option<SessionId>,
    /// The entry's place in its session, or among those of none.
    pub sequence: u64,
    /// The leaf hash of the entry before it in its session, or among those of none.
    pub previous: Option<Hash>,
    /// The entry that it answers.
    pub answers: Option<u64>,
    /// What follows: the fields of the kind, and `pay`.
    pub rest: &'a str,
}

impl<'a> Head<'a> {
    /// The operation's place in its session: the first field of the kinds that have one.
    pub fn operation(&self) -> Option<u64> {
        Rest(self.rest.strip_prefix(r#""seq":"#)?).number()
    }

    /// Reads the beginning of an envelope, byte by byte as [`COMMON`] says. None where it is anything else.
    pub fn parse(envelope: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(std::str::from_utf8(envelope).ok()?);
        rest.literal(r#"{"v":1,"origin":"#)?;
        let origin = rest.text()?;
        rest.literal(r#","idx":"#)?;
        let index = rest.number()?;
        rest.literal(r#","ts":"#)?;
        let time = rest.quoted_number()?;
        rest.literal(r#","mono":"#)?;
        let mono = rest.quoted_number()?;
        rest.literal(r#","boot":"#)?;
        let boot = rest.text()?;
        rest.literal(r#","kind":"#)?;
        let kind = rest.text()?;
        rest.literal(r#","sid":"#)?;
        let session = rest.nullable(|rest| uuid(rest.text()?))?;
        rest.literal(r#","sseq":"#)?;
        let sequence = rest.number()?;
        rest.literal(r#","sprev":"#)?;
        let previous = rest.nullable(|rest| parse_hex(rest.text()?))?;
        rest.literal(r#","cid":"#)?;
        let answers = rest.nullable(Rest::number)?;
        rest.literal(",")?;
        let rest = rest.0;
        Some(Self { origin, index, time, mono, boot, kind, session, sequence, previous, answers, rest })
    }
}

/// A UUID in the one form in which it is written.
fn uuid(text: &str) -> Option<SessionId> {
    let id: SessionId = text.parse().ok()?;
    let mut canonical = Vec::with_capacity(38);
    put_uuid(&mut canonical, id);
    (canonical.get(1..37) == Some(text.as_bytes())).then_some(id)
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// A string without escapes: none of the common fields needs any.
    fn text(&mut self) -> Option<&'a str> {
        let (text, rest) = self.0.strip_prefix('"')?.split_once('"')?;
        self.0 = rest;
        (!text.contains('\\')).then_some(text)
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (text, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        text.parse().ok()
    }

    fn quoted_number(&mut self) -> Option<u64> {
        let mut inner = Rest(self.text()?);
        let number = inner.number()?;
        inner.0.is_empty().then_some(number)
    }

    fn nullable<T>(&mut self, value: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.literal("null").is_some() { Some(None) } else { value(self).map(Some) }
    }
}

/// One entry of `pay`: what the envelope says of a payload frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// The frame's number within the entry.
    pub part: u64,
    /// The part's name.
    pub name: String,
    /// Bytes of the plaintext.
    pub length: u64,
    /// What binds the plaintext: see [`crate::payload`].
    pub salt_commit: Hash,
    /// What binds the bytes that are stored.
    pub ct_sha256: Hash,
    /// How it is encrypted: `none`.
    pub algorithm: String,
}

/// The keys of an entry of `pay`, in order.
const PAY: [&str; 7] = ["part", "name", "len", "salt_commit", "ct_sha256", "alg", "kid"];

/// Reads `pay` of a parsed envelope. None where it isn't as the writer writes it.
pub fn commitments(envelope: &Json<'_>) -> Option<Vec<Commitment>> {
    commitments_of(envelope.get("pay")?)
}

/// Reads the value of `pay`.
pub(crate) fn commitments_of(pay: &Json<'_>) -> Option<Vec<Commitment>> {
    pay.list()?.iter().map(commitment).collect()
}

fn commitment(item: &Json<'_>) -> Option<Commitment> {
    let Json::Object(fields) = item else { return None };
    if !fields.iter().map(|(key, _)| key.as_ref()).eq(PAY) {
        return None;
    }
    Some(Commitment {
        part: item.get("part")?.unsigned()?,
        name: item.get("name")?.text()?.to_owned(),
        length: item.get("len")?.unsigned()?,
        salt_commit: parse_hex(item.get("salt_commit")?.text()?)?,
        ct_sha256: parse_hex(item.get("ct_sha256")?.text()?)?,
        algorithm: item.get("alg")?.text()?.to_owned(),
    })
}

/// Judges the keys of a parsed envelope: [`COMMON`] in front and in order, `pay` last.
pub fn has_the_keys(envelope: &Json<'_>) -> bool {
    let Json::Object(fields) = envelope else { return false };
    let mut keys = fields.iter().map(|(key, _)| key.as_ref());
    keys.by_ref().take(COMMON.len()).eq(COMMON) && fields.last().is_some_and(|(key, _)| key == "pay")
}
