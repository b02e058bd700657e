//! The content of a file that the target asked for (`LOAD DATA LOCAL INFILE`): recorded, then forwarded.

use std::io;

use bytes::Bytes;
use tokio::time::timeout;
use verbatim_core::Refusal;

use super::{ENDING, End, READ_DATA, Relay, Up};
use crate::operation::{Data, Draft, Memory, Turn, View};
use crate::refusal::{Phase, error_words};
use crate::results::FileContent;

/// How large a recorded piece of content may be.
const CONTENT_MAX: usize = 1 << 20;

impl Relay {
    /// Records a piece of a file, and forwards it.
    pub(super) async fn data(&self, up: &mut Up, data: Data) -> io::Result<Option<End>> {
        let Some(mut file) = self.state.lock().results.lend_file() else {
            // The target ended the statement meanwhile: nobody takes this any more.
            if data.ended {
                self.state.lock().results.file_sent();
            }
            return Ok(None);
        };
        if let Err(refusal) = self.record_data(up, &mut file, &data.contents).await {
            // The target would take an early end for the whole file: its stream is given up instead, and so is what it
            // has loaded so far.
            self.state.lock().results.return_file(file);
            let words = error_words(&refusal, Phase::Ready, self.session.id());
            let sequence = data.next;
            let skipped = async { if data.ended { sequence } else { self.skip_file(up, sequence).await } };
            let sequence = timeout(ENDING, skipped).await.unwrap_or(sequence);
            return Ok(Some(End::Cut(words.packet(sequence), refusal.close_reason())));
        }
        {
            let mut state = self.state.lock();
            state.results.return_file(file);
            if data.ended {
                state.results.file_sent();
            }
        }
        self.target.write(&data.bytes).await?;
        Ok(None)
    }

    /// Reads what the client still sends of a file that nobody takes: it hears of that only behind the file.
    async fn skip_file(&self, up: &mut Up, mut sequence: u8) -> u8 {
        let view = View { takes_data: Some(sequence), ..View::default() };
        loop {
            match up.frontend.turn(&Memory::default(), view) {
                Turn::Data(data) => {
                    sequence = data.next;
                    if data.ended {
                        return sequence;
                    }
                }
                Turn::Read => match self.client.fill(&mut up.frontend.input, READ_DATA).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return sequence,
                },
                _ => return sequence,
            }
        }
    }

    async fn record_data(
        &self,
        up: &mut Up,
        file: &mut FileContent,
        contents: &[Bytes],
    ) -> Result<(), Refusal> {
        if file.recorded().is_none() {
            let draft = Draft::new("local_infile", Some(file.name().clone()));
            let recorded = self.record(up, draft).await?;
            file.begin(recorded);
        }
        for content in contents {
            if let Some(recorded) = file.recorded() {
                for piece in content.chunks(CONTENT_MAX) {
                    recorded.content(piece).await?;
                }
            }
            file.add(content);
        }
        Ok(())
    }
}
