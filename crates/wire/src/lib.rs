//! What every interceptor is made of: streams that cost nothing while they are idle, TLS to targets, targets' URLs, and
//! how a protocol is registered with the gateway.
//!
//! A protocol is a crate that implements [`Interceptor`]: it reads what the configuration says of a target
//! ([`Interceptor::target`]), and serves each stream that its listeners accept ([`Interceptor::listen`]). It gets a
//! [`Listener`], in which everything is that it may use: the [`Gate`](verbatim_core::Gate) that decides and records, the
//! targets in force, TLS, limits, counters. It holds no policy, opens no files and writes no events of its own.
//! `docs/adding-a-protocol.md` leads along the whole of it.

pub mod batch;
pub mod client;
pub mod dial;
pub mod interceptor;
pub mod stream;
pub mod tls;
pub mod url;

// Shared by what fuzzing reaches in the interceptors; cargo-fuzz sets this, nothing else does.
#[cfg(fuzzing)]
pub mod fuzzing;

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

pub use batch::{decide, record};
pub use client::farewell;
pub use dial::Dial;
pub use interceptor::{
    Definitions, Discovery, DiscoverySource, Interceptor, Limits, Listener, Metrics, Options, Power, Serve,
    Target, TargetSettings, Targets, TlsSource, downcast,
};
pub use stream::{ClientStream, Peer, Shared, TargetStream};
pub use tls::{SslMode, TargetTls, TargetTlsError};
pub use url::{HostPort, InvalidTarget, TargetUrl};

/// Silence after which the kernel asks whether the target's machine is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens a TCP stream to a target, which waits for no second small packet, and notices a machine that is gone.
///
/// # Errors
/// The target cannot be reached.
pub async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}
