//! What of an unfinished batch may go to the target before its Sync or Flush.
//!
//! The server runs an Execute when it reads it, and says at once when it fails; a client may count on both before it
//! sends its Sync. So once the client pauses, everything goes up to the last Execute behind which no Parse waits for its
//! own: a Parse alone does nothing that a client could see, and whether it will be executed is not known yet.

use std::collections::{HashMap, HashSet};

use crate::frame::{self, HEADER, client};

/// What is held back, as far as it was looked at: every message once, however the bytes come.
#[derive(Debug, Default)]
pub(super) struct Held {
    seen: usize,
    free: usize,
    /// The Parse that each name stands for, by its number.
    statements: HashMap<Vec<u8>, u64>,
    portals: HashMap<Vec<u8>, u64>,
    /// Every Parse that no Execute was seen of.
    waiting: HashSet<u64>,
    parses: u64,
}

impl Held {
    /// How many of the held bytes, which begin where they began at the last look, may go; whole messages, ended by an
    /// Execute.
    pub(super) fn free(&mut self, held: &[u8], message_max: u64) -> usize {
        while let Some(rest) = held.get(self.seen..)
            && let Ok(Some(head)) = frame::client_head(rest, message_max)
            && let Some(body) = rest.get(HEADER..head.length)
        {
            self.message(head.kind, body);
            self.seen += head.length;
            if head.kind == client::EXECUTE && self.waiting.is_empty() {
                self.free = self.seen;
            }
        }
        self.free
    }

    fn message(&mut self, kind: u8, body: &[u8]) {
        let mut names = body.split(|byte| *byte == 0);
        let mut name = || names.next().unwrap_or_default();
        match kind {
            client::PARSE => {
                self.parses += 1;
                self.waiting.insert(self.parses);
                self.statements.insert(name().to_vec(), self.parses);
            }
            client::BIND => {
                let (portal, statement) = (name(), name());
                match self.statements.get(statement) {
                    Some(parse) => self.portals.insert(portal.to_vec(), *parse),
                    None => self.portals.remove(portal),
                };
            }
            client::CLOSE => {
                match name().split_first() {
                    Some((b'S', statement)) => self.statements.remove(statement),
                    Some((_, portal)) => self.portals.remove(portal),
                    None => None,
                };
            }
            client::EXECUTE => {
                if let Some(parse) = self.portals.get(name()) {
                    self.waiting.remove(parse);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::frame::{message, put_text};

    fn bytes(kinds: &[(u8, &[&str])]) -> Vec<u8> {
        let message = |(kind, names): &(u8, &[&str])| {
            message(*kind, |out| {
                names.iter().for_each(|name| put_text(out, name.as_bytes()));
                out.put_u32(0);
            })
        };
        kinds.iter().map(message).collect::<Vec<_>>().concat()
    }

    /// How many messages may go.
    fn free(kinds: &[(u8, &[&str])]) -> usize {
        let ends: Vec<usize> = (0..=kinds.len()).map(|count| bytes(&kinds[..count]).len()).collect();
        let held = bytes(kinds);
        let whole = Held::default().free(&held, 1000);
        let mut pieces = Held::default();
        let mut last = 0;
        for end in 0..=held.len() {
            last = pieces.free(&held[..end], 1000);
        }
        assert_eq!(last, whole, "it depends on how the bytes came");
        ends.iter().position(|end| *end == whole).unwrap()
    }

    #[test]
    fn everything_goes_up_to_the_last_execute_behind_which_no_parse_waits() {
        use client::{BIND as B, DESCRIBE as D, EXECUTE as E, PARSE as P};
        assert_eq!(free(&[]), 0);
        assert_eq!(free(&[(P, &["s", "SELECT 1"]), (B, &["", "s"])]), 0);
        assert_eq!(free(&[(P, &["", "x"]), (B, &["", ""]), (D, &["P"]), (E, &[""]), (B, &["", ""])]), 4);
        assert_eq!(free(&[(B, &["", "of before"]), (E, &[""]), (E, &[""]), (P, &["", "next"])]), 3);
        let one_waits: &[(u8, &[&str])] = &[(P, &["a", "x"]), (P, &["b", "y"]), (B, &["", "b"]), (E, &[""])];
        assert_eq!(free(one_waits), 0);
        let then_runs: &[(u8, &[&str])] = &[(B, &["", "a"]), (E, &[""])];
        assert_eq!(free(&[one_waits, then_runs].concat()), 6);
        // The first of the two is never executed.
        assert_eq!(free(&[(P, &["", "x"]), (P, &["", "y"]), (B, &["", ""]), (E, &[""])]), 0);
    }
}
