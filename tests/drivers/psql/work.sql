\set VERBOSITY verbose
\set QUIET on
\pset pager off
SET client_min_messages = warning;
DROP TABLE IF EXISTS psql_orders, psql_customers;
SET client_min_messages = notice;

CREATE TABLE psql_customers (id int PRIMARY KEY, name text NOT NULL, email text UNIQUE, born date, notes jsonb);
CREATE TABLE psql_orders (id int PRIMARY KEY, customer int REFERENCES psql_customers, total numeric(10, 2), at timestamptz);
INSERT INTO psql_customers VALUES (1, 'Ångström & Søn', 'a@example.com', '1980-02-29', '{"vip": true}'),
  (2, 'O''Hara', 'b@example.com', NULL, NULL), (3, E'tab\tand\nline', 'c@example.com', '2001-01-01', '[]');
INSERT INTO psql_orders SELECT n, 1 + n % 3, n * 1.25, timestamptz '2024-01-01 00:00Z' + n * interval '1 hour' FROM generate_series(1, 500) n;

-- Several statements in one message, a comment, and text that looks like several statements.
SELECT 1 AS one\; SELECT 'a;b' AS two\; SELECT $$dollar; 'quoted'$$ AS three;
SELECT c.name, count(*), sum(o.total) FROM psql_customers c JOIN psql_orders o ON o.customer = c.id GROUP BY 1 ORDER BY 1;
/* nested /* comments */ ; */ SELECT U&'d\0061t\+000061' AS unicode, '😀' AS emoji;
;

-- Errors: the server's own words, with position.
SELEC 1;
SELECT * FROM no_such_table;
SELECT 1 / 0;
SELECT 1 AS before_error\; SELECT 1 / 0\; SELECT 2 AS never;

-- A unique violation inside a transaction, and what follows it.
BEGIN;
INSERT INTO psql_customers VALUES (4, 'Dup', 'a@example.com', NULL, NULL);
SELECT 'never runs';
ROLLBACK;
BEGIN;
SAVEPOINT s;
INSERT INTO psql_customers VALUES (1, 'Dup', 'd@example.com', NULL, NULL);
ROLLBACK TO s;
INSERT INTO psql_customers VALUES (4, 'Fourth', 'd@example.com', NULL, NULL);
COMMIT;

-- Notices and their severities; a function that raises.
DO $$ BEGIN RAISE NOTICE 'noticed %', 1; RAISE WARNING 'warned'; RAISE INFO 'informed'; END $$;
DO $$ BEGIN RAISE EXCEPTION 'own code' USING ERRCODE = 'VB001', DETAIL = 'detail', HINT = 'hint'; END $$;

-- Parse and Describe without Execute.
SELECT id, name, born FROM psql_customers WHERE id = 1 \gdesc
SELECT count(*) AS customers FROM psql_customers \gset
\echo :customers
SELECT format('SELECT %s AS generated', n) FROM generate_series(1, 3) n \gexec

-- SQL's own prepared statements and cursors.
PREPARE find (int) AS SELECT name FROM psql_customers WHERE id = $1;
EXECUTE find(2);
EXECUTE find(NULL);
EXECUTE missing(1);
DEALLOCATE find;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM psql_orders ORDER BY id;
FETCH 3 FROM c;
MOVE 10 IN c;
FETCH BACKWARD 2 FROM c;
FETCH ALL FROM no_such_cursor;
ROLLBACK;
\set FETCH_COUNT 100
SELECT sum(s.id) OVER (ORDER BY id) FROM psql_orders s ORDER BY id LIMIT 205;
\unset FETCH_COUNT

-- COPY: both ways, by psql and by hand, and a failing one.
\copy psql_customers TO STDOUT WITH (FORMAT csv, HEADER)
COPY psql_customers (id, name, email) FROM STDIN;
10	ten	ten@example.com
11	eleven	\N
\.
COPY psql_customers (id, name) FROM STDIN;
12	twelve
not a number	x
\.
COPY (SELECT id, name FROM psql_customers ORDER BY id) TO STDOUT;
COPY psql_customers FROM '/no/such/file';

-- Large objects go by FunctionCall messages.
BEGIN;
\lo_import work.sql
SELECT length(lo_get(:LASTOID)) > 1000 AS stored;
\lo_unlink :LASTOID
COMMIT;

-- What people look at, which is long catalog queries.
\d psql_customers
\dt psql_*
\df pg_catalog.lower
EXPLAIN (COSTS OFF) SELECT * FROM psql_orders WHERE id = 7;
SHOW TimeZone;
SET TimeZone = 'Asia/Kathmandu';
SELECT at FROM psql_orders WHERE id = 1;
SET ROLE no_such_role;
SELECT length(repeat('x', 1000000)) AS a_megabyte, md5(string_agg(n::text, ',' ORDER BY n)) FROM generate_series(1, 20000) n;
SELECT repeat('long row ', 20000) AS long_row;
DROP TABLE psql_orders, psql_customers;
