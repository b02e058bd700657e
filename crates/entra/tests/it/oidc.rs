//! Other issuers: their algorithms, their claims, and that their words stay theirs.

use serde_json::{Value, json};
use verbatim_core::{AuthorizationSource, IdentityKind};
use verbatim_entra::Oidc;
use verbatim_testkit::idp::{Idp, Options};

use crate::support::{Bench, NOW, principal, settings, word};

fn other(idp: &Idp, name: &str, algorithms: &[&str]) -> Oidc {
    Oidc {
        name: name.into(),
        issuer: idp.oidc(name),
        audiences: vec!["verbatim".into()],
        groups_claim: Some("groups".into()),
        kind: IdentityKind::Workload,
        subject_claim: "sub".into(),
        roles_claim: Some("realm_access.roles".into()),
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
    }
}

async fn bench(algorithms: &[&str]) -> Bench {
    let idp = Idp::start(Options::default()).await.unwrap();
    let mut settings = settings(&idp);
    settings.oidc = vec![other(&idp, "ci", algorithms), other(&idp, "cd", algorithms)];
    Bench::on(idp, settings)
}

fn claims(bench: &Bench) -> Value {
    json!({
        "iss": bench.idp.oidc("ci"), "aud": ["other", "verbatim"], "sub": "repo:example/app", "iat": NOW, "exp": NOW + 600,
        "groups": ["deployers", "billing-agents"], "realm_access": { "roles": ["writer"] }, "jti": "t-1",
        "email": "ci@example.test",
    })
}

async fn outcome(bench: &Bench, claims: &Value, key: &str, algorithm: &str) -> String {
    let payload = serde_json::to_vec(claims).unwrap();
    let token = bench.idp.sign(&json!({ "alg": algorithm, "kid": key }), &payload, key, algorithm).unwrap();
    word(&bench.verify(&token).await)
}

#[tokio::test]
async fn each_configured_algorithm_and_no_other() {
    let all = [("k1", "RS256"), ("es256", "ES256"), ("ed25519", "EdDSA")];
    let open = bench(&["RS256", "ES256", "EdDSA"]).await;
    let narrow = bench(&["ES256"]).await;
    for (key, algorithm) in all {
        assert_eq!(outcome(&open, &claims(&open), key, algorithm).await, "ok", "{algorithm}");
        let expected = if algorithm == "ES256" { "ok" } else { "A alg" };
        assert_eq!(outcome(&narrow, &claims(&narrow), key, algorithm).await, expected, "{algorithm}");
    }
    // A key of one type never verifies by the algorithm of another.
    let payload = serde_json::to_vec(&claims(&open)).unwrap();
    let confused = json!({ "alg": "ES256", "kid": "k1" });
    let token = open.idp.sign(&confused, &payload, "es256", "ES256").unwrap();
    assert_eq!(word(&open.verify(&token).await), "A key");
}

#[tokio::test]
async fn its_words_carry_its_name() {
    let bench = bench(&["RS256"]).await;
    let payload = serde_json::to_vec(&claims(&bench)).unwrap();
    let token = bench.idp.sign(&json!({ "alg": "RS256", "kid": "k1" }), &payload, "k1", "RS256").unwrap();
    let identity = bench.verify(&token).await.unwrap();
    assert_eq!(identity.provider(), "ci");
    assert_eq!(identity.tenant(), bench.idp.oidc("ci"));
    assert_eq!((identity.object_id(), identity.kind()), ("repo:example/app", IdentityKind::Workload));
    for held in
        ["group:ci/deployers", "group:ci/billing-agents", "role:ci/writer", "workload:ci/repo:example/app"]
    {
        assert!(identity.holds(&principal(held)).is_some(), "{held}");
    }
    let held = identity.holds(&principal("group:ci/deployers")).unwrap();
    assert_eq!(held.source, AuthorizationSource::Token);
    for not in [
        "group:deployers",
        "group:billing-agents",
        "group:cd/deployers",
        "role:writer",
        "agent:ci/repo:example/app",
    ] {
        assert_eq!(identity.holds(&principal(not)), None, "{not}");
    }
    assert!(identity.answers_to("ci@example.test") && identity.answers_to("deploy"));
    assert!(!identity.answers_to("eve@example.test"));
    assert!(!identity.answers_to("c3c3c3c3-0000-4000-8000-00000000c003"));
    assert_eq!(word(&bench.recheck(&identity).await), "ok");
}

#[tokio::test]
async fn what_is_wrong_is_refused() {
    let bench = bench(&["RS256"]).await;
    let cases = [
        (json!({ "aud": "other" }), "A aud"),
        (json!({ "aud": 1 }), "A claims"),
        (json!({ "sub": "" }), "A claims"),
        (json!({ "exp": NOW - 61 }), "A expired"),
        (json!({ "exp": "soon" }), "A claims"),
        (json!({ "nbf": NOW + 61 }), "A not_yet"),
        (json!({ "exp": NOW + 30 * 3600 }), "A lifetime"),
        (json!({ "groups": [1] }), "A claims"),
        (json!({ "iss": bench.idp.oidc("stranger") }), "A issuer"),
        (json!({ "groups": "deployers" }), "ok"),
    ];
    for (changes, expected) in cases {
        let mut claims = claims(&bench);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        assert_eq!(outcome(&bench, &claims, "k1", "RS256").await, expected, "{changes}");
    }
}
