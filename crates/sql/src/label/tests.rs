use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn check(dialect: Dialect, texts: &[&str], expected: Expect) {
    let mut table = String::new();
    for text in texts {
        let label = match statement(text, dialect) {
            Some(label) => format!("{} {}", label.effect().as_str(), label.word()),
            None => "-".to_owned(),
        };
        writeln!(table, "{label:16} {text}").unwrap();
    }
    expected.assert_eq(&table);
}

#[test]
fn what_reads() {
    check(
        Dialect::Postgres,
        &[
            "select 1",
            "(SELECT 1)",
            "VALUES (1), (2)",
            "TABLE t",
            "SELECT a FROM t UNION (SELECT b FROM u) ORDER BY 1",
            "SELECT * FROM t FOR UPDATE",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "SELECT ssn FROM customers WHERE name = $1 -- why; DROP TABLE t",
            "SELECT 'DELETE FROM t', $$ DROP TABLE t $$, U&'\\0061' /* nested /* DROP */ */",
            "EXPLAIN DELETE FROM t",
            "EXPLAIN (ANALYZE false, VERBOSE) DELETE FROM t",
            "COPY t TO STDOUT",
            "COPY (SELECT * FROM t) TO STDOUT (FORMAT binary)",
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "COMMIT",
            "ROLLBACK TO SAVEPOINT a",
            "SET search_path = a, b",
            "SET LOCAL statement_timeout = '5s'",
            "SHOW ALL",
            "DECLARE c CURSOR FOR SELECT 1",
            "FETCH ALL FROM c",
            "PREPARE p AS DELETE FROM t",
            "DEALLOCATE ALL",
            "LISTEN a",
            "DISCARD ALL",
        ],
        expect![[r#"
            read select      select 1
            read select      (SELECT 1)
            read select      VALUES (1), (2)
            read select      TABLE t
            read select      SELECT a FROM t UNION (SELECT b FROM u) ORDER BY 1
            read select      SELECT * FROM t FOR UPDATE
            read select      WITH x AS (SELECT 1) SELECT * FROM x
            read select      SELECT ssn FROM customers WHERE name = $1 -- why; DROP TABLE t
            read select      SELECT 'DELETE FROM t', $$ DROP TABLE t $$, U&'\0061' /* nested /* DROP */ */
            read explain     EXPLAIN DELETE FROM t
            read explain     EXPLAIN (ANALYZE false, VERBOSE) DELETE FROM t
            read copy        COPY t TO STDOUT
            read copy        COPY (SELECT * FROM t) TO STDOUT (FORMAT binary)
            read begin       BEGIN ISOLATION LEVEL SERIALIZABLE
            read commit      COMMIT
            read rollback    ROLLBACK TO SAVEPOINT a
            read set         SET search_path = a, b
            read set         SET LOCAL statement_timeout = '5s'
            read show        SHOW ALL
            read declare     DECLARE c CURSOR FOR SELECT 1
            read fetch       FETCH ALL FROM c
            read prepare     PREPARE p AS DELETE FROM t
            read deallocate  DEALLOCATE ALL
            read listen      LISTEN a
            read discard     DISCARD ALL
        "#]],
    );
}

#[test]
fn what_writes() {
    check(
        Dialect::Postgres,
        &[
            "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING RETURNING *",
            "update t set a = 1",
            "DELETE FROM t USING u WHERE t.a = u.a",
            "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE",
            "TRUNCATE t, u CASCADE",
            "COPY t FROM STDIN",
            "COPY t (\"from\", b) FROM STDIN WITH (FORMAT csv)",
            "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
            "WITH a AS (SELECT 1), b AS (WITH c AS (UPDATE t SET a = 1 RETURNING a) SELECT * FROM c) SELECT * FROM b",
            "WITH x AS (SELECT 1) DELETE FROM t",
            "SELECT 1 UNION (WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d)",
            "COPY (DELETE FROM t RETURNING *) TO STDOUT",
            "EXPLAIN ANALYZE DELETE FROM t",
            "EXPLAIN (VERBOSE, ANALYZE) DELETE FROM t",
            "EXPLAIN (ANALYZE on) UPDATE t SET a = 1",
            "NOTIFY a, 'b'",
            "LOCK TABLE t IN EXCLUSIVE MODE",
        ],
        expect![[r#"
            write insert     INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING RETURNING *
            write update     update t set a = 1
            write delete     DELETE FROM t USING u WHERE t.a = u.a
            write merge      MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE
            write truncate   TRUNCATE t, u CASCADE
            write copy       COPY t FROM STDIN
            write copy       COPY t ("from", b) FROM STDIN WITH (FORMAT csv)
            write delete     WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone
            write update     WITH a AS (SELECT 1), b AS (WITH c AS (UPDATE t SET a = 1 RETURNING a) SELECT * FROM c) SELECT * FROM b
            write delete     WITH x AS (SELECT 1) DELETE FROM t
            write delete     SELECT 1 UNION (WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d)
            write delete     COPY (DELETE FROM t RETURNING *) TO STDOUT
            write delete     EXPLAIN ANALYZE DELETE FROM t
            write delete     EXPLAIN (VERBOSE, ANALYZE) DELETE FROM t
            write update     EXPLAIN (ANALYZE on) UPDATE t SET a = 1
            write notify     NOTIFY a, 'b'
            write lock       LOCK TABLE t IN EXCLUSIVE MODE
        "#]],
    );
}

#[test]
fn what_changes_more_than_rows() {
    check(
        Dialect::Postgres,
        &[
            "SELECT * INTO copy FROM t",
            "CREATE TABLE t (a int)",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v)",
            "ALTER TABLE t ADD COLUMN b int",
            "DROP INDEX CONCURRENTLY i",
            "COMMENT ON TABLE t IS 'x'",
            "CREATE ROLE r LOGIN PASSWORD 'x'",
            "ALTER SYSTEM SET fsync = off",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r",
            "DROP DATABASE d",
            "CREATE EXTENSION dblink",
            "CREATE FOREIGN DATA WRAPPER w",
            "CREATE FOREIGN TABLE t (a int) SERVER s",
            "GRANT ALL ON t TO PUBLIC",
            "REVOKE ALL ON t FROM r",
            "SET ROLE admin",
            "SET SESSION AUTHORIZATION admin",
            "SET SESSION search_path = a",
            "RESET ROLE",
            "VACUUM (FULL, ANALYZE) t",
            "COPY t FROM PROGRAM 'curl x'",
            "COPY (SELECT 1) TO PROGRAM 'sh'",
            "LOAD 'x'",
            "DO $$ BEGIN DELETE FROM t; END $$",
            "CALL p(1)",
            "EXECUTE p (1)",
            "EXPLAIN ANALYZE EXECUTE p",
        ],
        expect![[r#"
            ddl select       SELECT * INTO copy FROM t
            ddl create       CREATE TABLE t (a int)
            ddl create       CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END
            ddl create       CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v)
            ddl alter        ALTER TABLE t ADD COLUMN b int
            ddl drop         DROP INDEX CONCURRENTLY i
            ddl comment      COMMENT ON TABLE t IS 'x'
            admin create     CREATE ROLE r LOGIN PASSWORD 'x'
            admin alter      ALTER SYSTEM SET fsync = off
            admin alter      ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r
            admin drop       DROP DATABASE d
            admin create     CREATE EXTENSION dblink
            admin create     CREATE FOREIGN DATA WRAPPER w
            ddl create       CREATE FOREIGN TABLE t (a int) SERVER s
            admin grant      GRANT ALL ON t TO PUBLIC
            admin revoke     REVOKE ALL ON t FROM r
            admin set        SET ROLE admin
            admin set        SET SESSION AUTHORIZATION admin
            read set         SET SESSION search_path = a
            admin reset      RESET ROLE
            admin vacuum     VACUUM (FULL, ANALYZE) t
            admin copy       COPY t FROM PROGRAM 'curl x'
            admin copy       COPY (SELECT 1) TO PROGRAM 'sh'
            admin load       LOAD 'x'
            unknown do       DO $$ BEGIN DELETE FROM t; END $$
            unknown call     CALL p(1)
            unknown execute  EXECUTE p (1)
            unknown explain  EXPLAIN ANALYZE EXECUTE p
        "#]],
    );
}

#[test]
fn of_several_the_worst_names_it() {
    check(
        Dialect::Postgres,
        &[
            "SELECT 1; DROP TABLE t",
            "DROP TABLE t; SELECT 1;",
            "BEGIN; INSERT INTO t VALUES (1); DELETE FROM t; COMMIT",
            "DELETE FROM t; DO $$ $$",
            ";; SELECT 1 ;; ",
            "SELECT 1; SELECT FROM WHERE; DROP TABLE t",
        ],
        expect![[r#"
            ddl drop         SELECT 1; DROP TABLE t
            ddl drop         DROP TABLE t; SELECT 1;
            write insert     BEGIN; INSERT INTO t VALUES (1); DELETE FROM t; COMMIT
            unknown do       DELETE FROM t; DO $$ $$
            read select      ;; SELECT 1 ;; 
            ddl drop         SELECT 1; SELECT FROM WHERE; DROP TABLE t
        "#]],
    );
}

#[test]
fn what_no_parser_reads_has_no_label() {
    check(
        Dialect::Postgres,
        &[
            "",
            " ",
            "-- nothing",
            ";",
            "FROBNICATE t",
            "SELECT )",
            "DELETE t t t",
            "SELECT 'open",
            "1",
            "\"select\" 1",
        ],
        expect![[r#"
            -                
            -                 
            -                -- nothing
            -                ;
            -                FROBNICATE t
            -                SELECT )
            -                DELETE t t t
            -                SELECT 'open
            -                1
            -                "select" 1
        "#]],
    );
}

#[test]
fn mysql_is_read_as_mysql() {
    check(
        Dialect::MySql,
        &[
            "SELECT `a` FROM `t` LIMIT 1, 2",
            "REPLACE INTO t VALUES (1)",
            "INSERT INTO t SET a = 1",
            "/*!50000 DROP TABLE t */",
            "SELECT 1 /*! INTO OUTFILE 'x' */",
            "# comment\nDELETE FROM t",
            "DESCRIBE t",
            "SHOW TABLES",
            "USE d",
            "SET GLOBAL general_log = 1",
            "LOAD DATA INFILE 'x' INTO TABLE t",
            "KILL 7",
            "FLUSH PRIVILEGES",
            "CALL p()",
        ],
        expect![[r#"
            read select      SELECT `a` FROM `t` LIMIT 1, 2
            write replace    REPLACE INTO t VALUES (1)
            write insert     INSERT INTO t SET a = 1
            ddl drop         /*!50000 DROP TABLE t */
            -                SELECT 1 /*! INTO OUTFILE 'x' */
            write delete     # comment
            DELETE FROM t
            read describe    DESCRIBE t
            read show        SHOW TABLES
            read use         USE d
            admin set        SET GLOBAL general_log = 1
            admin load       LOAD DATA INFILE 'x' INTO TABLE t
            admin kill       KILL 7
            admin flush      FLUSH PRIVILEGES
            unknown call     CALL p()
        "#]],
    );
}

#[test]
fn depth_has_a_bound_however_it_is_made() {
    let deep = [
        format!("SELECT {}1{}", "(".repeat(400_000), ")".repeat(400_000)),
        format!("SELECT 1{}", " + 1".repeat(250_000)),
        format!("SELECT 1{}", "::int".repeat(200_000)),
        format!("SELECT a{}", "[1]".repeat(200_000)),
        format!("SELECT {}1", "- ".repeat(500_000)),
        format!("SELECT {}true", "NOT ".repeat(250_000)),
        format!("SELECT a{}", " IS NULL".repeat(120_000)),
        format!("SELECT a{}", " COLLATE c".repeat(100_000)),
        format!("SELECT 1{}", " UNION SELECT 1, 2".repeat(50_000)),
        format!("SELECT f(1, 2){}", " + f(1, 2)".repeat(100_000)),
        format!("SELECT {}1{}", "(SELECT ".repeat(30_000), ")".repeat(30_000)),
        format!("SELECT {}1 END", "CASE WHEN ".repeat(90_000)),
        format!("{}SELECT 1", "EXPLAIN ".repeat(120_000)),
        format!("SELECT * FROM {}t{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("SELECT 1; {}", "BEGIN ".repeat(150_000)),
    ];
    for text in deep {
        // On this test's thread of 2 MiB. What is one statement of a simple kind has its label all the same.
        let label = statement(&text, Dialect::Postgres);
        assert!(label.is_none() || text.contains("BEGIN"), "{}", text.get(..40).unwrap());
    }
    let longest = format!("SELECT '{}'", "x".repeat(TEXT_MAX));
    assert_eq!(statement(&longest, Dialect::Postgres), None);
}

#[test]
fn what_people_write_is_within_the_bounds() {
    let rows = format!("INSERT INTO t VALUES {}(1, NULL)", "(-1, 'a'::text), ".repeat(20_000));
    let ors = format!("SELECT * FROM t WHERE a = 1{}", " OR a = 1".repeat(200));
    let list = format!("SELECT * FROM t WHERE a IN ({}1)", "1, ".repeat(50_000));
    let nested = format!("SELECT {}1{}", "(".repeat(12), ")".repeat(12));
    let joins = format!("SELECT * FROM t{}", " LEFT JOIN u ON t.a = u.a".repeat(50));
    for text in [rows, ors, list, nested, joins] {
        assert!(statement(&text, Dialect::Postgres).is_some(), "{}", text.get(..40).unwrap());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        statement(&text, Dialect::Postgres);
        statement(&text, Dialect::MySql);
    }

    #[test]
    fn no_statement_panics(words in proptest::collection::vec(proptest::sample::select(vec![
        "SELECT", "INSERT", "INTO", "UPDATE", "DELETE", "FROM", "WITH", "AS", "(", ")", ",", ";", "1", "'a'", "t", "UNION",
        "EXPLAIN", "ANALYZE", "COPY", "TO", "PROGRAM", "CREATE", "SET", "VALUES", "WHERE", "=", "::", "[", "]", "CASE",
    ]), 0..40)) {
        statement(&words.join(" "), Dialect::Postgres);
        statement(&words.join(" "), Dialect::MySql);
    }
}
