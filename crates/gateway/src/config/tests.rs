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
    Config::parse(Path::new("conf/verbatim.toml"), text)
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
    assert_eq!(config.listen.postgres.len(), 2);
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
    assert!(parse(text).is_ok(), "{}", parse(text).map_or_else(|mistakes| list(&mistakes), |_| String::new()));
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
        expect![[""]],
    );
}

#[test]
fn what_is_not_there_yet_is_refused_with_just_that_said() {
    check(
        &with("export = [\"archive\"]", "rule = [{ name = \"x\", action = \"deny\" }]\nmasking = {}"),
        expect![[""]],
    );
    check(&with("type = \"file\"", "type = \"kafka\""), expect![[""]]);
    check(&with("type = \"postgres\"", "type = \"mysql\""), expect![[""]]);
}

#[test]
fn listeners_off_loopback_need_tls() {
    check(&with("\"[::1]:6432\"", "\"0.0.0.0:6432\""), expect![[""]]);
}

#[test]
fn names_are_checked_across_sections() {
    check(&with("export = [\"archive\"]", "export = [\"archiv\"]"), expect![[""]]);
    check(&with("\"group:billing-agents\"", "\"group:billing-agent\""), expect![[""]]);
    check(&with("\"group:billing-agents\"", "\"group:ci/deployers\""), expect![[""]]);
}

#[test]
fn secrets_are_references() {
    let own = |reference: &str| with("export = [\"archive\"]", &format!("credential = {reference}"));
    check(&own("\"hunter2\""), expect![[""]]);
    check(&own("{ env = \"VERBATIM_TEST_NO_SUCH_VARIABLE\" }"), expect![[""]]);
    check(&own("{ env = \"A\", file = \"b\" }"), expect![[""]]);
    assert!(parse(&own("{ exec = [\"echo\", \"secret\"] }")).is_err(), "the folder `conf` does not exist");
}

#[test]
fn broken_toml_is_said_with_its_place() {
    check("[gateway\nnode = 1", expect![[""]]);
}
