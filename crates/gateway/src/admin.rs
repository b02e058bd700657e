//! `/healthz`, `/readyz`, `/metrics`, which need no token.

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::config::is_loopback;
use crate::gateway::Gateway;
use crate::metrics;

/// How long a client may take for its request.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// The first byte of a TLS record that begins a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(measured))
        .with_state(gateway)
}

/// 200 when the listeners are open, the keys of every tenant are loaded and the ledger takes entries.
async fn ready(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    match gateway.lacks() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(lack) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {lack}\n")),
    }
}

async fn measured(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    match metrics::encode(&gateway) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Serves one listener until the task is dropped. Off loopback it takes TLS alone, on loopback both.
pub(crate) async fn serve(listener: std::net::TcpListener, gateway: Arc<Gateway>) -> Result<()> {
    let loopback = is_loopback(listener.local_addr()?.ip());
    let listener = TcpListener::from_std(listener)?;
    let service = TowerToHyperService::new(router(Arc::clone(&gateway)));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (service, gateway) = (service.clone(), Arc::clone(&gateway));
        tokio::spawn(async move {
            let talk = tokio::time::timeout(PATIENCE, talk(stream, loopback, &gateway, service));
            if let Ok(Err(error)) = talk.await {
                tracing::debug!(%error, "an admin connection ended");
            }
        });
    }
}

async fn talk(
    stream: TcpStream,
    loopback: bool,
    gateway: &Gateway,
    service: TowerToHyperService<Router>,
) -> Result<()> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    let certificate = gateway.certificate.as_ref().filter(|_| first == [TLS_HANDSHAKE]);
    let http = hyper::server::conn::http1::Builder::new();
    match certificate {
        Some(certificate) => {
            let mut config = (*certificate.config()).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
            http.serve_connection(TokioIo::new(stream), service).await?;
        }
        None if loopback => http.serve_connection(TokioIo::new(stream), service).await?,
        None => anyhow::bail!("a request in clear from another machine"),
    }
    Ok(())
}
