// The shop's face: plain HTTP, nothing but Node itself.
'use strict';

const http = require('node:http');
const net = require('node:net');
const os = require('node:os');

const VERSION = '1';

const PORT = Number(process.env.PORT || 3000);
const API_URL = process.env.API_URL || 'http://api:8000';
const DB_ADDR = process.env.DB_ADDR || 'db:6379';
const GREETING = process.env.GREETING || 'Hello';
const TIMEOUT_MS = 3000;

function get(url) {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { timeout: TIMEOUT_MS }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text) => { body += text; });
      response.on('end', () => resolve(body.trim()));
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)));
    request.on('error', reject);
  });
}

// Redis' protocol, as far as one counter needs it: commands in a line each,
// answers that are a line each.
function redis(...commands) {
  const [host, port] = DB_ADDR.split(':');
  const lines = [['AUTH', process.env.REDIS_PASSWORD || ''], ...commands];
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = net.connect({ host, port: Number(port), timeout: TIMEOUT_MS });
    socket.setEncoding('utf8');
    socket.on('error', reject);
    socket.on('timeout', () => socket.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)));
    socket.on('data', (received) => {
      text += received;
      const answers = text.split('\r\n').slice(0, -1);
      const failed = answers.find((answer) => answer.startsWith('-'));
      if (failed) reject(new Error(failed.slice(1)));
      else if (answers.length >= lines.length) resolve(answers.slice(1).map((a) => a.slice(1)));
      else return;
      socket.end();
    });
    socket.write(lines.map((line) => `${line.join(' ')}\r\n`).join(''));
  });
}

async function home() {
  const answer = await get(`${API_URL}/visit`);
  return `${GREETING}\nversion: ${VERSION}\nhost: ${os.hostname()}\napi: ${answer}\n`;
}

async function database() {
  const [pong, count] = await redis(['PING'], ['INCR', 'frontend:db']);
  return `db: ${pong} from ${DB_ADDR}\ncount: ${count}\nhost: ${os.hostname()}\n`;
}

const pages = {
  '/': home,
  '/db': database,
  '/healthz': async () => 'ok\n',
};

const server = http.createServer(async (request, response) => {
  const page = pages[new URL(request.url, 'http://localhost').pathname];
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  if (!page) {
    response.writeHead(404).end('not found\n');
    return;
  }
  try {
    response.end(await page());
  } catch (error) {
    response.writeHead(502).end(`${error.code || ''} ${error.message}\n`.trimStart());
  }
});

server.listen(PORT, () => console.log(`frontend ${VERSION} listens on ${PORT}`));

// As process 1 of a container it would otherwise ignore SIGTERM.
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
