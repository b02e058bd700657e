//! Server-sent events in passing: where their data is (HTML, section 9.2.6).

/// How much of a field's name or of an event's type is kept.
const WORD_MAX: usize = 32;

/// What goes by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A part of the event's data.
    Data(&'a [u8]),
    /// The event is over: it had data, and perhaps an id that a client can resume from.
    End {
        /// Whether it had an id.
        id: bool,
    },
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a line.
    #[default]
    Start,
    /// In a field's name.
    Name,
    /// Behind the colon, where one space does not count.
    Space,
    /// In a value.
    Value,
}

/// Goes through an event stream, however it is cut.
#[derive(Debug, Default)]
pub(crate) struct Events {
    state: State,
    name: Vec<u8>,
    /// The value is data.
    is_data: bool,
    /// The last byte was a CR: a LF behind it is the same line's end.
    cr: bool,
    /// What the event has had so far.
    data: bool,
    id: bool,
}

impl Events {
    /// Takes bytes and shows what is in them.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8], mut each: impl FnMut(Piece<'a>)) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if std::mem::take(&mut self.cr) && byte == b'\n' {
                rest = after;
                continue;
            }
            match (self.state, byte) {
                (State::Start, b'\r' | b'\n') => {
                    let id = std::mem::take(&mut self.id);
                    if std::mem::take(&mut self.data) {
                        each(Piece::End { id });
                    }
                }
                (_, b'\r' | b'\n') => {
                    self.field();
                    self.state = State::Start;
                }
                (State::Start | State::Name, b':') => {
                    self.field();
                    self.state = State::Space;
                }
                (State::Start | State::Name, byte) => {
                    self.state = State::Name;
                    if self.name.len() < WORD_MAX {
                        self.name.push(byte);
                    }
                }
                (State::Space, b' ') => self.state = State::Value,
                (State::Space | State::Value, _) => {
                    self.state = State::Value;
                    let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    let (value, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                    if self.is_data {
                        each(Piece::Data(value));
                    }
                    rest = behind;
                    continue;
                }
            }
            self.cr = byte == b'\r';
            rest = after;
        }
    }

    /// A field's name is whole; behind a value there is none.
    fn field(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.is_data = name == b"data";
        self.data |= self.is_data;
        self.id |= name == b"id";
    }
}

/// The first event of the older HTTP+SSE transport, if that is what this is: where its `data` stands in `event`.
pub(crate) fn endpoint(event: &[u8]) -> Option<(std::ops::Range<usize>, &str)> {
    let mut at = 0;
    let (mut named, mut data) = (false, None);
    for line in event.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line).ok()?.trim_end_matches(['\r', '\n']);
        let value = |name: &str| {
            let value = text.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.strip_prefix(' ').unwrap_or(value))
        };
        if let Some(kind) = value("event") {
            named = kind == "endpoint";
        } else if let Some(uri) = value("data") {
            let end = at + text.len();
            data = Some((end - uri.len()..end, uri));
        }
        at += line.len();
    }
    data.filter(|_| named)
}

/// Where the first event of a stream ends: behind its empty line.
pub(crate) fn first_event(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'\n' {
            let text = bytes.get(line..at).unwrap_or_default();
            if (text.is_empty() || text == b"\r") && at > 1 {
                return Some(at + 1);
            }
            line = at + 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, step: usize) -> Vec<String> {
        let (mut events, mut all, mut data) = (Events::default(), Vec::new(), String::new());
        for piece in text.as_bytes().chunks(step) {
            events.push(piece, |piece| match piece {
                Piece::Data(bytes) => data.push_str(std::str::from_utf8(bytes).unwrap()),
                Piece::End { id } => {
                    all.push(format!("{}{}", std::mem::take(&mut data), if id { " #" } else { "" }))
                }
            });
        }
        all
    }

    #[test]
    fn data_is_found_however_it_is_cut() {
        let text = "event: message\nid: 7\ndata: {\"a\":\ndata:1}\n\n: ping\n\ndata:x\r\n\r\ndatum: no\ndata: y\r\rdata: cut";
        for step in [1, 2, 5, text.len()] {
            assert_eq!(show(text, step), ["{\"a\":1} #", "x", "y"], "in steps of {step}");
        }
    }

    #[test]
    fn an_endpoint_is_found() {
        let event = b"event: endpoint\r\ndata: /messages/?session_id=1\r\n\r\n";
        assert_eq!(first_event(event), Some(event.len()));
        let (range, uri) = endpoint(event).unwrap();
        assert_eq!((&event[range], uri), (&b"/messages/?session_id=1"[..], "/messages/?session_id=1"));
        assert_eq!(endpoint(b"event: message\ndata: /x\n\n"), None);
        assert_eq!(first_event(b"data: x\n"), None);
    }

    proptest::proptest! {
        #[test]
        fn it_is_the_same_however_it_is_cut(text in "(data|id|event|:|: ?|x|\n|\r|\r\n){0,40}", step in 1_usize..8) {
            proptest::prop_assert_eq!(show(&text, step), show(&text, text.len().max(1)));
        }
    }
}
