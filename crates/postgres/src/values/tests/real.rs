//! Every type against the server's own text: the same rows once in the binary format, decoded here, and once as text.

use std::error::Error;

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use verbatim_testkit::postgres::{Options, Postgres, Version};

use super::super::*;

/// A value's type and bytes, whatever they are.
struct Raw(u32, Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(of.oid(), Some(raw.to_vec())))
    }

    fn from_sql_null(of: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(of.oid(), None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

async fn client(server: &Postgres) -> Client {
    let config = format!("host={} port={} user=postgres", server.socket_dir().display(), server.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Compares every cell of a query's result; returns how many.
async fn compare(client: &Client, sql: &str) -> usize {
    let binary = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let text = client.simple_query(sql).await.unwrap();
    let text: Vec<_> = text
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect();
    assert_eq!(binary.len(), text.len());
    let mut cells = 0;
    for (binary, text) in binary.iter().zip(text) {
        for column in 0..binary.len() {
            let Raw(oid, bytes) = binary.get(column);
            let decoded = decode(oid, 1, bytes.as_deref());
            assert_eq!(Some(&*decoded.type_name), type_name(oid));
            let expected = match text.get(column) {
                None => ParameterValue::Null,
                Some(text) if oid == 17 => decode(17, 0, Some(text.as_bytes())).value,
                Some(text) => ParameterValue::Text(text.to_owned()),
            };
            assert!(
                decoded.value == expected,
                "{}: {} is {}, {bytes:x?}",
                decoded.type_name,
                shown(&expected),
                shown(&decoded.value)
            );
            cells += 1;
        }
    }
    cells
}

fn shown(value: &ParameterValue) -> String {
    match value {
        ParameterValue::Null => "NULL".to_owned(),
        ParameterValue::Text(text) => text.clone(),
        ParameterValue::Binary(bytes) => format!("bytes {}", bytes.escape_ascii()),
    }
}

/// Types, some values of each that matter, and an expression over `g` for a few hundred others.
const SCALARS: &[(&str, &[&str], &str)] = &[
    ("bool", &["t", "f"], "(h % 2 = 0)"),
    ("bytea", &["", r"\x00ff"], "decode(md5(g::text), 'hex')"),
    ("\"char\"", &["a", ""], "chr(33 + g % 94)"),
    ("name", &["", "a b"], "md5(g::text)"),
    ("int2", &["-32768", "32767"], "h % 32768"),
    ("int4", &["-2147483648", "2147483647"], "h"),
    ("int8", &["-9223372036854775808", "9223372036854775807"], "h::int8 * h"),
    ("oid", &["0", "4294967295"], "abs(h)"),
    ("xid", &["0", "4294967295"], "(abs(h::int8))::text"),
    ("cid", &["0", "4294967295"], "(abs(h::int8))::text"),
    ("xid8", &["0", "18446744073709551615"], "(abs(h::int8))::text"),
    ("tid", &["(0,0)", "(4294967295,65535)"], "format('(%s,%s)', abs(h::int8), g)"),
    ("text", &["", "null", "ä€😀", "a\"b\\c{d},e f\n\t"], "substr(md5(g::text), 1, g % 9)"),
    ("varchar", &["", "x"], "md5(g::text)"),
    ("bpchar", &["", "x  "], "md5(g::text)"),
    ("json", &["null", "{\"a\": [1, \"x\"]}"], "json_build_array(g, md5(g::text))"),
    ("jsonb", &["null", "{\"a\": [1, \"x\"]}"], "json_build_array(g, md5(g::text))"),
    ("jsonpath", &["$", "$.a[*] ? (@ > 1)"], "'$.a' || g"),
    ("xml", &["<a>b</a>"], "format('<a b=\"%s\"/>', g)"),
    (
        "float4",
        &[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e-45",
            "3.4028235e38",
            "999999",
            "1e6",
            "0.0001",
            "0.00009",
            "16777216",
            "33554432",
            "8.388608e12",
        ],
        "(h::float8 * 10.0::float8 ^ (g % 60 - 40))::float4",
    ),
    (
        "float8",
        &[
            "0",
            "-0",
            "NaN",
            "Infinity",
            "-Infinity",
            "5e-324",
            "1.7976931348623157e308",
            "999999999999999",
            "1e15",
            "1e14",
            "0.0001",
            "0.00009999",
            "1e23",
            "9007199254740993",
            "-1.5",
            "123456.789",
            "100000",
        ],
        "h::float8 * 10.0::float8 ^ (g % 600 - 310)",
    ),
    (
        "numeric",
        &[
            "0",
            "0.00",
            "-0.1",
            "NaN",
            "Infinity",
            "-Infinity",
            "1e1000",
            "1e-1000",
            "10000",
            "99990000.00010000",
            "-12345678901234567890.12345678900",
            "0.0000000001",
        ],
        "(h::numeric * 10::numeric ^ (g % 40 - 20))::numeric(1000, 30) * (10 ^ (g % 5))::int",
    ),
    ("money", &["0", "-0.01", "1234567.89", "-92233720368547758.08"], "(h::numeric / 100)"),
    ("uuid", &["00000000-0000-0000-0000-000000000000"], "md5(g::text)"),
    (
        "date",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 BC",
            "5874897-12-31",
            "0001-12-31 BC",
            "0001-01-01",
            "2000-02-29",
            "1900-03-01",
            "10000-01-01",
        ],
        "'2000-01-01'::date + h / 3000",
    ),
    (
        "time",
        &["00:00:00", "24:00:00", "23:59:59.999999", "01:02:03.4"],
        "'00:00:00'::time + h * '1.000001 s'::interval",
    ),
    (
        "timetz",
        &["00:00:00+00", "24:00:00-15:59:59", "12:00:00+05:30", "01:02:03.4-08"],
        "('00:00:00'::time + h * '1 s'::interval) || '+' || g % 15",
    ),
    (
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "1999-12-31 23:59:59.5",
            "0001-12-31 23:00:00 BC",
        ],
        "'2000-01-01'::timestamp + h * '31.4159 s'::interval",
    ),
    (
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00+00 BC",
            "294276-12-31 23:59:59.999999+00",
            "2026-07-01 12:00:00.000001+02",
        ],
        "'2000-01-01'::timestamptz + h * '31.4159 s'::interval",
    ),
    (
        "interval",
        &[
            "0",
            "1 year",
            "-1 year -1 mon",
            "1 year 2 mons 3 days 04:05:06.789",
            "-1 day +01:00:00",
            "1 mon -1 day",
            "-00:00:00.000001",
            "-178000000 years",
            "00:00:01",
            "2 days -00:00:01",
            "-1 mon 2 days",
            "1234567:00:00",
        ],
        "make_interval(years => h % 40, months => h % 13, days => h % 50, secs => h::float8 / 1000)",
    ),
    (
        "inet",
        &[
            "0.0.0.0/0",
            "127.0.0.1",
            "10.1.2.3/8",
            "::",
            "::1",
            "::2",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "2001:db8::1/64",
            "1:0:0:2::3",
            "1::",
            "1:2:3:4:5:6:7:8",
            "1:0:2:0:3:0:4:0",
        ],
        "'0.0.0.0'::inet + abs(h::int8)",
    ),
    (
        "cidr",
        &["0.0.0.0/0", "10.0.0.0/8", "127.0.0.1/32", "::/0", "2001:db8::/32", "::1/128"],
        "network(set_masklen('0.0.0.0'::inet + abs(h::int8), g % 33))",
    ),
    ("macaddr", &["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"], "substr(md5(g::text), 1, 12)"),
    ("macaddr8", &["00:00:00:00:00:00:00:00"], "substr(md5(g::text), 1, 16)"),
    ("bit(9)", &["000000000", "101010101"], "h::bit(9)"),
    ("varbit", &["", "1", "00000001", "101010101"], "h::bit(32)::varbit(32)"),
    ("point", &["(0,-0)", "(1.5,NaN)", "(1e300,-Infinity)"], "point(h, g / 7.0)"),
    ("lseg", &["[(0,0),(1,2)]"], "lseg(point(h, 1), point(g, h))"),
    ("box", &["(0,0),(1,2)", "(1,2),(0,0)"], "box(point(h, 1), point(g, h))"),
    ("path", &["[(0,0),(1,2)]", "((0,0),(1,2),(3,4))"], "format('[(%s,1),(2,%s)]', g, h)"),
    ("polygon", &["((0,0),(1,2),(3,4))"], "format('((%s,1),(2,%s))', g, h)"),
    ("line", &["{1,2,3}"], "line(point(g, 1), point(-1, h))"),
    ("circle", &["<(0,0),1>"], "circle(point(h, 1), g)"),
    ("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF", "1/0"], "format('%s/%s', g, to_hex(h))"),
    ("pg_snapshot", &["1:1:", "10:20:10,14,15"], "format('%s:%s:', g, g + 1)"),
    ("txid_snapshot", &["1:1:", "10:20:10,14,15"], "format('%s:%s:', g, g + 1)"),
    (
        "tsvector",
        &["", "a", "a:1A,2B,3C,4 'b c':5 'it''s' 'x\\\\y'"],
        "to_tsvector('simple', md5(g::text) || ' ' || g)",
    ),
    (
        "tsquery",
        &[
            "",
            "a",
            "!a",
            "!!a",
            "!(a & b)",
            "a & b | c",
            "(a | b) & c",
            "a <-> b <-> c",
            "a <-> (b <-> c)",
            "a <3> b",
            "a:*AB & 'it''s':D",
            "!(a <-> b) <2> (c | !d)",
            "a & (b & c)",
            "(a | b) <-> (c & d)",
        ],
        "plainto_tsquery('simple', md5(g::text) || ' ' || g)",
    ),
    ("oidvector", &["", "1 2 3"], "g || ' ' || g"),
    ("int2vector", &["", "-1 2 3"], "g || ' ' || g"),
    ("regtype", &["-"], "0::regtype"),
    ("refcursor", &["a b"], "md5(g::text)"),
    ("int4range", &["empty", "(,)", "[1,3)", "(,5)", "[7,)"], "int4range(g, g + 9)"),
    ("int8range", &["empty", "[1,3)"], "int8range(g, g + 9)"),
    ("numrange", &["empty", "(1.0,2.50]", "[-Infinity,NaN)"], "numrange(g / 7.0, g + 9, '(]')"),
    ("daterange", &["[2000-01-01,infinity)"], "daterange('2000-01-01', '2000-01-01'::date + g)"),
    (
        "tsrange",
        &["[\"2000-01-01 00:00:00\",infinity]"],
        "tsrange('2000-01-01', '2000-01-01'::timestamp + g * '1 s'::interval)",
    ),
    (
        "tstzrange",
        &["(,\"2000-01-01 00:00:00+00\"]"],
        "tstzrange('2000-01-01', '2000-01-01'::timestamptz + g * '1 s'::interval)",
    ),
    ("int4multirange", &["{}", "{[1,2),[3,4)}"], "int4multirange(int4range(g, g + 9))"),
    ("int8multirange", &["{(,)}"], "int8multirange(int8range(g, g + 9))"),
    ("nummultirange", &["{[1.5,2]}"], "nummultirange(numrange(g, g + 9))"),
    (
        "datemultirange",
        &["{[2000-01-01,infinity)}"],
        "datemultirange(daterange('2000-01-01', '2000-01-01'::date + g))",
    ),
    (
        "tsmultirange",
        &["{[2000-01-01,infinity)}"],
        "tsmultirange(tsrange('2000-01-01', '2000-01-01'::timestamp + g * '1 s'::interval))",
    ),
    (
        "tstzmultirange",
        &["{[2000-01-01,infinity)}"],
        "tstzmultirange(tstzrange('2000-01-01', '2000-01-01'::timestamptz + g * '1 s'::interval))",
    ),
];

/// Each type by itself, then in arrays of one and two dimensions, with NULL, from another first number, and empty.
async fn every_type(version: Version) {
    let server = Postgres::start(Options { version, ..Options::default() }).unwrap();
    let client = client(&server).await;
    let mut cells = 0;
    for (of, named, any) in SCALARS {
        let literal = |text: &&str| format!("('{}'::{of})", text.replace('\'', "''"));
        let named: Vec<_> = named.iter().map(literal).collect();
        let values = format!(
            "SELECT v FROM (VALUES {}) AS named (v) UNION ALL \
             SELECT ({any})::{of} FROM (SELECT g, hashint4(g) AS h FROM generate_series(1, 300) g) numbers",
            named.join(", ")
        );
        cells += compare(&client, &values).await;
        if ["oidvector", "int2vector"].contains(of) {
            // An array of vectors has two dimensions for `array_agg`.
            continue;
        }
        let arrays = format!(
            "SELECT a, ARRAY[a, a], array_fill(v, ARRAY[2, 2], ARRAY[-3, 0]), ARRAY[v, NULL, v], ARRAY[]::{of}[] \
             FROM (SELECT v, array_agg(v) OVER (ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS a \
             FROM ({values}) AS v) AS arrays WHERE cardinality(a) = 3"
        );
        cells += compare(&client, &arrays).await;
    }
    assert!(cells > 80_000, "{cells}");
}

#[tokio::test]
async fn every_type_reads_as_postgresql_15_prints_it() {
    every_type(Version::Debian15).await;
}

#[tokio::test]
async fn every_type_reads_as_postgresql_18_prints_it() {
    every_type(Version::Embedded18).await;
}

#[tokio::test]
async fn any_float_reads_as_the_server_prints_it() {
    let server = Postgres::start(Options::default()).unwrap();
    let client = client(&server).await;
    // Powers of two are where shortest decimals fall between two floats; the rest is spread by a multiplier.
    let doubles = (0..2047_u64).map(|exponent| f64::from_bits(exponent << 52));
    let spread = (1..4000_u64).map(|n| f64::from_bits(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let doubles: Vec<f64> =
        doubles.chain(spread).chain((0..330).map(|n| format!("1e{}", n - 20).parse().unwrap())).collect();
    let singles = (0..255_u32).map(|exponent| f32::from_bits(exponent << 23));
    let spread = (1..4000_u32).map(|n| f32::from_bits(n.wrapping_mul(0x9e37_79b9)));
    let singles: Vec<f32> = singles.chain(spread).collect();
    client
        .batch_execute("CREATE TEMP TABLE doubles (v float8); CREATE TEMP TABLE singles (v float4)")
        .await
        .unwrap();
    client.execute("INSERT INTO doubles SELECT unnest($1::float8[])", &[&doubles]).await.unwrap();
    client.execute("INSERT INTO singles SELECT unnest($1::float4[])", &[&singles]).await.unwrap();
    let cells =
        compare(&client, "SELECT v FROM doubles").await + compare(&client, "SELECT v FROM singles").await;
    assert_eq!(cells, doubles.len() + singles.len());
}

#[tokio::test]
async fn the_names_are_the_servers() {
    let server = Postgres::start(Options { version: Version::Embedded18, ..Options::default() }).unwrap();
    let client = client(&server).await;
    let rows = client.query("SELECT oid, typname::text FROM pg_type WHERE oid < 10000", &[]).await.unwrap();
    let names: std::collections::HashMap<u32, String> =
        rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (oid, name, _) in types::TYPES {
        // 15 had a few that 18 has not.
        assert!(names.get(oid).is_none_or(|known| known == name), "{name}");
    }
}
