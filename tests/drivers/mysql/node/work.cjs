// mysql2: text, prepared in binary, several statements, a change of user.
const fs = require('node:fs');
const mysql = require('mysql2/promise');

const say = (...values) => console.log(...values.map((value) => (typeof value === 'string' ? value : JSON.stringify(value))));

const options = {
  host: process.env.MYSQL_HOST,
  port: Number(process.env.MYSQL_PORT),
  user: process.env.MYSQL_USER,
  password: process.env.MYSQL_PASSWORD,
  database: process.env.MYSQL_DATABASE,
  ssl: { ca: fs.readFileSync(process.env.MYSQL_CA), rejectUnauthorized: true },
  multipleStatements: true,
  enableCleartextPlugin: true,
  dateStrings: true,
  supportBigNumbers: true,
  charset: 'utf8mb4',
  connectAttributes: { program_name: 'driver-node' },
};

async function attempt(what, action) {
  try {
    say(what, '->', (await action())[0]);
  } catch (error) {
    say(what, '-> error', error.errno, error.sqlState, error.sqlMessage);
  }
}

async function main() {
  const connection = await mysql.createConnection(options);
  const values = [7, -3000000000, 2.5, "täxt 'quoted' \\ back", null, Buffer.from([0, 1, 254, 255]), '2024-02-29 23:59:58.123456', true, '', '🦀'];
  say('== text');
  say((await connection.query('SELECT ' + values.map((_, place) => `? AS c${place}`).join(', '), values))[0]);
  await connection.query('CREATE TABLE node_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), data BLOB)');
  const [inserted] = await connection.query('INSERT INTO node_items (name, data) VALUES ?', [[['a', Buffer.from([0])], ["b'c", null]]]);
  say(inserted.affectedRows, inserted.insertId);
  await attempt('duplicate', () => connection.query('INSERT INTO node_items (id) VALUES (1)'));
  await attempt('syntax', () => connection.query('SELEC 1'));
  say((await connection.query('SELECT 1 AS a; SELECT name FROM node_items; UPDATE node_items SET name = 1; SELECT 4 AS d'))[0].length);
  await attempt('several', () => connection.query('SELECT 1 AS a; SELECT missing; SELECT 3'));

  say('== prepared');
  say((await connection.execute('SELECT ' + values.map((_, place) => `? AS c${place}`).join(', '), values))[0]);
  for (const pair of [[1, 'one'], [2.5, 'zwölf'], [null, null], ['4', Buffer.from('x')]]) {
    say((await connection.execute('SELECT ? AS a, ? AS b', pair))[0]);
  }
  const statement = await connection.prepare('SELECT id, name FROM node_items WHERE id >= ? ORDER BY id');
  say((await statement.execute([1]))[0]);
  say((await statement.execute([2]))[0]);
  await statement.close();
  await attempt('missing', () => connection.execute('SELECT ? FROM node_missing', [1]));

  say('== pipelined');
  const many = await Promise.all([1, 2, 3].map((n) => connection.execute('SELECT ? * 2 AS n', [n])));
  say(many.map(([rows]) => rows));

  say('== the session');
  await connection.changeUser({ user: options.user, password: options.password, database: options.database });
  say((await connection.query('SELECT DATABASE() AS d'))[0]);
  say((await connection.execute('SELECT ? AS a', ['after']))[0]);
  await connection.ping();
  await connection.query('DROP TABLE node_items');
  await connection.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
