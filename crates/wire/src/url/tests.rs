use expect_test::{Expect, expect};

use super::*;

fn check(url: &str, expected: Expect) {
    let shown = match TargetUrl::parse(url, &["postgres", "postgresql"]) {
        Ok(target) => {
            let TargetUrl { user, path, host, port, .. } = &target;
            format!(
                "{user:?} {path:?} {:?} {}",
                target.sslmode_or_default(),
                HostPort(host, port.unwrap_or(0))
            )
        }
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn reads_what_a_url_says() {
    check(
        "postgres://billing_app@db.internal:5432/customers?sslmode=verify-full",
        expect![[r#"Some("billing_app") Some("customers") VerifyFull db.internal:5432"#]],
    );
    check("postgres://app@db.internal", expect![[r#"Some("app") None VerifyFull db.internal:0"#]]);
    check("postgresql://app@localhost/", expect![[r#"Some("app") None Disable localhost:0"#]]);
    check("postgres://app@127.9.9.9:1/d?", expect![[r#"Some("app") Some("d") Disable 127.9.9.9:1"#]]);
    check("postgres://app@[::1]:6000/d", expect![[r#"Some("app") Some("d") Disable [::1]:6000"#]]);
    check(
        "postgres://app@[2001:db8::1]?sslmode=require",
        expect![[r#"Some("app") None Require [2001:db8::1]:0"#]],
    );
    check(
        "postgres://a%40b%3Ac@h/d%2F%C3%A4?sslmode=verify%2Dca",
        expect![[r#"Some("a@b:c") Some("d/ä") VerifyCa h:0"#]],
    );
}

#[test]
fn says_what_is_wrong_with_a_url() {
    check("mysql://app@h/d", expect!["a target of this type begins with postgres:// or postgresql://"]);
    check("postgres://@h/d", expect!["the URL names no user: …://user@host/…"]);
    check(
        "postgres://app@/d",
        expect![[r#""" is no host: one name, IPv4 address or [IPv6 address] is expected"#]],
    );
    check(
        "postgres://app@a,b/d",
        expect![[r#""a,b" is no host: one name, IPv4 address or [IPv6 address] is expected"#]],
    );
    check(
        "postgres://app@%2Frun%2Fpostgresql/d",
        expect![[
            r#""%2Frun%2Fpostgresql" is no host: one name, IPv4 address or [IPv6 address] is expected"#
        ]],
    );
    check("postgres://app@h:0/d", expect![[r#""0" is no port"#]]);
    check("postgres://app@h:65536/d", expect![[r#""65536" is no port"#]]);
    check("postgres://a%00b@h/d", expect!["the user is not percent-encoded UTF-8"]);
    check("postgres://a@h/%f", expect!["the path is not percent-encoded UTF-8"]);
    check("postgres://a@h/%ff", expect!["the path is not percent-encoded UTF-8"]);
    check("postgres://a@h/d#x", expect!["a target's URL has no fragment; write # as %23"]);
    check(
        "postgres://a@h/d?application_name=x",
        expect![[r#"unknown parameter "application_name" in the URL; known: sslmode"#]],
    );
    check(
        "postgres://a@h/d?sslmode=prefer",
        expect![[r#"sslmode "prefer" is none of disable, require, verify-ca, verify-full"#]],
    );
    check(
        "postgres://a@h/d?sslmode=disable&sslmode=require",
        expect![[r#"parameter "sslmode" is in the URL twice"#]],
    );
}

#[test]
fn a_password_in_the_url_is_refused_and_not_repeated() {
    for url in [
        "postgres://app:hunter22@h/d",
        "postgres://app:hunter22@h:port/d#x",
        "postgres://app:hun@ter22@h/d",
        "postgres://app@h/d?password=hunter22",
        "postgres://app@h/d?sslpassword=hunter22",
    ] {
        let error = TargetUrl::parse(url, &["postgres"]).unwrap_err();
        assert_eq!(error, InvalidTarget::Password, "{url}");
        assert!(!format!("{error} {error:?}").contains("hunter22"));
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(url in "(postgres://)?[ -~ä]{0,40}") {
        let _ = TargetUrl::parse(&url, &["postgres"]);
    }
}
