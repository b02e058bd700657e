//! The simulator as scripts use it: forms in, tokens out, and its controls, all through its socket.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use verbatim_testkit::idp::Wish;

use crate::support::{AGENT, AUDIENCE, Bench, GROUP_2, NOW, PERSON, TENANT, held, word};

/// The simulator's clock, put to where the test's is.
async fn bench() -> Bench {
    let bench = Bench::new().await;
    let offset = NOW - verbatim_core::Timestamp::now().unix_seconds();
    bench.idp.change(|state| state.clock_offset(offset - 10));
    bench
}

fn client() -> reqwest::Client {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn post(bench: &Bench, path: &str, form: &[(&str, &str)]) -> Value {
    let url = format!("{}/{path}", bench.idp.authority());
    let form: HashMap<_, _> = form.iter().copied().collect();
    let answer = client().post(url).form(&form).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn control(bench: &Bench, what: &str, body: Value) -> Value {
    let url = format!("{}/control/{what}", bench.idp.authority());
    let answer = client().post(url).body(body.to_string()).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("{name} in {answer}"))
}

const TOKEN: &str = "11111111-aaaa-4aaa-8aaa-000000000001/oauth2/v2.0/token";

#[tokio::test]
async fn client_credentials_for_every_kind_and_any_size() {
    let bench = bench().await;
    let scope = "api://verbatim-gateway/.default";
    for (client, secret) in
        [(AGENT, "agent-secret"), ("agent-for-person", "agent-secret"), ("agent-user", "agent-secret")]
    {
        for padding in ["0", "2000", "12000"] {
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", client),
                ("client_secret", secret),
                ("scope", scope),
                ("padding", padding),
            ];
            let answer = post(&bench, TOKEN, &form).await;
            let token = text(&answer, "access_token");
            assert!(token.len() > padding.parse::<usize>().unwrap());
            assert_eq!(word(&bench.verify(token).await), "ok", "{client}");
        }
    }
    let form = [("grant_type", "client_credentials"), ("client_id", AGENT), ("client_secret", "guess")];
    assert_eq!(text(&post(&bench, TOKEN, &form).await, "error"), "invalid_client");
    // Not everybody may ask Graph.
    let graph = format!("{}/.default", bench.idp.authority());
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", AGENT),
        ("client_secret", "agent-secret"),
        ("scope", &graph),
    ];
    assert_eq!(text(&post(&bench, TOKEN, &form).await, "error"), "invalid_scope");
}

#[tokio::test]
async fn device_code_refresh_and_on_behalf_of() {
    let bench = bench().await;
    let path = format!("{TENANT}/oauth2/v2.0/devicecode");
    let begun = post(&bench, &path, &[("client_id", "console"), ("scope", "openid")]).await;
    let code = text(&begun, "device_code");
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code)];
    assert_eq!(text(&post(&bench, TOKEN, &form).await, "error"), "authorization_pending");
    let answer = post(&bench, TOKEN, &form).await;
    let person = text(&answer, "access_token").to_owned();
    assert_eq!(bench.verify(&person).await.unwrap().object_id(), PERSON);
    assert_eq!(text(&post(&bench, TOKEN, &form).await, "error"), "expired_token");
    let refresh = text(&answer, "refresh_token");
    let answer = post(&bench, TOKEN, &[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await;
    assert_eq!(bench.verify(text(&answer, "access_token")).await.unwrap().object_id(), PERSON);
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("client_id", AGENT),
        ("client_secret", "agent-secret"),
        ("assertion", &person),
        ("requested_token_use", "on_behalf_of"),
    ];
    let answer = post(&bench, TOKEN, &form).await;
    let identity = bench.verify(text(&answer, "access_token")).await.unwrap();
    assert_eq!(identity.object_id(), AGENT);
    assert_eq!(identity.on_behalf_of().unwrap().object_id, PERSON);
}

#[tokio::test]
async fn controls_change_keys_and_memberships() {
    let bench = bench().await;
    let token = bench.idp.token(AGENT).unwrap();
    assert_eq!(word(&bench.verify(&token).await), "ok");
    let rotated = control(&bench, "rotate", json!({})).await;
    assert_eq!((text(&rotated, "signing"), text(&rotated, "dropped")), ("k3", "k1"));
    assert!(bench.providers.refresh().await);
    assert_eq!(word(&bench.verify(&token).await), "A kid");
    control(&bench, "membership", json!({ "object_id": AGENT, "add": [GROUP_2], "remove": [] })).await;
    bench.clock.advance(301);
    let identity = bench.verify(&bench.idp.token(AGENT).unwrap()).await.unwrap();
    assert_eq!(held(&identity).len(), 2);
    control(&bench, "subject", json!({ "object_id": AGENT, "enabled": false })).await;
    assert_eq!(word(&bench.recheck(&identity).await), "A disabled");
    let claims = bench.claims(AGENT);
    let minted = control(&bench, "mint", json!({ "claims": claims, "key": "k2" })).await;
    assert_eq!(word(&bench.verify(text(&minted, "token")).await), "ok");
    let counters = control(&bench, "counters", json!({ "reset": true })).await;
    assert_eq!(counters.get("account"), Some(&json!(1)));
    assert_eq!(bench.idp.counters().len(), 0);
    control(&bench, "fail", json!({ "endpoint": "jwks", "status": 500 })).await;
    assert!(!bench.providers.refresh().await);
    control(&bench, "fail", json!({ "endpoint": "jwks" })).await;
    assert!(bench.providers.refresh().await);
    control(&bench, "freeze", json!({ "on": true })).await;
    control(&bench, "drop", json!({ "kid": "k2" })).await;
    assert!(bench.providers.refresh().await);
    assert_eq!(word(&bench.verify(text(&minted, "token")).await), "ok");
}

#[tokio::test]
async fn above_two_hundred_groups_there_is_a_marker() {
    let bench = bench().await;
    bench.idp.change(|state| {
        let groups = &mut state.subject(TENANT, PERSON).groups;
        groups.extend((0..200).map(|n| format!("f0f0f0f0-0000-4000-8000-{n:012}")));
    });
    let claims = bench.person();
    assert!(claims.contains_key("_claim_names") && !claims.contains_key("groups"));
    let identity = bench.identity(claims).await;
    assert_eq!(held(&identity).len(), 2);
    let v1 = Wish { v1: true, ..Wish::default() };
    let claims = bench.idp.claims(AGENT, NOW, &v1).unwrap();
    assert_eq!(claims.get("aud"), Some(&json!("api://verbatim-gateway")));
    assert_ne!(claims.get("aud"), Some(&json!(AUDIENCE)));
}

#[tokio::test]
async fn a_console_logs_in_by_code_and_gets_an_id_token_that_is_no_access_token() {
    let bench = bench().await;
    let verifier = "a-verifier-that-only-the-client-knows-0123456789";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    let challenge = URL_SAFE_NO_PAD.encode(digest);
    let url = format!(
        "{}/{TENANT}/oauth2/v2.0/authorize?response_type=code&client_id=console&scope=openid%20profile\
         &redirect_uri=http%3A%2F%2F127.0.0.1%3A9440%2Fcallback&state=a%20b&nonce=n1&code_challenge={challenge}\
         &code_challenge_method=S256",
        bench.idp.authority()
    );
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let code = location.strip_prefix("http://127.0.0.1:9440/callback?code=").unwrap();
    let code = code.strip_suffix("&state=a%20b").unwrap();
    let form = |verifier| {
        [
            ("grant_type", "authorization_code"),
            ("client_id", "console"),
            ("code", code),
            ("redirect_uri", "http://127.0.0.1:9440/callback"),
            ("code_verifier", verifier),
        ]
    };
    let answer = post(&bench, TOKEN, &form(verifier)).await;
    assert_eq!(bench.verify(text(&answer, "access_token")).await.unwrap().object_id(), PERSON);
    assert_eq!(word(&bench.verify(text(&answer, "id_token")).await), "A aud");
    // A code serves once, and a wrong verifier spends it.
    assert_eq!(text(&post(&bench, TOKEN, &form(verifier)).await, "error"), "invalid_grant");
}

#[tokio::test]
async fn an_assertion_instead_of_a_secret() {
    let mut state = verbatim_testkit::idp::Declared::default_state().unwrap();
    state.tenants[0].apps[1].assertion_key = Some("k4".to_owned());
    let client = state.tenants[0].apps[1].client_id.clone();
    let options = verbatim_testkit::idp::Options { state: Some(state), ..Default::default() };
    let idp = verbatim_testkit::idp::Idp::start(options).await.unwrap();
    let settings = crate::support::settings(&idp);
    let bench = Bench::on(idp, settings);
    let endpoint = format!("{}/{TOKEN}", bench.idp.authority());
    let claims = json!({ "iss": client, "sub": client, "aud": endpoint, "exp": 4_000_000_000_u32 });
    let payload = serde_json::to_vec(&claims).unwrap();
    for (key, expected) in [("k4", "access_token"), ("rogue", "error")] {
        let header = json!({ "alg": "RS256", "kid": key });
        let assertion = bench.idp.sign(&header, &payload, key, "RS256").unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", &assertion),
        ];
        assert!(post(&bench, TOKEN, &form).await.get(expected).is_some(), "{key}");
    }
}
