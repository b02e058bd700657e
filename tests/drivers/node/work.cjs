// node's `pg`: simple and extended queries, named statements, portals, COPY, LISTEN, cancel.
'use strict';
const { createHash } = require('node:crypto');
const { once } = require('node:events');
const { pipeline } = require('node:stream/promises');
const { Readable } = require('node:stream');
const pg = require('pg');
const Cursor = require('pg-cursor');
const copy = require('pg-copy-streams');

const say = (...values) => console.log(...values.map((v) => (typeof v === 'string' ? v : JSON.stringify(v))));
const section = (name) => say(`== ${name}`);

async function attempt(what, action) {
  try {
    say(what, '->', await action());
  } catch (error) {
    say(what, '-> error', error.code ?? null, error.severity ?? null, error.message, error.constraint ?? null);
  }
}

async function connect() {
  const client = new pg.Client({ application_name: 'driver-node' });
  await client.connect();
  return client;
}

async function statements(client) {
  section('statements');
  await client.query('CREATE TABLE node_items (id int PRIMARY KEY, name text UNIQUE, at timestamptz, tags text[], body jsonb)');
  for (let n = 0; n < 10; n++) {
    await client.query('INSERT INTO node_items VALUES ($1, $2, $3, $4, $5)',
      [n, `item ${n} 'ü'`, '2024-03-01 12:00:00+00', [`a${n}`, 'b,c', null], { n, nested: [true, null] }]);
  }
  const find = { name: 'find', text: 'SELECT * FROM node_items WHERE id = $1' };
  for (let n = 0; n < 4; n++) say((await client.query({ ...find, values: [n] })).rows);
  say((await client.query({ text: 'SELECT $1::int AS n, $2::text AS t', values: [7, null], rowMode: 'array' })).rows);
  say((await client.query("SELECT 1 AS one; SELECT 'two' AS two; UPDATE node_items SET name = name")).map((r) => [r.command, r.rowCount, r.rows]));
  await attempt('empty', async () => (await client.query('')).rows);
  await attempt('syntax', () => client.query('SELEC 1'));
  await attempt('syntax, extended', () => client.query('SELEC $1', [1]));
  await attempt('bad value', () => client.query('SELECT $1::int', ['seven']));
  await attempt('name reused', () => client.query({ name: 'find', text: 'SELECT 2' }));
  await attempt('division', () => client.query('SELECT 1 / $1::int', [0]));
  await attempt('next', async () => (await client.query('SELECT $1::bytea AS b', [Buffer.from([0, 1, 255])])).rows);
}

async function transactions(client) {
  section('transactions');
  await client.query('BEGIN');
  await attempt('violation', () => client.query('INSERT INTO node_items (id, name) VALUES ($1, $2)', [1, 'again']));
  await attempt('after it', () => client.query('SELECT $1::int', [1]));
  await attempt('simple after it', () => client.query('SELECT 1'));
  await client.query('ROLLBACK');
}

async function cursors(client) {
  section('cursor');
  const cursor = client.query(new Cursor('SELECT n, n * $1::int AS m FROM generate_series(1, 25) n', [2]));
  for (let rows = await cursor.read(10); rows.length > 0; rows = await cursor.read(10)) say(rows.length, rows[0]);
  await cursor.close();
  const half = client.query(new Cursor('SELECT n FROM generate_series(1, 100) n'));
  say((await half.read(3)).length);
  await half.close();
  await attempt('cursor error', async () => (await client.query(new Cursor('SELECT 10 / (5 - n) AS q FROM generate_series(1, 9) n')).read(100)));
  say((await client.query('SELECT 1 AS still')).rows);
}

async function copies(client) {
  section('copy');
  const lines = Array.from({ length: 3000 }, (_, n) => `${n + 100}\tcopied ${n}\n`);
  await pipeline(Readable.from(lines), client.query(copy.from('COPY node_items (id, name) FROM STDIN')));
  await attempt('bad data', () => pipeline(Readable.from(['9000\tfine\n', 'x\tbad\n']), client.query(copy.from('COPY node_items (id, name) FROM STDIN'))));
  const digest = createHash('sha256');
  for await (const block of client.query(copy.to('COPY (SELECT id, name FROM node_items ORDER BY id) TO STDOUT'))) digest.update(block);
  say(digest.digest('hex'));
  say((await client.query('SELECT count(*) FROM node_items')).rows);
}

async function notifications(client) {
  section('listen');
  const other = await connect();
  await client.query('LISTEN node_news');
  for (const payload of ['one', 'two']) {
    const arrived = once(client, 'notification');
    await other.query("SELECT pg_notify('node_news', $1)", [payload]);
    const [note] = await arrived;
    say(note.channel, note.payload);
  }
  await other.end();
}

// The server may signal a backend twice for one request, so the next statement may be hit as well.
async function afterACancel(client) {
  for (;;) {
    try {
      return (await client.query("SELECT 'works' AS next")).rows;
    } catch (error) {
      if (error.code !== '57014') throw error;
    }
  }
}

async function cancelling() {
  section('cancel');
  const client = await connect();
  const watcher = await connect();
  const { rows: [{ pid }] } = await client.query('SELECT pg_backend_pid() AS pid');
  const sleeping = client.query('SELECT pg_sleep(60)');
  const cancelled = attempt('cancelled', () => sleeping);
  for (let seen = 0; seen === 0;) {
    const { rows } = await watcher.query("SELECT count(*)::int AS seen FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'", [pid]);
    seen = rows[0].seen;
  }
  // pg's own cancel request, on a stream of its own.
  const canceller = new pg.Connection({ ssl: false });
  canceller.connect(Number(process.env.PGPORT), process.env.PGHOST);
  await once(canceller, 'connect');
  canceller.cancel(client.processID, client.secretKey);
  await cancelled;
  canceller.end();
  await watcher.end();
  say(await afterACancel(client));
  await client.end();
}

async function main() {
  const client = await connect();
  client.on('notice', (notice) => say('notice', notice.severity, notice.code, notice.message));
  await client.query("SET client_min_messages = warning; DROP TABLE IF EXISTS node_items; SET client_min_messages = notice; SET TimeZone = 'UTC'");
  await statements(client);
  await transactions(client);
  await client.query("DO $$ BEGIN RAISE NOTICE 'noticed'; END $$");
  await cursors(client);
  await copies(client);
  await notifications(client);
  if (!process.env.PGSSLMODE || process.env.PGSSLMODE === 'disable') await cancelling();
  section('big');
  const big = await client.query('SELECT n, repeat(md5(n::text), 10) AS t FROM generate_series(1, $1) n', [20000]);
  say(big.rowCount, createHash('sha256').update(JSON.stringify(big.rows)).digest('hex'));
  await client.query('DROP TABLE node_items');
  await client.end();
}

main().catch((error) => { console.error(error); process.exitCode = 1; });
