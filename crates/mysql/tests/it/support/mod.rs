//! Both ends of a session, and the gate in the middle.

pub(crate) mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use verbatim_core::RecordMode;
use verbatim_testkit::gate::{Counts, FakeGate, Fixed, PATIENCE, listener};
use verbatim_wire::{Serve, Target, TargetSettings, TargetTls, TlsSource};

use wire::flag;

/// What a test may set.
pub(crate) struct Setup {
    pub(crate) record: RecordMode,
    pub(crate) idle: Option<Duration>,
    pub(crate) login_limit: Duration,
    pub(crate) message_bytes: u64,
    pub(crate) loopback: bool,
    /// The listener is the connection's own.
    pub(crate) own: bool,
    pub(crate) tls: Option<TlsSource>,
    /// What the scripted target greets with.
    pub(crate) version: &'static str,
    pub(crate) capabilities: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            record: RecordMode::Full,
            idle: None,
            login_limit: PATIENCE,
            message_bytes: 1 << 30,
            loopback: true,
            own: false,
            tls: None,
            version: "8.4.0",
            capabilities: flag::PLAIN,
        }
    }
}

/// What the configuration says of a target.
pub(crate) fn settings(url: &str, credential: Option<&str>, tls: TargetTls) -> TargetSettings<'static> {
    TargetSettings {
        kind: "mysql",
        url: Box::leak(url.to_owned().into_boxed_str()),
        credential: credential.map(|credential| credential.to_owned().into()),
        tls,
        connect_timeout: PATIENCE,
        options: &(),
    }
}

/// A gateway with one connection, `db`, and its target.
pub(crate) struct Gateway {
    pub(crate) gate: Arc<FakeGate>,
    pub(crate) counts: Arc<Counts>,
    serve: Serve,
    /// Where the scripted target listens, and what it greets with.
    target: Option<(TcpListener, &'static str, u64)>,
}

impl Gateway {
    /// Before a scripted target, which the gateway has asked for its greeting.
    pub(crate) async fn new(setup: Setup) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("mysql://app@{}/customers", listener.local_addr().unwrap());
        let interceptor = verbatim_mysql::interceptor();
        let target = interceptor.target(settings(&url, Some("target-secret"), TargetTls::default())).unwrap();
        let scripted = (listener, setup.version, setup.capabilities);
        let gateway =
            Self { target: Some(scripted), ..Self::to(vec![("db".to_owned(), "mysql", target)], setup) };
        // The first client makes it ask.
        let ((client, task), mut asked) = tokio::join!(gateway.dial(), gateway.accept());
        asked.expect_login().await;
        asked.send(&wire::packet(2, wire::OK)).await;
        asked.packet(0).await;
        drop(client);
        task.await.unwrap();
        gateway
    }

    /// Before other targets.
    pub(crate) fn to(targets: Vec<(String, &'static str, Arc<dyn Target>)>, setup: Setup) -> Self {
        let gate = Arc::new(FakeGate::new(setup.record));
        let counts = Arc::new(Counts::default());
        let mut listener = listener(gate.clone(), counts.clone(), Fixed(targets));
        listener.tls = setup.tls;
        listener.loopback = setup.loopback;
        listener.own = setup.own.then(|| "db".parse().unwrap());
        listener.limits.message_bytes = setup.message_bytes;
        listener.limits.login = setup.login_limit;
        listener.limits.idle = setup.idle;
        let serve = verbatim_mysql::interceptor().listen(listener);
        Self { gate, counts, serve, target: None }
    }

    /// A port where clients of any kind are served.
    pub(crate) async fn port(&self) -> u16 {
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

    /// A client's stream, served.
    pub(crate) async fn dial(&self) -> (Peer, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, served) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (socket, address): (TcpStream, SocketAddr) = served.unwrap();
        // Spawned where futures must be `Send`, as the gateway does.
        let task = tokio::spawn((self.serve)(socket, address));
        (Peer::new("client", client.unwrap(), self.gate.clone()), task)
    }

    /// The target's end of the next stream to it, after its greeting.
    pub(crate) async fn accept(&self) -> Peer {
        let (listener, version, capabilities) = self.target.as_ref().unwrap();
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut peer = Peer::new("target", stream, self.gate.clone());
        let greeting = wire::greeting(version, 77, *capabilities, "mysql_native_password");
        peer.send(&wire::packet(0, &greeting)).await;
        peer
    }

    /// A session in its ready phase, of a client with these flags.
    pub(crate) async fn session_with(&self, capabilities: u64) -> Ends {
        let (mut client, task) = self.dial().await;
        let greeting = client.packet(0).await;
        let thread_id = thread_id(&greeting);
        let attributes = [("program_name", "report")];
        let response = wire::response(capabilities, "ada", b"x", "db", "mysql_native_password", &attributes);
        client.send(&wire::packet(1, &response)).await;
        client.expect(&wire::packet(2, b"\xfemysql_clear_password\0")).await;
        client.send(&wire::packet(3, b"token\0")).await;
        let mut target = self.accept().await;
        let login = target.expect_login().await;
        target.send(&wire::packet(2, wire::OK)).await;
        client.expect(&wire::packet(4, wire::OK)).await;
        Ends { client, target, thread_id, login, task }
    }

    /// A session of an ordinary client.
    pub(crate) async fn session(&self) -> Ends {
        self.session_with(flag::PLAIN).await
    }
}

/// The thread id in a greeting.
pub(crate) fn thread_id(greeting: &[u8]) -> u32 {
    let version = greeting.iter().position(|byte| *byte == 0).unwrap();
    u32::from_le_bytes(greeting[version + 1..version + 5].try_into().unwrap())
}

/// Both ends of a session.
pub(crate) struct Ends {
    pub(crate) client: Peer,
    pub(crate) target: Peer,
    /// The client's thread id.
    pub(crate) thread_id: u32,
    /// The gateway's response to the target's greeting.
    pub(crate) login: Vec<u8>,
    pub(crate) task: JoinHandle<()>,
}

impl Ends {
    /// Commands go through as they are.
    pub(crate) async fn ask(&mut self, command: &[u8]) {
        self.client.send(command).await;
        self.target.expect(command).await;
    }

    /// Answers go through as they are.
    pub(crate) async fn answer(&mut self, answer: &[u8]) {
        self.target.send(answer).await;
        self.client.expect(answer).await;
    }

    /// A statement prepared with this number and so many parameters.
    pub(crate) async fn prepared(&mut self, statement: u32, sql: &str, parameters: u16) {
        self.ask(&wire::prepare(sql)).await;
        let head =
            [&[0][..], &statement.to_le_bytes(), &[0, 0], &parameters.to_le_bytes(), &[0, 0, 0]].concat();
        let mut answer = wire::packet(1, &head);
        for place in 0..parameters {
            answer.extend(wire::packet(2 + place as u8, &wire::column("?")));
        }
        if parameters > 0 {
            answer.extend(wire::packet(2 + parameters as u8, &wire::eof(2)));
        }
        self.answer(&answer).await;
    }

    /// The client leaves; the target gets COM_QUIT, and the session is closed.
    pub(crate) async fn finish(mut self) {
        self.client.send(&wire::command(1, b"")).await;
        assert_eq!(self.target.packet(0).await, b"\x01");
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
            if read[..have] != bytes[..have] {
                assert_eq!(show(&read[..have]), show(&bytes[..have]), "{} got other bytes", self.name);
            }
        }
        if self.name == "target" {
            self.gate.note(format!("target {:#04x}", bytes.get(4).copied().unwrap_or_default()));
        }
    }

    /// The payload of the next packet, which has this sequence.
    pub(crate) async fn packet(&mut self, sequence: u8) -> Vec<u8> {
        let mut head = [0; 4];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut head)).await.unwrap().unwrap();
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let mut payload = vec![0; length];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut payload)).await.unwrap().unwrap();
        assert_eq!(head[3], sequence, "{}: {:?}", self.name, show(&payload));
        payload
    }

    /// The response to a target's greeting.
    pub(crate) async fn expect_login(&mut self) -> Vec<u8> {
        self.packet(1).await
    }

    /// An ERR packet with this sequence: its code, state and message, without the record's name.
    pub(crate) async fn error(&mut self, sequence: u8) -> String {
        let payload = self.packet(sequence).await;
        assert_eq!(payload[0], 0xff, "{}: {:?}", self.name, show(&payload));
        let code = u16::from_le_bytes([payload[1], payload[2]]);
        let text = String::from_utf8(payload[4..].to_vec()).unwrap();
        let (state, message) = text.split_at(5);
        let message = message.split(" (record ").next().unwrap();
        format!("{code} {state} {message}")
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
