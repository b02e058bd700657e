//! Envelopes: what the ledger writes of an entry, and how their beginning is read back.
//!
//! ```text
//! {"v":1,"origin":…,"idx":…,"ts":…,"mono":…,"boot":…,"kind":…,"sid":…,"sseq":…,"sprev":…,"cid":…, fields of the kind, "pay":[…]}
//! ```

use verbatim_core::{Fields, SessionId, Value, Visitor, json};

use crate::hash::{Hash, parse_digits, parse_hex, put_hex};
use crate::profile::{self, INTEGER_MAX, Json};

/// The format of envelopes.
pub const VERSION: u64 = 1;
/// The keys that every envelope has in front, in their order; `pay` is its last.
pub const COMMON: [&str; 11] =
    ["v", "origin", "idx", "ts", "mono", "boot", "kind", "sid", "sseq", "sprev", "cid"];
/// The same as they are stored.
const COMMON_STORED: &[&str] = &[
    r#""v""#,
    r#""origin""#,
    r#""idx""#,
    r#""ts""#,
    r#""mono""#,
    r#""boot""#,
    r#""kind""#,
    r#""sid""#,
    r#""sseq""#,
    r#""sprev""#,
    r#""cid""#,
];

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

    /// Reads the beginning of an envelope, byte by byte as [`COMMON`] says and within the profile. None where it is
    /// anything else.
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
    let mut digits = [0; 32];
    let mut slots = digits.iter_mut();
    let mut groups = text.split('-');
    for length in [8, 4, 4, 4, 12] {
        let group = groups.next().filter(|group| group.len() == length)?;
        slots.by_ref().zip(group.bytes()).for_each(|(slot, digit)| *slot = digit);
    }
    if groups.next().is_some() {
        return None;
    }
    parse_digits(&digits).map(SessionId::from_bytes)
}

struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Inlined, so that each literal is compared by its own length.
    #[inline]
    fn literal(&mut self, literal: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(literal)?;
        Some(())
    }

    /// A string without escapes: none of the common fields needs any.
    fn text(&mut self) -> Option<&'a str> {
        let inner = self.0.strip_prefix('"')?;
        let end = memchr::memchr(b'"', inner.as_bytes())?;
        let (text, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
        self.0 = rest;
        let clean = text.bytes().fold(true, |clean, byte| clean & (byte >= 0x20) & (byte != b'\\'));
        clean.then_some(text)
    }

    fn digits(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (text, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        text.parse().ok()
    }

    /// An integer of the profile.
    fn number(&mut self) -> Option<u64> {
        let padded =
            self.0.strip_prefix('0').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
        self.digits().filter(|number| !padded && *number <= INTEGER_MAX.unsigned_abs())
    }

    fn quoted_number(&mut self) -> Option<u64> {
        let mut inner = Rest(self.text()?);
        let number = inner.digits()?;
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

/// Reads the commitments of an envelope, and judges its form: the profile, [`COMMON`] in front and in order, `pay` last.
///
/// # Errors
/// What is wrong with it, for people.
pub fn judged(envelope: &[u8]) -> Result<Vec<Commitment>, String> {
    const NOT_THE_KEYS: &str = "the envelope has not the keys of one, in their order";
    let outlined = match Head::parse(envelope) {
        // What stands in front was read byte by byte.
        Some(head) => profile::outline_rest(head.rest, COMMON_STORED, "pay"),
        // Something else is wrong with it than its keys, perhaps: then that is what is said.
        None => match profile::parse(envelope) {
            Ok(_) => return Err(NOT_THE_KEYS.to_owned()),
            Err(violation) => Err(violation),
        },
    };
    let fields = outlined.map_err(|violation| violation.to_string())?;
    match fields.last() {
        Some((key, pay)) if key == "pay" => {
            commitments_of(pay).ok_or_else(|| "pay is not as it is written".to_owned())
        }
        _ => Err(NOT_THE_KEYS.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENVELOPE: &str = r#"{"v":1,"origin":"o","idx":7,"ts":"1","mono":"2","boot":"b","kind":"config","sid":"0192f5a0-0000-7000-8000-00000000000a","sseq":0,"sprev":null,"cid":null,"a":{"b":[1]},"pay":[]}"#;

    proptest! {
        #[test]
        fn what_is_judged_an_envelope_is_within_the_profile(
            changes in proptest::collection::vec((0..ENVELOPE.len(), r#"[\[\]{}",:\\0-9a-z.u\x00-]{0,3}"#), 1..4),
        ) {
            let mut changed = ENVELOPE.to_owned();
            for (at, text) in changes {
                let at = at.min(changed.len());
                changed.replace_range(at..(at + 1).min(changed.len()), &text);
            }
            if let Ok(commitments) = judged(changed.as_bytes()) {
                let whole = profile::parse(changed.as_bytes());
                prop_assert_eq!(whole.as_ref().ok().and_then(super::commitments), Some(commitments));
            }
        }
    }

    #[test]
    fn an_envelope_has_one_form() {
        assert_eq!(judged(ENVELOPE.as_bytes()), Ok(Vec::new()));
        assert!(profile::parse(ENVELOPE.as_bytes()).is_ok());
        let head = Head::parse(ENVELOPE.as_bytes()).unwrap();
        assert_eq!(head.session, "0192f5a0-0000-7000-8000-00000000000a".parse().ok());
        for (from, to) in [
            (r#""idx":7"#, r#""idx":07"#),
            (r#""idx":7"#, r#""idx":9007199254740992"#),
            (r#""idx":7"#, r#""idx":-7"#),
            (r#""idx":7"#, r#""idx": 7"#),
            (r#""boot":"b""#, "\"boot\":\"\u{1}\""),
            (r#""boot":"b""#, r#""boot":"\u0001""#),
            (r#""kind":"config","#, ""),
            ("00000000000a", "00000000000A"),
            ("00000000000a", "0000000000-a"),
            ("0192f5a0-0000", "0192f5a00000-"),
            (r#""a":{"#, r#""v":{"#),
            (r#""a":{"#, r#""cid":{"#),
            (r#""a":{"b":[1]}"#, r#""a":{"b":[1],"b":2}"#),
            (r#""a":{"b":[1]}"#, r#""a":{"b":[1]},"a":1"#),
            (r#","pay":[]"#, ""),
            (r#","pay":[]"#, r#","pay":[],"more":1"#),
            (r#","pay":[]"#, r#","pay":{}"#),
            (r#""pay":[]}"#, r#""pay":[]}}"#),
            (r#""pay":[]}"#, r#""pay":[]"#),
        ] {
            let changed = ENVELOPE.replacen(from, to, 1);
            assert_ne!(changed, ENVELOPE);
            assert!(judged(changed.as_bytes()).is_err(), "{changed}");
        }
        assert!(judged(b"\xff").is_err());
    }
}
