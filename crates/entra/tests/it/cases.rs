//! The numbered cases of token validation.
//!
//! Case 50 (a token without TLS) is decided before a token is read, by whoever owns the stream; 37, 39 and 40 are decided
//! by the stack from what the identity answers, so here it is the answer that is tested.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use verbatim_core::{AuthorizationSource, IdentityKind};
use verbatim_testkit::idp::{Fault, Published};

use crate::support::{
    AGENT, AUDIENCE, Bench, GROUP_1, OTHER_TENANT, OUTSIDER_APP, PERSON, TENANT, change, header, held,
    principal, word,
};

fn bare(header: &Value, payload: &Value, signature: &[u8]) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    format!("{}.{}.{}", encode(header), encode(payload), URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn case_01_alg_none() {
    let bench = Bench::new().await;
    let claims = Value::Object(bench.workload());
    for kid in [json!({ "alg": "none" }), json!({ "alg": "none", "kid": "k1" })] {
        assert_eq!(word(&bench.verify(&bare(&kid, &claims, b"")).await), "A alg");
    }
}

#[tokio::test]
async fn case_02_alg_none_in_other_case() {
    let bench = Bench::new().await;
    for alg in ["None", "NONE", "nOnE", "", "rs256"] {
        let token = bare(&json!({ "alg": alg, "kid": "k1" }), &Value::Object(bench.workload()), b"");
        assert_eq!(word(&bench.verify(&token).await), "A alg", "{alg}");
    }
}

#[tokio::test]
async fn case_03_hs256_with_the_public_key() {
    let bench = Bench::new().await;
    let (pem, modulus) = bench.idp.public_forms("k1").unwrap();
    let der = pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
    for secret in [pem.as_bytes(), &der, modulus.as_bytes()] {
        let token = bare(&json!({ "alg": "HS256", "kid": "k1" }), &Value::Object(bench.workload()), b"");
        let message = token.trim_end_matches('.');
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac));
        assert_eq!(word(&bench.verify(&token).await), "A alg");
    }
}

#[tokio::test]
async fn case_04_other_algorithms_from_a_good_key() {
    let bench = Bench::new().await;
    let payload = serde_json::to_vec(&bench.workload()).unwrap();
    for (alg, key) in
        [("RS384", "k1"), ("RS512", "k1"), ("PS256", "k1"), ("ES256", "es256"), ("EdDSA", "ed25519")]
    {
        let token = bench.idp.sign(&json!({ "alg": alg, "kid": "k1" }), &payload, key, alg).unwrap();
        assert_eq!(word(&bench.verify(&token).await), "A alg", "{alg}");
    }
}

#[tokio::test]
async fn case_05_one_byte_flipped() {
    let bench = Bench::new().await;
    let token = bench.idp.mint(&Value::Object(bench.workload())).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (head, payload) = message.split_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[7] ^= 1;
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    assert_eq!(word(&bench.verify(&token).await), "A signature");
    let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let payload = URL_SAFE_NO_PAD.encode(payload.replace("Connection.Use", "Connection.Usf"));
    assert_eq!(word(&bench.verify(&format!("{head}.{payload}.{signature}")).await), "A signature");
}

#[tokio::test]
async fn case_06_another_key_under_a_good_kid() {
    let bench = Bench::new().await;
    let payload = serde_json::to_vec(&bench.workload()).unwrap();
    for key in ["k2", "rogue"] {
        let token = bench.idp.sign(&header(), &payload, key, "RS256").unwrap();
        assert_eq!(word(&bench.verify(&token).await), "A signature");
    }
}

#[tokio::test]
async fn case_07_no_kid_a_number_a_path() {
    let bench = Bench::new().await;
    for kid in [json!(null), json!(7), json!("../../x"), json!(""), json!("k1\u{0}"), json!("k".repeat(300))]
    {
        assert_eq!(bench.headed(json!({ "alg": "RS256", "kid": kid })).await, "A kid");
    }
    assert_eq!(bench.headed(json!({ "alg": "RS256" })).await, "A kid");
    assert_eq!(bench.idp.count("jwks"), 0);
}

#[tokio::test]
async fn case_08_unknown_kid_refreshes_once() {
    let bench = Bench::new().await;
    assert!(bench.providers.refresh().await);
    assert_eq!(bench.idp.count("jwks"), 1);
    assert_eq!(bench.headed(json!({ "alg": "RS256", "kid": "unknown" })).await, "A kid");
    assert_eq!(bench.idp.count("jwks"), 2);
}

#[tokio::test]
async fn case_09_a_thousand_unknown_kids() {
    let bench = Bench::new().await;
    assert!(bench.providers.refresh().await);
    for number in 0..1000 {
        let outcome = bench.headed(json!({ "alg": "RS256", "kid": format!("unknown-{number}") })).await;
        assert_eq!(outcome, "A kid");
    }
    assert_eq!(bench.idp.count("jwks"), 1 + 3);
    // All at once, once the budget is there again: one flight for all who wait for it.
    bench.clock.advance(3600);
    let all =
        (0..100).map(|number| bench.headed(json!({ "alg": "RS256", "kid": format!("crowd-{number}") })));
    let outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.iter().all(|outcome| outcome == "A kid"));
    assert!(bench.idp.count("jwks") <= 1 + 3 + 3);
    assert_eq!(bench.idp.count("discovery"), 1);
}

#[tokio::test]
async fn case_10_keys_that_the_token_brings() {
    let bench = Bench::new().await;
    let attacker = format!("{}/attacker/keys", bench.idp.authority());
    let payload = serde_json::to_vec(&bench.workload()).unwrap();
    let (_, n) = bench.idp.public_forms("rogue").unwrap();
    let jwk = json!({ "kty": "RSA", "kid": "rogue", "use": "sig", "n": n, "e": "AQAB" });
    for kid in ["k1", "rogue"] {
        for (name, value) in [
            ("jku", json!(attacker)),
            ("x5u", json!(attacker)),
            ("x5c", json!(["AAAA"])),
            ("jwk", jwk.clone()),
        ] {
            let mut header = json!({ "alg": "RS256", "kid": kid });
            header[name] = value;
            let token = bench.idp.sign(&header, &payload, "rogue", "RS256").unwrap();
            let expected = if kid == "k1" { "A signature" } else { "A kid" };
            assert_eq!(word(&bench.verify(&token).await), expected, "{name}");
        }
    }
    assert_eq!(bench.idp.count("other"), 0);
}

#[tokio::test]
async fn case_11_crit() {
    let bench = Bench::new().await;
    for crit in [json!(["exp"]), json!(["unknown"]), json!([])] {
        assert_eq!(bench.headed(json!({ "alg": "RS256", "kid": "k1", "crit": crit })).await, "A crit");
    }
}

#[tokio::test]
async fn case_12_keys_not_for_signing_or_too_short() {
    let bench = Bench::new().await;
    bench.idp.change(|state| {
        let mut encryption = Published::signing("k1");
        encryption.usage = "enc".to_owned();
        state.keys(vec![encryption, Published::signing("weak"), Published::signing("k2")], "k2");
    });
    for kid in ["k1", "weak"] {
        assert_eq!(bench.headed(json!({ "alg": "RS256", "kid": kid })).await, "A key");
    }
}

#[tokio::test]
async fn case_13_key_of_another_tenant() {
    let bench = Bench::new().await;
    let of = |issuer: String| Published { issuer: Some(issuer), ..Published::signing("k1") };
    let base = bench.idp.authority();
    bench.idp.change(|state| state.keys(vec![of(format!("{base}/{OTHER_TENANT}/v2.0"))], "k1"));
    assert_eq!(bench.outcome(&bench.workload()).await, "A key_issuer");
    // The template serves every tenant, by the token's own.
    bench.idp.change(|state| state.keys(vec![of(format!("{base}/{{tenantid}}/v2.0"))], "k1"));
    assert!(bench.providers.refresh().await);
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
}

#[tokio::test]
async fn case_14_issuer_is_another_tenant() {
    let bench = Bench::new().await;
    let issuer = format!("{}/{OTHER_TENANT}/v2.0", bench.idp.authority());
    assert_eq!(
        bench.changed(bench.workload(), json!({ "iss": issuer, "tid": OTHER_TENANT })).await,
        "A issuer"
    );
    assert_eq!(bench.changed(bench.workload(), json!({ "iss": issuer })).await, "A issuer");
}

#[tokio::test]
async fn case_15_issuer_nearly_right() {
    let bench = Bench::new().await;
    let good = bench.issuer();
    let upper = good.replace("http://127", "HTTP://127");
    for issuer in
        [format!("{good}/"), good.trim_end_matches(".0").to_owned(), upper, good.replace("http:", "https:")]
    {
        assert_eq!(bench.changed(bench.workload(), json!({ "iss": issuer })).await, "A issuer", "{issuer}");
    }
}

#[tokio::test]
async fn case_16_issuer_template() {
    let bench = Bench::new().await;
    let issuer = format!("{}/{{tenantid}}/v2.0", bench.idp.authority());
    assert_eq!(bench.changed(bench.workload(), json!({ "iss": issuer })).await, "A issuer");
}

#[tokio::test]
async fn case_17_issuer_of_another_cloud() {
    let bench = Bench::new().await;
    for login in ["https://login.microsoftonline.us", "https://login.partner.microsoftonline.cn"] {
        let issuer = format!("{login}/{TENANT}/v2.0");
        assert_eq!(bench.changed(bench.workload(), json!({ "iss": issuer })).await, "A issuer");
    }
    // The government's version 1 issuer has the same host; it is another tenant, or a key that is not published here.
    let bench = Bench::with(|entra| entra.v1 = true).await;
    let v1 = |tenant: &str| json!({ "iss": format!("{}/{tenant}/", bench.idp.authority()), "ver": "1.0" });
    assert_eq!(bench.changed(bench.workload(), v1(OTHER_TENANT)).await, "A tenant");
    let claims = serde_json::to_vec(&change(bench.workload(), v1(TENANT))).unwrap();
    let token =
        bench.idp.sign(&json!({ "alg": "RS256", "kid": "usgov" }), &claims, "rogue", "RS256").unwrap();
    assert_eq!(word(&bench.verify(&token).await), "A kid");
}

#[tokio::test]
async fn case_18_tenant() {
    let bench = Bench::new().await;
    for tenant in
        [json!(OTHER_TENANT), json!(null), json!("9188040d-6c67-4c5b-b112-36a304b66dad"), json!("contoso")]
    {
        assert_eq!(bench.changed(bench.workload(), json!({ "tid": tenant })).await, "A tenant");
    }
    assert_eq!(bench.changed(bench.workload(), json!({ "tid": TENANT.to_uppercase() })).await, "ok");
}

#[tokio::test]
async fn case_19_issuer_or_audience_as_a_list() {
    let bench = Bench::new().await;
    assert_eq!(bench.changed(bench.workload(), json!({ "iss": [bench.issuer()] })).await, "A claims");
    assert_eq!(bench.changed(bench.workload(), json!({ "aud": [AUDIENCE] })).await, "A claims");
    assert_eq!(bench.changed(bench.workload(), json!({ "aud": ["x", AUDIENCE] })).await, "A claims");
}

#[tokio::test]
async fn case_20_other_audiences() {
    let bench = Bench::new().await;
    let graph = "00000003-0000-0000-c000-000000000000";
    for audience in
        [AGENT, graph, "https://graph.microsoft.com", "https://ossrdbms-aad.database.windows.net", ""]
    {
        assert_eq!(bench.changed(bench.workload(), json!({ "aud": audience })).await, "A aud");
    }
}

#[tokio::test]
async fn case_21_audience_nearly_right() {
    let bench = Bench::with(|entra| entra.audiences = vec!["api://verbatim-gateway".into()]).await;
    let good = "api://verbatim-gateway";
    assert_eq!(bench.changed(bench.workload(), json!({ "aud": good })).await, "ok");
    for audience in [format!("{good}/"), good.to_uppercase(), format!(" {good}")] {
        assert_eq!(bench.changed(bench.workload(), json!({ "aud": audience })).await, "A aud");
    }
}

/// A workload's claims as version 1 has them.
fn v1(bench: &Bench) -> Value {
    json!({
        "iss": format!("{}/{TENANT}/", bench.idp.authority()), "ver": "1.0", "azp": null, "azpacr": null,
        "appid": "b1b1b1b1-0000-4000-8000-00000000b001", "appidacr": "1",
    })
}

#[tokio::test]
async fn case_22_version_1_where_only_2_is_on() {
    let bench = Bench::new().await;
    assert_eq!(bench.changed(bench.workload(), v1(&bench)).await, "A version");
    let bench = Bench::with(|entra| entra.v1 = true).await;
    assert_eq!(bench.changed(bench.workload(), v1(&bench)).await, "ok");
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
}

#[tokio::test]
async fn case_23_version_2_with_the_issuer_of_1() {
    let bench = Bench::with(|entra| entra.v1 = true).await;
    let claims = change(bench.workload(), v1(&bench));
    assert_eq!(bench.changed(claims, json!({ "ver": "2.0" })).await, "A version");
    assert_eq!(bench.changed(bench.workload(), json!({ "ver": "1.0" })).await, "A version");
    assert_eq!(bench.changed(bench.workload(), json!({ "ver": null })).await, "A version");
}

#[tokio::test]
async fn case_24_expired() {
    let bench = Bench::new().await;
    let now = crate::support::NOW;
    assert_eq!(bench.changed(bench.workload(), json!({ "exp": now - 61 })).await, "A expired");
    assert_eq!(bench.changed(bench.workload(), json!({ "exp": now - 59 })).await, "ok");
    // One that was verified before ends all the same.
    let token = bench.idp.mint(&Value::Object(change(bench.workload(), json!({ "exp": now + 10 })))).unwrap();
    assert_eq!(word(&bench.verify(&token).await), "ok");
    bench.clock.advance(69);
    assert_eq!(word(&bench.verify(&token).await), "ok");
    bench.clock.advance(2);
    assert_eq!(word(&bench.verify(&token).await), "A expired");
}

#[tokio::test]
async fn case_25_not_yet_and_times_that_are_none() {
    let bench = Bench::new().await;
    let now = crate::support::NOW;
    assert_eq!(bench.changed(bench.workload(), json!({ "nbf": now + 61 })).await, "A not_yet");
    assert_eq!(bench.changed(bench.workload(), json!({ "nbf": now + 59 })).await, "ok");
    for name in ["exp", "nbf", "iat"] {
        for wrong in [json!(null), json!("1790003900"), json!(1_790_003_900.5), json!(-1), json!([1])] {
            let mut changes = json!({});
            changes[name] = wrong;
            assert_eq!(bench.changed(bench.workload(), changes.clone()).await, "A claims", "{changes}");
        }
    }
}

#[tokio::test]
async fn case_26_lifetime() {
    let bench = Bench::new().await;
    let begin = crate::support::NOW - 100;
    assert_eq!(bench.changed(bench.workload(), json!({ "exp": begin + 29 * 3600 })).await, "ok");
    assert_eq!(bench.changed(bench.workload(), json!({ "exp": begin + 29 * 3600 + 1 })).await, "A lifetime");
    assert_eq!(bench.changed(bench.workload(), json!({ "exp": i64::MAX })).await, "A lifetime");
}

#[tokio::test]
async fn case_27_id_token_of_the_console() {
    let bench = Bench::new().await;
    let id_token =
        json!({ "aud": "f0f0f0f0-0000-4000-8000-00000000f001", "azp": null, "nonce": "n", "scp": null });
    assert_eq!(bench.changed(bench.person(), id_token).await, "A aud");
}

#[tokio::test]
async fn case_28_id_token_of_the_same_registration() {
    let bench = Bench::new().await;
    assert_eq!(
        bench.changed(bench.person(), json!({ "azp": null, "scp": null, "idtyp": null })).await,
        "A type"
    );
    for name in ["nonce", "at_hash", "c_hash"] {
        let mut changes = json!({});
        changes[name] = json!("x");
        assert_eq!(bench.changed(bench.person(), changes).await, "A type");
    }
}

#[tokio::test]
async fn case_29_nonce_in_the_header() {
    let bench = Bench::new().await;
    let claims = change(bench.person(), json!({ "aud": "00000003-0000-0000-c000-000000000000" }));
    let header = json!({ "alg": "RS256", "kid": "k1", "nonce": "x" });
    let token = bench.idp.sign(&header, &serde_json::to_vec(&claims).unwrap(), "rogue", "RS256").unwrap();
    assert_eq!(word(&bench.verify(&token).await), "A nonce_header");
}

#[tokio::test]
async fn case_30_user_without_scope_and_idtyp() {
    let bench = Bench::new().await;
    for scope in [json!(null), json!(""), json!("/"), json!("  ")] {
        let changes = json!({ "scp": scope, "idtyp": null });
        assert_eq!(bench.changed(bench.person(), changes).await, "A type");
        assert_eq!(bench.changed(bench.person(), json!({ "scp": scope })).await, "A type");
    }
    // Without idtyp alone a user is a user: the claim is optional.
    assert_eq!(bench.changed(bench.person(), json!({ "idtyp": null })).await, "ok");
}

#[tokio::test]
async fn case_31_scope_is_not_ours() {
    let bench = Bench::with(|entra| entra.scopes = vec!["connect".into()]).await;
    let claims = change(bench.person(), json!({ "scp": "read write" }));
    let token = bench.idp.mint(&Value::Object(claims)).unwrap();
    let refused = bench.verify(&token).await;
    assert_eq!(word(&refused), "Z scope");
    assert_eq!(refused.unwrap_err().identity.unwrap().object_id(), PERSON);
    assert_eq!(bench.changed(bench.person(), json!({ "scp": "read connect" })).await, "ok");
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
}

#[tokio::test]
async fn case_32_both_clients_or_neither() {
    let bench = Bench::new().await;
    assert_eq!(bench.changed(bench.workload(), json!({ "appid": AGENT })).await, "A type");
    assert_eq!(bench.changed(bench.workload(), json!({ "azp": null })).await, "A type");
    assert_eq!(bench.changed(bench.workload(), json!({ "azp": null, "appid": AGENT })).await, "A type");
}

#[tokio::test]
async fn case_33_app_only_with_a_scope() {
    let bench = Bench::new().await;
    assert_eq!(bench.changed(bench.workload(), json!({ "scp": "x" })).await, "A type");
    for scope in ["", "/"] {
        assert_eq!(bench.changed(bench.agent(), json!({ "scp": scope })).await, "ok");
    }
}

#[tokio::test]
async fn case_34_idtyp_unknown() {
    let bench = Bench::new().await;
    for idtyp in ["device", "App", "service"] {
        assert_eq!(bench.changed(bench.workload(), json!({ "idtyp": idtyp })).await, "A kind");
        assert_eq!(bench.changed(bench.person(), json!({ "idtyp": idtyp })).await, "A kind");
    }
    assert_eq!(bench.changed(bench.workload(), json!({ "idtyp": 1 })).await, "A claims");
}

#[tokio::test]
async fn case_35_oid() {
    let bench = Bench::new().await;
    for oid in [json!(null), json!("ada"), json!(7), json!(format!("{PERSON}/../x"))] {
        assert_eq!(bench.changed(bench.workload(), json!({ "oid": oid })).await, "A claims");
    }
}

#[tokio::test]
async fn case_36_facets_malformed() {
    let bench = Bench::new().await;
    for name in ["xms_act_fct", "xms_sub_fct", "xms_tnt_fct"] {
        for wrong in [json!("11 x"), json!(11), json!("11,13"), json!(["11"])] {
            let mut changes = json!({});
            changes[name] = wrong;
            assert_eq!(bench.changed(bench.person(), changes.clone()).await, "A claims", "{changes}");
        }
    }
    // Extra spaces and unknown numbers are fine.
    let identity = bench.identity(change(bench.person(), json!({ "xms_sub_fct": "  3   99 " }))).await;
    assert_eq!(identity.kind(), IdentityKind::User);
}

#[tokio::test]
async fn case_37_an_agent_is_no_person() {
    let bench = Bench::new().await;
    for client in [AGENT, "agent-for-person", "agent-user"] {
        let identity = bench.identity(bench.claims(client)).await;
        assert_eq!(identity.kind(), IdentityKind::Agent, "{client}");
        for id in [PERSON, AGENT, identity.object_id()] {
            assert_eq!(identity.holds(&principal(&format!("user:{id}"))), None);
            assert_eq!(identity.holds(&principal(&format!("workload:{id}"))), None);
        }
        assert!(identity.holds(&principal(&format!("agent:{}", identity.object_id()))).is_some());
    }
}

#[tokio::test]
async fn case_38_guests() {
    let bench = Bench::with(|entra| entra.guests = false).await;
    let v1 = format!("{}/{TENANT}/", bench.idp.authority());
    for guest in [json!({ "acct": 1 }), json!({ "acct": "1" }), json!({ "idp": "live.com" })] {
        assert_eq!(bench.changed(bench.person(), guest).await, "Z guest");
    }
    for member in [json!({ "acct": 0 }), json!({ "idp": bench.issuer() }), json!({ "idp": v1 })] {
        assert_eq!(bench.changed(bench.person(), member).await, "ok");
    }
    let bench = Bench::new().await;
    assert_eq!(bench.changed(bench.person(), json!({ "acct": 1, "idp": "live.com" })).await, "ok");
}

#[tokio::test]
async fn case_39_app_only_without_role_or_group() {
    let bench = Bench::new().await;
    let identity = bench.identity(bench.claims(OUTSIDER_APP)).await;
    assert_eq!(held(&identity), []);
    assert_eq!(identity.holds(&principal("role:Connection.Use")), None);
}

#[tokio::test]
async fn case_40_groups_by_name() {
    let bench = Bench::new().await;
    let named = json!({ "groups": ["billing-agents", "dba-oncall"] });
    let identity = bench.identity(change(bench.person(), named)).await;
    assert_eq!(held(&identity), []);
    // And a role that is named like a group is a role.
    let identity =
        bench.identity(change(bench.person(), json!({ "groups": [], "roles": ["dba-oncall"] }))).await;
    assert_eq!(held(&identity), []);
}

fn overage(bench: &Bench) -> Value {
    let endpoint = format!("{}/attacker/getMemberObjects", bench.idp.authority());
    json!({
        "groups": null, "_claim_names": { "groups": "src1" },
        "_claim_sources": { "src1": { "endpoint": endpoint } },
    })
}

#[tokio::test]
async fn case_41_overage_never_followed() {
    let bench = Bench::new().await;
    for marker in [overage(&bench), json!({ "groups": null, "hasgroups": true })] {
        let identity = bench.identity(change(bench.person(), marker)).await;
        let graph = AuthorizationSource::Graph;
        assert_eq!(held(&identity), [("billing-agents", graph), ("dba-oncall", graph)]);
    }
    assert_eq!(bench.idp.count("other"), 0);
    assert_eq!(bench.idp.count("check_member_groups"), 1);
}

#[tokio::test]
async fn case_42_overage_and_graph_in_trouble() {
    for status in [429, 500, 503] {
        let bench = Bench::new().await;
        let fault = Fault { status, retry_after: Some(3600), ..Fault::default() };
        bench.idp.change(|state| state.fault("graph", Some(fault)));
        let outcome = bench.changed(bench.person(), overage(&bench)).await;
        assert_eq!(outcome, "T groups", "{status}");
    }
    let bench = Bench::with_settings(|settings| {
        settings.common.graph_budget = std::time::Duration::from_millis(200);
    })
    .await;
    bench.idp.change(|state| state.fault("graph", Some(Fault { hang: true, ..Fault::default() })));
    assert_eq!(bench.changed(bench.person(), overage(&bench)).await, "T groups");
}

#[tokio::test]
async fn case_43_overage_and_graph_forbidden() {
    let bench = Bench::new().await;
    bench.idp.change(|state| state.fault("graph", Some(Fault { status: 403, ..Fault::default() })));
    assert_eq!(bench.changed(bench.person(), overage(&bench)).await, "T groups");
    assert_eq!(bench.idp.count("graph"), 1);
}

#[tokio::test]
async fn case_44_overage_and_the_subject_is_gone() {
    let bench = Bench::new().await;
    bench.idp.change(|state| state.subject(TENANT, PERSON).gone = true);
    assert_eq!(bench.changed(bench.person(), overage(&bench)).await, "A subject_gone");
}

#[tokio::test]
async fn case_45_groups_and_overage() {
    let bench = Bench::new().await;
    bench.idp.change(|state| state.subject(TENANT, PERSON).groups.remove(GROUP_1));
    let mut claims = change(bench.person(), overage(&bench));
    claims.insert("groups".to_owned(), json!([GROUP_1]));
    let identity = bench.identity(claims).await;
    assert_eq!(held(&identity), [("dba-oncall", AuthorizationSource::Graph)]);
}

#[tokio::test]
async fn case_46_the_user_name_that_a_client_claims() {
    let bench = Bench::new().await;
    let person = bench.identity(bench.person()).await;
    for fine in
        ["app", "billing-agents", PERSON, &PERSON.to_uppercase(), "ada@example.test", "Ada@Example.Test", ""]
    {
        assert!(person.answers_to(fine), "{fine}");
    }
    for wrong in [AGENT, "eve@example.test", "@", "ada@example.test "] {
        assert!(!person.answers_to(wrong), "{wrong}");
    }
    let agent = bench.identity(bench.claims("agent-for-person")).await;
    assert!(agent.answers_to(AGENT) && agent.answers_to(PERSON) && agent.answers_to("ada@example.test"));
    assert!(!agent.answers_to(TENANT));
}

#[tokio::test]
async fn case_47_size() {
    let bench = Bench::new().await;
    for padding in [1500, 9000, 22_000 * 3 / 4, 40_000] {
        assert_eq!(bench.changed(bench.workload(), json!({ "x": "p".repeat(padding) })).await, "ok");
    }
    assert_eq!(bench.changed(bench.workload(), json!({ "x": "p".repeat(50_000) })).await, "A size");
}

#[tokio::test]
async fn case_48_not_three_segments() {
    let bench = Bench::new().await;
    let good = bench.idp.mint(&Value::Object(bench.workload())).unwrap();
    let (message, signature) = good.rsplit_once('.').unwrap();
    for wrong in [
        format!("{good}.AAAA"),
        format!("{good}.AAAA.AAAA"),
        format!("{good}=="),
        format!("{message}=.{signature}"),
        format!("{good}\r\n"),
        format!("{message}\0.{signature}"),
        format!(" {good}"),
        format!("Bearer {good}"),
        message.to_owned(),
        format!("{message}."),
        String::new(),
    ] {
        assert_eq!(word(&bench.verify(&wrong).await), "A malformed", "{wrong:?}");
    }
    assert_eq!(word(&bench.verify(&good).await), "ok");
}

#[tokio::test]
async fn case_49_duplicate_members() {
    let bench = Bench::new().await;
    let good = serde_json::to_string(&bench.workload()).unwrap();
    for twice in
        [format!("\"aud\":\"{AUDIENCE}\""), format!("\"oid\":\"{PERSON}\""), "\"\\u006fid\":1".to_owned()]
    {
        let payload = good.replacen('{', &format!("{{{twice},"), 1);
        let token = bench.idp.sign(&header(), payload.as_bytes(), "k1", "RS256").unwrap();
        assert_eq!(word(&bench.verify(&token).await), "A malformed", "{twice}");
    }
}

#[tokio::test]
async fn case_51_key_rolled() {
    let bench = Bench::new().await;
    let old = bench.idp.mint(&Value::Object(bench.workload())).unwrap();
    assert_eq!(word(&bench.verify(&old).await), "ok");
    bench.idp.change(|state| state.keys(vec![Published::signing("k2"), Published::signing("k3")], "k3"));
    // The new key is learnt from its first token, and the old one is gone with that, also for tokens verified before.
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    assert_eq!(word(&bench.verify(&old).await), "A kid");
}

#[tokio::test]
async fn case_52_keys_unreachable() {
    let bench = Bench::new().await;
    assert!(bench.providers.refresh().await);
    bench.idp.change(|state| state.fault("jwks", Some(Fault { status: 500, ..Fault::default() })));
    assert_eq!(bench.outcome(&bench.workload()).await, "ok");
    for _ in 0..5 {
        assert_eq!(bench.headed(json!({ "alg": "RS256", "kid": "k3" })).await, "T keys");
    }
    assert_eq!(bench.idp.count("jwks"), 1 + 3);
}
