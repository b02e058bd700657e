// node-redis: commands, automatic pipelines, transactions, scripts, blocking commands, pub/sub, errors; RESP2 and RESP3.
const { createClient, defineScript } = require('redis');

const { REDIS_HOST: host, REDIS_PORT: port, REDIS_USER: username, REDIS_PASSWORD: password } = process.env;
const show = (name, value) => console.log(name, JSON.stringify(value));

const double = defineScript({
  SCRIPT: 'return ARGV[1] * 2',
  NUMBER_OF_KEYS: 1,
  parseCommand(parser, key, value) {
    parser.pushKey(key);
    parser.push(value.toString());
  },
  transformReply: (reply) => reply,
});

async function work(RESP) {
  console.log(`-- RESP${RESP}`);
  const client = createClient({
    username, password, RESP, socket: { host, port: Number(port) }, name: 'driver-node', scripts: { double },
  });
  await client.connect();
  await client.set('node:text', 'ein Wert mit Umlauten: äöü');
  show('get', await client.get('node:text'));
  show('missing', await client.get('node:missing'));
  show('together', await Promise.all(Array.from({ length: 50 }, () => client.incr('node:count'))));
  await client.hSet('node:hash', { a: '1', b: 'two words' });
  show('hash', Object.entries(await client.hGetAll('node:hash')).sort());
  await client.rPush('node:list', ['x', 'y', 'z']);
  show('list', await client.lRange('node:list', 0, -1));
  show('blocking', await client.blPop('node:list', 1));
  try {
    await client.incr('node:list');
  } catch (error) {
    show('error', error.message);
  }
  show('transaction', await client.multi().set('node:text', 'new').get('node:text').incr('node:count').exec());
  try {
    await client.multi().set('node:text', 'newer').addCommand(['NONSENSE']).exec();
  } catch (error) {
    show('aborted', error.message);
  }
  show('script', await client.double('node:count', 21));
  show('again', await client.double('node:count', 4));
  await client.sendCommand(['XADD', 'node:stream', '1-1', 'f', 'v']);
  show('stream', (await client.xRange('node:stream', '-', '+')).length);

  const subscriber = client.duplicate();
  await subscriber.connect();
  const heard = new Promise((resolve) => {
    subscriber.subscribe('node:channel', (message) => resolve(message)).then(() =>
      client.publish('node:channel', 'hello'));
  });
  show('message', await heard);
  await subscriber.unsubscribe('node:channel');
  await subscriber.close();
  show('del', await client.del(['text', 'count', 'hash', 'list', 'stream'].map((key) => `node:${key}`)));
  await client.close();
}

(async () => {
  await work(2);
  await work(3);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
