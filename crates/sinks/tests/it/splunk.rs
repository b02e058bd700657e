use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use verbatim_core::Timestamp;
use verbatim_sinks::{Batch, Event, Limits, Sink as _, SinkError, SplunkSettings, SplunkSink, client};

const TOKEN: &str = "7b3c0f4e-0000-4000-8000-000000000001";

/// A stand-in for an event collector. What it answers is scripted; without a script it takes everything.
#[derive(Default)]
struct Collector {
    /// What each request held, in order.
    requests: Vec<Vec<Value>>,
    channels: Vec<String>,
    answers: VecDeque<(u16, Value, Option<&'static str>)>,
    /// How often an acknowledgement is asked for before it is given; none: never.
    ack_after: Option<usize>,
    polls: Vec<Value>,
    ack_is_on: bool,
    /// What the question for acknowledgements is answered, where not by acknowledgements.
    ack_answers: VecDeque<(u16, Value)>,
}

type Shared = Arc<Mutex<Collector>>;

fn answer(status: u16, body: &Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), Json(body.clone())).into_response()
}

async fn event(State(collector): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut collector = collector.lock().unwrap();
    if headers[header::AUTHORIZATION] != format!("Splunk {TOKEN}") {
        return answer(403, &json!({ "text": "Invalid token", "code": 4 }));
    }
    let objects = serde_json::Deserializer::from_slice(&body).into_iter::<Value>();
    collector.requests.push(objects.collect::<Result<_, _>>().unwrap());
    collector.channels.push(headers["x-splunk-request-channel"].to_str().unwrap().to_owned());
    if let Some((status, body, retry_after)) = collector.answers.pop_front() {
        let mut response = answer(status, &body);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.parse().unwrap());
        }
        return response;
    }
    let mut body = json!({ "text": "Success", "code": 0 });
    if collector.ack_is_on {
        body["ackId"] = json!(collector.requests.len() - 1);
    }
    answer(200, &body)
}

async fn ack(
    State(collector): State<Shared>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    Json(question): Json<Value>,
) -> Response {
    let mut collector = collector.lock().unwrap();
    assert_eq!(Some(&query["channel"]), collector.channels.last(), "the channel that the events went to");
    collector.polls.push(question.clone());
    if let Some((status, body)) = collector.ack_answers.pop_front() {
        return answer(status, &body);
    }
    let done = collector.ack_after.is_some_and(|after| collector.polls.len() > after);
    let acks: serde_json::Map<String, Value> =
        question["acks"].as_array().unwrap().iter().map(|id| (id.to_string(), json!(done))).collect();
    answer(200, &json!({ "acks": acks }))
}

async fn serve(collector: Collector) -> (Shared, SplunkSettings) {
    let collector = Arc::new(Mutex::new(collector));
    let app = Router::new()
        .route("/base/services/collector/event", post(event))
        .route("/base/services/collector/ack", post(ack))
        .route(
            "/base/services/collector/health",
            get(async || Json(json!({ "text": "healthy", "code": 17 }))),
        )
        .with_state(Arc::clone(&collector));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (collector, settings(&url))
}

fn settings(url: &str) -> SplunkSettings {
    SplunkSettings {
        url: url.parse().unwrap(),
        token: TOKEN.into(),
        index: Some("audit".to_owned()),
        sourcetype: "verbatim".to_owned(),
        host: "gw-1".to_owned(),
        ack: true,
        ack_timeout: Duration::from_secs(60),
        limits: Limits { events: 2, bytes: 10_000, wait: Duration::ZERO },
    }
}

fn sink(settings: SplunkSettings) -> SplunkSink {
    SplunkSink::new(settings, client::http(client::tls(None).unwrap()).unwrap()).unwrap()
}

fn batch(events: u64) -> Batch {
    let event = |index: u64| Event {
        index,
        id: format!("log#{index}"),
        kind: "intent".to_owned(),
        session: None,
        time: Timestamp::from_nanos(1_795_466_460_001_234_567),
        json: Bytes::from(format!("{{\"id\":\"log#{index}\"}}")),
    };
    Batch { events: (0..events).map(event).collect() }
}

#[tokio::test]
async fn events_go_in_requests_of_bounded_size_and_all_are_acknowledged() {
    let (collector, settings) =
        serve(Collector { ack_is_on: true, ack_after: Some(1), ..Collector::default() }).await;
    let sink = sink(settings);
    assert!(sink.requests() > 1);
    sink.check().await.unwrap();
    sink.deliver(&batch(5)).await.unwrap();
    let collector = collector.lock().unwrap();
    let sizes: Vec<usize> = collector.requests.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(
        collector.requests[0][1],
        json!({
            "time": 1_795_466_460.001_234, "host": "gw-1", "source": "verbatim", "sourcetype": "verbatim",
            "index": "audit", "fields": { "id": "log#1" }, "event": { "id": "log#1" },
        })
    );
    assert_eq!(collector.polls, [json!({ "acks": [0, 1, 2] }), json!({ "acks": [0, 1, 2] })]);
    assert!(collector.channels.iter().all(|channel| *channel == collector.channels[0]));
}

#[tokio::test]
async fn what_is_accepted_and_never_acknowledged_is_sent_again_on_another_channel() {
    let (collector, mut settings) = serve(Collector { ack_is_on: true, ..Collector::default() }).await;
    settings.ack_timeout = Duration::from_millis(300);
    let sink = sink(settings);
    let error = sink.deliver(&batch(1)).await.unwrap_err();
    assert!(matches!(&error, SinkError::Unavailable { reason, .. } if reason.contains("not acknowledged")));
    collector.lock().unwrap().ack_after = Some(0);
    sink.deliver(&batch(1)).await.unwrap();
    let collector = collector.lock().unwrap();
    assert_eq!(collector.requests.len(), 2);
    assert_ne!(collector.channels[0], collector.channels[1]);
}

#[tokio::test]
async fn a_failing_question_for_acknowledgements_is_asked_again() {
    let ack_answers = [(503, json!({ "text": "Server is busy", "code": 9 }))].into();
    let (collector, settings) =
        serve(Collector { ack_is_on: true, ack_after: Some(0), ack_answers, ..Collector::default() }).await;
    sink(settings).deliver(&batch(1)).await.unwrap();
    assert_eq!(collector.lock().unwrap().requests.len(), 1, "the events went once");
}

#[tokio::test]
async fn without_acknowledgement_the_200_counts() {
    // The server gives no number.
    let (collector, settings) = serve(Collector::default()).await;
    sink(settings.clone()).deliver(&batch(1)).await.unwrap();
    assert!(collector.lock().unwrap().polls.is_empty());

    // The configuration wants none.
    collector.lock().unwrap().ack_is_on = true;
    sink(SplunkSettings { ack: false, ..settings }).deliver(&batch(1)).await.unwrap();
    assert!(collector.lock().unwrap().polls.is_empty());

    // The server says so when it is asked, or at once.
    let disabled = json!({ "text": "ACK is disabled", "code": 14 });
    let ack_answers = [(400, disabled.clone())].into();
    let (_, settings) = serve(Collector { ack_is_on: true, ack_answers, ..Collector::default() }).await;
    let asked = sink(settings);
    asked.deliver(&batch(1)).await.unwrap();
    assert_eq!(asked.requests(), 1);
    let (_, settings) =
        serve(Collector { answers: [(400, disabled, None)].into(), ..Collector::default() }).await;
    let at_once = sink(settings);
    assert!(matches!(at_once.deliver(&batch(1)).await, Err(SinkError::Unavailable { .. })));
    at_once.deliver(&batch(1)).await.unwrap();
}

#[tokio::test]
async fn each_answer_means_what_it_says() {
    #[derive(Debug, PartialEq)]
    enum Means {
        Later(Option<u64>),
        Misconfigured,
        Rejected(Option<usize>),
    }
    let long = json!({ "text": "x".repeat(5000), "code": 8 });
    let cases = [
        (503, json!({ "text": "Server is busy", "code": 9 }), Some("7"), Means::Later(Some(7))),
        (500, json!({ "text": "Internal server error", "code": 8 }), None, Means::Later(None)),
        (500, long, None, Means::Later(None)),
        (502, json!("no collector at all"), None, Means::Later(None)),
        (429, json!({}), Some("120"), Means::Later(Some(120))),
        (429, json!({}), Some("Wed, 21 Oct 2026 07:28:00 GMT"), Means::Later(None)),
        (400, json!({ "text": "Invalid data channel", "code": 11 }), None, Means::Later(None)),
        (403, json!({ "text": "Token disabled", "code": 1 }), None, Means::Misconfigured),
        (401, json!({ "text": "Invalid authorization", "code": 3 }), None, Means::Misconfigured),
        (403, json!({ "text": "Invalid token", "code": 4 }), None, Means::Misconfigured),
        (400, json!({ "text": "Incorrect index", "code": 7 }), None, Means::Misconfigured),
        (302, json!({}), None, Means::Misconfigured),
        (404, json!({}), None, Means::Misconfigured),
        (200, json!("<html>a login page</html>"), None, Means::Misconfigured),
        (200, json!({ "text": "no code" }), None, Means::Misconfigured),
        (
            400,
            json!({ "text": "Invalid data format", "code": 6, "invalid-event-number": 1 }),
            None,
            Means::Rejected(Some(1)),
        ),
        (400, json!({ "text": "Event field cannot be blank", "code": 13 }), None, Means::Rejected(None)),
        (413, json!({}), None, Means::Rejected(None)),
    ];
    let (collector, settings) = serve(Collector::default()).await;
    let sink = sink(settings);
    for (status, body, retry_after, expected) in cases {
        collector.lock().unwrap().answers.push_back((status, body.clone(), retry_after));
        let error = sink.deliver(&batch(2)).await.unwrap_err();
        assert!(error.to_string().len() < 300, "{error}");
        let means = match error {
            SinkError::Unavailable { retry_after, .. } => {
                Means::Later(retry_after.map(|after| after.as_secs()))
            }
            SinkError::Misconfigured { .. } => Means::Misconfigured,
            SinkError::Rejected { event, .. } => Means::Rejected(event),
        };
        assert_eq!(means, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_rejected_event_is_named_by_its_place_in_the_batch() {
    let ok = (200, json!({ "text": "Success", "code": 0 }), None);
    let rejected = (400, json!({ "text": "x", "code": 6, "invalid-event-number": 1 }), None);
    let too_large = (413, json!({}), None);
    for (answers, expected) in [
        (vec![ok.clone(), rejected], Some(3)),
        (vec![ok.clone(), ok.clone(), too_large.clone()], Some(4)),
        (vec![ok, too_large], None),
    ] {
        let (_, settings) = serve(Collector { answers: answers.into(), ..Collector::default() }).await;
        match sink(settings).deliver(&batch(5)).await {
            Err(SinkError::Rejected { event, .. }) => assert_eq!(event, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_wrong_token_is_said_and_no_token_shows() {
    let (_, settings) = serve(Collector::default()).await;
    let secret = "wrong-and-secret";
    let wrong = sink(SplunkSettings { token: secret.into(), ..settings.clone() });
    let error = wrong.deliver(&batch(1)).await.unwrap_err();
    assert_eq!(error.to_string(), "HTTP 403, code 4: Invalid token");
    assert!(!format!("{wrong:?} {error:?}").contains(secret));
    let unusable = SplunkSettings { token: "line\nbreak".into(), ..settings };
    let client = client::http(client::tls(None).unwrap()).unwrap();
    let error = SplunkSink::new(unusable, client).unwrap_err();
    assert!(!error.to_string().contains("break"));
}

#[tokio::test]
async fn a_host_that_is_not_there_is_unavailable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let sink = sink(settings(&url));
    for error in [sink.deliver(&batch(1)).await.unwrap_err(), sink.check().await.unwrap_err()] {
        assert!(matches!(&error, SinkError::Unavailable { reason, .. } if reason.starts_with("unreachable")));
    }
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_where_it_is_named() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 8192];
                tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"code\":17}";
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
            });
        }
    });
    let pem = signed.cert.pem();
    let trusting = client::http(client::tls(Some(pem.as_bytes())).unwrap()).unwrap();
    SplunkSink::new(settings(&url), trusting).unwrap().check().await.unwrap();
    let error = sink(settings(&url)).check().await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    for wrong in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        assert!(client::tls(Some(wrong.as_bytes())).is_err(), "{wrong:?}");
    }
}
