//! A gateway with one connection and the target behind it, in the test's own process; everything is logged in order.

#![expect(clippy::disallowed_methods, reason = "what a test reads comes from the test itself")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use verbatim_core::{BoxFuture, ConnectionName, RecordMode};
use verbatim_testkit::gate::{Counts, FakeGate, Fixed, PATIENCE, listener};
use verbatim_testkit::http::{Handler, Origin, Response};
use verbatim_wire::{Listener, Options, Serve, TargetSettings, TargetTls};

/// What a test may set.
pub(crate) struct Setup {
    pub(crate) kind: &'static str,
    pub(crate) record: RecordMode,
    /// What follows the target's address.
    pub(crate) path: &'static str,
    pub(crate) credential: Option<&'static str>,
    pub(crate) options: Given,
    pub(crate) http2: bool,
    pub(crate) handler: Handler,
    /// The target's address, where that is not the origin's.
    pub(crate) elsewhere: Option<&'static str>,
    pub(crate) change: fn(&mut Listener),
}

/// The protocol's own keys.
#[derive(Default, Clone)]
pub(crate) struct Given {
    pub(crate) hosts: Option<&'static str>,
    pub(crate) credential_as: Option<&'static str>,
    pub(crate) tools_changed: Option<&'static str>,
}

impl Options for Given {
    fn word(&self, key: &'static str, known: &[&'static str]) -> Option<&'static str> {
        let word = self.tools_changed.filter(|_| key == "tools_changed")?;
        known.iter().find(|known| **known == word).copied()
    }
    fn text(&self, key: &'static str) -> Option<String> {
        self.credential_as.filter(|_| key == "credential_as").map(str::to_owned)
    }
    fn list(&self, key: &'static str) -> Option<Vec<String>> {
        self.hosts.filter(|_| key == "hosts").map(|host| vec![host.to_owned()])
    }
    fn mistake(&self, key: &'static str, message: String) {
        panic!("{key}: {message}");
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kind: "http",
            record: RecordMode::Full,
            path: "",
            credential: Some("own"),
            options: Given::default(),
            http2: false,
            handler: Arc::new(|request, stream| Box::pin(echo(request, stream))),
            elsewhere: None,
            change: |_| {},
        }
    }
}

/// See the module.
pub(crate) struct Gateway {
    pub(crate) gate: Arc<FakeGate>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) origin: Origin,
    serve: Serve,
}

impl Gateway {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// A gateway with the connection `api`.
    pub(crate) async fn with(setup: Setup) -> Self {
        let gate = Arc::new(FakeGate::new(setup.record));
        let (noted, inner) = (gate.clone(), setup.handler);
        let handler: Handler = Arc::new(move |request, stream| {
            noted.note(format!("target {} {}", request.method(), request.uri()));
            inner(request, stream)
        });
        let origin = Origin::start(setup.http2, handler).await.unwrap();
        let address = setup.elsewhere.map_or_else(|| origin.address().to_string(), str::to_owned);
        let url = format!("http://{address}{}", setup.path);
        let interceptor = verbatim_http::interceptor();
        let settings = TargetSettings {
            kind: setup.kind,
            url: &url,
            credential: setup.credential.map(|credential| credential.to_owned().into()),
            tls: TargetTls::default(),
            connect_timeout: PATIENCE,
            options: &setup.options,
        };
        let target = interceptor.target(settings).unwrap();
        let counts = Arc::new(Counts::default());
        let mut given =
            listener(gate.clone(), counts.clone(), Fixed(vec![("api".to_owned(), setup.kind, target)]));
        (setup.change)(&mut given);
        Self { gate, counts, origin, serve: interceptor.listen(given) }
    }

    /// A client's stream.
    pub(crate) async fn dial(&self) -> Client {
        let (stream, task) = self.stream().await;
        Client { stream, task }
    }

    /// A client's bare stream, and the task that serves it.
    pub(crate) async fn stream(&self) -> (TcpStream, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, served) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (socket, address) = served.unwrap();
        (client.unwrap(), tokio::spawn((self.serve)(socket, address)))
    }

    /// Sends one request on a stream of its own, whose response ends it.
    pub(crate) async fn once(&self, request: &str) -> Answer {
        let mut client = self.dial().await;
        let answer = client.ask(request).await;
        client.finish().await;
        answer
    }

    /// Waits until the log has a line that begins so.
    pub(crate) async fn logged(&self, beginning: &str) {
        let waiting = async {
            while self.gate.lines(beginning).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("no {beginning:?} in\n{}", self.gate.log());
        }
    }
}

/// A listener of one connection.
pub(crate) fn own(listener: &mut Listener) {
    listener.own = Some("api".parse::<ConnectionName>().unwrap());
}

/// A client that writes its requests by hand.
pub(crate) struct Client {
    stream: TcpStream,
    task: JoinHandle<()>,
}

/// A response, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A request with a token and a body.
pub(crate) fn request(line: &str, token: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {token}\r\n{length}\r\n{body}")
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request and reads the response.
    pub(crate) async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await;
        self.answer(request.starts_with("HEAD")).await
    }

    /// A response, whole.
    pub(crate) async fn answer(&mut self, of_head: bool) -> Answer {
        let head = self.head().await;
        let mut answer = Answer { head, body: String::new() };
        if of_head || matches!(answer.status(), 101 | 204 | 304) {
            return answer;
        }
        let mut body = Vec::new();
        if let Some(length) = answer.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut body)).await.unwrap().unwrap();
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let size = self.line().await;
                let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
                let mut chunk = vec![0; size];
                self.stream.read_exact(&mut chunk).await.unwrap();
                body.extend(chunk);
                if size == 0 {
                    // Trailers, up to the empty line.
                    loop {
                        let line = self.line().await;
                        if line == "\r\n" {
                            break;
                        }
                        body.extend(line.as_bytes());
                    }
                    break;
                }
                assert_eq!(self.line().await, "\r\n");
            }
        } else {
            tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut body)).await.unwrap().unwrap();
        }
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    pub(crate) async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line().await;
            assert!(!line.is_empty(), "the stream ended after {head:?}");
            head.push_str(&line);
        }
        head
    }

    /// The next line; empty where the stream ended.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            match tokio::time::timeout(PATIENCE, self.stream.read(&mut byte)).await.unwrap() {
                Ok(1) => line.push(byte[0]),
                _ => break,
            }
        }
        String::from_utf8(line).unwrap()
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Nothing more comes: the stream ends.
    pub(crate) async fn end(mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.unwrap();
        assert!(read.is_err() || rest.is_empty(), "{:?}", rest.escape_ascii().to_string());
        drop(self.stream);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }

    /// The client leaves; the stream is served to its end.
    pub(crate) async fn finish(self) {
        drop(self.stream);
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

/// What the origin answers by path: `/echo` the body, `/status/N`, else what it got.
async fn echo(request: Request<Incoming>, stream: usize) -> Response {
    let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
    if let Some(status) = path.strip_prefix("/status/") {
        let mut response = Response::new(Body::from("why"));
        *response.status_mut() = StatusCode::from_u16(status.parse().unwrap()).unwrap();
        return response;
    }
    if path == "/problem" {
        let mut response = Response::new(Body::from(r#"{"title":"No such account","status":409}"#));
        *response.status_mut() = StatusCode::CONFLICT;
        response.headers_mut().insert("content-type", "application/problem+json".parse().unwrap());
        return response;
    }
    if path == "/moved" {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert("location", "/elsewhere?x".parse().unwrap());
        return response;
    }
    let body = verbatim_testkit::http::body(request).await.unwrap_or_default();
    if path == "/echo" {
        return Response::new(Body::from(body));
    }
    Response::new(Body::from(format!("stream {stream}\n{}", fields(&headers))))
}

/// Fields, one a line, in order.
pub(crate) fn fields(headers: &HeaderMap) -> String {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    lines.sort();
    lines.concat()
}

/// An answer of an origin in JSON.
pub(crate) fn json(body: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// An origin that answers every request's body with what `answer` makes of it.
pub(crate) fn answering(answer: impl Fn(HeaderMap, String) -> Response + Send + Sync + 'static) -> Handler {
    let answer = Arc::new(answer);
    Arc::new(move |request, _| {
        let answer = answer.clone();
        let answered: BoxFuture<'static, Response> = Box::pin(async move {
            let headers = request.headers().clone();
            let body: Bytes = verbatim_testkit::http::body(request).await.unwrap();
            answer(headers, String::from_utf8(body.to_vec()).unwrap())
        });
        answered
    })
}
