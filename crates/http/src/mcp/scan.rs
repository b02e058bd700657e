//! What a server's JSON-RPC messages say of the requests that they answer, found in passing and in constant memory: the
//! id, an error's code and message, a result's `isError`, the length. Messages may be of any size.

/// How much of a key is compared, and of a value kept.
const KEY_MAX: usize = 16;
const VALUE_MAX: usize = 2 << 10;
/// How deep the containers are that are looked into: an array of messages, a message, its error or result.
const LOOKED_INTO: usize = 3;

/// An answer that went by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its id in the form of [`key_of`]; none where it has none (a request or notification of the server).
    pub(crate) id: Option<String>,
    /// A JSON-RPC error's code and message.
    pub(crate) error: Option<(String, String)>,
    /// A tool's result that says that it failed.
    pub(crate) is_error: bool,
    /// How many bytes the message has.
    pub(crate) bytes: u64,
    /// It has a `method`: it is the server's own request, whose ids are the server's.
    is_request: bool,
}

/// The form in which ids are compared: numbers as sent, strings decoded.
pub(crate) fn key_of(id: &str) -> String {
    match id.starts_with('"') {
        true => match serde_json::from_str::<String>(id) {
            Ok(text) => format!("s{text}"),
            Err(_) => format!("r{id}"),
        },
        false => format!("n{id}"),
    }
}

/// A member that is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Error,
    Result,
    Method,
    Code,
    Message,
    IsError,
    Other,
}

/// Goes through the bytes of messages, however they are cut.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    depth: usize,
    /// Of the containers that are looked into: whether each is an object, and the member that it is at.
    levels: [Option<Field>; LOOKED_INTO],
    objects: [bool; LOOKED_INTO],
    /// The messages are in an array.
    base: usize,
    string: bool,
    escaped: bool,
    /// The next string is a key.
    at_key: bool,
    key: Vec<u8>,
    /// The scalar that is being read, where it is of interest.
    value: Vec<u8>,
    kept: Option<Field>,
    code: Option<String>,
    message: Option<String>,
    answer: Answer,
}

impl Scanner {
    /// Takes bytes; the answers that end in them.
    pub(crate) fn push(&mut self, bytes: &[u8], answers: &mut Vec<Answer>) {
        for byte in bytes {
            if self.depth > self.base {
                self.answer.bytes += 1;
            }
            if self.string {
                self.in_string(*byte);
            } else {
                self.outside(*byte, answers);
            }
        }
    }

    /// The message (an event's data) is over; whatever was unfinished is forgotten.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    fn in_string(&mut self, byte: u8) {
        let ends = byte == b'"' && !self.escaped;
        self.escaped = byte == b'\\' && !self.escaped;
        if self.at_key {
            if !ends && self.key.len() < KEY_MAX {
                self.key.push(byte);
            }
        } else if self.kept.is_some() && self.value.len() < VALUE_MAX {
            self.value.push(byte);
        }
        self.string = !ends;
    }

    fn outside(&mut self, byte: u8, answers: &mut Vec<Answer>) {
        match byte {
            b'"' => {
                self.string = true;
                if self.at_key {
                    self.key.clear();
                } else if self.kept.is_some() {
                    self.value.push(byte);
                }
            }
            b'{' | b'[' => self.opens(byte == b'{'),
            b'}' | b']' => {
                self.ends_value();
                self.depth = self.depth.saturating_sub(1);
                self.at_key = false;
                if byte == b'}' && self.depth == self.base {
                    answers.push(self.finished());
                }
            }
            b':' => {
                self.at_key = false;
                let field = self.field();
                self.set_level(field);
                if matches!(field, Field::Id | Field::Code | Field::Message | Field::IsError) {
                    self.kept = Some(field);
                    self.value.clear();
                }
                match field {
                    Field::Method => self.answer.is_request = true,
                    Field::Error => self.answer.error = Some(Default::default()),
                    _ => {}
                }
            }
            b',' => {
                self.ends_value();
                self.at_key = self.depth.checked_sub(1).and_then(|at| self.objects.get(at)) == Some(&true);
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => {
                if self.kept.is_some() && self.value.len() < VALUE_MAX {
                    self.value.push(byte);
                }
            }
        }
    }

    fn opens(&mut self, object: bool) {
        // An error of null is none, one that is an object is one; an id that is a container is none.
        self.kept = None;
        if self.depth == 0 && !object {
            self.base = 1;
        } else if self.depth == self.base && object {
            self.answer = Answer { bytes: 1, ..Answer::default() };
            (self.code, self.message) = (None, None);
        }
        if let (Some(level), Some(is_object)) =
            (self.levels.get_mut(self.depth), self.objects.get_mut(self.depth))
        {
            *level = None;
            *is_object = object;
        }
        self.at_key = object && self.depth < LOOKED_INTO;
        self.depth += 1;
    }

    /// Which member the key names that was just read.
    fn field(&self) -> Field {
        let within = match self.depth.checked_sub(self.base + 1) {
            Some(0) => None,
            Some(1) => self.levels.get(self.base).copied().flatten(),
            _ => return Field::Other,
        };
        match (within, self.key.as_slice()) {
            (None, b"id") => Field::Id,
            (None, b"error") => Field::Error,
            (None, b"result") => Field::Result,
            (None, b"method") => Field::Method,
            (Some(Field::Error), b"code") => Field::Code,
            (Some(Field::Error), b"message") => Field::Message,
            (Some(Field::Result), b"isError") => Field::IsError,
            _ => Field::Other,
        }
    }

    fn set_level(&mut self, field: Field) {
        if let Some(level) = self.depth.checked_sub(1).and_then(|at| self.levels.get_mut(at)) {
            *level = Some(field);
        }
    }

    fn ends_value(&mut self) {
        let Some(field) = self.kept.take() else { return };
        let Ok(value) = std::str::from_utf8(&self.value) else { return };
        match field {
            Field::Id if value != "null" && !value.is_empty() => self.answer.id = Some(key_of(value)),
            Field::Code => self.code = Some(value.to_owned()),
            Field::Message => {
                let text = serde_json::from_str(value).ok();
                // Cut short, for its length.
                self.message = text.or_else(|| Some(value.trim_matches('"').to_owned()));
            }
            Field::IsError => self.answer.is_error = value == "true",
            _ => {}
        }
    }

    fn finished(&mut self) -> Answer {
        let mut answer = std::mem::take(&mut self.answer);
        let (code, message) = (self.code.take(), self.message.take());
        if answer.error.is_some() {
            answer.error = (code.is_some() || message.is_some())
                .then(|| (code.unwrap_or_default(), message.unwrap_or_default()));
        }
        if answer.is_request {
            answer.id = None;
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Vec<Answer> {
        let mut whole = Vec::new();
        Scanner::default().push(text.as_bytes(), &mut whole);
        let mut pieces = Vec::new();
        let mut scanner = Scanner::default();
        for byte in text.as_bytes() {
            scanner.push(&[*byte], &mut pieces);
        }
        assert_eq!(whole, pieces);
        whole
    }

    #[test]
    fn answers_are_found_wherever_their_members_stand() {
        let long = "x".repeat(100_000);
        let text = format!(
            r#"{{"result":{{"content":[{{"isError":true,"text":"}}{long}"}}],"isError": true }}, "id" :"a\u0062" }}"#
        );
        let answers = scan(&text);
        assert_eq!(answers.len(), 1);
        assert_eq!(
            (answers[0].id.as_deref(), answers[0].is_error, answers[0].bytes),
            (Some("sab"), true, text.len() as u64)
        );

        let answers = scan(
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"no \"such\" thing","data":{"code":1}}}"#,
        );
        assert_eq!(answers[0].id.as_deref(), Some("n7"));
        assert_eq!(answers[0].error, Some(("-32000".into(), "no \"such\" thing".into())));

        let answers = scan(r#"{"result":{"isError":false,"structuredContent":{"isError":true}},"id":1}"#);
        assert!(!answers[0].is_error);
        let answers = scan(r#"{"id":1,"error":null,"result":{}}"#);
        assert_eq!(answers[0].error, None);
    }

    #[test]
    fn a_batch_has_one_each_and_the_servers_own_requests_answer_nothing() {
        let answers = scan(
            r#" [ {"id":1,"result":{}} , {"id":2,"method":"sampling/createMessage","params":{"id":3}},{"id":3,"error":{"code":1,"message":""}}]"#,
        );
        let ids: Vec<_> = answers.iter().map(|answer| answer.id.as_deref()).collect();
        assert_eq!(ids, [Some("n1"), None, Some("n3")]);
        assert_eq!(answers[2].error, Some(("1".into(), String::new())));
    }

    #[test]
    fn ids_keep_their_type() {
        assert_eq!(key_of("1"), "n1");
        assert_eq!(key_of("\"1\""), "s1");
        assert_eq!(key_of("\"\\u0031\""), "s1");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail(text in "[\\[\\]{}\":,a-z0-9\\\\ ]{0,120}") {
            drop(scan(&text));
        }
    }
}
