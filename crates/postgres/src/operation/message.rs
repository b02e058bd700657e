//! One message of the client: what it says.

use bytes::Bytes;

use super::names::{Arguments, Statement};
use crate::frame::{Malformed, Reader, client};

/// A message of a chunk.
#[derive(Debug)]
pub(super) struct Message {
    /// Where it ends in its chunk.
    pub(super) end: usize,
    pub(super) asks: Asks,
}

/// What a message says, before its names are looked up.
#[derive(Debug)]
pub(super) enum Asks {
    Query { text: Bytes },
    FunctionCall { body: Bytes },
    Parse { name: Bytes, statement: Statement },
    Bind { portal: Bytes, statement: Bytes, arguments: Arguments },
    Close { statement: bool, name: Bytes },
    Describe { statement: bool, name: Bytes },
    Execute { portal: Bytes },
    Sync,
    Flush,
    Terminate,
}

/// Whether a batch ends with such a message.
pub(super) fn ends_batch(kind: u8) -> bool {
    matches!(
        kind,
        client::SYNC
            | client::FLUSH
            | client::QUERY
            | client::FUNCTION_CALL
            | client::TERMINATE
            | client::COPY_DONE
            | client::COPY_FAIL
    )
}

/// Whether such a message belongs to COPY data.
pub(super) fn is_copy(kind: u8) -> bool {
    matches!(kind, client::COPY_DATA | client::COPY_DONE | client::COPY_FAIL)
}

/// Reads a message's body.
pub(super) fn asks(kind: u8, body: Bytes) -> Result<Asks, Malformed> {
    let mut reader = Reader::new(body);
    let asks = match kind {
        client::QUERY => Asks::Query { text: reader.text("Query")? },
        client::FUNCTION_CALL => return Ok(Asks::FunctionCall { body: reader.rest().clone() }),
        client::PARSE => {
            let name = reader.text("name of a statement")?;
            let text = reader.text("Parse")?;
            let mut declared = Vec::new();
            for _ in 0..reader.count(4, "parameter types")? {
                declared.push(reader.u32("parameter types")?);
            }
            Asks::Parse { name, statement: Statement::new(&text, declared) }
        }
        client::BIND => {
            let portal = reader.text("name of a portal")?;
            let statement = reader.text("name of a statement")?;
            return Ok(Asks::Bind { portal, statement, arguments: Arguments::read(&mut reader)? });
        }
        client::EXECUTE => {
            let portal = reader.text("name of a portal")?;
            reader.u32("row limit")?;
            Asks::Execute { portal }
        }
        client::CLOSE | client::DESCRIBE => {
            let statement = match reader.u8("Close or Describe")? {
                b'S' => true,
                b'P' => false,
                _ => return Err(Malformed { field: "Close or Describe" }),
            };
            let name = reader.text("name")?;
            if kind == client::CLOSE {
                Asks::Close { statement, name }
            } else {
                Asks::Describe { statement, name }
            }
        }
        client::SYNC => Asks::Sync,
        client::FLUSH => Asks::Flush,
        client::TERMINATE => Asks::Terminate,
        _ => return Err(Malformed { field: "message" }),
    };
    reader.end("message")?;
    Ok(asks)
}
