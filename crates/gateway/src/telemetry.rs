//! The gateway's own logs and traces. Nothing is audited here: a log line may be lost, an event may not.

use anyhow::{Context as _, Result};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::io::IsTerminal as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Gateway, LogFormat};

/// Keeps the exporter; flushes it when dropped.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // Nothing is left to tell anybody if the last traces cannot be sent.
            drop(provider.shutdown());
        }
    }
}

/// Begins to write logs to standard error (`RUST_LOG` filters them; `info` otherwise), and traces to the OTLP endpoint
/// if one is configured.
pub(crate) fn start(gateway: &Gateway) -> Result<Telemetry> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,opentelemetry=warn"));
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match gateway.log {
        LogFormat::Json => logs.json().boxed(),
        LogFormat::Human => logs.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let provider = gateway.telemetry.as_deref().map(|endpoint| exporter(endpoint, gateway)).transpose()?;
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("verbatim")));
    tracing_subscriber::registry().with(filter).with(logs).with(traces).init();
    Ok(Telemetry(provider))
}

fn exporter(endpoint: &str, gateway: &Gateway) -> Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()
        .with_context(|| format!("[gateway] telemetry: {endpoint}"))?;
    let resource = Resource::builder()
        .with_service_name("verbatim")
        .with_attribute(opentelemetry::KeyValue::new("service.instance.id", gateway.node.clone()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
