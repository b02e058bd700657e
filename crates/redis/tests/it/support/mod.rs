//! Both ends of a session, and the gate in the middle.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use verbatim_core::RecordMode;
use verbatim_testkit::gate::{Counts, FakeGate, Fixed, PATIENCE, listener};
use verbatim_wire::{Interceptor, Listener, Options, TargetSettings, TargetTls};

/// The name of the connection.
pub(crate) const NAME: &str = "cache";

/// What a test may set.
pub(crate) struct Setup {
    pub(crate) record: RecordMode,
    pub(crate) credential: Option<&'static str>,
    pub(crate) allow: Vec<&'static str>,
    /// Behind the port in the target's URL.
    pub(crate) database: &'static str,
    /// Whether the listener serves this connection alone.
    pub(crate) own: bool,
    pub(crate) idle: Option<Duration>,
    pub(crate) message_bytes: u64,
    pub(crate) change: fn(&mut Listener),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            record: RecordMode::Full,
            credential: None,
            allow: Vec::new(),
            database: "",
            own: false,
            idle: None,
            message_bytes: 1 << 30,
            change: |_| {},
        }
    }
}

struct Allow(Vec<&'static str>);

impl Options for Allow {
    fn word(&self, _: &'static str, _: &[&'static str]) -> Option<&'static str> {
        None
    }
    fn text(&self, _: &'static str) -> Option<String> {
        None
    }
    fn list(&self, key: &'static str) -> Option<Vec<String>> {
        assert_eq!(key, "allow_commands");
        Some(self.0.iter().map(|name| (*name).to_owned()).collect())
    }
    fn mistake(&self, key: &'static str, message: String) {
        panic!("{key}: {message}")
    }
}

/// A gateway with one connection, [`NAME`], and its target.
pub(crate) struct Gateway {
    pub(crate) gate: Arc<FakeGate>,
    pub(crate) counts: Arc<Counts>,
    serve: verbatim_wire::Serve,
    /// Where the scripted target listens.
    target: Option<TcpListener>,
}

impl Gateway {
    pub(crate) async fn new(setup: Setup) -> Self {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = target.local_addr().unwrap().port();
        Self { target: Some(target), ..Self::to(&format!("redis://127.0.0.1:{port}"), setup) }
    }

    /// A gateway before another target.
    pub(crate) fn to(url: &str, setup: Setup) -> Self {
        Self::with_tls(url, setup, TargetTls::default())
    }

    pub(crate) fn with_tls(url: &str, setup: Setup, tls: TargetTls) -> Self {
        let interceptor: Arc<dyn Interceptor> = verbatim_redis::interceptor();
        let target = interceptor
            .target(TargetSettings {
                kind: "redis",
                url: &format!("{url}{}", setup.database),
                credential: setup.credential.map(|credential| credential.to_owned().into()),
                tls,
                connect_timeout: PATIENCE,
                options: &Allow(setup.allow),
            })
            .unwrap();
        let gate = Arc::new(FakeGate::new(setup.record));
        let counts = Arc::new(Counts::default());
        let targets = Fixed(vec![(NAME.to_owned(), "redis", target)]);
        let mut listener = listener(gate.clone(), counts.clone(), targets);
        listener.own = setup.own.then(|| NAME.parse().unwrap());
        listener.limits.idle = setup.idle;
        listener.limits.message_bytes = setup.message_bytes;
        (setup.change)(&mut listener);
        Self { gate, counts, serve: interceptor.listen(listener), target: None }
    }

    /// A client's stream, served.
    pub(crate) async fn dial(&self) -> (Peer, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, served) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (socket, address) = served.unwrap();
        // Spawned where futures must be `Send`, as the gateway does.
        let task = tokio::spawn((self.serve)(socket, address));
        (Peer::new("client", client.unwrap(), self.gate.clone()), task)
    }

    /// Waits until the record says that a session is closed.
    pub(crate) async fn gate_closed(&self) {
        let closed = async {
            while self.gate.lines("closed").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.unwrap();
    }

    /// A port that every stream to is served at.
    pub(crate) async fn listen(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = self.serve.clone();
        tokio::spawn(async move {
            while let Ok((socket, address)) = listener.accept().await {
                tokio::spawn(serve(socket, address));
            }
        });
        port
    }

    /// The target's end of the next stream to it.
    pub(crate) async fn accept(&self) -> Peer {
        let accepting = self.target.as_ref().unwrap().accept();
        let (stream, _) = tokio::time::timeout(PATIENCE, accepting).await.unwrap().unwrap();
        Peer::new("target", stream, self.gate.clone())
    }

    /// A session in its ready phase.
    pub(crate) async fn session(&self) -> Ends {
        let (mut client, task) = self.dial().await;
        client.send(&command(&["AUTH", NAME, "token"])).await;
        let target = self.accept().await;
        client.expect(b"+OK\r\n").await;
        Ends { client, target, task }
    }
}

/// Both ends of a session.
pub(crate) struct Ends {
    pub(crate) client: Peer,
    pub(crate) target: Peer,
    task: JoinHandle<()>,
}

impl Ends {
    /// Sends at one end what arrives unchanged at the other.
    pub(crate) async fn up(&mut self, bytes: &[u8]) {
        self.client.send(bytes).await;
        self.target.expect(bytes).await;
    }

    pub(crate) async fn down(&mut self, bytes: &[u8]) {
        self.target.send(bytes).await;
        self.client.expect(bytes).await;
    }

    /// A command and its reply.
    pub(crate) async fn ask(&mut self, words: &[&str], reply: &str) {
        self.up(&command(words)).await;
        self.down(reply.as_bytes()).await;
    }

    /// The client leaves, and the session is over.
    pub(crate) async fn leave(self) {
        let Self { client, target, task } = self;
        drop(client);
        drop(target);
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    }

    /// The session is over, whatever the client was told.
    pub(crate) async fn over_after_words(mut self) {
        while self.client.read_some().await > 0 {}
        self.over().await;
    }

    /// The session is over.
    pub(crate) async fn over(mut self) {
        self.client.end().await;
        drop(self.target);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// One end of a stream.
pub(crate) struct Peer {
    name: &'static str,
    stream: TcpStream,
    gate: Arc<FakeGate>,
}

impl Peer {
    fn new(name: &'static str, stream: TcpStream, gate: Arc<FakeGate>) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { name, stream, gate }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.unwrap().unwrap();
    }

    /// Exactly these bytes come next; at the target, that is logged.
    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        let mut have = 0;
        while have < read.len() {
            let more = tokio::time::timeout(PATIENCE, self.stream.read(&mut read[have..])).await;
            match more {
                Ok(Ok(0)) => panic!("{}: the stream ended after {:?}", self.name, show(&read[..have])),
                Ok(Ok(more)) => have += more,
                other => panic!("{}: {other:?} after {:?}", self.name, show(&read[..have])),
            }
            assert_eq!(show(&read[..have]), show(&bytes[..have]), "{} got other bytes", self.name);
        }
        if self.name == "target" {
            self.gate.note(format!("target {}", bytes.len()));
        }
    }

    /// The next line.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let byte = tokio::time::timeout(PATIENCE, self.stream.read_u8()).await.unwrap();
            line.push(byte.unwrap_or_else(|error| panic!("{}: {error} after {:?}", self.name, show(&line))));
        }
        show(line.trim_ascii_end())
    }

    /// The next line is an error that begins so.
    pub(crate) async fn error(&mut self, beginning: &str) {
        let line = self.line().await;
        assert!(line.starts_with(beginning), "{}: {line}", self.name);
    }

    /// Nothing has come, but perhaps the end.
    pub(crate) fn expect_nothing(&mut self) {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        assert!(
            matches!(&read, Ok(0))
                || matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{}: {read:?} {byte:?}",
            self.name
        );
    }

    /// Reads something; 0 is the end.
    pub(crate) async fn read_some(&mut self) -> usize {
        let mut bytes = vec![0; 64 << 10];
        tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap().unwrap_or(0)
    }

    /// Says that nothing more is written.
    pub(crate) async fn shutdown(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The stream ends here.
    pub(crate) async fn end(&mut self) {
        let mut byte = [0; 1];
        match tokio::time::timeout(PATIENCE, self.stream.read(&mut byte)).await.unwrap() {
            Ok(0) | Err(_) => {}
            Ok(_) => panic!("{}: {byte:?} where the stream should have ended", self.name),
        }
    }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A request.
pub(crate) fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

/// Several requests, a line each.
pub(crate) fn commands(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| command(&line.split_whitespace().collect::<Vec<_>>())).collect()
}
