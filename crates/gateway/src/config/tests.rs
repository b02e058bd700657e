//! A configuration's text in, its mistakes out.

use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

const RIGHT: &str = r#"
[gateway]
node = "gw-1"
data_dir = "data"

[listen]
postgres = ["127.0.0.1:6432", "[::1]:6432"]
admin = "127.0.0.1:9440"

[identity]
grace = "2m"

[identity.entra]
tenants = ["11111111-AAAA-4aaa-8aaa-000000000001"]
audiences = ["a0a0a0a0-0000-4000-8000-00000000a001"]
authority = "http://127.0.0.1:9000"
groups = { billing-agents = "e7e7e7e7-0000-4000-8000-00000000e001" }

[[connection]]
name = "customer-db"
type = "postgres"
target = "postgres://billing_app@127.0.0.1:5433/customers"
access = ["group:billing-agents", "user:C3C3C3C3-0000-4000-8000-00000000C003"]
listen = "127.0.0.1:6433"
export = ["archive"]

[sink.archive]
type = "file"
path = "events.jsonl"
"#;

fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    Config::parse(Path::new("conf/verbatim.toml"), text, &Interceptors::default())
}

fn check(text: &str, expected: Expect) {
    let mistakes = match parse(text) {
        Ok(_) => "right".to_owned(),
        Err(mistakes) => list(&mistakes),
    };
    expected.assert_eq(&mistakes);
}

/// The right configuration with one line put in another's place.
fn with(line: &str, other: &str) -> String {
    assert!(RIGHT.contains(line), "{line}");
    RIGHT.replacen(line, other, 1)
}

#[test]
fn a_right_configuration() {
    let config = parse(RIGHT).unwrap_or_else(|mistakes| panic!("{}", list(&mistakes)));
    assert_eq!(config.gateway.data_dir, Path::new("conf/data"));
    assert_eq!(config.recheck.grace, Duration::from_secs(120));
    assert_eq!(config.listen.protocols[0].1.len(), 2);
    assert_eq!(config.own_listeners().count(), 1);
    assert_eq!(config.identity.common.named_groups, ["billing-agents"]);
    let connection = &config.connections[0];
    assert_eq!(connection.target.display(), "127.0.0.1:5433/customers");
    assert_eq!(connection.access.len(), 2);
    assert_eq!(config.ledger.segment_bytes, 64 << 20);
}

#[test]
fn the_starter_has_the_mistakes_that_it_marks_and_no_others() {
    let text = crate::commands::init::STARTER;
    assert!(
        parse(text).is_ok(),
        "{}",
        parse(text).map_or_else(|mistakes| list(&mistakes), |_| String::new())
    );
}

#[test]
fn mistakes_come_all_at_once_with_place_and_remedy() {
    check(
        r#"
[gateway]
nod = "gw-1"
data_dir = "data"
log = "xml"

[limits]
token = "70000B"
login = "soon"

[listen]
postgres = "5432"
mysql = "127.0.0.1:3306"

[identity.entra]
tenants = ["contoso.onmicrosoft.com"]
audiences = []
groups = { dba = "Database admins" }

[[connection]]
name = "Customer DB"
type = "postgres"
target = "postgres://app:secret@db/customers"
credential = "secret"
access = ["group:dbas", "everyone"]

[[connection.mask]]
columns = ["*.email"]

[sink.siem]
type = "splunkk"
"#,
        expect![[r#"
            conf/verbatim.toml:2:1: gateway: `node` is missing; write for instance `node = "gw-1"`
            conf/verbatim.toml:3:1: gateway.nod: unknown key `nod`; did you mean `node`?
            conf/verbatim.toml:5:7: gateway.log: "xml" is none of "human", "json"
            conf/verbatim.toml:8:9: limits.token: expected 256B to 65535B (the longest password that PostgreSQL's protocol takes)
            conf/verbatim.toml:9:9: limits.login: expected a duration such as "50ms", "30s", "15m", "24h" or "7d"
            conf/verbatim.toml:12:12: listen.postgres: expected an address and a port, such as "127.0.0.1:5432" or "[::]:5432"
            conf/verbatim.toml:16:12: identity.entra.tenants[0]: expected a tenant's GUID (not a domain, `common` or `organizations`)
            conf/verbatim.toml:17:13: identity.entra.audiences: name at least one audience: the client id of the gateway's API registration
            conf/verbatim.toml:18:18: identity.entra.groups.dba: expected the group's object id, a GUID (names are not unique, so they are not taken)
            conf/verbatim.toml:21:8: connection[0].name: a connection's name is 1 to 63 of a-z, 0-9, '.', '_', '-', and begins with a letter or a digit
            conf/verbatim.toml:23:10: connection[0].target: a password does not belong in the URL: put it into `credential`, as { env = … } or { file = … }
            conf/verbatim.toml:24:14: connection[0].credential: a secret stands elsewhere: write { env = "NAME" }, { file = "PATH" } or { exec = ["PROGRAM"] }
            conf/verbatim.toml:25:11: connection[0].access[0]: `groups` of [identity.entra] has no "dbas"; add `dbas = "OBJECT-ID"` there
            conf/verbatim.toml:25:25: connection[0].access[1]: expected group:NAME, role:VALUE, user:OID, workload:OID or agent:OID
            conf/verbatim.toml:27:1: connection[0].mask: `mask` is not part of this version yet; remove it
            conf/verbatim.toml:31:8: sink.siem.type: "splunkk" is none of "file", "stdout", "splunk", "syslog", "elasticsearch", "otlp", "sentinel", "datadog", "s3", "kafka", "nats", "webhook""#]],
    );
}

#[test]
fn what_is_not_there_yet_is_refused_with_just_that_said() {
    check(
        &with("export = [\"archive\"]", "rule = [{ name = \"x\", action = \"deny\" }]\nmasking = {}"),
        expect![[r#"
            conf/verbatim.toml:25:8: connection[0].rule: `rule` is not part of this version yet; remove it
            conf/verbatim.toml:26:11: connection[0].masking: `masking` is not part of this version yet; remove it"#]],
    );
    check(
        &with("type = \"file\"", "type = \"kafka\""),
        expect![[
            r#"conf/verbatim.toml:28:8: sink.archive.type: sinks of this type are not part of this version yet; "file", "stdout", "splunk" are"#
        ]],
    );
}

#[test]
fn each_type_of_connection_has_its_targets_and_its_own_keys() {
    check(
        &with("type = \"postgres\"", "type = \"mysql\""),
        expect![
            "conf/verbatim.toml:22:10: connection[0].target: a target of this type begins with mysql:// or mariadb://"
        ],
    );
    check(
        &with(
            "type = \"postgres\"\ntarget = \"postgres://billing_app@127.0.0.1:5433/customers\"",
            "type = \"redis\"\ntarget = \"redis://127.0.0.1:6379\"\nallow_commands = [\"SHUTDOWN\"]\nhosts = [\"a.example\"]",
        ),
        expect![
            "conf/verbatim.toml:24:9: connection[0].hosts: `hosts` is for connections of type http and mcp, and this one is of type redis"
        ],
    );
    check(
        &with("export = [\"archive\"]", "login = \"oauthbearer\"\ntools_changed = \"refuse\""),
        expect![
            "conf/verbatim.toml:26:17: connection[0].tools_changed: `tools_changed` is for connections of type http and mcp, and this one is of type postgres"
        ],
    );
}

#[test]
fn listeners_off_loopback_need_tls() {
    check(
        &with("\"[::1]:6432\"", "\"0.0.0.0:6432\""),
        expect![[
            r#"conf/verbatim.toml:7:31: listen.postgres[1]: it is not loopback, so it needs `tls = { certificate = "…", private_key = "…" }` under [gateway]"#
        ]],
    );
}

#[test]
fn names_are_checked_across_sections() {
    check(
        &with("export = [\"archive\"]", "export = [\"archiv\"]"),
        expect!["conf/verbatim.toml:25:11: connection[0].export[0]: there is no [sink.archiv]"],
    );
    check(
        &with("\"group:billing-agents\"", "\"group:billing-agent\""),
        expect![[
            r#"conf/verbatim.toml:23:11: connection[0].access[0]: `groups` of [identity.entra] has no "billing-agent"; did you mean "group:billing-agents"?"#
        ]],
    );
    check(
        &with("\"group:billing-agents\"", "\"group:ci/deployers\""),
        expect![[
            r#"conf/verbatim.toml:23:11: connection[0].access[0]: there is no [[identity.oidc]] with name = "ci""#
        ]],
    );
}

#[test]
fn secrets_are_references() {
    let own = |reference: &str| with("export = [\"archive\"]", &format!("credential = {reference}"));
    check(
        &own("\"hunter2\""),
        expect![[
            r#"conf/verbatim.toml:25:14: connection[0].credential: a secret stands elsewhere: write { env = "NAME" }, { file = "PATH" } or { exec = ["PROGRAM"] }"#
        ]],
    );
    check(
        &own("{ env = \"VERBATIM_TEST_NO_SUCH_VARIABLE\" }"),
        expect![
            "conf/verbatim.toml:25:22: connection[0].credential.env: the environment variable VERBATIM_TEST_NO_SUCH_VARIABLE is not set"
        ],
    );
    check(
        &own("{ env = \"A\", file = \"b\" }"),
        expect![
            "conf/verbatim.toml:25:14: connection[0].credential: a secret is exactly one of { env = … }, { file = … }, { exec = […] }"
        ],
    );
    assert!(parse(&own("{ exec = [\"echo\", \"secret\"] }")).is_err(), "the folder `conf` does not exist");
}

#[test]
fn broken_toml_is_said_with_its_place() {
    check("[gateway\nnode = 1", expect!["conf/verbatim.toml:1:9: unclosed table, expected `]`"]);
}
