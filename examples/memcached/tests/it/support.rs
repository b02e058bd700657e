//! Both ends of a session, and the gate in the middle.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use verbatim_core::RecordMode;
use verbatim_example_memcached as memcached;
use verbatim_testkit::gate::{Counts, FakeGate, Fixed, PATIENCE, listener};
use verbatim_wire::{Listener, Serve, Target, TargetSettings, TargetTls};

/// A gateway with one connection, `cache`.
pub(crate) struct Gateway {
    pub(crate) gate: Arc<FakeGate>,
    pub(crate) counts: Arc<Counts>,
    serve: Serve,
    /// Where the scripted target listens.
    target: Option<TcpListener>,
}

/// A target, as the configuration would make it.
pub(crate) fn target(url: &str, credential: Option<&str>) -> Result<Arc<dyn Target>, String> {
    target_with(url, credential, TargetTls::default())
}

/// The same, with `target_tls`.
pub(crate) fn target_with(
    url: &str,
    credential: Option<&str>,
    tls: TargetTls,
) -> Result<Arc<dyn Target>, String> {
    let settings = TargetSettings {
        kind: "memcached",
        url,
        credential: credential.map(|credential| credential.to_owned().into()),
        tls,
        connect_timeout: PATIENCE,
        options: &(),
    };
    memcached::interceptor().target(settings).map_err(|error| error.to_string())
}

impl Gateway {
    pub(crate) async fn new() -> Self {
        Self::with(RecordMode::Full, |_| {}).await
    }

    /// A gateway before a scripted target; `change` sets what a test minds.
    pub(crate) async fn with(record: RecordMode, change: impl FnOnce(&mut Listener)) -> Self {
        let scripted = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("memcached://{}", scripted.local_addr().unwrap());
        Self { target: Some(scripted), ..Self::to(target(&url, None).unwrap(), record, change) }
    }

    /// A gateway before another target.
    pub(crate) fn to(
        target: Arc<dyn Target>,
        record: RecordMode,
        change: impl FnOnce(&mut Listener),
    ) -> Self {
        let (gate, counts) = (Arc::new(FakeGate::new(record)), Arc::new(Counts::default()));
        let targets = Fixed(vec![("cache".to_owned(), "memcached", target)]);
        let mut listener = listener(gate.clone(), counts.clone(), targets);
        change(&mut listener);
        let serve = memcached::interceptor().listen(listener);
        Self { gate, counts, serve, target: None }
    }

    /// A client's stream, served.
    pub(crate) async fn dial(&self) -> (Peer, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, served) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (socket, address): (TcpStream, SocketAddr) = served.unwrap();
        (Peer::new("client", client.unwrap(), self.gate.clone()), tokio::spawn((self.serve)(socket, address)))
    }

    /// The target's end of the next stream to it, past the gateway's login.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.target.as_ref().unwrap().accept()).await.unwrap().unwrap();
        let mut peer = Peer::new("target", stream, self.gate.clone());
        peer.expect("mn\r\n").await;
        peer.send("MN\r\n").await;
        peer
    }

    /// A session in its ready phase: client, target, and the task that serves it.
    pub(crate) async fn session(&self) -> (Peer, Peer, JoinHandle<()>) {
        let (mut client, task) = self.dial().await;
        client.send(&login("cache token")).await;
        let target = self.accept().await;
        client.expect("STORED\r\n").await;
        (client, target, task)
    }

    /// The log from the session's opening on, and of it what is no word on durability.
    pub(crate) fn log(&self) -> String {
        self.gate
            .log()
            .lines()
            .filter(|line| !line.ends_with(" durable"))
            .fold(String::new(), |log, line| log + line + "\n")
    }
}

/// The first command of a stream.
pub(crate) fn login(words: &str) -> String {
    format!("set auth 0 0 {}\r\n{words}\r\n", words.len())
}

/// One end of a stream, which sends and expects bytes.
pub(crate) struct Peer {
    name: &'static str,
    pub(crate) stream: TcpStream,
    gate: Arc<FakeGate>,
}

impl Peer {
    fn new(name: &'static str, stream: TcpStream, gate: Arc<FakeGate>) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { name, stream, gate }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Exactly these bytes come next; at the target, that is logged.
    pub(crate) async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut read = vec![0; bytes.len()];
        let mut have = 0;
        while have < read.len() {
            match timeout(PATIENCE, self.stream.read(&mut read[have..])).await {
                Ok(Ok(more @ 1..)) => have += more,
                other => panic!("{}: {other:?} after {}", self.name, read[..have].escape_ascii()),
            }
            let (read, expected) = (read[..have].escape_ascii(), bytes[..have].escape_ascii());
            assert_eq!(read.to_string(), expected.to_string(), "{} got other bytes", self.name);
        }
        if self.name == "target" && bytes.len() < 1000 {
            self.gate.note(format!("target \"{}\"", bytes.escape_ascii()));
        }
    }

    /// A line of the gateway's own, without the session's id.
    pub(crate) async fn words(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(timeout(PATIENCE, self.stream.read_u8()).await.unwrap().unwrap());
        }
        let line = String::from_utf8(line).unwrap();
        line.split_once(" (session ").unwrap_or_else(|| panic!("no session in {line:?}")).0.to_owned()
    }

    /// The stream ends here.
    pub(crate) async fn end(&mut self) {
        let mut byte = [0; 1];
        match timeout(PATIENCE, self.stream.read(&mut byte)).await.unwrap() {
            Ok(0) | Err(_) => {}
            Ok(_) => panic!("{}: {byte:?} where the stream should have ended", self.name),
        }
    }
}
