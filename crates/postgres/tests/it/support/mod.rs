//! Both ends of a session, and the gate in the middle.

pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use verbatim_core::RecordMode;
use verbatim_postgres::target::TargetSettings;
use verbatim_postgres::{Context, LoginMethod, Target};
use verbatim_testkit::gate::{Counts, FakeGate, Fixed, PATIENCE, listener};

/// What a test may set.
pub(crate) struct Setup {
    pub(crate) record: RecordMode,
    pub(crate) login: LoginMethod,
    pub(crate) idle: Option<Duration>,
    pub(crate) login_limit: Duration,
    pub(crate) message_bytes: u64,
    pub(crate) loopback: bool,
    pub(crate) tls: Option<verbatim_wire::TlsSource>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            record: RecordMode::Full,
            login: LoginMethod::Password,
            idle: None,
            login_limit: PATIENCE,
            message_bytes: 1 << 30,
            loopback: true,
            tls: None,
        }
    }
}

/// A gateway with one connection, `db`, and its target.
pub(crate) struct Gateway {
    pub(crate) gate: Arc<FakeGate>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) context: Arc<Context>,
    /// Where the scripted target listens.
    target: Option<TcpListener>,
}

impl Gateway {
    pub(crate) async fn new(setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://app@{}/customers", listener.local_addr().unwrap());
        let settings = TargetSettings { login: setup.login, connect_timeout: PATIENCE, ..Default::default() };
        let target = Arc::new(Target::parse(&url, settings).unwrap());
        Self { target: Some(listener), ..Self::to(target, setup) }
    }

    /// A gateway before another target.
    pub(crate) fn to(target: Arc<Target>, setup: Setup) -> Self {
        let gate = Arc::new(FakeGate::new(setup.record));
        let counts = Arc::new(Counts::default());
        let targets = Fixed(vec![("db".to_owned(), "postgres", target)]);
        let mut listener = listener(gate.clone(), counts.clone(), targets);
        listener.tls = setup.tls;
        listener.loopback = setup.loopback;
        listener.limits.message_bytes = setup.message_bytes;
        listener.limits.login = setup.login_limit;
        listener.limits.idle = setup.idle;
        let context = Context { listener, cancels: Arc::default() };
        Self { gate, counts, context: Arc::new(context), target: None }
    }

    /// A client's stream, served.
    pub(crate) async fn dial(&self) -> (Peer, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, served) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (socket, address): (TcpStream, SocketAddr) = served.unwrap();
        // Spawned where futures must be `Send`, as the gateway does.
        let task = tokio::spawn(verbatim_postgres::serve(socket, address, self.context.clone()));
        (Peer::new("client", client.unwrap(), self.gate.clone()), task)
    }

    /// The target's end of the next stream to it.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) =
            tokio::time::timeout(PATIENCE, self.target.as_ref().unwrap().accept()).await.unwrap().unwrap();
        Peer::new("target", stream, self.gate.clone())
    }

    /// A session in its ready phase.
    pub(crate) async fn session(&self) -> Ends {
        let (mut client, task) = self.dial().await;
        client.send(&wire::startup(0, &[("user", "ada"), ("database", "db")])).await;
        client.expect(&wire::authentication(3)).await;
        client.send(&wire::password("token")).await;
        let mut target = self.accept().await;
        target.read_startup().await;
        target.send(&[wire::authentication(0), wire::key(77, b"real"), wire::ready(b'I')].concat()).await;
        client.expect(&wire::authentication(0)).await;
        let key = client.message().await;
        assert_eq!((key[0], key.len()), (b'K', 13), "a key of protocol 3.0");
        client.expect(&wire::ready(b'I')).await;
        Ends { client, target, key: key[5..].to_vec(), task }
    }
}

/// Both ends of a session.
pub(crate) struct Ends {
    pub(crate) client: Peer,
    pub(crate) target: Peer,
    /// The client's cancel key: process id and secret.
    pub(crate) key: Vec<u8>,
    pub(crate) task: JoinHandle<()>,
}

impl Ends {
    /// The client leaves; the target gets its Terminate, and the session is closed.
    pub(crate) async fn finish(mut self) {
        self.client.send(&wire::terminate()).await;
        self.target.expect(&wire::terminate()).await;
        drop(self.target);
        self.client.end().await;
        self.task.await.unwrap();
    }
}

/// One end of a stream, which sends and expects bytes.
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
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The stream, for a driver.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends without waiting for the other end to read it all.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
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
            self.gate.note(format!("target {}", wire::kinds(bytes)));
        }
    }

    /// The next message, whole.
    pub(crate) async fn message(&mut self) -> Vec<u8> {
        let mut message = vec![0; 5];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut message)).await.unwrap().unwrap();
        let length = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
        message.resize(length + 1, 0);
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut message[5..])).await.unwrap().unwrap();
        message
    }

    /// An ErrorResponse: its severity, code and message.
    pub(crate) async fn error(&mut self) -> String {
        let message = self.message().await;
        assert_eq!(message[0], b'E', "{}: {:?}", self.name, show(&message));
        let field = |kind: u8| {
            let field =
                message[5..].split(|byte| *byte == 0).find(|field| field.first() == Some(&kind)).unwrap();
            String::from_utf8(field[1..].to_vec()).unwrap()
        };
        format!("{} {} {}", field(b'V'), field(b'C'), field(b'M'))
    }

    /// A packet without a kind (StartupMessage, CancelRequest).
    pub(crate) async fn read_startup(&mut self) -> Bytes {
        let mut length = [0; 4];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut length)).await.unwrap().unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut body)).await.unwrap().unwrap();
        body.into()
    }

    /// Nothing has come.
    pub(crate) fn expect_nothing(&mut self) {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        assert!(
            matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{}: {read:?} {byte:?}",
            self.name
        );
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
