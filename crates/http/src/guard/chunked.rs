//! Where a chunked body ends, without looking at what is in it (RFC 9112, section 7.1).

/// A line of the framing (a size with its extensions, a trailer field) may be this long.
const LINE_MAX: usize = 4 << 10;
/// The trailer section may be this long.
const TRAILERS_MAX: usize = 16 << 10;

/// Walks a chunked body as it comes.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    step: Step,
    /// What is left of the chunk.
    left: u64,
    /// Of the line, or of the trailer section.
    line: usize,
    trailers: usize,
}

#[derive(Debug, Default, Clone, Copy)]
enum Step {
    /// In the size; whether a digit was there.
    #[default]
    Start,
    Size,
    Extension,
    /// Behind the CR of the size's line.
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, in one, behind its CR, behind the CR of the empty line.
    TrailerStart,
    Trailer,
    TrailerEnd,
    Last,
    Done,
}

impl Chunked {
    /// Takes bytes of the body; how many belong to it, and whether it ends there.
    ///
    /// # Errors
    /// What is wrong with the framing.
    pub(crate) fn walk(&mut self, bytes: &[u8]) -> Result<(usize, bool), &'static str> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let Step::Data = self.step {
                let there = bytes.len() - at;
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(there);
                self.left -= step as u64;
                at += step;
                if self.left == 0 {
                    self.step = Step::DataCr;
                }
                continue;
            }
            self.step = self.byte(*byte)?;
            at += 1;
            if let Step::Done = self.step {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    fn byte(&mut self, byte: u8) -> Result<Step, &'static str> {
        self.line += 1;
        if self.line > LINE_MAX {
            return Err("a line of the chunked framing is too long");
        }
        Ok(match (self.step, byte) {
            (Step::Start | Step::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let left = self.left.checked_mul(16).and_then(|left| left.checked_add(u64::from(digit)));
                self.left = left.ok_or("a chunk's size is too large")?;
                Step::Size
            }
            (Step::Size, b';') => Step::Extension,
            (Step::Size, b'\r') => Step::SizeEnd,
            (Step::Extension, b'\r') => Step::SizeEnd,
            (Step::Extension, b'\t' | b' '..=b'~' | 0x80..) => Step::Extension,
            (Step::SizeEnd, b'\n') => {
                self.line = 0;
                if self.left == 0 { Step::TrailerStart } else { Step::Data }
            }
            (Step::DataCr, b'\r') => Step::DataLf,
            (Step::DataLf, b'\n') => {
                self.line = 0;
                Step::Start
            }
            (Step::TrailerStart, b'\r') => Step::Last,
            (Step::TrailerStart, byte) if super::head::is_token(byte) => Step::Trailer,
            (Step::Trailer, b'\r') => Step::TrailerEnd,
            (Step::Trailer, b'\t' | b' '..=b'~' | 0x80..) => Step::Trailer,
            (Step::TrailerEnd, b'\n') => {
                self.trailers += self.line;
                self.line = 0;
                if self.trailers > TRAILERS_MAX {
                    return Err("the trailers are too long");
                }
                Step::TrailerStart
            }
            (Step::Last, b'\n') => Step::Done,
            (Step::Start | Step::Size, _) => return Err("a chunk's size is no hexadecimal number"),
            _ => return Err("a line of the chunked framing does not end in CR LF"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(body: &[u8]) -> Result<(usize, bool), &'static str> {
        let whole = Chunked::default().walk(body);
        // However it is cut, the end is the same.
        let mut walker = Chunked::default();
        let mut pieces = Ok((0, false));
        for (at, byte) in body.iter().enumerate() {
            pieces = walker.walk(&[*byte]).map(|(_, done)| (at + 1, done));
            if !matches!(pieces, Ok((_, false))) {
                break;
            }
        }
        assert_eq!(whole, pieces, "{:?}", body.escape_ascii().to_string());
        whole
    }

    #[test]
    fn the_end_is_found() {
        assert_eq!(walk(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok((15, true)));
        assert_eq!(walk(b"005;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nGET"), Ok((27, true)));
        assert_eq!(walk(b"A\r\n0123456789\r\n"), Ok((15, false)));
        assert_eq!(walk(b""), Ok((0, false)));
    }

    #[test]
    fn sizes_and_line_ends_that_others_read_differently_are_refused() {
        let bodies = [
            &b"0x5\r\nhello\r\n"[..],
            b"+5\r\nhello\r\n",
            b"-5\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"\r\nhello\r\n",
            b"5\nhello\n",
            b"5;a\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n",
            b"5\r\nhello\rX",
            b"0\r\n\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\n folded\r\n",
            b"10000000000000000\r\n",
            b"5\rhello",
        ];
        for body in bodies {
            assert!(walk(body).is_err(), "{:?}", body.escape_ascii().to_string());
        }
        let long = [b"5;".to_vec(), vec![b'a'; LINE_MAX]].concat();
        assert!(walk(&long).is_err());
        let trailers = [b"0\r\n".to_vec(), b"X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000)].concat();
        assert!(walk(&trailers).is_err());
    }
}
