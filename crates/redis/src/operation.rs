//! Requests → operations: what is recorded of a command, and how it will be answered.
//!
//! An operation's `text` is the whole command as redis-cli would take it; its `parameters` are the arguments behind the
//! name, as sent, each of type `bulk`. A secret is a parameter of type `redacted`, which holds its length. Of a command
//! that is too large to hold, the first argument that is not there is a parameter of type `content`, whose value is its
//! length in bytes: it and all that follow are the operation's content, as on the wire (`$5\r\nvalue\r\n…`).

mod line;
mod login;
mod names;
mod secrets;

use bytes::{Bytes, BytesMut};
use verbatim_core::{Operation, Parameter, ParameterValue, Refusal, trace};

use crate::frame::{Limits, Next, Requests, Rest, protocol};
use line::Line;
use login::is_login;
pub(crate) use login::{Hello, Login, NoLogin, read_login};
pub(crate) use names::Allowed;

/// The kind of every operation.
pub(crate) const KIND: &str = "command";
/// How many commands are decided together, and about how many bytes.
const BATCH_MAX: usize = 1024;
const BATCH_BYTES: usize = 256 << 10;
/// How much of what cannot be read is recorded.
const BROKEN_MAX: usize = 64 << 10;

/// What `CLIENT REPLY` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    On,
    Off,
    Skip,
}

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Channel,
    Pattern,
    Shard,
}

/// How a command is answered, and what its answer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// By one reply.
    Plain,
    /// By one reply, which may take for ever.
    Blocking,
    Multi,
    Exec,
    Discard,
    /// Everything that the client set is as at the beginning, and it is logged out.
    Reset,
    Quit,
    /// The protocol's version from then on.
    Hello(u8),
    /// By a message for each of `left` channels, or (`ends`, and none is named) for each that there is.
    Subscribe {
        topic: Topic,
        ends: bool,
        left: u64,
    },
    /// By `OK`, then by a line for each command that the server runs.
    Monitor,
    /// `CLIENT REPLY`.
    Reply(Reply),
    /// `CLIENT TRACKING ON`: by `OK`, then by messages.
    Tracking,
    /// By a stream that is no reply.
    Replication,
    /// The gateway's own login.
    Login,
}

/// What is recorded of a command.
#[derive(Debug)]
pub(crate) struct Draft {
    text: String,
    parameters: Vec<Parameter>,
    trace: Option<String>,
    pub(crate) refused: Option<Refusal>,
}

impl Draft {
    pub(crate) fn numbered(self, sequence: u64) -> Operation {
        Operation {
            text: Some(self.text.into()),
            parameters: Some(self.parameters),
            trace_id: self.trace,
            refused: self.refused,
            ..Operation::new(sequence, KIND)
        }
    }
}

/// A command of a batch.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) draft: Option<Draft>,
    pub(crate) role: Role,
    /// Its bytes in the batch.
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Commands that are decided together.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) items: Vec<Item>,
}

/// `AUTH`, or `HELLO` with one.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) draft: Draft,
    pub(crate) login: Result<Login, NoLogin>,
}

/// A command that is too large to hold.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) draft: Draft,
    pub(crate) role: Role,
    /// The bytes of it that were read.
    pub(crate) bytes: Bytes,
    pub(crate) rest: Rest,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// More bytes are needed.
    Read,
    /// The target has to answer something first.
    Stall,
    Batch(Batch),
    Renew(Box<Renewal>),
    Large(Box<Large>),
    /// What cannot be read: nothing behind it can be.
    Broken(Box<(Refusal, Draft)>),
}

/// What the answers so far say of the session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// A transaction is open, or its MULTI waits for its answer.
    pub(crate) transaction: bool,
    /// No more commands can be queued in the transaction.
    pub(crate) transaction_full: bool,
    /// The stream shows what the server runs, or is about to.
    pub(crate) monitoring: bool,
    /// Something is subscribed to in RESP2, or is about to be: the server takes little else then.
    pub(crate) subscribed: bool,
    /// How many more answers may be waited for.
    pub(crate) room: usize,
}

/// The client's side: its bytes, and what of its session the commands themselves say.
#[derive(Debug)]
pub(crate) struct Frontend {
    pub(crate) input: BytesMut,
    requests: Requests,
    /// A command was read that does not fit behind those of its batch.
    held: Option<Next>,
    known: Known,
}

/// What the commands so far say of the session.
#[derive(Debug)]
struct Known {
    allowed: Allowed,
    /// What was sent last of MULTI, and EXEC or DISCARD.
    transaction: bool,
    /// MONITOR was sent, and no RESET.
    monitoring: bool,
    /// A subscription was sent.
    subscribed: bool,
    /// What CLIENT REPLY said last; Skip until the next command.
    reply: Reply,
    /// RESET logs out.
    authenticated: bool,
    /// The trace that the client named last.
    trace: Option<String>,
}

impl Frontend {
    pub(crate) fn new(message_max: u64, allowed: Allowed, trace: Option<String>) -> Self {
        Self {
            input: BytesMut::new(),
            requests: Requests::new(Limits::session(message_max)),
            held: None,
            known: Known {
                allowed,
                transaction: false,
                monitoring: false,
                subscribed: false,
                reply: Reply::On,
                authenticated: true,
                trace,
            },
        }
    }

    /// A login went well.
    pub(crate) fn authenticated(&mut self) {
        self.known.authenticated = true;
    }

    /// How many bytes the command needs of which a part is there.
    pub(crate) fn lacking(&self) -> usize {
        self.requests.lacking(self.input.len())
    }

    /// Reads what is there.
    pub(crate) fn turn(&mut self, view: View) -> Turn {
        self.known.transaction &= view.transaction;
        self.known.monitoring &= view.monitoring;
        self.known.subscribed &= view.subscribed;
        let mut items: Vec<Item> = Vec::new();
        loop {
            let next = match self.held.take() {
                Some(next) => Ok(next),
                None if is_full(&items, view) => break,
                None => self.requests.next(&self.input),
            };
            let next = match next {
                Ok(Next::Incomplete) => break,
                Ok(Next::Nothing) => continue,
                Ok(next) => next,
                // What can be read is done first; the error stays where it is.
                Err(_) if !items.is_empty() => break,
                Err(refusal) => return self.broken(refusal),
            };
            let arguments = self.requests.arguments(&self.input);
            let alone = matches!(next, Next::Large(_)) || is_login(&arguments) || is_http(&arguments);
            if alone && !items.is_empty() {
                self.held = Some(next);
                break;
            }
            if is_http(&arguments) {
                return self.broken(protocol("a request of HTTP, on a port of Redis"));
            }
            if let Next::Large(length) = next {
                return self.large(length, view);
            }
            if is_login(&arguments) {
                return self.renewal();
            }
            let role = names::role(&arguments);
            let refused = self.known.refusal(role, &arguments, view);
            let draft = self.known.draft(describe(&arguments), refused);
            items.push(Item {
                draft: Some(draft),
                role,
                from: self.requests.start(),
                to: self.requests.end(),
            });
            if role == Role::Quit {
                break;
            }
        }
        if items.is_empty() {
            self.forget_read();
            return Turn::Read;
        }
        let end = items.last().map_or(0, |item| item.to);
        let bytes = self.take(end);
        Turn::Batch(Batch { bytes, items })
    }

    /// What asks for nothing is dropped.
    fn forget_read(&mut self) {
        drop(self.take(self.requests.start()));
        if self.input.is_empty() {
            // The buffer is given back: a session idles more than it works.
            self.input = BytesMut::new();
        }
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        let taken = self.input.split_to(bytes.min(self.input.len())).freeze();
        self.requests.taken(bytes);
        taken
    }

    fn renewal(&mut self) -> Turn {
        let arguments = self.requests.arguments(&self.input);
        let refused = if self.known.transaction {
            Some(Refusal::Unsupported { what: "a login in a transaction".into() })
        } else if self.known.monitoring {
            Some(Refusal::Unsupported { what: "a login after MONITOR".into() })
        } else {
            None
        };
        let draft = self.known.draft(describe(&arguments), refused);
        let login = read_login(&arguments);
        if self.known.reply == Reply::Skip {
            self.known.reply = Reply::On;
        }
        drop(self.take(self.requests.end()));
        Turn::Renew(Box::new(Renewal { draft, login }))
    }

    fn large(&mut self, length: u64, view: View) -> Turn {
        let arguments = self.requests.arguments(&self.input);
        if arguments.is_empty() || secrets::may_follow(&arguments) {
            let limit = crate::frame::WHOLE_MAX as u64;
            return self.broken(Refusal::TooLarge { length, limit });
        }
        let role = match names::role(&arguments) {
            // How many channels there are is not known.
            Role::Subscribe { .. } | Role::Reply(_) => {
                return self.broken(Refusal::TooLarge { length, limit: crate::frame::WHOLE_MAX as u64 });
            }
            // These take no argument, so they are errors.
            Role::Multi | Role::Exec | Role::Discard | Role::Reset | Role::Monitor => Role::Plain,
            role => role,
        };
        let (mut line, mut parameters) = describe(&arguments);
        line.content(length);
        parameters
            .push(Parameter { type_name: "content".into(), value: ParameterValue::Text(length.to_string()) });
        let refused = self.known.refusal(role, &arguments, view);
        let draft = self.known.draft((line, parameters), refused);
        let (start, end) = (self.requests.start(), self.requests.end());
        let rest = self.requests.rest();
        let bytes = self.take(end).slice(start.min(end)..);
        Turn::Large(Box::new(Large { draft, role, bytes, rest }))
    }

    /// The bytes are recorded as they came, unless a secret may be among them.
    fn broken(&mut self, refusal: Refusal) -> Turn {
        let arguments = self.requests.arguments(&self.input);
        let (line, parameters) = describe(&arguments);
        let bytes = self.input.get(self.requests.start()..).unwrap_or_default();
        let bytes = bytes.get(..BROKEN_MAX).unwrap_or(bytes);
        let draft = match !arguments.is_empty() && secrets::may_follow(&arguments) {
            true => Draft { text: line.end(), parameters, trace: None, refused: Some(refusal.clone()) },
            false => {
                let bytes = Parameter { type_name: "bytes".into(), value: value(bytes) };
                Draft {
                    text: line.end(),
                    parameters: vec![bytes],
                    trace: None,
                    refused: Some(refusal.clone()),
                }
            }
        };
        Turn::Broken(Box::new((refusal, draft)))
    }
}

impl Known {
    /// What the interceptor itself has against a command. Also follows what the command does to the session.
    fn refusal(&mut self, role: Role, arguments: &[&[u8]], view: View) -> Option<Refusal> {
        let refusal = self.objection(role, arguments, view);
        let within = self.transaction;
        if refusal.is_none() {
            match role {
                Role::Multi => self.transaction = true,
                Role::Exec | Role::Discard => self.transaction = false,
                Role::Monitor => self.monitoring = true,
                Role::Subscribe { ends: false, .. } => self.subscribed = true,
                Role::Reset => {
                    self.transaction = false;
                    self.monitoring = false;
                    self.subscribed = false;
                    self.reply = Reply::On;
                    self.authenticated = false;
                    self.trace = None;
                    return None;
                }
                _ => {}
            }
            if let Some(trace) = introduced(arguments).and_then(|(_, value)| trace::in_text(&value)) {
                self.trace = Some(trace);
            }
        }
        self.reply = match (self.reply, role) {
            (_, Role::Reply(reply)) if refusal.is_none() && !within => reply,
            (Reply::Skip, _) => Reply::On,
            (reply, _) => reply,
        };
        refusal
    }

    fn objection(&self, role: Role, arguments: &[&[u8]], view: View) -> Option<Refusal> {
        if !self.authenticated && !matches!(role, Role::Reset | Role::Quit) {
            let reason = "the client reset the stream, and has not logged in again".into();
            return Some(Refusal::NotAuthenticated { code: "reset", reason });
        }
        if let Some(refusal) = self.allowed.refusal(arguments) {
            return Some(refusal);
        }
        let unsupported = |what: &'static str| Some(Refusal::Unsupported { what: what.into() });
        let is =
            |name: &str| arguments.first().is_some_and(|first| first.eq_ignore_ascii_case(name.as_bytes()));
        match role {
            Role::Reply(_) if self.transaction => unsupported("CLIENT REPLY in a transaction"),
            // It answers with an error what has no answer otherwise.
            Role::Reply(_) if self.subscribed => unsupported("CLIENT REPLY while subscribed"),
            // What is said of a channel would stand among EXEC's replies, and look like one of them.
            Role::Replication | Role::Monitor | Role::Subscribe { .. } if self.transaction => {
                unsupported("a stream in a transaction")
            }
            Role::Hello(_) if self.transaction => unsupported("HELLO in a transaction"),
            // Whether it went well decides how everything behind it reads.
            Role::Hello(_) if self.reply != Reply::On => unsupported("HELLO where CLIENT REPLY is off"),
            Role::Subscribe { .. } | Role::Monitor if self.reply != Reply::On => {
                unsupported("a stream where CLIENT REPLY is off")
            }
            // A line of MONITOR and a reply can look the same.
            role if self.monitoring && !matches!(role, Role::Quit | Role::Reset) && !is("PING") => {
                unsupported("a command other than PING, RESET and QUIT after MONITOR")
            }
            _ if self.transaction && view.transaction_full && !matches!(role, Role::Exec | Role::Discard) => {
                Some(Refusal::Busy { reason: "commands in one transaction".into() })
            }
            _ => None,
        }
    }

    fn draft(&self, (line, parameters): (Line, Vec<Parameter>), refused: Option<Refusal>) -> Draft {
        Draft { text: line.end(), parameters, trace: self.trace.clone(), refused }
    }
}

fn is_full(items: &[Item], view: View) -> bool {
    items.len() >= BATCH_MAX.min(view.room) || items.last().is_some_and(|item| item.to >= BATCH_BYTES)
}

/// The text and the parameters of a command.
fn describe(arguments: &[&[u8]]) -> (Line, Vec<Parameter>) {
    let mut line = Line::default();
    let Some((name, rest)) = arguments.split_first() else { return (line, Vec::new()) };
    line.name(name);
    let mut secrets = secrets::secrets(arguments).into_iter().peekable();
    let mut parameters = Vec::with_capacity(rest.len());
    for (place, argument) in rest.iter().enumerate() {
        match secrets.next_if(|secret| secret.argument == place + 1) {
            None => {
                line.argument(argument);
                parameters.push(Parameter { type_name: "bulk".into(), value: value(argument) });
            }
            Some(secret) => {
                let (kept, hidden) = argument.split_at_checked(secret.keep).unwrap_or((argument, &[]));
                line.redacted(kept, hidden.len());
                let kept = kept.escape_ascii();
                let note = format!("{kept}(redacted, {} bytes)", hidden.len());
                parameters
                    .push(Parameter { type_name: "redacted".into(), value: ParameterValue::Text(note) });
            }
        }
    }
    (line, parameters)
}

fn value(argument: &[u8]) -> ParameterValue {
    match std::str::from_utf8(argument) {
        Ok(text) => ParameterValue::Text(text.to_owned()),
        Err(_) => ParameterValue::Binary(Bytes::copy_from_slice(argument)),
    }
}

/// What a client calls itself: what it is (`application`, or a word about its library), and the word.
pub(crate) fn introduced(arguments: &[&[u8]]) -> Option<(bool, String)> {
    let (is_name, value) = match arguments {
        [client, part, name]
            if client.eq_ignore_ascii_case(b"CLIENT") && part.eq_ignore_ascii_case(b"SETNAME") =>
        {
            (true, name)
        }
        [client, part, _, value]
            if client.eq_ignore_ascii_case(b"CLIENT") && part.eq_ignore_ascii_case(b"SETINFO") =>
        {
            (false, value)
        }
        [hello, _, part, name]
            if hello.eq_ignore_ascii_case(b"HELLO") && part.eq_ignore_ascii_case(b"SETNAME") =>
        {
            (true, name)
        }
        _ => return None,
    };
    Some((is_name, std::str::from_utf8(value).ok()?.to_owned()))
}

/// What a browser sends where it was told to send HTTP here: the server closes then, whatever else it says.
pub(crate) fn is_http(arguments: &[&[u8]]) -> bool {
    arguments
        .first()
        .is_some_and(|name| name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:"))
}

/// A command's name in lower case, from an operation's text.
pub(crate) fn statement(text: &str) -> Option<String> {
    let name = match text.strip_prefix('"') {
        // A name that needs quotes is no command's, but that is for the server to say.
        Some(quoted) => quoted.split('"').next(),
        None => text.split(' ').next(),
    };
    name.filter(|name| !name.is_empty()).map(str::to_lowercase)
}

/// A request.
pub(crate) fn request(arguments: &[&[u8]]) -> Bytes {
    let mut out = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
    out.into()
}

#[cfg(test)]
mod tests;
