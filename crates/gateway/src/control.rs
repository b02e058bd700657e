//! The socket in `data_dir` through which the command line asks a running gateway, for its owner and root alone.
//!
//! A question is one line of JSON ([`Question`]); the answer one line, `ok` or `error: …`, then a document to the
//! stream's end. Every reading of the record is itself an entry of it.

use std::io::{BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use verbatim_core::event::kind;
use verbatim_core::{AuditEvent, Timestamp, Value, Visitor};
use verbatim_ledger::Ledger;
use verbatim_store::Index;

use crate::delivery::Delivery;
use crate::records::{Question, answer, tail};

/// The longest question, in bytes.
const QUESTION_BYTES_MAX: u64 = 64 * 1024;
/// How many questions are answered at once.
const QUESTIONS_AT_ONCE: usize = 16;
/// How long an asker may take to ask, and to take each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// What the socket answers from.
pub(crate) struct Control {
    pub(crate) index: Arc<Index>,
    pub(crate) ledger: Ledger,
    pub(crate) delivery: Arc<Delivery>,
}

/// Listens until the task is dropped.
pub(crate) async fn serve(data_dir: &Path, control: Arc<Control>) -> Result<()> {
    let path = socket(data_dir);
    // The ledger's lock is held, so a socket that is there belongs to no living gateway.
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    let room = Arc::new(Semaphore::new(QUESTIONS_AT_ONCE));
    let owner = rustix::process::geteuid().as_raw();
    loop {
        let (stream, _) = listener.accept().await.context("the control socket")?;
        let asker = stream.peer_cred()?.uid();
        if asker != owner && asker != 0 {
            continue;
        }
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let control = Arc::clone(&control);
        let stream = stream.into_std()?;
        tokio::task::spawn_blocking(move || {
            if let Err(error) = talk(&stream, &control, asker) {
                tracing::debug!(%error, "a question was not answered");
            }
            drop(place);
        });
    }
}

fn talk(stream: &UnixStream, control: &Control, asker: u32) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(QUESTION_BYTES_MAX)).read_line(&mut line)?;
    let mut out = Answer { out: BufWriter::with_capacity(64 * 1024, stream), begun: false };
    let answered = serde_json::from_str(&line)
        .context("not a question")
        .and_then(|question: Question| reply(&question, control, asker, &mut out));
    if let (Err(error), false) = (&answered, out.begun) {
        writeln!(out.out, "error: {}", format!("{error:#}").replace('\n', "; "))?;
    }
    out.out.flush()?;
    answered
}

fn reply(question: &Question, control: &Control, asker: u32, out: &mut Answer<'_>) -> Result<()> {
    let reading = Reading { question, uid: asker };
    let entry = control.ledger.append(&reading).context("the reading could not be recorded")?;
    let waiting = tokio::runtime::Handle::current();
    waiting.block_on(control.ledger.durable(entry)).context("the reading could not be recorded")?;
    match question {
        Question::Tail => follow(control, out),
        Question::SinksStatus => Ok(serde_json::to_writer(out, &control.delivery.status())?),
        Question::SinksReplay { name, from } => {
            let from = from.as_deref().map(Timestamp::parse).transpose()?;
            let begins = control.delivery.replay(name, from)?;
            Ok(writeln!(out, "{begins}")?)
        }
        _ => answer(&control.index, question, out),
    }
}

fn follow(control: &Control, out: &mut Answer<'_>) -> Result<()> {
    let runtime = tokio::runtime::Handle::current();
    let mut committed = control.ledger.committed();
    let mut tail = tail(&control.index)?;
    out.flush()?;
    loop {
        committed.mark_unchanged();
        while let Some(line) = tail.next()? {
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        runtime.block_on(committed.changed())?;
    }
}

/// The answer's stream: `ok` goes out with its first byte.
struct Answer<'s> {
    out: BufWriter<&'s UnixStream>,
    begun: bool,
}

impl Answer<'_> {
    fn begin(&mut self) -> std::io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            self.out.write_all(b"ok\n")?;
        }
        Ok(())
    }
}

impl Write for Answer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.begin()?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.begin()?;
        self.out.flush()
    }
}

/// `reading`: `by{uid}, door, command`; what was asked for is payload (`subject`).
struct Reading<'q> {
    question: &'q Question,
    uid: u32,
}

impl verbatim_core::Fields for Reading<'_> {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("uid", Value::Unsigned(u64::from(self.uid)));
    }
}

impl AuditEvent for Reading<'_> {
    fn kind(&self) -> &str {
        kind::READING
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.field("by", Value::Object(self));
        visitor.field("door", Value::Text("command line"));
        visitor.field("command", Value::Text(self.question.name()));
    }

    fn payload(&self, each: &mut dyn FnMut(&str, &[u8])) {
        if let Some(subject) = self.question.subject() {
            each("subject", subject.as_bytes());
        }
    }
}

/// Asks the gateway that runs on this `data_dir`; none where none runs.
pub(crate) fn ask(data_dir: &Path, question: &Question) -> Result<Option<BufReader<UnixStream>>> {
    let path = socket(data_dir);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => return Ok(None),
            _ => return Err(error).with_context(|| path.display().to_string()),
        },
    };
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = BufReader::with_capacity(64 * 1024, stream);
    let mut verdict = String::new();
    answer.by_ref().take(QUESTION_BYTES_MAX).read_line(&mut verdict)?;
    match verdict.trim_end() {
        "ok" => Ok(Some(answer)),
        "" => bail!("the gateway did not answer"),
        error => bail!("{}", error.strip_prefix("error: ").unwrap_or(error).to_owned()),
    }
}
