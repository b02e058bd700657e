//! The first and the last of a client's stream, where TLS stands from the first byte.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{ClientStream, TlsSource};

/// The first byte of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// How much of what a client still sends is read after its last words, and for how long.
const LINGER_BYTES: usize = 256 << 10;
const LINGER: Duration = Duration::from_secs(1);

impl ClientStream {
    /// Takes an accepted socket: with TLS where the client begins so and the listener has it, else in clear. Whether a
    /// stream in clear may log in is another question: [`Listener::is_private`](crate::Listener::is_private).
    ///
    /// # Errors
    /// The client left, or its handshake failed.
    pub async fn accept(tcp: TcpStream, tls: Option<&TlsSource>) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else { return Ok(Self::Plain(tcp)) };
        let mut first = [0];
        if tcp.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE] {
            let tls = tokio_rustls::TlsAcceptor::from(tls()).accept(tcp).await?;
            return Ok(Self::Tls(Box::new(tls)));
        }
        Ok(Self::Plain(tcp))
    }
}

/// Says the last words and closes. What the client still sends is read for a moment: closing a socket with unread bytes
/// would take the words away from it. That it did not hear them changes nothing.
pub async fn farewell(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) {
    let saying = async {
        stream.write_all(words).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        let mut nothing = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut nothing).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Ok::<_, io::Error>(())
    };
    let _ = timeout(LINGER, saying).await;
}
