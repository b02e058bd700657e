//! JSON lines on a stream: standard output.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use verbatim_core::BoxFuture;

use crate::deliver::blocking;
use crate::event::Batch;
use crate::sink::{Sink, SinkError};

/// Writes a line an event to a stream. Written is all that it can tell.
#[derive(Clone)]
pub struct StreamSink {
    out: Arc<Mutex<dyn Write + Send>>,
}

impl StreamSink {
    /// The process's standard output.
    pub fn stdout() -> Self {
        Self::new(std::io::stdout())
    }

    /// Any stream.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self { out: Arc::new(Mutex::new(out)) }
    }
}

impl std::fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamSink")
    }
}

impl Sink for StreamSink {
    fn kind(&self) -> &'static str {
        "stdout"
    }

    fn deliver<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), SinkError>> {
        let out = Arc::clone(&self.out);
        let lines = lines(batch);
        Box::pin(async move {
            let written = blocking(move || {
                let mut out = out.lock();
                out.write_all(&lines)?;
                out.flush()
            });
            written.await.map_err(|error| unavailable(&error))
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        Box::pin(async { Ok(()) })
    }
}

/// The batch as JSON lines.
fn lines(batch: &Batch) -> Vec<u8> {
    let mut lines = Vec::with_capacity(batch.bytes() + batch.events.len());
    for event in &batch.events {
        lines.extend_from_slice(&event.json);
        lines.push(b'\n');
    }
    lines
}

fn unavailable(error: &std::io::Error) -> SinkError {
    SinkError::Unavailable { reason: error.to_string(), retry_after: None }
}
