//! Servers to put behind an HTTP connection: an origin in the test's own process that says what it got, a real nginx, and
//! a real MCP server.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use verbatim_core::BoxFuture;

use crate::gateway::{PATIENCE, free_port, wait_for};

/// What an origin answers with.
pub type Response = hyper::Response<axum::body::Body>;
/// What an origin does with a request; the number is the stream's, from 1.
pub type Handler = Arc<dyn Fn(hyper::Request<Incoming>, usize) -> BoxFuture<'static, Response> + Send + Sync>;

/// An HTTP server in the test's own process, for HTTP/1.1 or, with prior knowledge, HTTP/2.
pub struct Origin {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(http2: bool, handler: Handler) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut streams = 0;
            while let Ok((socket, _)) = listener.accept().await {
                streams += 1;
                let (handler, number) = (Arc::clone(&handler), streams);
                tokio::spawn(serve(socket, http2, handler, number));
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: tokio::net::TcpStream, http2: bool, handler: Handler, number: usize) {
    let service = hyper::service::service_fn(move |request| {
        let answer = handler(request, number);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(socket);
    // A client that leaves early is no failure of the origin's.
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(io, service).await);
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        drop(builder.serve_connection(io, service).with_upgrades().await);
    }
}

/// The whole body of a request.
///
/// # Errors
/// It broke off.
pub async fn body(request: hyper::Request<Incoming>) -> Result<Bytes> {
    Ok(axum::body::to_bytes(axum::body::Body::new(request.into_body()), usize::MAX).await?)
}

/// A request as nginx logged it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Logged {
    /// `METHOD target`.
    pub text: String,
    /// The status that it answered with.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// The request's body.
    pub body: String,
    /// What it was authorized by.
    pub authorization: String,
    /// The client's name of itself.
    pub agent: String,
}

/// A real nginx, which logs every request with its body.
pub struct Nginx {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Nginx {
    /// Starts it on a free port of 127.0.0.1: `/echo…` answers with the request's body, `/files/` has files, `/status/N`
    /// answers with that status, `/v1/…` with the path.
    ///
    /// # Errors
    /// nginx is missing (`apt install nginx-light`), or does not start.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        fs::create_dir(dir.path().join("files"))?;
        fs::write(dir.path().join("files/small.txt"), "0123456789abcdef".repeat(64))?;
        fs::write(dir.path().join("files/large.bin"), vec![b'x'; 8 << 20])?;
        fs::write(dir.path().join("nginx.conf"), configuration(dir.path(), port))?;
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .args(["-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nginx cannot be started: run tests/setup, or apt install nginx-light")?;
        let nginx = Self { dir, child, port };
        wait_for("nginx", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())))
            .with_context(|| fs::read_to_string(nginx.dir.path().join("error.log")).unwrap_or_default())?;
        Ok(nginx)
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its files.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// What it logged so far, once there are this many requests.
    ///
    /// # Errors
    /// There are fewer after [`PATIENCE`], or the log cannot be read.
    pub fn log(&self, count: usize) -> Result<Vec<Logged>> {
        let path = self.dir.path().join("access.log");
        let read = || -> Result<Vec<Logged>> {
            let text = fs::read_to_string(&path)?;
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().map(|line| serde_json::from_str(line).context("a line of the access log")).collect()
        };
        let log = wait_for(&format!("{count} requests in nginx's log"), || {
            let log = read()?;
            Ok((log.len() >= count).then_some(log))
        })?;
        ensure!(log.len() == count, "{} requests instead of {count}: {log:#?}", log.len());
        Ok(log)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        drop(self.child.wait());
    }
}

fn configuration(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        r#"daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
load_module /usr/lib/nginx/modules/ngx_http_echo_module.so;
events {{ worker_connections 512; }}
http {{
  log_format whole escape=json '{{"text":"$request_method $request_uri","status":$status,"bytes":$body_bytes_sent,'
    '"body":"$request_body","authorization":"$http_authorization","agent":"$http_user_agent"}}';
  access_log {dir}/access.log whole;
  client_max_body_size 64m; client_body_buffer_size 64m; default_type text/plain;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir};
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port} reuseport;
    location /echo {{ echo_read_request_body; echo_request_body; }}
    location /files/ {{ alias {dir}/files/; }}
    location /status/404 {{ return 404 "no"; }}
    location /status/500 {{ return 500 "no"; }}
    location /status/204 {{ return 204; }}
    location /moved {{ return 302 http://127.0.0.1:{port}/files/small.txt; }}
    location / {{ echo_read_request_body; echo -n "$request_method $request_uri"; }}
  }}
}}
"#
    )
}

/// A program that serves on a port of 127.0.0.1 until it is dropped: an MCP server, for one.
pub struct Program {
    child: Child,
    port: u16,
}

impl Program {
    /// Starts `command`, which gets its port in the environment as `PORT`, and waits until it listens.
    ///
    /// # Errors
    /// It does not start, or does not listen within [`PATIENCE`].
    pub fn start(command: &mut Command) -> Result<Self> {
        let port = free_port()?;
        let child = command.env("PORT", port.to_string()).stdin(Stdio::null()).spawn()?;
        let mut program = Self { child, port };
        wait_for("a server", || {
            ensure!(program.child.try_wait()?.is_none(), "it ended");
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        })
        .with_context(|| format!("{command:?} within {PATIENCE:?}"))?;
        Ok(program)
    }

    /// Its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
