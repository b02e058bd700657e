//! Each layer alone on a mock inner service, then the whole stack on a real ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tower::{Layer, Service, ServiceExt};
use verbatim_core::gate::{Credential, Gate, Login, Opened};
use verbatim_core::*;
use verbatim_ledger::{Item, Ledger, Reader, SyncMode};

use crate::authenticate::AuthenticateLayer;
use crate::authorize::AuthorizeLayer;
use crate::gate::Shared;
use crate::request::{Admitted, Asked, Grant, Rejected, Verified};
use crate::{Connection, Policy, Stack, Withholding};

#[derive(Debug)]
struct Agent {
    expires_at: Timestamp,
    groups: Vec<&'static str>,
    app_id: Option<&'static str>,
}

impl Identity for Agent {
    fn provider(&self) -> &str {
        "entra"
    }
    fn tenant(&self) -> &str {
        "11111111-aaaa-4aaa-8aaa-000000000001"
    }
    fn object_id(&self) -> &str {
        "d4d4d4d4-0000-4000-8000-00000000d004"
    }
    fn kind(&self) -> IdentityKind {
        IdentityKind::Agent
    }
    fn name(&self) -> Option<&str> {
        Some("report-agent")
    }
    fn app_id(&self) -> Option<&str> {
        self.app_id
    }
    fn on_behalf_of(&self) -> Option<&OnBehalfOf> {
        None
    }
    fn token_id(&self) -> Option<&str> {
        Some("a1B2")
    }
    fn expires_at(&self) -> Timestamp {
        self.expires_at
    }
    fn holds(&self, principal: &Principal) -> Option<Held> {
        let held = principal.kind == PrincipalKind::Group && self.groups.contains(&&*principal.value);
        held.then(|| Held { id: Some("e7e7".to_owned()), source: AuthorizationSource::Graph })
    }
    fn answers_to(&self, claimed_user: &str) -> bool {
        !claimed_user.contains('@')
    }
    fn details(&self, _: &mut dyn Visitor) {}
}

/// Lets every token in but `bad`; what it says of groups can be changed while sessions are open.
struct Tokens {
    groups: Mutex<Vec<&'static str>>,
    lifetime: Mutex<Duration>,
    rechecks: AtomicUsize,
}

impl Tokens {
    fn identity(&self) -> Arc<dyn Identity> {
        Arc::new(self.agent())
    }

    fn agent(&self) -> Agent {
        Agent {
            expires_at: Timestamp::now().plus(*self.lifetime.lock()),
            groups: self.groups.lock().clone(),
            app_id: None,
        }
    }
}

impl IdentityProvider for Tokens {
    fn verify<'a>(&'a self, token: &'a Token) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>> {
        Box::pin(async move {
            if token.expose() == b"bad" {
                let (verdict, reason) = (Verdict::NotAuthenticated, "not ours".to_owned());
                return Err(IdentityError { verdict, code: "signature", reason, identity: None });
            }
            match token.expose() {
                b"another" => {
                    Ok(Arc::new(Agent { app_id: Some("another"), ..self.agent() }) as Arc<dyn Identity>)
                }
                _ => Ok(self.identity()),
            }
        })
    }

    fn recheck<'a>(
        &'a self,
        _: &'a Arc<dyn Identity>,
    ) -> BoxFuture<'a, Result<Arc<dyn Identity>, IdentityError>> {
        self.rechecks.fetch_add(1, SeqCst);
        Box::pin(async { Ok(self.identity()) })
    }
}

struct Wire {
    id: SessionId,
    wanted: String,
    client: Client,
}

impl Session for Wire {
    fn id(&self) -> SessionId {
        self.id
    }
    fn protocol(&self) -> &'static str {
        "postgres"
    }
    fn wanted(&self) -> &str {
        &self.wanted
    }
    fn client(&self) -> &Client {
        &self.client
    }
}

fn login(wanted: &str, user: &str, token: &str) -> Login {
    let client = Client {
        address: "192.0.2.7:50000".parse().unwrap(),
        user: Some(user.to_owned()),
        application: Some("psql".to_owned()),
    };
    let session = Arc::new(Wire { id: SessionId::generate(), wanted: wanted.to_owned(), client });
    Login { session, credential: Credential::Token(Token::new(token.into())), unsupported: None }
}

fn policy(access: &str, recheck: Duration) -> Policy {
    let connection = Connection {
        name: "db".parse().unwrap(),
        protocol: "postgres",
        target: "127.0.0.1:5432/db".to_owned(),
        access: vec![access.parse().unwrap()],
        kinds: vec![IdentityKind::Agent],
        record: RecordMode::Full,
    };
    let connections = [(connection.name.clone(), Arc::new(connection))].into();
    Policy { connections, grace: Duration::ZERO, recheck, sessions_max: 2 }
}

struct Fixture {
    stack: Stack,
    tokens: Arc<Tokens>,
    ledger: Ledger,
    folder: tempfile::TempDir,
}

fn fixture(lifetime: Duration) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let settings = verbatim_ledger::Settings {
        data_dir: folder.path().to_owned(),
        organisation: "localhost".to_owned(),
        node: "test".to_owned(),
        sync: SyncMode::Always,
        segment_bytes: 1 << 20,
        reserve_bytes: 1 << 20,
        heartbeat: Duration::from_secs(60),
        last_checkpoint: None,
    };
    let (ledger, _) = Ledger::open(settings).unwrap();
    let tokens = Arc::new(Tokens {
        groups: Mutex::new(vec!["agents"]),
        lifetime: Mutex::new(lifetime),
        rechecks: AtomicUsize::new(0),
    });
    let provider = Arc::clone(&tokens) as Arc<dyn IdentityProvider>;
    let policy = policy("group:agents", Duration::ZERO);
    let stack = Stack::new(ledger.clone(), provider, policy, Withholding::new(b"key"));
    Fixture { stack, tokens, ledger, folder }
}

const HOUR: Duration = Duration::from_secs(3600);

impl Fixture {
    fn shared(&self) -> Arc<Shared> {
        self.stack.shared_for_tests()
    }

    async fn open(&self) -> Opened {
        self.stack.open(login("db", "app", "good")).await.unwrap()
    }

    /// The kinds of all entries that belong to sessions, in order; of refusals with their codes.
    fn kinds(self) -> Vec<String> {
        let Self { stack, ledger, folder, tokens: _ } = self;
        drop(stack);
        ledger.close();
        let size = *ledger.committed().borrow();
        let mut reader = Reader::open(&folder.path().join("ledger")).unwrap();
        let mut kinds = Vec::new();
        while let Some(item) = reader.next(size).unwrap() {
            let Item::Entry(entry) = item else { continue };
            if entry.session().is_none() && entry.kind() != event::kind::FLOOD {
                continue;
            }
            let code = entry.fields().get("code").and_then(|code| code.as_str());
            kinds.push(match code {
                Some(code) => format!("{} {code}", entry.kind()),
                None => entry.kind().to_owned(),
            });
        }
        kinds
    }
}

fn operation(opened: &Opened, text: &'static str) -> Operation {
    Operation { text: Some(text.into()), ..Operation::new(opened.session.next_sequence(), "query") }
}

async fn ask(opened: &mut Opened, text: &'static str) -> Result<Permit, Refusal> {
    let operation = operation(opened, text);
    opened.operations.ready().await.unwrap().call(operation).await
}

/// An inner service that notes what reaches it, is ready at its second poll, and answers as told.
#[derive(Clone, Default)]
struct Inner {
    calls: Arc<AtomicUsize>,
    polls: Arc<AtomicUsize>,
    refuses: bool,
}

impl Inner {
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        cx.waker().wake_by_ref();
        self.polls.fetch_add(1, SeqCst) > 0
    }
}

macro_rules! inner_service {
    ($request:ty, $response:ty, $error:ty, $answer:expr) => {
        impl Service<$request> for Inner {
            type Response = $response;
            type Error = $error;
            type Future = std::future::Ready<Result<$response, $error>>;

            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), $error>> {
                if self.poll(cx) { Poll::Ready(Ok(())) } else { Poll::Pending }
            }

            fn call(&mut self, request: $request) -> Self::Future {
                self.calls.fetch_add(1, SeqCst);
                let refuse = Refusal::Unsupported { what: "this".into() };
                std::future::ready(if self.refuses { Err(refuse.into()) } else { Ok($answer(request)) })
            }
        }
    };
}

fn admitted(verified: Verified) -> Admitted {
    let connection = policy("group:agents", HOUR).connections.into_values().next().unwrap();
    let by = connection.authorize(&*verified.identity).unwrap();
    Admitted { login: verified.login, identity: verified.identity, connection, authorized_by: by }
}

inner_service!(Verified, Admitted, Rejected, admitted);
inner_service!(Admitted, Admitted, Rejected, |admitted| admitted);
inner_service!(Asked, Grant, Refusal, |asked: Asked| Grant { operation: asked.operation });

#[tokio::test]
async fn authenticate_waits_for_its_inner_service_and_hands_on_who_it_is() {
    let fixture = fixture(HOUR);
    let inner = Inner::default();
    let mut layer = AuthenticateLayer::new(fixture.shared()).layer(inner.clone());
    let ready = ServiceExt::<Login>::ready(&mut layer).await.map_err(|r| r.refusal).unwrap();
    assert!(inner.polls.load(SeqCst) >= 2, "readiness is the inner service's");
    let admitted = ready.call(login("db", "app", "good")).await.map_err(|r| r.refusal).unwrap();
    assert_eq!(admitted.identity.name(), Some("report-agent"));
}

#[tokio::test]
async fn authenticate_stops_what_proves_nobody_and_names_whom_an_inner_layer_refuses() {
    let fixture = fixture(HOUR);
    for (user, token, code) in [("app", "bad", "signature"), ("eve@example.test", "good", "name")] {
        let inner = Inner::default();
        let mut layer = AuthenticateLayer::new(fixture.shared()).layer(inner.clone());
        let Err(rejected) = layer.call(login("db", user, token)).await else { panic!("{user} got in") };
        assert_eq!(rejected.refusal.code(), code);
        assert!(rejected.identity.is_none());
        assert_eq!(inner.calls.load(SeqCst), 0);
    }
    let inner = Inner { refuses: true, ..Inner::default() };
    let mut layer = AuthenticateLayer::new(fixture.shared()).layer(inner);
    let Err(rejected) = layer.call(login("db", "app", "good")).await else {
        panic!("the inner refusal is lost")
    };
    assert_eq!(rejected.refusal.code(), "unsupported");
    assert!(rejected.identity.is_some());
}

#[tokio::test]
async fn an_operation_after_the_token_ended_is_refused_without_the_inner_layers() {
    let fixture = fixture(Duration::ZERO);
    let opened = fixture.open().await;
    let session = fixture.stack.sessions().find(opened.session.id()).unwrap();
    let inner = Inner::default();
    let mut layer = AuthenticateLayer::new(fixture.shared()).layer(inner.clone());
    let asked = Asked { session, operation: Arc::new(operation(&opened, "SELECT 1")) };
    assert!(matches!(layer.call(asked).await, Err(Refusal::Expired)));
    assert_eq!(inner.calls.load(SeqCst), 0);
    assert_eq!(opened.session.ended().await, CloseReason::Expired);
}

#[tokio::test]
async fn authorize_answers_an_unknown_connection_like_one_without_access() {
    let fixture = fixture(HOUR);
    let refused = async |wanted: &str, groups: Vec<&'static str>| {
        let mut layer = AuthorizeLayer::new(fixture.shared()).layer(Inner::default());
        let identity = Arc::new(Agent { expires_at: Timestamp::now().plus(HOUR), groups, app_id: None });
        let verified = Verified { login: login(wanted, "app", "good"), identity };
        layer.call(verified).await.err().map(|rejected| rejected.refusal)
    };
    let not_allowed = |refusal| matches!(refusal, Some(Refusal::NotAllowed { .. }));
    assert!(not_allowed(refused("other", vec!["agents"]).await));
    assert!(not_allowed(refused("DB;", vec!["agents"]).await));
    assert!(not_allowed(refused("db", vec!["others"]).await));
    assert!(refused("db", vec!["agents"]).await.is_none());
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_after_access_was_judged() {
    let fixture = fixture(HOUR);
    let with = |wanted: &str| Login {
        unsupported: Some(Refusal::Unsupported { what: "replication".into() }),
        ..login(wanted, "app", "good")
    };
    let code = async |wanted| fixture.stack.open(with(wanted)).await.err().map(|refusal| refusal.code());
    assert_eq!(code("db").await, Some("unsupported"));
    assert_eq!(code("other").await, Some("no_connection"));
    assert_eq!(
        fixture.kinds(),
        [
            "session_open",
            "denied unsupported",
            "session_close",
            "session_open",
            "denied no_connection",
            "session_close"
        ]
    );
}

#[tokio::test]
async fn a_session_is_on_record_from_opening_to_close() {
    let fixture = fixture(HOUR);
    let mut opened = fixture.open().await;
    let done = ask(&mut opened, "SELECT 1").await.unwrap().recorded().await.unwrap();
    let dropped = ask(&mut opened, "SELECT 2").await.unwrap();
    done.content(b"1\n").await.unwrap();
    done.complete(&Outcome::new(Status::Ok));
    drop(dropped);
    let left_open = ask(&mut opened, "SELECT 3").await.unwrap();
    opened.session.close(CloseReason::Client);
    drop(left_open);
    let after = ask(&mut opened, "SELECT 4").await;
    assert!(matches!(after, Err(Refusal::NotRecorded { .. })), "{after:?}");
    drop(opened);
    assert!(fixture.stack.sessions().is_empty());
    let expected = [
        "session_open",
        "authz",
        "intent",
        "intent",
        "chunk",
        "outcome",
        "abort",
        "intent",
        "abort",
        "session_close",
    ];
    assert_eq!(fixture.kinds(), expected);
}

#[tokio::test]
async fn a_session_that_is_dropped_is_closed_on_record() {
    let fixture = fixture(HOUR);
    let mut opened = fixture.open().await;
    let permit = ask(&mut opened, "SELECT 1").await.unwrap();
    drop(opened);
    drop(permit);
    assert_eq!(fixture.kinds(), ["session_open", "authz", "intent", "abort", "session_close"]);
}

#[tokio::test]
async fn a_refused_operation_is_recorded_by_the_same_layer() {
    let fixture = fixture(HOUR);
    let mut opened = fixture.open().await;
    fixture.stack.reload(policy("group:others", Duration::ZERO));
    let refused = ask(&mut opened, "SELECT 1").await;
    assert!(matches!(refused, Err(Refusal::Revoked { .. })), "{refused:?}");
    assert_eq!(opened.session.ended().await, CloseReason::AccessRevoked);
    opened.session.close(CloseReason::AccessRevoked);
    drop(opened);
    assert_eq!(fixture.kinds(), ["session_open", "authz", "denied access_revoked", "session_close"]);
}

#[tokio::test]
async fn another_token_of_the_same_identity_prolongs_a_session_and_no_other_does() {
    let fixture = fixture(HOUR);
    let opened = fixture.open().await;
    let session = Arc::clone(&opened.session);
    let renew = |token: &str| session.renew(Credential::Token(Token::new(token.into())));
    let code = |refused: Result<(), Refusal>| refused.unwrap_err().code();
    assert_eq!(code(renew("bad").await), "signature");
    assert_eq!(code(renew("another").await), "identity");
    let before = session.identity().expires_at();
    *fixture.tokens.lifetime.lock() = 2 * HOUR;
    renew("good").await.unwrap();
    assert!(session.identity().expires_at() > before);
    // Who waits for the session's end hears of a token that ends sooner, too.
    let ended = session.ended();
    *fixture.tokens.lifetime.lock() = Duration::ZERO;
    renew("good").await.unwrap();
    assert_eq!(ended.await, CloseReason::Expired);
    fixture.tokens.groups.lock().clear();
    assert_eq!(code(renew("good").await), "no_group");
    opened.session.close(CloseReason::Expired);
    drop((opened, session));
    assert_eq!(
        fixture.kinds(),
        [
            "session_open",
            "authz",
            "renewed signature",
            "renewed identity",
            "renewed",
            "renewed",
            "renewed no_group",
            "session_close"
        ]
    );
}

#[tokio::test]
async fn groups_are_looked_up_again_while_the_session_is_open() {
    let fixture = fixture(HOUR);
    let opened = fixture.open().await;
    let session = fixture.stack.sessions().find(opened.session.id()).unwrap();
    fixture.stack.reload(policy("group:agents", Duration::from_secs(300)));
    let now = Timestamp::now();
    session.recheck(now.plus(Duration::from_secs(299))).await;
    assert_eq!(fixture.tokens.rechecks.load(SeqCst), 0);
    session.recheck(now.plus(Duration::from_secs(301))).await;
    assert_eq!(fixture.tokens.rechecks.load(SeqCst), 1);
    fixture.tokens.groups.lock().clear();
    session.recheck(now.plus(Duration::from_secs(900))).await;
    assert_eq!(opened.session.ended().await, CloseReason::AccessRevoked);
}

#[tokio::test]
async fn sessions_are_limited_and_draining_takes_none() {
    let fixture = fixture(HOUR);
    let (first, _second) = (fixture.open().await, fixture.open().await);
    let third = fixture.stack.open(login("db", "app", "good")).await;
    assert!(matches!(third, Err(Refusal::Busy { .. })), "{third:?}");
    drop(first);
    let fourth = fixture.open().await;
    fixture.stack.drain();
    assert_eq!(fourth.session.ended().await, CloseReason::Drained);
    let late = fixture.stack.open(login("db", "app", "good")).await;
    assert!(matches!(late, Err(Refusal::Draining)), "{late:?}");
}

#[tokio::test]
async fn values_that_are_not_kept_leave_length_and_a_keyed_digest() {
    let operation = |value: &str| Operation {
        parameters: Some(vec![Parameter {
            type_name: "text".into(),
            value: ParameterValue::Text(value.to_owned()),
        }]),
        ..Operation::new(1, "execute")
    };
    let (one, other) = (Withholding::new(b"one"), Withholding::new(b"other"));
    let digest = |key: &Withholding, value| key.of(&operation(value), RecordMode::Commands).unwrap();
    assert_eq!(digest(&one, "a"), digest(&one, "a"));
    assert_ne!(digest(&one, "a").hmac, digest(&one, "b").hmac);
    assert_ne!(digest(&one, "a").hmac, digest(&other, "a").hmac);
    assert!(one.of(&operation("a"), RecordMode::Full).is_none());
}
